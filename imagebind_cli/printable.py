"""Escape characters of names and texts that a terminal would act on."""

from __future__ import annotations


def printable(name: str) -> str:
    """Return a name on one line, with control characters and undecodable bytes escaped and the middle of a long sentence left out."""
    return escaped(f"{name[:120]} … {name[-60:]}" if len(name) > 300 else name)


def escaped(text: str) -> str:
    """Return a text with control characters and undecodable bytes escaped, so that a terminal does not act on them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
