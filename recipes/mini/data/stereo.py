"""Convert the one real picture with measured depth that a package brings, scikit-image's motorcycle (Middlebury 2014), for a look.

    python recipes/mini/data/stereo.py WORK

Reads WORK/sources/scikit-image and writes WORK/data/stereo: the left picture, and its depth in millimetres, 0 where none was measured. Embed it
with `--depth-format mm --focal 255`: the focal length for a picture whose short side is 128 px, as with the rendered ones. Middlebury's aloe,
which opencv-doc has, comes without its calibration and is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pairing import write_rows
from PIL import Image

FOCAL, BASELINE, BETWEEN_CENTRES = 994.978, 0.193001, 31.086  # pixels, metres, pixels: as scikit-image's documentation has them


def main() -> None:
    work = Path(sys.argv[1])
    source, out = work / "sources" / "scikit-image" / "skimage" / "data", work / "data" / "stereo"
    out.mkdir(parents=True, exist_ok=True)
    disparity = np.load(source / "motorcycle_disp.npz", allow_pickle=False)["arr_0"].astype(np.float64)
    known = np.isfinite(disparity)
    metres = FOCAL * BASELINE / (np.where(known, disparity, 1) + BETWEEN_CENTRES)
    Image.fromarray(np.where(known, np.round(metres * 1000), 0).astype(np.uint16)).save(out / "motorcycle-depth.png")
    Image.open(source / "motorcycle_left.png").save(out / "motorcycle.png")
    row = {"id": "motorcycle", "image": "motorcycle.png", "depth": "motorcycle-depth.png", "label": "motorbike"}
    write_rows(out / "real.jsonl", [row])
    near, far, focal = metres[known].min(), metres[known].max(), FOCAL * 128 / min(disparity.shape)
    print(f"stereo: 1 real pair, {near:.2f} to {far:.2f} m, focal {focal:.0f} px at 128 px", file=sys.stderr)


if __name__ == "__main__":
    main()
