"""Parts of a batch side by side: the same vectors, errors where they belong, and PyTorch's threads as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imagebind_cli import pipeline
from imagebind_cli.cores import MOST_PARTS, PartsUnderWay, part_count
from imagebind_cli.engine import open_engine
from imagebind_cli.errors import UserError
from imagebind_cli.pipeline import Embedded
from imagebind_cli.sources import Item
from tests import generate
from tests.test_pipeline import numbered, read


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_parts_are_joined_in_order_whatever_ends_first(count: int) -> None:
    first = threading.Event()

    def late() -> Tensor:
        first.wait(30)
        return torch.zeros(1)

    def quick(number: int) -> Tensor:
        first.set()
        return torch.full((1,), float(number))

    parts = PartsUnderWay([late, *(partial(quick, number) for number in range(1, count))], torch.cat)
    assert parts.cpu().tolist() == list(range(count))


def test_parts_run_on_one_core_each_and_other_threads_keep_theirs() -> None:
    parts = PartsUnderWay([lambda: torch.tensor([torch.get_num_threads()])] * 2, torch.cat)
    assert parts.cpu().tolist() == [1, 1]
    later: list[int] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert [torch.get_num_threads(), *later] == [2, 2, 2]


def test_an_error_of_one_part_is_raised_when_all_have_ended() -> None:
    ended = []

    def fail() -> Tensor:
        raise ValueError("no such part")

    with pytest.raises(ValueError, match="no such part"):
        PartsUnderWay([fail, lambda: ended.append(1) or torch.zeros(1)], torch.cat).cpu()  # type: ignore[func-returns-value]
    assert ended


@pytest.mark.parametrize(("cores", "inputs", "wanted"), [(1, 9, 1), (2, 1, 1), (2, 2, 2), (2, 9, 2), (4, 3, 1), (64, 100, MOST_PARTS)])
def test_there_is_a_part_for_each_core_where_there_are_inputs_enough(
    monkeypatch: pytest.MonkeyPatch, cores: int, inputs: int, wanted: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert part_count(inputs) == wanted


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("media")
    return {
        "image": [generate.sample("image", folder, seed) for seed in range(7)],
        "text": ["a", "a dog barks", "two sentences. " * 20, "ein Hund", "🐕", "a dog barks", "a"],
        "audio": [str(generate.audio(folder / f"{seed}.wav", seconds=1 + 2 * seed, seed=seed)) for seed in range(4)],
    }


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_vectors_are_those_of_one_core_and_of_every_run(tiny: Any, media: dict[str, list[str]], modality: str) -> None:
    inputs = media[modality]
    torch.set_num_threads(1)
    alone = tiny.embed(modality, inputs)
    torch.set_num_threads(2)
    first = tiny.embed(modality, inputs, batch_size=3)
    assert np.abs(first - alone).max() <= 1e-6
    assert np.array_equal(tiny.embed(modality, inputs, batch_size=3), first)


@pytest.mark.parametrize("unit", [True, False])
def test_several_clips_of_an_input_are_averaged_over_the_parts(tiny: Any, unit: bool) -> None:
    clips = torch.randn(3, 5, *tiny.config("imu").shape)
    alone = torch.stack([tiny.encode("imu", one[None], unit=unit)[0] for one in clips])
    assert torch.allclose(tiny.encode("imu", clips, unit=unit), alone, atol=1e-5)


def parts_of(most: int, sizes: list[int], clips: Tensor) -> PartsUnderWay:
    """Encode in two parts, each of which has memory for `most` clips."""

    def encode(part: Tensor) -> Tensor:
        sizes.append(len(part))
        if len(part) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return torch.nn.functional.normalize(part, dim=1)

    return PartsUnderWay([partial(encode, part) for part in clips.tensor_split(2) if len(part)], torch.cat)


def embedded(count: int, most: int, sizes: list[int]) -> list[tuple[Item, Any]]:
    engine = open_engine(read, 2)
    return list(pipeline.embed_items(numbered(count), engine, partial(parts_of, most, sizes), batch_size=16))


def test_out_of_memory_in_a_part_halves_the_batches_and_every_result_is_right() -> None:
    sizes: list[int] = []
    results = embedded(60, 3, sizes)
    assert [item.id for item, _ in results] == [str(number) for number in range(60)]
    angles = [float(np.arctan2(*result.embeddings[0].vector[::-1])) for _, result in results if isinstance(result, Embedded)]
    assert angles == pytest.approx([number / 60 for number in range(60)], abs=1e-6)
    assert sizes[0] == 8
    assert max(sizes[-16:]) <= 3


def test_out_of_memory_with_one_clip_in_a_part_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match="out of memory with a batch of one"):
        embedded(4, 0, [])
