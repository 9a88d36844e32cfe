"""Zero-shot classification tests of a run: labelled items, classified by the text embeddings of the label names.

Text and the items' modality need never have been paired in training. A class is the normalised mean of its name's embeddings in all templates
(CLIP's prompt ensemble).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli import pipeline, registry
from imagebind_cli.encoder import Sample
from imagebind_cli.engine import default_workers, open_engine
from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.readers import read_source
from imagebind_cli.sources import Failure, Item, from_manifest
from imagebind_cli.training.recipe import ZeroShotRecipe
from imagebind_cli.training.towers import Tower

CLIPS = 16  # in a batch, always: scores must not depend on how fast files are read


@dataclass(frozen=True)
class ZeroShotTest:
    """A test's items, the number of each item's class, and the names of the classes in order. sentences: every name in every template."""

    modality: str
    items: tuple[Item, ...]
    truth: tuple[int, ...]
    classes: tuple[str, ...]
    sentences: tuple[Item, ...]

    def class_vectors(self, text: Tower, listener: Listener) -> np.ndarray:
        """Embed the classes as (classes, e) unit vectors."""
        rows = torch.from_numpy(embed_with_tower(text, registry.TEXT, self.sentences, listener))  # (classes * templates, e)
        return F.normalize(rows.view(len(self.classes), -1, rows.shape[1]).mean(dim=1), dim=1).numpy()

    def item_vectors(self, tower: Tower, listener: Listener) -> np.ndarray:
        """Embed the items as (items, e) unit vectors; NaN for an item that cannot be read."""
        return embed_with_tower(tower, self.modality, self.items, listener)


def read_zeroshot_test(test: ZeroShotRecipe) -> ZeroShotTest:
    """Read the manifest of a test.

    Raises:
        UserError: a file or column is missing, or there are fewer than two classes.
    """
    items, labels = [], []
    for item in from_manifest(Path(test.data), (test.modality,), test.columns):
        if isinstance(item, Failure):
            raise UserError(f"{test.data}: {item.id}: {item.reason}")
        if "label" not in item.meta:
            raise UserError(f"{test.data}: {item.id}: no 'label' in this row; it has {', '.join([test.modality, *item.meta])}")
        items.append(item)
        labels.append(str(item.meta["label"]))
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise UserError(f"{test.data}: {len(classes)} different labels; at least 2 are needed")
    sentences = tuple(Item(name, template.replace("{}", name)) for name in classes for template in test.templates)
    return ZeroShotTest(test.modality, tuple(items), tuple(classes.index(label) for label in labels), classes, sentences)


def embed_with_tower(tower: Tower, modality: str, items: Iterable[Item], listener: Listener) -> np.ndarray:
    """Embed items as unit vectors (n, e) float32, each the mean of its clips'; NaN for an item that cannot be read, which is reported."""
    items, config, face = list(items), tower.encoder.config, registry.face(modality)
    options = face.options()
    sums = torch.zeros(len(items), config.dim)
    engine = open_engine(lambda payload: read_source(face, payload, config, options), default_workers())
    steps = pipeline.decode(items, engine, ahead=CLIPS)
    for _, clips in groupby(_clips(steps, sums, listener), key=lambda entry: entry[1].shape):  # pictures and videos differ in shape
        while batch := list(islice(clips, CLIPS)):
            owners = torch.tensor([owner for owner, _ in batch])
            sums.index_add_(0, owners, tower.call(torch.stack([clip for _, clip in batch])).cpu())
    norms = sums.norm(dim=1, keepdim=True)
    return (sums / norms.where(norms > 0, torch.nan)).numpy()


def _clips(steps: Iterable[pipeline.Step | None], sums: Tensor, listener: Listener) -> Iterator[tuple[int, Tensor]]:
    """Yield each clip with its item's number; the sum of an item that fails midway becomes NaN."""
    number = 0
    for step in steps:
        if step is None:
            continue
        item, outcome = step
        if isinstance(outcome, Sample):
            yield from ((number, clip) for clip in outcome.tensor)
            continue
        if outcome is not None:
            listener.failure(item.id, outcome.reason)
            sums[number] = torch.nan
        number += 1
