"""Lanes: batches by key, an error for the one at fault, nothing for what nobody waits for any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from imagebind_cli.server.lanes import MOST, Lanes
from imagebind_cli.server.limits import Limits, Refusal


class Recorder:
    """Doubles numbers, and keeps what came together; waits at the first batch until it may go on."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, list[Any]]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, key: Any, things: list[Any]) -> Iterator[Any]:
        self.batches.append((key, things))
        self.begun.set()
        assert self.go_on.wait(10)
        for thing in things:
            if thing == "bad":
                raise ValueError("a bad one")
            yield thing * 2


@pytest.fixture
def work() -> Recorder:
    return Recorder()


def test_what_waits_with_the_same_key_becomes_a_batch(work: Recorder) -> None:
    lanes = Lanes(Limits())
    first = lanes.submit("lane", work, "a", [0])
    assert work.begun.wait(10)
    waiting = [lanes.submit("lane", work, key, [number]) for key, number in (("a", 1), ("b", 2), ("a", 3), ("b", 4))]
    assert lanes.waiting == 4
    work.go_on.set()
    assert [outcome for future in (first, *waiting) for outcome in future.result(10)] == [0, 2, 4, 6, 8]
    assert work.batches == [("a", [0]), ("a", [1, 3]), ("b", [2, 4])]
    lanes.close()


def test_a_batch_has_an_end(work: Recorder) -> None:
    lanes = Lanes(Limits())
    lanes.submit("lane", work, "a", [0])
    assert work.begun.wait(10)
    future = lanes.submit("lane", work, "a", list(range(MOST + 5)))
    assert lanes.waiting == MOST + 5
    work.go_on.set()
    assert future.result(10) == [2 * number for number in range(MOST + 5)]
    assert [len(things) for _, things in work.batches] == [1, MOST, 5]
    lanes.close()


def test_only_the_one_at_fault_fails(work: Recorder) -> None:
    lanes = Lanes(Limits())
    work.go_on.set()
    outcomes = lanes.submit("lane", work, "a", [1, "bad", 2, "bad", 3]).result(10)
    assert outcomes[::2] == [2, 4, 6]
    assert [(type(error), str(error)) for error in outcomes[1::2]] == [(ValueError, "a bad one")] * 2
    lanes.close()


def test_what_nobody_waits_for_is_not_begun(work: Recorder) -> None:
    lanes = Lanes(Limits(seconds=0.1))
    lanes.submit("lane", work, "a", [0])
    assert work.begun.wait(10)
    late = lanes.submit("lane", work, "a", [1])
    gone = lanes.submit("lane", work, "a", [2])
    gone.cancel()
    time.sleep(0.2)
    in_time = lanes.submit("lane", work, "a", [3])
    work.go_on.set()
    assert in_time.result(10) == [6]
    with pytest.raises(CancelledError):
        late.result(10)
    assert [things for _, things in work.batches] == [[0], [3]]
    lanes.close()


def test_too_much_is_refused(work: Recorder) -> None:
    lanes = Lanes(Limits(waiting=2))
    lanes.submit("lane", work, "a", [0])
    assert work.begun.wait(10)
    lanes.submit("other lane", work, "a", [1])
    lanes.submit("lane", work, "a", [2])
    with pytest.raises(Refusal) as refusal:
        lanes.submit("lane", work, "a", [3, 4])
    assert (refusal.value.status_code, refusal.value.headers) == (503, {"Retry-After": "1"})
    work.go_on.set()
    lanes.close()


def test_a_bug_is_the_result_of_its_thing_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(key: Any, things: list[Any]) -> Iterator[Any]:
        raise ZeroDivisionError
        yield

    lanes = Lanes(Limits())
    (error,) = lanes.submit("lane", fail, "a", [0]).result(10)
    assert isinstance(error, ZeroDivisionError)
    assert "a bug in answering a request" in caplog.text
    lanes.close()


def test_a_client_that_goes_in_the_middle_leaves_the_others(work: Recorder) -> None:
    lanes = Lanes(Limits())
    gone = lanes.submit("lane", work, "a", list(range(MOST + 5)))
    assert work.begun.wait(10)
    other = lanes.submit("lane", work, "a", [1])
    gone.cancel()
    work.go_on.set()
    assert other.result(10) == [2]
    assert [len(things) for _, things in work.batches] == [MOST, 1]
    assert lanes.waiting == 0
    lanes.close()


def test_idle_threads_share_what_waits() -> None:
    together = threading.Barrier(2)

    def work(key: Any, things: list[Any]) -> Iterator[Any]:
        together.wait(10)  # only two batches at a time pass
        yield from ((thing, len(things)) for thing in things)

    lanes = Lanes(Limits())
    assert lanes.submit("lane", work, "a", list(range(8)), threads=2).result(20) == [(number, 4) for number in range(8)]
    lanes.close()


def test_requests_in_a_row_become_a_batch_while_other_threads_work(work: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebind_cli.server.lanes.PAUSE", 2)
    lanes = Lanes(Limits())

    def slow(key: Any, things: list[Any]) -> Iterator[Any]:
        time.sleep(0.5)  # the next request is waited for twice as long
        yield from things

    lanes.submit("lane", slow, "slow", [0], threads=2).result(10)
    lanes.submit("lane", work, "a", [0], threads=2)
    assert work.begun.wait(10)
    waiting = []
    for number in (1, 2, 3):
        waiting.append(lanes.submit("lane", work, "a", [number], threads=2))
        time.sleep(0.05)
    until = time.monotonic() + 10
    while len(work.batches) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    work.go_on.set()
    assert [future.result(10) for future in waiting] == [[2], [4], [6]]
    assert work.batches == [("a", [0]), ("a", [1, 2, 3])]
    lanes.close()
