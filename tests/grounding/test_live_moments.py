"""`imagebind moments --live`: the moments of the whole recording, each as soon as it is over, and a threshold from what came so far."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from imagebind_cli.grounding.curves import MomentOptions, find_runs, score_curve
from imagebind_cli.grounding.live_moments import FIRST_SECONDS, LiveMoment, find_live_moments
from imagebind_cli.live import LiveRow
from tests import generate
from tests.conftest import Run

QUERY, OTHER = np.eye(3, dtype=np.float64)[:2]


def live_rows(windows: Iterable[tuple[float, float]], cosines: Iterable[float], others: Sequence[float] | None = None) -> Iterator[LiveRow]:
    """Windows of a stream with these cosines with `QUERY` and `OTHER`."""
    for (start, end), cosine, other in zip(windows, cosines, others or itertools.repeat(0.0), strict=False):
        yield LiveRow("live", "audio", start, end, "2026-05-01T12:00:00.000Z", np.array([cosine, other, 0.0]), 0, time.monotonic())


def spans(moments: Iterator[LiveMoment]) -> list[tuple[float, float]]:
    return [(moment.start, moment.end) for moment in moments]


@pytest.mark.parametrize(("hop", "length"), [(1.0, 2.0), (0.5, 2.0), (2.0, 2.0), (1.5, 5.0), (0.7, 2.0)])
@pytest.mark.parametrize(("join", "min_length"), [(0.0, 1.0), (2.0, 3.0)])
def test_with_a_threshold_they_are_those_of_the_whole(hop: float, length: float, join: float, min_length: float) -> None:
    random = np.random.default_rng(int(10 * hop))
    windows = [(hop * number, hop * number + length) for number in range(120) if not 40 <= number < 52]  # twelve were dropped
    cosines = np.repeat(random.uniform(0, 1, 30), 4)[: len(windows)]
    options = MomentOptions(0.5, min_length, join)
    curve = score_curve(np.array(windows), cosines)
    times, runs = curve.times(), find_runs(curve, options)
    moments = list(find_live_moments(live_rows(windows, cosines), QUERY, options))
    assert [(moment.start, moment.end) for moment in moments] == [(times[first], times[stop]) for first, stop in runs]
    assert len(moments) > 2
    for moment, (first, stop) in zip(moments, runs, strict=True):
        assert moment.score == pytest.approx(np.nanmean(curve.scores[first:stop]), abs=1e-12)
        assert moment.best_score == pytest.approx(np.nanmax(curve.scores[first:stop]), abs=1e-12)
        assert curve.scores[int(np.flatnonzero(times == moment.best)[0])] == pytest.approx(moment.best_score, abs=1e-12)


def test_a_moment_comes_once_no_window_can_change_it() -> None:
    taken = []

    def rows() -> Iterator[LiveRow]:
        windows = [(float(number), number + 2.0) for number in range(20)]
        for row in live_rows(windows, [0.9 if 5 <= number < 9 else 0.1 for number in range(20)]):
            taken.append(row.start)
            yield row

    moment = next(find_live_moments(rows(), QUERY, MomentOptions(0.4)))
    assert (moment.start, moment.end, taken[-1]) == (5.0, 10.0, 11.0)
    assert moment.as_json("a dog")["clock"] == "2026-05-01T11:59:54.000Z"  # the row of 12:00:00 begins at 11 s


def test_scores_may_be_relative_to_other_names() -> None:
    windows = [(float(number), number + 1.0) for number in range(6)]
    rows = live_rows(windows, [0.9] * 6, [0.95, 0.95, 0.2, 0.2, 0.95, 0.95])
    assert spans(find_live_moments(rows, QUERY, MomentOptions(0.0), OTHER[None])) == [(2.0, 4.0)]


def test_without_a_threshold_it_follows_the_stream() -> None:
    """The same rise counts on a quiet and on a loud background; in the first seconds nothing does."""
    cosines = [0.5, 0.5] + [0.12, 0.1] * 20 + [0.5] * 3 + [0.12, 0.1] * 350 + [0.42, 0.4] * 350 + [0.6] * 3 + [0.4] * 10
    windows = [(float(number), number + 1.0) for number in range(len(cosines))]
    moments = list(find_live_moments(live_rows(windows, cosines), QUERY))
    assert {(42.0, 45.0), (1445.0, 1448.0)} <= {(moment.start, moment.end) for moment in moments}
    assert all(moment.start >= FIRST_SECONDS for moment in moments)
    assert moments[-1].threshold == pytest.approx(0.505, abs=0.01)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.6])
def test_memory_does_not_grow_with_the_stream(threshold: float | None) -> None:
    def peak(count: int) -> int:
        rows = live_rows(((float(number), number + 2.0) for number in range(count)), (number % 2 for number in range(count)))
        tracemalloc.start()
        assert sum(1 for _ in find_live_moments(rows, QUERY, MomentOptions(threshold, join=5.0))) > 0
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return traced

    peak(100)  # what is allocated once, as by imports of numpy
    assert peak(2_000) < peak(1_000) + 8_000  # a float of each second would take 24,000 bytes more


def test_the_command_prints_the_moments_of_the_file(imagebind: Run, tmp_path: Path) -> None:
    sound = np.concatenate([generate.tone(6, seed, 16_000) for seed in range(3)])
    data = (sound * 32767).astype("<i2").tobytes()
    soundfile.write(tmp_path / "a.wav", np.frombuffer(data, "<i2"), 16_000)
    query = ("--text", "a dog", "--threshold", -1, "--model", "tiny")
    run = imagebind("moments", "-", "--live", "--modality", "audio", "--format", "s16le", "--rate", 16_000, *query, stdin=data)
    whole = imagebind("moments", tmp_path / "a.wav", *query)
    (row,), (wanted,) = run.rows, whole.rows
    assert run.code == 0
    assert {key: row[key] for key in ("start", "end", "best")} == {key: wanted[key] for key in ("start", "end", "best")}
    assert row["score"] == pytest.approx(wanted["score"], abs=1e-5)
    assert row.keys() >= {"id", "clock", "clock_end", "latency", "dropped", "threshold"}


def test_the_moment_under_way_is_printed_where_the_stream_breaks_off(imagebind: Run) -> None:
    data = (generate.tone(6, 1, 16_000) * 32767).astype("<i2").tobytes() + b"x"
    stream = ("--live", "--modality", "audio", "--format", "s16le", "--rate", 16_000)
    run = imagebind("moments", "-", *stream, "--text", "a dog", "--threshold", -1, "--model", "tiny", stdin=data)
    assert (run.code, [(row["start"], row["end"]) for row in run.rows]) == (1, [(0.0, 6.0)])
    assert "ends in the middle of a sample" in run.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--text", "a"), "--live needs --modality"),
        (("--modality", "audio"), "and a query"),
        (("--modality", "audio", "--text", "a", "-k", 3), "--k: does not apply to a live stream"),
        (("--modality", "audio", "--text", "a", "--workers", 2), "--workers: does not apply to a live stream"),
        (("--modality", "audio", "--text", "a", "--batch-size", 2), "--batch-size: does not apply to a live stream"),
    ],
)
def test_flags_that_do_not_fit_a_stream_are_refused(imagebind: Run, arguments: tuple[object, ...], reason: str) -> None:
    run = imagebind("moments", "-", "--live", "--format", "s16le", "--rate", 16_000, *arguments, stdin=b"")
    assert (run.code, reason in run.err) == (2, True), run.err


@pytest.mark.parametrize("command", [("embed", "audio"), ("zeroshot", "audio")])
@pytest.mark.parametrize("flag", ["--workers", "--batch-size"])
def test_other_commands_do_not_ignore_how_files_are_read(imagebind: Run, command: tuple[str, str], flag: str) -> None:
    labels = ("--labels", "a,b") if command[0] == "zeroshot" else ()
    run = imagebind(*command, "-", "--live", "--format", "s16le", "--rate", 16_000, flag, 2, *labels, stdin=b"")
    assert (run.code, f"{flag}: does not apply to a live stream" in run.err) == (2, True), run.err
