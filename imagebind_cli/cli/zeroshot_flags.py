"""The flags of `imagebind zeroshot` alone: classes, truth, report, linear probe and suites."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from imagebind_cli.cli.flags import Modality, Nms, output_option
from imagebind_cli.cli.suites import SuiteName, SuiteOption, SuiteRoot, suite_option

NamesRule = enum.StrEnum("NamesRule", ["max", "mean"])
Metric = enum.StrEnum("Metric", ["top1", "map"])

class_option = partial(typer.Option, rich_help_panel="Classes")
truth_option = partial(typer.Option, rich_help_panel="Truth and report")
probe_option = partial(typer.Option, rich_help_panel="Linear probe")


@dataclass(frozen=True)
class SuiteOptions:
    """A published evaluation, and the settings that the paper leaves open."""

    suite: str | None = None
    root: Path | None = None
    protocol: str | None = None
    suite_option: list[str] | None = None
    shots_option: list[str] | None = None
    fold: str | None = None


CLASS_FLAGS = {
    "labels": Annotated[
        str | None,
        class_option(metavar="A,B,C|FILE", help="Class names, `a,b|other name for b`, or a text, JSON, TOML, CSV or TSV file."),
    ],
    "classes": Annotated[
        Path | None, class_option(metavar="STORE|DIR", help="Examples: a store, or a folder with a folder for each class.")
    ],
    "class_modality": Annotated[
        Modality | None, class_option(metavar="MODALITY", help="Modality of the files in --classes DIR; by default that of the inputs.")
    ],
    "class_by": Annotated[
        str | None, class_option(metavar="folder|id|COLUMN", help="Class of each example: folder, id or a column. Default: class, else id.")
    ],
    "save_classes": Annotated[
        Path | None, class_option(metavar="STORE", hidden=True, help="Store the class vectors, for --classes of later runs.")
    ],
    "templates": Annotated[
        str | None,
        class_option(metavar="NAME|FILE", show_default="clip", help="Prompts: clip, plain, a modality's, or a file with {} in its lines."),
    ],
    "names": Annotated[
        NamesRule | None, class_option(help="Score by the best vector of a class (default: names) or their mean (examples).")
    ],
    "scale": Annotated[
        float | None,
        class_option(metavar="FACTOR", min=1e-6, hidden=True, help="Factor before the softmax, instead of the modality's logit scale."),
    ],
}
TRUTH_FLAGS = {
    "truth": Annotated[
        str | None,
        truth_option(metavar="folder|FILE|COLUMN", help="True labels: the folder's name, a file of id and label, or a column."),
    ],
    "metric": Annotated[
        Metric | None, truth_option(help="Metric for one label per input (top1), or several (map). Default: as in --truth.")
    ],
}
REPORT_FLAGS = {
    "top": Annotated[int, output_option("-k", "--top", metavar="N", min=1, help="Number of classes shown for each input.")],
    "stretches": Annotated[
        bool, output_option("--stretches", help="Join neighbouring windows with the same best class into a row (--pool none).")
    ],
    "nms": Nms,
    "draws": Annotated[int, truth_option(metavar="N", min=0, hidden=True, help="Bootstrap draws behind each interval; 0 for none.")],
    "report": Annotated[
        Path | None, truth_option(metavar="FILE", help="Write scores and their origin as JSON; - for stdout, instead of the rows.")
    ],
    "html": Annotated[Path | None, truth_option(metavar="FILE", help="Write scores, and pictures with regions, as a page.")],
    "plot": Annotated[Path | None, truth_option(metavar="FILE.png", help="Draw the confusion matrix; needs matplotlib.")],
}
PROBE_FLAGS = {
    "shots": Annotated[
        int | None, probe_option(metavar="N", min=1, help="Train a linear probe on N examples of each class and test it on the rest.")
    ],
    "shots_from": Annotated[Path | None, probe_option(metavar="STORE", help="Take the examples from this store; test on all inputs.")],
    "seed": Annotated[
        int | None, probe_option(metavar="N", min=0, show_default="0", hidden=True, help="Seed for the choice and order of the examples.")
    ],
    "epochs": Annotated[int | None, probe_option(metavar="N", min=1, hidden=True, help="Passes over the examples. Default: 50; depth 60.")],
    "learning_rate": Annotated[
        float | None, probe_option(metavar="RATE", min=0, hidden=True, help="Learning rate. Default: 0.0016; depth 0.01.")
    ],
    "weight_decay": Annotated[
        float | None, probe_option(metavar="DECAY", min=0, hidden=True, help="Weight decay. Default: 0.05; depth 0.")
    ],
    "shot_batch": Annotated[
        int | None, probe_option(metavar="N", min=1, show_default="16", hidden=True, help="Examples in a training step.")
    ],
}
SUITE_FLAGS = {
    "suite": SuiteName,
    "root": SuiteRoot,
    "protocol": Annotated[
        str | None,
        suite_option(metavar="FAMILY", hidden=True, help="Family whose prompts and settings to use. Default: that of the model."),
    ],
    "suite_option": SuiteOption,
    "shots_option": Annotated[
        list[str] | None,
        suite_option(metavar="NAME=VALUE", hidden=True, help="Option of the suite that --shots takes its examples from: split=train."),
    ],
    "fold": Annotated[
        str | None,
        suite_option(metavar="N", show_default="1", hidden=True, help="Fold to test --shots on; the others are for training."),
    ],
}
