"""Text: CLIP's byte-pair tokens through a causal transformer, pooled at the end token (Radford et al. 2021; ImageBind section 4)."""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from heapq import heappop, heappush
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.errors import UserError
from imagebind_cli.options.text import TextOptions

MERGES = 49152 - 256 - 2  # the published vocabulary ends here; the file continues
START, END = 49406, 49407
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
PLAIN_WORDS = re.compile(WORDS.replace(r"\p{L}", "a-z").replace(r"\p{N}", "0-9"))


@cache
def byte_letters() -> dict[int, str]:
    """Map every byte to a printable letter: itself if it prints, else the next one from 256 on (GPT-2's table)."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printing]
    return {byte: chr(byte) for byte in printing} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def vocabulary_file() -> Path:
    """Return the file of CLIP's merges, gzipped, inside the open_clip package.

    Raises:
        UserError: open-clip-torch is not installed.
    """
    package = find_spec("open_clip")  # found, not imported: that would take seconds
    if package is None or package.origin is None:
        raise UserError("the text vocabulary comes with open-clip-torch, which is not installed: pip install open-clip-torch")
    return Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz"


@cache
def _vocabulary() -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Read the rank of every merge and the id of every token from the vocabulary file."""
    data = gzip.decompress(vocabulary_file().read_bytes())
    merges = [tuple(line.split()) for line in data.decode().split("\n")[1 : MERGES + 1]]
    letters = list(byte_letters().values())
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(merge) for merge in merges]
    ids = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return {(merge[0], merge[1]): rank for rank, merge in enumerate(merges)}, ids


def _word_tokens(word: str) -> tuple[int, ...]:
    """Return the token ids of one word."""
    ranks, ids = _vocabulary()
    if word in ("<|startoftext|>", "<|endoftext|>"):
        return (ids[word],)
    letters = [byte_letters()[byte] for byte in word.encode()]
    return tuple(ids[part] for part in merge_pairs([*letters[:-1], letters[-1] + "</w>"], ranks))


def merge_pairs(letters: Sequence[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Merge the letters of one word pair by pair, the best-ranked pair first (Sennrich et al. 2016), and return the parts that are left.

    Each round merges every occurrence of one pair, from left to right. A pair's occurrences are kept by its rank, so that a word of a
    million letters takes seconds and not days.

    Args:
        ranks: of each pair that merges; the smallest merges first.
    """
    parts = [*letters, ""]  # nothing merges with the empty part at the end, nor with merged ones
    after, before = [*range(1, len(parts)), 0], [*range(-1, len(parts) - 1)]
    places: dict[int, list[int]] = {}
    waiting: list[int] = []

    def note(place: int) -> None:
        rank = ranks.get((parts[place], parts[after[place]]))
        if rank is not None and rank not in places:
            places[rank] = []
            heappush(waiting, rank)
        if rank is not None:
            places[rank].append(place)

    for place in range(len(letters)):
        note(place)
    while waiting:
        rank = heappop(waiting)
        for place in sorted(places.pop(rank)):
            gone = after[place]
            if ranks.get((parts[place], parts[gone])) != rank:  # one of the two was merged meanwhile
                continue
            parts[place] += parts[gone]
            parts[gone] = ""
            after[place] = after[gone]
            before[after[place]] = place
            note(place)
            if place:
                note(before[place])
    return [part for part in parts if part]


_known_word_tokens = lru_cache(maxsize=65536)(_word_tokens)


def token_ids(text: str) -> list[int]:
    """Return the token ids of a text of any length, without start and end token; broken characters, HTML escapes and case as CLIP treats them."""
    words = _plain_words(text) if text.isascii() and text.isprintable() and "&" not in text else _words(text)
    return [token for word in words for token in (_known_word_tokens if len(word) < 100 else _word_tokens)(word)]


def _words(text: str) -> list[str]:
    import ftfy
    import regex

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return regex.findall(WORDS, " ".join(text.split()).lower(), regex.IGNORECASE)  # type: ignore[no-any-return]


def _plain_words(text: str) -> list[str]:
    """Return the words of a text of ASCII's printing letters without `&`, which the libraries would only take a tenth of a second to import for."""
    return PLAIN_WORDS.findall(" ".join(text.split()).lower())


def token_texts() -> list[str]:
    """Return the text of every token by its id, end-of-word marks removed; "" for the start and end token.

    Bytes of a token that are only part of a character become U+FFFD.

    Raises:
        UserError: open-clip-torch, which brings the vocabulary, is not installed.
    """
    bytes_of = {letter: byte for byte, letter in byte_letters().items()}
    tokens = sorted(_vocabulary()[1].items(), key=lambda entry: entry[1])
    return [
        "" if number in (START, END) else bytes(bytes_of[letter] for letter in token.removesuffix("</w>")).decode(errors="replace")
        for token, number in tokens
    ]


def framed(words: list[int], context: int) -> Tensor:
    """Return token ids (context,) int64: start token, as many words as fit, end token, zeros."""
    tokens = [START, *words[: context - 2], END]
    return torch.tensor(tokens + [0] * (context - len(tokens)))


class TextStem(nn.Module):
    """Turns token ids (b, n) into token vectors (b, n, d) with learned positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.trunk.width)
        self.pos = nn.Parameter(torch.empty(1, config.tokens, config.trunk.width))

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(x) + self.pos[:, : x.shape[1]]


def read_text(source: str, config: EncoderConfig, options: TextOptions) -> Iterator[Sample]:
    """Read a sentence.

    Raises:
        ValueError: not a string, not UTF-8, or too long where `long_text` is `error`; or the encoder has another vocabulary.
    """
    if config.vocabulary <= END:
        raise ValueError(
            f"the vocabulary of this text encoder has {config.vocabulary:,} tokens; CLIP's, of {END + 1:,}, is the one read here"
        )
    context = config.shape[0]
    yield from sentence_samples(source, options, token_ids, lambda words: framed(words, context), context - 2)


def sentence_samples(
    source: str, options: TextOptions, token_ids: Callable[[str], list[int]], framed: Callable[[list[int]], Tensor], room: int
) -> Iterator[Sample]:
    """Yield the one sample of a sentence, in several clips where it is long and they are chosen.

    Args:
        token_ids: of a text of any length. framed: at most `room` of them as the encoder takes them, (context,) int64.
    Raises:
        ValueError: as `read_text`.
    """
    if not isinstance(source, str):
        raise ValueError(f"{type(source).__name__} given; a string is needed")
    if not source.isascii() and any("\ud800" <= letter <= "\udfff" for letter in source):  # what undecodable bytes become on the way in
        raise ValueError("not UTF-8 text")
    words = token_ids(source)
    facts = {"tokens": len(words)}
    if len(words) <= room:
        yield Sample(framed(words).unsqueeze(0), [None], facts=facts)
    elif options.long_text == "error":
        raise ValueError(f"{len(words)} tokens; {room} fit")
    elif options.long_text == "window":
        clips = [framed(words[start : start + room]) for start in range(0, len(words), room)]
        yield Sample(torch.stack(clips), [None] * len(clips), facts=facts)
    else:
        warning = f"{len(words)} tokens, cut to the first {room}"
        yield Sample(framed(words[:room]).unsqueeze(0), [None], facts=facts, warnings=(warning,))


MODALITY = Modality(name="text", readers={"text": read_text}, stem=TextStem)
