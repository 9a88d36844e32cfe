"""Turn a payload into samples: with the modality's reader, from a part of a file, or from what `preprocess` made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from imagebind_cli.encoder import IMAGEBIND, EncoderConfig, InputConfig, Reader, Sample
from imagebind_cli.errors import OptionError, UserError
from imagebind_cli.media.windows import Times, within
from imagebind_cli.object_storage import fetch_object, is_object
from imagebind_cli.options import FAMILY_ONLY, ReadingOptions, both_values
from imagebind_cli.options.drawn import REGION_OPTIONS
from imagebind_cli.prepared import Prepared
from imagebind_cli.registry import Face, family, modality
from imagebind_cli.sources import Regions, Stretch, names_store, reason, whole_source
from imagebind_cli.sources.in_memory import as_source, is_in_memory


def read_source(face: Face, source: Any, config: EncoderConfig, options: ReadingOptions) -> Iterator[Sample]:
    """Return the samples of one input, or of what `preprocess` made of it, as the encoder with this config takes them; see `Model.read`.

    Raises:
        UserError: it is a stretch of something without seconds, or regions of something that has none. The iterator raises what reading raises.
    """
    if isinstance(source, Stretch):
        if not face.timed:
            raise UserError(f"{face.name} has no seconds; start and end are of sounds, videos and motion recordings")
        times = source.start, source.end
        if isinstance(source.source, Prepared):
            return _within(prepared_samples(source.source, face, config, options), source.source.spans, times)
        return read_source(face, source.source, config, replace(options, stretch=times))  # type: ignore[call-arg]
    if isinstance(source, Regions):
        _check_regions(face, config)
        options, source = replace(options, regions=source.regions), source.source  # type: ignore[call-arg]
    if fault := _fault(face, source, options):
        return _refused(fault)
    if is_object(source) and not face.text:
        source = partial(fetch_object, source)
    if is_in_memory(source) or callable(source):
        return _when_due(face, source, config, options)
    if isinstance(source, Prepared):
        return prepared_samples(source, face, config, options)
    return reader_of(face, config)(source, config, options)


def _fault(face: Face, source: Any, options: ReadingOptions) -> str | None:
    """Say what is wrong with a source that no reader can read."""
    if not face.text and names_store(source):
        return "a store of vectors; give the files that they were made from"
    if isinstance(source, Prepared) and getattr(options, "regions", None) is not None:
        return "prepared samples hold no whole picture to cut regions out of; give the files that they were made from"
    return None


def _check_regions(face: Face, config: InputConfig) -> None:
    known = modality(face.encoder, config).options
    if not face.drawn or face.timed:
        raise UserError(f"{face.name} has no regions; boxes are of pictures and maps")
    if known is not None and not set(REGION_OPTIONS) <= set(known):
        raise UserError(f"{face.name} of a {config.family} model is read as a whole only; boxes need a model of another family")


def reader_of(face: Face, config: InputConfig) -> Reader:
    """Return what turns an input into samples for the encoder with this config.

    Raises:
        UserError: the encoder takes other inputs, as one of clips, where a picture is given.
    """
    readers = modality(face.encoder, config).readers
    if face.name not in readers:
        raise UserError(f"this {face.encoder} encoder of {config.family} takes {' or '.join(readers)}, not {face.name}")
    return readers[face.name]


def check_options(face: Face, config: InputConfig, options: ReadingOptions) -> None:
    """Refuse reading options that were chosen and that the readers of the model's family do not have.

    Raises:
        OptionError: names the first of them.
    """
    known, defaults = _known_options(face, config, options), options.with_defaults({})
    unknown = sorted(name for name in options.chosen.difference(known) if getattr(options, name) != defaults[name])  # records name them all
    if unknown:
        names = ", ".join(known) or "none"
        raise OptionError(f"{face.name} of a {config.family} model has no option {unknown[0]!r}; it has {names}", [*unknown, *known])


def options_record(face: Face, config: InputConfig, options: ReadingOptions) -> dict[str, Any]:
    """Return the reading options that the readers of the model's family have, by name, for the provenance of outputs."""
    known = _known_options(face, config, options)
    return {name: value for name, value in options.record().items() if name in known}


def _known_options(face: Face, config: InputConfig, options: ReadingOptions) -> tuple[str, ...]:
    known = modality(face.encoder, config).options
    return tuple(name for name in options.names() if name not in FAMILY_ONLY) if known is None else known


def _refused(reason: str) -> Iterator[Sample]:
    """Raise the error with the first sample, when the item's turn comes."""
    raise ValueError(reason)
    yield


def _when_due(face: Face, source: Any, config: EncoderConfig, options: ReadingOptions) -> Iterator[Sample]:
    """Read a payload in memory, or what a function returns. Either is asked with the first sample, so that its errors are the item's."""
    if callable(source):
        yield from read_source(face, source(), config, options)
    else:
        yield from reader_of(face, config)(as_source(source, face), config, options)


def _within(samples: Iterable[Sample], spans: Sequence[Any], times: Times) -> Iterator[Sample]:
    """Yield the clips of prepared samples that are within a stretch. spans: of all clips.

    Raises:
        ValueError: there are none.
    """
    wanted = within(spans, times)
    for sample in samples:
        numbers = [number for number, span in enumerate(sample.spans) if span in wanted]
        if numbers:
            yield replace(sample, tensor=sample.tensor[numbers], spans=[sample.spans[number] for number in numbers])


def read_modalities(payload: Any, configs: Mapping[Face, EncoderConfig], options: Mapping[Face, ReadingOptions]) -> Iterator[Sample]:
    """Yield the samples of one item in every modality that has a config, each with its modality's name; see `read_source`."""
    for face, config in configs.items():
        source = payload if len(configs) == 1 else payload[face.name]
        try:
            for sample in read_source(face, source, config, options[face]):
                yield replace(sample, modality=face.name)
        except (OSError, ValueError) as error:
            if len(configs) == 1:
                raise
            file = f" {whole_source(source)}" if isinstance(whole_source(source), str) and not face.text else ""
            raise ValueError(f"{face.name}{file}: {reason(error)}") from error


def prepares_alike(one: str, other: str) -> bool:
    """Check whether two families prepare inputs in the same way, so that encoders of one take what is made for the other."""
    return one == other or (family(one).prepares_as or one) == (family(other).prepares_as or other)


def input_record(face: Face, config: EncoderConfig, options: ReadingOptions) -> dict[str, Any]:
    """Describe in JSON's types how samples are made for an encoder: enough to decide whether another encoder can take them."""
    named = {} if prepares_alike(config.family, IMAGEBIND) else {"family": config.family}
    constants = {"shape": list(config.shape), "mean": list(config.mean), "std": list(config.std)}
    return {**named, **constants, "options": options_record(face, config, options)}


def check_prepared(source: Prepared, face: Face, config: InputConfig) -> None:
    """Refuse what was prepared for an encoder that takes other inputs.

    Raises:
        UserError: names what differs.
    """
    made = source.provenance["inputs"][face.name]
    wanted = {
        "family": None if prepares_alike(config.family, IMAGEBIND) else config.family,
        "shape": list(config.shape),
        "mean": list(config.mean),
        "std": list(config.std),
    }
    for key, needed in wanted.items():
        value = made.get(key) if isinstance(made, dict) else None
        if value != needed:
            raise UserError(f"prepared {face.name} has {key} {value or IMAGEBIND}; this model's encoder wants {needed or IMAGEBIND}")


def prepared_samples(source: Prepared, face: Face, config: EncoderConfig, options: ReadingOptions) -> Iterator[Sample]:
    """Yield samples from prepared arrays, as the reader gave them. Options that were chosen must be those they were prepared with.

    Raises:
        UserError: they were prepared for an encoder that wants other input, or with other options.
        ValueError: an array is torn, or not what the encoder takes.
    """
    check_prepared(source, face, config)
    record = source.provenance["inputs"][face.name]
    prepared_with = face.options.with_defaults(record["options"])
    for name, value in options.choices().items():
        if prepared_with[name] != value:
            then, now = both_values(name, prepared_with[name], value)
            raise UserError(f"{face.name} was prepared with {then}; {now} is asked for; prepare it again, or leave the option out")
    spans, regions = iter(source.spans), iter(source.regions)
    for array in source.arrays():
        _check_prepared(array, config)
        clip_spans = [tuple(span) if span else None for span in islice(spans, len(array))]
        if len(clip_spans) < len(array):
            raise ValueError(f"prepared with spans for {len(source.spans)} clips only")
        cut = tuple(islice(regions, len(array)))
        yield Sample(torch.from_numpy(array), clip_spans, source.notes, began=source.began, regions=cut)


def _check_prepared(array: np.ndarray, config: EncoderConfig) -> None:
    if not array.size or array.ndim == 0 or not config.fits(array.shape[1:]):
        raise ValueError(f"prepared array of shape {array.shape}; (clips, {', '.join(map(str, config.shape))}) is needed")
    if (array.dtype.kind == "f") != (config.vocabulary == 0) or not np.isfinite(array).all():
        raise ValueError(f"prepared array of {array.dtype}; finite {'token ids' if config.vocabulary else 'numbers'} are needed")
    if config.vocabulary and (array.min() < 0 or array.max() >= config.vocabulary):
        raise ValueError(f"token ids from {array.min()} to {array.max()}; the vocabulary has {config.vocabulary}")
