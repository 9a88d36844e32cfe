"""`POST /locate` and `POST /moments`: where in an input a query is, and when in recordings, as the commands answer."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, FiniteFloat

from imagebind_cli.errors import UserError
from imagebind_cli.grounding.curves import MomentOptions
from imagebind_cli.grounding.locate import locate
from imagebind_cli.grounding.located import Located
from imagebind_cli.grounding.moments import HOP, MomentFinder
from imagebind_cli.pages.heat import draw_heat
from imagebind_cli.retrieval.requests import QueryRequest
from imagebind_cli.server.bodies import Body, JSONRoute, Part, Query, parts_of
from imagebind_cli.server.contents import Content
from imagebind_cli.server.limits import Refusal
from imagebind_cli.server.searching import MOST_ANSWERS, Names
from imagebind_cli.server.service import Service
from imagebind_cli.server.spool import Heard, part_options, query_request, read_one, read_parts, spooled
from imagebind_cli.server.stored_files import StoredFile, stored_file
from imagebind_cli.sources import Stretch, whole_source
from imagebind_cli.store import is_store

LARGEST_SIDE = 1024  # pixels that pictures may be encoded at: memory grows with the fourth power
SHOWN = 640  # pixels of a drawing


class LocateRequest(Body):
    """An input, a query, and how it is looked for: the options of `imagebind locate`."""

    input: Annotated[
        Part | StoredFile, Field(description='`{"image": "data:…"}`, or with --root a row of a store: `{"store": 0, "row": 7}`.')
    ]
    query: Query
    method: Literal["shares", "crops", "both"] = "shares"
    size: Annotated[int | None, Field(ge=1, le=LARGEST_SIDE, description="Encode pictures at this size.")] = None
    box: Annotated[bool, Field(description="Also a box around the peak.")] = False
    windows: Annotated[int, Field(ge=1, le=MOST_ANSWERS, description="Number of windows to list for a video.")] = 5
    picture: Annotated[bool, Field(description="Also the heat map over the input, as a `data:` address.")] = False


class MomentsRequest(Body):
    """A query on recordings: the options of `imagebind moments`."""

    query: Query
    stores: Names = Field(default_factory=list)
    recording: Annotated[Part | None, Field(description="A sound, a video or a table of motion, in place of the stores.")] = None
    against: Annotated[list[str], Field(description="Other names: scores are the cosine less the largest with them.")] = Field(
        default_factory=list
    )
    threshold: FiniteFloat | None = None
    min_length: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    join: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    k: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = 10
    hop: Annotated[FiniteFloat, Field(ge=0.1, description="Seconds between the windows of a recording.")] = HOP

    @property
    def options(self) -> MomentOptions:
        """Return what counts as a moment."""
        return MomentOptions(self.threshold, self.min_length, self.join, self.k)


class _Place(NamedTuple):
    """A request to locate: an input and a query, each with its name."""

    modality: str
    source: str | Stretch
    name: str
    options: Mapping[str, Any]
    request: QueryRequest
    query: str
    body: LocateRequest


class _Time(NamedTuple):
    """A query on stores, or on a recording with its modality and name."""

    stores: tuple[int, ...]
    recording: tuple[str, str, str] | None
    request: QueryRequest
    query: str
    options: Mapping[str, Any]
    body: MomentsRequest


def grounding_routes(service: Service) -> APIRouter:
    """Return the routes that say where and when."""
    routes = APIRouter(route_class=JSONRoute, tags=["Search"])

    def locate_one(key: object, places: list[_Place]) -> Iterator[dict[str, Any]]:
        for place in places:
            yield _located(service, place)

    def moments_of(key: object, times: list[_Time]) -> Iterator[dict[str, Any]]:
        for time in times:
            yield _moments(service, time)

    @routes.post("/locate")
    async def locate_in_input(request: LocateRequest) -> dict[str, Any]:
        """Find where a query is in a picture, a map, a video or a sound.

        `results` holds the line of `imagebind locate`, which also has the numbers for an empty query: a heat map always has a peak.
        """
        parts = parts_of(request.query)
        if any(part.like is not None for part in parts):
            raise Refusal(422, "like is an item of stores, in which /search and /moments look")
        read = await run_in_threadpool(read_parts, parts, service)
        if isinstance(request.input, Part):
            content = await run_in_threadpool(read_one, *request.input.kind(), request.input, service)
        else:
            content = await run_in_threadpool(stored_file, service, request.input)
        contents = [content, *(one for one in read if isinstance(one, Content))]
        async with spooled(contents, service.limits) as (source, *sources):
            asked = query_request(parts, read, sources)
            place = _Place(content.modality, source, content.name, content.options.choices(), *asked, request)
            answer: dict[str, Any] = await service.answer("locate", locate_one, "", place)
        return answer

    @routes.post("/moments")
    async def moments(request: MomentsRequest) -> dict[str, Any]:
        """Find when a query occurs in recordings: in stores of windows, or in a recording that is sent.

        `results` holds the lines of `imagebind moments`, best first.
        """
        parts = parts_of(request.query)
        read = await run_in_threadpool(read_parts, parts, service)
        contents = [one for one in read if isinstance(one, Content)]
        numbers: tuple[int, ...] = ()
        if request.recording is None:
            numbers = await run_in_threadpool(_windowed, service, request.stores)
        else:
            contents.append(await run_in_threadpool(read_one, *request.recording.kind(), request.recording, service))
        async with spooled(contents, service.limits) as sources:
            recording = None
            if request.recording is not None:
                recording = contents[-1].modality, str(whole_source(sources[-1])), contents[-1].name
                if isinstance(sources[-1], Stretch):
                    raise Refusal(422, "recording: start and end are not taken; send the part")
            asked = query_request(parts, read, sources)
            time = _Time(numbers, recording, *asked, part_options(read), request)
            answer: dict[str, Any] = await service.answer("moments", moments_of, "", time)
        return answer

    return routes


def _located(service: Service, place: _Place) -> dict[str, Any]:
    heard = Heard()
    body = place.body
    if isinstance(place.source, Stretch):
        raise ValueError("start and end are of queries here; send the part")
    found = locate(
        [place.source],
        place.modality,
        model=service.own_space(),
        method=body.method,
        size=body.size,
        requests=[place.request],
        reading=place.options,
        workers=1,
        item_timeout=service.limits.item_seconds,
        ground=body.picture,
        listener=heard,
    )
    located = next(found, None)
    if located is None:
        raise ValueError(next(iter(heard.reasons.values()), "not located"))
    answer: dict[str, Any] = {
        "results": [located.as_json(body.box, body.windows) | {"id": place.name, "query": place.query}],
        "notes": heard.notes(heard.remarked),
    }
    return answer | ({"picture": _drawn(located, body.box)} if body.picture else {})


def _drawn(located: Located, box: bool) -> str:
    file = io.BytesIO()
    draw_heat(located, box, SHOWN).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _windowed(service: Service, names: list[str]) -> tuple[int, ...]:
    """Return the numbers of the stores that have windows, of those that are named; all that are, if there are names."""
    numbers = service.stores.chosen(names)
    readers = service.stores.readers
    found = numbers if names else tuple(number for number in numbers if readers[number].spans is not None)
    if not found:
        raise Refusal(404, "no store here has windows; embed the recordings with --pool none --hop 1, or send one as `recording`")
    return found


def _moments(service: Service, time: _Time) -> dict[str, Any]:
    heard, body = Heard(), time.body
    readers = service.stores.readers if time.stores else []
    recordings: list[Any] = [readers[number] for number in time.stores] if time.recording is None else [time.recording[1]]
    options: dict[str, Any] = {"options": time.options, "against": body.against, "listener": heard}
    if time.recording is not None:
        options |= {"modality": time.recording[0], "hop": body.hop}
    if time.recording is not None and is_store(time.recording[1]):
        raise ValueError("a store of vectors, not a recording")
    try:
        with MomentFinder(recordings, space=service.own_space(), **options) as finder:
            rows = [hit.as_json(time.query) for answer in finder.answer([time.request], body.options) for hit in answer.hits]
    except UserError:
        if not heard.reasons:
            raise
    if heard.reasons:  # that of the recording says more than that nothing could be read
        raise ValueError(next(iter(heard.reasons.values())))
    if time.recording is not None:
        rows = [row | {"id": time.recording[2]} for row in rows]
    return {"results": rows, "notes": heard.notes(heard.remarked)}
