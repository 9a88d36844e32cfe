"""recipes/separate: scores against figures worked out by hand, and the network on generated tones, from their mixtures to the command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import imagebind_cli as ib
from imagebind_cli.files import locked
from tests import generate

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "separate"))

import evaluate
import mixtures
import network
import prepare
import scores
import separate
import train

RECIPE = Path(separate.__file__).parent
DIM = 16
SETTINGS = train.Settings(steps=60, batch=6, width=8, warmup=5, rate=5e-3)


def tone(seed: int, low: float, high: float) -> np.ndarray:
    """A melody of pure tones between two frequencies."""
    random = np.random.default_rng(seed)
    notes = np.repeat(random.uniform(low, high, 20), prepare.SAMPLES // 20)
    return 0.3 * np.sin(2 * np.pi * np.cumsum(notes) / network.RATE)


def tones(count: int, seed: int) -> prepare.Sounds:
    """Low and high melodies, as recordings of two classes, and noise as a third."""
    waves = [tone(seed + number, 100, 400) for number in range(count)] + [tone(seed + number, 2000, 5000) for number in range(count)]
    waves += [0.1 * np.random.default_rng(seed + number).normal(size=prepare.SAMPLES).clip(-3, 3) for number in range(count)]
    labels = tuple(label for label in ("low", "high", "noise") for _ in range(count))
    vectors = np.stack([vector(label) for label in labels])
    recordings = tuple(f"{label} {number // 2}" for number, label in enumerate(labels))  # two clips of each
    return prepare.Sounds(torch.tensor(np.stack(waves)).float(), labels, recordings, ("ESC-10",) * len(labels), vectors)


def vector(label: str) -> np.ndarray:
    random = np.random.default_rng([ord(letter) for letter in label])
    return scaled(random.normal(size=DIM))


def scaled(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values)).astype(np.float32)


@pytest.fixture(scope="module")
def data() -> prepare.Data:
    labels = ("low", "high", "noise")
    kinds = ("text", "image", "other text", "unseen image")
    asking = {kind: prepare.Vectors(np.stack([vector(label) for label in labels]), labels) for kind in kinds}
    about = {"held_out": 4, "sounds_heard": False, "model": "tiny"}
    return prepare.Data(tones(4, 0), tones(4, 100), asking, about)


@pytest.fixture(scope="module")
def folder(data: prepare.Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("separate")
    prepare.save(data, folder / "data.safetensors")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return train.train(folder, SETTINGS)


# Scores


def test_si_sdr_by_hand() -> None:
    reference = np.array([1.0, 1.0, -1.0, -1.0])
    noise = np.array([1.0, -1.0, 1.0, -1.0])  # orthogonal, as loud
    estimates = np.stack([2 * reference + 0.2 * noise, reference + noise, reference + 0.5 * reference, noise, 0 * noise])
    values = scores.si_sdr(estimates, np.broadcast_to(reference, estimates.shape))
    assert values[:2] == pytest.approx([20, 0])
    assert values[2:].tolist() == [np.inf, -np.inf, -np.inf]
    with pytest.raises(ValueError, match="silent"):
        scores.si_sdr(reference, 0 * reference)


def test_half_of_the_mixture_gains_nothing() -> None:
    reference, noise = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    mixture = reference + noise
    assert scores.improvement(0.5 * mixture, mixture, reference) == pytest.approx(0)
    assert scores.improvement(reference + 0.1 * noise, mixture, reference) == pytest.approx(20)
    assert scores.level(0.1 * mixture, mixture) == pytest.approx(-20)
    assert scores.level(0 * mixture, mixture) == -100


def test_bss_eval_of_a_leaking_estimate() -> None:
    random = np.random.default_rng(0)
    reference, other = random.normal(size=(2, 8000))
    sdr, sir, sar = scores.bss_eval(reference + 0.1 * other, reference + other, reference)
    assert sdr == pytest.approx(20, abs=0.5)
    assert sir == pytest.approx(20, abs=0.5)
    assert sar > 40


# The network


def test_a_spectrum_becomes_the_waveform_again() -> None:
    wave = torch.from_numpy(generate.tone(2.0)[None, :32000]).float()
    assert torch.allclose(network.waveform(network.spectrum(wave), 32000), wave, atol=1e-5)


@pytest.mark.parametrize("bands", [32, 64, 128])
def test_bands_lose_no_frequency(bands: int) -> None:
    take, spread = network.band_weights(bands)
    assert take.sum(dim=1).numpy() == pytest.approx(np.ones(bands), abs=1e-5)
    assert spread.sum(dim=0).numpy() == pytest.approx(np.ones(network.FREQUENCIES), abs=1e-5)
    assert (take.argmax(dim=1).diff() >= 0).all()


def test_a_query_decides_by_film_alone() -> None:
    torch.manual_seed(0)
    net = network.MaskNetwork(network.Shape(DIM, width=8)).eval()
    power = torch.rand(2, network.FREQUENCIES, 21)
    queries = torch.tensor(np.stack([vector("low"), vector("high"), vector("low")]))[None].expand(2, -1, -1)
    films = [block.film for block in (net.middle, *net.up)]
    with torch.inference_mode():
        for film in films:
            film.weight *= 100
        masks = network.masks(net, power, queries)
        louder = network.masks(net, 100 * power, queries)
        alone = network.masks(net, power, queries[:, 1:2])
        for film in films:
            film.weight *= 0
        blind = network.masks(net, power, queries)
    assert masks.shape == (2, 3, network.FREQUENCIES, 21)
    assert ((masks >= 0) & (masks <= 1)).all()
    assert (masks[:, 0] - masks[:, 1]).abs().max() > 1e-3
    assert torch.equal(masks[:, 0], masks[:, 2])
    assert torch.allclose(masks[:, 1:2], alone, atol=1e-5)
    assert torch.allclose(louder, masks, atol=1e-3)
    assert torch.equal(blind[:, 0], blind[:, 1])


# Mixtures


def test_a_batch_follows_from_its_step(data: prepare.Data) -> None:
    drawing, again = mixtures.Drawing(data, 16, seed=1), mixtures.Drawing(data, 16, seed=1)
    one = drawing.draw(3)
    drawing.draw(4)
    same, next_one = again.draw(3), again.draw(4)
    assert torch.equal(one.mixtures, same.mixtures)
    assert torch.equal(one.queries, same.queries)
    assert not torch.equal(one.mixtures, next_one.mixtures)
    absent = (one.targets == 0).flatten(2).all(dim=2)
    assert not absent[:, 0].any()
    assert 0 < absent[:, 1].sum() < 10
    present = ~absent[:, 1]
    assert torch.allclose(one.targets[present].sum(dim=1), one.mixtures[present], atol=1e-4)
    assert one.queries.norm(dim=2).numpy() == pytest.approx(np.ones((16, 2)), abs=1e-5)


def test_held_out_mixtures_are_of_two_classes_and_asked_by_another_recording(data: prepare.Data) -> None:
    tested = mixtures.held_out_mixtures(data.test, 40, seed=2)
    sounds = data.test
    for row in tested.rows:
        label = sounds.labels[row.target]
        assert label != sounds.labels[row.other]
        assert row.third not in (label, sounds.labels[row.other])
        assert sounds.labels[row.asking] == label
        assert sounds.recordings[row.asking] != sounds.recordings[row.target]
    assert scores.si_sdr(tested.mixtures.numpy(), tested.targets.numpy()) == pytest.approx(np.zeros(40), abs=1.0)
    assert tested.rows == mixtures.held_out_mixtures(data.test, 40, seed=2).rows


# Training


def test_tones_are_separated_by_name(trained: Path, data: prepare.Data) -> None:
    net, about = network.load_network(trained)
    assert about["held_out"] == 4
    tested = mixtures.held_out_mixtures(data.test, 20)
    found = {each.title: each for each in evaluate.measure(net, data, tested, with_bss=False)}
    by_name = found["its name"].gain.mean()
    assert by_name > 5
    assert found["another held-out recording"].gain.mean() > 5
    assert found["control: the other sound's name"].gain.mean() < -3
    assert by_name < found["ideal ratio mask"].gain.mean()
    assert found["baseline: the class's mean spectrum as a filter"].gain.mean() > 5  # tones of one class share a band
    assert found["its name"].row().startswith("| its name | ")
    rows = evaluate.measured_rows(list(found.values()))
    assert rows["its name"].count == 20
    assert rows["its name"].low <= by_name <= rows["its name"].high
    assert rows["its name"].control == found["control: the other sound's name"].gain.mean()


def test_a_stopped_run_continues_to_the_bit(data: prepare.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    settings = replace(SETTINGS, steps=6, batch=2)

    def stop(record: dict[str, float]) -> None:
        if record["step"] == 4:
            raise KeyboardInterrupt

    results = []
    for name in ("whole", "stopped"):
        folder = tmp_path / name
        folder.mkdir()
        prepare.save(data, folder / "data.safetensors")
        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                train.train(folder, settings, stop)
            assert not (folder / "network.safetensors").exists()
        records: list[dict[str, float]] = []
        results.append(network.read_tensor_file(train.train(folder, settings, records.append))[0])
        assert [record["step"] for record in records] == ([2, 4, 6] if name == "whole" else [6])
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_what_training_refuses(trained: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ib.UserError, match="other settings"):
        train.train(folder, replace(SETTINGS, seed=5))
    with pytest.raises(ib.UserError, match=r"data\.safetensors: no such file"):
        train.train(tmp_path, SETTINGS)
    with locked(folder / ".training.lock", ""), pytest.raises(ib.UserError, match="another training"):
        train.train(folder, SETTINGS)
    (tmp_path / "data.safetensors").write_bytes(trained.read_bytes())
    with pytest.raises(ib.UserError, match="is not the data"):
        train.train(tmp_path, SETTINGS)
    (tmp_path / "data.safetensors").write_bytes(trained.read_bytes()[:1000])
    with pytest.raises(ib.UserError, match="damaged"):
        train.train(tmp_path, SETTINGS)


def test_data_read_back_are_what_was_saved(data: prepare.Data, folder: Path) -> None:
    again = prepare.load(folder / "data.safetensors")
    assert again.about == data.about
    assert (again.train.labels, again.test.recordings) == (data.train.labels, data.test.recordings)
    assert torch.allclose(again.test.waves, data.test.waves, atol=1e-4)
    assert again.asking["text"].of("high").tolist() == data.asking["text"].of("high").tolist()


# The command


def test_windows_of_a_long_recording_fade_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def everything(_: object, waves: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
        lengths.append(waves.shape[1])
        return waves[:, None]

    monkeypatch.setattr(separate, "separated", everything)
    for samples in (1000, separate.HALF, 3 * separate.HALF, 3 * separate.HALF + 700):
        wave = torch.rand(samples)
        parts = list(separate.separate(None, iter(wave.split(separate.HALF)), vector("low")))  # type: ignore[arg-type]
        for kind in (0, 1):
            assert torch.allclose(torch.cat([part[kind] for part in parts]), wave, atol=1e-6)
    assert max(lengths) == 2 * separate.HALF


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A network for queries of the model `tiny`, which has learnt nothing."""
    torch.manual_seed(0)
    dim = ib.load("tiny", device="cpu").dim
    network.save_network(network.MaskNetwork(network.Shape(dim, width=8)).eval(), tmp_path / "network.safetensors", {"model": "tiny"})
    return tmp_path / "network.safetensors"


def test_a_file_is_parted_in_two_that_add_up(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mix = tmp_path / "mix.flac"
    soundfile.write(mix, np.stack([generate.tone(6.0), 0 * generate.tone(6.0)], axis=1), 16000)
    said = separate.run(mix, [("text", "low"), ("audio", str(mix))], tmp_path / "low.wav", tmp_path / "rest.wav", tiny)
    (low, rate), (rest, _), (whole, _) = (soundfile.read(path) for path in (tmp_path / "low.wav", tmp_path / "rest.wav", mix))
    assert rate == 16000
    assert low + rest == pytest.approx(whole.mean(axis=1), abs=1e-3)
    assert said["query"] == f"low + {mix}"
    assert said["seconds"] == pytest.approx(6)
    assert said["level"] == pytest.approx(float(scores.level(low, low + rest)), abs=0.1)
    assert "the mean of its 2 channels" in capsys.readouterr().err


def test_what_the_command_refuses(tiny: Path, tmp_path: Path) -> None:
    mix = generate.audio(tmp_path / "mix.wav", 1.0)
    asked, out = [("text", "low")], tmp_path / "out.wav"
    with pytest.raises(ib.UserError, match=r"out\.mp7: its name ends in no sound format"):
        separate.run(mix, asked, tmp_path / "out.mp7", None, tiny)
    with pytest.raises(ib.UserError, match="is given for both results"):
        separate.run(mix, asked, out, out, tiny)
    with pytest.raises(ib.UserError, match=r"there is no folder"):
        separate.run(mix, asked, tmp_path / "no" / "out.wav", None, tiny)
    with pytest.raises(ib.UserError, match=r"none\.safetensors: no such file"):
        separate.run(mix, asked, out, None, tmp_path / "none.safetensors")
    with pytest.raises(ib.UserError, match=r"none\.png"):
        separate.run(mix, [("image", str(tmp_path / "none.png"))], out, None, tiny)
    assert not out.exists()


def test_a_broken_recording_is_one_line(tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF and then nothing")
    command = [sys.executable, RECIPE / "separate.py", broken, "--text", "low", "-o", tmp_path / "out.wav"]
    done = subprocess.run([*command, "--network", tiny], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if "untrained" not in line]
    assert line.startswith(f"separate: {broken}: ")
    assert not list(tmp_path.glob(".*partial"))
    assert not (tmp_path / "out.wav").exists()


# Preparing


def test_what_is_gathered_from_a_miniature_of_mini_s_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifests = tmp_path / "data" / "sounds"
    manifests.mkdir(parents=True)
    generate.picture(manifests / "dog.png")

    def rows(name: str, source: str, *files: str) -> None:
        for file in files:
            if not (manifests / file).exists():
                generate.audio(manifests / file, 1.0)
        lines = [{"audio": file, "image": "dog.png", "label": "dog", "source": source} for file in files]
        (manifests / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    for fold in (1, 2):
        rows(f"test-esc10-{fold}.jsonl", "ESC-10", f"{fold}-77-A.wav", f"{fold}-77-B.wav")
        rows(f"esc10-{fold}.jsonl", "ESC-10", f"{fold}-77-A.wav")
    rows("instruments.jsonl", "font", *(f"note-{number}.wav" for number in range(prepare.NOTES + 2)))
    rows("test-soundfont.jsonl", "other font", "note.wav")
    for kind in ("esc10", "instruments"):
        rows(f"ceiling-{kind}.jsonl", "font")
    rows("ceiling-esc10.jsonl", "font", "note.wav")
    prepare.main(tmp_path, 2)
    assert "which has heard the held-out fold" in capsys.readouterr().err
    data = prepare.load(tmp_path / "separate-2" / "data.safetensors")
    assert data.train.recordings[:2] == ("1-77", "1-77")
    assert len(data.train.labels) == 2 + prepare.NOTES
    assert data.test.recordings == ("2-77", "2-77", "note")
    assert data.train.waves.shape == (2 + prepare.NOTES, prepare.SAMPLES)
    assert data.about == {"held_out": 2, "sounds_heard": True, "model": "mini"}
    assert len(data.asking["text"].labels) == len(prepare.TEMPLATES)
    with pytest.raises(SystemExit, match="fold 7 is not among the folds"):
        prepare.gather(tmp_path, 7)
