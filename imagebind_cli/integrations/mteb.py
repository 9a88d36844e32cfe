"""Models as encoders of mteb, with entries in its registry, and tasks on files for the modalities that mteb lacks: depth, thermal, motion.

    python -m imagebind_cli.integrations.mteb run STS12 Flickr30kT2IRetrieval --model mini
    python -m imagebind_cli.integrations.mteb run depth=rooms/ imu=walks.jsonl --model huge

Imports mteb, of the extra of that name; of version 2.20 or newer, whose encoders take data loaders and which has `mock_run`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from imagebind_cli import registry
from imagebind_cli.errors import UsageError, UserError, first_line
from imagebind_cli.integrations import not_installed
from imagebind_cli.model import Model, load
from imagebind_cli.printable import escaped
from imagebind_cli.sources import Failure, Item
from imagebind_cli.weights.find import BUNDLED, shape_of
from imagebind_cli.weights.model_config import ModelConfig
from imagebind_cli.weights.published import published_models

try:
    import datasets
    import mteb
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_implementations import MODEL_REGISTRY
    from mteb.models.model_meta import ModelMeta, ScoringFunction
    from mteb.types import Licenses
except ImportError:
    raise not_installed("mteb 2.20 or newer", "mteb") from None

OWNER = "imagebind-cli"  # before the slash of the names in mteb's registry
COLUMNS = ("text", "image", "audio", "video")  # of mteb's datasets; the names are also those of our modalities


class MTEBEncoder(AbsEncoder):  # type: ignore[misc]
    """A model as mteb calls it. Files in its datasets are not decoded by mteb but read here, as every command reads them."""

    def __init__(
        self, model_name: str, revision: str | None = None, device: str | None = None, *, model: Model | None = None, **_: Any
    ) -> None:
        """Load a model by its name in the registry, `imagebind-cli/mini`, or take a loaded one.

        Raises:
            UserError: no such model, or its weights are not on this machine.
        """
        self.model = model or load(model_name.removeprefix(f"{OWNER}/"), device=device or "auto")
        self.mteb_model_meta = model_meta(self.model.name, self.model.checkpoint.config)

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        """Embed the rows of a data loader to unit vectors (n, dim) float32; a row of several modalities is their mean, of length 1.

        Raises:
            UserError: an input cannot be read: the row and the reason.
        """
        columns, count = _columns(inputs)
        sums = np.zeros((count, self.model.dim), np.float32)
        for column, values in columns.items():
            for number, vector in self._column(column, values):
                sums[number] += vector
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        if not lengths.all():
            raise UserError(f"row {int(lengths.argmin())} has none of {', '.join(COLUMNS)}")
        return sums / lengths

    def _column(self, column: str, values: Iterable[Any]) -> Iterator[tuple[int, np.ndarray]]:
        """Embed the values of a column, without those that are missing."""
        named = [(number, *_named(column, value)) for number, value in enumerate(values) if value is not None]
        for modality in dict.fromkeys(name for _, name, _ in named):
            items = (Item(str(number), payload) for number, name, payload in named if name == modality)
            for item, result in self.model.embed_items(modality, items):
                if isinstance(result, Failure):
                    raise UserError(f"{modality} of row {item.id}: {result.reason}")
                yield int(item.id), result.embeddings[0].vector


def _named(column: str, value: Any) -> tuple[str, Any]:
    """Return the modality of a value, and the value: that of its column, or the one that the value names, as {"depth": "room.png"}."""
    if isinstance(value, Mapping) and len(value) == 1 and (name := next(iter(value))) in registry.MODALITIES:
        return name, value[name]
    return column, value


def _columns(inputs: Any) -> tuple[dict[str, Iterable[Any]], int]:
    """Return the columns of a data loader that can be embedded, and its number of rows.

    Files of a data set of `datasets` come as their bytes, so that none of its decoders is needed.
    """
    data = inputs.dataset
    if not isinstance(data, datasets.Dataset):  # mteb makes its own kind for lists of pictures
        batches = list(inputs)
        rows = {name: [value for batch in batches for value in batch[name]] for name in COLUMNS if batches and name in batches[0]}
        return dict(rows), len(data)
    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
            data = data.cast_column(name, type(feature)(decode=False))
    return {name: data[name] for name in COLUMNS if name in data.column_names}, len(data)


def model_meta(name: str, config: ModelConfig | None = None) -> ModelMeta:
    """Return what mteb's registry says about a model.

    Args:
        config: of the model; by default found by its name. One that is published and not on this machine is taken to have all encoders.
    Raises:
        UserError: no such model.
    """
    published = published_models().get(name)
    try:
        config = config or shape_of(name)
    except UserError:
        if published is None:
            raise
    held: list[Any] = [each for each in COLUMNS if config is None or registry.face(each).encoder in config.encoders]
    licence = config.licence if config else published and published.licence
    return ModelMeta(
        loader=MTEBEncoder,  # type: ignore[arg-type]
        name=registry_name(name),
        revision="1",
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=77,
        embed_dim=config.dim if config else None,
        license=licence.lower() if licence and licence.lower() in get_args(Licenses) else "not specified",
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        reference=None,
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        training_datasets=None,
        modalities=held,
    )


def register_models() -> None:
    """Add the model in the package, the published one and those that families publish to mteb's registry, as `imagebind-cli/NAME`."""
    for name in (BUNDLED, *published_models()):
        MODEL_REGISTRY.setdefault(registry_name(name), model_meta(name))


def registry_name(name: str) -> str:
    """Return the name of a model in mteb's registry, which has one slash."""
    return f"{OWNER}/{name.replace('/', '--')}"


def run_tasks(model: Model, tasks: Sequence[str], *, cache: Path | None = None) -> Iterator[dict[str, Any]]:
    """Run tasks one by one, and yield the result of each: `task`, `main_score`, `score` and all `scores`, or `error`.

    Args:
        tasks: names of mteb's, or tasks on files as `mteb_tasks.file_task` takes them. cache: folder of mteb's result files; without it none
            are written or read.
    Raises:
        UserError: a task is not known.
    """
    from imagebind_cli.integrations.mteb_tasks import file_task

    chosen = [file_task(name) if "=" in name else _known_task(name) for name in tasks]
    encoder = MTEBEncoder(registry_name(model.name), model=model)
    store = mteb.ResultCache(cache) if cache else None
    for task in chosen:
        name, score = task.metadata.name, task.metadata.main_score  # before mteb empties the task
        missing = set(task.metadata.modalities) - set(model_meta(model.name, model.checkpoint.config).modalities)
        if missing:
            yield {"task": name, "error": f"{model.name} has no encoder for {', '.join(sorted(missing))}"}
            continue
        try:
            done = mteb.evaluate(
                encoder,  # type: ignore[arg-type]
                task,
                cache=store,
                show_progress_bar=False,
                co2_tracker=False,
            )
        except Exception as error:  # whatever its data or its metrics raise: the other tasks still run
            yield {"task": name, "error": first_line(error)}
            continue
        result = done.task_results[0]
        yield {"task": name, "main_score": score, "score": result.get_score(), "scores": result.scores}


def _known_task(name: str) -> Any:
    try:
        return mteb.get_task(name)
    except KeyError:
        raise UserError(f"mteb has no task {name!r}; a task on files is MODALITY=FOLDER or QUERY-DOCUMENT=MANIFEST") from None


def run_command() -> int:
    """Run `python -m imagebind_cli.integrations.mteb`: print a line of JSON for each task; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m imagebind_cli.integrations.mteb", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run tasks, and print a line of JSON for each")
    run.add_argument("tasks", nargs="+", metavar="TASK", help="a name of mteb's, MODALITY=FOLDER, or QUERY-DOCUMENT=MANIFEST")
    run.add_argument("--model", default=None, help="as every command takes it")
    run.add_argument("--device", default="auto")
    run.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help="of mteb's result files, which are read again")
    commands.add_parser("models", help="list the names that mteb.get_model takes")
    chosen = parser.parse_args()
    datasets.disable_progress_bars()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of scikit-learn, on every class that is never predicted
    if chosen.command == "models":
        print_rows({"model": name} for name in MODEL_REGISTRY if name.startswith(f"{OWNER}/"))
        return 0
    return print_rows(run_tasks(load(chosen.model, device=chosen.device), chosen.tasks, cache=chosen.cache))


def print_rows(rows: Iterable[Mapping[str, Any]]) -> int:
    """Print rows as lines of JSON, and what failed on stderr; return 1 if something did."""
    code = 0
    for row in rows:
        if "error" in row:
            sys.stderr.write(escaped(f"{row['task']}: {row['error']}") + "\n")
            code = 1
        else:
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    return code


register_models()

if __name__ == "__main__":
    try:
        code = run_command()
    except UserError as error:
        code = 2 if isinstance(error, UsageError) else 1
        sys.stderr.write(escaped(f"mteb: {error}") + "\n")
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 141
    os._exit(code) if code == 141 else sys.exit(code)
