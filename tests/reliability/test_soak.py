"""The campaigns of `reliability/`, small: they pass a healthy run, and report one that is not."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reliability.faults import build_shim
from reliability.soak import MODEL, Sample, files, judge, sentences, soak


def steady(grow: float = 0, slow: float = 0, worker: float = 0) -> list[Sample]:
    """Samples of a run of 100,000 inputs. grow: MB a sample. slow: seconds by which each sample takes longer than the one before."""
    seconds = itertools.accumulate(1 + slow * number for number in range(101))
    return [Sample(time, 1000 * number, 600 + grow * number, worker * number) for number, time in enumerate(seconds)]


def test_a_steady_run_passes() -> None:
    assert judge(steady()) is None


def test_workers_that_start_late_are_no_growth() -> None:
    late = [replace(sample, worker=min(548, 100 * max(0, number - 28))) for number, sample in enumerate(steady())]
    assert judge(late) is None


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (steady(grow=4), "the process grew by 216 MB and its largest worker by 0; 164 are allowed"),
        (steady(worker=4), "the process grew by 0 MB and its largest worker by 216; 164 are allowed"),
        (steady(slow=0.1), "the rate fell from 282 to 117 a second"),
    ],
)
def test_a_run_that_grows_or_slows_is_reported(samples: list[Sample], fault: str) -> None:
    assert judge(samples) == fault


def test_a_real_run_takes_every_input(tmp_path: Path) -> None:
    samples, fault = soak(("embed", "text", "-o", "texts.jsonl", *MODEL, "--device", "cpu"), sentences(300), tmp_path, 60)
    assert fault is None
    assert samples[-1].inputs == 300
    assert samples[-2].process > 50
    assert len((tmp_path / "texts.jsonl").read_text().splitlines()) == 300


def test_a_run_that_fails_is_reported_with_its_last_line(tmp_path: Path) -> None:
    _, fault = soak(("embed", "image", *MODEL), iter(["missing.png"]), tmp_path, 60)
    assert fault is not None
    assert fault.startswith("exit 1")
    assert "missing.png" in fault or "1 failed" in fault


def test_files_are_different_names_of_readable_pictures(tmp_path: Path) -> None:
    names = list(files(tmp_path / "files", 150))
    assert len(set(names)) == 150
    assert all(Path(name).stat().st_nlink > 1 for name in names)


FAILING = """
import ctypes, os, sys
import h5py, numpy, sqlite3
from safetensors.numpy import save_file

def hdf5():
    with h5py.File("a.h5", "w") as file:
        file["a"] = numpy.ones(100_000)

def sync():
    with open("a.txt", "wb", 0) as file:
        os.fsync(file.fileno())

writers = {
    "python": lambda: open("a.txt", "wb", 0).write(b"a"),
    "sync": sync,
    "hdf5": hdf5,
    "sqlite": lambda: sqlite3.connect("a.db").execute("create table a (b)"),
    "safetensors": lambda: save_file({"a": numpy.ones(1000)}, "a.safetensors"),
}
for name, write in writers.items():
    ctypes.CDLL(None).eio_arm(ctypes.c_long(0))
    try:
        write()
    except Exception as error:
        print(name, "disk I/O error" in str(error) or "file write failed" in str(error) or "Input/output error" in str(error))
    write()
    print(name, "works again", flush=True)
"""


def test_one_write_of_any_library_fails_under_the_shim(tmp_path: Path) -> None:
    shim = build_shim(tmp_path)
    if shim is None:
        pytest.skip("no C compiler")
    environment = {**os.environ, "LD_PRELOAD": str(shim)}
    command = [sys.executable, "-W", "ignore", "-c", FAILING]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    names = ("python", "sync", "hdf5", "sqlite", "safetensors")
    assert run.stdout.splitlines() == [line for name in names for line in (f"{name} True", f"{name} works again")], run.stderr
