"""Files of a request on disk, for functions that open files by their paths; they are deleted once it is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi.concurrency import run_in_threadpool

from imagebind_cli.events import Listener
from imagebind_cli.retrieval.requests import LIKE, QueryRequest, combined_request, describe
from imagebind_cli.server.bodies import Part
from imagebind_cli.server.contents import Content, check_pixels, read_content
from imagebind_cli.server.limits import Limits, Refusal
from imagebind_cli.server.service import Service
from imagebind_cli.sources import Failure, Stretch

PREFIX = "imagebind-serve-"


@asynccontextmanager
async def spooled(contents: Sequence[Content], limits: Limits) -> AsyncIterator[list[str | Stretch]]:
    """Write those inputs that are bytes to files, and yield for each input its sentence, its path, or the stretch of that file.

    Raises:
        Refusal: a picture is too large.
    """
    folder = await run_in_threadpool(TemporaryDirectory, prefix=PREFIX)
    try:
        yield await run_in_threadpool(_write, Path(folder.name), contents, limits)
    finally:
        await run_in_threadpool(folder.cleanup)


def _write(folder: Path, contents: Sequence[Content], limits: Limits) -> list[str | Stretch]:
    sources: list[str | Stretch] = []
    for number, content in enumerate(contents):
        source = str(content.payload)
        if isinstance(content.payload, bytes):
            try:
                check_pixels(content.payload, content.modality, limits.pixels)
            except ValueError as error:
                raise Refusal(422, f"{content.name}: {error}") from None
            path = folder / str(number)
            path.write_bytes(content.payload)
            source = str(path)
        sources.append(source if content.start is None and content.end is None else Stretch(source, content.start, content.end))
    return sources


def read_parts(parts: Sequence[Part], service: Service) -> list[Content | str]:
    """Read the parts of a query: each as an input, or as the id of an item of the stores.

    Raises:
        Refusal: one of them cannot be used.
    """
    read: list[Content | str] = []
    for part in parts:
        kind, value = part.kind()
        if kind == LIKE:
            read.append(value)
            continue
        content = read_one(kind, value, part, service)
        read.append(content)
    return read


def read_one(kind: str, value: str, part: Part, service: Service) -> Content:
    """Read one part as an input.

    Raises:
        Refusal: it cannot be used.
    """
    try:
        content = read_content(kind, value, service.options(kind, part.options), part.model_dump(), service.root)
    except ValueError as error:
        raise Refusal(422, str(error)) from None
    if isinstance(content, Failure):
        raise Refusal(422, content.reason)
    return content


def query_request(parts: Sequence[Part], read: Sequence[Content | str], sources: Iterable[str | Stretch]) -> tuple[QueryRequest, str]:
    """Return the request of a query and its name, as the commands print it.

    Args:
        read: from `read_parts`. sources: from `spooled`, of the inputs among them.
    """
    left = iter(sources)
    kinds = [(LIKE, one) if isinstance(one, str) else (one.modality, next(left)) for one in read]
    names = [(kind, one if isinstance(one, str) else one.name) for (kind, _), one in zip(kinds, read, strict=True)]
    weights = [part.weight for part in parts]
    given = None if set(weights) == {1.0} else weights
    return combined_request(kinds, given), describe(names, given)


def part_options(read: Sequence[Content | str]) -> dict[str, object]:
    """Return the reading options of a query's files, by name.

    Raises:
        Refusal: two files want different values of one.
    """
    options: dict[str, object] = {}
    for content in read:
        for name, value in content.options.choices().items() if isinstance(content, Content) else ():
            if options.setdefault(name, value) != value:
                raise Refusal(422, f"{name}: two parts of the query give different values")
    return options


class Heard(Listener):
    """Keeps what is reported: failures by id, and remarks by the id of what they are about."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}
        self.remarked: dict[str, list[str]] = {}

    def failure(self, id: str, reason: str) -> None:
        """Keep why something failed."""
        self.reasons[id] = reason

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Keep what was assumed, and what was lost."""
        self.remarked.setdefault(id, []).extend((*notes, *warnings))

    def notes(self, ids: Iterable[str]) -> list[str]:
        """Return the remarks about some things, each once."""
        return list(dict.fromkeys(note for id in ids for note in self.remarked.get(id, ())))
