"""Break every command that writes: killed, out of disk, by a write that fails or a limit; then the same command again, compared with an unbroken run.

    python -m reliability.faults [--kills 100] [--full 30] [--errors 20] [--writes 60] [--limits 20] [--seed 0] [--writers export,pull] [--work DIR]

After each fault, what bears a final name must be whole: a file equal to that of the unbroken run, or, where a store grows in place, one that
`imagebind store check` passes. Then the same command runs once more, and everything must equal the unbroken run. Full disks are small
tmpfs mounts, which only root may make. A failing write of any library is made by `eio.c`: where there is a C compiler, this program builds it and
starts again with it.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import functools
import http.server
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.store import FORMATS, is_store, open_store
from reliability.nursery import fork, run, warm
from reliability.seeds import picture

MODEL = ("--model", "tiny", "--device", "cpu")
TEXTS = 3000
LIMIT = 120.0
SHIM = Path(__file__).parent / "eio.c"
MANY_CALLS = 1 << 40


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    prepare: commands that make its inputs, in the folder. outputs: names of what it leaves. grows: its output is written in place, row by row.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[str, ...]
    prepare: tuple[tuple[str, ...], ...] = ()
    grows: bool = False


EMBED_A = ("embed", "text", "--manifest", "texts.jsonl", "-o", "a.h5", *MODEL)
EMBED_B = ("embed", "text", "--manifest", "more.jsonl", "-o", "b.h5", *MODEL)


def _export(ending: str, *arguments: str) -> Writer:
    output = f"out{ending}"
    files = tuple(map(str, FORMATS[ending].files(Path(output)))) if ending in FORMATS else (output,)
    return Writer(f"export {ending or 'folder'}", ("store", "export", "a.h5", "-o", output, *arguments), files, (EMBED_A,))


WRITERS = [
    *(Writer(f"embed {ending}", (*EMBED_A[:5], f"out{ending}", *MODEL), (f"out{ending}",), grows=True) for ending in FORMATS),
    *(_export(ending) for ending in (*FORMATS, ".parquet")),
    _export("", "--clip-retrieval"),
    Writer("merge", ("store", "merge", "a.h5", "b.h5", "-o", "out.h5"), ("out.h5",), (EMBED_A, EMBED_B), grows=True),
    Writer("compact", ("store", "compact", "a.h5"), ("a.h5",), (EMBED_A,), grows=True),
    Writer("index", ("retrieve", "a.h5", "--like", "0", "--index", "hnsw"), ("a.h5.hnsw.faiss",), (EMBED_A,)),
    Writer("retrieve page", ("retrieve", "a.h5", "--like", "0", "--html", "out.html"), ("out.html",), (EMBED_A,)),
    Writer(
        "zeroshot reports",
        (
            "zeroshot",
            "image",
            "pictures",
            "--labels",
            "names.txt",
            "--truth",
            "folder",
            "--report",
            "out.json",
            "--html",
            "out.html",
            *MODEL,
        ),
        ("out.json", "out.html"),
    ),
    Writer("preprocess .tar", ("preprocess", "image", "pictures", "-o", "out.tar", "--model", "tiny"), ("out.tar",)),
    Writer("preprocess .h5", ("preprocess", "image", "pictures", "-o", "out.h5", "--model", "tiny"), ("out.h5",)),
    Writer("convert", ("weights", "convert", "tiny", "out"), ("out",)),
    Writer("pull", ("weights", "pull", "huge"), ("home",)),
]


def make_inputs(folder: Path) -> None:
    """Write what the commands read."""
    folder.mkdir(parents=True)
    for name, count in (("texts", TEXTS), ("more", 2 * TEXTS)):
        start = 0 if name == "texts" else TEXTS
        lines = (json.dumps({"id": str(number), "text": f"sentence {number}"}) for number in range(start, count))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "names.txt").write_text("a dog\na cat\n")
    for number in range(40):
        file = folder / "pictures" / ("a dog", "a cat")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture("RGB").rotate(9 * number).save(file)


def content(path: Path) -> object:
    """What an output holds, in a form that two runs can be compared by; None where it is missing."""
    if not path.exists():
        return None
    with suppress(UserError):  # the ids beside a .npy are lines as well
        if is_store(path):
            reader = open_store(path)
            return [reader.ids, np.asarray(reader.vectors()).tobytes()]
    if path.is_dir():
        names = sorted(
            str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and not file.name.startswith((".", "origin"))
        )
        return [(name, (path / name).read_bytes()) for name in names]
    return path.read_bytes()


class Bench:
    """Folders in which a writer is broken, and what it leaves when nothing breaks it."""

    def __init__(self, writer: Writer, work: Path) -> None:
        self.writer, self.work = writer, work
        self.command = writer.command
        self.inputs = work / "inputs"
        make_inputs(self.inputs)
        for command in writer.prepare:
            self._must(command, self.inputs)
        whole = self.fresh(work / "whole")
        warm(self.command, self.fresh(work / "warm"))
        started = time.monotonic()
        self._must(self.command, whole)
        self.seconds = time.monotonic() - started
        self.expected = {name: content(whole / name) for name in writer.outputs}
        missing = [name for name, held in self.expected.items() if held is None]
        if missing:
            raise RuntimeError(f"{writer.name}: the unbroken run left no {missing}")

    def fresh(self, folder: Path) -> Path:
        """Make a folder with the inputs."""
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(self.inputs, folder)
        return folder

    def _must(self, command: tuple[str, ...], folder: Path) -> None:
        os.environ["IMAGEBIND_HOME"] = str(folder / "home")
        result = run(command, folder=folder, limit=LIMIT)
        if result.code:
            raise RuntimeError(f"imagebind {' '.join(command)}: exit {result.code}: {result.err}")

    def check(self, folder: Path) -> str | None:
        """Name what is wrong with what a broken run left under final names."""
        for name, expected in self.expected.items():
            path = folder / name
            if not path.exists():
                continue
            if self.writer.grows:
                if is_store(path) and run(("store", "check", name), folder=folder, limit=LIMIT).code:
                    return f"{name} does not pass store check"
            elif name != "home" and content(path) != expected:
                return f"{name} is cut under its final name"
        return None

    def again(self, folder: Path) -> str | None:
        """Run the command once more and name how the result differs from the unbroken run."""
        os.environ["IMAGEBIND_HOME"] = str(folder / "home")
        before = {name: content(folder / name) for name in self.writer.outputs}
        result = run(self.command, folder=folder, limit=LIMIT)
        if result.is_traceback:
            return f"traceback: {result.err.splitlines()[-1]}"
        if result.code and before != self.expected:  # where all is there already, a command may say so
            return f"exit {result.code}: {result.err.splitlines()[-1] if result.err else ''}"
        return next((f"{name} differs" for name in self.writer.outputs if content(folder / name) != self.expected[name]), None)

    def start(self, folder: Path, prepare: Callable[[], None] | None = None) -> int:
        """Start the command in a folder."""
        os.environ["IMAGEBIND_HOME"] = str(folder / "home")
        return fork(self.command, folder=folder, err=folder / ".said", prepare=prepare)

    def killed(self, draw: random.Random) -> str | None:
        """Kill a run at a random moment, and check; None as well where it had ended before."""
        folder = self.fresh(self.work / "run")
        child = self.start(folder)
        time.sleep(draw.uniform(0, self.seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return self.check(folder) or self.again(folder)

    def full_disk(self, draw: random.Random) -> str | None:
        """Run on a disk with too little room, check, make room and check again."""
        folder = self.work / "mount"
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
        try:
            inside = self.fresh(folder / "run")
            free = shutil.disk_usage(folder).free
            needed = max(1, sum(len(str(held)) // 2 if not isinstance(held, bytes) else len(held) for held in self.expected.values()))
            ballast = folder / "ballast"
            ballast.write_bytes(bytes(max(0, free - int(needed * draw.uniform(0, 0.9)) - 4096)))
            _, status = os.waitpid(self.start(inside), 0)
            said = (inside / ".said").read_text(errors="replace") if (inside / ".said").exists() else ""
            ballast.unlink()
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                return f"signal {-code}"
            if "Traceback" in said:
                return f"traceback: {said.splitlines()[-1]}"
            return self.check(inside) or self.again(inside)
        finally:
            subprocess.run(["umount", folder], check=True)

    def refused(self, draw: random.Random) -> str | None:
        """Let one fsync fail as a broken disk does, check, and run again."""
        chosen = draw.randrange(4)

        def prepare() -> None:
            sync, calls = os.fsync, iter(range(1 << 30))

            def broken(file: int) -> None:
                if next(calls) == chosen:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                sync(file)

            os.fsync = broken  # type: ignore[assignment]

        return self._hindered(prepare)

    def failing_write(self, draw: random.Random) -> str | None:
        """Let one write or sync of any library fail with EIO, check, and run again."""
        chosen = draw.randrange(self.calls)
        return self._hindered(lambda: arm(chosen))

    @functools.cached_property
    def calls(self) -> int:
        """Count the writes and syncs of an unbroken run."""
        folder = self.fresh(self.work / "run")

        def prepare() -> None:
            leave = os._exit

            def noted(code: int) -> None:
                (folder / ".calls").write_text(str(MANY_CALLS - shim().eio_left()))
                leave(code)

            os._exit = noted  # type: ignore[assignment]
            arm(MANY_CALLS)

        os.waitpid(self.start(folder, prepare), 0)
        calls = int((folder / ".calls").read_text())
        if not 0 < calls < MANY_CALLS // 2:
            raise RuntimeError(f"{self.writer.name}: the shim counted {calls} writes")
        return calls

    def limited(self, draw: random.Random) -> str | None:
        """Let no file grow beyond a part of the largest output, as `ulimit -f` does, check, and run again."""
        files = (file for name in self.writer.outputs for file in (self.work / "whole" / name, *(self.work / "whole" / name).rglob("*")))
        limit = int(max(file.stat().st_size for file in files if file.is_file()) * draw.uniform(0.1, 0.9))
        return self._hindered(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))

    def _hindered(self, prepare: Callable[[], None]) -> str | None:
        """Run with what `prepare` does to the process, check, and run again without it."""
        folder = self.fresh(self.work / "run")
        _, status = os.waitpid(self.start(folder, prepare), 0)
        said = (folder / ".said").read_text(errors="replace")
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, 1) or "Traceback" in said:
            return f"exit {code}: {said.splitlines()[-1] if said else ''}"
        return self.check(folder) or self.again(folder)


def arm(calls: int) -> None:
    """Let a write or sync of this process fail, after so many that do not."""
    shim().eio_arm(calls)


@functools.cache
def shim() -> ctypes.CDLL:
    """Return the functions of the shim, which must be loaded."""
    library = ctypes.CDLL(None)
    library.eio_arm.argtypes, library.eio_left.restype = [ctypes.c_long], ctypes.c_long
    return library


def build_shim(folder: Path) -> Path | None:
    """Build the shim, and return it; None without a C compiler that can."""
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / "eio.so"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        return None
    return None if subprocess.run([compiler, "-shared", "-fPIC", "-o", built, SHIM, "-ldl"], check=False).returncode else built


def with_shim() -> bool:
    """Check whether the shim is loaded, after starting this program again with it where it can be built."""
    if "eio.so" in os.environ.get("LD_PRELOAD", ""):
        return hasattr(ctypes.CDLL(None), "eio_arm")
    built = build_shim(Path("build").absolute())
    if built is not None:
        os.environ["LD_PRELOAD"] = str(built)
        os.execv(sys.executable, [sys.executable, "-m", "reliability.faults", *sys.argv[1:]])
    return False


def can_mount() -> bool:
    """Check whether this process may mount a tmpfs, by mounting one."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def serve(folder: Path) -> str:
    """Serve a folder on this machine and return its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send a file to a client that may be killed meanwhile."""
        with suppress(ConnectionError):
            super().copyfile(source, outputfile)


def main() -> None:
    """Break every writer in turn; exit with 1 if anything was cut, lost or different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full", type=int, default=30)
    parser.add_argument("--errors", type=int, default=20)
    parser.add_argument("--writes", type=int, default=60)
    parser.add_argument("--limits", type=int, default=20)
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writers", help="parts of names of writers, with commas between")
    parser.add_argument("--work", type=Path)
    chosen = parser.parse_args()
    wanted = chosen.writers.split(",") if chosen.writers else [""]
    writers = [writer for writer in WRITERS if any(part in writer.name for part in wanted)]
    draw, rows, wrong = random.Random(chosen.seed), [], 0
    until = time.monotonic() + (chosen.seconds or 1e9)
    full = chosen.full if can_mount() else 0
    if full < chosen.full:
        print("full disks are left out: only root may mount a tmpfs, and not in every container", file=sys.stderr)
    writes = chosen.writes if chosen.writes and with_shim() else 0
    if writes < chosen.writes:
        print("failing writes are left out: there is no C compiler to build reliability/eio.c, or this is not Linux", file=sys.stderr)
    if chosen.seconds:  # a short run breaks other writers each time it has another seed
        draw.shuffle(writers)
    with tempfile.TemporaryDirectory(dir=chosen.work) as work:
        served = Path(work) / "served"
        weights = served / "imagebind" / "imagebind_huge.pth"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"PK\x03\x04" + random.Random(0).randbytes(40_000_000))
        os.environ["IMAGEBIND_MIRROR"] = serve(served)
        for number, writer in enumerate(writers):
            if time.monotonic() > until:
                break
            bench = Bench(writer, Path(work) / str(number))
            faults = {
                "killed": chosen.kills,
                "full_disk": full,
                "refused": chosen.errors,
                "failing_write": writes,
                "limited": chosen.limits,
            }
            for fault, total in faults.items():
                share = total // len(writers) + (number < total % len(writers))
                found, runs = Counter[str](), 0
                while runs < share and time.monotonic() < until:
                    runs += 1
                    found.update(filter(None, [getattr(bench, fault)(draw)]))
                if not runs:
                    continue
                wrong += sum(found.values())
                rows.append({"writer": writer.name, "fault": fault, "runs": runs, "wrong": dict(found)})
                print(json.dumps(rows[-1]), flush=True)
            shutil.rmtree(bench.work)
    print(json.dumps({"runs": sum(row["runs"] for row in rows), "wrong": wrong}))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
