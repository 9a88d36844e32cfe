"""What a model consists of, as data: `ModelConfig`, our JSON of it, and the configs in the package."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.transformer import TrunkConfig

FORMAT = 1
CONFIGS = resources.files("imagebind_cli") / "models"


@dataclass(frozen=True)
class ModelConfig:
    """A model: its encoders and where it comes from.

    name: the model's name in outputs. dim: size of the joint space. encoders: by registry name; a model need not have all.
    about: one line for people. licence: of the weights; None where there are none. address: where the weights are published.
    rule_seed: the seed from which weights are made by rule, for a model that needs no file. origin: what a converted folder was made from.
    files: size and SHA-256 of the weight files beside a folder's `config.json`; in a training run's folder also their encoder.
    bases: in such a folder, the model under each encoder's changed weights, and its fingerprint.
    trained_on: for an encoder, what it has seen of the data of evaluation suites, in words, by suite: its scores there are not held out.
    """

    name: str
    dim: int
    encoders: Mapping[str, EncoderConfig]
    about: str = ""
    licence: str | None = None
    address: str | None = None
    rule_seed: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trained_on: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text of a `config.json`, which `from_json` reads back to an equal config."""
        values = dataclasses.asdict(self)
        values["encoders"] = {
            name: {key: value for key, value in encoder.items() if key != "dim"} for name, encoder in values["encoders"].items()
        }
        return json.dumps({"format": FORMAT, **values}, indent=2) + "\n"


def read_config_text(path: Path) -> str:
    """Read the text of a config file.

    Raises:
        UserError: it is not text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged: {error}; fetch or convert the model again") from None


def from_json(text: str, place: str) -> ModelConfig:
    """Read a config in our format. place: names the file in messages.

    Raises:
        UserError: not JSON, another format, a missing key, or an unknown one, with the nearest known one.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{place}: not a model config of format {FORMAT}")
    values = {key: value for key, value in values.items() if key != "format"}
    tables = values.get("encoders", {})
    if not isinstance(tables, dict) or not all(
        isinstance(table, dict) and isinstance(table.get("trunk", {}), dict) for table in tables.values()
    ):
        raise UserError(f"{place}: not a model config: encoders must be a table of tables")
    encoders = {
        name: _build(
            EncoderConfig, {**encoder, "dim": values.get("dim"), "trunk": _build(TrunkConfig, encoder.get("trunk", {}), place)}, place
        )
        for name, encoder in tables.items()
    }
    return _build(ModelConfig, {**values, "encoders": encoders}, place)


def packaged_config(name: str) -> ModelConfig:
    """Read one of the configs in the package: `huge`, `base`, `tiny`."""
    return from_json((CONFIGS / f"{name}.json").read_text(), f"{name}.json")


def packaged_names() -> list[str]:
    """List the names that `packaged_config` knows."""
    return sorted(entry.name.removesuffix(".json") for entry in CONFIGS.iterdir() if entry.name.endswith(".json"))


def _build(kind: type, values: Mapping[str, Any], place: str) -> Any:
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    reject_unknown_keys(values, known, place)
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}: {error}") from None


def reject_unknown_keys(values: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
    """Raise a UserError for a key that is not known, with the nearest known one."""
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise UserError(f"{place}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
