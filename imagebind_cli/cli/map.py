"""`imagebind store map`: what is in stores, laid out in two dimensions."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagebind_cli.cli.flags import Memory, parse_bytes
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import say
from imagebind_cli.errors import UsageError, writing

if TYPE_CHECKING:
    from imagebind_cli.insight.store_map import StoreMap

map_option = partial(typer.Option, rich_help_panel="Map")
DRAWINGS = (".html", ".svg")
LINES = 4096  # written at a time


def map_command(
    paths: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores of one model, or patterns in quotes.")],
    output: Annotated[
        list[Path] | None,
        map_option(
            "-o", "--output", metavar="FILE", help="NAME.html, .svg, .csv, .jsonl or .parquet. Repeatable. Default: JSON lines on stdout."
        ),
    ] = None,
    method: Annotated[
        str, map_option(metavar="pca|umap", help="Method of the map; UMAP needs an extra: pip install 'imagebind-cli[map]'.")
    ] = "pca",
    colour: Annotated[
        str | None,
        map_option(
            metavar="label:COLUMN|store|cluster",
            help="Grouping of the items; COLUMN of the manifest, folder, or a file. Default: store for several stores, else cluster.",
        ),
    ] = None,
    clusters: Annotated[int, map_option(metavar="N", min=1, help="Number of clusters for --colour cluster.")] = 10,
    draw: Annotated[
        int, map_option(metavar="N", min=1, help="Number of items that .html and .svg draw; of more, a random sample.")
    ] = 10_000,
    seed: Annotated[int, map_option(metavar="N", min=0, help="Seed of clusters, UMAP and the sample.")] = 0,
    memory: Memory = "1G",
) -> None:
    """Lay out what is in stores in two dimensions, by PCA or UMAP, each store centred on its own mean. No model is needed.

    \b
        imagebind store map photos.h5 -o map.html --colour label:folder
        imagebind store map photos.h5 sounds.h5 -o map.html -o map.csv
        imagebind store map photos.h5 --method umap --colour cluster | jq -r '[.id, .group] | @tsv'
    """
    endings = (*DRAWINGS, ".csv", ".jsonl", ".parquet")
    unknown = next((path for path in output or () if path.suffix.lower() not in endings), None)
    if unknown is not None:
        raise UsageError(f"{unknown}: unknown ending {unknown.suffix!r}; choose from {', '.join(endings)}")
    limit = parse_bytes(memory)

    from imagebind_cli.insight.map_table import map_lines
    from imagebind_cli.insight.store_map import map_stores
    from imagebind_cli.store.parquet import import_pyarrow

    if any(path.suffix.lower() == ".parquet" for path in output or ()):
        import_pyarrow()
    result = map_stores(paths, method, colour, clusters, limit, seed)
    say(result.about)
    for path in output or ():
        _write(result, path, draw, seed)
    if not output:
        lines = iter(map_lines(result))
        while part := list(islice(lines, LINES)):
            write(*part)


def _write(result: StoreMap, path: Path, draw: int, seed: int) -> None:
    from imagebind_cli.insight.map_table import write_map_table
    from imagebind_cli.pages.scatter import write_map_page, write_map_picture

    with writing(path):
        if path.suffix.lower() not in DRAWINGS:
            write_map_table(result, path)
            say(f"{path}: {len(result):,} items")
            return
        drawn = (write_map_page if path.suffix.lower() == ".html" else write_map_picture)(result, path, draw, seed)
        say(f"{path}: {len(result):,} items" + ("" if drawn == len(result) else f", of which {drawn:,} are drawn, chosen at random"))
