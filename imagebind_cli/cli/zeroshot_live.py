"""`imagebind zeroshot --live`: the classes of each window of one endless stream, as it arrives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from imagebind_cli.cli.flags import given_options
from imagebind_cli.cli.live import LiveOptions, live_head, open_stream, stream_format, write_live
from imagebind_cli.cli.talk import Talk, exit_if_bad
from imagebind_cli.evaluation.options import ClassOptions
from imagebind_cli.space import Space


def print_live_classes(
    space: Space,
    modality: str,
    inputs: Sequence[str] | None,
    live: LiveOptions,
    classes: ClassOptions,
    k: int,
    chosen: Mapping[str, Any],
) -> None:
    """Print the classes of a stream's windows.

    Args:
        k: classes shown for each window. chosen: reading options, of which --rate and --fps may be those of the stream.
    """
    from imagebind_cli.evaluation import open_classifier
    from imagebind_cli.evaluation.classifier import best_classes
    from imagebind_cli.live import LiveRow, embed_stream

    reading = given_options(modality, chosen)
    format = stream_format(live, reading)
    with open_stream(inputs) as (file, name), Talk(done="classified") as talk:
        classifier = open_classifier(modality, classes, model=space, listener=talk)

        def line(row: LiveRow) -> bytes:
            top = [
                {"class": entry.name, "probability": entry.probability, "score": entry.score}
                for entry in best_classes(classifier, row.vector, k)
            ]
            return json.dumps(live_head(row) | {"top": top}).encode() + b"\n"

        rows = embed_stream(
            space, modality, file, format, behind=live.behind or "wait", memory=live.memory, name=name, listener=talk, **reading
        )
        write_live(rows, talk, line)
    exit_if_bad(talk.has_failures)
