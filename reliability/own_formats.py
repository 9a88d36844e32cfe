"""Files of our own formats, made by the commands that write them, and the commands that read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reliability.nursery import run
from reliability.seeds import KINDS

MODEL = ("--model", "tiny", "--device", "cpu")


@dataclass(frozen=True)
class Own:
    """A format of ours: how a folder with it is made, the file that is damaged, and the commands that read it."""

    name: str
    file: str
    write: Callable[[Path], None]
    commands: tuple[tuple[str, ...], ...]


def _made(*commands: tuple[str, ...]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        next(kind for kind in KINDS if kind.name == "RGB.png").write(folder / "a.png")
        (folder / "names.txt").write_text("a dog\na cat\n")
        for command in commands:
            result = run(command, folder=folder, limit=60)
            if result.code:
                raise RuntimeError(f"imagebind {' '.join(command)}: {result.err}")

    return write


def _store(name: str) -> tuple[tuple[str, ...], ...]:
    return (
        ("store", "check", name),
        ("store", "info", name),
        ("retrieve", name, "--like", "a dog"),
        ("embed", "text", "a dog", "one more", "-o", name, *MODEL),
    )


def _texts(name: str) -> tuple[str, ...]:
    return ("embed", "text", "a dog", "a cat", "a bird", "-o", name, *MODEL)


def _failures(folder: Path) -> None:
    _made()(folder)
    (folder / "bad.png").write_bytes(b"no picture")
    run(("embed", "image", "bad.png", "a.png", "-o", "s.h5", "--errors", "e.jsonl", *MODEL), folder=folder, limit=60)


OWN = [
    Own("jsonl", "s.jsonl", _made(_texts("s.jsonl")), _store("s.jsonl")),
    Own("jsonl-made", "s.made.json", _made(_texts("s.jsonl")), _store("s.jsonl")),
    Own("npy", "s.npy", _made(_texts("s.npy")), _store("s.npy")),
    Own("npy-rows", "s.jsonl", _made(_texts("s.npy")), _store("s.npy")),
    Own("safetensors", "s.safetensors", _made(_texts("s.safetensors")), _store("s.safetensors")),
    Own("h5", "s.h5", _made(_texts("s.h5")), _store("s.h5")),
    Own(
        "prepared-tar",
        "p.tar",
        _made(("preprocess", "image", "a.png", "-o", "p.tar", "--model", "tiny")),
        (("embed", "image", "p.tar", *MODEL),),
    ),
    Own(
        "prepared-h5",
        "p.h5",
        _made(("preprocess", "image", "a.png", "-o", "p.h5", "--model", "tiny")),
        (("embed", "image", "p.h5", *MODEL),),
    ),
    Own(
        "model-config",
        "m/config.json",
        _made(("weights", "convert", "tiny", "m")),
        (("weights", "info", "m"), ("embed", "text", "a dog", "--model", "m", "--device", "cpu")),
    ),
    Own(
        "errors",
        "e.jsonl",
        _failures,
        (("embed", "image", "bad.png", "a.png", "-o", "s.h5", "--errors", "e.jsonl", *MODEL),),
    ),
]
"""Formats of ours."""
