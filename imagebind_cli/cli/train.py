"""`imagebind train`: train encoders on pairs of modalities, by a recipe, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.command import HeadedCommand, single_command
from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.output import write, write_json_line
from imagebind_cli.cli.talk import exit_if_bad, say
from imagebind_cli.errors import UsageError, writing
from imagebind_cli.events import TrainingListener
from imagebind_cli.tabular import parse_columns

if TYPE_CHECKING:
    import torch

    from imagebind_cli.training.recipe import Recipe

HELP = """Train encoders on pairs of two modalities: in ImageBind, an anchor that is frozen, and another that is bound to it.

A recipe holds all settings: `--recipe NAME` or a TOML file; flags and `--set` change it. Without one, its defaults apply.
DATA are JSONL, CSV or TSV manifests with a column per modality, tar shards, or what `preprocess` wrote.
The same command continues a run that was stopped or killed, and ends with the same weights. The run folder is a model for every other command.

\b
    imagebind train --pairs image-depth --data pairs.jsonl --val 0.1 --out runs/depth --init random
    imagebind train --pairs image-text --data photos.csv --column image=file --column text=caption --out runs/text
    imagebind train --recipe image-depth --data pairs.jsonl --out runs/depth --set optimizer.lr=1e-4
    imagebind train --recipe image-depth --data pairs.jsonl --dry-run       # check everything and print the plan
    imagebind train --recipe image-depth --data pairs.jsonl --overfit 8     # can it learn at all?
    imagebind train --distil huge --student base --modality image --data photos/ --out runs/small
    torchrun --nproc-per-node 8 -m imagebind_cli train --recipe image-depth --data pairs.jsonl --out runs/depth
"""


LINE_SECONDS = 30.0  # between lines of progress
NAMED = 8  # ids in a message; `metrics.jsonl` has all of them


class TrainingTalk(TrainingListener):
    """Prints the notes and scores of a run, and its progress at intervals."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = time.monotonic()  # when the last line of progress was
        self._pairs = 0  # since then

    def note(self, text: str) -> None:
        say(text)

    def failure(self, id: str, reason: str) -> None:
        super().failure(id, reason)
        say(f"{id}: {reason}")

    def begin(self, stored: int, count: Callable[[], int | None] | None = None) -> None:
        self._printed = time.monotonic()

    def anchors(self, pair: str, done: int, total: int) -> None:
        if time.monotonic() - self._printed > LINE_SECONDS:
            say(f"{pair}: {done:,} of {total:,} anchors embedded")
            self._printed = time.monotonic()

    def step(self, record: Mapping[str, Any], steps: int, pairs: int) -> None:
        number = record["step"]
        if "skipped" in record:
            ids = record["ids"]
            names = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else "")
            say(f"step {number:,} skipped: its {record['skipped']} is not finite; look at {names}")
            return
        self._pairs += pairs
        seconds = time.monotonic() - self._printed
        if seconds > LINE_SECONDS or number == steps:
            loss = f"{record['pair']} loss {record['loss']:.4f}"
            say(f"step {number:,} of {steps:,}: {loss}, {self._pairs / seconds:.1f} pairs a second")
            self._printed, self._pairs = time.monotonic(), 0

    def validated(self, record: Mapping[str, Any]) -> None:
        """Print a line for each direction of retrieval and each test."""
        for way, names in groupby(record["validation"], key=lambda name: name.partition("/")[0]):
            scores = []
            for name in names:
                low, high, chance = record["ranges"][name]
                value = record["validation"][name]
                scores.append(f"{name.partition('/')[2]} {value:.3f} ({low:.3f} to {high:.3f}, by chance {chance:.3f})")
            say(f"step {record['step']:,}: {way} {', '.join(scores)}")


def train_command(
    pairs: Annotated[list[str] | None, typer.Option(metavar="A-B", help="Pair to bind, the anchor first: image-depth. Repeatable.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Files of rows, or patterns; for one of several pairs, image-depth=FILE.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder: a new one, or one to continue.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="A recipe of the package, or a TOML file.")] = None,
    val: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|FRACTION",
            help="Files of pairs to validate on (R@k both ways), or a fraction of the training rows to hold out, as 0.2: whole groups.",
        ),
    ] = None,
    zeroshot: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY:FILE", help="Also score the zero-shot classification of these items; `label` names the class of each."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COLUMN", help="Column of the manifests that holds a modality, id, group, label: image=file_name. Repeatable."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(envvar="IMAGEBIND_MODEL", help="Model to train, or a config JSON. Default: the recipe's, else huge."),
    ] = None,
    distil: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="Distil a teacher: a model of any family, or a file of vectors by id.")
    ] = None,
    student: Annotated[str | None, typer.Option(help="With --distil: the student's model or config JSON; the same as --model.")] = None,
    modality: Annotated[str | None, typer.Option(help="With --distil and no --recipe: the student's modality, such as image.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Initial weights of the encoders that train: `random`, or any model. Default: --model.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pairs in a mini-batch, over all processes.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Pairs in memory at once on each process; the gradient is the same.")
    ] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: optimizer.lr=1e-4.")] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, and train nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print the plan as JSON.")] = False,
    overfit: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Train on N pairs alone until R@1 is 100 % both ways; exit 1 if it never is.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Time a few steps, write OUT.trace.json, and keep nothing.")] = False,
) -> None:
    if not pairs and recipe is None and distil is None:
        raise UsageError("nothing to train: give --pairs image-depth, --recipe, or --distil TEACHER")
    if student is not None and distil is None:
        refuse_useless("--student", "--student is for --distil; otherwise give --model")
        student = None
    if sum((dry_run, overfit is not None, profile)) > 1:
        raise UsageError("--dry-run, --overfit and --profile exclude each other; choose one")
    if as_json and not dry_run:
        refuse_useless("--json", "--json is for --dry-run; a run prints its summary as JSON anyway")
    if out is None and not dry_run and overfit is None:
        raise UsageError("--out, the run folder, is missing")

    from imagebind_cli.model import choose_device
    from imagebind_cli.training import run, trials
    from imagebind_cli.training.overrides import resolve_recipe
    from imagebind_cli.training.recipe_files import refuse_changes

    talk = TrainingTalk()
    resolved = resolve_recipe(
        recipe,
        pairs=pairs or (),
        data=data or (),
        val=val or (),
        zeroshot=zeroshot or (),
        columns=parse_columns(column or ()),
        model=student or model,
        distil=distil,
        modality=modality,
        init=init,
        batch=batch,
        micro_batch=micro_batch,
        changes=changes or (),
        listener=talk,
    )
    chosen_device = choose_device(device)
    with refuse_changes(resolved, changes or ()):
        if dry_run:
            _write_plan(resolved, chosen_device, out, as_json)
            return
        if overfit is not None:
            learnt = trials.overfit(resolved, overfit, chosen_device, talk)
            say("learnt by heart" if learnt else "not learnt: check the data and optimizer.lr")
            exit_if_bad(not learnt)
            return
        assert out is not None
        if profile:
            trials.profile_steps(resolved, out.with_name(f"{out.name}.trace.json"), chosen_device, talk)
            return
        with writing(out):
            result = run.train(resolved, out, chosen_device, talk)
        if result.summary:
            write_json_line({"model": str(out), **result.summary})
        if result.failed:
            say(f"{result.failed:,} samples could not be read; {out / 'errors.jsonl'} names them")
        exit_if_bad(bool(result.failed))


def _write_plan(recipe: Recipe, device: torch.device, out: Path | None, as_json: bool) -> None:
    from imagebind_cli.training.run import check_run

    lines = check_run(recipe, device, out)
    if as_json:
        write_json_line({"model": recipe.model, "pairs": [pair.name for pair in recipe.pairs], "plan": list(lines)})
        return
    for line in lines:
        write(line.encode("utf-8", "surrogateescape") + b"\n")


train_command.__doc__ = HELP


app = single_command("train", train_command, cls=HeadedCommand)
