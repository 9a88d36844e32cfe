"""List models, describe one, and check that its files still match their records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from imagebind_cli import registry
from imagebind_cli.checksums import check_seal
from imagebind_cli.documents import read_object
from imagebind_cli.encoder import IMAGEBIND, build_encoder
from imagebind_cli.errors import UserError
from imagebind_cli.weights import download, foreign_config, model_config
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.find import BUNDLED, default_name
from imagebind_cli.weights.origin import count_files, file_hash, read_origin, recorded_files
from imagebind_cli.weights.published import published_models
from imagebind_cli.weights.verified import weight_fault

CARD = "CARD.md"  # in a model's folder: what it can do, what it learned from and what its user must know


def known_models() -> list[dict[str, Any]]:
    """Return the models known by name and those fetched from a hub: name, family, state, licence, about, and whether it is the default."""
    published = published_models()
    rows: list[dict[str, Any]] = []
    for name in model_config.packaged_names():
        config = model_config.packaged_config(name)
        if name in published:
            continue
        state = "config only, to train from" if config.rule_seed is None else "ready, made by rule, untrained"
        rows.append({"name": name, "family": config.family, "state": state, "licence": config.licence, "about": config.about})
    for name, model in published.items():
        state = "fetched" if download.pulled_folder(model.place) else f"not here; imagebind weights pull {name}"
        rows.append({"name": name, "family": model.family, "state": state, "licence": model.licence, "about": model.about})
    if model_config.is_bundled(BUNDLED):
        bundled = foreign_config.read_config(Path(str(model_config.CONFIGS / BUNDLED / "config.json")))
        inside = {"family": bundled.family, "state": "ready, inside the package", "licence": bundled.licence, "about": bundled.about}
        rows.append({"name": BUNDLED, **inside})
    rows.sort(key=lambda row: (row["family"] != IMAGEBIND, row["family"], row["name"]))
    places = {model.place for model in published.values()}
    for address in download.pulled_addresses():
        if address not in places:
            rows.append({"name": address, "family": _family_of(address), "state": "fetched", "licence": None, "about": ""})
    return [{**row, "default": row["name"] == default_name()} for row in rows]


def _family_of(address: str) -> str:
    """Return the family of a fetched model, by its config alone; "" where that does not tell."""
    with suppress(UserError):
        folder = download.folder_of(address)
        path = folder / "config.json"
        if path.is_file() and "format" in read_object(path):
            return foreign_config.read_config(path).family
        if (published := foreign_config.published_folder(folder)) is not None:
            return foreign_config.model_config_of(published[0]).family
    return ""


def describe_model(found: Checkpoint) -> dict[str, Any]:
    """Describe a model: its origin and licence, and of each encoder the parameters, sizes and fingerprint; then its card."""
    encoders: dict[str, dict[str, Any]] = {}
    for name, encoder in found.config.encoders.items():
        encoders[name] = {
            "parameters": sum(tensor.numel() for tensor in build_encoder(registry.modality(name, encoder), encoder).parameters()),
            "width": encoder.trunk.width,
            "layers": encoder.trunk.layers,
            "heads": encoder.trunk.heads,
            "input": list(encoder.shape),
            "fingerprint": found.fingerprint(name),
        }
    card = Path(found.place) / CARD
    return {
        "name": found.config.name,
        "about": found.config.about,
        "family": found.config.family,
        "place": found.place,
        "licence": found.config.licence or "not stated",
        "dim": found.config.dim,
        "untrained": found.untrained,
        **({"unfinished": found.unfinished} if found.unfinished else {}),
        **({} if (rounded := found.config.rounded) is None else {"rounded": dict(rounded)}),
        "origin": dict(found.config.origin) or read_origin(_folder_of(found)),
        "parameters": sum(encoder["parameters"] for encoder in encoders.values()),
        "encoders": encoders,
        **({"card": card.read_text(encoding="utf-8", errors="replace")} if card.is_file() else {}),
    }


def source_record(found: Checkpoint) -> dict[str, Any]:
    """Return where a model's weights are from, for the records of models made from it."""
    record: dict[str, Any] = {"from": found.place, **read_origin(_folder_of(found))}
    if (path := Path(found.place)).is_file():
        record["sha256"] = file_hash(path)
    trained = {key: value for key, value in found.config.origin.items() if key in ("trained", "steps")}
    return record | trained


def count_recorded_files(found: Checkpoint) -> int:
    """Return how many files of a model have a record of their size and hash."""
    return count_files(_folder_of(found)) + len(found.config.files)


def differing_files(found: Checkpoint) -> Iterator[str]:
    """Read every recorded file of a model, and yield a line for each that differs from its record."""
    folder = _folder_of(found)
    with suppress(FileNotFoundError):
        try:
            check_seal((folder / "config.json").read_bytes())
        except ValueError as error:
            yield f"config.json: {error}"
    for name, record in {**recorded_files(folder), **found.config.files}.items():
        if fault := weight_fault(folder / name, record):
            yield f"{name}: {fault}"


def _folder_of(found: Checkpoint) -> Path:
    place = Path(found.place)
    return place if place.is_dir() else place.parent
