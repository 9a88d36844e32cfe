"""transformers' layout of a CLIP: the names of its tensors, its config.json and its preprocessor_config.json."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli.documents import read_object
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.encoders.text import END
from imagebind_cli.errors import UserError
from imagebind_cli.transformer import TrunkConfig, mlp_ratio
from imagebind_cli.weights.family import Values, WeightLayout
from imagebind_cli.weights.model_config import ModelConfig, packaged_config

# transformers' name -> ours, of either tower; {theirs} is `vision_model` or `text_model`, and {ours} our encoder.
TRANSFORMERS_TOWER = """
{theirs}.embeddings.position_ids                          -
{theirs}.embeddings.position_embedding.weight             {ours}.stem.pos                            as_sequence
{theirs}.encoder.layers.{i}.self_attn.q_proj.{p}          {ours}.trunk.blocks.{i}.attn.qkv.{p}#0
{theirs}.encoder.layers.{i}.self_attn.k_proj.{p}          {ours}.trunk.blocks.{i}.attn.qkv.{p}#1
{theirs}.encoder.layers.{i}.self_attn.v_proj.{p}          {ours}.trunk.blocks.{i}.attn.qkv.{p}#2
{theirs}.encoder.layers.{i}.self_attn.out_proj.{p}        {ours}.trunk.blocks.{i}.attn.out.{p}
{theirs}.encoder.layers.{i}.layer_norm1.{p}               {ours}.trunk.blocks.{i}.norm1.{p}
{theirs}.encoder.layers.{i}.layer_norm2.{p}               {ours}.trunk.blocks.{i}.norm2.{p}
{theirs}.encoder.layers.{i}.mlp.fc1.{p}                   {ours}.trunk.blocks.{i}.mlp.up.{p}
{theirs}.encoder.layers.{i}.mlp.fc2.{p}                   {ours}.trunk.blocks.{i}.mlp.down.{p}
"""
TRANSFORMERS_VISION = """
vision_model.embeddings.class_embedding                   {ours}.stem.cls                            as_sequence
vision_model.embeddings.patch_embedding.weight            {ours}.stem.proj.weight                    {kernel}
vision_model.pre_layrnorm.{p}                             {ours}.trunk.norm.{p}
vision_model.post_layernorm.{p}                           {ours}.head.norm.{p}
visual_projection.weight                                  {ours}.head.proj.weight
"""
TRANSFORMERS_TEXT = """
text_model.embeddings.token_embedding.weight              {ours}.stem.tokens.weight
text_model.final_layer_norm.{p}                           {ours}.head.norm.{p}
text_projection.weight                                    {ours}.head.proj.weight
logit_scale                                               {ours}.log_scale
"""


def transformers_rows(encoder: str, kernel: str = "two_frames") -> str:
    """Return the table rows of a tower under transformers' names: of the text tower for `text`, else of the vision tower.

    Args:
        kernel: how the kernel of the patches is changed.
    """
    rows = TRANSFORMERS_TEXT if encoder == "text" else TRANSFORMERS_VISION
    theirs = "text_model" if encoder == "text" else "vision_model"
    return (TRANSFORMERS_TOWER + rows).replace("{theirs}", theirs).replace("{ours}", encoder).replace("{kernel}", kernel)


def transformers_config(values: Values, tensors: Mapping[str, Tensor], place: str) -> ModelConfig:
    """Make a config from a `CLIPModel`'s config.json, and from the preprocessor_config.json beside it if there is one.

    Missing fields have transformers' own defaults, since config.json leaves out fields at their defaults.

    Raises:
        UserError: there is no config.json, or it asks for what these encoders do not have, which is named.
    """
    if not values:
        raise UserError(f"{place}: weights under transformers' names need their config.json beside them, or --config config.json")
    kind = values.get("model_type", "clip")
    if kind != "clip":
        raise UserError(f"{place}: model_type {kind!r} is not supported under these names; clip is")
    refuse_unknown_fields(values, TRANSFORMERS_TOP, place)
    for tower in ("vision", "text"):
        kind = (values.get(f"{tower}_config") or {}).get("model_type", "clip")
        if kind not in ("clip", f"clip_{tower}_model"):
            raise UserError(f"{place}: {tower}_config.model_type {kind!r} is not supported; clip_{tower}_model is")
    dim = values.get("projection_dim", 512)
    vision, text = transformers_tower(values, "vision", place), transformers_tower(values, "text", place)
    mean, std = read_preprocessor(Path(place).parent, vision["image_size"])
    encoders = {
        "vision": EncoderConfig(
            family="clip", dim=dim, trunk=transformers_trunk(vision, f"{place}: vision_config", pre_norm=True), mean=mean, std=std,
            shape=(3, 2, vision["image_size"], vision["image_size"]), patch=(2, *(vision["patch_size"],) * 2),
            stride=(2, *(vision["patch_size"],) * 2),
        ),
        "text": transformers_text(text, dim, "clip", place, values.get("logit_scale_init_value", 2.6592)),
    }  # fmt: skip
    path = Path(place)
    name = path.parent.name if path.stem == "config" else path.stem
    return ModelConfig(name=name, dim=dim, encoders=encoders, about="image and text towers in transformers' layout")


def transformers_tower(values: Values, tower: str, place: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields of a tower's config, `vision` or `text`, with transformers' defaults for those that are missing.

    An older `vision_config_dict` in the file takes precedence, defaults included, as in transformers.

    Args:
        known: further fields of a family, with their defaults.
    Raises:
        UserError: a field that is not known, or sizes of two numbers that differ.
    """
    defaults = {**TRANSFORMERS_DEFAULTS[tower], **(known or {})}
    name = f"{tower}_config"
    if values.get(f"{name}_dict") is not None:
        name = f"{name}_dict"
    given = values.get(name) or {}
    refuse_unknown_fields(given, {*defaults, "projection_dim"}, f"{place}: {name}")
    fields = {**defaults, **{key: value for key, value in given.items() if key in defaults}}
    for key in ("image_size", "patch_size"):  # transformers also writes [224, 224]
        if isinstance(fields.get(key), list | tuple):
            if len(set(fields[key])) != 1:
                raise UserError(f"{place}: {name}.{key} {fields[key]} is not supported; squares are")
            fields[key] = fields[key][0]
    if fields.get("num_channels", 3) != 3:
        raise UserError(f"{place}: {name}.num_channels {fields['num_channels']} is not supported; 3 are")
    return fields


def transformers_trunk(fields: Mapping[str, Any], place: str, **shape: Any) -> TrunkConfig:
    """Make the trunk of a tower from the fields of its config.

    Raises:
        UserError: an activation that these encoders do not have.
    """
    activation = fields["hidden_act"]
    if activation not in TRANSFORMERS_ACTIVATIONS:
        raise UserError(f"{place}.hidden_act {activation!r} is not supported; {', '.join(TRANSFORMERS_ACTIVATIONS)} are")
    width = fields["hidden_size"]
    return TrunkConfig(
        width=width, layers=fields["num_hidden_layers"], heads=fields["num_attention_heads"],
        mlp=mlp_ratio(fields["intermediate_size"], width), activation=TRANSFORMERS_ACTIVATIONS[activation],
        norm_eps=fields["layer_norm_eps"], **shape,
    )  # fmt: skip


def transformers_text(fields: Mapping[str, Any], dim: int, family: str, place: str, log_scale: float) -> EncoderConfig:
    """Make a text encoder from the fields of its config.

    Args:
        dim: size of the joint space. log_scale: initial value of a fresh encoder.
    Raises:
        UserError: texts are pooled at a token that is not the highest of CLIP's vocabulary.
    """
    vocabulary, end = fields["vocab_size"], fields["eos_token_id"]
    end = end[0] if isinstance(end, list) and len(end) == 1 else end
    # transformers pools at the highest id where it finds 2, which older configs have by mistake, and else at the first end token. On CLIP's
    # sentences both are the same place, since no token that the vocabulary's own tokenizer makes is higher.
    if end not in (2, vocabulary - 1, *([END] if vocabulary > END else [])):
        raise UserError(f"{place}: text_config.eos_token_id {end} is not supported; {vocabulary - 1}, the highest token, or 2 is")
    return EncoderConfig(
        family=family, dim=dim, shape=(fields["max_position_embeddings"],), vocabulary=vocabulary, pool="eos",
        trunk=transformers_trunk(fields, f"{place}: text_config", causal=True), scale=math.exp(log_scale), learn_scale=True,
    )  # fmt: skip


def read_preprocessor(folder: Path, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation in the preprocessor_config.json of a folder; CLIP's own where it has none.

    Args:
        size: side of the encoder's input, in pixels.
    Raises:
        UserError: pictures are prepared in another way than CLIP's, which is named.
    """
    clip = packaged_config("huge").encoders["vision"]
    path, values = folder / "preprocessor_config.json", {}
    if path.is_file():
        values = read_object(path)
    elif (folder / "processor_config.json").is_file():  # newer transformers write one file for pictures and text
        path = folder / "processor_config.json"
        values = read_object(path).get("image_processor") or {}
    kind = values.get("image_processor_type", values.get("feature_extractor_type", "CLIPImageProcessor"))
    if not str(kind).startswith("CLIP"):
        raise UserError(f"{path}: {kind} is not supported; CLIPImageProcessor is")
    for key, (plain, default) in PREPROCESSOR.items():
        value = values.get(key, default)
        if value is not None and value not in plain:
            raise UserError(f"{path}: {key} {value!r} is not supported; {plain[0]!r} is")
    for key in ("size", "crop_size"):
        value = values.get(key, size)
        edges = value if isinstance(value, dict) else {"shortest_edge" if key == "size" else "height": value}
        wanted = {"shortest_edge"} if key == "size" else {"height", "width"}
        if not set(edges) <= wanted or set(edges.values()) != {size}:
            how = f"the short side to {size}" if key == "size" else f"a square of {size}"
            raise UserError(f"{path}: {key} {value} is not supported; {how} is")
    mean, std = (tuple(values.get(f"image_{key}") or getattr(clip, key)) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise UserError(f"{path}: image_mean {list(mean)} and image_std {list(std)} are not supported; three numbers each are")
    return mean, std


def refuse_unknown_fields(values: Values, known: Collection[str], place: str) -> None:
    """Refuse a field of transformers' JSON that neither a family nor transformers' base class knows, unless it switches something off.

    Raises:
        UserError: names the field.
    """
    for key, value in values.items():
        off = value is None or value is False or value in (0, "", [], {})
        if not (off or key in known or key in TRANSFORMERS_IGNORED or key.startswith("_")):
            raise UserError(f"{place}.{key} = {value!r} is not supported; the field is unknown")


TRANSFORMERS_ACTIVATIONS = {
    "quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}  # fmt: skip
# Defaults of `CLIPTextConfig` and `CLIPVisionConfig` in transformers 5.24.
TRANSFORMERS_DEFAULTS: dict[str, dict[str, Any]] = {
    "vision": dict(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, num_channels=3, image_size=224, patch_size=32,
        hidden_act="quick_gelu", layer_norm_eps=1e-5,
    ),
    "text": dict(
        vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8, max_position_embeddings=77,
        hidden_act="quick_gelu", layer_norm_eps=1e-5, eos_token_id=END,
    ),
}  # fmt: skip
TRANSFORMERS_TOP = {
    "model_type", "projection_dim", "logit_scale_init_value", "text_config", "vision_config", "text_config_dict", "vision_config_dict",
}  # fmt: skip
# Fields that transformers writes into any config, and those that a CLIP has for training alone.
TRANSFORMERS_IGNORED = {
    "architectures", "transformers_version", "torch_dtype", "dtype", "initializer_factor", "initializer_range", "attention_dropout",
    "dropout", "model_type", "pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id", "return_dict",
    "use_cache", "tie_word_embeddings", "is_composition", "id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
    "max_length", "min_length", "length_penalty", "temperature", "top_k", "top_p", "typical_p", "num_beams", "num_beam_groups",
    "num_return_sequences", "diversity_penalty", "repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "early_stopping", "do_sample", "chunk_size_feed_forward", "tokenizer_class", "prefix", "task_specific_params", "gradient_checkpointing",
    "output_attentions", "output_hidden_states", "is_encoder_decoder", "is_decoder", "tie_encoder_decoder",
}  # fmt: skip
# Of preprocessor_config.json: what is supported, and transformers' default.
PREPROCESSOR: dict[str, tuple[tuple[Any, ...], Any]] = {
    "do_resize": ((True,), True), "do_center_crop": ((True,), True), "do_normalize": ((True,), True), "do_rescale": ((True,), True),
    "do_convert_rgb": ((True,), True), "resample": ((3, "bicubic"), 3), "do_pad": ((False,), False),
    "rescale_factor": ((1 / 255,), 1 / 255),
}  # fmt: skip

TRANSFORMERS_LAYOUT = WeightLayout(
    prefixes=("vision_model.", "text_model."),
    table=lambda config: transformers_rows("vision") + transformers_rows("text"),
    config=transformers_config,
    describes=lambda values: (
        values.get("model_type") == "clip" or ("model_type" not in values and ("vision_config" in values or "text_config" in values))
    ),
    weight_files="model pytorch_model",
)
