"""The command that decodes once: what embed makes of its output is what it makes of the files; killed and run again, it is whole."""

from __future__ import annotations

import io
import json
import os
import pty
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import imagebind_cli as ib
from imagebind_cli import registry
from imagebind_cli.demo import SAMPLES
from imagebind_cli.prepared import ShardWriter, index, read_shard
from imagebind_cli.sources import from_arguments
from imagebind_cli.weights import model_config
from tests import generate
from tests.conftest import Python, Run, Start
from tests.family import family, gone
from tests.forkserver import Forked, ForkServer

FACES = [name for name in registry.MODALITIES if name != "vision"]
SENTENCES = 400
PART = 30_000  # bytes of a shard
SOON = 20  # seconds, on a machine that does much else; whoever is left behind would work for minutes


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A call gives back torch's threads that it takes while it reads."""
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


@pytest.fixture
def here(imagebind: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`imagebind ARGUMENTS` in this process, in a folder of its own, with the tiny model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGEBIND_MODEL", "tiny")
    return imagebind


def vectors(printed: bytes) -> dict[str, np.ndarray]:
    rows = [json.loads(line) for line in printed.splitlines()]
    return {row["id"]: np.array(row["embedding"], np.float32) for row in rows}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Two inputs of every modality, generated: the demo's own samples stand in for what needs an encoder to write."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    made: dict[str, list[str]] = {name: [] for name in FACES}
    made["video"] = [str(path) for path in sorted((SAMPLES / "video").iterdir())[:2]]
    made["text"] = ["a dog", "two birds on a wire"]
    for i, name in enumerate(("one", "two")):
        Image.fromarray(random.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(folder / f"{name}.png")
        soundfile.write(folder / f"{name}.wav", 0.1 * random.standard_normal(30_000 + 50_000 * i), 22_050)
        Image.fromarray(random.integers(1000, 4000, (50, 60)).astype(np.uint16)).save(folder / f"{name}-depth.png")
        Image.fromarray(random.integers(0, 256, (50, 60), dtype=np.uint8)).save(folder / f"{name}-thermal.png")
        np.save(folder / f"{name}.npy", random.standard_normal((6, 3000 + 1000 * i)))
        for modality, ending in (
            ("image", ".png"),
            ("audio", ".wav"),
            ("depth", "-depth.png"),
            ("thermal", "-thermal.png"),
            ("imu", ".npy"),
        ):
            made[modality].append(str(folder / f"{name}{ending}"))
    return made


@pytest.mark.parametrize("output", ["x.tar", "x.h5"])
@pytest.mark.parametrize("array", ["float32", "float16"])
def test_prepared_samples_give_the_vectors_of_the_files(
    here: Run, tiny: Any, files: dict[str, list[str]], tmp_path: Path, output: str, array: str
) -> None:
    for modality in FACES:
        done = here("preprocess", modality, *files[modality], "-o", f"{modality}-{output}", "--array", array)
        assert done.code == 0, done.err
        items = from_arguments([f"{modality}-{output}"], (modality,), io.BytesIO())
        rows = list(tiny.embed_items(modality, items))
        from_shards = np.stack([result.embeddings[0].vector for _, result in rows])
        from_files = tiny.embed(modality, files[modality])
        assert [item.id for item, _ in rows] == files[modality]
        if array == "float32":
            assert np.abs(from_shards - from_files).max() <= 1e-6, modality
        else:
            assert (from_shards * from_files).sum(axis=1).min() >= 0.9999, modality


def test_a_pipe_of_two_commands_is_one(files: dict[str, list[str]], tmp_path: Path, program: Path) -> None:
    environment = {**os.environ, "IMAGEBIND_MODEL": "tiny"}
    prepare = subprocess.Popen([program, "preprocess", "audio", *files["audio"], "-o", "-"], stdout=subprocess.PIPE, env=environment)
    through = subprocess.run([program, "embed", "audio", "-"], stdin=prepare.stdout, capture_output=True, env=environment)
    assert prepare.stdout is not None
    prepare.stdout.close()
    assert prepare.wait() == through.returncode == 0
    plain = ib.load("tiny", device="cpu").embed("audio", files["audio"])
    assert np.abs(np.stack(list(vectors(through.stdout).values())) - plain).max() <= 1e-6


@pytest.mark.parametrize("output", ["x.tar", "x.h5", "-"])
def test_the_windows_of_a_long_item_keep_their_times(here: Run, tmp_path: Path, output: str) -> None:
    """It is written in several stretches: 16 windows each."""
    soundfile.write(tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(8_000 * 75), 8_000)
    prepared = here("preprocess", "audio", "long.wav", "-o", output)
    through = here("embed", "audio", output, "--pool", "none", stdin=prepared.out)
    plain = here("embed", "audio", "long.wav", "--pool", "none")
    assert len(plain.rows) == 38
    assert [row["start"] for row in through.rows] == [row["start"] for row in plain.rows]
    assert np.abs(through.vectors - plain.vectors).max() <= 1e-6


def test_several_modalities_stay_together(here: Run, files: dict[str, list[str]], tmp_path: Path) -> None:
    rows = [{"id": f"pair {i}", "image": files["image"][i], "depth": files["depth"][i], "scene": "hall"} for i in range(2)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = here("preprocess", "image,depth", "--manifest", "pairs.jsonl", "-o", "p.tar", "--focal", "500")
    assert done.code == 0, done.err
    with open(tmp_path / "p.tar", "rb") as file:
        first, second = read_shard(file, "p.tar")
    assert list(first.parts) == ["image.npy", "depth.npy", "json"]
    assert first.about()["id"] == "pair 0"
    assert first.about()["scene"] == "hall"
    assert first.provenance["inputs"]["depth"]["options"]["focal"] == 500
    assert first.key != second.key
    depth = here("embed", "depth", "p.tar")
    assert vectors(depth.out).keys() == {"pair 0", "pair 1"}
    audio = here("embed", "audio", "p.tar")
    assert audio.code == 1
    assert "no audio in this sample of p.tar; it has image.npy, depth.npy, json" in audio.err


def test_foreign_shards_of_media_files_are_read(here: Run, files: dict[str, list[str]], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "web.tar", "w") as archive:
        for i in range(2):
            archive.add(files["audio"][i], f"sound{i}.audio.wav")
            archive.add(files["image"][i], f"sound{i}.png")
            archive.add(files["depth"][i], f"sound{i}.depth.png")
    for modality in ("audio", "image", "depth"):
        found = here("embed", modality, "web.tar")
        assert found.code == 0, found.err
        got, wanted = vectors(found.out), ib.load("tiny", device="cpu").embed(modality, files[modality])
        assert np.abs(np.stack([got["sound0"], got["sound1"]]) - wanted).max() <= 1e-6


def test_samples_of_another_input_size_are_refused(here: Run, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        made = {"inputs": {"audio": {"shape": [1, 64, 100], "mean": [0], "std": [1], "options": {}}}}
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((1, 1, 64, 100), np.float32))
        for name, data in (("__made__", json.dumps(made).encode()), ("a.audio.npy", buffer.getvalue()), ("a.json", b'{"id": "a"}')):
            information = tarfile.TarInfo(name)
            information.size = len(data)
            archive.addfile(information, io.BytesIO(data))
    done = here("embed", "audio", "a.tar")
    assert done.code == 1
    assert "prepared audio has shape [1, 64, 100]; this model's encoder wants [1, 128, 204]" in done.err
    assert "Traceback" not in done.err


def test_a_torn_archive_is_one_line(here: Run, tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "a.tar"), {"inputs": {}}, 10**9) as shards:
        shards.add("one", "audio", np.zeros((2, 3000), np.float32))
        shards.finish("one", {"id": "one"})
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:9000])
    done = here("embed", "audio", "a.tar")
    assert done.code == 1
    assert done.err.count("imagebind: a.tar: ") == 1
    assert "Traceback" not in done.err


def test_names_in_an_archive_touch_nothing_outside(here: Run, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with tarfile.open(tmp_path / "inside" / "evil.tar", "w") as archive:
        information = tarfile.TarInfo("../../evil.wav")
        information.size = 4
        archive.addfile(information, io.BytesIO(b"RIFF"))
        link = tarfile.TarInfo("link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    done = here("embed", "audio", "evil.tar")
    assert done.code == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_inspect_and_preview_show_what_was_read(here: Run, files: dict[str, list[str]], tmp_path: Path) -> None:
    done = here("preprocess", "depth", *files["depth"], "--inspect", "--preview", "look")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["id"] for row in rows] == files["depth"]
    assert rows[0]["shape"] == [1, 224, 224]
    assert any("mm" in note for note in rows[0]["assumed"])
    names = sorted(path.name for path in (tmp_path / "look").iterdir())
    assert len(names) == 3
    page = (tmp_path / "look" / "index.html").read_text()
    assert all(name in page for name in names if name.endswith(".png"))


def test_previews_of_every_modality_are_drawn(files: dict[str, list[str]]) -> None:
    from imagebind_cli.pages.preview import draw

    model = ib.load("tiny", device="cpu")
    for modality in FACES:
        sample = next(model.read(modality, files[modality][0]))
        picture = np.asarray(draw(sample, registry.face(modality).encoder, model.config(modality)))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1, modality


def test_a_preview_shows_the_crop_itself() -> None:
    from imagebind_cli.pages.preview import draw

    model = ib.load("tiny", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    picture = np.asarray(draw(next(model.read("image", pixels)), "vision", model.config("image")))
    assert np.array_equal(picture[16:240, :224], pixels)


@pytest.mark.parametrize("output", ["x-%03d.tar", "x.h5"])
def test_an_output_in_the_folder_of_its_inputs_is_no_input(here: Run, tmp_path: Path, output: str) -> None:
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    assert here("preprocess", "image", ".", "-o", output).code == 0
    again = here("preprocess", "image", ".", "-o", output)
    assert again.code == 0
    assert "0 prepared, 3 there already" in again.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["audio", "x.wav"], "give -o OUT, or --inspect or --preview"),
        (["audio", "x.wav", "-o", "a.tar", "--inspect"], "give -o OUT, or --inspect or --preview"),
        (["sound", "x", "-o", "a.tar"], "unknown modality 'sound'"),
        (["image,audio", "x", "-o", "a.tar", "--focal", "3"], "none of image, audio has an option 'focal'"),
        (["audio", "x", "-o", "a.zip"], "must end in .tar or .h5"),
        (["audio", "x", "-o", "a.h5", "--shard-size", "5"], "--shard-size is for numbered shards such as out-%06d.tar; a.h5 is one file"),
        (["audio", "x", "-o", "-", "--shard-size", "5"], "--shard-size is for numbered shards"),
        (["audio", "x", "-o", "a-%d.h5"], "an .h5 is one file and takes no number"),
        (["vision", "x", "-o", "a.h5"], "an .h5 holds clips of one shape"),
    ],
)
def test_bad_usage_is_told_in_one_line(here: Run, arguments: list[str], line: str) -> None:
    done = here("preprocess", *arguments)
    assert done.code == 2
    assert line in " ".join(done.err.replace("│", " ").split())


def test_binary_data_is_not_sent_to_a_terminal(tmp_path: Path, program: Path) -> None:
    ours, terminal = pty.openpty()
    done = subprocess.run([program, "preprocess", "audio", "x.wav", "-o", "-"], stdout=terminal, stderr=subprocess.PIPE, text=True)
    os.close(terminal)
    os.close(ours)
    assert done.returncode == 2
    assert "binary data, and stdout is a terminal" in " ".join(done.stderr.split())


def test_files_of_one_kind_for_two_modalities_bring_a_hint(here: Run, files: dict[str, list[str]]) -> None:
    done = here("preprocess", "image,audio", *files["image"], "-o", "x.tar")
    assert done.code == 1
    hints = [line for line in done.notices if "were both looked for in each file" in line]
    assert hints == [
        "imagebind: image and audio were both looked for in each file, as in a video with its sound; "
        'to pair files, give --manifest with rows {"image": ..., "audio": ...}'
    ]


def test_no_hint_where_some_file_has_both_or_a_manifest_pairs_them(here: Run, files: dict[str, list[str]], tmp_path: Path) -> None:
    done = here("preprocess", "video,vision", *files["video"], *files["audio"], "-o", "x.tar")
    assert done.code == 1
    (tmp_path / "pairs.jsonl").write_text('{"id": "1", "image": "none.png", "audio": "none.wav"}\n')
    paired = here("preprocess", "image,audio", "--manifest", "pairs.jsonl", "-o", "y.tar")
    assert paired.code == 1
    assert "looked for" not in done.err + paired.err


def test_long_text_is_cut_with_a_word_or_windowed_or_refused(here: Run, tmp_path: Path) -> None:
    text = "word " * 200
    cut = here("embed", "text", "short", text)
    assert cut.code == 0
    assert "200 tokens, cut to the first 75" in cut.err
    windows = here("embed", "text", text, "--long-text", "window")
    assert windows.code == 0
    assert "tokens" not in windows.err
    assert vectors(cut.out)[text] @ vectors(windows.out)[text] < 0.99999
    refused = here("embed", "text", text, "--long-text", "error")
    assert refused.code == 1
    assert "200 tokens; 75 fit" in refused.err


def test_doctor_finds_every_modality_well(here: Run, tmp_path: Path) -> None:
    done = here("doctor", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["ok"]
    assert {f"embed {name}" for name in FACES} <= {check["name"] for check in report["checks"] if check["ok"]}


def test_doctor_says_how_to_mend_what_is_missing(python: Python, tmp_path: Path) -> None:
    (tmp_path / "soundfile.py").write_text("raise OSError('no library here')")
    done = python("-m", "imagebind_cli", "doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "no library here" in done.stdout
    assert "fix it: pip install --force-reinstall 'soundfile>=0.12.1'" in done.stdout


def test_doctor_names_a_torchaudio_of_another_torch_and_what_fits(python: Python, tmp_path: Path) -> None:
    (tmp_path / "torchaudio.py").write_text("raise OSError('undefined symbol: torch_library_impl')")
    done = python("-m", "imagebind_cli", "doctor", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("BAD"))
    assert f"but its import fails beside torch {metadata.version('torch')}: undefined symbol: torch_library_impl" in lines[at]
    declared = [text for text in metadata.requires("imagebind-cli") or [] if text.startswith("torch")]
    assert len(declared) == 3
    assert lines[at + 1].startswith("    fix it: pip install")
    assert lines[at + 1].endswith(" ".join(f"'{text}'" for text in declared))


EACH = """
import json, os, sys
assert "torchaudio" not in sys.modules
from imagebind_cli.cli import run_command_line
for modality, path in json.loads(sys.argv[1]).items():
    if (child := os.fork()) == 0:
        sys.argv = ["imagebind", "embed", modality, path, "--model", "tiny"]
        run_command_line()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, modality
"""


def test_torchaudio_is_not_imported_to_embed(python: Python, files: dict[str, list[str]], tmp_path: Path) -> None:
    (tmp_path / "torchaudio.py").write_text("raise OSError('undefined symbol: torch_library_impl')")
    given = json.dumps({modality: files[modality][0] for modality in FACES})
    done = python("-c", EACH, given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["modality"] for line in done.stdout.splitlines()] == FACES


# Killed, stopped, cut off

SMALL_PARTS = f"""
from imagebind_cli.cli import run_command_line
from imagebind_cli.prepared import hdf5
hdf5.PART_BYTES = {PART}
run_command_line()
"""
Until = Callable[..., int]


@pytest.fixture
def run_until(fork_server: ForkServer) -> Until:
    """Run `imagebind ARGUMENTS` in a folder to its end, or kill it as soon as something is so. Its exit code."""

    def run(folder: Path, *arguments: str, until: Callable[[], bool] = lambda: False) -> int:
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        process = Forked([sys.executable, "-c", SMALL_PARTS, *arguments], server=fork_server, cwd=folder, **quiet)
        while process.poll() is None:
            if until():
                process.kill()
                break
            time.sleep(0.002)
        return process.wait()

    return run


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest of sentences, some of them too long."""
    folder = tmp_path_factory.mktemp("sentences")
    rows = [{"id": str(i), "text": f"sentence {i} " + "words " * (200 if i % 100 == 3 else i % 20)} for i in range(SENTENCES)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def written(folder: Path, start: str) -> int:
    """Bytes of all files whose path begins so."""
    total, beginning = 0, os.path.join(folder, start)
    for place, _, names in os.walk(folder):  # unlike rglob it bears folders that go meanwhile
        for path in (os.path.join(place, name) for name in names):
            if path.startswith(beginning):
                with suppress(FileNotFoundError):
                    total += os.stat(path).st_size
    return total


@pytest.mark.parametrize("ending", ["-%03d.tar", ".h5"])
def test_killed_at_ten_moments_and_run_again_equals_an_unbroken_run(run_until: Until, sentences: Path, ending: str) -> None:
    run, folder = partial(run_until, sentences), sentences
    command = ["preprocess", "text", "--manifest", "rows.jsonl", "--long-text", "error", "--model", "tiny"]
    command += ["--shard-size", str(PART / 1e6)] if "%" in ending else []
    sizes = [0]
    whole, broken = (f"{name}-{ending.rpartition('.')[2]}{ending}" for name in ("whole", "broken"))
    start = broken.partition(".")[0].partition("-%")[0]

    def watched() -> bool:
        sizes.append(written(folder, start.replace("broken", "whole")))
        return False

    def reached() -> bool:
        return written(folder, start) >= wanted

    assert run(*command, "-o", whole, until=watched) == 1  # the long sentences
    chance = random.Random(0)
    killed = 0
    for tenth in range(10):
        wanted = max(sizes) * (tenth + chance.random()) / 10
        killed += run(*command, "-o", broken, until=reached) == -signal.SIGKILL
        for path in folder.glob(f"{start}*"):
            if path.suffix in (".tar", ".h5"):
                assert all("json" in entry.parts for entry in index(path))
    assert killed >= 8  # the last may come to its end before it is seen to be near it
    assert run(*command, "-o", broken) == 1
    wholes, brokens = (sorted(folder.glob(f"{start.replace('broken', name)}*")) for name in ("whole", "broken"))
    assert [path.name.replace("whole", "broken") for path in wholes] == [path.name for path in brokens]
    assert sum(len(index(path)) for path in wholes) == SENTENCES * 99 // 100
    assert [path.read_bytes() for path in wholes] == [path.read_bytes() for path in brokens]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A manifest of one sound in so many rows that processes are started for them."""
    soundfile.write(tmp_path / "one.wav", 0.1 * np.random.default_rng(0).standard_normal(20 * 16_000), 16_000)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "audio": "one.wav"}) + "\n" for i in range(20_000)))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="processes are for Linux")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, "closed pipe"])
def test_nobody_is_left_behind(start: Start, sounds: Path, end: signal.Signals | str) -> None:
    """However it ends, in the middle of its work: the exit code, no process, and nobody who holds stdout open."""
    process = start("preprocess", "audio", "--manifest", sounds, "-o", "-", "--model", "tiny")
    assert process.stdout is not None
    members: list[int] = []
    while process.stdout.read(1_000_000) and len(members) < 2:
        members = family(process.pid)
    assert len(members) >= 2
    if isinstance(end, str):
        process.stdout.close()
        assert process.wait(SOON) == 128 + signal.SIGPIPE
    else:
        process.send_signal(end)
        began = time.monotonic()
        while process.stdout.read(1_000_000):
            pass
        assert time.monotonic() - began < SOON
        assert process.wait(SOON) == (-end if end == signal.SIGKILL else 128 + end)
    assert gone(members)
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()


def test_a_config_alone_says_what_an_encoder_takes(imagebind: Run, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    config = json.loads((model_config.CONFIGS / "tiny.json").read_text())
    config["encoders"]["vision"]["shape"] = [3, 2, 64, 64]
    (tmp_path / "small.json").write_text(json.dumps(config))
    done = imagebind("preprocess", "image", tmp_path / "red.png", "-o", tmp_path / "red.tar", "--model", tmp_path / "small.json")
    assert done.code == 0, done.err
    with tarfile.open(next(tmp_path.glob("red*.tar"))) as archive:
        member = next(name for name in archive.getnames() if name.endswith(".npy"))
        assert np.load(io.BytesIO(archive.extractfile(member).read())).shape[-2:] == (64, 64)  # type: ignore[union-attr]


def test_a_stretch_is_prepared_and_embedded_as_from_its_file(here: Run, tmp_path: Path) -> None:
    from tests.generate import audio

    audio(tmp_path / "a.wav", seconds=9)
    rows = [
        {"audio": "a.wav", "start": 1, "end": 6},
        {"id": "short", "audio": "a.wav", "start": 3.25, "end": 3.5},
        {"id": "rest", "audio": "a.wav", "start": 5},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = here("embed", "audio", "--manifest", "m.jsonl", "--pool", "none")
    for out in ("a.tar", "a.h5"):
        assert here("preprocess", "audio", "--manifest", "m.jsonl", "-o", out).code == 0
        through = here("embed", "audio", out, "--pool", "none")
        assert [(row["id"], row["start"], row["end"]) for row in through.rows] == [
            (row["id"], row["start"], row["end"]) for row in plain.rows
        ]
        assert (through.vectors * plain.vectors).sum(1).min() > 0.99999
    looked = here("preprocess", "audio", "--manifest", "m.jsonl", "--inspect").rows
    assert [(row["id"], row["start"], row["end"]) for row in looked] == [("a.wav#1-6", 1, 6), ("short", 3.25, 5.25), ("rest", 5, 9)]


def test_a_whole_recording_that_was_prepared_gives_the_windows_of_its_stretch(here: Run, tmp_path: Path) -> None:
    """As shards of version 0.1 have it, which prepared all of a file whatever its row said."""
    from tests.generate import audio

    audio(tmp_path / "a.wav", seconds=10)
    assert here("preprocess", "audio", "a.wav", "-o", "a.tar").code == 0
    with tarfile.open("a.tar") as before, tarfile.open("b.tar", "w") as after:
        for member in before:
            data = before.extractfile(member).read()
            if member.name.endswith(".json") and b'"spans"' in data:
                data = json.dumps(json.loads(data) | {"start": 3.5, "end": 8}).encode()
                member.size = len(data)
            after.addfile(member, io.BytesIO(data))
    spans = [(row["start"], row["end"]) for row in here("embed", "audio", "b.tar", "--pool", "none").rows]
    assert spans == [(4, 6), (6, 8)]


def test_a_media_file_in_a_shard_is_read_between_its_seconds(here: Run, tmp_path: Path) -> None:
    from tests.generate import audio

    sound = audio(tmp_path / "a.wav", seconds=10).read_bytes()
    with tarfile.open("a.tar", "w") as shard:
        for name, data in (
            ("k.wav", sound),
            ("k.json", b'{"start": 3, "end": 5}'),
            ("l.wav", sound),
            ("l.json", b'{"start": 3, "end": 1}'),
        ):
            information = tarfile.TarInfo(name)
            information.size = len(data)
            shard.addfile(information, io.BytesIO(data))
    run = here("embed", "audio", "a.tar", "--pool", "none")
    assert [(row["id"], row["start"], row["end"]) for row in run.rows] == [("k", 3, 5)]
    assert "start and end are seconds" in run.err


@pytest.mark.parametrize("output", ["x.tar", "x.h5", "x-%03d.tar"])
def test_an_id_prepared_of_another_stretch_is_a_failure(here: Run, tmp_path: Path, output: str) -> None:
    """And not taken for the one that is there."""
    generate.audio(tmp_path / "a.wav", seconds=12)
    for name, start in (("one", 1), ("same", 1.0), ("other", 6)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "k", "audio": "a.wav", "start": start, "end": start + 2}) + "\n")
    assert here("preprocess", "audio", "--manifest", "one.jsonl", "-o", output).code == 0
    again = here("preprocess", "audio", "--manifest", "same.jsonl", "-o", output)
    assert (again.code, "1 there already" in again.err) == (0, True), again.err
    other = here("preprocess", "audio", "--manifest", "other.jsonl", "-o", output)
    assert other.code == 1
    assert "k: this id was already used for another stretch; give each stretch its own id" in other.err


def test_seconds_of_a_picture_are_no_stretch(here: Run, tmp_path: Path) -> None:
    """They are columns like any, and the picture is there already whatever they say."""
    generate.picture(tmp_path / "a.png")
    for name, start in (("one", 1), ("other", 6)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "k", "image": "a.png", "start": start}) + "\n")
    assert here("preprocess", "image", "--manifest", "one.jsonl", "-o", "x.tar").code == 0
    again = here("preprocess", "image", "--manifest", "other.jsonl", "-o", "x.tar")
    assert (again.code, "0 prepared, 1 there already" in again.err) == (0, True), again.err
