"""The published model over the encoders of `imagebind_cli`: its stages, the names of its tensors, and outputs multiplied by the logit scale.

Dimensions: b batch, n tokens, d width, e size of the joint space.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli.encoder import LARGEST_SCALE, Encoder, EncoderConfig, Head, clip_axes
from imagebind_cli.families.imagebind import PUBLISHED, from_published
from imagebind_cli.training.start import encoder_with, fresh_weights
from imagebind_cli.transformer import Transformer
from imagebind_cli.weights.checkpoint import Checkpoint, load_encoder
from imagebind_cli.weights.download import folder_of
from imagebind_cli.weights.find import NotFetched, find_checkpoint
from imagebind_cli.weights.published import published_models, pull_named
from imagebind_cli.weights.tensor_names import published_names

ModalityType = SimpleNamespace(VISION="vision", TEXT="text", AUDIO="audio", THERMAL="thermal", DEPTH="depth", IMU="imu")

HUGE = "huge"
HUGE_ARGUMENTS: dict[str, Any] = dict(
    out_embed_dim=1024,
    vision_embed_dim=1280, vision_num_blocks=32, vision_num_heads=16,
    text_embed_dim=1024, text_num_blocks=24, text_num_heads=16,
)  # fmt: skip
LOCAL = Path(".checkpoints/imagebind_huge.pth")  # where the published code downloads to, in the working folder
REPORTED = 5  # per cent of a download between two lines about it


class ImageBindModel(nn.Module):
    """Six encoders, each in four stages by modality, as published: preprocessors, trunks, heads, postprocessors.

    Its `state_dict` has the published names, and those of a published file are what `load_state_dict` takes.
    """

    def __init__(self, *, checkpoint: Checkpoint | None = None, **arguments: Any) -> None:
        """Build a model with initial weights, drawn from PyTorch's random state, or with those of a checkpoint.

        Args:
            arguments: the published constructor's, such as `vision_embed_dim=1280`, for initial weights.
        Raises:
            UserError: an unknown argument, or weights that do not fit.
        """
        super().__init__()
        if checkpoint is None:
            seed, configs = int(torch.randint(1 << 31, ())), from_published(arguments).encoders
            encoders = {name: encoder_with(name, config, fresh_weights(name, config, seed)) for name, config in configs.items()}
        else:
            encoders = {name: load_encoder(checkpoint, name, torch.device("cpu")) for name in checkpoint.config.encoders}
        self.modality_preprocessors = nn.ModuleDict({name: Preprocessor(name, encoder) for name, encoder in encoders.items()})
        self.modality_trunks = nn.ModuleDict({name: Trunk(name, encoder.trunk) for name, encoder in encoders.items()})
        self.modality_heads = nn.ModuleDict({name: published_head(encoder) for name, encoder in encoders.items()})
        self.modality_postprocessors = nn.ModuleDict({name: published_scaling(encoder) for name, encoder in encoders.items()})
        self.train()

    def forward(self, inputs: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Encode inputs of any of the modalities to vectors (b, e) of length scale: 1 for vision, 1 / 0.07 or as learnt for text, …

        Args:
            inputs: by modality, (b, *clip) or (b, clips, *clip), of which the vectors of the clips are averaged and not scaled again. None
                is left out.
        Raises:
            UserError: a tensor of another shape.
        """
        return {name: self._encode(name, tensor) for name, tensor in inputs.items() if tensor is not None}

    def _encode(self, name: str, tensor: Tensor) -> Tensor:
        preprocessor: Any = self.modality_preprocessors[name]
        if name == ModalityType.VISION and tensor.dim() > 4 and tensor.shape[-3] == 1:
            tensor = tensor.squeeze(-3)  # one frame is a still picture
        axes = clip_axes(name, preprocessor.config, tensor.shape)
        stages = preprocessor(tensor.flatten(0, axes - 1))
        tokens = self.modality_trunks[name](**stages["trunk"])
        vectors = self.modality_postprocessors[name](self.modality_heads[name](tokens, **stages["head"]))
        return vectors if axes == 1 else vectors.unflatten(0, tensor.shape[:2]).mean(dim=1)


def imagebind_huge(pretrained: bool = False) -> ImageBindModel:
    """Build the published model, in training mode and on the CPU.

    Args:
        pretrained: with the published weights: those in `.checkpoints/imagebind_huge.pth` of the working folder if they are there, else
            those of `imagebind weights pull huge`, which are downloaded where they are missing. They are mapped, so that only
            what is used is read. False for initial weights.
    Raises:
        UserError: the weights cannot be read or downloaded.
    """
    if pretrained:
        return ImageBindModel(checkpoint=find_checkpoint(LOCAL) if LOCAL.is_file() else _pulled())
    return ImageBindModel(**HUGE_ARGUMENTS)


def _pulled() -> Checkpoint:
    try:
        return find_checkpoint(HUGE)
    except NotFetched:
        model = published_models()[HUGE]
        sys.stderr.write(f"imagebind: downloading {model.address} to {folder_of(HUGE)}; its licence is {model.licence}\n")
        told = 0

        def report(name: str, received: int, total: int | None) -> None:
            nonlocal told
            share = 100 * received // total if total else 0
            if share // REPORTED > told // REPORTED:
                told = share
                sys.stderr.write(f"imagebind: {name}: {share} %\n")

        pull_named(HUGE, progress=report)
        return find_checkpoint(HUGE)


class Preprocessor(nn.Module):
    """The first stage: an input to tokens."""

    def __init__(self, name: str, encoder: Encoder) -> None:
        super().__init__()
        self.name, self.config, self.stem = name, encoder.config, encoder.stem
        if encoder.config.trunk.causal:
            context = encoder.config.tokens
            self.register_buffer("mask", torch.full((context, context), -torch.inf).triu(1))
        publish_names(self, f"modality_preprocessors.{name}.", {f"stem.{key}": f"{name}.stem.{key}" for key in self.stem.state_dict()})

    def forward(self, *positional: Tensor, **named: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the keywords of the trunk and of the head for clips (b, *clip), given by position or as `vision=`, `audio=`, …"""
        (clips,) = positional or (named[self.name],)
        if not self.config.vocabulary:
            return {"trunk": {"tokens": self.stem(clips)}, "head": {}}
        return {"trunk": {"tokens": self.stem(clips), "attn_mask": self.mask}, "head": {"seq_len": clips.argmax(dim=-1)}}


class Trunk(nn.Module):
    """The second stage: the transformer."""

    def __init__(self, name: str, transformer: Transformer) -> None:
        super().__init__()
        self.pre_transformer_layer = nn.Sequential(transformer.norm)
        self.blocks = transformer.blocks
        publish_names(self, f"modality_trunks.{name}.", {f"blocks.{key}": f"{name}.trunk.blocks.{key}" for key in self.blocks.state_dict()})

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Transform tokens (b, n, d). attn_mask: not used; the blocks of texts are causal by themselves."""
        tokens = self.pre_transformer_layer(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class FirstToken(nn.Module):
    """Takes the class token, (b, n, d) to (b, d)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the first token of each input."""
        return tokens[:, 0]


class EndTokenHead(nn.Module):
    """The third stage of texts: the end token, normalised and projected."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.proj = nn.Sequential(head.norm, head.proj)

    def forward(self, tokens: Tensor, seq_len: Tensor) -> Tensor:
        """Project tokens (b, n, d) to (b, e). seq_len: place of the end token of each text."""
        vectors: Tensor = self.proj(tokens[torch.arange(len(tokens), device=tokens.device), seq_len])
        return vectors


def published_head(encoder: Encoder) -> nn.Module:
    """Return the third stage of an encoder, tokens (b, n, d) to (b, e), with its layers at the published places."""
    head = encoder.head
    if encoder.config.pool == "eos":
        return EndTokenHead(head)
    return nn.Sequential(head.norm, FirstToken(), *([head.dropout] if encoder.config.head_dropout else []), head.proj)


class Normalize(nn.Module):
    """Makes vectors (b, e) unit vectors."""

    def forward(self, x: Tensor) -> Tensor:
        """Divide each vector by its length."""
        return F.normalize(x, dim=-1)


class LearnableLogitScaling(nn.Module):
    """Multiplies vectors by the logit scale, 1 / temperature, at most `max_logit_scale`."""

    def __init__(self, log_scale: Tensor, learnable: bool) -> None:
        super().__init__()
        self.max_logit_scale = LARGEST_SCALE
        if learnable:
            self.log_logit_scale = nn.Parameter(log_scale.detach())
        else:
            self.register_buffer("log_logit_scale", log_scale.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Scale vectors (b, e)."""
        return self.log_logit_scale.exp().clamp(max=self.max_logit_scale) * x


def published_scaling(encoder: Encoder) -> nn.Module:
    """Return the fourth stage of an encoder: unit vectors, times the logit scale where the modality has one."""
    config: EncoderConfig = encoder.config
    if config.scale is None:
        return Normalize()
    return nn.Sequential(Normalize(), LearnableLogitScaling(encoder.log_scale, config.learn_scale))


def publish_names(module: nn.Module, prefix: str, ours: Mapping[str, str]) -> None:
    """Give a module's tensors their published names in what `state_dict` returns and `load_state_dict` takes.

    Args:
        prefix: of the published names, up to the module.
        ours: our full name of each tensor, as the table of names has it, by its name in the module.
    """
    names = {key: published_names(name, PUBLISHED)[0].removeprefix(prefix) for key, name in ours.items()}
    module.register_state_dict_post_hook(partial(_rename_saved, names))  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(partial(_rename_loaded, names))  # type: ignore[no-untyped-call]


def _rename_saved(names: Mapping[str, str], module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key, published in names.items():
        state[prefix + published] = state.pop(prefix + key)


def _rename_loaded(
    names: Mapping[str, str],
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    metadata: Any,
    strict: bool,
    missing: list[str],
    *_: Any,
) -> None:
    present = module.state_dict(keep_vars=True)
    for key, published in names.items():
        if prefix + published in state:
            state[prefix + key] = state.pop(prefix + published)
        else:  # reported by the name that is known outside, and left as it is
            missing.append(prefix + published)
            state[prefix + key] = present[published]
