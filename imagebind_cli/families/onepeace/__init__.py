"""ONE-PEACE (arXiv 2305.11172): pictures, text and sounds through three encoders that share their attention, as published.

Source: github.com/OFA-Sys/ONE-PEACE at 71cfadf, its hub interface and retrieval model. A published file holds all three and its own config.

Dimensions: b batch, c channels, n tokens, d width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import InputConfig, Modality
from imagebind_cli.families.onepeace.config import NAME, THEIRS, TOKENS, grid_side, is_onepeace, onepeace_config
from imagebind_cli.families.onepeace.reading import read_sentence, read_squashed, read_waveform
from imagebind_cli.families.onepeace.stems import PictureStem, SentenceStem, SoundStem
from imagebind_cli.options.drawn import REGION_OPTIONS
from imagebind_cli.weights.family import Family, Publication, Values, WeightLayout
from imagebind_cli.weights.model_config import ModelConfig

# Names: published -> ours, for one encoder; <them> and <us> are its names. See `weights.tensor_names`.
ENCODER = """
encoder_wrapper.<them>_adapter.rp_bucket                                       -
encoder_wrapper.<them>_adapter.position_idx                                    -
encoder_wrapper.<them>_adapter.mask_embedding                                  -
encoder_wrapper.<them>_adapter.cls_embedding                                   <us>.stem.cls
encoder_wrapper.<them>_adapter.rel_pos_table_list.{i}.weight                   <us>.trunk.tables.{i}
encoder_wrapper.fusion_model.layers.{i}.<them>_ffn.0.wi_0.weight               <us>.trunk.blocks.{i}.mlp.up.weight#0
encoder_wrapper.fusion_model.layers.{i}.<them>_ffn.0.wi_1.weight               <us>.trunk.blocks.{i}.mlp.up.weight#1
encoder_wrapper.fusion_model.layers.{i}.<them>_ffn.2.{p}                       <us>.trunk.blocks.{i}.mlp.norm.{p}
encoder_wrapper.fusion_model.layers.{i}.<them>_ffn.3.{p}                       <us>.trunk.blocks.{i}.mlp.down.{p}
encoder_wrapper.fusion_model.<them>_layer_norm.{p}                             <us>.head.norm.{p}
<them>_proj.{p}                                                                <us>.head.proj.{p}
"""
STEMS = """
encoder_wrapper.image_adapter.pos_embed                                        vision.stem.pos                   as_sequence
encoder_wrapper.image_adapter.embed_images.0.{p}                               vision.stem.patches.conv.0.{p}
encoder_wrapper.image_adapter.embed_images.1.layer_norm.{p}                    vision.stem.patches.norm.0.{p}
encoder_wrapper.image_adapter.embed_images.3.{p}                               vision.stem.patches.conv.1.{p}
encoder_wrapper.image_adapter.embed_images.4.layer_norm.{p}                    vision.stem.patches.norm.1.{p}
encoder_wrapper.image_adapter.embed_images.6.{p}                               vision.stem.patches.conv.2.{p}
encoder_wrapper.text_adapter.embed_tokens.weight                               text.stem.tokens.weight
encoder_wrapper.text_adapter.embed_positions.weight                            text.stem.pos                     as_sequence
encoder_wrapper.audio_adapter.cls_pos_embed                                    audio.stem.cls_pos
encoder_wrapper.audio_adapter.embed_audios.0.conv_layers.{i}.0.weight          audio.stem.pieces.conv.{i}.weight
encoder_wrapper.audio_adapter.embed_audios.0.conv_layers.{i}.2.1.{p}           audio.stem.pieces.norm.{i}.{p}
encoder_wrapper.audio_adapter.embed_positions.{i}.0.{p}                        audio.stem.pos.{i}.{p}
encoder_wrapper.audio_adapter.embed_audios.2.{p}                               audio.stem.norm.{p}
encoder_wrapper.audio_adapter.embed_audios.3.{p}                               audio.stem.proj.{p}
"""
# The attention, which every encoder gets. <all> stands for their names in turn. A missing bias of the keys is zeros.
SHARED = """
encoder_wrapper.fusion_model.version                                           -
encoder_wrapper.fusion_model.layers.{i}.self_attn.q_proj.weight                <all>.trunk.blocks.{i}.attn.qkv.weight#0
encoder_wrapper.fusion_model.layers.{i}.self_attn.k_proj.weight                <all>.trunk.blocks.{i}.attn.qkv.weight#1
encoder_wrapper.fusion_model.layers.{i}.self_attn.v_proj.weight                <all>.trunk.blocks.{i}.attn.qkv.weight#2
encoder_wrapper.fusion_model.layers.{i}.self_attn.q_proj.bias                  <all>.trunk.blocks.{i}.attn.qkv.bias#0     then_zeros
encoder_wrapper.fusion_model.layers.{i}.self_attn.v_proj.bias                  <all>.trunk.blocks.{i}.attn.qkv.bias#1
encoder_wrapper.fusion_model.layers.{i}.self_attn.out_proj.{p}                 <all>.trunk.blocks.{i}.attn.out.{p}
encoder_wrapper.fusion_model.layers.{i}.self_attn.ln.{p}                       <all>.trunk.blocks.{i}.attn.norm.{p}
encoder_wrapper.fusion_model.layers.{i}.self_attn_layer_norm.{p}               <all>.trunk.blocks.{i}.norm1.{p}
encoder_wrapper.fusion_model.layers.{i}.final_layer_norm.{p}                   <all>.trunk.blocks.{i}.norm2.{p}
encoder_wrapper.fusion_model.layers.{i}.gamma_{j}                              <all>.trunk.blocks.{i}.scale{j}
"""
TRAINING_ONLY = re.compile(r"decoder_wrapper\.|decoder_(text|image|audio)_embed\.|(text|image|audio)_mask_(token|head)")

# Published addresses are those of the repository's checkpoints.md.
PUBLICATIONS = {
    "onepeace": Publication(
        "https://one-peace-shanghai.oss-accelerate.aliyuncs.com/one-peace.pt",
        "Apache-2.0",
        "pictures, text and sounds: 4 billion parameters, 15.5 GB",
    ),
    "onepeace-audiocaps": Publication(
        "https://one-peace-shanghai.oss-accelerate.aliyuncs.com/one_peace_checkpoints/finetune_al_retrieval.pt",
        "Apache-2.0",
        "sounds and text, fine-tuned on AudioCaps, Clotho and MACS",
    ),
    "onepeace-coco": Publication(
        "https://one-peace-shanghai.oss-accelerate.aliyuncs.com/one_peace_checkpoints/finetune_coco.pt",
        "Apache-2.0",
        "pictures and text, fine-tuned on COCO",
    ),
    "onepeace-flickr": Publication(
        "https://one-peace-shanghai.oss-accelerate.aliyuncs.com/one_peace_checkpoints/finetune_flickr.pt",
        "Apache-2.0",
        "pictures and text, fine-tuned on Flickr30K",
    ),
}


def onepeace_names(config: ModelConfig) -> str:
    """Return the table of names for the encoders that a file has."""
    ours = list(config.encoders)
    rows = [ENCODER.strip().replace("<them>", THEIRS[name]).replace("<us>", name) for name in ours]
    for line in SHARED.strip().splitlines():
        source, target, change = [*line.split(), ""][:3]
        rows.append(f"{source} {','.join(target.replace('<all>', name) for name in ours)} {change}")
    scaled = ",".join(f"{name}.log_scale" for name in ours if config.encoders[name].scale is not None)
    return "\n".join([*rows, STEMS.strip(), f"logit_scale {scaled or '-'}"])


def published_tensors(tensors: Mapping[str, Tensor], values: Values, place: str) -> dict[str, Tensor]:
    """Drop the tensors of training alone, and do what the published code does when it loads a file.

    A temperature that a file lacks is CLIP's first. Positions of pictures that were learnt on another grid are interpolated. Of the positions
    of texts, those of the longest text stay.
    """
    kept = {
        name.replace("rel_pos_table.weight", "rel_pos_table_list.0.weight"): tensor  # an earlier name
        for name, tensor in tensors.items()
        if not TRAINING_ONLY.match(name)
    }
    kept.setdefault("logit_scale", torch.tensor(math.log(1 / 0.07)))
    texts, pictures = "encoder_wrapper.text_adapter.embed_positions.weight", "encoder_wrapper.image_adapter.pos_embed"
    if texts in kept:
        kept[texts] = kept[texts][: TOKENS + 2]
    table = kept.get("encoder_wrapper.image_adapter.rel_pos_table_list.0.weight")
    if pictures in kept and table is not None:
        kept[pictures] = _on_grid(kept[pictures], grid_side(len(table)))
    return kept


def _on_grid(positions: Tensor, side: int) -> Tensor:
    """Interpolate positions (1 + s * s, d), the class token's first, to a grid of another side."""
    learnt = math.isqrt(max(len(positions) - 1, 0))
    if positions.dim() != 2 or learnt**2 + 1 != len(positions) or learnt in (0, side) or side < 1:
        return positions
    grid = positions[1:].reshape(1, learnt, learnt, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=(side, side), mode="bicubic").to(positions.dtype)
    return torch.cat([positions[:1], grid.permute(0, 2, 3, 1).flatten(0, 2)])


def onepeace_modality(encoder: str, config: InputConfig) -> Modality | None:
    """Return how an encoder's inputs are read and its stem is built; None for a modality that ONE-PEACE does not have."""
    return MODALITIES.get(encoder)


MODALITIES = {
    "vision": Modality("vision", {"image": read_squashed, "vision": read_squashed}, PictureStem, options=REGION_OPTIONS),
    "text": Modality("text", {"text": read_sentence}, SentenceStem, options=("long_text",)),
    "audio": Modality("audio", {"audio": read_waveform}, SoundStem, options=("track",)),
}

LAYOUT = WeightLayout(
    prefixes=("encoder_wrapper.",),
    table=onepeace_names,
    config=onepeace_config,
    describes=is_onepeace,
    prepare=published_tensors,
)

FAMILY = Family(NAME, "pictures, text and sounds", (LAYOUT,), onepeace_modality, publications=PUBLICATIONS)
