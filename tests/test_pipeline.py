"""Items in, vectors out: in order, in bounded memory, and the same whatever the batches were."""

from __future__ import annotations

import gc
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from imagebind_cli import pipeline
from imagebind_cli.encoder import Sample
from imagebind_cli.engine import open_engine
from imagebind_cli.engine.threads import ThreadEngine
from imagebind_cli.errors import UserError
from imagebind_cli.pipeline import Embedded
from imagebind_cli.sources import Failure, Item
from tests import generate


def read(payload: str) -> Iterator[Sample]:
    """A payload `3.5` as one clip (2,) that points at this angle."""
    angle = torch.tensor(float(payload))
    yield Sample(torch.stack([angle.cos(), angle.sin()]).unsqueeze(0), [None])


def encode(clips: Tensor) -> Tensor:
    return normalize(clips, dim=1)


def run(
    items: Iterable[Item | Failure], encode: Callable[[Tensor], Tensor] = encode, **options: Any
) -> Iterator[tuple[Item, Embedded | Failure]]:
    settings = {"read": read, "batch_size": 4, "workers": 2} | options
    engine = open_engine(settings.pop("read"), settings.pop("workers"))
    return pipeline.embed_items(items, engine, encode, **settings)


def angles(results: Iterable[tuple[Item, Embedded | Failure]]) -> list[float]:
    return [float(np.arctan2(*result.embeddings[0].vector[::-1])) for _, result in results if isinstance(result, Embedded)]


def numbered(count: int) -> list[Item]:
    return [Item(str(number), str(number / count)) for number in range(count)]


def ids(results: Iterable[tuple[Item, Embedded | Failure]]) -> list[str]:
    return [item.id for item, _ in results]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_item_that_takes_too_long_to_read_fails_and_the_others_do_not(workers: int) -> None:
    """Each late item's thread is abandoned, and another takes its place. Waiting behind a late item does not count."""
    ended = threading.Event()

    def late_for_some(payload: str) -> Iterator[Sample]:
        if float(payload) < 0.3:
            ended.wait(30)
        yield from read(payload)
        if float(payload) > 0.8:
            ended.wait(30)

    engine = ThreadEngine(late_for_some, workers, 0.2)
    results = list(pipeline.embed_items(numbered(10), engine, encode, batch_size=4))
    ended.set()
    failures = {item.id: result.reason for item, result in results if isinstance(result, Failure)}
    assert failures == dict.fromkeys("0129", "not read within 0.2 s; --item-timeout allows more")
    assert angles(results) == pytest.approx([number / 10 for number in range(3, 9)])


def test_reading_counts_in_all_and_not_waiting_for_who_takes_the_samples() -> None:
    def steady(payload: str) -> Iterator[Sample]:
        for _ in range(3):
            time.sleep(0.2)
            yield from read(payload)

    for seconds, pause, wanted in (0.3, 0.0, 1), (1.0, 0.5, 3):
        taken = 0
        engine = ThreadEngine(steady, 1, seconds)
        with suppress(ValueError):
            for _ in engine.submit("1"):
                taken += 1
                time.sleep(pause)
        assert taken == wanted
        engine.close()


def test_results_come_in_input_order_though_reading_takes_unequal_time() -> None:
    def slow_for_some(payload: str) -> Iterator[Sample]:
        time.sleep(0.02 * (int(float(payload) * 24) % 3))
        yield from read(payload)

    items = numbered(24)
    results = list(run(items, read=slow_for_some, workers=4))
    assert ids(results) == [item.id for item in items]
    assert angles(results) == pytest.approx([float(item.payload) for item in items], abs=1e-6)


class Late:
    """Vectors as on a GPU: there only when they are asked for."""

    device = torch.device("cuda")

    def __init__(self, vectors: Tensor, steps: list[str]) -> None:
        self._vectors, self._steps = vectors, steps

    def cpu(self) -> Tensor:
        self._steps.append("taken")
        return self._vectors


def test_vectors_on_a_gpu_are_waited_for_when_the_next_batch_is_on_its_way() -> None:
    steps: list[str] = []

    def encode_late(clips: Tensor) -> Any:
        steps.append(f"given {len(clips)}")
        return Late(encode(clips), steps)

    items = numbered(10)
    results = list(run(items, encode=encode_late))
    assert steps == ["given 4", "given 4", "taken", "given 2", "taken", "taken"]
    assert angles(results) == pytest.approx([float(item.payload) for item in items], abs=1e-6)


def test_vectors_on_a_gpu_come_though_no_more_input_does() -> None:
    more: queue.Queue[Item | None] = queue.Queue()
    for item in numbered(4):
        more.put(item)
    results = run(iter(more.get, None), encode=lambda clips: Late(encode(clips), []))  # type: ignore[arg-type, return-value]
    assert ids(itertools.islice(results, 4)) == ["0", "1", "2", "3"]
    more.put(None)


def test_failures_pass_through_in_their_place() -> None:
    def some_fail(payload: str) -> Iterator[Sample]:
        if payload == "0.5":
            raise ValueError("bad\nnumber")
        if payload == "0.6":
            raise FileNotFoundError(2, "No such file or directory")
        if payload == "0.7":
            raise MemoryError
        yield from read(payload)

    items = [*numbered(10), Failure("gone", "no such file")]
    results = list(run(items, read=some_fail))
    assert ids(results) == [item.id for item in items]
    assert [result for _, result in results if isinstance(result, Failure)] == [
        Failure("5", "bad number"),
        Failure("6", "no such file or directory"),
        Failure("7", "does not fit into memory"),
        Failure("gone", "no such file"),
    ]


def test_a_reader_that_fails_half_way_gives_a_failure_and_no_vector() -> None:
    def breaks(payload: str) -> Iterator[Sample]:
        yield from read(payload)
        if payload == "0.5":
            raise ValueError("broken in the middle")

    results = list(run(numbered(4), read=breaks, batch_size=1))
    assert [isinstance(result, Failure) for _, result in results] == [False, False, True, False]


def test_a_bug_in_a_reader_is_no_failure() -> None:
    def buggy(payload: str) -> Iterator[Sample]:
        raise TypeError("a bug")
        yield

    with pytest.raises(TypeError, match="a bug"):
        list(run(numbered(1), read=buggy))


def test_what_ends_the_input_is_raised_after_the_results_before_it() -> None:
    def items() -> Iterator[Item]:
        yield from numbered(3)
        raise UserError("the manifest is broken")

    results = []
    with pytest.raises(UserError, match="the manifest is broken"):
        for result in run(items()):
            results.append(result)
    assert ids(results) == ["0", "1", "2"]


def test_no_items_give_no_results() -> None:
    assert list(run([])) == []


@pytest.mark.timeout(20)
def test_the_first_result_comes_before_the_second_item() -> None:
    given: queue.Queue[Item | None] = queue.Queue()
    results = run(iter(given.get, None), batch_size=8)
    for item in numbered(3):
        given.put(item)
        assert ids([next(results)]) == [item.id]
    given.put(None)
    assert list(results) == []


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (2, 8), (4, 64)])
def test_an_endless_input_is_taken_no_further_than_the_work_at_hand(workers: int, batch_size: int) -> None:
    taken = 0

    def endless() -> Iterator[Item]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield Item(str(number), "0.5")

    results = run(endless(), workers=workers, batch_size=batch_size)
    for _ in range(2 * batch_size):
        next(results)
    time.sleep(0.3)  # the reader takes what it ever will
    # One batch encoded and not given out, one being filled, one waiting in the queue.
    assert taken - 2 * batch_size <= workers + 2 * batch_size + 2
    results.close()


def test_failures_behind_an_unfilled_batch_do_not_pile_up() -> None:
    taken = 0

    def items() -> Iterator[Item | Failure]:
        nonlocal taken
        yield Item("good", "0.5")
        for number in range(5000):
            taken += 1
            yield Failure(str(number), "no such file")

    results = run(items(), batch_size=8)
    assert ids([next(results)]) == ["good"]
    assert taken < 1000
    results.close()


def test_a_long_item_is_read_as_it_is_encoded() -> None:
    read_so_far = encoded_so_far = 0
    ahead = []

    def long(payload: str) -> Iterator[Sample]:
        nonlocal read_so_far
        for _ in range(50):
            read_so_far += 1
            yield from read(payload)

    def counting(clips: Tensor) -> Tensor:
        nonlocal encoded_so_far
        ahead.append(read_so_far - encoded_so_far)
        encoded_so_far += len(clips)
        return encode(clips)

    (result,) = run([Item("long", "0.5")], encode=counting, read=long, batch_size=2)
    assert encoded_so_far == 50
    assert max(ahead) <= 2 + 2
    assert angles([result]) == pytest.approx([0.5], abs=1e-6)


def test_a_long_item_leaves_no_small_tensor_behind_for_each_clip() -> None:
    """They would lie between the batches' memory, so that the C library could not use it again: 0.5 GB over three hours of sound."""
    alive = []

    def counting(clips: Tensor) -> Tensor:
        alive.append(sum(type(thing) is Tensor for thing in gc.get_objects()))
        return encode(clips)

    def many(payload: str) -> Iterator[Sample]:
        for number in range(200):
            yield Sample(torch.eye(2), [(2.0 * number, 2.0 * number + 1), (2.0 * number + 1, 2.0 * number + 2)])

    [(_, result)] = run([Item("long", "")], encode=counting, read=many, pool="none")
    assert isinstance(result, Embedded)
    assert np.array_equal([embedding.vector for embedding in result.embeddings], np.tile(np.eye(2), (200, 1)))
    assert alive[-1] - alive[0] < 50


def test_leaving_early_ends_the_threads() -> None:
    before = set(threading.enumerate())
    results = run(Item(str(number), "0.5") for number in itertools.count())
    next(results)
    results.close()
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_windows_are_averaged_or_kept_apart_and_views_of_one_window_are_one(pool: str) -> None:
    def windows(payload: str) -> Iterator[Sample]:
        directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
        yield Sample(directions[:2], [(0.0, 2.0), (0.0, 2.0)], ("a note",))
        yield Sample(directions[2:], [(2.0, 4.0), (2.0, 4.0)], ("a note", "another"))

    ((_, result),) = run([Item("a", "")], read=windows, pool=pool)
    assert isinstance(result, Embedded)
    assert result.notes == ("a note", "another")
    half, quarter = [2**-0.5, 2**-0.5], [10**-0.5, 3 * 10**-0.5]
    wanted = [(quarter, None)] if pool == "mean" else [(half, (0.0, 2.0)), ([0, 1], (2.0, 4.0))]
    assert [embedding.span for embedding in result.embeddings] == [span for _, span in wanted]
    for embedding, (vector, _) in zip(result.embeddings, wanted, strict=True):
        assert embedding.vector == pytest.approx(vector, abs=1e-6)
        assert embedding.vector.dtype == np.float32


def limited(most: int, error: Exception, sizes: list[int]) -> Callable[[Tensor], Tensor]:
    """An encoder that raises the error for more than this many clips, and notes the batches it is given."""

    def encoder(clips: Tensor) -> Tensor:
        sizes.append(len(clips))
        if len(clips) > most:
            raise error
        return encode(clips)

    return encoder


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch_for_good_and_every_result_is_right(error: Exception) -> None:
    sizes: list[int] = []
    items = numbered(40)
    results = list(run(items, encode=limited(2, error, sizes), batch_size=16))
    assert ids(results) == [item.id for item in items]
    assert angles(results) == pytest.approx([float(item.payload) for item in items], abs=1e-6)
    refused = [size for size in sizes if size > 2]
    assert refused
    assert all(later == earlier // 2 for earlier, later in itertools.pairwise(refused))


def test_out_of_memory_with_one_clip_is_told_in_one_line() -> None:
    encoder = limited(0, torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore lines"), [])
    with pytest.raises(UserError, match=r"^out of memory with a batch of one: CUDA out of memory\. Tried 2 GiB$"):
        list(run(numbered(3), encode=encoder))


def test_another_error_of_the_encoder_is_not_taken_for_lack_of_memory() -> None:
    sizes: list[int] = []
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(run(numbered(8), encode=limited(0, RuntimeError("shapes do not fit"), sizes)))
    assert len(sizes) == 1


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Inputs by modality, each of another length."""
    folder = tmp_path_factory.mktemp("media")
    return {
        "image": [generate.sample("image", folder, seed) for seed in range(7)],
        "text": ["a", "a dog barks", "two sentences. " * 20, "ein Hund", "🐕"],
        "audio": [str(generate.audio(folder / f"{seed}.wav", seconds=1 + 2 * seed, seed=seed)) for seed in range(4)],
        "video": [str(generate.video(folder / f"{seed}.mp4", seconds=1 + 2 * seed, seed=seed)) for seed in range(2)],
    }


@pytest.mark.parametrize("modality", ["image", "text", "audio", "video"])
def test_vectors_do_not_depend_on_batch_size_order_or_workers(tiny: Any, media: dict[str, list[str]], modality: str) -> None:
    inputs = media[modality]
    wanted = tiny.embed(modality, inputs, batch_size=1, workers=1)
    assert len(np.unique(wanted.round(4), axis=0)) == len(inputs)
    for batch_size, workers in [(3, 1), (8, 4), (3, 4)]:
        assert np.abs(tiny.embed(modality, inputs, batch_size=batch_size, workers=workers) - wanted).max() <= 1e-6
    assert np.abs(tiny.embed(modality, inputs[::-1], batch_size=3)[::-1] - wanted).max() <= 1e-6


def test_a_picture_and_a_video_go_through_the_shared_encoder_together(tiny: Any, media: dict[str, list[str]]) -> None:
    picture, clip = media["image"][0], media["video"][0]
    mixed = tiny.embed("vision", [picture, clip, picture], batch_size=8)
    assert np.abs(mixed[0] - tiny.embed("image", picture)[0]).max() <= 1e-6
    assert np.abs(mixed[1] - tiny.embed("video", clip)[0]).max() <= 1e-6
    assert np.abs(mixed[2] - mixed[0]).max() <= 1e-6


def test_one_bad_input_of_the_python_call_is_named(tiny: Any, media: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone.png: no such file"):
        tiny.embed("image", [media["image"][0], str(tmp_path / "gone.png")])
