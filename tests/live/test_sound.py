"""A live sound through real pipes: the vectors of the file with `--hop`, whatever comes at once, and quiet ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from imagebind_cli.errors import OptionError, UsageError, UserError
from imagebind_cli.events import Listener
from imagebind_cli.live import StreamFormat, embed_stream
from imagebind_cli.live.pictures import PictureCutter
from imagebind_cli.live.readings import ReadingCutter
from imagebind_cli.live.sound import SoundCutter
from imagebind_cli.options import FOR_PICTURES
from imagebind_cli.options.audio import AudioOptions
from imagebind_cli.registry import face
from imagebind_cli.store import open_store
from tests import generate
from tests.conftest import Run, Start

RATE = 16_000
PIPE_BYTES = 4096  # the least that Linux gives a pipe


def samples(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A sound as 16-bit numbers (n, channels), each channel its own."""
    rows = [generate.tone(seconds, seed, rate) for seed in range(channels)]
    return (np.stack(rows, axis=1) * 32767).astype("<i2")


def feed(process: subprocess.Popen[bytes], data: bytes, chunk: int = 4096, close: bool = True) -> threading.Thread:
    """Write to a process in the background, so many bytes at a time."""
    assert process.stdin is not None
    stdin = process.stdin

    def write() -> None:
        for start in range(0, len(data), chunk):
            os.write(stdin.fileno(), data[start : start + chunk])
        if close:
            end(process)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def end(process: subprocess.Popen[bytes]) -> None:
    """Close its stdin, and let nobody flush it later."""
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None


def finish(process: subprocess.Popen[bytes]) -> tuple[int, list[dict[str, Any]], str]:
    """Read a process to its end: exit code, rows, stderr."""
    assert process.stdout is not None
    assert process.stderr is not None
    rows = [json.loads(line) for line in process.stdout]
    err = process.stderr.read().decode()
    return process.wait(), rows, err


def live(*more: object, samples: str = "s16le", rate: int = RATE) -> list[object]:
    return ["embed", "audio", "-", "--live", "--device", "cpu", "--format", samples, "--rate", rate, *more]


def wanted(embed: Run, path: Path, hop: float, *more: object) -> Any:
    return embed("audio", path, "--hop", hop, "--pool", "none", "--batch-size", 1, *more)


@pytest.fixture(scope="module")
def piece() -> bytes:
    """3.1 seconds at 8 kHz: few enough bytes to be written one by one."""
    return samples(3.1, 8000).tobytes()


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_chunks_of_any_size_give_the_vectors_of_the_file(embed: Run, start: Start, tmp_path: Path, piece: bytes, chunk: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.frombuffer(piece, "<i2"), 8000)
    expected = wanted(embed, tmp_path / "a.wav", 0.5)
    process = start(*live("--hop", 0.5, rate=8000))
    feed(process, piece, chunk)
    code, rows, err = finish(process)
    assert (code, len(rows)) == (0, 3)
    assert [(row["start"], row["end"]) for row in rows] == [(row["start"], row["end"]) for row in expected.rows]
    assert np.array_equal(np.array([row["embedding"] for row in rows], np.float32), expected.vectors)
    assert "3 embedded" in err
    assert "0 dropped" in err
    assert {row["dropped"] for row in rows} == {0}
    assert all(0 < row["latency"] < 60 for row in rows)


@pytest.mark.parametrize(
    ("rate", "channels", "heard", "hop", "seconds"),
    [(16_000, 1, "first", 0.7, 6.03), (44_100, 2, "first", 0.7, 9.5), (48_000, 2, "mix", 3, 8.1), (11_025, 1, "first", 2, 5)],
)
def test_every_rate_channel_and_hop_gives_the_vectors_of_the_file(
    embed: Run, tiny: Any, tmp_path: Path, rate: int, channels: int, heard: str, hop: float, seconds: float
) -> None:
    sound = samples(seconds, rate, channels)
    soundfile.write(tmp_path / "a.wav", sound, rate)
    expected = wanted(embed, tmp_path / "a.wav", hop, "--channels", heard)
    rows = list(stream(tiny, sound.tobytes(), StreamFormat(f"s16le:{channels}", rate), hop=hop, channels=heard))
    assert [(row.start, row.end) for row in rows] == [(row["start"], row["end"]) for row in expected.rows]
    assert np.abs(np.stack([row.vector for row in rows]) - expected.vectors).max() < 1e-6


@pytest.mark.parametrize(("name", "kind"), [("u8", "PCM_U8"), ("s32le", "PCM_32"), ("f32le", "FLOAT")])
def test_every_format_gives_the_vector_of_the_file(embed: Run, tiny: Any, tmp_path: Path, name: str, kind: str) -> None:
    soundfile.write(tmp_path / "a.wav", generate.tone(2.5), RATE, subtype=kind)
    numbers, _ = soundfile.read(tmp_path / "a.wav", dtype="int32" if name == "s32le" else "float32")
    raw = (numbers * 128 + 128).astype("u1") if name == "u8" else numbers
    (row,) = stream(tiny, raw.tobytes(), StreamFormat(name, RATE))
    assert np.array_equal(row.vector, wanted(embed, tmp_path / "a.wav", 2).vectors[0])


def stream(model: Any, data: bytes, format: StreamFormat, modality: str = "audio", **options: Any) -> Iterator[Any]:
    """Embed bytes that come through a pipe."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    try:
        yield from embed_stream(model, modality, reading, format, **options)
    finally:
        os.close(reading)


def test_a_sound_shorter_than_a_window_is_padded_as_a_file_is(embed: Run, tiny: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", samples(0.9), RATE)
    (row,) = stream(tiny, samples(0.9).tobytes(), StreamFormat("s16le", RATE), hop=0.5)
    assert np.array_equal(row.vector, wanted(embed, tmp_path / "a.wav", 0.5).vectors[0])


def test_a_row_comes_before_the_stream_ends(start: Start) -> None:
    process = start(*live())
    feed(process, samples(2.5).tobytes(), close=False)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert (first["start"], first["end"], first["modality"]) == (0, 2, "audio")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, rows, err = finish(process)
    assert (code, rows) == (130, [])
    assert "1 embedded" in err
    assert "stopped" in err
    assert "Traceback" not in err


def test_a_stream_that_ends_in_the_middle_of_a_sample_keeps_its_rows(start: Start) -> None:
    process = start(*live())
    feed(process, samples(4.1).tobytes() + b"\0")
    code, rows, err = finish(process)
    assert (code, len(rows)) == (1, 2)
    assert "imagebind: stdin: ends in the middle of a sample: 1 of its 2 bytes are there" in err.splitlines()


@pytest.mark.parametrize(("data", "reason"), [(b"", "0.0 ms of sound"), (b"\0" * 500, "15.6 ms of sound")])
def test_a_stream_without_sound_is_an_error(start: Start, data: bytes, reason: str) -> None:
    process = start(*live())
    feed(process, data)
    code, rows, err = finish(process)
    assert (code, rows) == (1, [])
    assert f"imagebind: stdin: {reason}; at least 25 ms are needed" in err.splitlines()


def test_closed_stdout_ends_it_quietly(start: Start) -> None:
    process = start(*live("--hop", 0.1))
    feed(process, samples(2.1).tobytes(), close=False)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    process.stdout.readline()
    process.stdout.readline()
    process.stdout.close()
    os.write(process.stdin.fileno(), samples(1).tobytes())
    assert process.wait(60) == 141
    assert "Traceback" not in process.stderr.read().decode()
    process.stdout = None


def test_a_slow_reader_of_rows_is_told_what_was_dropped(start: Start) -> None:
    process = start(*live("--hop", 0.1, "--behind", "drop"))
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    feed(process, samples(12).tobytes()).join(60)  # read as fast as it comes, while nobody takes a row
    code, rows, err = finish(process)
    assert code == 0
    assert rows[-1]["dropped"] > 0
    assert len(rows) + rows[-1]["dropped"] == 101
    assert rows[-1]["end"] == 12  # the newest are kept
    assert f"{rows[-1]['dropped']} dropped" in err
    assert [row["dropped"] for row in rows] == sorted(row["dropped"] for row in rows)


def test_waiting_loses_nothing_for_a_slow_reader(start: Start) -> None:
    process = start(*live("--hop", 0.1, "--behind", "wait"))
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    feed(process, samples(6).tobytes())
    time.sleep(1)
    code, rows, _ = finish(process)
    assert (code, [row["dropped"] for row in rows]) == (0, [0] * 41)


def test_memory_can_be_searched_meanwhile_and_grows_with_the_next_stream(imagebind: Run, start: Start, tmp_path: Path) -> None:
    for ending in ("h5", "jsonl", "store"):
        memory = tmp_path / f"memory.{ending}"
        process = start(*live("--hop", 0.5, "--memory", memory))
        feed(process, samples(3).tobytes(), close=False)
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(3)]
        deadline = time.monotonic() + 30
        while not memory.exists() or imagebind("store", "info", memory).code or len(open_store(memory)) != 3:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        asked = imagebind("retrieve", memory, "--vector", vector_file(tmp_path, first[1]["embedding"]), "-k", "1")
        assert asked.code == 0, asked.err
        assert (asked.rows[0]["start"], asked.rows[0]["clock"]) == (0.5, first[1]["clock"])
        assert process.poll() is None
        end(process)
        assert finish(process)[0] == 0
        again = start(*live("--hop", 0.5, "--memory", memory))
        feed(again, samples(2.5).tobytes())
        code, second, err = finish(again)
        assert (code, len(second)) == (0, 2), err
        store = open_store(memory)
        assert (len(store), len({store.id(row) for row in range(5)})) == (5, 2)
        assert imagebind("store", "check", memory).code == 0


def vector_file(folder: Path, vector: list[float]) -> Path:
    path = folder / "vector.npy"
    np.save(path, np.array([vector], np.float32))
    return path


def test_a_window_that_is_not_made_of_numbers_fails_alone(tiny: Any) -> None:
    sound = generate.tone(6.0).astype("<f4")
    sound[40_000] = np.nan
    listener = Listener()
    rows = list(stream(tiny, sound.tobytes(), StreamFormat("f32le", RATE), listener=listener))
    assert [row.start for row in rows] == [0, 4]
    assert (listener.done, listener.failed) == (2, 1)


def test_ten_thousand_windows_take_no_more_memory_than_a_hundred(tiny: Any) -> None:
    cutter = SoundCutter(tiny.config("audio"), AudioOptions(hop=0.02), StreamFormat("s16le", 48_000 // 3))
    chunk = samples(0.5).tobytes()
    peaks, count = [], 0
    tracemalloc.start()
    try:
        while count < 10_000:
            count += sum(1 for _ in cutter.add(chunk))
            if count > 100:
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert max(peaks[-10:]) < 1.1 * max(peaks[:10])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["embed", "image", "-", "--live"], "image is not read live"),
        (["embed", "audio", "-", "--live", "--rate", 16000], "format: that of a live sound's samples is needed; choose from u8, "),
        (["embed", "audio", "-", "--live", "--format", "s16le"], "the rate of a live sound is needed"),
        (["embed", "audio", "-", "--live", "--format", "s16le:x", "--rate", 16000], "not a number of channels"),
        (["embed", "audio", "-", "--live", "--format", "s16le", "--rate", 16000, "--clips", 3], "needs the whole recording"),
        (
            ["embed", "audio", "-", "--live", "--format", "s16le", "--rate", 16000, "-o", "a.h5"],
            "--output: does not apply to a live stream",
        ),
        (["embed", "audio", "a", "b", "--live"], "--live reads one stream"),
        (["embed", "audio", "a.wav", "--memory", "a.h5"], "--memory is for a live stream; give --live"),
    ],
)
def test_wrong_usage_is_refused(imagebind: Run, arguments: list[object], reason: str) -> None:
    run = imagebind(*arguments)
    assert (run.code, run.out) == (2, b"")
    assert reason in run.err


def test_the_library_refuses_what_it_does_not_know(tiny: Any) -> None:
    with pytest.raises(UsageError, match="unknown behind"):
        embed_stream(tiny, "audio", 0, StreamFormat("s16le", RATE), behind="skip")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="middle of a sample"):
        list(stream(tiny, b"\0" * 64_001, StreamFormat("s16le", RATE)))


UNHEEDED = [
    (modality, option)
    for modality, cutter in {"audio": SoundCutter, "video": PictureCutter, "imu": ReadingCutter}.items()
    for option in face(modality).options.flags()
    if option.name not in cutter.heeds and option.metadata["only"] != FOR_PICTURES
]


@pytest.mark.parametrize(("modality", "option"), UNHEEDED, ids=[f"{modality} {option.name}" for modality, option in UNHEEDED])
def test_an_option_that_a_stream_does_not_heed_is_refused(tiny: Any, modality: str, option: Any) -> None:
    """Else a store would record what was not done."""
    other = next((value for value in option.metadata["choices"] if value != option.default), None)
    value = other or {"centres": "1", "adjacent": "all", "dataset": "a", "time_column": "t"}.get(option.name, option.default is False or 3)
    with pytest.raises(OptionError, match=rf"^{option.name}: a live stream is read a window at a time"):
        embed_stream(tiny, modality, 0, StreamFormat("s16le", RATE), **{option.name: value})


def test_a_stream_has_one_rate(tiny: Any) -> None:
    for modality, format, option in (("imu", StreamFormat(rate=100), "rate"), ("video", StreamFormat(rate=100, size=(8, 8)), "fps")):
        with pytest.raises(UsageError, match="the format states a rate of 100, and the reading options one of 50"):
            embed_stream(tiny, modality, 0, format, **{option: 50})


def test_windows_are_classified_as_those_of_the_file(imagebind: Run, start: Start, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", samples(5.2), RATE)
    flags = ("--labels", "dog,rain,bell", "--hop", 1, "--device", "cpu")
    wanted = imagebind("zeroshot", "audio", tmp_path / "a.wav", "--pool", "none", *flags)
    process = start("zeroshot", "audio", "-", "--live", "--format", "s16le", "--rate", RATE, *flags)
    feed(process, samples(5.2).tobytes())
    code, rows, err = finish(process)
    assert code == 0, err
    assert [(row["start"], row["end"]) for row in rows] == [(row["start"], row["end"]) for row in wanted.rows]
    for row, expected in zip(rows, wanted.rows, strict=True):
        assert [entry["class"] for entry in row["top"]] == [entry["class"] for entry in expected["top"]]
        assert [entry["score"] for entry in row["top"]] == pytest.approx([entry["score"] for entry in expected["top"]], abs=1e-6)
        assert row["dropped"] == 0
    assert imagebind("zeroshot", "audio", "-", "--live", "--format", "s16le", "--rate", RATE).code == 2
