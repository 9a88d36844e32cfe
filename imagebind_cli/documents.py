"""Parse JSON and TOML. Any fault in a text raises a `ValueError` that describes it; any fault in a file raises a `UserError` that names the file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagebind_cli.checksums import SEALED, check_seal
from imagebind_cli.errors import UserError

DEPTH = 100  # levels of nested tables and lists; more would exhaust Python's stack in a later step
LARGEST = 64 << 20  # bytes of a file


def parse_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parse JSON in UTF-8. NaN and infinity are accepted, as Python writes them. pairs: `object_pairs_hook` of `json.loads`.

    Raises:
        ValueError: it is not UTF-8, not JSON, or nested more than `DEPTH` deep.
    """
    return _parse(text, lambda decoded: json.loads(decoded, object_pairs_hook=pairs), "[{")


def parse_toml(text: str | bytes) -> dict[str, Any]:
    """Parse TOML in UTF-8.

    Raises:
        ValueError: it is not UTF-8, not TOML, or nested more than `DEPTH` deep.
    """
    return _parse(text, tomllib.loads, "[{.")


def read_json(path: Path, largest: int | None = None, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file. pairs: `object_pairs_hook` of `json.loads`.

    Raises:
        UserError: it cannot be read, has more than `largest` bytes (`LARGEST` if not given), or `parse_json` refuses it.
    """
    return _parsed(path, _content(path, largest), lambda data: parse_json(data, pairs), "JSON")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        UserError: as for `read_json`, or it holds anything else.
    """
    return _object(path, read_json(path))


def read_sealed_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object, check the checksum that it may end with, and return the other keys.

    Raises:
        UserError: as for `read_object`, or the checksum does not match.
    """
    data = _content(path)
    table = _object(path, _parsed(path, data, parse_json, "JSON"))
    try:
        check_seal(data)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    table.pop(SEALED, None)
    return table


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: it cannot be read, has more than `LARGEST` bytes, or `parse_toml` refuses it.
    """
    table: dict[str, Any] = _parsed(path, _content(path), parse_toml, "TOML")
    return table


def _content(path: Path, largest: int | None = None) -> bytes:
    largest = LARGEST if largest is None else largest
    try:
        with open(path, "rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if len(data) > largest:
        raise UserError(f"{path}: more than {largest >> 20} MiB, which is too much for such a file")
    return data


def _object(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object")
    return value


def _parsed(path: Path, data: bytes, parse: Callable[[bytes], Any], kind: str) -> Any:
    try:
        return parse(data)
    except ValueError as error:
        raise UserError(f"{path}: not {kind}: {error}") from None


def _parse(text: str | bytes, parse: Callable[[str], Any], openers: str) -> Any:
    """Parse a text. openers: the characters that open a level of nesting; counting them avoids walking most values."""
    decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
    try:
        value = parse(decoded)
    except RecursionError:
        value = None
    else:
        if sum(map(decoded.count, openers)) <= DEPTH or _is_shallow(value):
            return value
    raise ValueError(f"nested more than {DEPTH} deep")


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return True
        level = [inside for each in level for inside in (each.values() if isinstance(each, dict) else each)]
    return False


def entry_fault(error: Exception) -> str:
    """Describe the fault of an entry of a document: the key that it lacks, else the text of the error."""
    return f"no {error}" if isinstance(error, KeyError) else str(error)
