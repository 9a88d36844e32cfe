"""Decode and transform inputs once, for later runs to read in their place: what `imagebind preprocess` does, without a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import imagebind_cli
from imagebind_cli import registry
from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.corpus.resume import CHANGED, distinct, glance, has_changed
from imagebind_cli.engine import default_workers, open_engine
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.engine.processes import Processes
from imagebind_cli.errors import UsageError, writing
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.media.clock import clock_text
from imagebind_cli.object_storage import refuse_object
from imagebind_cli.options import ReadingOptions, folders_are_frames
from imagebind_cli.prepared import BESIDE, Writer, belongs_to, member_key, open_writer
from imagebind_cli.prepared.entries import Stretched, stretch_of
from imagebind_cli.registry import Face
from imagebind_cli.sources import Failure, Inputs, Item, kept_beside

if TYPE_CHECKING:
    from imagebind_cli.encoder import EncoderConfig, Sample
    from imagebind_cli.pipeline import Step

Options = Mapping[str, Mapping[str, Any]]  # modality to the fields of its options dataclass that were chosen
Reading = Mapping[Face, ReadingOptions]

MANY = 1000  # inputs that are worth starting processes for before anything is read


@dataclass(frozen=True)
class Inspection:
    """What was read of an item in one modality.

    record: its id, modality, facts of the file, number and shape of clips, seconds, and assumptions, ready for JSON. sample: its first
    stretch, as the encoder with this config takes it.
    """

    record: dict[str, Any]
    sample: Sample
    config: EncoderConfig


def preprocess(
    modalities: str | Sequence[str],
    inputs: Inputs | Iterable[str | Path],
    output: str | Path | BinaryIO,
    *,
    model: str | None = None,
    manifest: Path | str | None = None,
    manifest_columns: Mapping[str, str] | None = None,
    errors: Path | str | None = None,
    array: str = "float32",
    shard_bytes: int | None = None,
    workers: int | None = None,
    item_timeout: float = ITEM_SECONDS,
    listener: Listener | None = None,
    options: Options | None = None,
) -> Listener:
    """Write inputs, decoded and transformed, to tar shards or an HDF5 file. The same call again adds those that are missing.

    Args:
        modalities: one, or several that stay together under one id, as the picture and the sound of a video.
        inputs: files, folders, patterns or sentences, or `sources.Inputs`.
        output: `out-%06d.tar` for numbered shards, `out.tar`, `out.h5`, or a binary stream for one tar.
        model: whose input sizes and constants to use; the default model's if not given. Its weights need not be present.
        manifest: a JSONL, CSV or TSV file of the inputs, in place of `inputs`.
        manifest_columns: names to give to its columns, as in `tabular.read_rows`: `{"image": "file_name"}`.
        errors: a file that keeps a JSON line for each failed input.
        array: `float32` or `float16`, the number type of the arrays. shard_bytes: size at which a numbered shard is closed.
        workers: inputs read at a time; one per core, 8 at most, if not given.
        item_timeout: seconds that reading one input may take; one that takes longer is a failure. 0 for no limit.
        listener: receives and counts what happens.
        options: by modality the options of its readers, e.g. `{"audio": {"clips": 3}}`.
    Returns:
        The listener, with its counts.
    Raises:
        UsageError: the output's name, a modality or an option is wrong.
    UserError: the output has another provenance or is in use; the model has no such encoder; a manifest cannot be read. A single bad input
            is a failure, which the listener receives.
    """
    names = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    reading = _reading(names, options)
    stream, place = (None, str(output)) if isinstance(output, str | Path) else (output, "-")
    check_prepared_output(place, names, shard_bytes)
    listener = LogListener() if listener is None else listener
    workers = workers or default_workers()
    given, frames = Inputs.of(inputs, manifest, manifest_columns), _are_frames(options)

    def count() -> int | None:
        total = given.count(names, frames)
        if workers > 1 and total is not None and total >= MANY:
            processes.launch()  # while this process imports the same modules
        return total

    with ExitStack() as stack:
        if errors is not None:
            failures = FailureFile(Path(errors))
            stack.callback(failures.close)
            stack.callback(setattr, listener, "failures", listener.failures)
            listener.failures = failures
        processes = stack.enter_context(Processes(names))
        items = given.items(names, lambda path: belongs_to(path, place), frames)
        listener.begin(0, count)
        configs = _configs(model, reading)
        record = _record(configs, reading, array)
        stack.enter_context(writing("stdout" if stream else place))
        writer = stack.enter_context(open_writer(place, record, shard_bytes, stream))
        new = _new_items(items, writer.ids, listener, tuple(reading))
        hint = _pairing_hint(names) if len(names) > 1 and given.manifest is None else None
        for item, result in _write(
            _decode(new, configs, reading, workers, item_timeout, processes), writer, tuple(reading), array, listener
        ):
            if result is None:
                listener.succeeded(item.id)
                continue
            listener.failure(item.id, result.reason)
            if hint and not listener.done:
                listener.note(hint)
                hint = None
    return listener


def inspect_inputs(
    modalities: str | Sequence[str],
    inputs: Inputs | Iterable[str | Path],
    *,
    model: str | None = None,
    manifest: Path | str | None = None,
    manifest_columns: Mapping[str, str] | None = None,
    workers: int | None = None,
    item_timeout: float = ITEM_SECONDS,
    listener: Listener | None = None,
    options: Options | None = None,
) -> Iterator[list[Inspection]]:
    """Read inputs as `preprocess` would, and yield for each what was read and assumed, by modality. Nothing is written.

    Args and Raises: as `preprocess`.
    """
    names = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    reading = _reading(names, options)
    listener = LogListener() if listener is None else listener
    given, frames = Inputs.of(inputs, manifest, manifest_columns), _are_frames(options)
    listener.begin(0, partial(given.count, names, frames))
    configs = _configs(model, reading)
    inspections: dict[str, Inspection] = {}
    items = given.items(names, frames=frames)
    for item, result in _decode(items, configs, reading, workers or default_workers(), item_timeout):
        if isinstance(result, Failure):
            listener.failure(item.id, result.reason)
        elif result is None:
            yield list(inspections.values())
            listener.succeeded(item.id)
        else:
            listener.remarks(item.id, (), result.warnings)
            name = result.modality
            if name in inspections:
                _extend(inspections[name].record, result)
            else:
                inspections[name] = Inspection(_describe(item.id, result), result, configs[registry.face(name)])
            continue
        inspections = {}


def check_prepared_output(output: str, modalities: Sequence[str], shard_bytes: int | None = None) -> None:
    """Check that the name of an output fits what will be written to it.

    Args:
        output: as for `preprocess`; `-` for a stream.
    Raises:
        UsageError: it does not.
    """
    if output != "-" and not output.endswith((".tar", ".h5")):
        raise UsageError(f"{output}: the name must end in .tar or .h5, or be -")
    refuse_object(output)
    if shard_bytes is not None and "%" not in output:
        raise UsageError(f"--shard-size is for numbered shards such as out-%06d.tar; {output} is one file")
    if output.endswith(".h5") and "%" in output:
        raise UsageError(f"{output}: an .h5 is one file and takes no number; tar shards do")
    if output.endswith(".h5") and any(registry.face(name).mixed for name in modalities):
        raise UsageError("an .h5 holds clips of one shape, and those of pictures and videos differ: name image or video, or write a .tar")


def preparation_record(modalities: Sequence[str], model: str | None, options: Options | None) -> dict[str, Any]:
    """Return how `preprocess` makes samples for a model, and with which version."""
    reading = _reading(modalities, options)
    return _record(_configs(model, reading), reading, "")


def _reading(modalities: Sequence[str], options: Options | None) -> dict[Face, ReadingOptions]:
    """Return each modality with its options.

    Raises:
        UsageError: a modality or an option is unknown.
    """
    options = options or {}
    for name in options:
        if name not in modalities:
            raise UsageError(f"options of {name}, which is not among the modalities; choose from {', '.join(modalities)}")
    return {face: face.read_options(options.get(face.name, {})) for face in map(registry.face, modalities)}


def _are_frames(options: Options | None) -> bool:
    """Check whether the options of any modality make a folder one item."""
    return any(map(folders_are_frames, (options or {}).values()))


def _new_items(
    items: Iterable[Item | Failure], stored: Mapping[str, Stretched], listener: Listener, faces: Sequence[Face]
) -> Iterator[Item | Failure]:
    """Yield the items whose ids are not stored yet, as `distinct` does, each with its stamp.

    An id that is stored with another stretch is a failure.
    """
    timed = any(face.timed for face in faces)  # in manifests of others `start` and `end` are ordinary columns
    for item in distinct(items, listener):
        if isinstance(item, Failure):
            yield item
        elif item.id not in stored:
            yield replace(item, stamp=glance(item.payload, faces))
        elif timed and stored[item.id] != stretch_of(item.meta):
            yield Failure(item.id, "this id was already used for another stretch; give each stretch its own id")
        else:
            listener.skipped += 1


def _configs(model: str | None, reading: Reading) -> dict[Face, EncoderConfig]:
    """Return the encoders' configs by modality. Call it late: it imports torch, which takes seconds.

    Raises:
        UserError: the model has no encoder for one of them, or takes it otherwise than it is given, or with other options.
    """
    from imagebind_cli.readers import check_options, reader_of
    from imagebind_cli.weights.find import input_configs

    configs = dict(zip(reading, input_configs(model, [face.name for face in reading]).values(), strict=True))
    for face, config in configs.items():
        reader_of(face, config)
        check_options(face, config, reading[face])
    return configs


def _record(configs: Mapping[Face, EncoderConfig], reading: Reading, array: str) -> dict[str, Any]:
    """Return the record of how the samples were made."""
    from imagebind_cli.readers import input_record

    inputs = {face.name: input_record(face, config, reading[face]) for face, config in configs.items()}
    return {"inputs": inputs, "array": array, "version": imagebind_cli.__version__}


def _decode(
    items: Iterable[Item | Failure],
    configs: Mapping[Face, EncoderConfig],
    reading: Reading,
    workers: int,
    item_timeout: float,
    processes: Processes | None = None,
) -> Iterator[Step]:
    """Yield the samples of items, in order; see `pipeline.decode`."""
    import torch

    from imagebind_cli import pipeline
    from imagebind_cli.readers import read_modalities

    read, threads = partial(read_modalities, configs=configs, options=reading), torch.get_num_threads()
    torch.set_num_threads(1)  # the readers share the cores
    try:
        yield from pipeline.decode(items, open_engine(read, workers, processes, item_timeout), ahead=4 * workers)  # type: ignore[misc]
    finally:
        torch.set_num_threads(threads)


def _write(
    steps: Iterable[Step], writer: Writer, faces: Sequence[Face], array: str, listener: Listener
) -> Iterator[tuple[Item, Failure | None]]:
    """Write samples, and yield each item once all of it is written, or its failure."""
    spans: dict[str, list[Any]] = {}
    notes: dict[str, list[str]] = {}
    clocks: dict[str, str] = {}
    regions: dict[str, list[Any]] = {}
    modalities = tuple(face.name for face in faces)
    for item, sample in steps:
        if isinstance(sample, Failure):
            writer.drop()
            yield item, sample
        elif sample is not None:
            name, values = sample.modality, sample.tensor.numpy()
            writer.add(member_key(item.id), name, values.astype(array if values.dtype.kind == "f" else "int32", copy=False))
            spans.setdefault(name, []).extend(sample.spans)
            if sample.regions:
                regions.setdefault(name, []).extend(sample.regions)
            if sample.began is not None:
                clocks[name] = clock_text(sample.began)
            listener.remarks(item.id, sample.notes, sample.warnings)
            notes.setdefault(name, []).extend(note for note in sample.notes if note not in notes.get(name, []))
            continue
        elif spans and has_changed(item, faces):
            writer.drop()
            yield item, Failure(item.id, CHANGED)
        elif spans:
            beside = {key: value for key, value in kept_beside(item, modalities).items() if key not in BESIDE}
            about = {**beside, "id": item.id, "spans": spans, "notes": notes}
            writer.finish(member_key(item.id), about | ({"clocks": clocks} if clocks else {}) | ({"regions": regions} if regions else {}))
            yield item, None
        else:
            yield item, Failure(item.id, "holds nothing to prepare")
        spans, notes, clocks, regions = {}, {}, {}, {}


def _pairing_hint(modalities: Sequence[str]) -> str:
    """Say what to do where no file has all of several modalities."""
    names, rows = " and ".join(modalities), ", ".join(f'"{name}": ...' for name in modalities)
    return f"{names} were both looked for in each file, as in a video with its sound; to pair files, give --manifest with rows {{{rows}}}"


def _describe(id: str, sample: Sample) -> dict[str, Any]:
    """Describe what was read of an item, from its first sample in a modality."""
    return {
        "id": id,
        "modality": sample.modality,
        **sample.facts,
        "clips": len(sample.tensor),
        "shape": list(sample.tensor.shape[1:]),
        "start": sample.spans[0][0] if sample.spans[0] else None,
        "end": _end(sample),
        **({} if sample.began is None else {"clock": clock_text(sample.began, (sample.spans[0] or (0.0,))[0])}),
        "assumed": list(sample.notes),
    }


def _extend(record: dict[str, Any], sample: Sample) -> None:
    """Add a further sample of the same item to its record."""
    record["clips"] += len(sample.tensor)
    record["end"] = _end(sample)


def _end(sample: Sample) -> float | None:
    span = sample.spans[-1]
    return span[1] if span else None
