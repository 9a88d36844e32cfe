"""The search page at `/`, one file with its style and script inside, and the list of all requests at `/docs`. Neither loads anything else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

from imagebind_cli.pages.base import STYLE, document, escape, table

METHODS = ("get", "post")
OBJECTS = ("Part", "StoredFile")  # in bodies


def page_routes(api: FastAPI) -> APIRouter:
    """Return the routes for people. api: whose requests are listed."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/", response_class=HTMLResponse)
    def page() -> HTMLResponse:
        """Return the search page."""
        return HTMLResponse(*search_page())

    @routes.get("/docs", response_class=HTMLResponse)
    def docs() -> HTMLResponse:
        """List all requests."""
        return HTMLResponse(requests_page(api.openapi()))

    return routes


@cache
def search_page() -> tuple[str, int, dict[str, str]]:
    """Return the page, its status and its headers: a policy that runs the script inside, and nothing else."""
    content = (resources.files("imagebind_cli.server") / "page.html").read_text("utf-8").replace("/* the style of all pages */", STYLE)
    script, style = (_hash(content, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data: blob:; media-src data: blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, 200, {"Content-Security-Policy": policy, "Permissions-Policy": "camera=(self), microphone=(self)"}


def _hash(content: str, tag: str) -> str:
    """Return the source expression of the one element of a tag, by its hash."""
    (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"


def requests_page(schema: Mapping[str, Any]) -> str:
    """Return a page of all requests in an OpenAPI document."""
    return document("imagebind: requests", re.sub(r"`([^`]+)`", r"<code>\1</code>", "".join(_operations(schema))))


def _operations(schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"<p>{escape(schema['info']['description'])} The same for programs: <a href='/openapi.json'>openapi.json</a>.</p>"
    for path, methods in schema["paths"].items():
        for method in METHODS:
            if method in methods:
                yield from _operation(path, method, methods[method], schema)
    for name in OBJECTS:
        entry = schema["components"]["schemas"][name]
        yield f"<section><h2>{name}</h2><p>{escape(entry.get('description', ''))}</p>{_keys(entry)}</section>"


def _operation(path: str, method: str, operation: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"<section><h2>{method.upper()} {escape(path)}</h2><p>{escape(operation.get('description', operation.get('summary', '')))}</p>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        yield _keys(_resolved(body, schema))
    yield "</section>"


def _keys(entry: Mapping[str, Any]) -> str:
    """Return a table of the keys of an object."""
    needed = entry.get("required", [])
    rows = [
        (name + (" (needed)" if name in needed else ""), _kind(one), _default(one), one.get("description", ""))
        for name, one in entry.get("properties", {}).items()
    ]
    return f'<div class="wide">{table(("key", "value", "default", "meaning"), rows, words=(0, 1, 2, 3))}</div>'


def _resolved(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(entry.get("$ref", "")).removeprefix("#/components/schemas/")
    found: Mapping[str, Any] = schema["components"]["schemas"][name] if name else entry
    return found


def _kind(entry: Mapping[str, Any]) -> str:
    """Say in words what a key takes."""
    if "anyOf" in entry:
        return " or ".join(_kind(one) for one in entry["anyOf"] if one.get("type") != "null")
    if "$ref" in entry:
        return str(entry["$ref"]).rpartition("/")[2]
    if "enum" in entry:
        return " or ".join(map(str, entry["enum"]))
    if entry.get("type") == "array":
        return f"list of {_kind(entry.get('items', {}))}"
    return str(entry.get("type", "anything"))


def _default(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry["default"]) if entry.get("default") is not None else ""
