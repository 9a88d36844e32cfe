"""Names, records and answers that hold what a terminal acts on: whatever prints them, none of it reaches the terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from imagebind_cli.weights.convert import convert
from imagebind_cli.weights.find import find_checkpoint
from tests.conftest import Run
from tests.stores import store

EVIL = "e\x1b[31m\u202e\nz\udcff\x9b"  # colour, text from right to left, a line, bytes that are not UTF-8, a C1 control
ACTED_ON = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
MODEL = "--model tiny --device cpu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evil")
    (folder / "d").mkdir()
    for name in (f"{EVIL}.png", "ok.png"):
        with open(folder / "d" / name, "wb") as file:
            Image.new("RGB", (8, 8)).save(file, "PNG")
    (folder / "d" / f"{EVIL}2.png").write_bytes(b"junk")
    for name in ("a", "b"):
        store(
            folder / f"{name}.h5",
            "image",
            [EVIL, "b"],
            **dict.fromkeys(("model", "weights", "licence", "folder"), name + EVIL),
            assumptions=[EVIL],
        )
    convert(find_checkpoint("tiny"), folder / "m", {})
    config = json.loads((folder / "m/config.json").read_text())
    config |= {"name": EVIL, "about": EVIL, "licence": EVIL, "origin": {"from": EVIL}, "files": {EVIL: {"size": 1, "sha256": EVIL}}}
    (folder / "m/config.json").write_text(json.dumps(config))
    (folder / "m/CARD.md").write_bytes(b"a card \x1b[31m \xff\n")
    (folder / "n").mkdir()
    (folder / "n/config.json").write_text(json.dumps(config | {EVIL: 1}))
    torch.save({EVIL: torch.ones(1)}, folder / "t.pth")
    (folder / "l.txt").write_bytes(b"a\x1b[31m\nb\n")
    (folder / "r.toml").write_text('"a\\u001b" = 1\n')
    (folder / "m.csv").write_text("image\x1b,x\na,b\n")
    (folder / "m.jsonl").write_text(
        "\n".join([json.dumps({"id": EVIL, "image": EVIL}), '{"a\\u001b": 1, "a\\u001b": 2}', json.dumps({EVIL: 1})])
    )
    (folder / "pairs.jsonl").write_text(
        "".join(json.dumps({"id": f"{EVIL}{n}", "image": f"d/{EVIL}2.png", "text": str(n)}) + "\n" for n in range(4))
    )
    (folder / "imagebind.toml").write_text('[embed]\n"mod\\u001b" = "x"\n')
    return folder


@pytest.mark.parametrize(
    "command",
    [
        f"embed image d EVIL d/EVIL.png noEVIL -o sEVIL.h5 -v {MODEL}", "embed image d -o x.EVIL", "embed image d --model EVIL", "embed EVIL", "EVIL",
        "embed image --EVIL", f"embed image d --errors no/EVIL {MODEL}", "embed image d --dtype EVIL", "embed image --manifest EVIL.csv",
        f"embed image --manifest m.csv {MODEL}", f"embed image --manifest m.jsonl {MODEL}", f"embed text EVIL --plain {MODEL}",
        "preprocess image d -o pEVIL.tar --model tiny", "preprocess image d --inspect --model tiny",
        "store info a.h5", "store check a.h5", "store info noEVIL", "store merge a.h5 b.h5 -o c.h5", "store export a.h5 -o x.EVIL",
        "store prune a.h5",        "retrieve a.h5 --like EVIL --plain", "retrieve a.h5 --like noEVIL", "retrieve a.h5 --text x",
        "retrieve a.h5 --like b --html hEVIL.html",
        "retrieve a.h5 --queries m.jsonl", "retrieve a.h5 --pairs b.h5", "retrieve a.h5 --like b --index flat",
        "weights info m", "weights verify m", "weights convert m cEVIL", "weights info n", "weights info t.pth", "weights pull EVIL", "weights list",
        "weights pull hf://a/EVIL", f"zeroshot image d --labels l.txt --plain {MODEL}", "zeroshot image d --labels noEVIL",
        "zeroshot image --suite EVIL",        "train --recipe r.toml --out r", "train --recipe EVIL --out r", "train --pairs EVIL --out r",
        "train --pairs image-text --data pairs.jsonl --dry-run --model tiny --batch 2 --device cpu",
        "train --pairs image-text --data pairs.jsonl --out rEVIL --model tiny --batch 2 --device cpu --set run.workers=0 --set run.steps=1",
        "doctor", "demo EVIL",
    ],
)  # fmt: skip
def test_nothing_that_a_terminal_acts_on_is_printed(
    folder: Path, home: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(folder)
    if command == "doctor":
        monkeypatch.setenv("IMAGEBIND_EMBED_DTYPE", "x\x1b")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    elif (folder / "imagebind.toml").exists():
        monkeypatch.setattr("imagebind_cli.cli.settings.FILE", "none.toml")
    if command == "weights list":
        (home / "hf/x--y").mkdir(parents=True)
        (home / "hf/x--y/origin.json").write_text(json.dumps({"address": EVIL}))
    run = imagebind(*(word.replace("EVIL", EVIL) for word in command.split()))
    assert ACTED_ON.search(run.err) is None
    assert ACTED_ON.search(run.out.decode("utf-8", "surrogateescape")) is None
    assert [line for line in run.err.splitlines() if not line.startswith("imagebind: ")] == []


def test_tracebacks_are_escaped(folder: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEBIND_DEBUG", "1")
    run = imagebind("weights", "info", f"no{EVIL}")
    assert "Traceback" in run.err
    assert ACTED_ON.search(run.err) is None
    code = "import sys; from imagebind_cli import __main__ as main, cli; cli.run_command_line = lambda: 1 / int(sys.argv[1]); main.main()"
    died = subprocess.run([sys.executable, "-c", code, "\x1b"], capture_output=True, text=True, env=os.environ)
    assert died.returncode == 1
    assert "invalid literal for int() with base 10: '\\x1b'" in died.stderr
    assert ACTED_ON.search(died.stderr) is None
