"""Assemble imagebind-mini from its runs, in half precision, and put it into the package.

    python recipes/mini/train/package.py WORK [ENCODER]...

The encoders that are not named stay as the package has them; without a name all are put in.
Word vectors, two thirds of the text encoder, and the matrices of depth's and
thermal's blocks are stored as int8 rows.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from dataclasses import replace
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import torch

from imagebind_cli.weights import foreign_config, tensor_files
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.origin import file_hash
from imagebind_cli.weights.rounding import INT8_SCALE, to_int8

HERE = Path(__file__).parent
RUNS = {"vision": "image-text", "text": "image-text", "audio": "audio", "imu": "imu-0", "depth": "depth-0", "thermal": "thermal-0"}
# Pattern, by encoder, of the names of the matrices that are stored as int8 rows.
INT8 = {"text": "stem.tokens.weight", "depth": "trunk.blocks.*.weight", "thermal": "trunk.blocks.*.weight"}
# What CARD.md says of data that evaluation suites are made of; `zeroshot --suite` prints it beside its scores.
TRAINED_ON = {
    "vision": {"imagenet": "imitates EfficientNet-Lite0, which learnt from its training photos and classes"},
    "audio": {
        "esc10": "learnt from its folds 1 to 4; held out in turn, these give 88.8 %",
        "esc50": "learnt from its ESC-10 part, folds 1 to 4: 320 of the 2,000 sounds",
    },
}
MOST_BYTES = 30e6  # most bytes of the whole folder


def main(work: Path, folder: Path, replaced: Collection[str] = tuple(RUNS)) -> None:
    """Write the model folder; it appears only once it is complete. replaced: the encoders to take from runs; the folder has the others.

    Raises:
        SystemExit: a run is missing, or the folder is larger than `MOST_BYTES`.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    config = foreign_config.read_config(HERE / "mini.json")
    encoders, files, steps = {}, {}, {}
    for name, run in RUNS.items():
        if name not in replaced:
            before, path = foreign_config.read_config(folder / "config.json"), folder / f"{name}.safetensors"
            shutil.copy(path, part)
            encoders[name], files[path.name], steps[run] = before.encoders[name], before.files[path.name], before.origin["steps"][run]
            continue
        if not (work / "runs" / run / "config.json").exists():
            sys.exit(f"package: {work / 'runs' / run} is not there; mini.sh makes it")
        run_model = find_checkpoint(work / "runs" / run)
        encoders[name] = replace(config.encoders[name], head_dropout=0.0, patch_dropout=0.0)
        tensors: dict[str, torch.Tensor] = {}
        for key, tensor in run_model.read(name).items():
            if tensor.dim() == 2 and fnmatch(key, INT8.get(name, "")):
                tensors[key], tensors[key + INT8_SCALE] = to_int8(tensor)
            else:
                tensors[key] = tensor.float() if key == "log_scale" else tensor.half().contiguous()
        path = part / f"{name}.safetensors"
        tensor_files.write_tensors(tensors, path)
        files[path.name] = {"size": path.stat().st_size, "sha256": file_hash(path)}
        steps[run] = run_model.config.origin.get("steps") if run_model.config.origin else None
    origin = {"recipe": "recipes/mini", "steps": steps, "version": metadata.version("imagebind-cli")}
    (part / "config.json").write_text(replace(config, encoders=encoders, files=files, origin=origin, trained_on=TRAINED_ON).to_json())
    shutil.copy(HERE.parent / "CARD.md", part / "CARD.md")
    size = sum(path.stat().st_size for path in part.iterdir())
    if size > MOST_BYTES:
        sys.exit(f"package: {size / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} go into the package")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    print(f"package: {folder}: {size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), HERE.parents[2] / "imagebind_cli" / "models" / "mini", sys.argv[2:] or tuple(RUNS))
