"""The scripts of recipes/live, with programs in place of the microphone and the camera that write what those would."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from imagebind_cli.store import open_store
from tests import generate

LIVE = Path(__file__).parents[2] / "recipes" / "live"


@pytest.fixture
def folder(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with `imagebind` and what stands for the devices on the PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{program.parent}:/usr/bin:/bin")
    return tmp_path


def stand_in(folder: Path, name: str, data: bytes) -> None:
    (folder / "data").write_bytes(data)
    (folder / name).write_text(f'#!/bin/sh\necho "$@" > {name}.arguments\ncat data\n')
    (folder / name).chmod(0o755)


def run(script: str, *arguments: object) -> list[dict[str, object]]:
    done = subprocess.run([LIVE / script, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("device", "name"), [("hw:1", "arecord"), ("rtsp://door", "ffmpeg")])
def test_a_microphone(folder: Path, device: str, name: str) -> None:
    stand_in(folder, name, (generate.tone(2.6) * 32767).astype("<i2").tobytes())
    rows = run("microphone.sh", "heard.h5", device)
    assert [(row["start"], row["end"]) for row in rows] == [(0, 2), (0.5, 2.5)]
    assert "embedding" not in rows[0]
    assert device in (folder / f"{name}.arguments").read_text()
    assert len(open_store(folder / "heard.h5")) == 2


def test_a_camera(folder: Path) -> None:
    frames = np.stack([generate.pixels(number, (320, 240)) for number in range(16)])
    stand_in(folder, "ffmpeg", frames.tobytes())
    rows = run("camera.sh", "seen.h5")
    assert [(row["start"], row["end"]) for row in rows] == [(0, 2), (1, 3)]
    assert "/dev/video0" in (folder / "ffmpeg.arguments").read_text()
    assert len(open_store(folder / "seen.h5")) == 2


def test_a_motion_sensor(folder: Path) -> None:
    generate.imu(folder / "line.csv", 6.5)
    rows = run("motion.sh", "moved.h5", "line.csv", 400)
    assert [(row["start"], row["end"]) for row in rows] == [(0, 5), (1, 6)]
    assert len(open_store(folder / "moved.h5")) == 2
