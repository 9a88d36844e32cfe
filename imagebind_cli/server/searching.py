"""`POST /search`: what in the stores is nearest to a query, as `imagebind retrieve` answers; and the stores that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, FiniteFloat

from imagebind_cli.retrieval.requests import QueryRequest, describe
from imagebind_cli.retrieval.search import Hit, join_windows
from imagebind_cli.server.bodies import Body, JSONRoute, Query, parts_of
from imagebind_cli.server.contents import Content
from imagebind_cli.server.limits import Refusal
from imagebind_cli.server.service import Service
from imagebind_cli.server.spool import Heard, part_options, query_request, read_parts, spooled

MOST_ANSWERS = 1000

Names = Annotated[list[str], Field(description="Names of stores, as `GET /stores` lists them; all if there are none.")]


class SearchRequest(Body):
    """A query, and how it is answered: the options of `imagebind retrieve`."""

    query: Query
    k: Annotated[int, Field(ge=1, le=MOST_ANSWERS, description="Answers.")] = 10
    threshold: Annotated[FiniteFloat | None, Field(description="Leave out answers with a lower cosine.")] = None
    modalities: Annotated[list[str], Field(description="Search only stores of these.")] = Field(default_factory=list)
    stores: Names = Field(default_factory=list)
    per_modality: Annotated[bool, Field(description="`k` answers of each modality.")] = False
    stretches: Annotated[bool, Field(description="Join answers that are neighbouring windows of a recording.")] = False


class _Key(NamedTuple):
    """The settings that searches share which are answered together."""

    stores: tuple[int, ...]
    k: int
    threshold: float
    per_modality: bool
    stretches: bool


class _Asked(NamedTuple):
    request: QueryRequest
    name: str
    options: Mapping[str, Any] = MappingProxyType({})


def search_routes(service: Service) -> APIRouter:
    """Return the routes that search."""
    routes = APIRouter(route_class=JSONRoute, tags=["Search"])

    @routes.post("/search")
    async def search(request: SearchRequest) -> dict[str, Any]:
        """Find the rows of the stores nearest to a query, best first.

        `results` holds the lines of `imagebind retrieve`; `places` the store and the row of each, for `/picture`; `notes` what was assumed.
        """
        numbers = await run_in_threadpool(service.stores.chosen, request.stores, request.modalities)
        parts = parts_of(request.query)
        if len(parts) > service.limits.items:
            raise Refusal(413, f"{len(parts):,} parts; at most {service.limits.items:,} in one query")
        read = await run_in_threadpool(read_parts, parts, service)
        async with spooled([content for content in read if isinstance(content, Content)], service.limits) as sources:
            asked = _Asked(*query_request(parts, read, sources), part_options(read))
            threshold = float("-inf") if request.threshold is None else request.threshold
            key = _Key(numbers, request.k, threshold, request.per_modality, request.stretches)
            together = (key, frozenset(asked.options.items()))
            answer: dict[str, Any] = await service.answer("search", _Searcher(service), together, asked)
        return answer

    @routes.get("/stores")
    def stores() -> dict[str, Any]:
        """List the stores that are searched."""
        named = zip(service.stores.names, service.stores.readers, strict=True)
        return {"stores": [{"name": name, "modality": reader.modality, "rows": len(reader)} for name, reader in named]}

    return routes


class _Searcher:
    """Answers searches of one key together; equal to another of the same service, so that their batches are one."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Searcher) and other._service is self._service

    def __hash__(self) -> int:
        return id(self._service)

    def __call__(self, together: tuple[_Key, Any], asked: list[_Asked]) -> Iterator[dict[str, Any]]:
        key, _ = together
        finder, heard = self._service.stores.finder(key.stores, asked[0].options), Heard()
        requests = [replace(one.request, id=str(number)) for number, one in enumerate(asked)]
        answers = finder.answer(requests, key.k, per_modality=key.per_modality, threshold=key.threshold, listener=heard)
        found = {int(query.id): join_windows(hits) if key.stretches else hits for query, hits in answers}
        numbers = {id(store): number for number, store in zip(key.stores, finder.stores, strict=True)}
        for number, one in enumerate(asked):
            if number not in found:
                raise ValueError(heard.reasons.get(str(number), "not answered"))
            ids = [describe([part]) for part in one.request.parts]
            yield _answer(found[number], one.name, numbers, heard.notes([*ids, *(str(store.path) for store in finder.stores)]))


def _answer(hits: list[Hit], name: str, numbers: Mapping[int, int], notes: list[str]) -> dict[str, Any]:
    return {
        "results": [hit.as_json(name) for hit in hits],
        "places": [{"store": numbers[id(hit.store)], "row": hit.row} for hit in hits],
        "notes": notes,
    }
