"""ONE-PEACE's byte pairs, packed in `vocabulary.npz`: `sentence_ids`."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import regex

from imagebind_cli.encoders.text import byte_letters, merge_pairs

FIRST = 4  # id of the first token of the vocabulary; those before mark padding, beginning, end and what is unknown
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")  # GPT-2's


@cache
def vocabulary() -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Read the rank of every merge and the id of every token from the package."""
    with np.load(Path(__file__).with_name("vocabulary.npz")) as packed:
        lines, order = packed["merges"].tobytes().decode().split("\n"), packed["order"]
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    ids = np.empty(len(order), np.int64)
    ids[order] = np.arange(FIRST, FIRST + len(order))
    tokens = [*byte_letters().values(), *(first + second for first, second in merges)]
    return {merge: rank for rank, merge in enumerate(merges)}, dict(zip(tokens, ids.tolist(), strict=False))


def _word_ids(word: str) -> tuple[int, ...]:
    ranks, ids = vocabulary()
    return tuple(ids[part] for part in merge_pairs([byte_letters()[byte] for byte in word.encode()], ranks))


_known_word_ids = lru_cache(maxsize=65536)(_word_ids)


def sentence_ids(text: str) -> list[int]:
    """Return the token ids of a text of any length, without end: lower-cased behind a space, otherwise as it is, as the hub interface does."""
    words = WORDS.findall(" " + text.lower())
    return [token for word in words for token in (_known_word_ids if len(word) < 100 else _word_ids)(word)]
