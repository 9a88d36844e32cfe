"""The contract of Weaviate's module `multi2vec-bind`, so that it can be pointed here.

`POST /vectorize` takes lists of sentences and of files in base64, and answers with a list of vectors for each; `GET /meta` describes the
model; `GET /.well-known/ready` and `live` answer 204. An error is `{"error": "…"}`, and one bad input fails the request, since the contract
has no place for an error of one.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from imagebind_cli.embedding import Embedded
from imagebind_cli.errors import UserError
from imagebind_cli.server.bodies import Body, JSONRoute
from imagebind_cli.server.contents import Content, read_content
from imagebind_cli.server.limits import Refusal
from imagebind_cli.server.service import Service, result_of
from imagebind_cli.sources import Failure

# A key of the request: the modality of its entries, and the key of their vectors in the answer.
KEYS = {
    "texts": ("text", "textVectors"),
    "images": ("image", "imageVectors"),
    "audio": ("audio", "audioVectors"),
    "video": ("video", "videoVectors"),
    "imu": ("imu", "imuVectors"),
    "thermal": ("thermal", "thermalVectors"),
    "depth": ("depth", "depthVectors"),
}


class VectorizeRequest(Body):
    """Sentences, and files in base64."""

    texts: list[str] | None = None
    images: list[str] | None = None
    audio: list[str] | None = None
    video: list[str] | None = None
    imu: list[str] | None = None
    thermal: list[str] | None = None
    depth: list[str] | None = None


def weaviate_routes(service: Service) -> APIRouter:
    """Return the routes that Weaviate asks."""
    routes = APIRouter(route_class=JSONRoute, tags=["Weaviate"])

    @routes.post("/vectorize")
    async def vectorize(request: VectorizeRequest) -> dict[str, list[list[float]]]:
        """Embed sentences and files to unit vectors, for Weaviate's module multi2vec-bind."""
        named = await run_in_threadpool(_read, request, service)
        results = [result_of(outcome) for outcome in await service.embed([content for _, content in named])]
        answer: dict[str, list[list[float]]] = {vectors: [] for _, vectors in KEYS.values()}
        for (key, _), result in zip(named, results, strict=True):
            if not isinstance(result, Embedded):
                number = len(answer[KEYS[key][1]])
                raise Refusal(422, f"{key}[{number}]: {result.reason}")
            answer[KEYS[key][1]].append([float(f"{value:.9g}") for value in result.embeddings[0].vector.tolist()])
        return answer

    @routes.get("/meta")
    def meta() -> dict[str, Any]:
        """Describe the model."""
        model = service.model
        return {"model": model.name, "family": model.family, "dim": model.dim, "version": metadata.version("imagebind-cli")}

    @routes.get("/.well-known/ready", status_code=204)
    @routes.get("/.well-known/live", status_code=204)
    def ready() -> None:
        """Answer once the server takes requests."""

    return routes


def _read(request: VectorizeRequest, service: Service) -> list[tuple[str, Content | Failure]]:
    named: list[tuple[str, Content | Failure]] = []
    for key, (modality, _) in KEYS.items():
        for number, value in enumerate(getattr(request, key) or []):
            try:
                content = read_content(modality, value, service.options(modality, {}), {})
            except (ValueError, UserError) as error:
                raise Refusal(422, f"{key}[{number}]: {error}") from None
            named.append((key, content))
    if len(named) > service.limits.items:
        raise Refusal(413, f"{len(named):,} inputs; at most {service.limits.items:,} in one request")
    return named
