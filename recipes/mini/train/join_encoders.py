"""Join encoders of several model folders into one, such as words with the image encoder of a later round.

    python recipes/mini/train/join_encoders.py FOLDER NAME=MODEL...

Each MODEL is a run or model folder, of which the encoder NAME is taken. Writes the model folder FOLDER.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from model_folder import CONFIG, write_model

from imagebind_cli.weights import foreign_config
from imagebind_cli.weights.find import find_checkpoint


def main(folder: Path, parts: dict[str, str]) -> None:
    if (folder / "config.json").exists():
        return
    sources = {name: find_checkpoint(part) for name, part in parts.items()}
    steps = {name: part.config.origin.get("steps") if part.config.origin else None for name, part in sources.items()}
    config = replace(foreign_config.read_config(CONFIG), origin={"steps": steps})
    write_model(folder, config, {name: part.read(name) for name, part in sources.items()}, "joined encoders")


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(part.split("=", 1) for part in sys.argv[2:]))
