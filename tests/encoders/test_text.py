"""CLIP's words: plain texts are cut without the libraries that any other text needs, into the same words."""

from __future__ import annotations

import itertools
import subprocess
import sys

from imagebind_cli.encoders.text import _plain_words, _words

PRINTING = [chr(number) for number in range(32, 127) if chr(number) != "&"]


def test_plain_texts_have_the_words_that_the_libraries_find() -> None:
    texts = ["".join(pair) for pair in itertools.product(PRINTING, repeat=2)]
    texts += ["It's a DOG'S life; they'll've 42,5 of <|startoftext|>x<|endoftext|>  ", "  a  b ", "", "'RE we'D 'll"]
    joined = [" ".join(texts[start : start + 50]) for start in range(0, len(texts), 50)]
    assert [_plain_words(text) for text in (*joined, *texts[-4:])] == [_words(text) for text in (*joined, *texts[-4:])]


def test_other_texts_are_repaired_first() -> None:
    assert _words("&lt;b&gt; caf\u00c3\u00a9 \u2019s") == ["<", "b", ">", "caf\u00e9", "'s"]


def test_a_plain_text_imports_none_of_these_libraries() -> None:
    code = "import sys; from imagebind_cli.encoders.text import token_ids; token_ids('a dog'); sys.exit(bool({'ftfy', 'regex'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
