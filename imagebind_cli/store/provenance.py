"""The provenance of a store: the record of how its vectors were made, and the refusal to mix two kinds of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.checksums import SEALED, check_seal, seal
from imagebind_cli.errors import UserError
from imagebind_cli.files import write_text
from imagebind_cli.fingerprint import is_earlier
from imagebind_cli.registry import with_default_options

FREE = ("assumptions", "version", "folder")  # keys that may differ between two runs on one store


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first key in which two records differ and must not; None if there is none.

    An option that a record lacks, because it did not exist yet, was at its default.
    """
    one, other = ({**record, "options": with_default_options(record.get("modality", ""), record.get("options"))} for record in (one, other))
    return next((key for key in {**one, **other} if key not in FREE and one.get(key) != other.get(key)), None)


def write_provenance(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record to a file, with its checksum."""
    write_text(path, seal(json.dumps(record, indent=2)) + "\n")


def parse_provenance(text: str | bytes) -> tuple[dict[str, Any], bool]:
    """Return a record, and whether it has a checksum.

    Raises:
        ValueError: it is not JSON, or does not match its checksum.
    """
    sealed = check_seal(text.encode() if isinstance(text, str) else text)
    record = json.loads(text)
    record.pop(SEALED, None)
    return record, sealed


def check_alike(path: Path, provenance: Mapping[str, Any], first: Path, first_provenance: Mapping[str, Any]) -> None:
    """Refuse two stores that cannot be joined.

    Raises:
        UserError: they were made with different models, modalities, number types or choices.
    """
    key = difference(provenance, first_provenance)
    if key == "weights":
        refuse_earlier((path, provenance), (first, first_provenance))
    if key is not None:
        raise UserError(
            f"{path}: made with {key} {provenance.get(key)!r}, {first} with {first_provenance.get(key)!r}; they cannot be one store"
        )


def check_resumable(path: Path, before: Mapping[str, Any], provenance: dict[str, Any]) -> None:
    """Refuse to continue a store of another provenance; take over the assumptions it records.

    Raises:
        UserError: it was made with another model, modality, number type or choice.
    """
    key = difference(provenance, before)
    if key == "weights":
        refuse_earlier((path, before))
    if key is not None:
        raise UserError(f"{path}: made with {key} {before.get(key)!r}; this run has {provenance.get(key)!r}; write to another file")
    provenance["assumptions"] = list(before.get("assumptions", []))


def refuse_earlier(*stores: tuple[Path | str, Mapping[str, Any]]) -> None:
    """Refuse stores, each a place and its record, whose fingerprints of weights follow the rule of an earlier version.

    Raises:
        UserError: one of them does, so that it cannot be compared although the weights may be the same.
    """
    for place, provenance in stores:
        if is_earlier(provenance.get("weights")):
            raise UserError(
                f"{place}: made by an earlier version of imagebind, whose fingerprints of weights cannot be compared with today's; "
                "embed the inputs again, into another file"
            )


def provenance_path(path: Path) -> Path:
    """Return the path of the provenance of a file that cannot hold it: `NAME.made.json`."""
    return path.with_suffix(".made.json")


def check_provenance_file(path: Path, provenance: dict[str, Any]) -> None:
    """Check the record beside a file, or create it."""
    record = provenance_path(path)
    if path.exists() and path.stat().st_size:
        if not record.exists():
            raise UserError(f"{path}: exists and was not made by imagebind embed; write to another file")
        try:
            before, _ = parse_provenance(record.read_bytes())
        except ValueError as error:
            reason = "not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{record}: {reason}; without it {path} cannot be continued") from None
        check_resumable(path, before, provenance)
    write_provenance(record, provenance)
