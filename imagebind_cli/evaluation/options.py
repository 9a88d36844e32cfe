"""The choices of a user about a classification: the classes, the truth and the probe. Imports nothing heavy: flags are made from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UsageError, UserError


@dataclass(frozen=True)
class ClassOptions:
    """Which classes there are, and how each becomes a vector: by its names in prompts, or by examples.

    labels: class names, as `read_labels` takes them: typed, a file, a list, or a mapping of class to names.
    classes: a store, or a folder with a folder of examples for each class, in place of labels.
    class_modality: what the files in that folder are; the inputs' modality if None.
    class_by: which class a row of `classes` is of: `folder`, `id` or a manifest column; None for the column `class`, else the id.
    save_classes: a store to write the class vectors to, for `classes` of later runs.
    templates: prompts, a set by name or a file; None for the suite's, else CLIP's.
    names: `max` or `mean` of a class's several vectors; None for the maximum over names, the mean over examples.
    scale: the factor on cosines before the softmax; None for the modality's logit scale.
    """

    labels: str | Sequence[Any] | Mapping[str, Any] | None = None
    classes: Path | str | None = None
    class_modality: str | None = None
    class_by: str | None = None
    save_classes: Path | str | None = None
    templates: str | None = None
    names: str | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.classes is not None:
            raise UsageError("--labels and --classes exclude each other: names in text, or classes by example")
        for flag, value in {"--class-modality": self.class_modality, "--class-by": self.class_by}.items():
            if value is not None and self.classes is None:
                raise UsageError(f"{flag}: it belongs to --classes")
        if self.names not in (None, "max", "mean"):
            raise UsageError(f"unknown --names {self.names!r}; choose from max, mean")


@dataclass(frozen=True)
class TruthOptions:
    """The true labels of the inputs, and how a run is measured against them.

    truth: `folder` for the name of the folder an input is in, a file of ids and labels, a manifest column, or a mapping of id to label or
    labels. metric: `top1` for one label an item, `map` for several; None to let the truth decide.
    """

    truth: str | Mapping[str, Any] | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.metric not in (None, "top1", "map"):
            raise UsageError(f"unknown --metric {self.metric!r}; choose from top1, map")


@dataclass(frozen=True)
class ReportOptions:
    """How much a run reports.

    top: classes in each row. draws: bootstrap draws behind each interval; 0 for no intervals.
    confusion: refuse a run that has no confusion matrix, before anything is embedded. stretches: join neighbouring windows of one best class.
    nms: leave out regions whose intersection over union with a more certain one of the same class in their picture is more than this.
    """

    top: int = 5
    draws: int = 1000
    confusion: bool = False
    stretches: bool = False
    nms: float | None = None

    def check_metric(self, metric: str) -> None:
        """Refuse a confusion matrix where there is none.

        Raises:
            UserError: items have several labels, or are searched for and not classified.
        """
        if self.confusion and metric != "top1":
            raise UserError(f"--plot draws a confusion matrix, which needs one label for each item; the metric is {metric}")


@dataclass(frozen=True)
class ProbeOptions:
    """A linear probe trained on a few examples. None means the published value, or for the default where none is published.

    shots: examples of each class. shots_from: a store to draw them from, so that all inputs are tested; None for the inputs themselves.
    seed: of the choice of examples and their order. shot_batch: examples in a training step.
    """

    shots: int | None = None
    shots_from: Path | str | None = None
    seed: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    shot_batch: int | None = None
