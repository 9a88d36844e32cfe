"""`imagebind preprocess`: decode and transform inputs once, for several runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from imagebind_cli.cli.cluster import CLUSTER_FLAGS, ClusterOptions
from imagebind_cli.cli.command import modality_group
from imagebind_cli.cli.flags import (
    ArrayType,
    Column,
    Errors,
    Include,
    Inputs,
    Manifest,
    ModalityName,
    ModelName,
    Null,
    Strict,
    given_options,
    input_option,
    modality_flags,
    output_option,
    with_reading_flags,
)
from imagebind_cli.cli.inputs import command_inputs
from imagebind_cli.cli.option_groups import with_option_groups
from imagebind_cli.cli.output import StdoutClosed, write
from imagebind_cli.cli.talk import Talk, exit_if_bad, say, summary_at_end
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.errors import UsageError, UserError, is_broken_pipe, writing
from imagebind_cli.file_kinds import Others
from imagebind_cli.files import replacing

if TYPE_CHECKING:
    from imagebind_cli.corpus import Inspection

HELP = """Decode files once into tar shards or one HDF5 file, which `embed` and `train` read in their place.

Several modalities joined by commas, `image,audio`, stay together: rows of a manifest, or a video with its sound.

\b
    imagebind preprocess audio sounds/ -o 'sounds-%06d.tar'     # run it again to continue
    imagebind preprocess image,depth --manifest pairs.jsonl -o pairs.h5 --array float16
    imagebind preprocess depth room.png --inspect               # what is read and assumed, as JSON
    imagebind preprocess imu walk.csv --preview look/           # pictures of what the encoder is given
"""


@with_reading_flags
@with_option_groups(CLUSTER_FLAGS)
def preprocess_command(
    modality: ModalityName,
    inputs: Inputs = None,
    cluster_options: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    manifest: Manifest = None,
    column: Column = None,
    include: Include = None,
    nul: Null = False,
    strict: Strict = False,
    workers: Annotated[
        int | None, input_option(metavar="N", min=1, help="Inputs read at a time; by default one per core, at most 8.")
    ] = None,
    item_timeout: Annotated[
        float,
        input_option("--item-timeout", metavar="SECONDS", min=0, help="Time limit for reading one input, which then fails; 0: no limit."),
    ] = ITEM_SECONDS,
    output: Annotated[
        str | None,
        output_option("-o", "--output", metavar="OUT", help="Output: out-%06d.tar (numbered shards), out.tar, out.h5, or - for stdout."),
    ] = None,
    array: Annotated[ArrayType, output_option(help="Number type of the arrays.")] = ArrayType.float32,
    shard_size: Annotated[
        float | None,
        output_option(metavar="MB", min=0.001, show_default="500", help="Size of a numbered shard, at which the next one begins."),
    ] = None,
    inspect: Annotated[
        bool, output_option("--inspect", help="Write nothing; print what was read and assumed, a JSON line for each input.")
    ] = False,
    preview: Annotated[
        Path | None, output_option(metavar="FOLDER", help="Draw each input as the encoder sees it, with an index.html.")
    ] = None,
    errors: Errors = None,
    model: ModelName = None,
    **chosen: Any,
) -> None:
    """Prepare inputs, or show what is read of them."""
    modalities = tuple(modality.split(","))
    options = _options(modalities, chosen)
    if preview is not None and preview.exists() and not preview.is_dir():
        raise UserError(f"{preview}: exists and is not a folder")
    if (output is None) == (not inspect and preview is None):
        raise UsageError("give -o OUT, or --inspect or --preview in place of it")

    cluster = cluster_options.cluster(output, {"inspect": inspect, "preview": preview})

    from imagebind_cli import corpus

    if output == "-" and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("-o - writes a tar, which is binary data, and stdout is a terminal; send it to a pipe or a file")
    others = Others(strict, tuple(include or ()))
    given = command_inputs(modality, inputs, manifest, column, nul, others)
    with Talk(None if output else errors, "prepared", others) as talk:
        job: dict[str, Any] = {
            "model": model,
            "workers": workers,
            "item_timeout": item_timeout,
            "listener": talk,
            "options": options,
        }
        if output is None:
            with writing(preview or "stdout"):
                _show(corpus.inspect_inputs(modalities, given, **job), inspect, preview)
        else:
            shards: dict[str, Any] = {"array": str(array), "shard_bytes": int(shard_size * 1e6) if shard_size else None}
            if cluster is not None:
                with summary_at_end(corpus.share_pattern(output, cluster), talk):
                    corpus.preprocess_on_cluster(modalities, given, output, cluster, errors=errors, **shards, **job)
                exit_if_bad(talk.has_failures)
                return
            with summary_at_end(output, talk, _continues(output)):
                try:
                    with nullcontext(sys.stdout.buffer) if output == "-" else corpus.uploaded(output) as place:
                        corpus.preprocess(modalities, given, place, errors=errors, **shards, **job)
                except OSError as error:
                    if output != "-" or not is_broken_pipe(error):
                        raise
                    raise StdoutClosed from None
    exit_if_bad(talk.has_failures)


def _options(modalities: tuple[str, ...], chosen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each modality's share of the reading flags that were given."""
    return {
        name: given_options(name, {key: value for key, value in chosen.items() if key in modality_flags([name])}) for name in modalities
    }


def _continues(output: str) -> str | None:
    """Return where the same command continues after it was stopped."""
    return "here" if output.endswith(".h5") else "the last whole shard" if "%" in output else None


def _show(inspections: Iterable[list[Inspection]], inspect: bool, preview: Path | None) -> None:
    """Print and draw what was read of each item."""
    drawn: list[tuple[str, str, dict[str, Any]]] = []
    for parts in inspections:
        for part in parts:
            if preview is not None:
                drawn.append(_draw(part, preview))
            if inspect:
                write(json.dumps(part.record).encode() + b"\n")
    if preview is not None and drawn:
        from imagebind_cli.pages.preview import write_index

        write_index(preview, drawn)
        say(f"{preview / 'index.html'}: {len(drawn)} preview{'s' * (len(drawn) > 1)}")


def _draw(part: Inspection, folder: Path) -> tuple[str, str, dict[str, Any]]:
    """Write the picture of one modality of an item; return its file name, the item's id and what was read."""
    from imagebind_cli.pages.preview import draw
    from imagebind_cli.prepared import member_key
    from imagebind_cli.registry import face

    id, modality = part.record["id"], part.record["modality"]
    folder.mkdir(parents=True, exist_ok=True)
    file = f"{member_key(id)}.{modality}.png"
    with replacing(folder / file) as place:
        draw(part.sample, face(modality).encoder, part.config).save(place)
    return file, id, part.record


app = modality_group(preprocess_command, HELP)
