"""The provenance of a store: the record of how its vectors were made, and the refusal to mix two kinds of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.checksums import SEALED, check_seal
from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError
from imagebind_cli.files import write_sealed_json
from imagebind_cli.fingerprint import is_earlier
from imagebind_cli.options import both_values
from imagebind_cli.registry import with_default_options

NEEDED = ("modality", "dim", "array")  # keys without which a store cannot be read
RIGHT: dict[str, Callable[[Any], bool]] = {  # whether a store may have a value under a key
    **dict.fromkeys(("modality", "model", "weights"), lambda value: isinstance(value, str)),
    "dim": lambda value: isinstance(value, int) and 0 < value <= 1 << 20,
    "array": lambda value: value in ("float32", "float16"),
    "folder": lambda value: value is None or isinstance(value, str),
    "scale": lambda value: isinstance(value, int | float),
    "assumptions": lambda value: isinstance(value, list) and all(isinstance(note, str) for note in value),
}
# Keys that may differ between two runs on one store. None of them changes a vector; a licence may be worded anew.
FREE = ("assumptions", "version", "folder", "licence")


def parse_provenance(text: str | bytes) -> tuple[dict[str, Any], bool]:
    """Parse the record of how a store was made; also return whether it has a checksum.

    Raises:
        ValueError: it is not such a record, does not match its checksum, or lacks a key without which no store can be read.
    """
    record = parse_json(text)
    if not isinstance(record, dict):
        raise ValueError("the record of how it was made is not a JSON object")
    if lacking := [key for key in NEEDED if key not in record]:
        raise ValueError(f"the record of how it was made lacks {lacking[0]}")
    wrong = next((key for key, is_right in RIGHT.items() if key in record and not is_right(record[key])), None)
    if wrong is not None:
        raise ValueError(f"the record of how it was made has {wrong} {record[wrong]!r:.40}, which no store has")
    try:
        sealed = check_seal(text)
    except ValueError as error:
        raise ValueError(f"the record of how it was made is {error}") from None
    record.pop(SEALED, None)
    return record, sealed


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return the first key in which two records differ and must not, and what each says, in words; None if there is none.

    An option that a record lacks, because it did not exist yet, was at its default; a family that it lacks may be any.
    """
    if "family" not in one or "family" not in other:
        one, other = ({key: value for key, value in record.items() if key != "family"} for record in (one, other))
    one, other = ({**record, "options": with_default_options(record.get("modality", ""), record.get("options"))} for record in (one, other))
    key = next((key for key in {**one, **other} if key not in FREE and one.get(key) != other.get(key)), None)
    if key is None:
        return None
    ones, others = one.get(key), other.get(key)
    if key == "rounded":
        return key, weights_in_words(ones), weights_in_words(others)
    if key in ("boxes", "merge"):
        return key, *both_values(key, ones, others)
    if key == "options" and isinstance(ones, Mapping) and isinstance(others, Mapping):
        name = next(name for name in {**ones, **others} if ones.get(name) != others.get(name))
        return key, *both_values(name, ones.get(name), others.get(name))
    return key, f"{key} {ones!r}", repr(others)


def weights_in_words(rounded: str | None) -> str:
    """Say what `rounded` of a record means: the number type to which the weights were rounded, if they were."""
    return f"weights rounded to {rounded}" if rounded else "exact weights"


def check_alike(path: Path | str, provenance: Mapping[str, Any], first: Path | str, first_provenance: Mapping[str, Any]) -> None:
    """Refuse two stores, each a place and its record, that cannot be joined.

    Raises:
        UserError: they were made with different models, modalities, number types or choices.
    """
    refuse_other_family((path, provenance), (first, first_provenance))
    if (found := difference(provenance, first_provenance)) is None:
        return
    key, its, firsts = found
    if key == "weights":
        refuse_earlier((path, provenance), (first, first_provenance))
    raise UserError(f"{path}: made with {its}, {first} with {firsts}; they cannot be one store")


def check_resumable(path: Path, before: Mapping[str, Any], provenance: dict[str, Any]) -> None:
    """Refuse to continue a store of another provenance, and copy its assumptions into `provenance`.

    Raises:
        UserError: it was made with another model, modality, number type or choice.
    """
    refuse_other_family((path, before), ("this run", provenance))
    if (found := difference(before, provenance)) is not None:
        key, its, ours = found
        if key == "weights":
            refuse_earlier((path, before))
        raise UserError(f"{path}: made with {its}; this run has {ours}; write to another file")
    provenance["assumptions"] = list(before.get("assumptions", []))


def refuse_other_family(one: tuple[Path | str, Mapping[str, Any]], other: tuple[Path | str, Mapping[str, Any]]) -> None:
    """Refuse vectors, each a place and its record, of two families; a family that a record does not name may be any.

    Raises:
        UserError: they are of two.
    """
    (place, made), (other_place, other_made) = one, other
    family, other_family = made.get("family"), other_made.get("family")
    if family and other_family and family != other_family:
        raise UserError(
            f"{place}: vectors of a model of the family {family}; {other_place} has the family {other_family}, and two families have no common space"
        )


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
            raise UserError(f"{record}: {error}; without it {path} cannot be continued") from None
        check_resumable(path, before, provenance)
    write_sealed_json(record, provenance)
