"""Items read in threads: few are open at a time, a file is closed by its last sample, and a failure midway comes in its turn."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from imagebind_cli import Model
from imagebind_cli.encoder import Sample
from imagebind_cli.engine.threads import ThreadEngine
from imagebind_cli.media import isolation
from imagebind_cli.sources import Item
from tests import generate


class Files:
    """Readers of as many samples as asked for, which count the items that are open."""

    def __init__(self) -> None:
        self.open = self.most = 0
        self._lock = threading.Lock()

    def read(self, payload: tuple[int, int | None]) -> Iterator[Sample]:
        """payload: the number of samples, and that of the one at which reading fails."""
        count, bad = payload
        with self._lock:
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            for number in range(count):
                time.sleep(0.002)
                if number == bad:
                    raise ValueError(f"sample {number} is damaged")
                yield Sample(torch.full((1, 1), float(number)), [None])
        finally:
            with self._lock:
                self.open -= 1


@pytest.fixture
def files() -> Files:
    return Files()


def values(samples: Iterator[Sample]) -> list[float]:
    return [sample.tensor.item() for sample in samples]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_items_are_open_at_a_time(files: Files, count: int) -> None:
    engine = ThreadEngine(files.read, 2, most_open=4)
    try:
        submitted = [engine.submit((count, None)) for _ in range(30)]
        assert [values(samples) for samples in submitted] == [list(map(float, range(count)))] * 30
    finally:
        engine.close()
    assert files.most <= 4


def test_a_file_is_closed_by_its_last_sample(files: Files) -> None:
    engine = ThreadEngine(files.read, 1, most_open=3)
    try:
        samples = engine.submit((2, None))
        assert [next(samples).tensor.item(), next(samples).tensor.item()] == [0.0, 1.0]
        assert files.open == 0
        assert next(samples, None) is None
    finally:
        engine.close()


def test_a_failure_midway_comes_in_its_turn_and_makes_room(files: Files) -> None:
    engine = ThreadEngine(files.read, 2, most_open=2)
    try:
        items = [engine.submit((3, 1)), engine.submit((0, None)), engine.submit((2, 0)), engine.submit((2, None))]
        assert next(items[0]).tensor.item() == 0.0
        with pytest.raises(ValueError, match="sample 1 is damaged"):
            next(items[0])
        assert values(items[1]) == []
        with pytest.raises(ValueError, match="sample 0 is damaged"):
            next(items[2])
        assert values(items[3]) == [0.0, 1.0]
    finally:
        engine.close()


def test_an_item_that_takes_too_long_makes_room() -> None:
    def read(payload: float) -> Iterator[Sample]:
        time.sleep(payload)
        yield Sample(torch.zeros(1, 1), [None])

    engine = ThreadEngine(read, 1, timeout=0.2, most_open=1)
    try:
        slow, quick = engine.submit(1.0), engine.submit(0.0)
        with pytest.raises(ValueError, match=r"0\.2 s"):
            next(slow)
        assert len(list(quick)) == 1
    finally:
        engine.close()


def test_a_few_processes_decode_many_videos(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        isolation.subprocess, "Popen", lambda *arguments, **options: started.append(arguments) or popen(*arguments, **options)
    )
    videos = [str(generate.video(tmp_path / f"{seed}.mp4", 1, seed)) for seed in range(10)]
    assert len(list(tiny.embed_items("video", [Item(name, name) for name in videos], workers=2))) == 10
    assert len(started) <= 4
