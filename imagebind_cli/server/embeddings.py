"""`POST /v1/embeddings` and the model behind it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field

from imagebind_cli import registry
from imagebind_cli.embedding import Embedded, Embedding
from imagebind_cli.server.bodies import Body, JSONRoute, Options, Pooling, read_json_body
from imagebind_cli.server.dialects import EmbeddingsOrder, EmbeddingsRequest, read_order
from imagebind_cli.server.guard import error_body
from imagebind_cli.server.service import Service
from imagebind_cli.similarity import combine
from imagebind_cli.sources import Failure, reason
from imagebind_cli.store import vector_line

PATHS = ("/v1/embeddings", "/embeddings")
LIGHT_BODY = 1 << 16  # bytes of a request that is read before it could be handed to another thread
LIGHT_ANSWER = 16  # vectors that are written before they could be handed to another thread


class ProvenanceRequest(Body):
    """A request for how vectors are made, as a store of them would record it."""

    modality: Annotated[str, Field(description="Of the inputs.")]
    options: Options = Field(default_factory=dict)
    pool: Pooling = "mean"


def embedding_routes(service: Service) -> APIRouter:
    """Return the routes that embed."""
    routes = APIRouter(route_class=JSONRoute, tags=["Embeddings"])

    @routes.post("/v1/embeddings", response_class=Response)
    @routes.post("/embeddings", response_class=Response, include_in_schema=False)
    async def embeddings(request: EmbeddingsRequest) -> Response:
        """Embed sentences and files to unit vectors.

        `data` has an entry for each input, by `index`, with `embedding`, `notes` on what was assumed and `warnings` on what was lost. One that
        cannot be used has an `error` in place of its vector; if none can be used, the status is 422. With `pool` none an input has an entry
        for each window, with `start` and `end` in seconds.
        """
        raise NotImplementedError  # answered by `answer_embeddings`; this describes it

    @routes.get("/v1/models")
    def models() -> dict[str, Any]:
        """Describe the model that is served, the modalities it takes, and the limits of requests."""
        return {"object": "list", "data": [_described(service)]}

    @routes.post("/provenance")
    def provenance(request: ProvenanceRequest) -> dict[str, Any]:
        """Return the record that a store of such vectors has: model, weights, options and what else makes vectors comparable."""
        face = registry.face(request.modality)
        record = service.model.record(request.modality, face.read_options(request.options), request.pool)
        return {name: value for name, value in record.items() if name != "folder"}  # of this machine

    return routes


async def answer_embeddings(body: bytes, service: Service) -> Response:
    """Answer a request for embeddings.

    Raises:
        ValidationError, Refusal, UserError: it is refused.
    """
    request = EmbeddingsRequest.model_validate(read_json_body(body))
    light = len(body) <= LIGHT_BODY
    order = read_order(request, service) if light else await run_in_threadpool(read_order, request, service)
    outcomes = await service.embed(order.contents, request.pool)
    answer = partial(_answer, outcomes, order, request.in_base64, service.model.name)
    return answer() if light and len(outcomes) <= LIGHT_ANSWER else await run_in_threadpool(answer)


def _described(service: Service) -> dict[str, Any]:
    model, limits = service.model, service.limits
    config = model.checkpoint.config
    faces = [name for name in registry.MODALITIES if registry.face(name).encoder in config.encoders]
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": model.family,
        "family": model.family,
        "dim": model.dim,
        "modalities": faces,
        "weights": {name: model.fingerprint(name) for name in faces},
        "untrained": model.checkpoint.untrained,
        "rounded": model.rounded,
        "trained_on": dict(model.trained_on),
        "licence": config.licence,
        "limits": {"body": limits.body, "items": limits.items},
    }


def _answer(outcomes: list[Any], order: EmbeddingsOrder, in_base64: bool, model: str) -> Response:
    results = [_failure_of(outcome) if isinstance(outcome, Exception) else outcome for outcome in outcomes]
    failures = [result for result in results if isinstance(result, Failure)]
    if failures and (order.combined or len(failures) == len(results)):
        number = results.index(failures[0])
        place = "" if len(results) == 1 else f"input {number}: "
        body = error_body("", 422, f"{place}{failures[0].reason}")
        return JSONResponse(body if order.combined else body | {"data": [json.loads(entry) for entry in _entries(results, False)]}, 422)
    entries = list(_combined(results, in_base64) if order.combined else _entries(results, in_base64))
    head = {"object": "list", "model": model, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
    head |= {"notes": order.notes} if order.notes else {}
    return Response(f'{json.dumps(head)[:-1]}, "data": [{", ".join(entries)}]}}', media_type="application/json")


def _failure_of(error: Exception) -> Failure:
    """Return what one input's exception says; one that is not about the input is raised."""
    if isinstance(error, ValueError | OSError) or type(error).__module__.startswith("imagebind_cli."):
        return Failure("", reason(error))
    raise error


def _entries(results: list[Embedded | Failure], in_base64: bool) -> Iterator[str]:
    for index, result in enumerate(results):
        if isinstance(result, Failure):
            error = {"message": result.reason, "type": "invalid_request_error", "code": 422}
            yield json.dumps({"object": "error", "index": index, "embedding": None, "error": error})
            continue
        for number, embedding in enumerate(result.embeddings):
            head = {"object": "embedding", "index": index} | _times(embedding)
            if number == 0:
                head |= {"notes": list(result.notes)} if result.notes else {}
                head |= {"warnings": list(result.warnings)} if result.warnings else {}
            yield _entry(head, embedding.vector, in_base64)


def _times(embedding: Embedding) -> dict[str, Any]:
    times: dict[str, Any] = {} if embedding.span is None else {"start": embedding.span[0], "end": embedding.span[1]}
    return times | ({} if embedding.clock is None else {"clock": embedding.clock})


def _combined(results: list[Embedded | Failure], in_base64: bool) -> Iterator[str]:
    embedded = [result for result in results if isinstance(result, Embedded)]
    notes = [note for result in embedded for note in result.notes]
    vector = combine(np.stack([result.embeddings[0].vector for result in embedded])).astype(np.float32)
    yield _entry({"object": "embedding", "index": 0} | ({"notes": notes} if notes else {}), vector, in_base64)


def _entry(head: dict[str, Any], vector: np.ndarray, in_base64: bool) -> str:
    if in_base64:  # not by `json.dumps`, which would look at each letter
        return f'{json.dumps(head)[:-1]}, "embedding": "{base64.b64encode(vector.astype("<f4").tobytes()).decode()}"}}'
    return vector_line(head, vector).decode().rstrip()
