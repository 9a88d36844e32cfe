"""Pack ONE-PEACE's text vocabulary into the package: GPT-2's merges and the order of its tokens in fairseq's dictionary.

    python recipes/families/onepeace_vocabulary.py FOLDER [imagebind_cli/families/onepeace/vocabulary.npz]

FOLDER has `vocab.bpe` and `dict.txt`, as in `one_peace/utils/BPE` of github.com/OFA-Sys/ONE-PEACE. `vocabulary.txt` beside the packed
file names their licences.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

DEST = Path(__file__).parents[2] / "imagebind_cli" / "families" / "onepeace" / "vocabulary.npz"
MERGES = 50_000
NUMBERS = 256 + MERGES + 1  # bytes, merges, and <|endoftext|>


def pack(folder: Path, dest: Path) -> None:
    """Write the vocabulary of a folder's two files. The same files give the same bytes.

    merges: UTF-8 text, uint8, a line each, the first to merge first. order: GPT-2's numbers of tokens, uint16, as the dictionary lists them.

    Raises:
        ValueError: they are not those files.
    """
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    merges = [line for line in lines if not line.startswith("#version")]
    entries = [line.split()[0] for line in (folder / "dict.txt").read_text(encoding="utf-8").splitlines()]
    order = [int(entry) for entry in entries if entry.isdecimal()]  # the others fill the dictionary up and stand last
    if len(merges) != MERGES or not all(len(line.split(" ")) == 2 for line in merges):
        raise ValueError(f"{folder}: vocab.bpe does not have {MERGES:,} merges of two")
    if sorted(order) != list(range(NUMBERS)) or not all(entry.isdecimal() for entry in entries[:NUMBERS]):
        raise ValueError(f"{folder}: dict.txt does not have the numbers 0 to {NUMBERS - 1:,}, each once")
    np.savez_compressed(dest, merges=np.frombuffer("\n".join(merges).encode(), np.uint8), order=np.array(order, np.uint16))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    pack(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else DEST)
