"""A payload to its samples: by the modality's reader, from a part of a file, or from what `preprocess` made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from imagebind_cli import registry
from imagebind_cli.encoder import EncoderConfig, Sample
from imagebind_cli.errors import UserError
from imagebind_cli.media.windows import Times, within
from imagebind_cli.options import read_options, record
from imagebind_cli.prepared import Prepared
from imagebind_cli.sources import Stretch, is_timed, names_store, reason, whole_source


def modality_options(modality: str, chosen: Mapping[str, Any]) -> Any:
    """The options of a modality's readers with the chosen ones set; see `reading.read_options`."""
    return read_options(registry.encoder_name(modality), modality, chosen)


def read_source(modality: str, source: Any, config: EncoderConfig, options: Mapping[str, Any]) -> Iterator[Sample]:
    """The samples of one input, or of what `preprocess` made of it, as the encoder with this config takes them; see `Model.read`."""
    if isinstance(source, Stretch):
        if not is_timed(modality):
            raise UserError(f"{modality} has no seconds; start and end are of sounds, videos and motion recordings")
        times = source.start, source.end
        if isinstance(source.source, Prepared):
            return _within(prepared_samples(source.source, modality, config, options), source.source.spans, times)
        return read_source(modality, source.source, config, {**options, "stretch": times})
    if modality != "text" and names_store(source):
        return _refused("a store of vectors; give the files that they are of")
    if callable(source):  # a part of a file
        return _in_its_turn(modality, source, config, options)
    if isinstance(source, Prepared):
        return prepared_samples(source, modality, config, options)
    return registry.get(modality).readers[modality](source, config, modality_options(modality, options))


def _refused(reason: str) -> Iterator[Sample]:
    """No samples: the item fails when its turn comes."""
    raise ValueError(reason)
    yield


def _in_its_turn(modality: str, source: Callable[[], Any], config: EncoderConfig, options: Mapping[str, Any]) -> Iterator[Sample]:
    """The samples of what a function gives, which is called with the first of them, so that its errors are the item's."""
    yield from read_source(modality, source(), config, options)


def _within(samples: Iterable[Sample], spans: Sequence[Any], times: Times) -> Iterator[Sample]:
    """Of prepared samples, the clips within a stretch. spans: of all of them.

    Raises:
        ValueError: there are none.
    """
    wanted = within(spans, times)
    for sample in samples:
        kept = [number for number, span in enumerate(sample.spans) if span in wanted]
        if kept:
            yield dataclasses.replace(sample, tensor=sample.tensor[kept], spans=[sample.spans[number] for number in kept])


def read_sources(payload: Any, configs: Mapping[str, EncoderConfig], options: Mapping[str, Mapping[str, Any]]) -> Iterator[Sample]:
    """The samples of one item in every modality there is a config for, each with its modality's name; as `read_source`."""
    for modality, config in configs.items():
        source = payload if len(configs) == 1 else payload[modality]
        try:
            for sample in read_source(modality, source, config, options[modality]):
                yield dataclasses.replace(sample, modality=modality)
        except (OSError, ValueError) as error:
            if len(configs) == 1:
                raise
            file = f" {whole_source(source)}" if isinstance(whole_source(source), str) and modality != "text" else ""
            raise ValueError(f"{modality}{file}: {reason(error)}") from error


def input_record(config: EncoderConfig, modality: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """How samples of a modality are made for an encoder, in JSON's types: enough to tell whether another encoder can take them."""
    made = record(modality_options(modality, options))
    return {"shape": list(config.shape), "mean": list(config.mean), "std": list(config.std), "options": made}


def prepared_samples(source: Prepared, modality: str, config: EncoderConfig, options: Mapping[str, Any]) -> Iterator[Sample]:
    """Samples from prepared arrays, as the reader gave them. `options` chosen now must be those they were made with.

    Raises:
        UserError: they were made for an encoder that wants other input. ValueError: an array is torn, or not what that encoder takes.
    """
    theirs, ours = source.provenance["inputs"][modality], input_record(config, modality, {})
    for key in ("shape", "mean", "std"):
        had = theirs.get(key) if isinstance(theirs, dict) else None
        if had != ours[key]:
            raise UserError(f"prepared {modality} has {key} {had}; this model's encoder wants {ours[key]}")
    made_with = theirs["options"]
    for name, value in options.items():
        if name in made_with and made_with[name] != value:
            wanted = f"prepared with {name} {made_with[name]}; {value} is asked for"
            raise UserError(f"{modality} was {wanted}; prepare it again, or leave the option out".replace("_", "-"))
    spans = iter(source.spans)
    for array in source.arrays():
        _check_prepared(array, config)
        some = [tuple(span) if span else None for span in islice(spans, len(array))]
        if len(some) < len(array):
            raise ValueError(f"prepared with spans for {len(source.spans)} clips only")
        yield Sample(torch.from_numpy(array), some, source.notes)


def _check_prepared(array: np.ndarray, config: EncoderConfig) -> None:
    shape = config.shape
    if array.shape[1:] not in (shape, (shape[0], *shape[2:]) if len(config.patch) == 3 else shape) or not array.size:
        raise ValueError(f"prepared array of shape {array.shape}; (clips, {', '.join(map(str, shape))}) is needed")
    if (array.dtype.kind == "f") != (config.vocabulary == 0) or not np.isfinite(array).all():
        raise ValueError(f"prepared array of {array.dtype}; finite {'token ids' if config.vocabulary else 'numbers'} are needed")
    if config.vocabulary and (array.min() < 0 or array.max() >= config.vocabulary):
        raise ValueError(f"token ids from {array.min()} to {array.max()}; the vocabulary has {config.vocabulary}")
