"""Tasks of mteb on files of one's own, for the modalities that mteb has no name for: depth, thermal and motion, and any other.

mteb knows text, image, audio and video. These tasks keep each file as `{"depth": path}` in an image column, which `mteb.MTEBEncoder` reads as
what it says; the encoders of other packages cannot run them. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagebind_cli import registry
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.truth import labels_of
from imagebind_cli.integrations import not_installed
from imagebind_cli.sources import Failure, Inputs, Item

try:
    import datasets
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification
except ImportError:
    raise not_installed("mteb 2.20 or newer", "mteb") from None

SPLIT = "test"


def file_task(given: str) -> FilesZeroShot | FilesRetrieval:
    """Make a task from `MODALITY=PLACE`, zero-shot classification, or `QUERY-DOCUMENT=MANIFEST`, retrieval; see docs/integrations.md.

    Raises:
        UsageError: an unknown modality. UserError: the place cannot be used; it names a row.
    """
    names, _, place = given.partition("=")
    modalities = names.split("-")
    for name in modalities:
        registry.face(name)
    if len(modalities) > 2 or not place:
        raise UsageError(f"{given!r}: a task on files is MODALITY=FOLDER, MODALITY=MANIFEST or QUERY-DOCUMENT=MANIFEST")
    return FilesZeroShot(names, Path(place)) if len(modalities) == 1 else FilesRetrieval(modalities[0], modalities[1], Path(place))


class FilesZeroShot(AbsTaskZeroShotClassification):
    """Classify files by the names of their classes, `_` read as a space: those of their folders, or a manifest's column `label`."""

    input_column_name = "image"

    def __init__(self, modality: str, place: Path) -> None:
        """Take the files below a folder, or the rows of a manifest.

        Raises:
            UserError: a row cannot be used, has no label or several, or all have the same.
        """
        self.rows: list[tuple[Any, str]] = []
        for item in _items(place, (modality,)):
            labels = labels_of("folder" if place.is_dir() else "label", item.id, item.meta)
            if len(labels) != 1:
                raise UserError(f"{place}: {item.id} has {'no label' if not labels else 'several labels'}; each row needs one")
            self.rows.append((_cell(modality, item.payload), labels[0]))
        self.names = sorted({label for _, label in self.rows})
        if len(self.names) < 2:
            raise UserError(f"{place}: {len(self.names)} class in it; at least 2 are needed")
        self.metadata = _metadata(f"{modality}ZeroShot", place, "ZeroShotClassification", "i2t", "accuracy", self.rows)
        super().__init__()

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        """Make the data set of paths and labels."""
        cells, labels = zip(*self.rows, strict=True)
        table = {"image": list(cells), "label": [self.names.index(label) for label in labels]}
        self.dataset = datasets.DatasetDict({SPLIT: datasets.Dataset.from_dict(table)})  # type: ignore[assignment]
        self.data_loaded = True

    def unload_data(self) -> None:
        """Drop the datasets; mteb's own would drop this task's description with them."""
        self.dataset, self.data_loaded = None, False  # type: ignore[assignment]

    def get_candidate_labels(self) -> list[str]:
        """Return the classes in words."""
        return [name.replace("_", " ") for name in self.names]


class FilesRetrieval(AbsTaskRetrieval):
    """Find the document of each query among those of all rows; equal queries, such as a caption of several rows, share their documents."""

    def __init__(self, query: str, document: str, manifest: Path) -> None:
        """Take the rows of a manifest with a column for both modalities.

        Raises:
            UserError: a row cannot be used, or there is none.
        """
        if query == document:
            raise UsageError(f"{query}-{document}: two different modalities are needed")
        self.query, self.document = query, document
        self.rows = [(item.payload[query], item.payload[document]) for item in _items(manifest, (query, document))]
        category = f"{'t' if query == registry.TEXT else 'i'}2{'t' if document == registry.TEXT else 'i'}"
        self.metadata = _metadata(f"{query}To{document.capitalize()}", manifest, "Any2AnyRetrieval", category, "ndcg_at_10", self.rows)
        super().__init__()

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        """Make the datasets of queries and documents, and which belong together."""
        queries = {payload: f"q{number}" for number, payload in enumerate(dict.fromkeys(query for query, _ in self.rows))}
        documents = {payload: f"d{number}" for number, payload in enumerate(dict.fromkeys(document for _, document in self.rows))}
        relevant: dict[str, dict[str, int]] = {}
        for query, document in self.rows:
            relevant.setdefault(queries[query], {})[documents[document]] = 1
        split = RetrievalSplitData(
            queries=_table(self.query, queries), corpus=_table(self.document, documents), relevant_docs=relevant, top_ranked=None
        )
        self.dataset = {"default": {SPLIT: split}}
        self.data_loaded = True

    def unload_data(self) -> None:
        """Drop the datasets; mteb's own would drop this task's description with them."""
        self.dataset, self.data_loaded = None, False  # type: ignore[assignment]


def _items(place: Path, modalities: tuple[str, ...]) -> Iterator[Item]:
    """Yield the items of a folder or a manifest.

    Raises:
        UserError: one cannot be used, or there are none.
    """
    if not place.exists():
        raise UserError(f"{place}: no such folder or manifest")
    inputs = Inputs.of([place]) if place.is_dir() else Inputs.of((), place)
    if place.is_dir() and len(modalities) > 1:
        raise UserError(f"{place}: is a folder; pairs are rows of a manifest")
    count = 0
    for count, item in enumerate(inputs.items(modalities), 1):  # noqa: B007
        if isinstance(item, Failure):
            raise UserError(f"{item.id}: {item.reason}")
        yield item
    if not count:
        raise UserError(f"{place}: holds no {modalities[0]} inputs")


def _cell(modality: str, payload: Any) -> Any:
    """Return a value of an image column that says what it is.

    Raises:
        UserError: not a file, but for instance a part of one, which a table cannot hold.
    """
    if not isinstance(payload, str):
        raise UserError(f"{modality}: tasks on files take whole files; write parts and archives as files first")
    return {modality: payload}


def _table(modality: str, ids: dict[Any, str]) -> datasets.Dataset:
    """Return a data set of one modality: sentences in a text column, everything else in an image column."""
    if modality == registry.TEXT:
        return datasets.Dataset.from_dict({"id": list(ids.values()), "text": list(ids)})
    return datasets.Dataset.from_dict({"id": list(ids.values()), "image": [_cell(modality, payload) for payload in ids]})


def _metadata(name: str, place: Path, kind: Any, category: Any, score: str, rows: Any) -> TaskMetadata:
    """Describe a task for mteb, with a hash of its rows as the revision of its data."""
    digest = hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:40]
    stem = "".join(letter if letter.isalnum() else "-" for letter in place.stem)
    letters: dict[str, Any] = {"t": "text", "i": "image"}
    return TaskMetadata(
        name=f"{name[0].upper()}{name[1:]}.{stem}",
        description="Files of the user's own.",
        dataset={"path": place.name, "revision": digest},
        type=kind,
        category=category,
        modalities=sorted({letters[part] for part in category.split("2")}),
        eval_splits=[SPLIT],
        eval_langs=["eng-Latn"],
        main_score=score,
    )
