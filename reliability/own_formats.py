"""Files of our own formats, made by the commands that write them, and the commands that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagebind_cli.store_formats import FORMATS
from reliability.nursery import run
from reliability.seeds import KINDS

MODEL = ("--model", "tiny", "--device", "cpu")


@dataclass(frozen=True)
class Own:
    """A format of ours: how a folder with it is made, a pattern of the files of which one is damaged, and the commands that read it."""

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


def _stores() -> Iterator[Own]:
    """Yield every format of stores with each of its files."""
    for ending, format in FORMATS.items():
        for path in format.files(Path(f"s{ending}")):
            name = f"store{ending}" if path.suffix == ending else f"store{ending}-{path.name}"
            yield Own(name, f"{path}/*" if format.folder else str(path), _made(_texts(f"s{ending}")), _uses(f"s{ending}"))


def _uses(name: str) -> tuple[tuple[str, ...], ...]:
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
    *_stores(),
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
