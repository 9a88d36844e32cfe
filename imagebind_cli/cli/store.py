"""`imagebind store`: look at stores, join them, give them to other programs, tidy and check them. No model is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.flags import ArrayType
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, printable, say
from imagebind_cli.errors import UsageError, UserError, writing

if TYPE_CHECKING:
    from imagebind_cli.store import StoreReader
    from imagebind_cli.store.merge import Merged

app = typer.Typer(help="Describe, merge, export, compact and check stores of embeddings.", no_args_is_help=True, rich_markup_mode=None)

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="NAME.h5, .store, .npy, .safetensors or .jsonl, or a pattern in quotes.")]
StorePaths = Annotated[list[Path], typer.Argument(metavar="STORE...", help="As NAME.h5, or a pattern in quotes.")]
Array = Annotated[ArrayType | None, typer.Option(help="Number type of the vectors; as they are, if not given.", show_default=False)]
NAMED = 5
"""Ids in several stores that are named one by one."""
AsJSON = Annotated[bool, typer.Option("--json", help="JSON and no table.")]


@app.command()
def info(paths: StorePaths, as_json: AsJSON = False) -> None:
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


@app.command()
def merge(
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
    from imagebind_cli.store.merge import merge as merge_stores

    readers = [open_store(path) for path in paths]
    with Talk(done="added") as talk:

        def tell(merged: Merged) -> None:
            talk.done, talk.skipped = merged.added + merged.replaced, merged.same

        merged = merge_stores(readers, output, array and str(array), tell)
    for id in merged.twice[:NAMED]:
        say(f"{printable(id)}: in several of these stores; the first one's rows are kept")
    if len(merged.twice) > NAMED:
        say(f"{len(merged.twice) - NAMED:,} more ids in several stores")
    say(f"{output}: {talk.summary()}{f', {merged.replaced:,} of them in place of older ones' if merged.replaced else ''}")


@app.command()
def export(
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
    from imagebind_cli.store import FORMATS, open_store
    from imagebind_cli.store import export as forms
    from imagebind_cli.store.merge import merge as merge_stores

    reader = open_store(path)
    if output.exists():
        raise UserError(f"{output}: exists; name another, or remove it")
    if not clip_retrieval and output.suffix not in (*FORMATS, ".parquet"):
        raise UsageError(f"{output}: unknown ending {output.suffix!r}; choose from {', '.join(FORMATS)}, .parquet")
    with writing(output):
        if clip_retrieval:
            forms.to_clip_retrieval(reader, output, str(array))
        elif output.suffix == ".parquet":
            forms.to_parquet(reader, output, str(array))
        else:
            merge_stores([reader], output, str(array))
    say(f"{output}: {len(reader):,} rows")


@app.command()
def compact(path: StorePath) -> None:
    """Write a store anew without the rows that were replaced because their input changed. Readers are not disturbed.

    \b
        imagebind store compact photos.h5
    """
    from imagebind_cli.store.compact import compact as compact_store

    if not path.exists():
        raise UserError(f"{path}: no such store")
    before = _bytes(path)
    dropped = compact_store(path)
    say(f"{path}: {dropped:,} replaced rows dropped, {before / 1e6:,.1f} MB before, {_bytes(path) / 1e6:,.1f} MB now")


@app.command()
def check(paths: StorePaths) -> None:
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
        "made": {key: value for key, value in reader.made.items() if key != "array"},
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
