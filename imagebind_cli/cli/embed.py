"""`imagebind embed`: files in, unit vectors out."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli import registry
from imagebind_cli.cli.flags import reading_options, with_reading_flags
from imagebind_cli.cli.inputs import find_items, first_of, new_items
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, say

if TYPE_CHECKING:
    from imagebind_cli.store import Store

Modality = enum.StrEnum("Modality", list(registry.MODALITIES))  # type: ignore[misc]
Pool = enum.StrEnum("Pool", ["mean", "none"])
Dtype = enum.StrEnum("Dtype", ["auto", "fp32", "bf16", "fp16"])

HELP = """Embed files, or sentences, of one modality: a JSON line with a unit vector each, in input order.

INPUT is a file, a folder (every file below it), a pattern in quotes, or `-` for stdin; for text it is the sentence itself.
On stdin, one path (or sentence) a line, or one JSON object a line: `{"id": "a1", "audio": "dog.wav"}`.
A file that cannot be read gets one line on stderr and the rest goes on; the exit code is then 1.

\b
    imagebind embed audio dog.wav rain.mp3 > vectors.jsonl
    imagebind embed image photos/ -o photos.h5      # the same again goes on where it stopped
    find . -name '*.mp4' -print0 | imagebind embed video -0 --pool none
    imagebind embed text "a dog barking" | jq .embedding[0]
"""


@with_reading_flags
def embed(
    modality: Annotated[Modality, typer.Argument(help="What the inputs are.", show_default=False)],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT]...", help="Files, folders, patterns, sentences, or - for stdin.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to FILE.jsonl, .npy, .safetensors or .h5 and not to stdout.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="Take inputs from a JSONL, CSV or TSV file with a column per modality.")] = None,
    nul: Annotated[bool, typer.Option("-0", "--null", help="Entries on stdin end with a NUL byte, as `find -print0` writes.")] = False,
    errors: Annotated[Path | None, typer.Option(help="Append one JSON line per failed input to this file.")] = None,
    model: Annotated[
        str | None,
        typer.Option(envvar="IMAGEBIND_MODEL", help="Name, folder, .pth file or hf://owner/repo. `imagebind weights list` shows names."),
    ] = None,
    config: Annotated[str | None, typer.Option(help="JSON file that says what a bare weight file is.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="auto: float32 on CPU, the weights' own elsewhere.")] = Dtype.auto,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips to the encoder at once; halves itself when memory runs out.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding threads.")] = None,
    pool: Annotated[Pool, typer.Option(help="mean: one vector per item. none: one per window, with its start and end.")] = Pool.mean,
    **chosen: Any,
) -> None:
    items = find_items((str(modality),), inputs or [], manifest, nul)
    options = reading_options(str(modality), chosen)

    from imagebind_cli.model import load
    from imagebind_cli.shards import Prepared

    loaded = load(model, device=device, dtype=str(dtype), config=config)
    if loaded.checkpoint.untrained:
        say(f"model {loaded.name} is untrained: its weights are made by rule, and nearness means little. --model huge is the published one")
    first, items = first_of(items)
    payload = getattr(first, "payload", None)
    if isinstance(payload, Prepared):  # prepared samples say how they were read; a flag that says otherwise is refused with the first
        options = {**payload.made["inputs"][str(modality)]["options"], **options}
    settings: dict[str, Any] = {"pool": str(pool), **options}
    with Talk(errors) as talk:
        if output is None:
            _to_stdout(loaded.embed_items(str(modality), items, batch_size=batch_size, workers=workers, **settings), str(modality), talk)
        else:
            from imagebind_cli.store import Store

            with Store(output, loaded.made(str(modality), **settings)) as store:
                new = new_items(items, store.ids, talk)
                _to_store(loaded.embed_items(str(modality), new, batch_size=batch_size, workers=workers, **settings), store, talk)
    if output is not None:
        say(f"{output}: {talk.summary()}")
    if talk.failed:
        raise typer.Exit(1)


def _to_stdout(results: Any, modality: str, talk: Talk) -> None:
    from imagebind_cli.store import json_line

    for result in results:
        if isinstance(result, list):
            talk.remarks(result[0].id, result[0].notes, result[0].warnings)
            write(*(json_line(embedding, modality) for embedding in result))
            talk.succeeded()
        else:
            talk.failure(result.id, result.reason)


def _to_store(results: Any, store: Store, talk: Talk) -> None:
    for result in results:
        if isinstance(result, list):
            talk.remarks(result[0].id, result[0].notes, result[0].warnings)
            store.append(result)
            talk.succeeded()
        else:
            talk.failure(result.id, result.reason)


embed.__doc__ = HELP
