"""The files behind the rows of served stores: which one may be read, and its small picture and sound for the page."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from imagebind_cli import registry
from imagebind_cli.options.drawn import REGION_OPTIONS
from imagebind_cli.pages.pictures import Picture, picture
from imagebind_cli.retrieval.stored_items import stored_exhibit
from imagebind_cli.server.bodies import Body, JSONRoute, Part
from imagebind_cli.server.contents import Content
from imagebind_cli.server.limits import Refusal
from imagebind_cli.server.service import Service
from imagebind_cli.server.spool import read_one, spooled
from imagebind_cli.sources import Stretch, reason, whole_source

UNKEPT = -1  # in place of a file's time: its picture is not shown again

Span = tuple[float, float] | None


class StoredFile(Body):
    """A row of a store, and so its file."""

    store: Annotated[int, Field(ge=0, description="Number of the store, as in the `places` of a search.")]
    row: Annotated[int, Field(ge=0)]


def stored_file(service: Service, place: StoredFile) -> Content:
    """Return the file of a row as an input.

    Raises:
        Refusal: there is no such row, or its file is not below the server's root.
    """
    modality, source, _, options = _found(service, place)
    path = whole_source(source)
    if registry.face(modality).text:
        return Content(modality, path, registry.face(modality).read_options({}), path)
    if service.root is None:
        raise Refusal(403, "this server reads no files: it was started without --root")
    try:
        found = service.root.path(path)
    except ValueError as error:
        raise Refusal(404, str(error)) from None
    face = registry.face(modality)
    names = set(face.option_names()).difference(REGION_OPTIONS)  # the file is looked at whole, also where the row is of a region
    known = {name: value for name, value in options.items() if name in names}
    times = (source.start, source.end) if isinstance(source, Stretch) else (None, None)
    return Content(modality, found, face.read_options(known), path, *times)


def _found(service: Service, place: StoredFile) -> tuple[str, str | Stretch, Span, dict[str, Any]]:
    reader = service.stores.reader(place.store)
    if place.row >= len(reader):
        raise Refusal(404, f"store {place.store} has {len(reader):,} rows, and no row {place.row}")
    exhibit = stored_exhibit(reader, place.row)
    return exhibit.kind, exhibit.source, exhibit.span, dict(reader.provenance.get("options", {}))


def picture_routes(service: Service) -> APIRouter:
    """Return the routes that show files."""
    routes = APIRouter(route_class=JSONRoute, tags=["Page"])

    @routes.get("/picture/{store}/{row}")
    async def stored_picture(store: int, row: int) -> dict[str, Any]:
        """Show the file of a row: a small picture and its sound as `data:` addresses, or its sentence; of files below --root alone."""
        place = StoredFile.model_construct(store=store, row=row)
        if store < 0 or row < 0:
            raise Refusal(404, "no such row")
        modality, _, span, options = await run_in_threadpool(_found, service, place)
        content = await run_in_threadpool(stored_file, service, place)
        if registry.face(modality).text:
            return {"text": content.payload}
        span = span or (None if content.start is None else (content.start, content.end or content.start + 10.0))
        changed = content.payload.stat().st_mtime_ns if not isinstance(content.payload, str | bytes) else 0
        arguments = (modality, str(content.payload), span, tuple(sorted(options.items())), changed)
        return await service.answer("pictures", _show, "", arguments)  # type: ignore[no-any-return]

    @routes.post("/picture")
    async def sent_picture(part: Part) -> dict[str, Any]:
        """Show a file that is sent: a small picture and its sound as `data:` addresses."""
        content = await run_in_threadpool(read_one, *part.kind(), part, service)
        if registry.face(content.modality).text:
            return {"text": content.payload}
        async with spooled([content], service.limits) as (source,):
            chosen = tuple(sorted(content.options.choices().items()))
            arguments = (content.modality, str(whole_source(source)), None, chosen, UNKEPT)
            return await service.answer("pictures", _show, "", arguments)  # type: ignore[no-any-return]

    return routes


def _show(key: object, wanted: list[tuple[str, str, Span, tuple[tuple[str, Any], ...], int]]) -> Any:
    for one in wanted:
        try:
            shown = _shown.__wrapped__(*one) if one[-1] == UNKEPT else _shown(*one)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot be shown: {reason(error)}") from None
        yield {"image": shown.image, "sound": shown.sound, "about": shown.about}


@lru_cache(maxsize=256)
def _shown(modality: str, path: str, span: Span, options: tuple[tuple[str, Any], ...], changed: int) -> Picture:
    """Return a picture. changed: when its file was, so that a new one is not taken for it."""
    return picture(modality, path, span, dict(options))
