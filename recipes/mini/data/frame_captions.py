"""Put half of the training captions into frames that people use: "piano", "a piano", "a picture of piano".

    python recipes/mini/data/frame_captions.py WORK

The second round of binding words to pictures learns from them. Writes WORK/data/drawings/framed.jsonl and WORK/data/furniture/framed.jsonl.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from pairing import IMAGE_TEXT, write_rows

FRAMES = ("a {}", "a picture of {}", "a picture of a {}", "a drawing of {}")
PLAIN = 0.5
SEED = 0


def main(work: Path) -> None:
    numbers = random.Random(SEED)
    for manifest in IMAGE_TEXT:
        path = work / "data" / manifest
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if numbers.random() >= PLAIN:
                row["text"] = numbers.choice(FRAMES).format(row["text"])
        write_rows(path.with_name("framed.jsonl"), rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
