"""Lists of classes, and the names each has: typed, or a text, JSON, TOML, CSV or TSV file.

A class is typed as `name`, `name|other name`, or `class=name|other name` where the class is called something else than its names. An entry
with a comma is put between quotation marks: `"table, wooden",chair`. JSON and TOML take names verbatim, with any characters.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebind_cli.documents import parse_json, parse_toml
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.tabular import is_table, read_good_rows, read_lines

# Entries with commas in quotation marks, whose quotation marks were not recognised.
CURLY = re.compile("(?:^|,)\\s*(?:'[^',]*,[^']*'|“[^”]*,[^”]*”|‘[^’,]*,[^’]*’|„[^“,]*,[^“]*“)\\s*(?:,|$)")
TYPED = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]*))\s*(?:,|$)')


@dataclass(frozen=True)
class Label:
    """A class: its name in outputs and in the truth, and the names it has in prompts."""

    name: str
    names: tuple[str, ...]


def read_labels(given: str | Sequence[Any] | Mapping[str, Any]) -> list[Label]:
    """Read the classes of `a,b,c`, of a file, of a list of names or of lists of names, or of a mapping of class to name or names.

    Raises:
        UserError: no such file, or not of its format; fewer than two classes; a class, or one of its names, appears twice or is empty.
    """
    if not isinstance(given, str):
        try:
            return check_labels("labels", _from_values(dict(given) if isinstance(given, Mapping) else list(given)))
        except ValueError as error:
            raise UserError(f"labels: {error}") from None
    if not os.path.isfile(given):  # which, unlike Path.is_file, takes a string of any length
        if "," not in given:
            raise UserError(f"labels {given!r:.80}: no such file, and one class alone decides nothing; give a,b,c or a file")
        return check_labels("labels", [_typed(entry) for entry in _entries(given)])
    path = Path(given)
    try:
        return check_labels(given, _from_table(path) if is_table(path) else _parse(path.suffix.lower(), read_lines(path)))
    except ValueError as error:  # JSON and TOML errors are ValueErrors
        raise UserError(f"{given}: {error}") from None


def check_labels(place: str, labels: Sequence[Label]) -> list[Label]:
    """Return the classes if they differ from each other, else raise as `read_labels` does. `place` names their source in messages."""
    if len(labels) < 2:
        raise UserError(f"{place}: {len(labels) or 'no'} class{'' if labels else 'es'}; at least two are needed")
    seen: set[str] = set()
    for label in labels:
        if label.name in seen:
            raise UserError(f"{place}: class {label.name!r} is listed twice")
        if not label.name or not label.names or not all(label.names):
            raise UserError(f"{place}: class {label.name!r} has an empty name")
        if len(set(label.names)) < len(label.names):
            raise UserError(f"{place}: class {label.name!r} has a name twice: {', '.join(label.names)}")
        seen.add(label.name)
    return list(labels)


def shared_names(labels: Iterable[Label]) -> list[str]:
    """List the names that several classes have: prompts cannot distinguish these classes."""
    owners: dict[str, int] = {}
    for label in labels:
        for name in label.names:
            owners[name] = owners.get(name, 0) + 1
    return [name for name, count in owners.items() if count > 1]


def labels_digest(labels: Iterable[Label]) -> str:
    """Compute the SHA-256 of classes and names in order; it does not depend on the kind of file."""
    return hashlib.sha256(json.dumps([[label.name, *label.names] for label in labels]).encode()).hexdigest()


def _parse(suffix: str, lines: Iterable[str]) -> list[Label]:
    if suffix == ".json":
        return _from_values(parse_json("".join(lines)))
    if suffix == ".toml":
        return _from_values(parse_toml("".join(lines)))
    return [_typed(_unquoted(line.strip())) for line in lines if line.strip()]


def _entries(given: str) -> list[str]:
    """Split a typed list into its entries, without quotation marks; empty ones are left out."""
    if CURLY.search(given):
        raise UsageError(f'labels {given!r:.80}: an entry with a comma is put between straight double quotation marks: "a, b"')
    if "\n" in given:
        raise UsageError("labels: line breaks in a typed list; give the file itself, with a class on each line")
    entries, place = [], 0
    while place < len(given):
        entry = TYPED.match(given, place)
        if entry is None:
            where = given[place : place + 40].strip()
            raise UserError(
                f'labels: a quotation mark at {where!r} stands alone or inside an entry; an entry with commas is "a, b" as a whole, with '
                '"" for a quotation mark in it; or give a file'
            )
        entries.append(entry[2] if entry[1] is None else entry[1].replace('""', '"'))
        place = entry.end()
    return [entry for entry in entries if entry.strip()]


def _unquoted(line: str) -> str:
    """Remove the quotation marks around a whole line, which a typed entry with a comma needs."""
    entry = TYPED.fullmatch(line)
    return line if entry is None or entry[1] is None else entry[1].replace('""', '"')


def _typed(entry: str) -> Label:
    name, equals, names = entry.rpartition("=")
    parts = tuple(part.strip() for part in names.split("|"))
    return Label(name.strip() if equals else parts[0], parts)


def _from_values(values: Any) -> list[Label]:
    if isinstance(values, list):
        return [Label(names[0], names) for names in map(_names, values)]
    if isinstance(values, dict):
        return [Label(name, _names(value)) for name, value in values.items()]
    raise ValueError("a list of names, or an object of class: names, is needed")


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{json.dumps(value, default=str)[:80]} is not a name or a list of names")
    return tuple(name.strip() for name in names)


def _from_table(path: Path) -> list[Label]:
    """Read the column `class`, and `name` where classes have other or several names: in a row each, or with | between them."""
    names_of: dict[str, list[str]] = {}
    rows = [row for _, row in read_good_rows(path, ("class",))]
    has_names = any("name" in row for row in rows)
    for row in rows:
        name = row.get("class", "").strip()
        if name in names_of and not has_names:
            raise ValueError(f"class {name!r} is listed twice")
        names_of.setdefault(name, []).extend(part.strip() for part in row.get("name", name).split("|"))
    return [Label(name, tuple(names)) for name, names in names_of.items()]
