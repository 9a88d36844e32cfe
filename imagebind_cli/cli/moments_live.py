"""`imagebind moments --live`: the moments of one endless stream, each when it is over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from imagebind_cli import registry
from imagebind_cli.cli.flags import options_among
from imagebind_cli.cli.live import LiveOptions, open_stream, stream_format
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, exit_if_bad, line_if_stopped, say
from imagebind_cli.errors import UsageError
from imagebind_cli.retrieval.requests import combined_request, read_weights
from imagebind_cli.space import Space


def print_live_moments(
    space: Space,
    modality: str | None,
    inputs: Sequence[str] | None,
    live: LiveOptions,
    parts: Sequence[tuple[str, str]],
    weights: str | None,
    names: Sequence[str],
    moments: tuple[float | None, float, float],
    chosen: Mapping[str, Any],
) -> None:
    """Print the moments of a stream.

    Args:
        parts, weights: of the query. names: other names, that scores are relative to. moments: threshold, min-length and join.
        chosen: reading options, of which --rate and --fps may be those of the stream.
    """
    import numpy as np

    from imagebind_cli.grounding.curves import MomentOptions
    from imagebind_cli.grounding.live_moments import FIRST_SECONDS, REMEMBERED, find_live_moments
    from imagebind_cli.grounding.moments import HOP
    from imagebind_cli.live import embed_stream
    from imagebind_cli.retrieval.finder import Strict
    from imagebind_cli.retrieval.queries import QueryEncoder

    if not parts or modality is None:
        raise UsageError("--live needs --modality (that of the stream) and a query: --text, --audio, …, --vector")
    request = combined_request(parts, read_weights(weights, len(parts)) if weights is not None else None)
    format, options = stream_format(live, chosen), MomentOptions(*moments)
    known = registry.face(modality).options.names()
    of_files = {name: value for name, value in chosen.items() if name in known or name not in ("rate", "fps")}
    given = options_among({modality, *(kind for kind, _ in parts)}, of_files, "query")
    reading = {"hop": HOP} | {name: value for name, value in given.items() if name in known}
    with open_stream(inputs) as (file, name), Talk(done="embedded") as talk:
        of_query = {name: value for name, value in given.items() if name != "hop"}
        (query,) = QueryEncoder(space, (), of_query, Strict()).encode([request])
        others = np.stack([*space.sentences(list(names), talk)]) if names else None
        if options.threshold is None:
            say(
                f"threshold: (maximum + median) / 2 of the scores of the last {REMEMBERED} s, from {FIRST_SECONDS} s on; or give --threshold"
            )
        rows = embed_stream(
            space, modality, file, format, behind=live.behind or "wait", memory=live.memory, name=name, listener=talk, **reading
        )
        with line_if_stopped(lambda: f"{talk.summary()}; stopped"):
            for moment in find_live_moments(rows, query.vector, options, others):
                write(json.dumps(moment.as_json(request.id)).encode() + b"\n")
        say(talk.summary())
    exit_if_bad(talk.has_failures)
