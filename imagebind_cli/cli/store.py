"""`imagebind store`: look at stores, join them, give them to other programs, tidy and check them. No model is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.flags import ArrayType
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, printable, say
from imagebind_cli.errors import UsageError, UserError

if TYPE_CHECKING:
    from imagebind_cli.store import StoreReader
    from imagebind_cli.store.maintenance import MergeCounts

app = typer.Typer(
    help="Describe, merge, export, compact, prune and check stores of embeddings.", no_args_is_help=True, rich_markup_mode=None
)

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="NAME.h5, .store, .npy, .safetensors or .jsonl, or a pattern in quotes.")]
StorePaths = Annotated[list[Path], typer.Argument(metavar="STORE...", help="As NAME.h5, or a pattern in quotes.")]
Array = Annotated[ArrayType | None, typer.Option(help="Number type of the vectors; as they are, if not given.", show_default=False)]
NAMED = 5
"""Ids in several stores that are named one by one."""
AsJSON = Annotated[bool, typer.Option("--json", help="JSON and no table.")]


@app.command("info")
def info_command(paths: StorePaths, as_json: AsJSON = False) -> None:
    """What stores hold, and how they were made.

    \b
        imagebind store info photos.h5
        imagebind store info 'photos-*-of-00004.h5' --json | jq .rows
    """
    from imagebind_cli.store import open_store

    for path in paths:
        about = _about(open_store(path))
        if as_json:
            write(json.dumps(about).encode() + b"\n")
        else:
            made = about.pop("made")
            lines = [f"{name:<12} {_plain(value)}\n" for name, value in {**about, **made}.items()]
            write("".join(lines).encode("utf-8", "surrogateescape"))


@app.command("merge")
def merge_command(
    paths: StorePaths,
    output: Annotated[Path, typer.Option("-o", "--output", help="Store to add to, made if it is not there.", show_default=False)],
    array: Array = None,
) -> None:
    """Join stores that were made alike, such as the shares of a job array. The same command again adds what is new.

    An id that several stores have counts as the first of them has it, and is told.

    \b
        imagebind store merge photos-*-of-00004.h5 -o photos.h5
    """
    from imagebind_cli.store import open_store
    from imagebind_cli.store.maintenance import merge

    readers = [open_store(path) for path in paths]
    with Talk(done="added") as talk:

        def tell(merged: MergeCounts) -> None:
            talk.done, talk.skipped = merged.added + merged.replaced, merged.same

        merged = merge(readers, output, array and str(array), tell)
    for id in merged.twice[:NAMED]:
        say(f"{printable(id)}: in several of these stores; the first one's rows are kept")
    if len(merged.twice) > NAMED:
        say(f"{len(merged.twice) - NAMED:,} more ids in several stores")
    say(f"{output}: {talk.summary()}{f', {merged.replaced:,} of them in place of older ones' if merged.replaced else ''}")


@app.command("export")
def export_command(
    path: StorePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="New file or folder.", show_default=False)],
    array: Annotated[ArrayType, typer.Option(help="Number type of the vectors.")] = ArrayType.float32,
    clip_retrieval: Annotated[
        bool, typer.Option("--clip-retrieval", help="Write the folder that clip-retrieval and autofaiss take (needs pyarrow).")
    ] = False,
) -> None:
    """Write a store in another form: .npy with ids in .jsonl (FAISS takes it as it is), .safetensors, .jsonl, .h5, .store, .parquet.

    \b
        imagebind store export photos.h5 -o photos.npy
        imagebind store export photos.h5 -o photos.parquet --array float16       # needs pyarrow
        imagebind store export photos.h5 -o photos-clip/ --clip-retrieval
    """
    from imagebind_cli.store import open_store
    from imagebind_cli.store.export import export

    reader = open_store(path)
    export(reader, output, str(array), clip_retrieval)
    say(f"{output}: {len(reader):,} rows")


@app.command("compact")
def compact_command(path: StorePath) -> None:
    """Write a store anew without the rows that were replaced because their input changed. Readers are not disturbed.

    \b
        imagebind store compact photos.h5
    """
    from imagebind_cli.store.maintenance import compact

    if not path.exists():
        raise UserError(f"{path}: no such store")
    before = _bytes(path)
    dropped = compact(path)
    say(f"{path}: {dropped:,} replaced rows dropped, {before / 1e6:,.1f} MB before, {_bytes(path) / 1e6:,.1f} MB now")


@app.command("prune")
def prune_command(
    path: StorePath,
    missing: Annotated[bool, typer.Option("--missing", help="Drop the items whose file does not exist any more.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the ids of these items, a line each, and drop nothing.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Drop items whose file was deleted or renamed. Run it in the folder in which they were embedded: their paths may be relative.

    \b
        imagebind store prune photos.h5 --missing --dry-run
        imagebind store prune photos.h5 --missing
    """
    from imagebind_cli.store.maintenance import prune

    if not missing:
        raise UsageError("say what to drop: --missing")
    if not path.exists():
        raise UserError(f"{path}: no such store")
    counts = prune(path, dry_run)
    if as_json:
        about = {"store": str(path), "items": counts.items, "missing": counts.missing, "rows": counts.rows, "dry_run": dry_run}
        write(json.dumps(about).encode() + b"\n")
    elif dry_run:
        write("".join(f"{printable(id)}\n" for id in counts.missing).encode())
    dropped = f"{len(counts.missing):,} of {counts.items:,} items ({counts.rows:,} rows)"
    say(f"{path}: {dropped} {'would be dropped: their files do' if dry_run else 'dropped: their files did'} not exist")


@app.command("check")
def check_command(paths: StorePaths) -> None:
    """Look at every row: finite, of length 1, with an id of its own, and nothing left torn. A line for each finding, and exit code 1.

    \b
        imagebind store check photos.h5
    """
    from imagebind_cli.store.check import findings

    clean = True
    for path in paths:
        found = 0
        for line in findings(path):
            write(f"{path}: {line}\n".encode("utf-8", "surrogateescape"))
            found += 1
        if not found:
            say(f"{path}: clean")
        clean = clean and not found
    if not clean:
        raise typer.Exit(1)


def _about(reader: StoreReader) -> dict[str, Any]:
    import numpy as np

    block = next(reader.blocks(), np.empty((0, reader.dim), np.float32))
    keys = reader.stamps["key"]
    return {
        "store": str(reader.path),
        "rows": len(reader),
        "items": int(np.count_nonzero(keys[1:] != keys[:-1])) + bool(len(keys)),
        "replaced": reader.replaced,
        "array": str(block.dtype),
        "windows": reader.spans is not None,
        "bytes": sum(_bytes(part) for part in reader.paths),
        "made": {key: value for key, value in reader.provenance.items() if key != "array"},
    }


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items() if each is not None) or "none"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _bytes(path: Path) -> int:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(file.stat().st_blocks * 512 for file in files)
