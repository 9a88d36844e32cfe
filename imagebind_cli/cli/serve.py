"""`imagebind serve`: embeddings and search over HTTP, with a search page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from imagebind_cli.cli.command import HeadedCommand, single_command
from imagebind_cli.cli.flags import TOKEN, BatchSize, Config, Device, Dtype, ModelName, Precision, Workers
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.output import write
from imagebind_cli.cli.retrieve import Index
from imagebind_cli.cli.talk import say
from imagebind_cli.errors import UsageError
from imagebind_cli.libraries import require
from imagebind_cli.space import Space

HELP = """Serve embeddings, search and a search page over HTTP until it is stopped; its address goes to stdout.

Other programs send POST /v1/embeddings as to OpenAI, Infinity, Jina or vLLM; /docs lists all requests. Needs the extra `serve`.

\b
    imagebind serve                                  # embeddings alone, at http://127.0.0.1:8000
    imagebind serve photos.h5 sounds.h5 --root .     # and a page at / that searches these stores and shows their files
    imagebind embed text "a dog" --server http://127.0.0.1:8000
"""

server_option = partial(typer.Option, rich_help_panel="Server")
limit_option = partial(typer.Option, rich_help_panel="Limits")

MB = 1 << 20
PACKAGES = ("fastapi", "uvicorn")


def serve_command(
    stores: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STORE]...", help="Stores of one model to search; a pattern in quotes is one store.", show_default=False),
    ] = None,
    host: Annotated[str, server_option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, server_option("-p", "--port", metavar="N", min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8000,
    token: Annotated[
        str | None, server_option(envvar=TOKEN, metavar="TOKEN", help="Token that requests must carry; better set by IMAGEBIND_TOKEN.")
    ] = None,
    root: Annotated[
        Path | None, server_option(metavar="FOLDER", help="Folder whose files requests may name and the page shows. Default: none.")
    ] = None,
    index: Annotated[
        Index | None,
        server_option(help="Search with a file beside each store, made if missing: int8 and flat exactly, the others approximately."),
    ] = None,
    max_body: Annotated[int, limit_option("--max-body", metavar="MB", min=1, help="Largest size of a request.")] = 64,
    max_items: Annotated[int, limit_option("--max-items", metavar="N", min=1, help="Largest number of inputs in a request.")] = 256,
    max_pixels: Annotated[
        float, limit_option("--max-pixels", metavar="MILLIONS", min=0.001, help="Largest size of a picture, unpacked.")
    ] = 50.0,
    item_timeout: Annotated[
        float, limit_option("--item-timeout", metavar="SECONDS", min=0.1, help="Time limit for reading one input.")
    ] = 60.0,
    timeout: Annotated[float, limit_option("--timeout", metavar="SECONDS", min=1, help="Time limit from a request to its answer.")] = 120.0,
    model: ModelName = None,
    config: Config = None,
    device: Device = "auto",
    dtype: Precision = Dtype.auto,
    batch_size: BatchSize = None,
    workers: Workers = None,
) -> None:
    """Serve until a signal."""
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token and token):
        raise UsageError("--token: printable ASCII characters are needed, without spaces around them")
    for package in PACKAGES:
        require(package, "imagebind serve")

    from imagebind_cli.server.application import app
    from imagebind_cli.server.guard import LOCAL_NAMES, is_loopback
    from imagebind_cli.server.limits import Limits
    from imagebind_cli.server.process import address_of, open_socket, run

    opened = open_socket(host, port)
    limits = Limits(max_body * MB, max_items, int(max_pixels * 1e6), item_timeout, timeout)
    space = Space(model, config, device, str(dtype), batch_size, workers, say, keep_freed_memory)
    served = app(
        space,
        stores or (),
        root=root,
        token=token,
        hosts=(*LOCAL_NAMES, host) if is_loopback(host) else None,
        index=index and str(index),
        limits=limits,
    )
    if token is None and not is_loopback(host):
        say(f"listening on {host} without --token: anyone who can reach this port may use it")

    def ready(stop: Callable[[], None]) -> None:
        say(f"serving {space.loaded.name} at {address_of(opened)}; Ctrl-C ends it")
        write(f"{address_of(opened)}\n".encode())

    run(served, opened, ready, timeout)


app = single_command("serve", serve_command, cls=HeadedCommand, help=HELP)
