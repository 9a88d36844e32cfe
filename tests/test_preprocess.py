"""Prepared shards: what embed makes of them is what it makes of the files; whole or not there; read by WebDataset's rules."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import imagebind_cli as ib
from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.shards import ShardWriter, key_of, read_shard

FACES = [name for name in registry.MODALITIES if name != "vision"]


def run(*arguments: object, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "imagebind_cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=100)


def vectors(printed: bytes) -> dict[str, np.ndarray]:
    rows = [json.loads(line) for line in printed.splitlines()]
    return {row["id"]: np.array(row["embedding"], np.float32) for row in rows}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Two inputs of every modality, generated: the demo's own samples stand in for what needs an encoder to write."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    samples = Path(__file__).parent.parent / "recipes" / "demo" / "samples"
    made: dict[str, list[str]] = {name: [] for name in FACES}
    made["video"] = [str(path) for path in sorted((samples / "video").iterdir())]
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


@pytest.mark.parametrize("array", ["float32", "float16"])
def test_shards_give_the_vectors_of_the_files(files: dict[str, list[str]], tmp_path: Path, array: str) -> None:
    """In one process, every modality: what the command does, without starting Python fourteen times."""
    from imagebind_cli import sources
    from imagebind_cli.model import input_configs, input_record

    model = ib.load("tiny", device="cpu")
    for modality in FACES:
        made = {"inputs": {modality: input_record(input_configs("tiny", [modality])[modality], modality, {})}, "array": array}
        with ShardWriter(str(tmp_path / f"{modality}.tar"), made, 10**9) as shards:
            for id in files[modality]:
                spans = []
                for sample in model.read(modality, id):
                    values = sample.tensor.numpy()
                    shards.add(key_of(id), modality, values.astype(array) if values.dtype.kind == "f" else values)
                    spans += sample.spans
                shards.finish(key_of(id), {"id": id, "spans": {modality: spans}, "notes": {}})
        items = sources.from_arguments([str(tmp_path / f"{modality}.tar")], (modality,), io.BytesIO())
        rows = list(model.embed_items(modality, items))
        from_shards = np.stack([row[0].vector for row in rows])
        from_files = model.embed(modality, files[modality])
        assert [row[0].id for row in rows] == files[modality]
        if array == "float32":
            assert np.abs(from_shards - from_files).max() <= 1e-6, modality
        else:
            assert (from_shards * from_files).sum(axis=1).min() >= 0.9999, modality


def test_a_pipe_of_two_commands_is_one(files: dict[str, list[str]], tmp_path: Path) -> None:
    prepared = run("preprocess", "audio", *files["audio"], "-o", "-", cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    through = run("embed", "audio", "-", "--pool", "none", cwd=tmp_path, stdin=prepared.stdout)
    plain = run("embed", "audio", *files["audio"], "--pool", "none", cwd=tmp_path)
    assert through.returncode == plain.returncode == 0
    assert through.stdout == plain.stdout


def test_several_modalities_stay_together(files: dict[str, list[str]], tmp_path: Path) -> None:
    rows = [{"id": f"pair {i}", "image": files["image"][i], "depth": files["depth"][i], "scene": "hall"} for i in range(2)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("preprocess", "image,depth", "--manifest", "pairs.jsonl", "-o", "p.tar", "--focal", "500", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "p.tar", "rb") as file:
        first, second = read_shard(file, "p.tar")
    assert list(first.parts) == ["image.npy", "depth.npy", "json"]
    assert first.about()["id"] == "pair 0"
    assert first.about()["scene"] == "hall"
    assert first.made["inputs"]["depth"]["options"]["focal"] == 500
    assert first.key != second.key
    depth = run("embed", "depth", "p.tar", cwd=tmp_path)
    assert vectors(depth.stdout).keys() == {"pair 0", "pair 1"}
    audio = run("embed", "audio", "p.tar", cwd=tmp_path)
    assert audio.returncode == 1
    assert b"no audio in this sample of p.tar; it has image.npy, depth.npy, json" in audio.stderr


def test_foreign_shards_of_media_files_are_read(files: dict[str, list[str]], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "web.tar", "w") as archive:
        for i in range(2):
            archive.add(files["audio"][i], f"sound{i}.audio.wav")
            archive.add(files["image"][i], f"sound{i}.png")
            archive.add(files["depth"][i], f"sound{i}.depth.png")
    for modality in ("audio", "image", "depth"):
        found = run("embed", modality, "web.tar", cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        got, wanted = vectors(found.stdout), ib.load("tiny", device="cpu").embed(modality, files[modality])
        assert np.abs(np.stack([got["sound0"], got["sound1"]]) - wanted).max() <= 1e-6


def sounds(folder: Path, count: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        soundfile.write(folder / f"{i:04d}.wav", 0.1 * random.standard_normal(8_000), 16_000)
    (folder / "0003.wav").write_bytes(b"")


def test_killed_and_run_again_equals_an_unbroken_run(tmp_path: Path) -> None:
    sounds(tmp_path / "in", 120)
    command = ["preprocess", "audio", "in", "--shard-size", "1.5"]
    assert run(*command, "-o", "whole-%03d.tar", cwd=tmp_path).returncode == 1  # one file is empty
    for moment in (0.2, 0.5, 1.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "imagebind_cli", *command, "-o", "broken-%03d.tar"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("broken-*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05 * moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in tmp_path.glob("broken-*.tar"):
            with open(path, "rb") as file:
                assert all("json" in entry.parts for entry in read_shard(file, str(path)))
    last = run(*command, "-o", "broken-%03d.tar", cwd=tmp_path)
    assert last.returncode == 1
    wanted = sorted(tmp_path.glob("whole-*"))
    assert len(wanted) > 5
    assert [path.name.replace("broken", "whole") for path in sorted(tmp_path.glob("broken-*"))] == [path.name for path in wanted]
    for path in wanted:
        assert path.read_bytes() == (tmp_path / path.name.replace("whole", "broken")).read_bytes()


def test_a_failing_item_leaves_nothing_in_its_shard(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "a.tar"), {"inputs": {}}, 10**9) as shards:
        shards.add("one", "audio", np.zeros((2, 3), np.float32))
        shards.finish("one", {"id": "one"})
        shards.add("two", "audio", np.zeros((2, 3), np.float32))
        shards.drop()
        shards.add("three", "audio", np.ones((2, 3), np.float32))
        shards.finish("three", {"id": "three"})
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getnames() == ["__made__", "one.audio.npy", "one.json", "three.audio.npy", "three.json"]


def test_shards_made_otherwise_are_not_gone_on_with(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "a-%d.tar"), {"array": "float16"}, 10**9) as shards:
        shards.add("one", "audio", np.zeros((2, 3), np.float32))
        shards.finish("one", {"id": "one"})
    with pytest.raises(UserError, match="made otherwise than this run would"):
        ShardWriter(str(tmp_path / "a-%d.tar"), {"array": "float32"}, 10**9)


@pytest.mark.parametrize("pattern", ["a-%s.tar", "a-%d-%d.tar", "a-%%.tar"])
def test_a_pattern_needs_one_number(pattern: str) -> None:
    with pytest.raises(UserError, match="one number such as %06d"):
        ShardWriter(pattern, {}, 1)


def test_samples_of_another_input_size_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        made = {"inputs": {"audio": {"shape": [1, 64, 100], "mean": [0], "std": [1], "options": {}}}}
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((1, 1, 64, 100), np.float32))
        for name, data in (("__made__", json.dumps(made).encode()), ("a.audio.npy", buffer.getvalue()), ("a.json", b'{"id": "a"}')):
            information = tarfile.TarInfo(name)
            information.size = len(data)
            archive.addfile(information, io.BytesIO(data))
    done = run("embed", "audio", "a.tar", cwd=tmp_path)
    assert done.returncode == 1
    assert b"prepared audio has shape [1, 64, 100]; this model's encoder wants [1, 128, 204]" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_torn_archive_is_one_line(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "a.tar"), {"inputs": {}}, 10**9) as shards:
        shards.add("one", "audio", np.zeros((2, 3000), np.float32))
        shards.finish("one", {"id": "one"})
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:9000])
    done = run("embed", "audio", "a.tar", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count(b"imagebind: a.tar: ") == 1
    assert b"Traceback" not in done.stderr


def test_pickled_arrays_in_a_shard_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    from imagebind_cli.shards import Part, Prepared

    with pytest.raises(ValueError, match="allow_pickle"):
        list(Prepared([Part("x", buffer.getvalue())], [], (), {}).arrays())


def test_names_in_an_archive_touch_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with tarfile.open(tmp_path / "inside" / "evil.tar", "w") as archive:
        information = tarfile.TarInfo("../../evil.wav")
        information.size = 4
        archive.addfile(information, io.BytesIO(b"RIFF"))
        link = tarfile.TarInfo("link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    done = run("embed", "audio", "evil.tar", cwd=tmp_path / "inside")
    assert done.returncode == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_inspect_and_preview_show_what_was_read(files: dict[str, list[str]], tmp_path: Path) -> None:
    done = run("preprocess", "depth", *files["depth"], "--inspect", "--preview", "look", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == files["depth"]
    assert rows[0]["shape"] == [1, 224, 224]
    assert any("mm" in note for note in rows[0]["assumed"])
    names = sorted(path.name for path in (tmp_path / "look").iterdir())
    assert len(names) == 3
    page = (tmp_path / "look" / "index.html").read_text()
    assert all(name in page for name in names if name.endswith(".png"))


def test_previews_of_every_modality_are_drawn(files: dict[str, list[str]]) -> None:
    from imagebind_cli.preview import draw

    model = ib.load("tiny", device="cpu")
    for modality in FACES:
        sample = next(model.read(modality, files[modality][0]))
        picture = np.asarray(draw(sample, registry.encoder_name(modality), model.config(modality)))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1, modality


def test_a_preview_shows_the_crop_itself() -> None:
    from imagebind_cli.preview import draw

    model = ib.load("tiny", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    picture = np.asarray(draw(next(model.read("image", pixels)), "vision", model.config("image")))
    assert np.array_equal(picture[16:240, :224], pixels)


def test_bad_usage_is_told(tmp_path: Path, files: dict[str, list[str]]) -> None:
    for arguments in (["audio", "x.wav"], ["audio", "x.wav", "-o", "a.tar", "--inspect"], ["sound", "x", "-o", "a.tar"]):
        assert run("preprocess", *arguments, cwd=tmp_path).returncode == 2
    wrong = run("preprocess", "image,audio", "x", "-o", "a.tar", "--focal", "3", cwd=tmp_path)
    assert wrong.returncode == 2
    assert b"none of image, audio has an option 'focal'" in wrong.stderr


def test_long_text_is_cut_with_a_word_or_windowed_or_refused(tmp_path: Path) -> None:
    text = "word " * 200
    cut = run("embed", "text", "short", text, cwd=tmp_path)
    assert cut.returncode == 0
    assert b"200 tokens, cut to the first 75" in cut.stderr
    windows = run("embed", "text", text, "--long-text", "window", cwd=tmp_path)
    assert windows.returncode == 0
    assert b"tokens" not in windows.stderr
    assert vectors(cut.stdout)[text] @ vectors(windows.stdout)[text] < 0.99999
    refused = run("embed", "text", text, "--long-text", "error", cwd=tmp_path)
    assert refused.returncode == 1
    assert b"200 tokens; 75 fit" in refused.stderr


def test_doctor_finds_every_modality_well(tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert {f"embed {name}" for name in FACES} <= {check["name"] for check in report["checks"] if check["ok"]}


def test_doctor_says_how_to_mend_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "soundfile.py").write_text("raise OSError('no library here')")
    code = "import sys; sys.path.insert(0, '.'); from imagebind_cli.cli import main; sys.argv = ['imagebind', 'doctor']; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no library here" in done.stdout
    assert "mend it: pip install soundfile" in done.stdout
