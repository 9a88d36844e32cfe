"""Signals that end a command: its exit code, and a line that says how to continue."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli.store import open_store
from tests.conftest import Run, Start
from tests.stores import store


def sends(number: int) -> Callable[..., object]:
    def send(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    return send


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize(
    ("interrupted", "command", "line"),
    [
        ("imagebind_cli.store.maintenance.merge", "store merge a.h5 -o b.h5", "b.h5: 0 added (0.0 a second); stopped: run the same command"),
        ("imagebind_cli.weights.download.pull_address", "weights pull huge", "huge: stopped: run the same command to continue"),
        ("imagebind_cli.retrieval.index.Indexes._build", "retrieve a.h5 --like 0 --index flat", "stopped; the same command begins again, also with"),
        ("imagebind_cli.corpus.job.kept_beside", "embed text a -o c.h5 --model tiny", "c.h5: 0 embedded (0.0 a second); stopped: run the same"),
        ("imagebind_cli.prepared.tar.ShardWriter.finish", "preprocess text a -o c-%06d.tar --model tiny", "stopped: run the same command to"),
    ],
)  # fmt: skip
def test_a_stopped_command_says_how_to_continue(
    tmp_path: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch, number: int, interrupted: str, command: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store(Path("a.h5"), "image", ["0", "1"])
    monkeypatch.setattr(interrupted, sends(number))
    run = imagebind(*command.split())
    assert run.code == 128 + number
    assert line in run.notices[-1]


def test_a_terminal_that_is_closed_loses_nothing(tmp_path: Path, start: Start) -> None:
    process = start("embed", "text", "-", "-o", tmp_path / "s.jsonl", "--model", "tiny", "--device", "cpu")
    assert process.stdin is not None
    process.stdin.write(b"a dog\na cat\n")
    process.stdin.flush()
    while not (tmp_path / "s.jsonl").exists() or (tmp_path / "s.jsonl").stat().st_size == 0:
        assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGHUP
    assert b"stopped: run the same command to continue from here" in err
    assert open_store(tmp_path / "s.jsonl").ids == ["a dog", "a cat"][: len(open_store(tmp_path / "s.jsonl"))] != []


def test_what_the_starter_ignores_stays_ignored(tmp_path: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr("imagebind_cli.corpus.job.kept_beside", lambda *_: signal.raise_signal(signal.SIGHUP) or {})
        run = imagebind("embed", "text", "a", "-o", tmp_path / "s.h5", "--model", "tiny")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.code == 0


def test_a_long_build_of_an_index_shows_progress(tmp_path: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebind_cli.retrieval.index.REPORT_SECONDS", -1.0)
    path = store(tmp_path / "a.h5", "image", ["0", "1"])
    run = imagebind("retrieve", path, "--like", "0", "--index", "flat")
    assert f"imagebind: {path}: 2 of 2 rows are in the index" in run.err


def test_a_file_that_changes_while_it_is_read_is_tried_again(tmp_path: Path, embed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from imagebind_cli.pipeline import embed_items

    for name in ("a.npy", "b.npy", "c.npy"):
        np.save(tmp_path / name, np.full((64, 64), 2.0 + ord(name[0])))

    def disturbed(*arguments: object, **named: object) -> object:
        for item, result in embed_items(*arguments, **named):  # type: ignore[arg-type]
            if item.id.endswith("a.npy"):
                os.utime(item.id, (1, 1))
            if item.id.endswith("b.npy"):
                os.unlink(item.id)
            yield item, result

    command = (
        "depth",
        *(tmp_path / name for name in ("a.npy", "b.npy", "c.npy")),
        "-o",
        tmp_path / "s.h5",
        "--errors",
        tmp_path / "e.jsonl",
    )
    with monkeypatch.context() as patch:
        patch.setattr("imagebind_cli.model.pipeline.embed_items", disturbed)
        run = embed(*command)
    assert run.code == 1
    assert f"imagebind: {tmp_path}/a.npy: changed while it was read; the same command tries it again" in run.err
    assert open_store(tmp_path / "s.h5").ids == [
        f"{tmp_path}/b.npy",
        f"{tmp_path}/c.npy",
    ]  # what was read whole before it was removed counts
    embed(*command)
    assert f"{tmp_path}/a.npy" in open_store(tmp_path / "s.h5").ids


@pytest.mark.parametrize("output", ["p.tar", "p.h5"])
def test_a_file_that_changes_while_it_is_prepared_is_tried_again(
    tmp_path: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    from imagebind_cli import pipeline
    from imagebind_cli.prepared import index

    decode, rows = pipeline.decode, []
    for name in "abc":  # of each row one file, the other or none is disturbed
        for modality in ("depth", "thermal"):
            np.save(tmp_path / f"{name}-{modality}.npy", 2.0 + ord(name) + np.eye(64))
        rows.append({"id": name} | {modality: f"{name}-{modality}.npy" for modality in ("depth", "thermal")})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def disturbed(*arguments: Any, **named: Any) -> Any:
        for step in decode(*arguments, **named):
            item, sample = step
            if sample is not None and item.id == "a":
                os.utime(tmp_path / "a-thermal.npy", (2e9, 2e9))
            if sample is not None and item.id == "b":
                np.save(tmp_path / "b-depth.npy", 3.0 + np.eye(65))
            yield step

    monkeypatch.chdir(tmp_path)
    command = ("preprocess", "depth,thermal", "--manifest", "rows.jsonl", "-o", output, "--model", "tiny")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "decode", disturbed)
        run = imagebind(*command)
    assert run.code == 1
    reason = "changed while it was read; the same command tries it again"
    assert run.err.count(reason) == 2
    assert f"imagebind: a: {reason}" in run.err
    assert f"imagebind: b: {reason}" in run.err
    assert [entry.about()["id"] for entry in index(output)] == ["c"]
    if output == "p.h5":  # one tar is written once
        assert imagebind(*command).code == 0
        assert {entry.about()["id"] for entry in index(output)} == {"a", "b", "c"}


def test_a_file_removed_after_it_was_read_is_prepared(tmp_path: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from imagebind_cli import pipeline

    decode = pipeline.decode
    np.save(tmp_path / "a.npy", np.full((64, 64), 2.0))

    def disturbed(*arguments: Any, **named: Any) -> Any:
        for step in decode(*arguments, **named):
            (tmp_path / "a.npy").unlink(missing_ok=True)
            yield step

    monkeypatch.setattr(pipeline, "decode", disturbed)
    assert imagebind("preprocess", "depth", tmp_path / "a.npy", "-o", tmp_path / "p.tar", "--model", "tiny").code == 0
