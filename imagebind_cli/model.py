"""`load` and `Model`: turn files into unit vectors with a checkpoint whose encoders are loaded one by one, when first used."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import pipeline, registry
from imagebind_cli.cores import PartsUnderWay, PendingVectors, part_count
from imagebind_cli.embedding import Embedded
from imagebind_cli.encoder import Encoder, EncoderConfig, clip_axes, text_batches
from imagebind_cli.engine import default_workers, open_engine
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.engine.processes import Processes
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.int8 import narrow
from imagebind_cli.merging import merge_tokens
from imagebind_cli.options import ReadingOptions
from imagebind_cli.readers import check_options, options_record, read_source, reader_of
from imagebind_cli.sources import Failure, Item, whole_source
from imagebind_cli.sources.in_memory import is_in_memory, path_of_row
from imagebind_cli.weights import checkpoint
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.find import ConfigLike, ModelLike, find_checkpoint, leads_to

SHORT_TEXT = 8  # tokens of a short sentence: a batch of texts is counted as if all were short, and encoded by their true lengths
BESIDE_A_GPU = 32  # items read at a time for a GPU, at most, if the user does not say; a CPU that encodes has few cores to spare
LOG = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name: `cpu`, `cuda`, `cuda:1`, `mps`, or for `auto` the first of CUDA, MPS and CPU that is present.

    Raises:
        UserError: unknown name, or the device is not present.
    """
    devices = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, present in devices.items() if present))
    if name.partition(":")[0] not in devices:
        raise UsageError(f"unknown device {name!r}; choose from auto, {', '.join(devices)}")
    if not devices[name.partition(":")[0]]:
        raise UserError(f"no {name} device here; choose from {', '.join(device for device, present in devices.items() if present)}")
    return torch.device(name)


class Model:
    """A model whose encoders are loaded when they are first used. Get one from `load`.

    Threads may share it: one of them loads or encodes at a time on a GPU. On a CPU, parts of their batches take turns on the cores.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype | None, merge: int = 0) -> None:
        self.checkpoint, self.device, self.dtype, self.merge = checkpoint, device, dtype, merge
        self._encoders: dict[str, Encoder] = {}
        self._fingerprints: dict[str, str] = {}
        self._lock = threading.RLock()
        self._log = LogListener()  # one for all calls, so that an assumption is logged once

    @property
    def name(self) -> str:
        """The name in its config."""
        return self.checkpoint.config.name

    @property
    def folder(self) -> str | None:
        """The folder or file of its weights; None if its name is enough to find them."""
        place = self.checkpoint.place
        return None if not os.path.exists(place) or leads_to(self.name, place) else os.path.abspath(place)

    @property
    def dim(self) -> int:
        """The length of its vectors."""
        return self.checkpoint.config.dim

    @property
    def family(self) -> str:
        """The family of its weights."""
        return self.checkpoint.config.family

    @property
    def rounded(self) -> str | None:
        """The number type that its weights were rounded to, if `weights convert --dtype` made them."""
        record = self.checkpoint.config.rounded
        return record and record["dtype"]

    @property
    def trained_on(self) -> Mapping[str, Mapping[str, str]]:
        """Return what its encoders were trained on of published suites; see `ModelConfig.trained_on`."""
        return self.checkpoint.config.trained_on

    def fingerprint(self, modality: str) -> str:
        """Return the identity of a modality's weights, as stores record it; for rounded weights, that of the weights they were made from."""
        name, rounded = registry.face(modality).encoder, self.checkpoint.config.rounded
        if rounded and name in rounded["weights"]:
            return rounded["weights"][name]
        if name not in self._fingerprints:  # read from the weights each time, and asked for with every store that is opened
            self._fingerprints[name] = self.checkpoint.fingerprint(name)
        return self._fingerprints[name]

    def config(self, modality: str) -> EncoderConfig:
        """Return the shape of a modality's encoder and of the input it takes; reads no weights.

        Raises:
            UserError: unknown modality, or one this model has no encoder for.
        """
        return checkpoint.encoder_config(self.checkpoint, modality)

    def encoder(self, modality: str) -> Encoder:
        """Return the encoder of a modality, loaded once; `image`, `video` and `vision` share one.

        Raises:
            UserError: unknown modality, or weights that do not fit.
        """
        name = registry.face(modality).encoder
        with self._lock:
            if name not in self._encoders:
                self._encoders[name] = self._load(name)
            return self._encoders[name]

    def _load(self, name: str) -> Encoder:
        started = time.monotonic()
        if self.dtype is torch.int8:
            encoder = narrow(checkpoint.load_encoder(self.checkpoint, name, self.device, torch.float32))
        else:
            encoder = checkpoint.load_encoder(self.checkpoint, name, self.device, self.dtype)
        if self.merge:
            merge_tokens(encoder, self.merge, name)
        seconds, device = time.monotonic() - started, encoder.head.proj.weight.device
        LOG.debug("encoder %s of %s loaded to %s in %.2f s", name, self.checkpoint.place, device, seconds)
        return encoder

    def scale(self, modality: str) -> float:
        """Return the logit scale of a modality: cosines are multiplied with it before a softmax, vectors never are. 1 for vision."""
        return self.encoder(modality).scale

    def encode(self, modality: str, tensor: Tensor, *, unit: bool = True) -> Tensor:
        """Encode tensors, as the encoder takes them, to unit vectors (b, dim) float32 on the model's device.

        Args:
            tensor: one clip each, (b, *shape), or several, (b, clips, *shape), which are averaged and made unit vectors again. Vision takes
                (b, 3, h, w), (b, 3, 2, h, w) and both with clips; text takes (b, 77) token ids; audio (b, 1, 128, 204); depth and thermal
                (b, 1, 224, 224); IMU (b, 6, 2000).
            unit: False keeps the length that the encoder gives a vector; several clips are averaged with theirs.
        Raises:
            UserError: another shape.
        """
        vectors = self.begin_encoding(modality, tensor, unit=unit)
        return vectors if isinstance(vectors, Tensor) else vectors.cpu()

    def begin_encoding(self, modality: str, tensor: Tensor, *, unit: bool = True) -> PendingVectors:
        """Begin to encode tensors as `encode` does, and return their vectors without waiting for them."""
        encoder = self.encoder(modality)
        axes = clip_axes(modality, encoder.config, tensor.shape)
        clips = self._on_device(encoder, tensor.flatten(0, axes - 1))  # (b * clips, *shape)
        parts = part_count(len(clips)) if self.device.type == "cpu" else 1
        if encoder.config.vocabulary:
            batches, rows = text_batches(clips, encoder.config, self._tokens // parts, parts)
        else:
            batches, rows = list(clips.tensor_split(parts)), None

        @torch.inference_mode()
        def encode_part(batch: Tensor) -> Tensor:
            return encoder(batch, unit)

        @torch.inference_mode()
        def join(vectors: list[Tensor]) -> Tensor:
            joined = torch.cat(vectors)
            joined = joined if rows is None else joined.index_select(0, rows)  # `joined[rows]` wakes other cores even for a few rows
            if axes == 1:
                return joined
            means = joined.view(*tensor.shape[:2], -1).mean(dim=1)
            return torch.nn.functional.normalize(means, dim=-1) if unit else means

        if parts > 1 and len(batches) > 1:
            return PartsUnderWay([partial(encode_part, batch) for batch in batches], join)
        with nullcontext() if self.device.type == "cpu" else self._lock:
            return join([encode_part(batch) for batch in batches])

    def _on_device(self, encoder: Encoder, tensor: Tensor) -> Tensor:
        to_pin = self.device.type == "cuda" and tensor.device.type == "cpu"  # pinned memory is copied while Python continues
        tensor = tensor.pin_memory().to(self.device, non_blocking=True) if to_pin else tensor.to(self.device)
        return tensor.to(encoder.head.proj.weight.dtype) if tensor.is_floating_point() else tensor

    @property
    def _tokens(self) -> int:
        """Tokens to encode at once: enough to fill the device, few enough to stay in a CPU's cache."""
        return 2048 if self.device.type == "cpu" else 65536

    def batch_size(self, modality: str) -> int:
        """Return the default number of clips to encode at once: about 2,000 tokens on a CPU, 64,000 elsewhere."""
        config = self.encoder(modality).config
        return max(1, self._tokens // (SHORT_TEXT if config.vocabulary else config.tokens))

    def read(self, modality: str, source: Any, **options: Any) -> Iterator[Any]:
        """Yield the samples of one input as its encoder takes them (`Sample`: tensor (clips, *shape), spans, notes).

        Args:
            source: a path, an open binary file, for text a sentence, or the modality's array; see the readers in `encoders/`.
            options: fields of the modality's options, e.g. `clips=3`.
        Raises:
            UserError: an option this modality does not have. OSError, ValueError: the input cannot be read.
        """
        face, config = registry.face(modality), self.config(modality)
        resolved = face.read_options(options)
        check_options(face, config, resolved)
        return read_source(face, source, config, resolved)

    def embed_items(
        self,
        modality: str,
        items: Iterable[Item | Failure],
        *,
        options: ReadingOptions | None = None,
        pool: str = "mean",
        batch_size: int | None = None,
        workers: int | None = None,
        processes: Processes | None = None,
        item_timeout: float = ITEM_SECONDS,
        lengths: bool = False,
    ) -> Iterator[tuple[Item, Embedded | Failure]]:
        """Embed a stream of items in order: yield each with its embeddings or its failure, as `pipeline.embed_items` does.

        Args:
            options: how the inputs are read, from `registry.face(modality).read_options({"clips": 3})`; None for the defaults.
            pool: `mean` for one vector per item, `none` for one per time window.
            processes: `Processes([modality])` where reading is the bottleneck, such as many short files with a GPU.
            item_timeout: seconds that reading one item may take; one that takes longer is a failure. 0 for no limit.
            lengths: give each vector the `length` that the encoder gave it; of several clips, that of their mean. Vectors are unit vectors.
        """
        face, config = registry.face(modality), self.config(modality)
        options = options or face.options()
        check_options(face, config, options)
        reader = reader_of(face, config)
        self.encoder(modality)
        read = partial(read_source, face, config=config, options=options)
        workers = workers or (default_workers() if self.device.type == "cpu" else default_workers(BESIDE_A_GPU))
        batch_size = batch_size or self.batch_size(modality)
        engine = open_engine(read, workers, processes, item_timeout)
        LOG.debug("%s: read by %s, %d at a time; encoded in batches of %d clips", modality, reader.__module__, workers, batch_size)
        return pipeline.embed_items(
            items, engine, partial(self.begin_encoding, modality, unit=not lengths), batch_size=batch_size, pool=pool
        )

    def embed(
        self,
        modality: str,
        inputs: Sequence[Any],
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        listener: Listener | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Embed inputs to unit vectors float32 (n, dim), a row per input in order.

        Args:
            inputs: paths, for text sentences, the bytes of files, rows `{"bytes": …, "path": …}` of Hugging Face datasets, Pillow images,
                or arrays. Image: (h, w, 3) uint8. Video: (frames (t, h, w, 3) uint8, frames a second) or one
                clip's frames alone. Audio: (waveform, rate in Hz), or a waveform alone at 16 kHz. Depth: (h, w), float metres or uint16
                millimetres. Thermal: (h, w). IMU: (6, t). A single path or sentence counts as a list of one.
                Of a sound, a video or a motion recording also a `Stretch`: the part of it between two times.
            listener: receives the assumptions made to read an input, and warnings of what was lost; by default both are logged, each assumption once.
            options: fields of the modality's options, e.g. `clips=3`.
        Raises:
            UserError: an input cannot be read (its place and the reason), or an option does not exist.
        """
        resolved = registry.face(modality).read_options(options)
        if isinstance(inputs, str | os.PathLike) or is_in_memory(inputs):
            inputs = [inputs]
        wholes = ((i, payload, whole_source(payload)) for i, payload in enumerate(inputs))
        sources = ((i, payload, path_of_row(whole) or whole) for i, payload, whole in wholes)
        items = (Item(str(path) if isinstance(path, str | os.PathLike) else f"input {i}", payload) for i, payload, path in sources)
        listener, rows = listener or self._log, []
        for item, result in self.embed_items(modality, items, options=resolved, batch_size=batch_size, workers=workers):
            if isinstance(result, Failure):
                raise UserError(f"{item.id}: {result.reason.removeprefix(f'{item.id}: ')}")
            listener.remarks(item.id, result.notes, result.warnings)
            listener.succeeded(item.id)
            rows += [embedding.vector for embedding in result.embeddings]
        return np.stack(rows) if rows else np.empty((0, self.dim), np.float32)

    def record(self, modality: str, options: ReadingOptions | None = None, pool: str = "mean") -> dict[str, Any]:
        """Describe how this model makes embeddings of a modality: the record that every store carries."""
        # Stores are compared by all keys (`store.provenance.difference`). Leave a new one out where it has the value that older stores
        # were made with, as `merge` is, or list it in `provenance.FREE` if it does not change vectors; else older stores are refused.
        face = registry.face(modality)
        return {
            "modality": modality,
            "model": self.name,
            "family": self.family,
            **({} if self.folder is None else {"folder": self.folder}),
            "weights": self.fingerprint(modality),
            **({} if self.rounded is None else {"rounded": self.rounded}),
            "untrained": self.checkpoint.untrained,
            "licence": self.checkpoint.config.licence,
            "dim": self.dim,
            "scale": self.scale(modality),
            "dtype": str(self.dtype or self.encoder(modality).head.proj.weight.dtype).removeprefix("torch."),
            **({"merge": self.merge} if self.merge else {}),
            "pool": pool,
            "options": options_record(face, self.config(modality), options or face.options()),
            "version": metadata.version("imagebind-cli"),
        }


def load(
    model: ModelLike | None = None,
    *,
    modalities: Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    merge: int = 0,
    config: ConfigLike | None = None,
) -> Model:
    """Find a model and return it; only the weights of `modalities` are read now.

    Args:
        model: a name (`huge`, `tiny`), a folder, a published `.pth`, `hf://owner/repo`, or published-format tensors by name.
            None takes `IMAGEBIND_MODEL`, else the default.
        modalities: those whose encoders to load now; others are loaded when first used.
        device: `auto`, `cpu`, `cuda`, `mps`. dtype: `auto` (float32 on CPU, the weights' own elsewhere), `fp32`, `bf16`, `fp16`,
            `int8` (on CPUs: faster and slightly less exact; `imagebind weights verify --dtype int8` measures by how much).
        merge: tokens of pictures and spectrograms that each block merges (faster and slightly less exact; `imagebind weights verify --merge`
            measures by how much); 0 merges none.
        config: describes weights that do not describe themselves: the published constructor's arguments, or a JSON file.
    Raises:
        UserError: no such model, modality, device or dtype, or weights that do not fit their config.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; choose from auto, {', '.join(DTYPES)}")
    modalities = [modalities] if isinstance(modalities, str) else modalities
    for modality in modalities or ():
        registry.face(modality)
    place = choose_device("cpu" if (device, dtype) == ("auto", "int8") else device)
    if dtype == "int8" and place.type != "cpu":
        raise UsageError(f"int8 is for CPUs, not {place.type}; use bf16 there")
    loaded = Model(find_checkpoint(model, config), place, DTYPES.get(dtype), merge)
    for modality in modalities or ():
        loaded.encoder(modality)
    return loaded
