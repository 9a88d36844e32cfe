"""What a model consists of, as data: `ModelConfig`, our JSON of it, and the configs in the package."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from imagebind_cli.checksums import SEALED, seal
from imagebind_cli.documents import parse_json
from imagebind_cli.encoder import IMAGEBIND, EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.transformer import Size, TrunkConfig
from imagebind_cli.weights.origin import FileRecord

FORMAT = 1
CONFIGS = resources.files("imagebind_cli") / "models"


class BaseRecord(TypedDict):
    """The model under a run's changed weights, and their fingerprint when the run began."""

    model: str
    weights: str


Rounding = Literal["bf16", "fp16", "int8"]


class RoundedRecord(TypedDict):
    """The number type that weights were rounded to, and the fingerprints of those that they were made from, by encoder.

    cosines: between vectors before and after, by encoder: `mean` and `lowest` of generated inputs.
    """

    dtype: Rounding
    weights: Mapping[str, str]
    cosines: NotRequired[Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class ModelConfig:
    """A model: its encoders and where it comes from.

    name: the model's name in outputs. dim: size of the joint space. encoders: by registry name; a model need not have all.
    about: one line for people. licence: of the weights; None where there are none. address: where the weights are published.
    rule_seed: the seed from which weights are made by rule, for a model that needs no file. origin: what a converted folder was made from.
    files: size and SHA-256 of the weight files beside a folder's `config.json`; in a training run's folder also their encoder.
    bases: in such a folder, the model under each encoder's changed weights, and its fingerprint.
    rounded: the number type that the weights were rounded to, if `weights convert --dtype` did.
    trained_on: for an encoder, what it has seen of the data of evaluation suites, in words, by suite: its scores there are not held out.
    """

    name: str
    dim: Size
    encoders: Mapping[str, EncoderConfig]
    about: str = ""
    licence: str | None = None
    address: str | None = None
    rule_seed: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    bases: Mapping[str, BaseRecord] = field(default_factory=dict)
    rounded: RoundedRecord | None = None
    trained_on: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The published system that the encoders are of: one for all, but where training bound an encoder to another family's space."""
        return next((encoder.family for encoder in self.encoders.values()), IMAGEBIND)

    def to_json(self) -> str:
        """Return the text of a `config.json`, which `from_json` reads back to an equal config."""
        values = dataclasses.asdict(self)
        values["encoders"] = {
            name: {key: value for key, value in encoder.items() if key != "dim"} for name, encoder in values["encoders"].items()
        }
        return seal(json.dumps({"format": FORMAT, **values}, indent=2)) + "\n"


def from_json(text: str | bytes, place: str) -> ModelConfig:
    """Read a config in our format from the text of a file.

    Raises:
        UserError: not JSON, and as `from_values`. A wrong checksum is for `weights verify`: people edit this file.
    """
    try:
        values = parse_json(text)
    except ValueError as error:
        raise UserError(f"{place}: not JSON: {error}") from None
    return from_values(values, place)


def from_values(values: Any, place: str) -> ModelConfig:
    """Make a config of what its JSON holds. place: names the file in messages.

    Raises:
        UserError: another format, a missing key, an unknown one, with the nearest known one, or a value that no model can have.
    """
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{place}: not a model config of format {FORMAT}")
    values = {key: value for key, value in values.items() if key not in ("format", SEALED)}
    tables = values.get("encoders", {})
    if not isinstance(tables, dict) or not all(
        isinstance(table, dict) and isinstance(table.get("trunk", {}), dict) for table in tables.values()
    ):
        raise UserError(f"{place}: not a model config: encoders must be a table of tables")
    encoders = {}
    for name, table in tables.items():
        here = f"{place}: encoders.{name}"
        trunk = _build(TrunkConfig, table.get("trunk", {}), f"{here}.trunk")
        encoders[name] = _build(EncoderConfig, {**table, "dim": values.get("dim"), "trunk": trunk}, here)
    families = {encoder.family for encoder in encoders.values()}
    if len(families) > 1 and not _was_trained(values):  # training binds an encoder to the space of a frozen one, of whatever family
        raise UserError(f"{place}: encoders of several families: {', '.join(sorted(families))}; their vectors have no common space")
    return _build(ModelConfig, {**values, "encoders": encoders}, place)


def _was_trained(values: Mapping[str, Any]) -> bool:
    """Check whether a config says that its model, or one that it was made from, was trained here."""
    origin = values.get("origin")
    origins = [origin, *(sources if isinstance(sources := origin.get("sources"), list) else [])] if isinstance(origin, dict) else []
    return bool(values.get("bases")) or any(isinstance(each, dict) and "trained" in each for each in origins)


def packaged_config(name: str) -> ModelConfig:
    """Read one of the configs in the package: `huge`, `base`, `tiny`."""
    return from_json((CONFIGS / f"{name}.json").read_bytes(), f"{name}.json")


def is_bundled(name: str) -> bool:
    """Check whether a trained model of this name is inside the package."""
    return (CONFIGS / name / "config.json").is_file()


def packaged_names() -> list[str]:
    """List the names that `packaged_config` knows."""
    return sorted(entry.name.removesuffix(".json") for entry in CONFIGS.iterdir() if entry.name.endswith(".json"))


_checks = cache(TypeAdapter)


def _build(kind: type, values: Mapping[str, Any], place: str) -> Any:
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    reject_unknown_keys(values, known, place)
    try:
        return _checks(kind).validate_python(values)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise UserError(f"{place}: {where}{': ' * bool(where)}{fault['msg'].removeprefix('Value error, ')}") from None


def reject_unknown_keys(values: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
    """Raise a UserError for a key that is not known, with the nearest known one."""
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise UserError(f"{place}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
