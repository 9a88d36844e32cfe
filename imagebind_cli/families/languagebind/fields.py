"""The fields of a published `config.json`: which are understood, and `ConfigFields`, which reads them and names them in errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from imagebind_cli.errors import UserError
from imagebind_cli.weights.family import Values

UNDERSTOOD = {
    "model_type", "projection_dim", "logit_scale_init_value", "text_config", "vision_config",
}  # fmt: skip
UNDERSTOOD_TOWER = {
    "hidden_act", "layer_norm_eps", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
}  # fmt: skip
UNDERSTOOD_TEXT = UNDERSTOOD_TOWER | {"vocab_size", "max_position_embeddings", "add_time_attn"}
UNDERSTOOD_VISION = UNDERSTOOD_TOWER | {
    "patch_size", "image_size", "num_mel_bins", "target_length", "audio_mean", "audio_std", "audio_sample_rate", "add_time_attn",
    "num_frames", "clip_type", "lora_r", "lora_alpha", "max_depth",
}  # fmt: skip
# ConfigFields that mean nothing here unless they have another value than these.
PLAIN_VALUES: dict[str, tuple[Any, ...]] = {
    "num_channels": (3,), "tube_size": (None, 1), "pruned_heads": (None, {}), "add_cross_attention": (False,), "is_decoder": (False,),
    "is_encoder_decoder": (False,), "use_bfloat16": (False,), "quantization_config": (None,), "text_config_dict": (None,),
    "vision_config_dict": (None,),
}  # fmt: skip
# What transformers writes into every config, and settings of training: no vector depends on them.
WITHOUT_EFFECT = {
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures", "attention_dropout",
    "attn_implementation", "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample", "dropout", "dtype", "early_stopping",
    "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty", "finetuning_task", "force_patch_dropout",
    "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "id2label", "initializer_factor", "initializer_range",
    "label2id", "length_penalty", "lora_dropout", "max_length", "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores", "pad_token_id", "prefix",
    "problem_type", "projection_dim", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
    "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder",
    "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p",
    "use_cache", "use_return_dict", "video_decode_backend",
}  # fmt: skip
MOST = 1 << 20  # of any size in a config
MOST_LAYERS = 1000


@dataclass(frozen=True)
class ConfigFields:
    """A part of a config with its name in front of errors. Every field that is not there has the published code's default.

    values: of the part. section: its name and a dot, "" for the whole. place: the file.
    """

    values: Mapping[str, Any]
    section: str
    place: str

    @classmethod
    def of(cls, values: Values, part: str, place: str) -> ConfigFields:
        """Return a part of a config; a part that is missing is empty.

        Raises:
            UserError: it is not a table.
        """
        table = values.get(part, {})
        if not isinstance(table, Mapping):
            raise UserError(f"{place}: {part} is {table!r:.40}; a table is needed")
        return cls(table, f"{part}.", place)

    def fault(self, name: str, what: str) -> UserError:
        """Return an error about a field; one that is not there is said to be missing."""
        missing = "" if name in self.values else " (missing: its default)"
        return UserError(f"{self.place}: {self.section}{name} {what}{missing}")

    def check_known(self, understood: set[str]) -> None:
        """Refuse fields whose meaning is not known.

        Raises:
            UserError: names the first.
        """
        for name, value in self.values.items():
            plain = PLAIN_VALUES.get(name)
            if not (name in understood or name in WITHOUT_EFFECT or (plain is not None and value in plain)):
                raise UserError(f"{self.place}: {self.section}{name} = {value!r:.60} is not supported; published towers have no such field")

    def whole(self, name: str, default: int, least: int = 1, most: int = MOST) -> int:
        """Return a whole number, which may be written as 112.0."""
        value = self.values.get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or value != int(value):
            raise self.fault(name, f"is {value!r:.40}; a whole number from {least} to {most:,} is needed")
        return int(value)

    def number(self, name: str, default: float, least: float = -1e9, most: float = 1e9) -> float:
        """Return a number."""
        value = self.values.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise self.fault(name, f"is {value!r:.40}; a number from {least:g} to {most:g} is needed")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.fault(name, f"is {value!r:.40}; true or false is needed")
        return value

    def agree(self, name: str, value: int, tensors: Mapping[str, Tensor], tensor: str, axis: int) -> None:
        """Refuse a size that a tensor does not have, where that tensor is at hand.

        Raises:
            UserError: names the field and the tensor.
        """
        shape = tensors[tensor].shape if tensor in tensors else None
        if shape is not None and (len(shape) < max(axis + 1, -axis) or shape[axis] != value):
            raise self.fault(name, f"is {value}; {tensor} has shape {tuple(shape)}")
