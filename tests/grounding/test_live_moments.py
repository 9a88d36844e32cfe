"""`imagebind moments --live`: the moments of the whole recording, each as soon as it is over, and a threshold from what came so far."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Iterator, Sequence
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


def live_rows(windows: Sequence[tuple[float, float]], cosines: Sequence[float], others: Sequence[float] | None = None) -> Iterator[LiveRow]:
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
        assert moment.best == times[first + int(np.nanargmax(curve.scores[first:stop]))]


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
    cosines = [0.9, 0.9] + [0.1] * 40 + [0.5] * 3 + [0.1] * 700 + [0.4] * 700 + [0.6] * 3 + [0.4] * 10
    windows = [(float(number), number + 1.0) for number in range(len(cosines))]
    moments = list(find_live_moments(live_rows(windows, cosines), QUERY))
    assert (1445.0, 1448.0) in [(moment.start, moment.end) for moment in moments]
    assert all(moment.start >= FIRST_SECONDS for moment in moments)
    assert moments[-1].threshold == pytest.approx(0.5)


def test_memory_does_not_grow_with_the_stream() -> None:
    def ask(count: int) -> int:
        rows = live_rows([(float(number), number + 2.0) for number in range(count)], np.tile([0.1, 0.9], count // 2).tolist())
        tracemalloc.start()
        assert sum(1 for _ in find_live_moments(rows, QUERY, MomentOptions(0.6, min_length=0.5))) == 0
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - 2 * 60 * count  # the two lists of this test

    assert ask(10_000) < ask(1_000) + 500_000


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


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--text", "a"), "--live needs --modality"),
        (("--modality", "audio"), "and a query"),
        (("--modality", "audio", "--text", "a", "-k", 3), "--k: a live stream has no use for it"),
        (("--modality", "audio", "--text", "a", "--workers", 2), "--workers: a live stream has no use for it"),
        (("--modality", "audio", "--text", "a", "--batch-size", 2), "--batch-size: a live stream has no use for it"),
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
    assert (run.code, f"{flag}: a live stream has no use for it" in run.err) == (2, True), run.err
