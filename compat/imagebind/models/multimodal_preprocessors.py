"""The tokenizer of texts, where code that feeds token ids of its own imports it from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

import torch
from torch import Tensor

from imagebind_cli.encoders.text import read_text
from imagebind_cli.options.text import TextOptions
from imagebind_cli.weights.model_config import packaged_config

CONTEXT = 77  # token ids of a text, padding included


class SimpleTokenizer:
    """Turns texts into CLIP's token ids."""

    def __init__(self, bpe_path: str | PathLike[str] | None = None, context_length: int = CONTEXT) -> None:
        """bpe_path: not read; the vocabulary is always CLIP's, which the published one is. context_length: ids of a text."""
        self.context_length = context_length

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Return ids (context_length,) int64 of one text, (n, context_length) of several; a longer text is cut before its end token."""
        sentences = [texts] if isinstance(texts, str) else texts
        config = replace(packaged_config("huge").encoders["text"], shape=(context_length or self.context_length,))
        ids = torch.cat([next(read_text(sentence, config, TextOptions())).tensor for sentence in sentences])
        return ids[0] if len(sentences) == 1 else ids
