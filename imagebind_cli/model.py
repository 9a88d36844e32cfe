"""A model to work with: found by name, folder, file or hub address, its encoders loaded one by one, files to unit vectors."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import pipeline, registry
from imagebind_cli.encoder import Encoder, EncoderConfig
from imagebind_cli.engine.processes import Processes, default_workers
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.int8 import narrow
from imagebind_cli.options import record
from imagebind_cli.readers import modality_options, read_source
from imagebind_cli.sources import Failure, Item, whole
from imagebind_cli.weights import checkpoint, model_config
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.find import ConfigLike, ModelLike, find_checkpoint, is_bundled

SHORT_TEXT = 8
"""Tokens of a short sentence: texts are taken in as if all were, and encoded by their true lengths."""
BESIDE_A_GPU = 32
"""Cores that read for a GPU at most, if the user does not say; a CPU that encodes has few to spare."""
LOG = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


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
            started = time.monotonic()
            if self.dtype is torch.int8:
                self._encoders[name] = narrow(checkpoint.load_encoder(self.checkpoint, name, self.device, torch.float32))
            else:
                self._encoders[name] = checkpoint.load_encoder(self.checkpoint, name, self.device, self.dtype)
            seconds, weight = time.monotonic() - started, self._encoders[name].head.proj.weight
            LOG.debug("encoder %s of %s loaded to %s in %.2f s", name, self.checkpoint.place, weight.device, seconds)
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
        batch_size = batch_size or self.batch_size(modality)
        workers = workers or (default_workers() if self.device.type == "cpu" else default_workers(BESIDE_A_GPU))
        reader = registry.get(modality).readers[modality]
        LOG.debug("%s: read by %s, %d at a time; encoded in batches of %d clips", modality, reader.__module__, workers, batch_size)
        return pipeline.embed(
            items,
            read=partial(read_source, modality, config=self.config(modality), options=options),
            encode=partial(self.encode, modality),
            batch_size=batch_size,
            workers=workers,
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
    loaded = Model(find_checkpoint(model, config), place, DTYPES.get(dtype))
    for modality in modalities or ():
        loaded.encoder(modality)
    return loaded
