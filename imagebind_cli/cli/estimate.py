"""`imagebind embed --dry-run`: what a job would do, as lines or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from imagebind_cli.cli.output import write_json_line, write_lines
from imagebind_cli.printable import duration_in_words, printable

if TYPE_CHECKING:
    from imagebind_cli.corpus import Estimate


def write_estimate(plan: Estimate, as_json: bool) -> None:
    """Write what a job would do."""
    if as_json:
        write_json_line(asdict(plan))
    else:
        write_lines(_lines(plan))


def _lines(plan: Estimate) -> Iterator[str]:
    parts = [f"{plan.remaining:,} to do"]
    parts += [f"{plan.bytes / 1e6:,.1f} MB"] if plan.bytes else []
    parts += [f"{plan.done:,} there already"] if plan.done else []
    parts += [f"{plan.repeated:,} repeated"] if plan.repeated else []
    parts += [f"{plan.failed_before:,} failed before"] if plan.failed_before else []
    yield f"{plan.inputs:,} {plan.modality} input{'s' * (plan.inputs != 1)}: {', '.join(parts)}"
    if plan.first is not None:
        read = (plan.failure and f"fails: {plan.failure}") or "; ".join(["can be read", *(f"assumed: {note}" for note in plan.assumed)])
        yield f"first: {printable(plan.first)}: {read}"
    if plan.seconds is not None:
        rate = plan.measured / max(plan.measured_seconds, 1e-9)
        yield f"about {duration_in_words(plan.seconds)} on {plan.device} ({plan.measured:,} measured, {rate:.1f} a second)"
