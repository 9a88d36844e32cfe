"""Text for people: characters of names that a terminal would act on are escaped, nouns follow their numbers, durations have a unit."""

from __future__ import annotations


def printable(name: str) -> str:
    """Return a name on one line, with control characters and undecodable bytes escaped and the middle of a long sentence left out."""
    return escaped(f"{name[:120]} … {name[-60:]}" if len(name) > 300 else name)


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, `1 row` or `1,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def escaped(text: str) -> str:
    """Return a text with control characters and undecodable bytes escaped, so that a terminal does not act on them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def duration_in_words(seconds: float) -> str:
    """Return a duration in the unit a person would use."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{round(seconds)} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{hours} h" if hours < 48 else f"{round(seconds / 86400)} days"
