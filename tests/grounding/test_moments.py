"""`imagebind moments`: curves and moments by hand, stores and files, every way to ask, clips, pages, no torch without need, and docs/python.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from imagebind_cli import UserError, metrics
from imagebind_cli.errors import UsageError
from imagebind_cli.grounding.curves import MomentOptions, ScoreCurve, find_runs, relative_scores, score_curve
from imagebind_cli.grounding.cuts import cut_clip
from imagebind_cli.grounding.lighthouse import read_moment_truth
from imagebind_cli.grounding.moments import MomentFinder, find_moments
from imagebind_cli.grounding.recordings import split_inputs
from imagebind_cli.store import Row, Store, open_store
from tests import generate
from tests.conftest import Finished, Run
from tests.stores import DIM, MADE, store, unit_rows

PYTHON = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def moments(imagebind: Run, folder: Path) -> Run:
    """`imagebind moments …`."""

    def run(*arguments: object, **options: Any) -> Finished:
        return imagebind("moments", *arguments, **options)

    return run


def hops(count: int, hop: float = 1, length: float = 2) -> list[tuple[float, float]]:
    return [(hop * number, hop * number + length) for number in range(count)]


QUERY, OTHER = np.eye(DIM, dtype=np.float32)[:2]


def towards(cosines: list[float], others: list[float] | None = None) -> np.ndarray:
    """Unit rows with these cosines with `QUERY`, and with `OTHER`."""
    rows = np.zeros((len(cosines), DIM), np.float32)
    rows[:, 0], rows[:, 1] = cosines, others or 0
    rows[:, 2] = np.sqrt(1 - (rows[:, :2].astype(np.float64) ** 2).sum(axis=1))
    return rows


def recording(path: str, cosines: list[float], id: str = "a.wav", **more: Any) -> str:
    store(Path(path), "audio", [id] * len(cosines), towards(cosines), hops(len(cosines)), pool="none", **more)
    np.save("query.npy", QUERY)
    return path


# Curves


def test_the_score_of_a_second_is_the_mean_of_the_windows_over_its_middle() -> None:
    curve = score_curve(np.array([(0, 2), (1, 3), (2, 4)], float), np.array([1.0, 3.0, 8.0]))
    assert (curve.start, curve.end, curve.scores.tolist()) == (0, 4, [1, 2, 5.5, 8])
    halves = score_curve(np.array([(0, 2), (0.5, 2.5), (1, 3)], float), np.array([1.0, 3.0, 8.0]))
    assert halves.scores.tolist() == [2, 4, 8]  # 0.5 to 2.5 s is over the middles 0.5 and 1.5, not over 2.5
    late = score_curve(np.array([(102.25, 104.25), (100.25, 102.25)]), np.array([4.0, 2.0]))
    assert (late.start, late.times().tolist(), late.scores.tolist()) == (100.25, [100.25, 101.25, 102.25, 103.25, 104.25], [2, 2, 4, 4])
    part = score_curve(np.array([(0, 2), (0.4, 2.4)]), np.array([1.0, 2.0]))
    assert (part.times().tolist(), part.scores.tolist()) == ([0, 1, 2, 2.4], [1.5, 1.5, 2])


def test_a_second_without_a_window_has_no_score() -> None:
    curve = score_curve(np.array([(0, 2), (5, 7)], float), np.array([1.0, 1.0]))
    np.testing.assert_array_equal(curve.scores, [1, 1, np.nan, np.nan, np.nan, 1, 1])
    assert find_runs(curve, MomentOptions()) == [(0, 2), (5, 7)]


def test_curves_are_a_loop_over_the_windows() -> None:
    random = np.random.default_rng(0)
    starts = random.uniform(0, 300, 500)
    spans, scores = np.stack([starts, starts + random.uniform(1, 7, 500)], axis=1), random.standard_normal(500)
    curve = score_curve(spans, scores)
    for second, score in enumerate(curve.scores):
        middle = (curve.times()[second] + curve.times()[second + 1]) / 2
        over = [value for (start, end), value in zip(spans, scores, strict=True) if start <= middle < end]
        np.testing.assert_allclose(score, np.mean(over) if over else np.nan, atol=1e-9)


def runs(scores: list[float], **options: Any) -> list[tuple[int, int]]:
    return find_runs(ScoreCurve(0, len(scores), np.array(scores, float)), MomentOptions(**options))


def test_moments_are_runs_halfway_between_the_median_and_the_maximum() -> None:
    scores = [0, 0, 4, 10, 5, 0, 0, 6, 0]
    assert runs(scores) == [(3, 5), (7, 8)]
    assert runs(scores, min_length=2) == [(3, 5)]
    assert runs(scores, join=2) == [(3, 8)]
    assert runs(scores, join=1, min_length=2) == [(3, 5)]
    assert runs(scores, threshold=4) == [(2, 5), (7, 8)]
    assert runs(scores, threshold=11) == []
    assert runs([0.1 + 0.2, 0.3, 0.3]) == [(0, 3)]  # all alike: all of it


@pytest.mark.parametrize("wrong", [{"min_length": -1}, {"join": -0.1}, {"k": 0}, {"min_length": float("nan")}])
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="seconds from 0 on"):
        MomentOptions(**wrong)


def test_scores_against_names_are_less_the_nearest_of_them() -> None:
    np.testing.assert_allclose(relative_scores(np.array([0.5, 0.1]), np.array([[0.2, 0.0], [0.4, 0.3]])), [0.1, -0.2])


# Stores


def test_a_moment_has_its_seconds_score_and_best_second(moments: Run) -> None:
    recording("a.h5", [0, 0, 0, 0.75, 0.75, 0, 0, 0.5, 0, 0, 0])
    run = moments("a.h5", "--vector", "query.npy", "--threshold", 0.3)
    (row,) = run.rows
    assert row == {
        "query": "query.npy",
        "rank": 1,
        "id": "a.wav",
        "start": 3.0,
        "end": 6.0,
        "score": pytest.approx(0.5),  # the mean of 0.375, 0.75, 0.375
        "best": 4.0,
        "best_score": pytest.approx(0.75),
        "modality": "audio",
    }
    assert (run.code, len(run.notices)) == (0, 1)  # the vectors in query.npy are taken for those of this model
    joined = moments("a.h5", "--vector", "query.npy", "--threshold", 0.2, "--join", 1)
    assert [(row["start"], row["end"]) for row in joined.rows] == [(3, 9)]
    assert [(row["start"], row["end"]) for row in moments("a.h5", "--vector", "query.npy", "--threshold", 0.2).rows] == [(3, 6), (7, 9)]


def test_recordings_are_ranked_together_and_k_counts_them_all(moments: Run) -> None:
    recording("a.h5", [0, 0, 0.5, 0.5, 0, 0, 0, 0], "a.wav")
    recording("b.npy", [0, 0, 0, 0, 0.75, 0.75, 0, 0], "b.wav")
    run = moments("a.h5", "b.npy", "--vector", "query.npy")
    assert [(row["rank"], row["id"], row["start"], row["end"]) for row in run.rows] == [(1, "b.wav", 4, 7), (2, "a.wav", 2, 5)]
    assert [row["id"] for row in moments("a.h5", "b.npy", "--vector", "query.npy", "-k", 1).rows] == ["b.wav"]
    table = moments("a.h5", "b.npy", "--vector", "query.npy", "--plain").out.decode().splitlines()
    assert table[0] == "query.npy"
    assert re.fullmatch(r" +1 +0\.5000 +4\.00 to +7\.00 s  b\.wav", table[1])


def test_several_queries_have_their_own_moments(moments: Run) -> None:
    rows = towards([0, 0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.5, 0.5, 0])
    store(Path("a.h5"), "audio", ["a.wav"] * 8, rows, hops(8))
    np.save("queries.npy", np.stack([QUERY, OTHER]))
    run = moments("a.h5", "--queries", "queries.npy")
    assert [(row["query"], row["rank"], row["start"], row["end"]) for row in run.rows] == [("0", 1, 1, 4), ("1", 1, 5, 8)]
    line = json.dumps({"id": "one", "embedding": OTHER.tolist()}).encode()
    assert [(row["query"], row["start"]) for row in moments("a.h5", "--queries", "-", stdin=line + b"\n").rows] == [("one", 5)]


def test_clock_times_are_given_where_the_recording_has_them(moments: Run) -> None:
    rows = towards([0, 0, 0.5, 0.5, 0, 0])
    with Store(Path("a.h5"), {**MADE, "modality": "audio"}) as written:
        spans = hops(6)
        clocks = [f"2024-05-01T12:00:{number:02d}.000Z" for number in range(6)]
        written.append([Row("a.wav", row, span, 6, clock=clock) for row, span, clock in zip(rows, spans, clocks, strict=True)])
    np.save("query.npy", QUERY)
    (row,) = moments("a.h5", "--vector", "query.npy").rows
    assert (row["start"], row["clock"], row["clock_end"]) == (2, "2024-05-01T12:00:02.000Z", "2024-05-01T12:00:05.000Z")
    assert "2024-05-01T12:00:02.000Z" in moments("a.h5", "--vector", "query.npy", "--plain").out.decode()


def test_like_a_second_asks_for_more_of_it_and_not_for_itself(moments: Run) -> None:
    """Windows of one second's content again later: the windows that share seconds with the query's are no answer."""
    same, other = unit_rows(2, seed=4)
    rows = np.stack([other, other, same, same, other, other, other, other, same, same, other, other])
    store(Path("a.h5"), "audio", ["a.wav"] * 12, rows, hops(12))
    for like in ("a.wav@3.5", "a.wav#2-4"):
        (row,) = moments("a.h5", "--like", like, "--threshold", 0.9).rows
        assert (row["query"], row["start"], row["end"], row["best_score"]) == (like, 9, 10, pytest.approx(1))
    run = moments("a.h5", "--like", "a.wav@99")
    assert (run.code, "no window over 99 s; its 12 are between 0 and 13 s" in run.err) == (1, True)
    run = moments("a.h5", "--like", "a.wav")
    assert (run.code, run.out, "which cannot be its own answer" in run.err) == (1, b"", True)
    assert moments("a.h5", "--like", "b.wav@1").code == 1


def test_a_store_without_windows_is_refused(moments: Run) -> None:
    store(Path("a.h5"), "audio", ["a.wav", "b.wav"])
    np.save("query.npy", QUERY)
    run = moments("a.h5", "--vector", "query.npy")
    assert (run.code, run.out) == (1, b"")
    assert "a.h5: has no windows, and a moment is made of them; embed the recordings with --pool none --hop 1" in run.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "give a query"),
        (["--text", "a", "--queries", "q.npy"], 2, "give a query"),
        (["--queries", "query.npy", "--plot", "p.png"], 2, "--plot draws the scores of one query"),
        (["--queries", "query.npy", "--weights", "1"], 2, "--weights are for queries given as options"),
        (["--vector", "query.npy", "--min-length", "-1"], 2, "min-length"),
        (["--vector", "query.npy", "--cut", "no/such"], 1, "--cut takes a folder"),
        (["gone.wav", "--vector", "query.npy"], 1, "gone.wav: no such store or recording"),
        (["query.txt", "--vector", "query.npy"], 2, "say what it is: --modality audio, video or imu"),
        (["query.txt", "--modality", "text", "--vector", "query.npy"], 2, "text has no seconds"),
        (["--vector", "query.npy", "--keep", "k.h5"], 1, "keeps the windows of files of one modality"),
    ],
)
def test_wrong_usage_is_one_line(moments: Run, arguments: list[str], code: int, words: str) -> None:
    recording("a.h5", [0, 0.5])
    Path("query.txt").write_text("words\n")
    run = moments("a.h5", *arguments)
    assert (run.code, run.out) == (code, b""), run.err
    assert words in run.err
    assert "Traceback" not in run.err


def test_no_torch_where_the_query_is_a_vector(folder: Path) -> None:
    recording("a.h5", [0, 0, 0.5, 0])
    code = (
        "import sys; from imagebind_cli.grounding.moments import find_moments; "
        "hits = find_moments('a.h5', vector='query.npy'); assert hits[0].start == 2; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_names_to_score_against_change_the_moments(imagebind: Run, moments: Run) -> None:
    generate.audio(Path("a.wav"), 9)
    assert imagebind("embed", "audio", "a.wav", "--hop", 1, "--pool", "none", "-o", "a.h5").code == 0
    plain, relative = (moments("a.h5", "--text", "a dog", *more) for more in ([], ["--against", "rain, wind", "--against", "a car"]))
    assert (plain.code, relative.code) == (0, 0)
    spans = open_store("a.h5").spans
    vectors = open_store("a.h5").vectors()
    assert spans is not None
    lines = imagebind("embed", "text", "a dog", "rain", "wind", "a car").vectors
    cosines = vectors @ lines.T
    curve = score_curve(spans, (cosines[:, 0] - cosines[:, 1:].max(axis=1)).astype(np.float64))
    best = int(np.argmax(curve.scores))
    assert (relative.rows[0]["best"], relative.rows[0]["best_score"]) == (best, pytest.approx(float(curve.scores[best]), abs=1e-6))
    assert relative.rows != plain.rows


# Files


def test_files_are_embedded_at_a_hop_and_give_what_their_stores_give(imagebind: Run, moments: Run) -> None:
    generate.audio(Path("a.wav"), 9)
    generate.video(Path("v.mp4"), 6)
    generate.imu(Path("m.csv"), 12)
    stores = []
    for modality, file in (("audio", "a.wav"), ("video", "v.mp4"), ("imu", "m.csv")):
        stores.append(f"{modality}.h5")
        assert imagebind("embed", modality, file, "--hop", 0.5, "--pool", "none", "-o", stores[-1]).code == 0
    of_files = moments("a.wav", "v.mp4", "m.csv", "--text", "a dog", "--hop", 0.5, "-k", 99)
    of_stores = moments(*stores, "--text", "a dog", "-k", 99)
    assert of_files.code == 0, of_files.err
    assert {row["modality"] for row in of_files.rows} == {"audio", "video", "imu"}
    assert of_files.rows == of_stores.rows
    assert sorted(path.name for path in Path().iterdir()) == ["a.wav", "audio.h5", "imu.h5", "m.csv", "v.mp4", "video.h5"]


def test_vectors_of_files_are_kept_for_the_next_query(moments: Run) -> None:
    generate.audio(Path("a.wav"), 5)
    first = moments("a.wav", "--text", "a dog", "--keep", "kept.h5")
    assert (first.code, len(open_store("kept.h5"))) == (0, 4)
    generate.audio(Path("b.wav"), 7, seed=1)
    both = moments("a.wav", "b.wav", "--text", "a dog", "--keep", "kept.h5")
    assert ({row["id"] for row in both.rows}, len(open_store("kept.h5"))) == ({"a.wav", "b.wav"}, 10)
    assert moments("kept.h5", "--text", "a dog").rows == both.rows


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_searched(moments: Run) -> None:
    generate.audio(Path("a.wav"), 5)
    Path("bad.wav").write_bytes(b"RIFF nothing")
    run = moments("a.wav", "bad.wav", "--text", "a dog")
    assert (run.code, {row["id"] for row in run.rows}) == (1, {"a.wav"})
    assert "bad.wav: " in run.err


def test_files_are_told_by_their_names(folder: Path) -> None:
    recording("a.h5", [0, 0.5])
    for name in ("b.wav", "c.MP4", "d.csv", "e.bin"):
        Path(name).touch()
    assert split_inputs(["a.h5", "b.wav", "c.MP4", "d.csv"], None) == (["a.h5"], {"audio": ["b.wav"], "video": ["c.MP4"], "imu": ["d.csv"]})
    assert split_inputs(["*.h5", "e.bin", "c.MP4"], "audio") == (["*.h5"], {"audio": ["e.bin", "c.MP4"]})


# Clips


def seconds_of(path: Path) -> dict[str, tuple[float, float]]:
    """First time and length in seconds of each kind of track, as decoded."""
    found = {}
    with av.open(str(path)) as container:
        kinds = [stream.type for stream in container.streams]
    for kind in kinds:
        with av.open(str(path)) as container:
            frames = list(container.decode(**{kind: 0}))
        times = [float(frame.pts * frame.time_base) for frame in frames]
        length = sum(frame.samples for frame in frames) / frames[0].rate if kind == "audio" else len(frames) / 10
        found[kind] = times[0], length
    return found


@pytest.mark.parametrize(("ending", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("wav", "PCM_24"), ("flac", "PCM_16")])
def test_samples_are_cut_to_the_sample(tmp_path: Path, ending: str, subtype: str) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, (9 * 8000, 2)), 8000, subtype=subtype)
    clip, begins = cut_clip(str(path), 2.5, 4.25, tmp_path / "clip.1")
    assert (clip.name, begins) == (f"clip.1.{ending}", 2.5)
    whole, cut = (soundfile.read(file, dtype="float64")[0] for file in (path, clip))
    np.testing.assert_array_equal(cut, whole[20_000:34_000])
    assert soundfile.info(clip).subtype == subtype


@pytest.mark.parametrize("ending", ["mp3", "ogg", "m4a"])
def test_packets_of_a_sound_are_copied(tmp_path: Path, ending: str) -> None:
    path = generate.audio(tmp_path / f"a.{ending}", 9)
    clip, begins = cut_clip(str(path), 2.5, 5.25, tmp_path / "clip")
    assert (clip.suffix, begins) == (f".{ending}", 2.5)
    assert seconds_of(clip)["audio"][1] == pytest.approx(2.75, abs=0.1)
    with av.open(str(path)) as before, av.open(str(clip)) as after:
        assert after.streams.audio[0].codec_context.name == before.streams.audio[0].codec_context.name
        theirs = {bytes(packet) for packet in before.demux(audio=0) if packet.size}
        assert sum(bytes(packet) in theirs for packet in after.demux(audio=0) if packet.size) > 30


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_a_video_is_copied_from_a_key_frame_near_by_and_encoded_again_from_none(tmp_path: Path, ending: str) -> None:
    """A key frame every 12 frames, at 10 a second."""
    path = generate.video(tmp_path / f"v.{ending}", 20, sound=True)
    clip, begins = cut_clip(str(path), 2.5, 5.2, tmp_path / "near")
    assert (clip.suffix, begins) == (f".{ending}", pytest.approx(2.4))
    assert seconds_of(clip)["video"] == (0, pytest.approx(2.8))
    assert seconds_of(clip)["audio"][1] == pytest.approx(2.8, abs=0.2)
    clip, begins = cut_clip(str(path), 13.1, 16.3, tmp_path / "far")
    assert (clip.suffix, begins) == (".mkv", 13.1)
    assert seconds_of(clip)["video"] == (pytest.approx(0, abs=0.01), pytest.approx(3.2))
    assert seconds_of(clip)["audio"][1] == pytest.approx(3.2, abs=0.15)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["far.mkv", f"near.{ending}", f"v.{ending}"]


def test_what_cannot_be_cut_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = generate.audio(tmp_path / "a.wav", 3)
    with pytest.raises(ValueError, match="no sound from 7 to 8 s"):
        cut_clip(str(path), 7, 8, tmp_path / "clip")
    (tmp_path / "b.mp4").write_bytes(b"nothing of a film")
    with pytest.raises(ValueError, match="not a readable sound or video"):
        cut_clip(str(tmp_path / "b.mp4"), 0, 1, tmp_path / "clip")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.wav", "b.mp4"]


def test_every_moment_becomes_a_clip_and_its_line_names_it(moments: Run) -> None:
    generate.audio(Path("a.wav"), 9)
    generate.imu(Path("m.csv"), 12)
    run = moments("a.wav", "--text", "a dog", "--cut", "clips")
    assert (run.code, len(run.rows)) == (0, len(list(Path("clips").iterdir())))
    for row in run.rows:
        assert row["clip"] == f"clips/0001-{row['rank']:03d}-a-{row['start']:.2f}-{row['end']:.2f}.wav"
        assert soundfile.info(row["clip"]).duration == row["end"] - row["clip_start"] == row["end"] - row["start"]
    motion = moments("m.csv", "--text", "a dog", "--cut", "clips")
    assert (motion.code, "clip" in motion.rows[0], "its rows by their times" in motion.err) == (1, False, True)


# Pages


def test_the_page_has_a_timeline_a_card_and_a_link_for_each_moment(moments: Run) -> None:
    generate.audio(Path("a & b.wav"), 9)
    generate.video(Path("v.mp4"), 6, sound=True)
    generate.imu(Path("m.csv"), 12)
    run = moments("a & b.wav", "v.mp4", "m.csv", "--text", "<b>a dog</b>", "-k", 5, "--html", "sub.html", "--plot", "p.png")
    assert run.code == 0, run.err
    page = Path("sub.html").read_text()
    assert "<b>a dog" not in page
    assert "&lt;b&gt;a dog" in page
    assert page.count("<svg") == len({row["id"] for row in run.rows})
    assert "cannot be shown" not in page
    for row in run.rows:
        assert f'href="#q1m{row["rank"]}"' in page
        assert f'<li id="q1m{row["rank"]}">' in page
        if row["modality"] != "imu":
            name = row["id"].replace(" ", "%20").replace("&", "%26")
            assert f'href="{name}#t={row["start"]:.2f},{row["end"]:.2f}"' in page
    assert page.count("<audio") == sum(row["modality"] != "imu" for row in run.rows)
    assert "<script" not in page
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


def test_a_recording_that_is_gone_is_named_on_the_page(moments: Run) -> None:
    recording("a.h5", [0, 0, 0.5, 0])
    assert moments("a.h5", "--vector", "query.npy", "--html", "p.html").code == 0
    assert "a.wav<small> (cannot be shown: No such file or directory)" in Path("p.html").read_text()


# Known truth


LIGHTHOUSE: list[dict[str, Any]] = [
    {"qid": 7, "query": "a dog", "vid": "a", "duration": 12, "relevant_windows": [[0, 4], [8, 10]], "relevant_clip_ids": [0, 1, 4],
     "saliency_scores": [[4, 4, 1], [0, 4, 2], [3, 1, 4]]},
    {"qid": 8, "query": "rain", "vid": "b", "duration": 9, "relevant_windows": [[2, 5]]},
    {"qid": 9, "query": "rain", "vid": "a", "duration": 12},
    {"qid": 10, "query": "rain", "vid": "gone", "duration": 12, "relevant_windows": [[2, 5]]},
]  # fmt: skip


def test_predictions_and_scores_of_lighthouses_form(imagebind: Run, moments: Run) -> None:
    for number, name in enumerate(("a", "b")):
        generate.audio(Path(f"{name}.wav"), 12 - 3 * number, seed=number)
    assert imagebind("embed", "audio", "a.wav", "b.wav", "--hop", 1, "--pool", "none", "-o", "s.h5").code == 0
    Path("truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LIGHTHOUSE))
    run = moments("s.h5", "--truth", "truth.jsonl", "--report", "scores.json", "-k", 5)
    assert (run.code, "10: no recording named 'gone'" in run.err) == (1, True)
    assert [row["qid"] for row in run.rows] == [7, 8, 9]
    for row, wanted in zip(run.rows, LIGHTHOUSE, strict=False):
        assert (row["query"], row["vid"]) == (wanted["query"], wanted["vid"])
        alone = moments("s.h5", "--text", wanted["query"], "-k", 99).rows
        in_its_video = [[hit["start"], hit["end"], hit["score"]] for hit in alone if hit["id"] == f"{wanted['vid']}.wav"]
        np.testing.assert_allclose(row["pred_relevant_windows"], in_its_video[:5], atol=1e-6)
    assert [len(row["pred_saliency_scores"]) for row in run.rows] == [6, 5, 6]
    report = json.loads(Path("scores.json").read_text())
    found = [np.array(row["pred_relevant_windows"])[:, :2] for row in run.rows[:2]]
    by_hand = [metrics.moment_retrieval(one, row["relevant_windows"]) for one, row in zip(found, LIGHTHOUSE, strict=False)]
    for name in by_hand[0]:
        assert report["scores"][name]["value"] == pytest.approx(np.mean([scores[name] for scores in by_hand]))
        assert report["scores"][name]["queries"] == 2
    assert (report["scores"]["HIT@1"]["queries"], report["queries"], report["missing"]) == (1, 4, 1)


def test_charades_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("3MSZA 24.3 30.4##person turn a light on.\n\nAB 0.0 5##a # sign\n")
    first, second = read_moment_truth(tmp_path / "a.txt")
    assert (first.qid, first.query, first.vid, first.windows.tolist()) == (1, "person turn a light on.", "3MSZA", [[24.3, 30.4]])
    assert (second.query, second.vid, second.windows.tolist()) == ("a # sign", "AB", [[0, 5]])


@pytest.mark.parametrize(
    "line", ["words", '{"qid": 1}', '{"qid": 1, "query": "a", "vid": "b", "relevant_windows": [[1]]}', "A x 3##b", "{"]
)
def test_truth_of_neither_form_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"AB 0.0 5##fine\n{line}\n")
    with pytest.raises(UserError, match=r"a\.txt:2: neither a line of Lighthouse nor of Charades-STA"):
        read_moment_truth(tmp_path / "a.txt")


def test_truth_gives_no_page(moments: Run) -> None:
    recording("a.h5", [0, 0.5])
    Path("t.txt").write_text("AB 0.0 5##fine\n")
    run = moments("a.h5", "--truth", "t.txt", "--html", "p.html")
    assert (run.code, "--html shows moments" in run.err) == (2, True)


# Python


def test_python_gives_the_moments_of_the_command(moments: Run) -> None:
    recording("a.h5", [0, 0, 0.5, 0.5, 0, 0])
    (row,) = moments("a.h5", "--vector", "query.npy").rows
    (hit,) = find_moments("a.h5", vector="query.npy")
    assert hit.as_json("query.npy") == row
    with pytest.raises(UserError, match="a query is needed"):
        find_moments("a.h5")
    with pytest.raises(UserError, match="no item 'b'"), MomentFinder(["a.h5"]):
        find_moments("a.h5", like="b")


def test_the_page_about_python_runs(tiny: Any, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    generate.audio(Path("night.wav"), 9)
    Path("stream.raw").write_bytes(bytes(2 * 16_000 * 6))
    Path("queries.txt").write_text("a dog\nrain\n")
    section = PYTHON.read_text().split("## Moments")[1].split("\n## ")[0]
    values: dict[str, Any] = {"model": tiny}
    with Path("stream.raw").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            exec(compile(code, "docs/python.md", "exec"), values)
    assert "night.wav" in capsys.readouterr().out
    assert Path("found.html").read_text().count("<h2>") == 2
