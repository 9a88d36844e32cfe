"""What `zeroshot` does once it knows what is asked: class vectors made or read, inputs classified, the run reported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli.cli.inputs import find_items
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.files import write_text
from imagebind_cli.space import Inputs, Space

if TYPE_CHECKING:
    from imagebind_cli.evaluation.classify import Batch, Classifier
    from imagebind_cli.evaluation.labels import Label
    from imagebind_cli.evaluation.prompts import Templates
    from imagebind_cli.evaluation.prototypes import Prototypes
    from imagebind_cli.evaluation.tally import Tally


@dataclass(frozen=True)
class Outputs:
    """What is written besides: the report as JSON and as a page, and a drawing of the confusion matrix; bootstrap draws; classes shown."""

    report: Path | None
    html: Path | None
    plot: Path | None
    draws: int
    top: int

    @property
    def rows(self) -> bool:
        """Whether stdout is for the rows."""
        return self.report != Path("-")

    def check(self, has_truth: bool) -> None:
        """Refuse now what could not be written after hours.

        Raises:
            UsageError: there is no truth to report on. UserError: no such folder, no matplotlib.
        """
        for path in filter(None, (self.report, self.html, self.plot)):
            if not has_truth:
                raise UsageError("--report, --html and --plot compare with the truth; give --truth")
            if not path.parent.is_dir():
                raise UserError(f"{path}: there is no folder {path.parent}")
            if path != Path("-") and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
                raise UserError(f"{path}: cannot be written to")
        if self.plot:
            from imagebind_cli.pages.classification import check_plot

            check_plot()

    def check_metric(self, metric: str) -> None:
        """Refuse to draw a confusion matrix where there is none.

        Raises:
            UserError: items have several labels, or are found and not classified.
        """
        if self.plot and metric != "top1":
            raise UserError(f"--plot draws which class is taken for which, and the metric is {metric}; that needs one label of each item")


def from_names(labels: list[Label], templates: Templates, space: Space, talk: Talk) -> Prototypes:
    """Class vectors of names in prompts."""
    from imagebind_cli.evaluation.labels import shared_names
    from imagebind_cli.evaluation.prototypes import from_prompts

    for name in shared_names(labels):
        say(f"the name {name!r} stands for more than one class; they cannot be told apart by it")
    made = space.made_of("text") | {"templates": templates.record()}
    return from_prompts(labels, templates, lambda sentences: space.sentences(sentences, talk), made)


def from_examples(place: Path, by: str | None, modality: str, space: Space, talk: Talk) -> Prototypes:
    """Class vectors of a store's rows, or of the files in a folder with a folder for each class.

    by: how a row's class is found, as `truth.label_by` takes it; None for the column `class`, else the id; in a folder, its folder.
    """
    from imagebind_cli.evaluation.classify import stored
    from imagebind_cli.evaluation.prototypes import from_rows
    from imagebind_cli.evaluation.truth import FOLDER, label_by
    from imagebind_cli.store import is_store, open_store

    if is_store(place):
        reader = space.admit(open_store(place))
        made, batches = dict(reader.provenance), stored(reader, metas=True)
    elif os.path.isdir(place):
        by = by or FOLDER
        inputs = Inputs(space, modality, [], find_items((modality,), [str(place)], None, False, others=talk.others)(None))
        made, batches = inputs.made()[0], inputs.batches(talk, lambda id: None)
    else:
        raise UserError(f"{place}: neither a store of imagebind embed nor a folder")
    rows = []
    for batch in batches:
        for id, meta, vector in zip(batch.ids, batch.metas, batch.vectors, strict=True):
            found = label_by(by or ("class" if "class" in meta else "id"), id, meta)
            if not found:
                raise UserError(f"{place}: {id} has no {by!r} to name its class; it has {', '.join(meta) or 'nothing'} beside its id")
            rows += [(label, id, vector) for label in found]
    if len({label for label, _, _ in rows}) < 2:
        raise UserError(
            f"{place}: {len({label for label, _, _ in rows})} classes in it; at least two are needed. --class-by says how they are named"
        )
    return from_rows(rows, made)


def check_new(path: Path) -> None:
    """Refuse a store of class vectors that exists: what is in it would be mixed with these."""
    from imagebind_cli.store import FORMATS

    if os.path.lexists(path):
        raise UserError(f"{path}: exists already")
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: unknown ending {path.suffix!r}; choose from {', '.join(FORMATS)}")


def keep(prototypes: Prototypes, path: Path) -> None:
    """Write class vectors to a store, the class of each row in its column `class`."""
    from imagebind_cli.store import Row, Store

    with Store(path, prototypes.made) as store:
        for owner, name, vector in zip(prototypes.owners, prototypes.names, prototypes.vectors, strict=True):
            label = prototypes.classes[owner]
            id = label if name == label else f"{label}={name}"  # as it would be typed; two classes may share a name
            store.append([Row(id, vector, meta={"class": label})])
    say(f"{path}: vectors of {len(prototypes.classes):,} classes")


def classify(batches: Iterable[Batch], classifier: Classifier, tally: Tally, outputs: Outputs, talk: Talk) -> None:
    """Score batches as they come: rows to stdout, counts to the tally."""
    from imagebind_cli.evaluation.classify import best

    for batch in batches:
        scores = classifier.score(batch.vectors)
        truths = tally.add(batch, scores)
        if outputs.rows:
            tops = best(classifier, scores, outputs.top)
            write(*map(_row, batch.ids, batch.spans, tops, truths))
        for id in batch.ids:
            talk.succeeded(id)


def _row(id: str, span: tuple[float, float] | None, top: list[Any], truth: Any) -> bytes:
    seconds = {"start": span[0], "end": span[1]} if span else {}
    known = {} if truth is None else {"truth": list(truth)}
    return json.dumps({"id": id, **seconds, "top": top, **known}).encode() + b"\n"


def say_gaps(tally: Tally) -> bool:
    """Say where truth and items do not meet. Whether ids of the truth were missed, which is a failure.

    Raises:
        UserError: no item has truth.
    """
    assert tally.truth is not None
    unmet = tally.truth.unmet()
    if not tally.scored:
        known = f"; it has ids as {unmet[0]!r}" if unmet else ""
        raise UserError(f"{tally.truth.how}: no truth for any of {tally.items:,} items{known}")
    if unmet:
        say(f"{tally.truth.how}: truth for {len(unmet):,} id{'s' * (len(unmet) > 1)} that no item has, the first {unmet[0]!r}")
    if tally.without_truth:
        say(f"{tally.without_truth:,} of {tally.items:,} items have no truth and are not in the scores")
    absent = tally.absent()
    if absent:
        some = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
        say(f"{len(absent):,} of {len(tally.classes):,} classes have no item and are not in the means over classes: {some}")
    return bool(unmet)


def finish(document: Mapping[str, Any], outputs: Outputs) -> None:
    """Say the scores, and write them where they are wanted."""
    from imagebind_cli.evaluation.report import summary

    if "seen" in document:
        say(f"{document['title']}: not a held-out score: {document['seen']}")
    say(f"{document['title']}: {document['items']['scored']:,} items, {summary(document['scores'], document.get('published'))}")
    text = json.dumps(document, indent=1) + "\n"
    if not outputs.rows:
        write(text.encode())
    elif outputs.report:
        write_text(outputs.report, text)
    if outputs.html:
        from imagebind_cli.pages.classification import write_report_page

        write_report_page(outputs.html, document)
    if outputs.plot:
        import numpy as np

        from imagebind_cli.pages.classification import plot

        plot(np.array(document["confusion"]), [row["class"] for row in document["classes"]], outputs.plot)
