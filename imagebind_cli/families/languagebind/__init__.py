"""LanguageBind (arXiv 2310.01852): text and one other input in each published model, its layout of weights, and its preprocessing.

The towers are CLIP's. A video's blocks have an attention over time besides; sound is three stretches of log-mel energies as three channels.
What the published code does at random when it embeds has a fixed place here: no clip is mirrored, and of a long sound the middle of each
third is taken.
"""

from __future__ import annotations

from imagebind_cli.encoder import InputConfig, Modality
from imagebind_cli.encoders.text import TextStem
from imagebind_cli.families.clip.transformers import transformers_rows
from imagebind_cli.families.languagebind.adapters import fold_adapters, published_spelling
from imagebind_cli.families.languagebind.config import NAME, is_languagebind, languagebind_config
from imagebind_cli.families.languagebind.reading import (
    read_metric_depth,
    read_padded_text,
    read_rgb_picture,
    read_stretches,
    read_whole_video,
)
from imagebind_cli.options.drawn import REGION_OPTIONS
from imagebind_cli.weights.family import Family, Publication, WeightLayout
from imagebind_cli.weights.model_config import ModelConfig

LICENCE = "MIT (as stated by its authors)"

# Published name -> ours, with {t} for the tower that is not text: what CLIP in the same layout lacks, or has in another shape.
TENSORS = """
vision_model.embeddings.class_embedding                        {t}.stem.cls                                as_class_tokens
vision_model.encoder.layers.{i}.temporal_embedding             {t}.trunk.blocks.{i}.time.pos
vision_model.encoder.layers.{i}.temporal_layer_norm1.{p}       {t}.trunk.blocks.{i}.time.norm.{p}
vision_model.encoder.layers.{i}.temporal_attn.q_proj.{p}       {t}.trunk.blocks.{i}.time.attn.qkv.{p}#0
vision_model.encoder.layers.{i}.temporal_attn.k_proj.{p}       {t}.trunk.blocks.{i}.time.attn.qkv.{p}#1
vision_model.encoder.layers.{i}.temporal_attn.v_proj.{p}       {t}.trunk.blocks.{i}.time.attn.qkv.{p}#2
vision_model.encoder.layers.{i}.temporal_attn.out_proj.{p}     {t}.trunk.blocks.{i}.time.attn.out.{p}
logit_scale                                                    text.log_scale,{t}.log_scale
"""


def tensor_table(config: ModelConfig) -> str:
    """Return the table of names for a model of this config: that of the tower it has."""
    tower = next((name for name in config.encoders if name != "text"), "vision")
    return TENSORS.replace("{t}", tower) + transformers_rows(tower, "one_frame") + transformers_rows("text")


PICTURES = Modality("vision", {"image": read_rgb_picture}, options=("resize", *REGION_OPTIONS))
VIDEOS = Modality("vision", {"video": read_whole_video}, options=("fps", "track"))
OTHERS = {
    "text": Modality("text", {"text": read_padded_text}, stem=TextStem),
    "audio": Modality("audio", {"audio": read_stretches}, preview="spectrogram", options=("channels", "track")),
    "depth": Modality("depth", {"depth": read_metric_depth}, options=("depth_format", "dataset", "frame", "resize", *REGION_OPTIONS)),
    "thermal": Modality("thermal", {"thermal": read_rgb_picture}, options=("resize", *REGION_OPTIONS)),
}


def inputs_of(encoder: str, config: InputConfig) -> Modality | None:
    """Return how an encoder's inputs are read. A vision tower takes pictures, or clips with frames."""
    if encoder == "vision":
        return VIDEOS if len(config.shape) == 4 else PICTURES
    return OTHERS.get(encoder)


LAYOUT = WeightLayout(
    prefixes=("vision_model.", "text_model."),
    table=tensor_table,
    config=languagebind_config,
    describes=is_languagebind,
    prepare=fold_adapters,
    spelling=published_spelling,
)

PUBLICATIONS = {
    "languagebind-image": Publication("hf://LanguageBind/LanguageBind_Image", LICENCE, "pictures and text: CLIP, as the others started"),
    "languagebind-video": Publication("hf://LanguageBind/LanguageBind_Video_V1.5_FT", LICENCE, "videos and text, version 1.5"),
    "languagebind-video-ft": Publication("hf://LanguageBind/LanguageBind_Video_FT", LICENCE, "videos and text, version 1, fully tuned"),
    "languagebind-video-lora": Publication("hf://LanguageBind/LanguageBind_Video", LICENCE, "videos and text, version 1, with LoRA"),
    "languagebind-video-huge": Publication(
        "hf://LanguageBind/LanguageBind_Video_Huge_V1.5_FT", LICENCE, "videos and text, ViT-H: vectors of its own of 1024 numbers"
    ),
    "languagebind-audio": Publication("hf://LanguageBind/LanguageBind_Audio_FT", LICENCE, "sound and text, fully tuned"),
    "languagebind-audio-lora": Publication("hf://LanguageBind/LanguageBind_Audio", LICENCE, "sound and text, with LoRA"),
    "languagebind-depth": Publication("hf://LanguageBind/LanguageBind_Depth", LICENCE, "depth maps in metres and text"),
    "languagebind-thermal": Publication("hf://LanguageBind/LanguageBind_Thermal", LICENCE, "thermal pictures and text"),
}

FAMILY = Family(
    NAME,
    "text, each with one of pictures, videos, sound, depth and thermal",
    (LAYOUT,),
    modality=inputs_of,
    publications=PUBLICATIONS,
)
