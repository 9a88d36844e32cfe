"""A model to work with: found by name, folder, file or hub address, its encoders loaded one by one, files to unit vectors."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import checkpoint, download, model_config, pipeline, registry, run_folder
from imagebind_cli.checkpoint import Checkpoint
from imagebind_cli.encoder import Encoder, EncoderConfig, Sample
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.int8 import narrow
from imagebind_cli.media.windows import Times, within
from imagebind_cli.model_config import ModelConfig
from imagebind_cli.processes import Processes, default_workers
from imagebind_cli.reading import read_options, record
from imagebind_cli.shards import Prepared
from imagebind_cli.sources import Failure, Item, Stretch, is_timed, names_store, reason, whole

BUNDLED, UNTRAINED = "mini", "tiny"
SHORT_TEXT = 8
"""Tokens of a short sentence: texts are taken in as if all were, and encoded by their true lengths."""
BESIDE_A_GPU = 32
"""Cores that read for a GPU at most, if the user does not say; a CPU that encodes has few to spare."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
ModelLike = str | os.PathLike[str] | Mapping[str, Tensor]
ConfigLike = ModelConfig | Mapping[str, Any] | str | os.PathLike[str]


def default_name() -> str:
    """The model used when none is named: `IMAGEBIND_MODEL`, else the trained one inside the package, else `tiny`, which is untrained."""
    return os.environ.get("IMAGEBIND_MODEL") or (BUNDLED if is_bundled(BUNDLED) else UNTRAINED)


def is_bundled(name: str) -> bool:
    """Whether a trained model of this name lies inside the package."""
    return (model_config.CONFIGS / name / "config.json").is_file()


def find(model: ModelLike | None = None, config: ConfigLike | None = None) -> Checkpoint:
    """The checkpoint behind any form of `--model`; nothing is read from it yet.

    Args:
        model: a name (`huge`, `tiny`, …), a folder, a weight file, `hf://owner/repo`, or published-format tensors by name.
            None for the default.
        config: what the weights are, where they do not say so: a `ModelConfig`, the published constructor's arguments, or a JSON file.
    Raises:
        UserError: no such model, or one that is not on this machine yet, with the command that fetches it.
    """
    if isinstance(config, str | os.PathLike):
        path = Path(config)
        config = checkpoint.read_config(path) if os.path.isfile(path) else checkpoint.openclip_config(str(config))
    elif isinstance(config, Mapping):
        config = model_config.from_published(config)
    if isinstance(model, Mapping):
        return checkpoint.from_tensors(model, config, "state dict")
    name = os.fspath(model) if model is not None else default_name()
    if name.startswith("hf://"):
        return _pulled(name, config)
    path = Path(name)
    if os.path.isdir(path):
        return _folder(path, config)
    if os.path.isfile(path):
        return checkpoint.open_file(path, config)
    return _named(name, config)


def _named(name: str, config: ModelConfig | None) -> Checkpoint:
    if is_bundled(name):
        return _folder(Path(str(model_config.CONFIGS / name)), config)
    if name not in model_config.names():
        known = ", ".join([*filter(is_bundled, [BUNDLED]), *model_config.names()])
        raise UserError(f"no model {name!r}: not a folder, not a file, not hf://owner/repo, and not one of {known}")
    named = model_config.named(name)
    if named.rule_seed is not None:
        return checkpoint.by_rule(named)
    if named.address is None:
        raise UserError(f"{name} is a config to train from; no weights are published for it")
    return dataclasses.replace(_pulled(name, config or named), config=config or named)


def _pulled(place: str, config: ModelConfig | None) -> Checkpoint:
    folder = download.pulled(place)
    if folder is None:
        raise UserError(f"{place} is not on this machine; fetch it with: imagebind weights pull {place}")
    return _folder(folder, config)


def _folder(folder: Path, config: ModelConfig | None) -> Checkpoint:
    unfinished = run_folder.unfinished(folder)
    if unfinished and not (folder / "config.json").exists():
        raise UserError(f"{folder}: {unfinished}, and no model; the same `imagebind train` command continues it")
    found = dataclasses.replace(checkpoint.open_folder(folder, config), unfinished=unfinished)
    return run_folder.completed(found, folder, find)


def choose_device(name: str = "auto") -> torch.device:
    """`cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes the first of CUDA, MPS and CPU that is there.

    Raises:
        UserError: the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, present in there.items() if present))
    if name.partition(":")[0] not in there:
        raise UsageError(f"unknown device {name!r}; choose from auto, {', '.join(there)}")
    if not there[name.partition(":")[0]]:
        raise UserError(f"no {name} device here; choose from {', '.join(device for device, present in there.items() if present)}")
    return torch.device(name)


class Model:
    """A model whose encoders are loaded when first asked for. Get one from `load`."""

    def __init__(self, found: Checkpoint, device: torch.device, dtype: torch.dtype | None) -> None:
        self.checkpoint, self.device, self.dtype = found, device, dtype
        self._encoders: dict[str, Encoder] = {}

    @property
    def name(self) -> str:
        """What the model calls itself."""
        return self.checkpoint.config.name

    @property
    def folder(self) -> str | None:
        """Where the model lies, if its name alone does not lead there."""
        named = is_bundled(self.name) or self.name in model_config.names()
        return None if named or not os.path.exists(self.checkpoint.place) else os.path.abspath(self.checkpoint.place)

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        return self.checkpoint.config.dim

    def config(self, modality: str) -> EncoderConfig:
        """What the encoder of a modality is made of and wants as input; reads no weights.

        Raises:
            UserError: unknown modality, or one this model has no encoder for.
        """
        return checkpoint.encoder_config(self.checkpoint, modality)

    def encoder(self, modality: str) -> Encoder:
        """The encoder of a modality, loaded once; `image`, `video` and `vision` share one.

        Raises:
            UserError: unknown modality, or weights that do not fit.
        """
        name = registry.encoder_name(modality)
        if name not in self._encoders:
            if self.dtype is torch.int8:
                self._encoders[name] = narrow(checkpoint.load_encoder(self.checkpoint, name, self.device, torch.float32))
            else:
                self._encoders[name] = checkpoint.load_encoder(self.checkpoint, name, self.device, self.dtype)
        return self._encoders[name]

    def scale(self, modality: str) -> float:
        """The logit scale of a modality: what cosines are multiplied with before a softmax. Vectors never contain it. 1 for vision."""
        return self.encoder(modality).scale

    def encode(self, modality: str, tensor: Tensor) -> Tensor:
        """Unit vectors (b, dim) float32, on the model's device, of tensors as the encoder takes them.

        Args:
            tensor: one clip each, (b, *shape), or several, (b, clips, *shape), which are averaged and made unit vectors again. Vision takes
                (b, 3, h, w), (b, 3, 2, h, w) and both with clips; text takes (b, 77) token ids; audio (b, 1, 128, 204); depth and thermal
                (b, 1, 224, 224); IMU (b, 6, 2000).
        Raises:
            UserError: another shape.
        """
        encoder = self.encoder(modality)
        shapes = [encoder.config.shape]
        if len(encoder.config.patch) == 3:  # a still picture has no time axis
            shapes.append((encoder.config.shape[0], *encoder.config.shape[2:]))
        clips_of = next((shape for shape in shapes if tuple(tensor.shape[-len(shape) :]) == shape), None)
        extra = tensor.dim() - len(clips_of or ())
        if clips_of is None or extra not in (1, 2) or tensor.shape[0] == 0:
            wanted = " or ".join(f"(b, {', '.join(map(str, shape))})" for shape in shapes)
            raise UserError(f"{modality}: tensor of shape {tuple(tensor.shape)}; {wanted} is needed, or with clips after b")
        with torch.inference_mode():
            pinned = self.device.type == "cuda" and tensor.device.type == "cpu"  # only such memory is copied while Python goes on
            tensor = tensor.pin_memory().to(self.device, non_blocking=True) if pinned else tensor.to(self.device)
            if tensor.is_floating_point():
                tensor = tensor.to(encoder.head.proj.weight.dtype)
            clips = tensor.flatten(0, extra - 1)  # (b * clips, *shape)
            vectors = _encode_texts(encoder, clips, self._tokens) if encoder.config.vocabulary else encoder(clips)
            if extra == 2:
                vectors = torch.nn.functional.normalize(vectors.unflatten(0, tensor.shape[:2]).mean(dim=1), dim=-1)
        return vectors

    @property
    def _tokens(self) -> int:
        """Tokens to encode at once: enough to fill the device, few enough to stay in a CPU's cache."""
        return 2048 if self.device.type == "cpu" else 65536

    def batch_size(self, modality: str) -> int:
        """Clips to encode at once when the user does not say: about 2,000 tokens on a CPU, 64,000 elsewhere."""
        config = self.encoder(modality).config
        return max(1, self._tokens // (SHORT_TEXT if config.vocabulary else config.tokens))

    def read(self, modality: str, source: Any, **options: Any) -> Iterator[Any]:
        """The samples of one input as its encoder takes them (`Sample`: tensor (clips, *shape), spans, notes).

        Args:
            source: a path, an open binary file, for text a sentence, or the modality's array; see the readers in `encoders/`.
            options: fields of the modality's options, e.g. `clips=3`.
        Raises:
            UserError: an option this modality does not have. OSError, ValueError: the input cannot be read.
        """
        return read_source(modality, source, self.config(modality), options)

    def embed_items(
        self,
        modality: str,
        items: Iterable[Item | Failure],
        *,
        pool: str = "mean",
        batch_size: int | None = None,
        workers: int | None = None,
        processes: Processes | None = None,
        **options: Any,
    ) -> Iterator[tuple[Item, pipeline.Embedded | Failure]]:
        """Embed a stream of items in order, as `pipeline.embed` says: each beside its embeddings or its failure.

        processes: `Processes([modality])` where reading is what takes the time, as of many short files beside a GPU.
        """
        modality_options(modality, options)  # a wrong name is told before anything is loaded
        self.encoder(modality)
        return pipeline.embed(
            items,
            read=partial(read_source, modality, config=self.config(modality), options=options),
            encode=partial(self.encode, modality),
            batch_size=batch_size or self.batch_size(modality),
            workers=workers or (default_workers() if self.device.type == "cpu" else default_workers(BESIDE_A_GPU)),
            pool=pool,
            processes=processes,
        )

    def embed(
        self, modality: str, inputs: Sequence[Any], *, batch_size: int | None = None, workers: int | None = None, **options: Any
    ) -> np.ndarray:
        """Unit vectors, float32 (n, dim), one row per input in order.

        Args:
            inputs: paths, for text sentences, or arrays. Image: (h, w, 3) uint8. Video: (frames (t, h, w, 3) uint8, frames a second) or one
                clip's frames alone. Audio: (waveform, rate in Hz), or a waveform alone at 16 kHz. Depth: (h, w), float metres or uint16
                millimetres. Thermal: (h, w). IMU: (6, t). A single path or sentence is taken for a list of one.
                Of a sound, a video or a motion recording also a `Stretch`: the part of it between two times.
            options: fields of the modality's options, e.g. `clips=3`.
        Raises:
            UserError: an input cannot be read (its place and the reason), or an option does not exist.
        """
        if isinstance(inputs, str | os.PathLike):
            inputs = [inputs]
        named = (given if isinstance(given := whole(payload), str | os.PathLike) else f"input {i}" for i, payload in enumerate(inputs))
        items = (Item(str(name), payload) for name, payload in zip(named, inputs, strict=True))
        rows = []
        for item, result in self.embed_items(modality, items, batch_size=batch_size, workers=workers, **options):
            if isinstance(result, Failure):
                raise UserError(f"{item.id}: {result.reason.removeprefix(f'{item.id}: ')}")
            rows += [embedding.vector for embedding in result.embeddings]
        return np.stack(rows) if rows else np.empty((0, self.dim), np.float32)

    def made(self, modality: str, pool: str = "mean", **options: Any) -> dict[str, Any]:
        """How this model makes embeddings of a modality, for the record every store carries."""
        name = registry.encoder_name(modality)
        return {
            "modality": modality,
            "model": self.name,
            **({} if self.folder is None else {"folder": self.folder}),
            "weights": checkpoint.fingerprint(self.checkpoint, name),
            "untrained": self.checkpoint.untrained,
            "licence": self.checkpoint.config.licence,
            "dim": self.dim,
            "scale": self.scale(modality),
            "dtype": str(self.dtype or self.encoder(modality).head.proj.weight.dtype).removeprefix("torch."),
            "pool": pool,
            "options": record(modality_options(modality, options)),
            "version": metadata.version("imagebind-cli"),
        }


def _encode_texts(encoder: Encoder, texts: Tensor, tokens: int) -> Tensor:
    """Unit vectors (b, dim) of token ids (b, n), about `tokens` of them at a time: every text once, each with others of its length.

    Nothing behind the end token is computed: under the causal mask it cannot reach it.
    """
    different, places = torch.unique(texts, dim=0, return_inverse=True)
    ends, order = different.argmax(dim=-1).sort()  # the end token has the highest id of the vocabulary
    lengths = (ends + 1).tolist()
    vectors = torch.empty(len(different), encoder.config.dim, device=texts.device)
    start = 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * lengths[stop] <= tokens:
            stop += 1
        some = order[start:stop]
        vectors[some] = encoder(different[some, : lengths[stop - 1]])
        start = stop
    return vectors[places]


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
            file = f" {whole(source)}" if isinstance(whole(source), str) and modality != "text" else ""
            raise ValueError(f"{modality}{file}: {reason(error)}") from error


def shape_of(model: str) -> ModelConfig:
    """What a model is made of, where its weights are not needed: a config JSON is enough, and a named model need not be on this machine.

    Raises:
        UserError: no such model, or no config.
    """
    path = Path(model)
    if path.suffix == ".json" and os.path.isfile(path):
        return checkpoint.read_config(path)
    if model in model_config.names() and not os.path.exists(path):
        return model_config.named(model)
    return find(model).config


def input_configs(model: str | None, modalities: Sequence[str]) -> dict[str, EncoderConfig]:
    """What a model's encoders want as input, by modality; as `shape_of`, no weights are read."""
    name = model or default_name()
    encoders = shape_of(name).encoders
    missing = [modality for modality in modalities if registry.encoder_name(modality) not in encoders]
    if missing:
        raise UserError(f"{name}: this model has no encoder for {missing[0]}; it has {', '.join(encoders)}")
    return {modality: encoders[registry.encoder_name(modality)] for modality in modalities}


def input_record(config: EncoderConfig, modality: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """How samples of a modality are made for an encoder, in JSON's types: enough to tell whether another encoder can take them."""
    made = record(modality_options(modality, options))
    return {"shape": list(config.shape), "mean": list(config.mean), "std": list(config.std), "options": made}


def prepared_samples(source: Prepared, modality: str, config: EncoderConfig, options: Mapping[str, Any]) -> Iterator[Sample]:
    """Samples from prepared arrays, as the reader gave them. `options` chosen now must be those they were made with.

    Raises:
        UserError: they were made for an encoder that wants other input. ValueError: an array is torn, or not what that encoder takes.
    """
    theirs, ours = source.made["inputs"][modality], input_record(config, modality, {})
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


def load(
    model: ModelLike | None = None,
    *,
    modalities: Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    config: ConfigLike | None = None,
) -> Model:
    """A model to embed with.

    Args:
        model: a name (`huge`, `tiny`), a folder, a published `.pth` as it is, `hf://owner/repo`, or published-format tensors by name.
            None takes `IMAGEBIND_MODEL`, else the default.
        modalities: encoders to load now; others are loaded when first used.
        device: `auto`, `cpu`, `cuda`, `mps`. dtype: `auto` (float32 on CPU, the weights' own elsewhere), `fp32`, `bf16`, `fp16`,
            `int8` (on CPUs: faster, and a little off; `imagebind weights verify --dtype int8` says how much).
        config: what the weights are, where they do not say so: the published constructor's arguments, or a JSON file.
    Raises:
        UserError: no such model, modality, device or dtype, or weights that do not fit their config.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; choose from auto, {', '.join(DTYPES)}")
    modalities = [modalities] if isinstance(modalities, str) else modalities
    for modality in modalities or ():
        registry.encoder_name(modality)
    place = choose_device("cpu" if (device, dtype) == ("auto", "int8") else device)
    if dtype == "int8" and place.type != "cpu":
        raise UsageError(f"int8 is for CPUs, not {place.type}; bf16 is the fast one there")
    loaded = Model(find(model, config), place, DTYPES.get(dtype))
    for modality in modalities or ():
        loaded.encoder(modality)
    return loaded
