"""The bodies of requests: JSON of limited depth, checked against its model, with one line about whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, create_model

from imagebind_cli.documents import parse_json
from imagebind_cli.printable import printable
from imagebind_cli.registry import MODALITIES, TEXT
from imagebind_cli.server.limits import Refusal

Pooling = Annotated[Literal["mean", "none"], Field(description="One vector for each input, or (none) one for each of its windows.")]
Options = Annotated[
    Mapping[str, Any], Field(description="Reading options of the modality, as the flags of `imagebind embed`: `clips`, `depth_format`, …")
]
Sentence = Annotated[str | list[str], Field(description="A sentence, or several.")]
File = Annotated[str, Field(description="A `data:` address, base64, or with --root `file:NAME`.")]


class Body(BaseModel):
    """The base of all bodies: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


class PartBase(Body):
    """A part of a query but for its keys named as modalities are."""

    like: Annotated[str | None, Field(description="The id of an item of the stores, `ID@SECONDS` or `ID#START-END`.")] = None
    weight: Annotated[FiniteFloat, Field(description="Weight; below 0 to subtract it.")] = 1.0
    options: Options = Field(default_factory=dict)
    start: FiniteFloat | None = None
    end: FiniteFloat | None = None
    name: Annotated[str | None, Field(description="Its name in the answers.")] = None

    def kind(self) -> tuple[str, str]:
        """Return what it is, and its value.

        Raises:
            Refusal: it is nothing, or several things.
        """
        kinds = [name for name in PART_KINDS if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise Refusal(422, f"a part of a query is one of {', '.join(PART_KINDS)}; this one has {', '.join(kinds) or 'none of them'}")
        return kinds[0], getattr(self, kinds[0])


if TYPE_CHECKING:
    Part = PartBase
else:
    Part = create_model(
        "Part",
        __base__=PartBase,
        __doc__="A part of a query: a sentence, a file, or an item of the stores; and how much it counts.",
        **{name: ((str if name == TEXT else File) | None, None) for name in MODALITIES},
    )
PART_KINDS = (*sorted(MODALITIES, key=lambda name: name != TEXT), "like")  # the sentence first
Query = Annotated[str | Part | list[Part], Field(description="A sentence, a part, or parts that are combined by their weights.")]


def parts_of(query: str | Part | list[Part]) -> list[Part]:
    """Return the parts of a query.

    Raises:
        Refusal: there are none.
    """
    parts = [Part.model_validate({TEXT: query})] if isinstance(query, str) else [query] if isinstance(query, Part) else query
    if not parts:
        raise Refusal(422, "query: at least one part is needed")
    return parts


class JSONRoute(APIRoute):
    """A route that parses its body by `documents.parse_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_JSONRequest(request.scope, request.receive))

        return handle


class _JSONRequest(Request):
    async def json(self) -> Any:
        return read_json_body(await self.body())


def read_json_body(body: bytes) -> Any:
    """Parse a body; an empty one is None.

    Raises:
        Refusal: it is not JSON, or too deep.
    """
    try:
        return parse_json(body) if body else None
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None


def fault_line(error: RequestValidationError | ValidationError) -> str:
    """Return what is wrong with a body in one line: the place, and what is needed there."""
    faults = error.errors()
    first = max(faults, key=lambda fault: len(fault["loc"]))  # of a union's cases, the one that came farthest
    *above, last = first["loc"][first["loc"][:1] == ("body",) :] or ("",)
    unknown = first["type"] == "extra_forbidden"
    names = [name for name in above if not _is_case(name)] + ([last] if unknown or not _is_case(last) else [])
    place = printable(".".join(map(str, names)) or "the body")
    if unknown:
        return f"{place}: no such key here"
    if first["type"] in ("model_attributes_type", "model_type"):
        return f"{place}: an object is needed"
    what = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {what[:1].lower()}{what[1:]}"


def _is_case(name: str | int) -> bool:
    """Check whether a part of a place is the name of a union's case, as `Part` or `list[str]`, and not of a key, all of which are lower-case."""
    return isinstance(name, str) and (name in ("", "str") or name[:1].isupper() or name.endswith("]"))
