"""Requests for embeddings in the dialects that are in use: OpenAI's, Infinity's, Jina's and vLLM's.

OpenAI      {"input": "a sentence" | [sentences]}
Infinity    {"modality": "audio", "input": ["data:audio/wav;base64,…"]}
Jina        {"input": [{"text": "a sentence"}, {"image": "data: address or base64"}]}
vLLM        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:…"}}]}]}, one vector for all parts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.server.bodies import Options, Pooling
from imagebind_cli.server.contents import Content, read_content
from imagebind_cli.server.limits import Refusal
from imagebind_cli.server.service import Service
from imagebind_cli.sources import Failure

SUFFIX = "_url"  # of a part's type in vLLM's messages: image_url, audio_url, …
ABOUT = frozenset({"options", "start", "end", "name"})  # keys beside a modality in one of Jina's items
MEANINGLESS = frozenset({"user", "normalized"})  # vectors are unit vectors anyway


class EmbeddingsRequest(BaseModel):
    """Inputs to embed. Keys of other servers that have no effect here are named in the answer's `notes`."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str | None, Field(description="The model that is served, if anything.")] = None
    input: Annotated[
        str | list[Any] | None,
        Field(
            description="A sentence, or with `modality` a file as a `data:` address or base64; or a list of these, or of objects as "
            '`{"image": "data:image/png;base64,…"}` with a modality as key, and `options`, `start`, `end`, `name` beside it.'
        ),
    ] = None
    messages: Annotated[
        list[dict[str, Any]] | None,
        Field(description="In place of `input`: messages as vLLM takes them, whose parts become one vector, the unit vector of their sum."),
    ] = None
    modality: Annotated[str | None, Field(description="What strings in `input` are: text if not given.")] = None
    encoding_format: Annotated[Literal["float", "base64"] | None, Field(description="Numbers, or little-endian float32 in base64.")] = None
    embedding_type: Annotated[Literal["float", "base64"] | None, Field(description="The same, as Jina calls it.")] = None
    dimensions: Annotated[int | None, Field(description="The length of the vectors, which cannot be chosen.")] = None
    pool: Pooling = "mean"
    options: Options = Field(default_factory=dict)

    @property
    def in_base64(self) -> bool:
        """Check whether vectors are wanted in base64."""
        return "base64" in (self.encoding_format, self.embedding_type)


@dataclass(frozen=True)
class EmbeddingsOrder:
    """A request for vectors. contents: by index. combined: whether all become one vector. notes: what of the request has no effect."""

    contents: list[Content | Failure]
    combined: bool
    notes: list[str]


def read_order(request: EmbeddingsRequest, service: Service) -> EmbeddingsOrder:
    """Read a request in any of the dialects. An input that cannot be used is a failure in its place.

    Raises:
        Refusal: another model or length is wanted, or there are no inputs, too many, or both kinds of them.
    """
    check_model(request.model, service)
    if request.dimensions not in (None, service.model.dim):
        raise Refusal(400, f"dimensions: vectors of this model have {service.model.dim}; shorter ones are not offered")
    if (request.input is None) == (request.messages is None):
        raise Refusal(422, "give input or messages" if request.input is None else "give input or messages, not both")
    notes = [f"{name} has no effect here" for name in request.model_extra or {} if name not in MEANINGLESS]
    modality = request.modality or registry.TEXT
    given = [(modality, request.input, {})] if isinstance(request.input, str) else request.input or []
    if request.messages is not None:
        given = list(_message_parts(request.messages, notes))
        if request.pool != "mean":
            raise Refusal(422, "messages become one vector; pool none is for input")
    contents = read_inputs(given, modality, request.options, service)
    return EmbeddingsOrder(contents, request.messages is not None, notes)


def read_inputs(given: Sequence[Any], modality: str, options: Mapping[str, Any], service: Service) -> list[Content | Failure]:
    """Read the inputs of a request: strings of a modality, objects with one as key, or such entries taken apart.

    Args:
        options: for all; an input's own count more.
    Returns:
        Each input; a failure with the reason for one that cannot be used.
    Raises:
        Refusal: there are none, or too many.
    """
    if not given:
        raise Refusal(422, "no inputs")
    if len(given) > service.limits.items:
        raise Refusal(413, f"{len(given):,} inputs; at most {service.limits.items:,} in one request")
    return [_read(entry, modality, options, service) for entry in given]


def check_model(name: str | None, service: Service) -> None:
    """Refuse a request for another model than the one that is served.

    Raises:
        Refusal: it is for another.
    """
    if name not in (None, "", "imagebind", service.model.name):
        raise Refusal(404, f"no model {name!r:.80} here; this server has {service.model.name!r}")


Entry = tuple[str, Any, Mapping[str, Any]]  # a modality, its value, and what is said about it


def _read(entry: Any, modality: str, options: Mapping[str, Any], service: Service) -> Content | Failure:
    """Read one input; a failure with the reason if it cannot be used."""
    try:
        kind, value, about = entry if isinstance(entry, tuple) else _entry(entry, modality)
        own = _mapping(about.get("options") or {})
        return read_content(kind, value, service.options(kind, {**options, **own}), about, service.root)
    except (ValueError, UserError) as error:
        return Failure("", str(error))


def _entry(entry: Any, modality: str) -> Entry:
    if isinstance(entry, str):
        return modality, entry, {}
    if isinstance(entry, int | list):
        raise ValueError("tokens are not taken; send the sentence")
    if not isinstance(entry, dict):
        raise ValueError(f"a string or an object is needed, not {type(entry).__name__}")
    kinds = [key for key in entry if key not in ABOUT]
    if len(kinds) != 1 or kinds[0] not in registry.MODALITIES:
        raise ValueError(f"one of {', '.join(registry.MODALITIES)} is needed as key; it has {', '.join(kinds)[:80] or 'none'}")
    return kinds[0], entry[kinds[0]], entry


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("options: an object of names and values is needed")
    return value


def _message_parts(messages: list[dict[str, Any]], notes: list[str]) -> Iterator[Entry]:
    """Yield the parts of messages of the user; what those of others say has no effect on an embedding."""
    for message in messages:
        if message.get("role", "user") != "user":
            notes.append(f"a message of role {str(message.get('role'))[:20]} has no effect here")
            continue
        content = message.get("content")
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content if isinstance(content, list) else []:
            yield _message_part(part)


def _message_part(part: Any) -> Entry:
    kind = part.get("type") if isinstance(part, dict) else None
    value = part.get(kind) if isinstance(kind, str) else None
    if kind == registry.TEXT:
        return registry.TEXT, value, {}
    if kind == "input_audio" and isinstance(value, dict):
        return "audio", value.get("data"), {}
    if isinstance(kind, str) and kind.endswith(SUFFIX):
        return kind.removesuffix(SUFFIX), value.get("url") if isinstance(value, dict) else value, {}
    raise Refusal(422, f"a part of type {str(kind)[:40]!r}; text, input_audio and MODALITY_url are known, as image_url")
