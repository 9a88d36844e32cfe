"""`imagebind embed` that comes again: what it takes up, what it leaves, its share of the work, and what it says about that."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import tarfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli.cli import pace, talk
from imagebind_cli.corpus import share
from imagebind_cli.printable import duration_in_words
from imagebind_cli.registry import Face
from imagebind_cli.store import FORMATS, is_store, open_store
from tests import generate
from tests.conftest import Finished, Python, Run, Start


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(folder: Path, count: int, name: str = "in") -> list[str]:
    (folder / name).mkdir(exist_ok=True)
    return [str(generate.picture(folder / name / f"{seed}.png", seed).relative_to(folder)) for seed in range(count)]


def counts(run: Finished) -> str:
    """What the last line says, without the store's name and the rate."""
    return run.notices[-1].split(": ", 2)[2].rpartition(" (")[0]


# What comes again


def test_inputs_that_come_again_are_not_said_to_be_in_the_store(embed: Run, folder: Path) -> None:
    names = pictures(folder, 2)
    again = (*names, names[0], names[0])
    assert counts(embed("image", *again, "-o", "a.h5")) == "2 embedded, 2 repeated"
    assert counts(embed("image", *again, "-o", "a.h5")) == "0 embedded, 2 there already, 2 repeated"
    estimate = json.loads(embed("image", *again, "-o", "a.h5", "--dry-run", "--json").out)
    assert [estimate[key] for key in ("inputs", "done", "repeated", "remaining")] == [4, 2, 2, 0]
    assert counts(embed("text", "-o", "s.h5", stdin=b"y\n" * 1000)) == "1 embedded, 999 repeated"


def test_an_endless_repetition_that_is_stopped_counts_one_sentence(start: Start, folder: Path) -> None:
    process = start("embed", "text", "-", "--model", "tiny", "-o", "s.store")
    assert process.stdin
    process.stdin.write(b"y\n" * 10_000)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not is_store("s.store") or not len(open_store("s.store")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(rb"s.store: 1 embedded, [1-9][\d,]* repeated \(", err)


# What has changed


@pytest.mark.parametrize("ending", [".h5", ".jsonl", ".safetensors"])
def test_a_changed_input_takes_the_place_of_what_it_was(embed: Run, folder: Path, ending: str) -> None:
    names, store = pictures(folder, 3), f"store{ending}"
    command = ("image", "in", "-o", store, "--batch-size", 1)
    assert counts(embed(*command)) == "3 embedded"
    generate.picture(folder / names[1], seed=77)
    again = embed(*command)
    assert (again.code, counts(again)) == (0, "1 embedded, 2 there already")
    reader = open_store(folder / store)
    assert reader.ids == [names[0], names[2], names[1]]
    assert reader.vectors().tobytes() == embed("image", *reader.ids, "--batch-size", 1).vectors.tobytes()
    assert reader.replaced == int(FORMATS[ending].grows)  # else it is written anew each time
    assert counts(embed(*command)) == "0 embedded, 3 there already"


def test_windows_of_a_changed_recording_are_replaced_together(embed: Run, folder: Path) -> None:
    generate.audio(folder / "a.wav", seconds=5)
    generate.audio(folder / "b.wav", seconds=3)
    command = ("audio", "a.wav", "b.wav", "--pool", "none", "-o", "store.h5")
    embed(*command)
    generate.audio(folder / "a.wav", seconds=3, seed=2)
    embed(*command)
    reader = open_store("store.h5")
    assert reader.ids == ["b.wav", "b.wav", "a.wav", "a.wav"]
    assert reader.spans is not None
    assert reader.spans.tolist() == [[0, 2], [1, 3]] * 2
    assert reader.replaced == 3


def test_a_store_from_before_an_option_came_is_added_to(embed: Run, folder: Path) -> None:
    """An option that came later stands in the record only where it was given."""
    for name in ("a.wav", "b.wav"):
        generate.audio(folder / name)
    embed("audio", "a.wav", "-o", "a.npy")
    assert "track" not in json.loads((folder / "a.made.json").read_text())["options"]
    assert counts(embed("audio", "a.wav", "b.wav", "-o", "a.npy")) == "1 embedded, 1 there already"
    embed("audio", "a.wav", "--track", "1", "-o", "b.npy")
    assert json.loads((folder / "b.made.json").read_text())["options"]["track"] == 1
    run = embed("audio", "b.wav", "-o", "b.npy")
    assert (run.code, "made with --track 1; this run has no --track" in run.err) == (1, True)


def test_a_touched_file_is_embedded_again_unless_its_content_is_asked_about(embed: Run, folder: Path) -> None:
    (name,) = pictures(folder, 1)
    for store, options, wanted in [("a.h5", (), "1 embedded"), ("b.h5", ("--verify",), "0 embedded, 1 there already")]:
        command = ("image", name, "-o", store, *options)
        embed(*command)
        os.utime(folder / name, (1, 1))
        assert counts(embed(*command)) == wanted
        os.utime(folder / name)


def test_content_that_changes_behind_size_and_time_is_seen_by_verify_alone(embed: Run, folder: Path) -> None:
    (folder / "a.npy").write_bytes(b"")
    generate.imu(folder / "a.npy", seconds=5)
    times = (folder / "a.npy").stat()
    command = ("imu", "a.npy", "-o", "a.h5")
    embed(*command, "--verify")
    data = bytearray((folder / "a.npy").read_bytes())
    data[-1] ^= 1
    (folder / "a.npy").write_bytes(data)
    os.utime(folder / "a.npy", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert counts(embed(*command)) == "0 embedded, 1 there already"
    assert counts(embed(*command, "--verify")) == "1 embedded"


@pytest.mark.parametrize("ending", FORMATS)
def test_a_renamed_file_keeps_its_vectors_with_verify_alone(embed: Run, folder: Path, ending: str) -> None:
    names = pictures(folder, 3)
    for store, options, wanted in [
        (f"a{ending}", (), "2 embedded, 2 there already"),
        (f"b{ending}", ("--verify",), "1 embedded, 3 there already"),
    ]:
        assert counts(embed("image", "in", "-o", store, *options)) == "3 embedded"
        (folder / "in/0.png").rename(folder / "in/new.PNG")
        (folder / "in/other.bmp").write_bytes((folder / "in/1.png").read_bytes())  # the same content under another kind of name
        run = embed("image", "in", "-o", store, *options)
        assert counts(run) == wanted
        assert [line for line in run.notices if "in/new.PNG: its content was embedded under another name" in line] == run.notices[
            :1
        ] or not options
        reader = open_store(folder / store)
        assert sorted(reader.ids) == sorted([*names, "in/new.PNG", "in/other.bmp"])
        renamed, before = reader.rows([reader.ids.index("in/new.PNG"), reader.ids.index("in/0.png")])
        assert renamed.tobytes() == before.tobytes() or not options
        assert counts(embed("image", "in", "-o", store, *options)) == "0 embedded, 4 there already"
        (folder / "in/new.PNG").rename(folder / "in/0.png")
        (folder / "in/other.bmp").unlink()


def test_the_windows_of_a_renamed_recording_come_along(embed: Run, folder: Path) -> None:
    generate.audio(folder / "a.wav", seconds=7)
    command = ("--pool", "none", "-o", "a.h5", "--verify")
    embed("audio", "a.wav", *command)
    (folder / "a.wav").rename(folder / "b.wav")
    assert counts(embed("audio", "b.wav", *command)) == "0 embedded, 1 there already"
    first, second = open_store(folder / "a.h5").items()
    assert len(first) == len(second) > 1
    assert [(row.span, row.windows, row.vector.tobytes()) for row in first] == [
        (row.span, row.windows, row.vector.tobytes()) for row in second
    ]


@pytest.mark.parametrize(("modality", "kept"), [("audio", True), ("thermal", True), ("depth", False), ("imu", False)])
def test_a_renamed_file_that_its_name_or_neighbours_may_change_is_read_again(embed: Run, folder: Path, modality: str, kept: bool) -> None:
    ending = {"audio": ".wav", "imu": ".npy"}.get(modality, ".png")
    getattr(generate, modality)(folder / f"a{ending}")
    embed(modality, f"a{ending}", "-o", "a.h5", "--verify")
    (folder / f"a{ending}").rename(folder / f"b{ending}")
    wanted = "0 embedded, 1 there already" if kept else "1 embedded"
    assert counts(embed(modality, f"b{ending}", "-o", "a.h5", "--verify")) == wanted


def test_a_modality_that_says_nothing_of_names_and_neighbours_is_read_again() -> None:
    assert not Face("touch", "touch").self_contained


def test_verify_on_a_store_without_hashes_says_that_it_embeds_again(embed: Run, folder: Path) -> None:
    pictures(folder, 2)
    embed("image", "in", "-o", "a.h5")
    run = embed("image", "in", "-o", "a.h5", "--verify")
    assert [line for line in run.notices if "a.h5 was written without --verify" in line] == run.notices[:1]
    assert counts(run) == "2 embedded"
    assert counts(embed("image", "in", "-o", "a.h5", "--verify")) == "0 embedded, 2 there already"


def test_sentences_are_known_by_id_and_words(embed: Run, folder: Path) -> None:
    def run(words: str) -> str:
        return counts(embed("text", "-o", "a.h5", stdin=json.dumps({"id": "1", "text": words}).encode() + b"\n"))

    assert [run("a dog"), run("a dog"), run("a cat"), run("a cat")] == [
        "1 embedded",
        "0 embedded, 1 there already",
        "1 embedded",
        "0 embedded, 1 there already",
    ]
    assert len(open_store("a.h5")) == 1


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def test_members_of_an_archive_are_known_by_id_and_content(embed: Run, folder: Path) -> None:
    one, two, three = ((folder / name).read_bytes() for name in pictures(folder, 3))
    shard(folder / "a.tar", {"x.png": one, "y.png": two})
    command = ("image", "a.tar", "-o", "a.h5")
    assert counts(embed(*command)) == "2 embedded"
    time.sleep(0.01)
    shard(folder / "a.tar", {"x.png": one, "y.png": three})
    assert counts(embed(*command)) == "1 embedded, 1 there already"
    assert counts(embed("image", "-", "-o", "a.h5", stdin=(folder / "a.tar").read_bytes())) == "0 embedded, 2 there already"


def test_what_a_manifest_says_besides_is_kept_and_given_on(embed: Run, folder: Path) -> None:
    (name,) = pictures(folder, 1)
    (folder / "m.jsonl").write_text(json.dumps({"id": "a", "image": name, "label": "dog", "size": [80, 60]}) + "\n")
    assert embed("image", "--manifest", "m.jsonl").rows[0]["meta"] == {"image": name, "label": "dog", "size": [80, 60]}
    embed("image", "--manifest", "m.jsonl", "-o", "s.h5")
    assert open_store("s.h5").meta(0) == {"image": name, "label": "dog", "size": [80, 60]}


def test_float16_halves_a_store_and_is_not_mixed_with_float32(embed: Run, folder: Path) -> None:
    names = pictures(folder, 2)
    exact = embed("image", *names, "--batch-size", 2).vectors
    for store in ("half.h5", "half.jsonl"):
        assert embed("image", *names, "-o", store, "--array", "float16", "--batch-size", 2).code == 0
        assert open_store(store).vectors() == pytest.approx(exact.astype(np.float16).astype(np.float32), abs=0)
        refused = embed("image", *names, "-o", store)
        assert refused.code == 1
        assert f"{store}: made with array 'float16'; this run has 'float32'" in refused.notices[0]


# What has failed


def test_failures_wait_until_they_change_or_are_asked_for(embed: Run, folder: Path) -> None:
    names = pictures(folder, 3)
    for bad in names[:2]:
        (folder / bad).write_text("no picture")
    command = ("image", "in", "-o", "a.h5", "--errors", "e.jsonl")

    def failed() -> list[str]:
        return [json.loads(line)["id"] for line in (folder / "e.jsonl").read_text().splitlines()]

    first = embed(*command)
    assert (first.code, counts(first), failed()) == (1, "1 embedded, 2 failed", names[:2])
    left = embed(*command)
    assert (left.code, counts(left), failed()) == (1, "0 embedded, 1 there already, 2 failed before", names[:2])
    generate.picture(folder / names[0], 0)
    mended = embed(*command)
    assert (mended.code, counts(mended), failed()) == (1, "1 embedded, 1 there already, 1 failed before", names[1:2])
    retried = embed(*command, "--retry-errors")
    assert (retried.code, counts(retried), failed()) == (1, "0 embedded, 1 failed", names[1:2])
    assert len((folder / "e.jsonl").read_text().splitlines()) == 1
    assert counts(embed("image", "in", "-o", "a.h5")) == "0 embedded, 1 failed, 2 there already"  # nothing told it


def test_retry_takes_only_what_the_file_names_and_clears_what_works(embed: Run, folder: Path) -> None:
    names = pictures(folder, 2)
    (folder / "e.jsonl").write_text(json.dumps({"id": names[1], "reason": "the disk was away"}) + "\n")
    run = embed("image", "in", "--errors", "e.jsonl", "--retry-errors")
    assert (run.code, run.ids) == (0, [names[1]])
    assert (folder / "e.jsonl").read_text() == ""


def test_a_file_that_failed_is_tried_again_when_it_is_named_again(start: Start, folder: Path) -> None:
    (folder / "late.png").write_bytes(b"half of it")
    process = start("embed", "image", "--model", "tiny", "-o", "s.h5")
    assert process.stdin
    assert process.stderr
    process.stdin.write(b"late.png\n")
    process.stdin.flush()
    while b"late.png: " not in (line := process.stderr.readline()):
        assert line
    generate.picture(folder / "late.png")
    _, err = process.communicate(b"late.png\nlate.png\n", timeout=60)
    assert b"1 embedded, 1 failed, 1 repeated" in err
    assert open_store("s.h5").ids == ["late.png"]


def test_a_failure_file_is_refused_if_it_is_none_and_healed_if_it_is_torn(embed: Run, folder: Path) -> None:
    (folder / "mine.jsonl").write_text("shopping list\n")
    refused = embed("text", "a", "--errors", "mine.jsonl")
    assert (refused.code, refused.out) == (1, b"")
    assert "mine.jsonl: line 1 is not a failure" in refused.notices[0]
    (folder / "e.jsonl").write_text('{"id": "x", "reason": "y"}\n{"id": "z", "rea')
    assert embed("image", "gone.png", "--errors", "e.jsonl").code == 1
    assert [json.loads(line)["id"] for line in (folder / "e.jsonl").read_text().splitlines()] == ["x", "gone.png"]


def test_wrong_requests_are_usage_errors(embed: Run, folder: Path) -> None:
    for options, words in [
        (("--retry-errors",), "--errors FILE"),
        (("--verify",), "give -o"),
        (("--shard", "0/4"), "I/N is needed"),
        (("--shard", "5/4"), "I/N is needed"),
        (("--shard", "half"), "I/N is needed"),
        (("--shard", "auto"), "SLURM_ARRAY_TASK_"),
    ]:
        run = embed("text", "a", *options)
        assert (run.code, run.out) == (2, b"")
        assert words in run.err


def test_a_refused_run_leaves_no_store(embed: Run, folder: Path) -> None:
    pictures(folder, 1)
    for ending in (".h5", ".store", ".npy"):
        assert embed("image", "--manifest", "none.jsonl", "-o", f"s{ending}").code == 1
    assert {path.name for path in folder.iterdir()} == {"in"}


def test_a_second_run_on_the_same_store_is_told_at_once(start: Start, embed: Run, folder: Path) -> None:
    process = start("embed", "text", "--model", "tiny", "--device", "cpu", "-o", "s.h5")
    assert process.stdin
    process.stdin.write(b"one\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not is_store("s.h5"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run = embed("text", "two", "-o", "s.h5")
    assert run.code == 1
    assert run.notices == ["imagebind: s.h5: another run is writing to it; wait for that one, or write to another file"]
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert open_store("s.h5").ids == ["one"]


# Shares


def test_shares_are_disjoint_complete_and_stay_as_the_folder_grows(embed: Run, folder: Path) -> None:
    sentences = [f"sentence {number}" for number in range(40)]

    def run(given: list[str]) -> list[list[str]]:
        for number in (1, 2, 3):
            assert embed("text", *given, "--shard", f"{number}/3", "-o", "s.h5").code == 0
        return [open_store(f"s-0000{number}-of-00003.h5").ids for number in (1, 2, 3)]

    before = run(sentences[:20])
    assert sorted([*chain(*before)]) == sorted(sentences[:20])
    assert all(before)
    after = run(sentences)
    assert [ids[: len(some)] for ids, some in zip(after, before, strict=True)] == before
    whole = open_store("s-*-of-00003.h5")
    assert whole.ids == [*chain(*after)]
    assert whole.vectors() == pytest.approx(embed("text", *whole.ids).vectors, abs=1e-6)
    assert [whole.id(7), whole.meta(7)] == [whole.ids[7], {}]
    assert whole.rows([39, 0]) == pytest.approx(whole.vectors()[[39, 0]], abs=0)


def test_every_member_of_an_archive_is_in_one_share(embed: Run, folder: Path) -> None:
    data = (folder / pictures(folder, 1)[0]).read_bytes()
    shard(folder / "a.tar", {f"{number}.png": data for number in range(12)})
    runs = [embed("image", "a.tar", "--shard", f"{number}/3").ids for number in (1, 2, 3)]
    assert sorted([*chain(*runs)], key=int) == [str(number) for number in range(12)]
    embed("image", "a.tar", "--shard", "2/3", "-o", "s.h5")
    assert open_store("s-00002-of-00003.h5").ids == runs[1]


def test_failures_of_a_share_go_to_a_file_of_its_own(embed: Run, folder: Path) -> None:
    (folder / "bad.png").write_text("no picture")
    codes = [embed("image", "bad.png", "--shard", f"{number}/2", "--errors", "e.jsonl").code for number in (1, 2)]
    assert sorted(codes) == [0, 1]
    lines = [(folder / f"e-0000{number}-of-00002.jsonl").read_text() for number in (1, 2)]
    assert sorted(map(bool, lines)) == [False, True]


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"ID": "3", "COUNT": "4"}, (4, 4)),
        ({"ID": "1", "COUNT": "4", "MIN": "1", "MAX": "4"}, (1, 4)),
        ({"ID": "20", "COUNT": "3", "MIN": "10", "STEP": "5"}, (3, 3)),
    ],
)
def test_a_job_array_says_which_share(environment: dict[str, str], wanted: tuple[int, int]) -> None:
    chosen = share.chosen_share("auto", {f"SLURM_ARRAY_TASK_{name}": value for name, value in environment.items()})
    assert chosen is not None
    assert (chosen.number, chosen.count) == wanted


def test_in_a_job_array_all_inputs_are_taken_unless_asked_and_that_is_said(embed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    run = embed("text", *map(str, range(6)))
    assert len(run.ids) == 6
    assert run.notices == ["imagebind: this is task 2 of 2 of a job array and takes all inputs; for its share alone: --shard auto"]
    assert 0 < len(embed("text", *map(str, range(6)), "--shard", "auto").ids) < 6


def test_torchrun_gives_each_process_its_share_and_store(folder: Path, program: Path, python: Python) -> None:
    (folder / "m.jsonl").write_text("".join(json.dumps({"id": f"{number}", "text": f"sentence {number}"}) + "\n" for number in range(12)))
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python", program]
    run = python("-m", *command, "embed", "text", "--manifest", "m.jsonl", "--model", "tiny", "-o", "s.h5")
    assert run.returncode == 0, run.stderr
    parts = [open_store(f"s-0000{number}-of-00002.h5").ids for number in (1, 2)]
    assert all(parts)
    assert sorted(map(int, [*chain(*parts)])) == list(range(12))


def test_the_processes_of_torchrun_cannot_share_stdin(embed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    run = embed("text", stdin=b"a dog\n")
    assert run.code == 2
    assert "cannot share stdin" in run.err


def test_a_process_of_torchrun_takes_a_gpu_of_its_own_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    environment = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    chosen = share.chosen_share(None, environment)
    assert chosen is not None
    assert (chosen.number, chosen.count) == (6, 8)
    for gpus, given, wanted in [(2, "auto", "cuda:1"), (1, "auto", "auto"), (2, "cpu", "cpu")]:
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert chosen.device(given) == wanted


# What is said on the way


def test_ctrl_c_says_how_far_it_is_and_the_same_command_goes_on(start: Start, embed: Run, folder: Path) -> None:
    process = start("embed", "text", "--model", "tiny", "--device", "cpu", "-o", "s.h5")
    assert process.stdin
    assert process.stderr
    process.stdin.write("".join(f"sentence {number}\n" for number in range(5)).encode())
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not is_store("s.h5") or not len(open_store("s.h5")):  # by time: nothing more comes
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    last = process.stderr.read().decode().splitlines()[-1]
    assert last.startswith("imagebind: s.h5: 5 embedded (")
    assert last.endswith("; stopped: run the same command to continue from here")
    assert counts(embed("text", "-o", "s.h5", stdin=b"sentence 4\nsentence 5\n")) == "1 embedded, 1 there already"


def test_a_line_a_minute_tells_how_far_it_is_where_nobody_looks(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(talk, "LINE_SECONDS", 0.2)
    with talk.Talk() as counts:
        counts.begin(0, lambda: 1000)
        for number in range(10):
            counts.succeeded(str(number))
            time.sleep(0.1)
        counts.failed = 2
    lines = capfd.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 6
    assert all(line.startswith("imagebind: ") and " embedded (" in line and " a second, about " in line for line in lines[1:])


def test_the_time_left_is_what_remains_at_the_pace_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    run = pace.Pace()
    assert run.left(5, 0) is None  # nobody knows how many there are
    run.expect(1000, 0)
    now[0] += 10
    assert run.left(100, 0) == "about 2 min left"  # 10 a second
    now[0] += 100
    run.left(200, 0)
    now[0] += 50
    assert run.left(250, 250) == "about 8 min left"  # 1 a second, 500 to go
    assert run.left(250, 800) is None  # more came than there should be


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 s"), (89, "89 s"), (150, "2 min"), (5400, "2 h"), (100_000, "28 h"), (10**6, "12 days")]
)
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_a_terminal_shows_the_time_left_and_keeps_stdout_clean(folder: Path, program: Path) -> None:
    pictures(folder, 3)
    own, terminal = pty.openpty()
    run = subprocess.Popen(
        [program, "embed", "image", "in", "--model", "tiny"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            some = os.read(own, 65536)
        except OSError:  # the other end is closed
            break
        if not some:
            break
        shown += some
    assert run.stdout
    assert len(run.stdout.read().splitlines()) == 3
    assert run.wait(30) == 0
    run.stdout.close()
    os.close(own)
    assert b"is untrained" in shown


def test_what_can_be_counted_is(folder: Path) -> None:
    from imagebind_cli.sources import Inputs

    pictures(folder, 3)
    pictures(folder / "in", 2, "below")
    (folder / "in" / ".hidden").touch()
    (folder / "m.csv").write_text("id,image\n1,a\n2,b\n")
    (folder / "m.jsonl").write_text("{}\n\n{}\n")
    expected: list[tuple[tuple[Any, ...], int | None]] = [
        (("image", ["in"], None), 5),
        (("image", ["in/*.png", "in/below"], None), 5),
        (("text", ["a", "b"], None), 2),
        (("image", [], Path("m.csv")), 2),
        (("image", [], Path("m.jsonl")), 2),
        (("image", [], None), None),
        (("image", ["a.png", "-"], None), None),
        (("image", ["x.tar"], None), None),
    ]
    assert [Inputs.of(paths, manifest).count((modality,)) for (modality, paths, manifest), _ in expected] == [
        count for _, count in expected
    ]


# Stretches of one file


@pytest.mark.parametrize("ending", [".h5", ".jsonl"])
def test_stretches_are_known_by_their_file_and_their_seconds(embed: Run, folder: Path, ending: str) -> None:
    (folder / "in").mkdir()
    generate.audio(folder / "in/a.wav", seconds=12)
    rows = [
        {"audio": "a.wav", "start": 2, "end": 5},
        {"audio": "a.wav", "start": 5, "end": 9},
        {"audio": "a.wav"},
        {"id": "x", "audio": "a.wav", "start": 6},
    ]

    def again(*more: object) -> str:
        (folder / "in/m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return counts(embed("audio", "--manifest", "in/m.jsonl", "--pool", "none", "-o", f"s{ending}", *more))

    assert [again(), again()] == ["4 embedded", "0 embedded, 4 there already"]
    reader = open_store(f"s{ending}")
    assert reader.spans is not None
    spans = {id: [tuple(span) for name, span in zip(reader.ids, reader.spans.tolist(), strict=True) if name == id] for id in reader.ids}
    assert spans == {
        "a.wav#2-5": [(2, 4), (3, 5)],
        "a.wav#5-9": [(5, 7), (7, 9)],
        "a.wav": [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)],
        "x": [(6, 8), (8, 10), (10, 12)],
    }
    assert reader.meta(0) == {"audio": "in/a.wav", "start": 2, "end": 5}
    rows[3]["end"] = 8
    assert [again(), again()] == ["1 embedded, 3 there already", "0 embedded, 4 there already"]
    generate.audio(folder / "in/a.wav", seconds=13)
    assert [again(), again(), again("--verify"), again("--verify")] == ["4 embedded", "0 embedded, 4 there already"] * 2
    rows.append({"id": "x", "audio": "a.wav", "start": 7})
    assert again("--verify") == "0 embedded, 1 failed, 4 there already"


def test_a_store_has_one_input_for_an_id(embed: Run, folder: Path) -> None:
    generate.audio(folder / "a.wav", seconds=5)
    (folder / "m.csv").write_text("id,audio,start,end\nx,a.wav,0,2\nx,a.wav,2,4\nx,a.wav,0,2\n")
    run = embed("audio", "--manifest", "m.csv", "-o", "s.h5")
    assert (run.code, counts(run)) == (1, "1 embedded, 1 failed, 1 repeated")
    assert "x: this id was already used for another input; give each input its own id" in run.err
