"""Classification by names: how near each item is to its class's name as text, where text and that modality need never have met.

A class is the mean of its name's vectors in all templates, made a unit vector again (CLIP's prompt ensemble).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
from imagebind_cli.readers import read_source
from imagebind_cli.sources import Failure, Item, from_manifest
from imagebind_cli.training.parallel import Tower
from imagebind_cli.training.recipe import ZeroShot

CLIPS = 16
"""Clips to an encoder at once, always: figures must not depend on how fast files are read."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Labelled:
    """The items of a test, the number of each one's class, and the classes' names in order."""

    modality: str
    items: tuple[Item, ...]
    truth: tuple[int, ...]
    classes: tuple[str, ...]
    sentences: tuple[Item, ...]

    def class_vectors(self, text: Tower, say: Say) -> np.ndarray:
        """(classes, e) unit vectors."""
        rows = torch.from_numpy(embed(text, "text", self.sentences, say))  # (classes * templates, e)
        return F.normalize(rows.view(len(self.classes), -1, rows.shape[1]).mean(dim=1), dim=1).numpy()

    def item_vectors(self, tower: Tower, say: Say) -> np.ndarray:
        """(items, e) unit vectors; not numbers for an item that cannot be read."""
        return embed(tower, self.modality, self.items, say)


def read_test(test: ZeroShot) -> Labelled:
    """A test's items.

    Raises:
        UserError: no such file or column, or fewer than two classes.
    """
    items, labels = [], []
    for item in from_manifest(Path(test.data), (test.modality,)):
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
    return Labelled(test.modality, tuple(items), tuple(classes.index(label) for label in labels), classes, sentences)


def embed(tower: Tower, modality: str, items: Iterable[Item], say: Say) -> np.ndarray:
    """Unit vectors (n, e) float32 of items, each the mean of its clips'; not numbers for one that cannot be read, which is said."""
    items, config, face = list(items), tower.encoder.config, registry.face(modality)
    options = face.options()
    sums = torch.zeros(len(items), config.dim)
    engine = open_engine(lambda payload: read_source(face, payload, config, options), default_workers())
    steps = pipeline.decode(items, engine, ahead=CLIPS)
    for _, clips in groupby(_clips(steps, sums, say), key=lambda entry: entry[1].shape):  # a picture and a video differ in shape
        while some := list(islice(clips, CLIPS)):
            owners = torch.tensor([owner for owner, _ in some])
            sums.index_add_(0, owners, tower.call(torch.stack([clip for _, clip in some])).cpu())
    norms = sums.norm(dim=1, keepdim=True)
    return (sums / norms.where(norms > 0, torch.nan)).numpy()


def _clips(steps: Iterable[pipeline.Step | None], sums: Tensor, say: Say) -> Iterator[tuple[int, Tensor]]:
    """Each clip with its item's number; an item that breaks midway is taken out again."""
    number = 0
    for step in steps:
        if step is None:
            continue
        item, came = step
        if isinstance(came, Sample):
            yield from ((number, clip) for clip in came.tensor)
            continue
        if came is not None:
            say(f"{item.id}: {came.reason}")
            sums[number] = torch.nan
        number += 1
