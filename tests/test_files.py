"""Files that are replaced: writers that are killed, full disks, planted links, and what killed writers leave behind."""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imagebind_cli import descriptors, files
from imagebind_cli.errors import UserError
from imagebind_cli.files import locked, open_locked, replacing, sweep, write_json, write_text
from imagebind_cli.prepared import open_writer
from imagebind_cli.store import FORMATS, Row, Store, open_store
from tests.conftest import Run

MB = 1 << 20
EXPORTED = [*(f"e{ending}" for ending in (*FORMATS, ".parquet")), "clip"]
MADE = {"model": "m", "weights": "0123", "modality": "audio", "dim": 6, "pool": "mean", "version": "1"}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def killed(code: str, *arguments: object, after: float | None = None) -> None:
    """Run code in a process that kills itself, or that is killed some seconds after its first line."""
    with subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE) as process:
        if after is not None:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(after)
            process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_file_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing(path) as place:
        place.write_text("new")
        assert path.read_text() == "old"
        assert place.name == "a.txt"
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError), replacing(path) as place:
        place.write_text("broken")
        _ = 1 / 0
    assert (names(tmp_path), path.read_text()) == (["a.txt"], "new")
    write_json(tmp_path / "a.json", {"é": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "\\u00e9": 1\n}\n'


def test_what_is_written_beside_comes_along_and_a_folder_is_a_folder(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.npy") as place:
        np.save(place, np.arange(3))
        place.with_suffix(".jsonl").write_text("ids")
    with replacing(tmp_path / "model") as place:
        (place / "inner").mkdir(parents=True)
        (place / "inner" / "x").write_text("x")
    assert names(tmp_path) == ["a.jsonl", "a.npy", "model"]
    assert (tmp_path / "model/inner/x").read_text() == "x"


def test_rights_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "a")
        with replacing(tmp_path / "b") as place:
            place.mkdir()
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640, 0o750]


def test_long_and_odd_names(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127, "\udcff", ".hidden", "a\nb", "lock", "a.0123456789abcdef.partial"):
        write_text(tmp_path / name, name.encode("utf-8", "backslashreplace").decode())
        assert (tmp_path / name).exists()
    assert len(names(tmp_path)) == 7


def test_the_target_of_a_link_is_replaced_and_a_pipe_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/b").write_text("old")
    (tmp_path / "a").symlink_to("far/b")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "far/b").read_text() == "new"
    code = "from pathlib import Path; from imagebind_cli.files import write_text; write_text(Path('/dev/stdout'), 'through')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"through"


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / files.LOCK).write_text("precious")
    planted = tmp_path / ".a.0123456789abcdef.partial"
    planted.symlink_to("victim")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0123456789abcdef")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a", "a")
    sweep(tmp_path)
    assert planted.is_symlink()
    assert (tmp_path / "victim" / files.LOCK).read_text() == "precious"
    (tmp_path / "l").symlink_to("victim/new")
    with pytest.raises(OSError, match="symbolic links"):
        open_locked(tmp_path / "l", "busy", os.O_NOFOLLOW)
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "l"):
        pass
    for name in ("s.h5.journal", "p.h5.partial", ".s.safetensors.lock"):
        (tmp_path / name).symlink_to("victim" if "partial" in name else "victim/new")
    for path in (tmp_path / "s.h5", tmp_path / "s.safetensors"):
        with pytest.raises(UserError, match="symbolic links"):
            Store(path, MADE)
    with pytest.raises(UserError, match=r"p.h5.partial: is a link"):
        open_writer(str(tmp_path / "p.h5"), {"inputs": {}})
    assert names(tmp_path / "victim") == [files.LOCK]


def test_a_folder_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        write_text(tmp_path, "")
    with pytest.raises(UserError, match="there is no folder"):
        write_text(tmp_path / "gone/a", "")


# Killed

WRITES = """
import sys
from pathlib import Path
from imagebind_cli.files import replacing
print("begins", flush=True)
for number in range(1_000_000):
    with replacing(Path(sys.argv[1])) as place, open(place, "wb") as file:
        for _ in range(64):
            file.write(b"%d" % (number % 10) * 4096)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file_and_nothing_that_stays(tmp_path: Path) -> None:
    path, left = tmp_path / "a", 0
    for _ in range(12):
        killed(WRITES, path, after=random.uniform(0, 0.1))
        if path.exists():
            content = path.read_bytes()
            assert content == content[:1] * 64 * 4096
        left += len(names(tmp_path)) > path.exists()
    assert left  # else no kill came in the middle
    write_text(path, "whole")
    assert names(tmp_path) == ["a"]


DIES = """
import os, signal, sys
from pathlib import Path
from imagebind_cli import files
real, left = getattr(os, sys.argv[2]), [int(sys.argv[3])]
def call(*arguments, **named):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)
setattr(os, sys.argv[2], call)
files.write_text(Path(sys.argv[1]), "new")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("call", ["mkdir", "open", "fsync", "replace", "unlink", "rmdir"])
@pytest.mark.parametrize("times", [0, 1])
def test_a_kill_at_each_call_leaves_the_old_file_or_the_new(tmp_path: Path, call: str, times: int) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    killed(DIES, path, call, times)
    assert path.read_text() in ("old", "new")
    write_text(tmp_path / "other", "")
    assert names(tmp_path) == ["a", "other"]


def test_what_a_running_writer_builds_is_not_swept(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as place:
        place.write_text("a")
        code = "import sys; from pathlib import Path; from imagebind_cli.files import write_text; write_text(Path(sys.argv[1]), 'b')"
        subprocess.run([sys.executable, "-c", code, tmp_path / "b"], check=True)
        write_text(tmp_path / "c", "c")
    assert names(tmp_path) == ["a", "b", "c"]


def test_only_our_own_leftovers_are_swept(tmp_path: Path) -> None:
    for name in (".a.0123456789abcdef.partial", "b.0123456789abcdef.partial", ".c.partial", ".d.0123456789abcdeg.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".e.0123456789abcdef.partial").write_text("a file of somebody else")
    (tmp_path / ".f.0123456789abcdef.partial").mkdir()
    (tmp_path / ".f.0123456789abcdef.partial/photo.jpg").write_text("without our lock")
    sweep(tmp_path)
    assert ".a.0123456789abcdef.partial" not in names(tmp_path)
    assert len(names(tmp_path)) == 5


def test_where_there_are_no_locks_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(DIES, tmp_path / "a", "replace", 0)
    (left,) = names(tmp_path)

    def refuse(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(descriptors.fcntl, "flock", refuse)
        write_text(tmp_path / "a", "a")
        assert names(tmp_path) == [left, "a"]
    write_text(tmp_path / "a", "a")
    assert names(tmp_path) == ["a"]


HOLDS = """
import sys, time
from pathlib import Path
from imagebind_cli.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDS, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UserError, match="not now"), locked(path, busy="not now"):
            pass
        process.kill()
        with locked(path):  # waits
            process.wait()


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB; where none can be mounted, a folder in which no file may grow beyond that."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode == 0:
        yield disk
        subprocess.run(["umount", disk], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, before[1]))
    yield disk
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_file_and_leaves_the_old_one(small_disk: Path) -> None:
    path = small_disk / "a"
    write_text(path, "old")
    with pytest.raises(OSError, match=r"No space left|File too large") as refused:
        write_text(path, "n" * 2 * MB)
    assert refused.value.filename == str(path)
    assert (names(small_disk), path.read_text()) == (["a"], "old")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of stdin, which a thread's error may hold a little longer
@pytest.mark.parametrize("command", [("weights", "convert", "tiny"), ("embed", "text", "a", "b", "--model", "tiny", "-o")])
@pytest.mark.parametrize("refusal", ["full", "fsync"])
def test_a_disk_that_refuses_ends_a_command_in_one_line(
    small_disk: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], refusal: str
) -> None:
    if refusal == "full":
        (small_disk / "other").write_bytes(bytes((1 << 20) - 8192))
    else:

        def fail(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fail)
    run = imagebind(*command, small_disk / ("m" if command[0] == "weights" else "s.h5"))
    assert run.code == 1
    assert len(run.notices) == 1
    assert ("No space left" if refusal == "full" else "Input/output error") in run.err
    assert str(small_disk) in run.err
    assert command[0] == "embed" or names(small_disk) in ([], ["other"])  # what a store holds at that moment counts


@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_a_broken_disk_names_the_file(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), *(map(str, arguments[:1]) if call != "fsync" else ()))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output error") as broken:
            write_text(tmp_path / "a", "new")
    assert broken.value.filename == str(tmp_path / "a")
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "old")


# Stores


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "s.h5"
    vectors = np.random.default_rng(0).standard_normal((3000, 6)).astype(np.float32)
    with Store(path, MADE) as new:
        for number, vector in enumerate(vectors):
            new.append([Row(f"{number:06}", vector)])
    with Store(path, MADE) as again:
        again.append([Row("000000", vectors[0])])
    return path


EXPORTS = """
import os, signal, sys
from pathlib import Path
from imagebind_cli.store import export, open_store, reader, writer
writer.FLUSH_ROWS = 100
items, number = reader.StoreReader.items, 0
def dies(self):
    for count, rows in enumerate(items(self)):
        if count == 2500:
            os.kill(os.getpid(), signal.SIGKILL)
        yield rows
reader.StoreReader.items = dies
export.export(open_store(Path(sys.argv[1])), Path(sys.argv[2]), "float32", clip_retrieval=sys.argv[2].endswith("clip"))
"""


@pytest.mark.parametrize("name", EXPORTED)
def test_a_killed_export_leaves_nothing_under_the_name_and_the_next_is_whole(store: Path, name: str) -> None:
    from imagebind_cli.store import export

    if name in ("e.parquet", "clip"):
        pytest.importorskip("pyarrow")
    path = store.with_name(name)
    killed(EXPORTS, store, path)
    assert [each for each in names(store.parent) if not each.startswith(".")] == ["s.h5"]
    export.export(open_store(store), path, "float32", clip_retrieval=name == "clip")
    assert not [each for each in names(store.parent) if each.startswith(".")]
    if name not in ("e.parquet", "clip"):
        assert open_store(path).ids == open_store(store).ids


@pytest.mark.parametrize("name", EXPORTED)
def test_an_export_to_a_full_disk_leaves_nothing_and_says_so_in_one_line(store: Path, tmp_path: Path, name: str) -> None:
    if name in ("e.parquet", "clip"):
        pytest.importorskip("pyarrow")
    kind = ["--clip-retrieval"] if name == "clip" else []
    exports = [sys.executable, "-m", "imagebind_cli", "store", "export", store, "-o", tmp_path / name, *kind]
    run = subprocess.run(["bash", "-c", 'ulimit -f 40; exec "$@"', "bash", *exports], capture_output=True, text=True)
    assert (run.returncode, len(run.stderr.splitlines())) == (1, 1), run.stderr
    assert str(tmp_path / name) in run.stderr
    assert names(tmp_path) == ["s.h5"]


COMPACTS = """
import os, signal, sys
from pathlib import Path
from imagebind_cli.store import journal, writer
from imagebind_cli.store.maintenance import compact
writer.FLUSH_ROWS = 1000
commits = journal.JournaledFile.commit
def dies(self):
    if ".partial" in str(self._path) and self._length:
        self._apply = lambda pages: os.kill(os.getpid(), signal.SIGKILL)
    commits(self)
journal.JournaledFile.commit = dies
compact(Path(sys.argv[1]))
"""


def test_a_killed_compact_harms_nothing_that_comes_after(store: Path) -> None:
    from imagebind_cli.store.maintenance import compact

    before = sorted(open_store(store).ids)
    killed(COMPACTS, store)
    assert sorted(open_store(store).ids) == before
    assert compact(store) == 1
    assert (sorted(open_store(store).ids), open_store(store).replaced) == (before, 0)
    assert names(store.parent) == ["s.h5"]


def test_the_journal_of_a_removed_store_does_not_harm_a_new_one(store: Path) -> None:
    code = COMPACTS.replace('".partial" in str(self._path) and ', "").replace(
        "compact(Path(sys.argv[1]))",
        "from imagebind_cli.store import Row, Store, open_store\n"
        "import numpy as np\n"
        "with Store(Path(sys.argv[1]), open_store(sys.argv[1]).provenance) as store:\n"
        "    store.append([Row('new', np.ones(6, np.float32))])\n",
    )
    killed(code, store)
    assert store.with_name("s.h5.journal").exists()
    store.unlink()
    with Store(store, MADE) as new:
        new.append([Row("first", np.ones(6, np.float32))])
    assert open_store(store).ids == ["first"]


def test_nothing_new_is_left_beside_a_file_that_could_not_be_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a disk fails between the two renames: the same command would refuse what it left."""
    (tmp_path / "old.json").write_text("before")
    sync, folders = files.sync, itertools.count()

    def failing(path: Path) -> None:
        if path == tmp_path and next(folders) == 1:
            raise OSError(errno.EIO, "Input/output error")
        sync(path)

    monkeypatch.setattr(files, "sync", failing)
    with pytest.raises(OSError, match="Input/output error"), files.replacing(tmp_path / "out.npy") as place:
        for name in ("out.npy", "out.jsonl", "old.json"):
            place.with_name(name).write_text("after")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["old.json"]
