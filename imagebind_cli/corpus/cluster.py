"""Run `embed` and `preprocess` on a Ray cluster: the same jobs, with the inputs handed to actors in blocks of one share."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from imagebind_cli import registry
from imagebind_cli.corpus.job import embed
from imagebind_cli.corpus.preprocess import Options, check_prepared_output, preparation_record, preprocess
from imagebind_cli.corpus.ray_actors import Cluster, run_blocks
from imagebind_cli.corpus.resume import distinct
from imagebind_cli.corpus.share import Share
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.options import folders_are_frames
from imagebind_cli.prepared import belongs_to
from imagebind_cli.sources import BoxFile, Failure, Inputs, Item
from imagebind_cli.space import Space
from imagebind_cli.store import check_writable
from imagebind_cli.store_formats import FORMATS, GROWING

LISTED_FIRST = 16  # inputs, before the cluster is started
SHARES = 64  # by default, whatever the cluster, so that a later run on another one finds the same outputs


def shares_of(output: Path, wanted: int | None = None) -> int:
    """Return how many shares a job divides its inputs into: as many as its outputs have, else as many as wanted, else `SHARES`.

    Args:
        output: as given, without a share's number.
    Raises:
        UserError: outputs of another number of shares exist.
    """
    pattern = re.sub(r"%0?\d*d", "*", glob.escape(output.stem)) + f"-*-of-*{output.suffix}"
    numbered = re.compile(r"-\d{5}-of-(\d{5})" + re.escape(output.suffix) + "$")
    names = map(numbered.search, glob.glob(pattern, root_dir=output.parent))
    existing = {int(name[1]) for name in names if name}
    if len(existing) > 1 or (wanted is not None and existing - {wanted}):
        counts = " and of ".join(f"{count:,}" for count in sorted(existing))
        raise UserError(
            f"{output}: there are outputs of {counts} shares, which would repeat rows; continue these, or write to another name"
        )
    return existing.pop() if existing else wanted or SHARES


def share_pattern(output: Path | str, cluster: Cluster) -> Path:
    """Return the pattern of the outputs of a job on a cluster: `photos-*-of-00064.store`.

    Raises:
        UserError: as `shares_of`.
    """
    return Share(1, shares_of(Path(output), cluster.shares)).pattern(Path(output))


def embed_on_cluster(
    model: str | None,
    modality: str,
    inputs: Inputs | Iterable[str | Path],
    output: Path | str,
    cluster: Cluster | None = None,
    *,
    config: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    manifest: Path | str | None = None,
    manifest_columns: Mapping[str, str] | None = None,
    boxes: BoxFile | Path | str | None = None,
    errors: Path | str | None = None,
    listener: Listener | None = None,
    **job: Any,
) -> Listener:
    """Embed inputs on a Ray cluster, into a store for each share of them; see `Share.name`. The same call again continues it.

    This process lists the inputs once. Each actor embeds blocks of them, as `embed` does, with the model in its memory. Inputs and output must be
    on storage that all nodes reach under the same paths.

    Args:
        model: a name or folder, as `load` takes it, with its config, device and dtype, on every node. cluster: the one of this machine by default.
        errors: a file of failures, numbered as the stores are. job: the other arguments of `embed`, and the modality's reading options.
    Raises:
        UserError: as `embed` and `run_blocks`; outputs of another number of shares exist.
    """
    face, place = registry.face(modality), Path(output)
    check_writable(place)
    if not FORMATS[place.suffix].grows:
        raise UsageError(f"{place}: is written as a whole, and a cluster adds block by block; choose from {', '.join(GROWING)}")
    fixed = ("retry_errors", "verify", "array", "pool", "batch_size", "workers", "item_timeout")
    options = {name: value for name, value in job.items() if name not in fixed}
    reading = face.read_options(options)
    cluster, listener = cluster or Cluster(), listener or LogListener()
    given, frames = Inputs.of(inputs, manifest, manifest_columns).with_boxes(boxes, modality, listener.note), folders_are_frames(options)
    given.check_reading(reading)
    shares = shares_of(place, cluster.shares)
    regions = None if given.boxes is None else replace(given.boxes, pictures=[], failures=(), notes=())
    work = EmbedBlocks(modality, place, None if errors is None else Path(errors), model, config, device, dtype, regions, job)
    listener.begin(0, partial(given.count, (modality,), frames))
    items = _unless_all_fail(distinct(given.items((modality,), None, frames), listener), listener, errors)
    if items is None:
        return listener
    run_blocks(work, items, shares, cluster, listener, device != "cpu")
    remove_empty(work.errors, shares)
    return listener


def preprocess_on_cluster(
    modalities: str | Sequence[str],
    inputs: Inputs | Iterable[str | Path],
    output: Path | str,
    cluster: Cluster | None = None,
    *,
    manifest: Path | str | None = None,
    manifest_columns: Mapping[str, str] | None = None,
    errors: Path | str | None = None,
    listener: Listener | None = None,
    options: Options | None = None,
    **job: Any,
) -> Listener:
    """Prepare inputs on a Ray cluster, into outputs for each share of them, as `embed_on_cluster` embeds them.

    Args:
        output: `out-%06d.tar` or `out.h5`. job: the other arguments of `preprocess`.
    Raises:
        UserError: as `preprocess` and `run_blocks`; outputs of another number of shares exist.
    """
    names, place = (modalities,) if isinstance(modalities, str) else tuple(modalities), Path(output)
    check_prepared_output(str(place), names, job.get("shard_bytes"))
    if place.suffix == ".tar" and "%" not in place.name:
        raise UsageError(f"{place}: one tar is written as a whole, and a cluster adds block by block; give out-%06d.tar or out.h5")
    cluster, listener = cluster or Cluster(), listener or LogListener()
    given = Inputs.of(inputs, manifest, manifest_columns)
    frames = any(map(folders_are_frames, (options or {}).values()))
    work = PreprocessBlocks(names, place, None if errors is None else Path(errors), options or {}, job)
    shares = shares_of(place, cluster.shares)
    listener.begin(0, partial(given.count, names, frames))
    own = partial(_is_output, outputs=[str(Share(1, shares).name(place)).replace("-00001-of-", "-%05d-of-", 1)])
    items = _unless_all_fail(distinct(given.items(names, own, frames), listener), listener, errors)
    if items is None:
        return listener
    run_blocks(work, items, shares, cluster, listener, False)
    remove_empty(work.errors, shares)
    return listener


def _unless_all_fail(items: Iterator[Item | Failure], listener: Listener, errors: object) -> Iterator[Item | Failure] | None:
    """Return the items; None where none of them can be read, which the listener receives, so that no cluster is started for a misspelt name.

    errors: the file of failures, if there is one; its shares' files are written on the cluster.
    """
    first = list(islice(items, LISTED_FIRST))
    if errors is not None or len(first) == LISTED_FIRST or not all(isinstance(item, Failure) for item in first):
        return chain(first, items)
    for item in first:
        assert isinstance(item, Failure)
        listener.failure(item.id, item.reason)
    return None


def remove_empty(errors: Path | None, shares: int) -> None:
    """Remove the failure files of shares without failures."""
    for number in range(shares if errors is not None else 0):
        assert errors is not None
        path = Share(number + 1, shares).name(errors)
        if path.exists() and not path.stat().st_size:
            path.unlink()


def _is_output(path: str, outputs: Sequence[str]) -> bool:
    return any(belongs_to(path, output) for output in outputs)


@dataclass
class EmbedBlocks:
    """Embeds blocks into the store of their share; the fields are arguments of `embed_on_cluster`. It is a `BlockJob`."""

    modality: str
    output: Path
    errors: Path | None
    model: str | None
    config: str | None
    device: str
    dtype: str
    boxes: BoxFile | None
    arguments: Mapping[str, Any]

    @cached_property
    def _space(self) -> Space:
        return Space(self.model, self.config, self.device, self.dtype)

    def start(self, listener: Listener) -> dict[str, Any]:
        """Load the model, and return the record of the vectors that it makes."""
        self._space.note = listener.note
        return self._space.loaded.record(self.modality)

    def run(self, share: Share, items: Sequence[Item | Failure], listener: Listener) -> object:
        """Embed a block."""
        self._space.note = listener.note
        given = Inputs(listed=items, boxes=self.boxes)
        errors = None if self.errors is None else share.name(self.errors)
        arguments = {"workers": _cores(), **{key: value for key, value in self.arguments.items() if value is not None}}
        return embed(self._space, self.modality, given, share.name(self.output), errors=errors, listener=listener, **arguments)


@dataclass
class PreprocessBlocks:
    """Prepares blocks into the output of their share; the fields are arguments of `preprocess_on_cluster`. It is a `BlockJob`."""

    modalities: Sequence[str]
    output: Path
    errors: Path | None
    options: Options
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def start(self, listener: Listener) -> dict[str, Any]:
        """Return the record of the samples."""
        return preparation_record(self.modalities, self.arguments.get("model"), self.options)

    def run(self, share: Share, items: Sequence[Item | Failure], listener: Listener) -> object:
        """Prepare a block."""
        errors = None if self.errors is None else share.name(self.errors)
        arguments = {"workers": _cores(), **{key: value for key, value in self.arguments.items() if value is not None}}
        return preprocess(
            self.modalities, Inputs(listed=items), str(share.name(self.output)), errors=errors, listener=listener,
            options=self.options, **arguments,
        )  # fmt: skip


def _cores() -> int:
    """Return how many inputs an actor reads at a time: one for each core that it was given."""
    import ray

    context: Any = ray.get_runtime_context()
    return max(1, int(context.get_assigned_resources().get("CPU", 1)))
