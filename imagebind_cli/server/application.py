"""`app`: the server as an ASGI application, with all its routes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from imagebind_cli.errors import UserError
from imagebind_cli.server.bodies import fault_line
from imagebind_cli.server.classifying import class_routes
from imagebind_cli.server.embeddings import PATHS, answer_embeddings, embedding_routes
from imagebind_cli.server.grounding import grounding_routes
from imagebind_cli.server.guard import Guard, error_body
from imagebind_cli.server.limits import Limits
from imagebind_cli.server.page import page_routes
from imagebind_cli.server.searching import search_routes
from imagebind_cli.server.service import Service
from imagebind_cli.server.stored_files import picture_routes
from imagebind_cli.server.weaviate import weaviate_routes
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from imagebind_cli.model import Model

LOG = logging.getLogger(__name__)
PROMETHEUS = "text/plain; version=0.0.4"


def app(
    model: Model | Space | str | None = None,
    stores: Sequence[str | Path] = (),
    *,
    root: str | Path | None = None,
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    index: str | None = None,
    limits: Limits | None = None,
) -> Guard:
    """Return the server as an ASGI application, for uvicorn or any other.

    Args:
        model: a model, its name, or a `Space` that says on which device it runs; that of the stores if None, else the default.
        stores: what is searched; all of one model. index: as `retrieval.Finder` takes it.
        root: the one folder whose files requests may name and the page shows; none of the disk if None.
        token: that requests must carry; None for none. hosts: the names that requests may call the server by; None for any.
        limits: what requests may take.
    Raises:
        UserError: no such model, store or folder, or stores of another model.
    """
    space, limits = model if isinstance(model, Space) else Space(model), limits or Limits()
    service = Service(space, stores, index, None if root is None else Path(root), limits)

    @asynccontextmanager
    async def life(api: FastAPI) -> AsyncIterator[None]:
        yield
        service.lanes.close()

    api = FastAPI(
        title="imagebind",
        version=metadata.version("imagebind-cli"),
        description="Unit vectors of text, image, video, audio, depth, thermal and IMU in one space, and search in stores of them.",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )
    for routes in (embedding_routes, search_routes, class_routes, grounding_routes, picture_routes, weaviate_routes, _counts):
        api.include_router(routes(service))
    api.include_router(page_routes(api))
    for kind in (HTTPException, RequestValidationError, UserError, Exception):
        api.add_exception_handler(kind, _explain)

    def answered(scope: Any, status: int, seconds: float) -> None:
        route = scope.get("route")
        service.counts.answered(getattr(route, "path", "other"), status, seconds)

    return Guard(_Direct(api, service), limits, token, None if hosts is None else tuple(dict.fromkeys(hosts)), answered)


class _Direct:
    """Answers requests for embeddings, and passes others on: the layers of FastAPI would take as long as a sentence."""

    def __init__(self, api: FastAPI, service: Service) -> None:
        self._api, self._service = api, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in PATHS:
            await self._api(scope, receive, send)
            return
        scope["route"] = SimpleNamespace(path=scope["path"])
        request = Request(scope, receive)
        try:
            response = await answer_embeddings(await request.body(), self._service)
        except Exception as error:
            response = await _explain(request, error)
            await response(scope, receive, send)
            if response.status_code == 500:
                raise
        else:
            await response(scope, receive, send)


def _counts(service: Service) -> APIRouter:
    routes = APIRouter(tags=["Operation"])

    @routes.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Return counts of requests, inputs, batches and memory in the text form of Prometheus."""
        return Response(service.counts.as_text(), media_type=PROMETHEUS)

    return routes


async def _explain(request: Request, error: Exception) -> Response:
    """Answer a request that is not carried out with the reason; that of a bug is in the log."""
    headers = None
    if isinstance(error, HTTPException):
        status, reason, headers = error.status_code, str(error.detail), error.headers
    elif isinstance(error, RequestValidationError | ValidationError):
        status, reason = 422, fault_line(error)
    elif isinstance(error, UserError):
        status, reason = 422, str(error)
    else:
        status, reason = 500, "an error of the server; its log has more"
    return JSONResponse(error_body(request.url.path, status, reason), status, headers)
