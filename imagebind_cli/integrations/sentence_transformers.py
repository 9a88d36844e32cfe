"""A model as an input module of sentence-transformers, whose `encode`, losses, trainer and `save` then work with it.

Imports sentence-transformers, of the extra of that name; of version 5.4 or newer, where input modules state their modalities.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from imagebind_cli import registry
from imagebind_cli.encoder import Encoder, encode_texts
from imagebind_cli.engine import default_workers, open_engine
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import LogListener
from imagebind_cli.files import put_in_place, write_json
from imagebind_cli.integrations import not_installed
from imagebind_cli.model import Model, load
from imagebind_cli.options import ReadingOptions
from imagebind_cli.pipeline import decode
from imagebind_cli.readers import check_options, read_source
from imagebind_cli.registry import Face
from imagebind_cli.sources import Failure, Item
from imagebind_cli.weights import checkpoint
from imagebind_cli.weights.convert import convert
from imagebind_cli.weights.model_config import ModelConfig

try:
    from sentence_transformers.base.modality import infer_modality
    from sentence_transformers.base.modules import InputModule
    from sentence_transformers.util import load_dir_path
except ImportError:
    raise not_installed("sentence-transformers 5.4 or newer", "sentence-transformers") from None

THEIRS = ("text", "image", "audio", "video")  # the modalities that sentence-transformers has names for
# The keys by which its trainer recognises inputs; others of ours come under the last.
FEATURES = {"text": "input_ids", "image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}
ANY_FEATURE = "input_values"
TOKENS = 2048  # tokens of sentences that are encoded at once


class ImageBindModule(InputModule):  # type: ignore[misc]
    """Embed inputs of one modality a batch to unit vectors, with gradients: `SentenceTransformer(modules=[ImageBindModule("mini")])`.

    An input is a sentence, the path of a picture, sound or video, a Pillow image, an array, a waveform at 16 kHz, `{"array": …,
    "sampling_rate": …}`, or what says its modality: `{"depth": "room.png"}`, `{"image": bytes}`. Everything else that `Model.embed` takes
    follows the key.
    """

    config_file_name = "imagebind_module.json"  # beside the `config.json` of the model

    def __init__(
        self,
        model: Model | str | None = None,
        *,
        modality: str | None = None,
        encoders: Sequence[str] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Load encoders, all in float32 so that they can train.

        Args:
            model: a name or place, as `load` takes it, or a loaded model, whose encoders this module then shares.
            modality: of every input, such as `depth`; None to recognise it.
            encoders: names or modalities of those to load; by default that of `modality`, or else all.
            options: reading options by modality, such as `{"audio": {"clips": 3}}`.
        Raises:
            UserError: no such model, modality or option.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model if isinstance(model, Model) else load(model, device="cpu", dtype="fp32")
        self.modality = None if modality is None else registry.face(modality).name
        self.options = {registry.face(name).name: dict(chosen) for name, chosen in (options or {}).items()}
        for name, chosen in self.options.items():
            self._reading(registry.face(name), chosen)
        names = encoders or ([modality] if modality else list(self.model.checkpoint.config.encoders))
        self.encoders = nn.ModuleDict({name: self._owned(name) for name in dict.fromkeys(registry.face(each).encoder for each in names)})
        self._log = LogListener()

    def _owned(self, name: str) -> Encoder:
        """Load an encoder whose weights may be written to, which those of a mapped file may not."""
        encoder = self.model.encoder(name)
        for parameter in encoder.parameters():
            parameter.data = parameter.data.clone()
        if encoder.config.scale is not None:
            encoder.log_scale.requires_grad_(False)  # belongs to probabilities, not to vectors
        return encoder

    @property
    def modalities(self) -> list[Any]:
        """Those that sentence-transformers has names for; all of them where the modality is fixed, since arrays then are of any kind."""
        return [name for name in THEIRS if self.modality or registry.face(name).encoder in self.encoders]

    @property
    def max_seq_length(self) -> int | None:
        """Tokens of a sentence; None without an encoder of text."""
        return self.model.config(registry.TEXT).shape[0] if registry.TEXT in self.encoders else None

    def get_embedding_dimension(self) -> int:
        """Return the length of the vectors."""
        return self.model.dim

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, processing_kwargs: Mapping[str, Any] | None = None, **_: Any
    ) -> dict[str, Any]:
        """Read inputs, with the limits and the time that any file has.

        Args:
            inputs: all of one modality. prompt: goes before each sentence. processing_kwargs: reading options by modality, over the module's.
        Returns:
            The clips (b, clips, *shape), padded with zeros, under the key of the modality; `clip_counts` (b,), how many are real; `modality`.
        Raises:
            UserError: an input cannot be read (its name and the reason), or they are of several modalities.
        """
        named = [self._recognise(given) for given in inputs]
        faces = list(dict.fromkeys(face for face, _ in named))
        if len(faces) > 1:
            raise UserError(f"a batch of {' and '.join(face.name for face in faces)}; encode each modality by itself")
        face = faces[0]
        if face.encoder not in self.encoders:
            raise UserError(f"{face.name}: this module has no {face.encoder} encoder; it has {', '.join(self.encoders)}")
        payloads = [prompt + payload if prompt and face.text and isinstance(payload, str) else payload for _, payload in named]
        clips = self._read(face, payloads, {**self.options.get(face.name, {}), **(processing_kwargs or {}).get(face.name, {})})
        padded = nn.utils.rnn.pad_sequence(clips, batch_first=True)  # (b, clips, *shape)
        counts = torch.tensor([len(each) for each in clips])
        return {FEATURES.get(face.name, ANY_FEATURE): padded, "clip_counts": counts, "modality": face.name}

    def _recognise(self, given: Any) -> tuple[Face, Any]:
        """Return the modality of an input, and the input as `Model.embed` takes it."""
        if isinstance(given, Mapping) and len(given) == 1 and (name := next(iter(given))) in registry.MODALITIES:
            return registry.face(name), _payload(given[name], registry.face(name))
        if self.modality is not None:
            return registry.face(self.modality), _payload(given, registry.face(self.modality))
        try:
            modality = infer_modality(given, supported_modalities=self.modalities)
        except ValueError:
            modality = None
        if modality not in THEIRS:
            hint = 'say the modality, as {"image": …}, or give the module one: ImageBindModule(…, modality="image")'
            raise UserError(f"an input of type {type(given).__name__} may be of any modality; {hint}")
        return registry.face(modality), _payload(given, registry.face(modality))

    def _read(self, face: Face, payloads: list[Any], chosen: Mapping[str, Any]) -> list[Tensor]:
        """Return the clips (clips, *shape) of each input."""
        read = partial(read_source, face, config=self.model.config(face.name), options=self._reading(face, chosen))
        names = [each if isinstance(each, str) and not face.text else f"input {number}" for number, each in enumerate(payloads)]
        items = [Item(name, payload) for name, payload in zip(names, payloads, strict=True)]
        clips, parts = [], list[Tensor]()
        for step in decode(items, open_engine(read, default_workers()), ahead=len(items)):
            assert step is not None  # that is for impatient callers
            item, outcome = step
            if isinstance(outcome, Failure):
                raise UserError(f"{item.id}: {outcome.reason}")
            if outcome is not None:
                self._log.remarks(item.id, outcome.notes, outcome.warnings)
                parts.append(outcome.tensor)
                continue
            if not parts:
                raise UserError(f"{item.id}: holds nothing to embed")
            clips.append(torch.cat(parts))
            parts = []
        return clips

    def _reading(self, face: Face, chosen: Mapping[str, Any]) -> ReadingOptions:
        options = face.read_options(chosen)
        check_options(face, self.model.config(face.name), options)
        return options

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, unit vectors (b, dim) float32, to what `preprocess` made."""
        face = registry.face(features["modality"])
        encoder = cast(Encoder, self.encoders[face.encoder])
        padded, counts = features[FEATURES.get(face.name, ANY_FEATURE)], features["clip_counts"]
        real = torch.arange(padded.shape[1], device=padded.device) < counts[:, None]  # (b, clips)
        clips = padded[real]  # (n, *shape)
        if clips.is_floating_point():
            clips = clips.to(encoder.head.proj.weight.dtype)
        vectors = encode_texts(encoder, clips, TOKENS) if face.text else encoder(clips)
        owner = real.nonzero()[:, 0]
        sums = torch.zeros(len(counts), vectors.shape[1], device=vectors.device).index_add(0, owner, vectors)
        features["sentence_embedding"] = nn.functional.normalize(sums, dim=-1)
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write a model folder, which every command takes by `--model`, and the module's own settings beside it.

        Raises:
            UsageError: `safe_serialization=False`, which would pickle.
        """
        if not safe_serialization:
            raise UsageError("safe_serialization=False: weights are written as safetensors only")
        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: encoder.state_dict() for name, encoder in self.encoders.items()}
        held = checkpoint.Checkpoint(self._saved_config(), str(folder), tensors.__getitem__)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
            built = Path(temporary) / (Path(self.model.name).name or "model")
            convert(held, built, origin=dict(self.model.checkpoint.config.origin) | {"model": self.model.name})
            for file in sorted(built.iterdir(), key=lambda path: path.name == "config.json"):
                put_in_place(file, folder / file.name)
        write_json(folder / self.config_file_name, {"modality": self.modality, "options": self.options})

    def _saved_config(self) -> ModelConfig:
        config = self.model.checkpoint.config
        return replace(config, encoders={name: config.encoders[name] for name in self.encoders}, rule_seed=None, rounded=None)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:  # type: ignore[override]
        """Load what `save` wrote, from a folder or from the Hub. kwargs: `token`, `cache_folder`, `revision`, `local_files_only`.

        `SentenceTransformer(folder)` asks for `trust_remote_code=True`, as for every class that is not its own;
        `SentenceTransformer(modules=[ImageBindModule.load(folder)])` does not.

        Raises:
            UserError: there is no such folder, or it is not one that `save` wrote.
        """
        place = {key: kwargs[key] for key in ("token", "cache_folder", "revision", "local_files_only") if key in kwargs}
        settings = cls.load_config(model_name_or_path, subfolder=subfolder, **place)
        folder = load_dir_path(model_name_or_path, subfolder=subfolder, **place)
        if folder is None:
            raise UserError(f"{model_name_or_path}: no folder {subfolder}, which ImageBindModule.save writes")
        return cls(folder, modality=settings.get("modality"), options=settings.get("options"))


def _payload(given: Any, face: Face) -> Any:
    """Return an input of sentence-transformers as our readers take it: arrays in place of tensors, frames with their rate, channels last."""
    if isinstance(given, Mapping) and "video_metadata" in given and "array" in given:
        rate = (given["video_metadata"] or {}).get("fps")
        frames = _channels_last(np.asarray(given["array"]))
        return frames if rate is None else (frames, float(rate))
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    if isinstance(array, np.ndarray):
        return _channels_last(array) if face.encoder == "vision" else array
    return array


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (…, h, w, 3), given in that order or as (…, 3, h, w)."""
    return np.moveaxis(pixels, -3, -1) if pixels.ndim >= 3 and pixels.shape[-3] == 3 and pixels.shape[-1] != 3 else pixels
