"""`imagebind store`: describe, inspect, map, merge, export, publish, compact and check stores. No model is needed."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.command import HeadedCommand
from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import ArrayType, DryUpload, Licence, Private
from imagebind_cli.cli.inspect import inspect_command
from imagebind_cli.cli.map import map_command
from imagebind_cli.cli.output import AsJSON, write_json_line, write_lines, write_upload
from imagebind_cli.cli.talk import Talk, exit_if_bad, line_if_stopped, say
from imagebind_cli.errors import UsageError
from imagebind_cli.printable import counted, printable
from imagebind_cli.store_formats import IN_WORDS

if TYPE_CHECKING:
    from imagebind_cli.store import StoreReader
    from imagebind_cli.store.maintenance import MergeCounts
    from imagebind_cli.store.table_columns import Thumbnail

app = typer.Typer(
    help="Describe, inspect, map, merge, export, publish, compact, prune and check stores of embeddings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help=f"NAME{IN_WORDS}, or a pattern in quotes.")]
StorePaths = Annotated[list[Path], typer.Argument(metavar="STORE...", help="Store such as NAME.h5, or a pattern in quotes.")]
Array = Annotated[ArrayType | None, typer.Option(help="Number type of the vectors; unchanged by default.", show_default=False)]
NAMED = 5  # ids in several stores that are named one by one


@app.command("info")
def store_info_command(paths: StorePaths, as_json: AsJSON = False) -> None:
    """Describe what stores hold, and how they were made. With --json, a line for each store.

    \b
        imagebind store info photos.h5
        imagebind store info 'photos-*-of-00004.h5' --json | jq .rows
    """
    from imagebind_cli.store import open_store
    from imagebind_cli.store.describe import describe_store

    for path in paths:
        about = describe_store(open_store(path))
        if as_json:
            write_json_line(about)
        else:
            made = about.pop("made")
            write_lines(f"{name:<12} {_plain(value)}" for name, value in {**about, **made}.items())


@app.command("push")
def store_push_command(
    path: StorePath,
    place: Annotated[str, typer.Argument(metavar="hf://datasets/OWNER/REPO", help="Dataset on the hub; created if it does not exist.")],
    licence: Licence = None,
    private: Private = False,
    dry_run: DryUpload = False,
    as_json: AsJSON = False,
) -> None:
    """Publish a store on the hub as a dataset: one Parquet file and a card. Needs pyarrow. Log in first (`hf auth login`, or HF_TOKEN).

    \b
        imagebind store push photos.h5 hf://datasets/me/photos --licence CC-BY-4.0 --dry-run
    """
    from imagebind_cli.publishing import push_store

    if licence is None:
        raise UsageError("state the licence of the vectors, as in --licence CC-BY-4.0")
    write_upload(push_store(path, place, licence=licence, private=private, dry_run=dry_run), as_json)


app.command("inspect", cls=HeadedCommand)(inspect_command)
app.command("map", cls=HeadedCommand)(map_command)


@app.command("merge")
def merge_command(
    paths: StorePaths,
    output: Annotated[Path, typer.Option("-o", "--output", help="Store to add to; created if it does not exist.", show_default=False)],
    array: Array = None,
    as_json: AsJSON = False,
) -> None:
    """Join stores that were made alike, such as the shares of a job array. The same command again adds what is new.

    Of an id that several stores have, the rows of the first store are kept, and a notice names it.

    \b
        imagebind store merge photos-*-of-00004.h5 -o photos.h5
        imagebind store merge base/photos.lance -o photos.h5         # an exported table of LanceDB back into a store
    """
    from imagebind_cli.store import open_store
    from imagebind_cli.store.maintenance import merge

    readers = [open_store(path) for path in paths]
    with Talk(done="added") as talk:

        def count(merged: MergeCounts) -> None:
            talk.done, talk.skipped = merged.added + merged.replaced, merged.same

        with line_if_stopped(lambda: f"{output}: {talk.summary()}; stopped: run the same command to continue from here"):
            merged = merge(readers, output, array and str(array), count)
    for id in merged.twice[:NAMED]:
        say(f"{printable(id)}: in several of these stores; the first one's rows are kept")
    if len(merged.twice) > NAMED:
        say(f"{len(merged.twice) - NAMED:,} more ids in several stores")
    say(f"{output}: {talk.summary()}{f', {merged.replaced:,} of them in place of older ones' if merged.replaced else ''}")
    if as_json:
        counts = {"added": merged.added, "replaced": merged.replaced, "same": merged.same}
        write_json_line({"store": str(output), **counts, "in_several": list(merged.twice)})


@app.command("export")
def export_command(
    path: StorePath,
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="FILE|ADDRESS", help="New file or folder, or postgresql://USER@HOST/DATABASE.", show_default=False
        ),
    ],
    array: Annotated[ArrayType, typer.Option(help="Number type of the vectors.")] = ArrayType.float32,
    clip_retrieval: Annotated[
        bool, typer.Option("--clip-retrieval", help="Write the folder that clip-retrieval and autofaiss take (needs pyarrow).")
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Columns of a table, in order, and new names for them: id=uuid,embedding=vector,meta.caption."),
    ] = None,
    media: Annotated[bool, typer.Option("--media", help="Add a column `thumbnail` to a table: each file as a small JPEG.")] = False,
    table: Annotated[
        str | None, typer.Option(metavar="NAME", help="Table of the database. Default: `embeddings`.", show_default=False)
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Write a store in another form: .npy with ids in .jsonl (FAISS takes it as it is), .safetensors, .jsonl, .h5, .store, .parquet,
    .lance (a table of LanceDB); or add its rows to a table of PostgreSQL.

    Into PostgreSQL, the same command again adds only what is missing. Give the password in PGPASSWORD or ~/.pgpass.

    \b
        imagebind store export photos.h5 -o photos.npy
        imagebind store export photos.h5 -o photos.parquet --array float16       # needs pyarrow
        imagebind store export photos.h5 -o photos.parquet --media --columns id=uuid,embedding=vector
        imagebind store export photos.h5 -o photos-clip/ --clip-retrieval
        imagebind store export photos.h5 -o base/photos.lance                    # needs lancedb; read by every command that reads stores
        imagebind store export photos.h5 -o postgresql://me@localhost/photos --table photos
    """
    from imagebind_cli.store import open_store
    from imagebind_cli.store.export import export
    from imagebind_cli.store.postgres import TABLE, export_to_postgres, is_database

    into_database = is_database(output)
    if into_database and clip_retrieval:
        raise UsageError("--clip-retrieval writes a folder, and -o is a database")
    if table is not None and not into_database:
        refuse_useless("--table", "--table is for a database: -o postgresql://USER@HOST/DATABASE")
    reader = open_store(path)
    thumbnail = _thumbnails(reader) if media else None
    if not into_database:
        export(reader, Path(output), str(array), clip_retrieval, columns=columns, thumbnail=thumbnail)
        say(f"{Path(output)}: {counted(len(reader), 'row')}")
        record: dict[str, Any] = {"store": str(Path(output)), "rows": len(reader), "array": str(array)}
    else:
        done = export_to_postgres(reader, output, str(array), table=table or TABLE, columns=columns, thumbnail=thumbnail)
        removed = f", {done.removed:,} older ones of the same ids removed" if done.removed else ""
        say(f"{done.place}, table {done.table}: {counted(done.rows, 'row')}, {done.added:,} added{removed}")
        if done.index:
            say(f"for fast searches, once most rows are there: {done.index};")
        record = {"store": done.place, "table": done.table, "rows": done.rows, "array": str(array)}
        record |= {"added": done.added, "removed": done.removed}
    if as_json:
        write_json_line(record)


@app.command("compact")
def compact_command(path: StorePath, as_json: AsJSON = False) -> None:
    """Rewrite a store without the rows that were replaced because their input changed. Readers are not disturbed.

    \b
        imagebind store compact photos.h5
    """
    from imagebind_cli.store.describe import bytes_on_disk
    from imagebind_cli.store.maintenance import compact

    before = bytes_on_disk(path) if path.exists() else 0
    dropped = compact(path)
    after = bytes_on_disk(path)
    say(f"{path}: {dropped:,} replaced rows dropped, {before / 1e6:,.1f} MB before, {after / 1e6:,.1f} MB now")
    if as_json:
        write_json_line({"store": str(path), "dropped": dropped, "bytes_before": before, "bytes": after})


@app.command("prune")
def prune_command(
    path: StorePath,
    missing: Annotated[bool, typer.Option("--missing", help="Drop the items whose file no longer exists.")] = False,
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
    counts = prune(path, dry_run)
    if as_json:
        write_json_line({"store": str(path), "items": counts.items, "missing": counts.missing, "rows": counts.rows, "dry_run": dry_run})
    elif dry_run:
        write_lines(map(printable, counts.missing))
    dropped = f"{len(counts.missing):,} of {counted(counts.items, 'item')} ({counted(counts.rows, 'row')})"
    say(f"{path}: {dropped} {'would be dropped: their files do' if dry_run else 'dropped: their files did'} not exist")


@app.command("check")
def check_command(paths: StorePaths, as_json: AsJSON = False) -> None:
    """Check every row: as its checksum says, finite, of length 1, with an id of its own, and nothing torn; the files of --index beside it, too.
    Prints a line for each finding; exit 1 if there are any. Of prepared samples (.tar, .h5), every checksum.

    \b
        imagebind store check photos.h5
        imagebind store check shards/*.tar
    """
    from imagebind_cli.prepared import is_prepared, sample_findings
    from imagebind_cli.retrieval.sidecar import sidecar_findings
    from imagebind_cli.store.check import findings

    reports = []
    for path in paths:
        lines: list[str] = []
        notes: list[str] = []
        found = sample_findings(path, notes.append) if is_prepared(path) else chain(findings(path, notes.append), sidecar_findings(path))
        for line in found:
            lines.append(line)
            if not as_json:
                write_lines([f"{path}: {line}"])
        for line in notes:
            say(f"{path}: {line}")
        if not lines:
            say(f"{path}: clean")
        reports.append({"store": str(path), "ok": not lines, "findings": lines} | ({"notes": notes} if notes else {}))
    clean = all(report["ok"] for report in reports)
    if as_json:
        write_json_line({"ok": clean, "stores": reports})
    exit_if_bad(not clean)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items() if each is not None) or "none"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _thumbnails(reader: StoreReader) -> Thumbnail:
    from imagebind_cli.pages.thumbnails import thumbnails

    return thumbnails(reader, Talk())
