"""List RoadScene's pairs in manifests, for measuring and for `train/roadscene.toml` alone, never for shipped weights.

    python recipes/mini/data/roadscene.py WORK ROADSCENE

A pair is `visible/NAME.jpg` and `infrared/NAME.jpg`. Frames that follow each other look alike, so the pairs, in the order of their names, are cut
into blocks; each fold holds some blocks out for testing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pairing import write_rows

BLOCKS = 15
FOLDS = 3


def main() -> None:
    work, folder = Path(sys.argv[1]), Path(sys.argv[2]).resolve()
    out = work / "data" / "roadscene"
    out.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in (folder / "visible").iterdir() if (folder / "infrared" / path.name).exists())
    rows = [
        {
            "id": Path(name).stem,
            "image": os.path.relpath(folder / "visible" / name, out),
            "thermal": os.path.relpath(folder / "infrared" / name, out),
            "block": f"block {number * BLOCKS // len(names)}",
        }
        for number, name in enumerate(names)
    ]
    splits = {"all": rows}
    for fold in range(FOLDS):
        held = {f"block {block}" for block in range(fold, BLOCKS, FOLDS)}
        splits[f"train-{fold}"] = [row for row in rows if row["block"] not in held]
        splits[f"test-{fold}"] = [row for row in rows if row["block"] in held]
    for name, lines in splits.items():
        write_rows(out / f"{name}.jsonl", lines)
    print(f"roadscene: {len(rows)} pairs in {BLOCKS} blocks; " + ", ".join(f"{k} {len(v)}" for k, v in splits.items()), file=sys.stderr)


if __name__ == "__main__":
    main()
