"""How code in the wild calls `imagebind`, in our words: scores of generated sound and film, features of datasets, parts of the model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils.data import DataLoader, Dataset

import imagebind
import imagebind.data as imagebind_data
import imagebind_cli as ib
from imagebind import data
from imagebind.data import ConstantClipsPerVideoSampler, get_clip_timepoints, transforms, waveform2melspec
from imagebind.models import imagebind_model
from imagebind.models.imagebind_model import ImageBindModel, ModalityType
from imagebind_cli.demo import SAMPLES
from tests import generate
from tests.golden import META, OUTPUTS

Tensors = dict[str, Tensor]
SCALES = {"text": 1 / 0.07, "audio": 20.0, "vision": 1.0}


@pytest.fixture(autouse=True)
def without_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """No gradients, unless the test takes them."""
    with torch.set_grad_enabled("gradients" in request.node.name):
        yield


def test_example_of_the_original_readme(model: ImageBindModel, weights: Tensors) -> None:
    """Three texts, pictures and sounds, and the softmax of every two, equal to what this package computes by its own names."""
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    text_list = ["A dog.", "A car", "A bird"]
    image_paths = [str(SAMPLES / "image" / f"{name}.png") for name in ("rain", "guitar", "flute")]
    audio_paths = [str(SAMPLES / "audio" / f"{name}.mp3") for name in ("rain", "guitar", "flute")]
    model.to(device)
    inputs = {
        ModalityType.TEXT: data.load_and_transform_text(text_list, device),
        ModalityType.VISION: data.load_and_transform_vision_data(image_paths, device),
        ModalityType.AUDIO: data.load_and_transform_audio_data(audio_paths, device),
    }
    embeddings = {name: vectors.cpu() for name, vectors in model(inputs).items()}

    own = ib.load(weights, config=META["config"], device="cpu")
    audio = [torch.cat([sample.tensor for sample in own.read("audio", path, clips=3)]) for path in audio_paths]
    clips = torch.cat([own.encode("audio", tensor) for tensor in audio]).unflatten(0, (3, 3)).mean(dim=1)
    expected = {
        "text": own.scale("text") * torch.from_numpy(own.embed("text", text_list)),
        "vision": torch.from_numpy(own.embed("image", image_paths)),
        "audio": own.scale("audio") * clips,
    }
    for name, vectors in expected.items():
        assert (embeddings[name] - vectors).abs().max() <= 1e-5 * SCALES[name]
    for one, other in itertools.permutations(expected, 2):
        ours = torch.softmax(embeddings[one] @ embeddings[other].T, dim=-1)
        assert (ours - torch.softmax(expected[one] @ expected[other].T, dim=-1)).abs().max() <= 1e-3  # of logits up to 286


def test_score_of_sound_and_film_file_by_file(model: ImageBindModel, tmp_path: Path) -> None:
    """A folder of films and one of sounds, matched by name: the cosine of each pair, and their mean."""
    for seed in range(2):
        generate.video(tmp_path / f"{seed}.mp4", seconds=3, seed=seed, sound=True)
        generate.audio(tmp_path / f"{seed}.wav", seconds=3, seed=seed)
    scores = []
    for film in sorted(tmp_path.glob("*.mp4")):
        given = {
            ModalityType.VISION: data.load_and_transform_video_data([str(film)], "cpu"),
            ModalityType.AUDIO: data.load_and_transform_audio_data([str(film.with_suffix(".wav"))], "cpu"),
        }
        vectors = model(given)
        scores.append(cosine_similarity(vectors[ModalityType.VISION], vectors[ModalityType.AUDIO]).item())
    assert len(set(scores)) == 2
    films, sounds = (sorted(map(str, tmp_path.glob(pattern))) for pattern in ("*.mp4", "*.wav"))
    together = model(
        {"vision": data.load_and_transform_video_data(films, "cpu"), "audio": data.load_and_transform_audio_data(sounds, "cpu")}
    )
    assert cosine_similarity(together["vision"], together["audio"]).tolist() == pytest.approx(scores, abs=1e-6)
    # the sound of the film itself, read from it
    assert data.load_and_transform_audio_data([films[0]], "cpu").shape == (1, 3, 1, 128, 204)


class Spectrograms(Dataset[tuple[str, Tensor]]):
    """Spectrograms (3, 1, 128, 204) of sound files, made by the parts that `imagebind.data` exports."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths, self.sampler = paths, ConstantClipsPerVideoSampler(clip_duration=2, clips_per_video=3)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[str, Tensor]:
        samples, rate = soundfile.read(self.paths[number], dtype="float32", always_2d=True)
        return self.paths[number].stem, clips_of(torch.from_numpy(samples.T.copy()), rate, self.sampler)


def clips_of(waveform: Tensor, rate: int, sampler: ConstantClipsPerVideoSampler) -> Tensor:
    waveform = torchaudio.functional.resample(waveform, orig_freq=rate, new_freq=16000)
    normalize = transforms.Normalize(mean=-4.268, std=9.138)
    clips = []
    for start, end in get_clip_timepoints(sampler, waveform.size(1) / 16000):
        clip = waveform[:, int(start * 16000) : int(end * 16000)]
        clips.append(normalize(waveform2melspec(clip, 16000, 128, 204)))
    return torch.stack(clips, dim=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_spectrograms_of_ones_own_in_batches(model: ImageBindModel, tmp_path: Path, workers: int) -> None:
    """A dataset and a loader, in this process and in forked ones; a batch is (b, clips, 1, 128, 204)."""
    paths = [generate.audio(tmp_path / f"{seed}.wav", seconds=4, seed=seed, rate=22050) for seed in range(3)]
    features = {}
    for names, batch in DataLoader(
        Spectrograms(paths), batch_size=2, num_workers=workers, multiprocessing_context="fork" if workers else None
    ):
        vectors = model({ModalityType.AUDIO: batch.squeeze(1)})[ModalityType.AUDIO].cpu()
        features |= dict(zip(names, vectors, strict=True))
    expected = model({"audio": data.load_and_transform_audio_data(paths, "cpu")})["audio"]
    assert list(features) == ["0", "1", "2"]
    assert torch.allclose(torch.stack(list(features.values())), expected, atol=1e-5 * SCALES["audio"])


def pairs_of_frames(model: ImageBindModel, frames: Tensor) -> Tensor:
    """Vectors of films (b, crops, t, 3, h, w): every two neighbouring frames are a clip."""
    clips = torch.cat([frames[:, :, t : t + 2] for t in range(frames.shape[2] - 1)], dim=1)
    vectors: Tensor = model({ModalityType.VISION: clips.transpose(2, 3)})[ModalityType.VISION]
    return vectors


def test_a_compiled_function_takes_the_model_and_frames(model: ImageBindModel) -> None:
    frames = torch.randn(2, 1, 3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(pairs_of_frames, backend="eager", fullgraph=True)
    assert torch.equal(compiled(model, frames), pairs_of_frames(model, frames))


@pytest.mark.parametrize("name", ["vision_video", "text", "audio", "imu"])
def test_a_compiled_model_is_one_graph(model: ImageBindModel, inputs: Tensors, name: str) -> None:
    modality = name.split("_", maxsplit=1)[0]
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    vectors = compiled({modality: inputs[name]})[modality]
    assert np.abs(vectors.numpy() - OUTPUTS[name]).max() <= 1e-5 * SCALES.get(modality, 10)


def test_candidate_sounds_are_ranked_by_a_film(weights: Tensors, tmp_path: Path) -> None:
    """Weights from a file into a new model; waveforms at 48 kHz of several candidates a film; scores (films, candidates, 1)."""
    torch.save(weights, tmp_path / "own.pth")
    ranker = imagebind_model.ImageBindModel(**META["config"])
    ranker.load_state_dict(torch.load(tmp_path / "own.pth", map_location="cpu"))
    ranker = ranker.eval()
    films = [str(generate.video(tmp_path / f"{seed}.mp4", seconds=2, seed=seed)) for seed in range(2)]
    sampler = ConstantClipsPerVideoSampler(clip_duration=2, clips_per_video=3)
    waveforms = [torch.from_numpy(generate.tone(2.5, seed=seed, rate=48000)).float()[None] for seed in range(4)]
    sounds = torch.stack([clips_of(waveform, 48000, sampler) for waveform in waveforms])
    vectors = ranker({ModalityType.AUDIO: sounds, ModalityType.VISION: data.load_and_transform_video_data(films, sounds.device)})
    audio, vision = (vectors[name] / vectors[name].norm(dim=-1, keepdim=True) for name in (ModalityType.AUDIO, ModalityType.VISION))
    scores = audio.view(2, 2, -1) @ vision.view(2, -1, 1)
    assert scores.shape == (2, 2, 1)
    assert scores.abs().max() <= 1 + 1e-6


def test_features_on_the_device_of_the_parameters(model: ImageBindModel, tmp_path: Path) -> None:
    device = next(model.parameters()).device
    batches = [[str(generate.picture(tmp_path / f"{n}.png", seed=n)) for n in batch] for batch in ((0, 1), (2,))]
    features = torch.cat(
        [model({ModalityType.VISION: data.load_and_transform_vision_data(paths, device)})["vision"].cpu() for paths in batches]
    )
    query = model({ModalityType.TEXT: data.load_and_transform_text(["a query"], device)})["text"]
    assert features.shape == (3, 48)
    assert (features @ query.T).shape == (3, 1)


@pytest.mark.parametrize("kept", ["vision", "imu"])
def test_modalities_that_are_not_used_are_deleted(model: ImageBindModel, inputs: Tensors, kept: str) -> None:
    for name in vars(ModalityType).values():
        if name != kept:
            for stages in (model.modality_preprocessors, model.modality_trunks, model.modality_heads, model.modality_postprocessors):
                del stages[name]
    assert all(f".{kept}." in name for name in model.state_dict())
    assert np.abs(model({kept: inputs[kept]})[kept].numpy() - OUTPUTS[kept]).max() <= 1e-5 * SCALES.get(kept, 5)
    with pytest.raises(KeyError, match="audio"):
        model({"audio": inputs["audio"]})


@pytest.mark.parametrize("name", ["vision", "text", "audio_single", "depth", "thermal", "imu"])
def test_the_stages_one_by_one(model: ImageBindModel, inputs: Tensors, name: str) -> None:
    modality = name.split("_", maxsplit=1)[0]
    tokens = model.modality_preprocessors[modality](**{modality: inputs[name]})
    assert torch.equal(model.modality_preprocessors[modality](inputs[name])["trunk"]["tokens"], tokens["trunk"]["tokens"])
    patches = model.modality_trunks[modality](**tokens["trunk"])
    assert patches.shape == tokens["trunk"]["tokens"].shape
    vectors = model.modality_postprocessors[modality](model.modality_heads[modality](patches, **tokens["head"]))
    assert np.abs(vectors.numpy() - OUTPUTS[name]).max() <= 1e-5 * SCALES.get(modality, 10)


def test_gradients_reach_a_spectrogram_through_the_stages(model: ImageBindModel, inputs: Tensors) -> None:
    model.requires_grad_(False)
    sound = inputs["audio_single"].clone().requires_grad_()
    tokens = model.modality_preprocessors["audio"](audio=sound)
    vectors = model.modality_postprocessors["audio"](model.modality_heads["audio"](model.modality_trunks["audio"](**tokens["trunk"])))
    cosine_similarity(vectors, vectors.detach().flip(0)).sum().backward()
    assert sound.grad.abs().max() > 0


def test_parts_where_probes_look_for_them(model: ImageBindModel) -> None:
    """The number of blocks, the last layer of a head, the scale, and what a hook sees."""
    assert [len(model.modality_trunks[name].blocks) for name in ("vision", "imu")] == [3, 2]
    for name in ("vision", "audio", "depth", "thermal", "imu"):
        final = list(model.modality_heads[name])[-1]
        assert isinstance(final, nn.Linear)
        assert final.out_features == 48
    scaling = model.modality_postprocessors["audio"][1]
    assert scaling.log_logit_scale.exp().clamp(max=scaling.max_logit_scale).item() == pytest.approx(20)
    seen = []
    handle = model.modality_trunks["vision"].blocks[-1].register_forward_hook(lambda block, given, tokens: seen.append(tokens.shape))
    model({"vision": torch.zeros(1, 3, 224, 224)})
    handle.remove()
    assert seen == [(1, 257, 64)]


def test_names_of_the_package_itself() -> None:
    assert imagebind.data is data is imagebind_data
    assert imagebind.ModalityType is ModalityType
    assert imagebind.imagebind_huge is imagebind.imagebind_model.imagebind_huge is imagebind_model.imagebind_huge
    assert imagebind.models.imagebind_model is imagebind_model
    assert imagebind.load_and_transform_audio_data is data.load_and_transform_audio_data
    assert vars(ModalityType) == {name.upper(): name for name in ("vision", "text", "audio", "thermal", "depth", "imu")}
