"""Publish on the Hugging Face hub: a model as a model, a store as a dataset, each with a card. `push_model`, `push_store`."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.store import StoreReader, open_store
from imagebind_cli.store.describe import describe_store
from imagebind_cli.store.export import export
from imagebind_cli.weights.describe import CARD, describe_model, differing_files
from imagebind_cli.weights.fetch import public_address
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.hub import hub_client, split_place

README, CONFIG = "README.md", "config.json"
DATASET = "hf://datasets/"
LICENCES = {
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
}  # the hub's own names
ROWS_BY_SIZE = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))


@dataclass(frozen=True)
class Upload:
    """An upload. sizes: the bytes of each file, by its name there. card: the text of README.md. address: the page, once it is there."""

    place: str
    kind: Literal["model", "dataset"]
    sizes: Mapping[str, int]
    card: str
    address: str = ""

    @property
    def repository(self) -> str:
        """The repository, as owner/name."""
        return split_place(self.place.replace(DATASET, "hf://", 1))[0]


def push_model(folder: str | Path, place: str, *, licence: str | None = None, private: bool = False, dry_run: bool = False) -> Upload:
    """Upload a model folder: config, safetensors, and its card with what the hub shows. What is there already is not sent again.

    Args:
        folder: as `weights convert` or a finished training run writes it. place: hf://owner/repository.
        licence: of the weights, where the config does not state it. private: whether a new repository is.
        dry_run: only return what would be uploaded.
    Raises:
        UsageError: `place` is not an address on the hub, or has a revision. UserError: the folder is not a whole model of its own, its files are
            not those that were recorded, it has no licence, or the hub refuses.
    """
    _check_place(place)
    found = find_checkpoint(str(folder))
    path = Path(found.place)
    if not (path / CONFIG).is_file() or found.config.bases or found.unfinished:
        what = found.unfinished or ("needs the model it was trained from" if found.config.bases else "is not a model folder")
        raise UserError(f"{folder}: {what}; write a whole one first: imagebind weights convert {folder} DEST")
    if fault := next(differing_files(found), None):
        raise UserError(f"{path}: {fault}; nothing was published")
    licence = licence or found.config.licence
    if licence is None:
        raise UserError(f"{folder}: its config states no licence; name it with --licence")
    about = describe_model(found)
    config = replace(found.config, licence=licence, origin=_public_origin(found.config.origin))
    files: dict[str, Path | str] = {README: _model_card(about, licence), CONFIG: config.to_json()}
    files |= {name: path / name for name in found.config.files}
    files |= {name: path / name for name in ("LICENSE", CARD) if (path / name).is_file()}
    return _publish(place, "model", files, private, dry_run)


def push_store(store: str | Path | StoreReader, place: str, *, licence: str, private: bool = False, dry_run: bool = False) -> Upload:
    """Upload a store as a dataset of one Parquet file, whose card says how the vectors were made. Needs pyarrow.

    Args:
        place: hf://datasets/owner/repository. licence: of the vectors. private, dry_run: as in `push_model`.
    Raises:
        UsageError: `place` is not a dataset's address. UserError: the store cannot be read, pyarrow is not installed, or the hub refuses.
    """
    if not place.startswith(DATASET):
        raise UsageError(f"{place!r} is not {DATASET}owner/repository")
    _check_place(place.replace(DATASET, "hf://", 1))
    reader = store if isinstance(store, StoreReader) else open_store(store)
    with tempfile.TemporaryDirectory(prefix="imagebind-publish-") as temporary:
        table = Path(temporary) / f"{Path(reader.path).stem}.parquet"
        export(reader, table, "float32")
        files: dict[str, Path | str] = {README: _dataset_card(describe_store(reader), reader.dim, licence), f"data/{table.name}": table}
        return _publish(place, "dataset", files, private, dry_run)


def _public_origin(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's origin without the folders of this machine: of a path only the last part."""
    public: dict[str, Any] = {}
    for name, value in origin.items():
        if isinstance(value, Mapping):
            public[name] = _public_origin(value)
        elif isinstance(value, list | tuple):
            public[name] = [_public_origin(each) if isinstance(each, Mapping) else each for each in value]
        else:
            is_path = isinstance(value, str) and "://" not in value and os.sep in value
            public[name] = os.path.basename(value.rstrip(os.sep)) if is_path else value
    return public


def _check_place(place: str) -> None:
    _, revision = split_place(place)
    if revision is not None:
        raise UsageError(f"{place}: a revision cannot be chosen; uploads go to the main branch")


def _publish(place: str, kind: Literal["model", "dataset"], files: Mapping[str, Path | str], private: bool, dry_run: bool) -> Upload:
    """Upload files. files: their names there, and what is in each: a file here, or its text."""
    contents = {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}
    sizes = {name: len(content) if isinstance(content, bytes) else content.stat().st_size for name, content in contents.items()}
    upload = Upload(place, kind, sizes, str(files[README]))
    if dry_run:
        return upload
    from huggingface_hub import CommitOperationAdd

    hub = hub_client()
    additions = [CommitOperationAdd(name, content) for name, content in contents.items()]
    with _explained(place, hub.endpoint), _without_bars():
        hub.create_repo(upload.repository, repo_type=kind, private=private or None, exist_ok=True)
        hub.create_commit(upload.repository, additions, repo_type=kind, commit_message="Upload with imagebind-cli")
    return replace(upload, address=f"{hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{upload.repository}")


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the hub's client from drawing bars on stderr, also where that is no terminal."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled() or "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ:  # the user's own choice
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _explained(place: str, endpoint: str) -> Iterator[None]:
    """Turn what the hub's client raises into a line for the user."""
    try:
        yield
    except Exception as problem:  # its HTTP client's own errors (the client has changed before), or an answer of another shape
        cause = problem.__cause__ or problem  # it wraps what befell one file
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserError(f"{place}: the hub does not let you write there; log in with `hf auth login`, or set HF_TOKEN") from problem
        reason = public_address(" ".join(str(cause).split())) or type(cause).__name__
        raise UserError(
            f"{place}: {public_address(endpoint)} did not take the files ({reason}); the same command sends the rest"
        ) from problem


def _front_matter(fields: Mapping[str, str | Sequence[str]], licence: str) -> str:
    """Return the block of YAML that a card begins with, from which the hub reads what it shows."""
    known = licence.lower()
    lines = [f"license: {known}"] if known in LICENCES else ["license: other", f"license_name: {_quoted(licence)}"]
    for name, value in fields.items():
        lines += [f"{name}: {_quoted(value)}"] if isinstance(value, str) else [f"{name}:", *(f"- {_quoted(each)}" for each in value)]
    return "\n".join(["---", *lines, "---", ""])


def _quoted(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z][\w-]*", text)
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _model_card(about: Mapping[str, Any], licence: str) -> str:
    fields = {"library_name": "imagebind-cli", "tags": ["imagebind", about["family"], *about["encoders"]]}
    head = _front_matter(fields, licence)
    if "card" in about:
        return f"{head}\n{about['card']}"
    rows = [f"| {name} | {row['parameters']:,} | `{row['fingerprint']}` |" for name, row in about["encoders"].items()]
    lines = [
        f"# {about['name']}", "", about["about"], "", f"Vectors of {about['dim']} numbers, of the family {about['family']}.", "",
        "| encoder | parameters | fingerprint |", "|---|--:|---|", *rows, "",
        "Use it with imagebind-cli: `imagebind embed image photos/ --model hf://OWNER/REPOSITORY`", "",
    ]  # fmt: skip
    return f"{head}\n" + "\n".join(lines)


def _dataset_card(about: Mapping[str, Any], dim: int, licence: str) -> str:
    size = next((name for rows, name in ROWS_BY_SIZE if about["rows"] < rows), "n>10M")
    head = _front_matter({"tags": ["imagebind", "embeddings"], "size_categories": [size]}, licence)
    made = {name: value for name, value in about["made"].items() if isinstance(value, str | int | float)}
    facts = [f"| {name} | {value} |" for name, value in {"rows": about["rows"], "dim": dim, **made}.items()]
    lines = [
        f"# {Path(about['store']).stem}", "", "Unit vectors of one joint space, a row each: `id`, `modality`, `start`, `end`, `meta`, `embedding`.",
        "Vectors of another model, or of another family, cannot be compared with these.", "", "| | |", "|---|---|", *facts, "",
    ]  # fmt: skip
    return f"{head}\n" + "\n".join(lines)
