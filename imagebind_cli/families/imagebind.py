"""ImageBind (arXiv 2305.05665): the published constructor's arguments as a config, and the tensors' names of the published file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from imagebind_cli.encoder import IMAGEBIND, EncoderConfig
from imagebind_cli.weights.family import Family, Values, WeightLayout
from imagebind_cli.weights.model_config import ModelConfig, packaged_config, reject_unknown_keys

# Published name -> ours; see `weights.tensor_names`.
PUBLISHED = """
modality_preprocessors.text.mask                            -
modality_preprocessors.text.token_embedding.weight          text.stem.tokens.weight
modality_preprocessors.text.pos_embed                       text.stem.pos
modality_preprocessors.imu.pos_embed                        imu.stem.pos
modality_preprocessors.imu.imu_stem.proj.weight             imu.stem.proj.weight
modality_preprocessors.imu.imu_stem.norm_layer.{p}          imu.stem.norm.{p}
modality_preprocessors.depth.depth_stem.proj.weight         depth.stem.proj.weight
modality_preprocessors.depth.depth_stem.norm_layer.{p}      depth.stem.norm.{p}
modality_preprocessors.vision.rgbt_stem.proj.1.weight       vision.stem.proj.weight
modality_preprocessors.{m}.rgbt_stem.proj.weight            {m}.stem.proj.weight
modality_preprocessors.{m}.rgbt_stem.norm_layer.{p}         {m}.stem.norm.{p}
modality_preprocessors.{m}.cls_token                        {m}.stem.cls
modality_preprocessors.{m}.pos_embedding_helper.pos_embed   {m}.stem.pos
modality_trunks.{m}.pre_transformer_layer.0.{p}             {m}.trunk.norm.{p}
modality_trunks.{m}.blocks.{i}.attn.in_proj_{p}             {m}.trunk.blocks.{i}.attn.qkv.{p}
modality_trunks.{m}.blocks.{i}.attn.out_proj.{p}            {m}.trunk.blocks.{i}.attn.out.{p}
modality_trunks.{m}.blocks.{i}.attn.bias_{kv}               {m}.trunk.blocks.{i}.attn.bias_{kv}
modality_trunks.{m}.blocks.{i}.norm_1.{p}                   {m}.trunk.blocks.{i}.norm1.{p}
modality_trunks.{m}.blocks.{i}.norm_2.{p}                   {m}.trunk.blocks.{i}.norm2.{p}
modality_trunks.{m}.blocks.{i}.mlp.fc1.{p}                  {m}.trunk.blocks.{i}.mlp.up.{p}
modality_trunks.{m}.blocks.{i}.mlp.fc2.{p}                  {m}.trunk.blocks.{i}.mlp.down.{p}
modality_heads.text.proj.0.{p}                              text.head.norm.{p}
modality_heads.text.proj.1.weight                           text.head.proj.weight
modality_heads.imu.3.weight                                 imu.head.proj.weight
modality_heads.{m}.0.{p}                                    {m}.head.norm.{p}
modality_heads.{m}.2.weight                                 {m}.head.proj.weight
modality_postprocessors.{m}.1.log_logit_scale               {m}.log_scale
"""


def published_config(values: Values, tensors: Mapping[str, Tensor], place: str) -> ModelConfig:
    """Make a config of the published constructor's arguments; a file that stands alone is the published model.

    Raises:
        UserError: an unknown argument, with the nearest known one.
    """
    return from_published(values) if values else dataclasses.replace(packaged_config("huge"), address=None)


def from_published(arguments: Mapping[str, Any]) -> ModelConfig:
    """Make a config from the published constructor's arguments (`ImageBindModel(...)`), with its defaults for the others.

    Raises:
        UserError: an unknown argument, with the nearest known one.
    """
    reject_unknown_keys(arguments, PUBLISHED_DEFAULTS, "published config")
    values = {**PUBLISHED_DEFAULTS, **arguments}
    huge = packaged_config("huge")

    def encoder(name: str, **changes: Any) -> EncoderConfig:
        trunk = dataclasses.replace(
            huge.encoders[name].trunk,
            width=values[f"{name}_embed_dim"],
            layers=values[f"{name}_num_blocks"],
            heads=values[f"{name}_num_heads"],
            drop_path=values.get(f"{name}_drop_path", 0.0),
        )
        return dataclasses.replace(huge.encoders[name], dim=values["out_embed_dim"], trunk=trunk, **changes)

    kernel = tuple(values["kernel_size"])
    square = {name: (values[f"{name}_kernel_size"],) * 2 for name in ("audio", "depth", "thermal")}
    encoders = {
        "vision": encoder("vision", shape=(3, values["video_frames"], 224, 224), patch=kernel, stride=kernel),
        "text": encoder("text"),
        "audio": encoder(
            "audio",
            shape=(1, values["audio_num_mel_bins"], values["audio_target_len"]),
            patch=square["audio"],
            stride=(values["audio_stride"],) * 2,
        ),
        "depth": encoder("depth", patch=square["depth"], stride=square["depth"]),
        "thermal": encoder("thermal", patch=square["thermal"], stride=square["thermal"]),
        "imu": encoder("imu"),  # the published constructor takes imu_kernel_size and builds 8 all the same
    }
    return ModelConfig(name="published", dim=values["out_embed_dim"], encoders=encoders, licence=huge.licence)


PUBLISHED_DEFAULTS: dict[str, Any] = dict(
    video_frames=2, kernel_size=(2, 14, 14), out_embed_dim=768,
    vision_embed_dim=1024, vision_num_blocks=24, vision_num_heads=16,
    text_embed_dim=768, text_num_blocks=12, text_num_heads=12,
    audio_embed_dim=768, audio_num_blocks=12, audio_num_heads=12, audio_kernel_size=16, audio_stride=10,
    audio_num_mel_bins=128, audio_target_len=204, audio_drop_path=0.1,
    depth_embed_dim=384, depth_num_blocks=12, depth_num_heads=8, depth_kernel_size=16, depth_drop_path=0.0,
    thermal_embed_dim=768, thermal_num_blocks=12, thermal_num_heads=12, thermal_kernel_size=16, thermal_drop_path=0.0,
    imu_embed_dim=512, imu_num_blocks=6, imu_num_heads=8, imu_kernel_size=8, imu_drop_path=0.7,
)  # fmt: skip


FAMILY = Family(
    IMAGEBIND,
    "pictures and videos, text, sound, depth, thermal and motion",
    (WeightLayout(("modality_",), lambda config: PUBLISHED, published_config),),
)
