"""The options of sentences."""

from __future__ import annotations

from dataclasses import dataclass

from imagebind_cli.options import ReadingOptions, choice


@dataclass(frozen=True)
class TextOptions(ReadingOptions):
    """Sentences."""

    long_text: str = choice(
        "truncate",
        "Text of more than 75 tokens: cut it with a warning, average windows of it, or fail.",
        choices=("truncate", "window", "error"),
    )
