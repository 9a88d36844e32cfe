"""The family of docs/new-family.md: its file, its package, and weights by rule as its authors would publish them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

PAGE = Path(__file__).parents[2] / "docs" / "new-family.md"
FILE, LINE, FAMILY_ENTRY, MODALITY_ENTRIES, CONFIG, COMMANDS = [
    match[1] for match in re.finditer(r"```\w*\n(.*?)```", PAGE.read_text(), re.DOTALL)
]
VALUES: dict[str, int] = json.loads(CONFIG)


def write_package(folder: Path, name: str = "sketch-family", entries: str = FAMILY_ENTRY) -> Path:
    """Install a package into a folder that is on the path: its record, with the entry points of a pyproject.toml."""
    record = folder / f"{name.replace('-', '_')}-0.1.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    groups = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", entries)
    (record / "entry_points.txt").write_text(re.sub(r'= "(.+)"', r"= \1", groups))
    return folder


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """Draw Sketch's tensors, under its own names."""
    width, patch, places = VALUES["width"], VALUES["patch"], (VALUES["size"] // VALUES["patch"]) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "sketch.vision.patches.weight": (width, 3, patch, patch),
        "sketch.vision.summary": (width,),
        "sketch.vision.places": (places, width),
        "sketch.text.words.weight": (49408, width),
        "sketch.text.places": (77, width),
        "sketch.temperature": (),
        "sketch.steps": (),
    }
    for tower in ("vision", "text"):
        shapes |= {f"sketch.{tower}.norm.{kind}": (width,) for kind in ("weight", "bias")}
        shapes[f"sketch.{tower}.joint"] = (width, VALUES["joint"])
        for layer in range(VALUES["sketch"]):
            sizes = {name: (width, width) for name in ("query", "key", "value", "out")} | {
                "up": (4 * width, width),
                "down": (width, 4 * width),
            }
            for name, size in sizes.items():
                shapes[f"sketch.{tower}.layer{layer}.{name}.weight"] = size
                shapes[f"sketch.{tower}.layer{layer}.{name}.bias"] = size[:1]
            for name in ("before", "between"):
                shapes |= {f"sketch.{tower}.layer{layer}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_weights(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write sketch.json and sketch.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sketch.json").write_text(json.dumps(VALUES | changes))
    save_file(tensors(seed), folder / "sketch.safetensors")
    return folder


def encode(weights: dict[str, Tensor], tower: str, given: Tensor) -> Tensor:
    """Compute unit vectors as Sketch's authors would: plainly, one operation after the other."""

    def of(name: str) -> Tensor:
        return weights[f"sketch.{tower}.{name}"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ of(f"{name}.weight").T + of(f"{name}.bias")

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], of(f"{name}.weight"), of(f"{name}.bias"), 1e-5)

    if tower == "vision":
        patches = F.conv2d(given, of("patches.weight"), stride=VALUES["patch"]).flatten(2).transpose(1, 2)
        x = torch.cat([of("summary").expand(len(given), 1, -1), patches], 1) + of("places")
    else:
        x = of("words.weight")[given] + of("places")
    mask = torch.full((x.shape[1],) * 2, float("-inf")).triu(1) if tower == "text" else torch.zeros(())
    for layer in range(VALUES["sketch"]):
        seen = norm(x, f"layer{layer}.before")
        query, key, value = (
            linear(seen, f"layer{layer}.{name}").unflatten(-1, (-1, 8)).transpose(1, 2) for name in ("query", "key", "value")
        )
        attended = ((query @ key.transpose(2, 3)) / 8**0.5 + mask).softmax(-1) @ value
        x = x + linear(attended.transpose(1, 2).flatten(2), f"layer{layer}.out")
        x = x + linear(F.gelu(linear(norm(x, f"layer{layer}.between"), f"layer{layer}.up")), f"layer{layer}.down")
    pooled = x[:, 0] if tower == "vision" else x[torch.arange(len(x)), given.argmax(-1)]
    return F.normalize(norm(pooled, "norm") @ of("joint"), dim=-1)
