"""Compare what depth maps find, and are found by, under each form of a blind anchor: the table of docs/blind-anchor.md.

    python recipes/mini/report/blind.py WORK [MANIFEST]

Reads the runs that `mini.sh blind` has left in WORK/runs. MANIFEST, relative to WORK/data, has the held-out pairs; one view of each model.
Intervals are 95 %, by bootstrap over the held-out models, of the mean over seeds; differences are of the same models.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import imagebind_cli

FORMS = {"none": "the paper's recipe", "targets": "targets blind to colour", "encoder": "image encoder blind to colour"}
BOOTSTRAPS = 10_000


def hits(run: Path, rows: list[dict[str, str]], folder: Path) -> np.ndarray:
    """Return whether each map finds its picture first, and each picture its map, (n, 2) bool."""
    model = imagebind_cli.load(run)
    pictures = model.embed("image", [str(folder / row["image"]) for row in rows])
    maps = model.embed("depth", [str(folder / row["depth"]) for row in rows], depth_format="mm", focal=150.0)
    own, scores = np.arange(len(rows)), maps @ pictures.T
    return np.stack([scores.argmax(1) == own, scores.argmax(0) == own], axis=1)


def interval(values: np.ndarray) -> str:
    """Return the mean of values (n,), one for each held-out model, with its interval, in percent."""
    drawn = np.random.default_rng(0).integers(len(values), size=(BOOTSTRAPS, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
    return f"{100 * values.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main(work: Path, manifest: str) -> None:
    path = work / "data" / manifest
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = {}
    for form in FORMS:
        runs = sorted(run for run in (work / "runs").glob(f"blind-{form}-*") if (run / "config.json").exists())
        if runs:
            found[form] = np.stack([hits(run, rows, path.parent) for run in runs])  # (seeds, n, 2)
    print(f"{len(rows)} held-out models, one view each; chance {100 / len(rows):.1f}\n")
    print("| | seeds | depth to image R@1 | image to depth R@1 | depth to image, by seed | difference, depth to image |")
    print("|---|---|---|---|---|---|")
    for form, all_hits in found.items():
        means = all_hits.mean(axis=0)
        seeds = ", ".join(f"{100 * share:.1f}" for share in all_hits[..., 0].mean(axis=1))
        difference = interval(means[:, 0] - found["none"].mean(axis=0)[:, 0]) if form != "none" and "none" in found else ""
        print(f"| {FORMS[form]} | {len(all_hits)} | {interval(means[:, 0])} | {interval(means[:, 1])} | {seeds} | {difference} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "furniture/test-one.jsonl")
