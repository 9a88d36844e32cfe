"""What the image encoder begins as: a network trained on photos, imitated on this recipe's pictures.

    python distil.py WORK

EfficientNet-Lite0 (ImageNet's photos and classes, Apache 2.0; see DATA.md) sees every picture that training will see, at 160 x 160 pixels. The
encoder learns, with no word read, to give a crop of it the direction that the teacher gives the whole: the teacher's 1280 figures in their
256 principal directions, each divided by the root of its spread, so that the few largest do not drown the rest. Pictures of furniture come
three times as often, for there are few. No picture of a test is used. Writes the model folder WORK/start-image.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli import checkpoint
from imagebind_cli.training.optimizer import clip, make_optimizer, rate_at, set_rate
from imagebind_cli.training.parallel import raise_tower
from imagebind_cli.training.recipe import Encoder as Section
from imagebind_cli.training.recipe import Optimizer, Run
from imagebind_cli.training.start import fresh, with_weights

CONFIG = Path(__file__).with_name("mini.json")
TEACHER_SIZE, KEPT_SIZE = 160, 96
"""Pixels of a side, as the teacher sees a picture, and as it is kept for the crops of 64 that the encoder sees."""
STEPS, BATCH, WARMUP = 2700, 256, 50
OPTIMIZER = Optimizer(name="muon", lr=3e-3, beta2=0.98, weight_decay=0.1, final=0.01)
SECTION = Section(train="all", patch_dropout=0.5)
SMALLEST, RATIO = 0.5, 4 / 3
"""A crop's least area, and its most extreme ratio of sides."""
FURNITURE = 3
SEED = 0


def pictures(work: Path) -> tuple[list[Path], np.ndarray]:
    """The pictures that training will see, and their numbers as often as each is shown in a round."""
    found: dict[Path, int] = {}
    for folder, manifest, times in (("drawings", "train.jsonl", 1), ("furniture", "image-text.jsonl", FURNITURE)):
        for line in (work / "data" / folder / manifest).read_text().splitlines():
            found[work / "data" / folder / json.loads(line)["image"]] = times
    return list(found), np.repeat(np.arange(len(found)), list(found.values()))


def shown(path: Path, size: int) -> np.ndarray:
    """A picture (size, size, 3) uint8."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


@torch.inference_mode()
def taught(work: Path, paths: list[Path]) -> Tensor:
    """What the teacher makes of pictures: the mean over its last map, (n, 1280). Kept in WORK, for it takes ten minutes."""
    place = work / "teacher-image.pt"
    if not place.exists():
        import timm

        model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval().to(memory_format=torch.channels_last)
        weights = torch.load(next((work / "sources" / "efficientnet").rglob("*.pth")), weights_only=True)
        # The same layers in the same order under other names; a tensor of another shape would be refused.
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
        made = []
        for first in range(0, len(paths), 64):
            batch = torch.from_numpy(np.stack([shown(path, TEACHER_SIZE) for path in paths[first : first + 64]]))
            maps = model.forward_features((batch.permute(0, 3, 1, 2) / 127.5 - 1).contiguous(memory_format=torch.channels_last))
            made.append(maps.mean((2, 3)).half())
            if first % 6400 == 0:
                print(f"distil: the teacher has seen {first:,} of {len(paths):,} pictures", file=sys.stderr, flush=True)
        torch.save(torch.cat(made), place)
    vectors = torch.load(place, weights_only=True).float()
    if len(vectors) != len(paths):
        sys.exit(f"distil: {place} holds {len(vectors)} vectors, and there are {len(paths)} pictures: it is of others; delete it")
    return vectors


def targets(vectors: Tensor, size: int) -> Tensor:
    """Unit vectors (n, size): the teacher's, centred, along their principal directions, each over the root of its spread."""
    centred = vectors - vectors.mean(0)
    some = centred[torch.randperm(len(centred))[:20_000]]
    _, spread, directions = torch.linalg.svd(some, full_matrices=False)
    return F.normalize(centred @ directions[:size].T / (spread[:size] / len(some) ** 0.5).sqrt(), dim=-1)


def crops(batch: Tensor, size: int) -> Tensor:
    """A random crop of each picture: (b, 3, s, s) in [0, 1] to (b, 3, size, size)."""
    area = SMALLEST + (1 - SMALLEST) * torch.rand(len(batch))
    ratio = torch.exp((2 * torch.rand(len(batch)) - 1) * math.log(RATIO))
    place = torch.zeros(len(batch), 2, 3)
    for side, share in enumerate(((area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1))):
        place[:, side, side] = share
        place[:, side, 2] = (2 * torch.rand(len(batch)) - 1) * (1 - share)
    grid = F.affine_grid(place, [len(batch), 3, size, size], align_corners=False)
    return F.grid_sample(batch, grid, align_corners=False, padding_mode="border")


def batches(round_: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers of pictures, all of a round in random order before any comes again."""
    numbers, left = np.random.default_rng(SEED), np.empty(0, np.int64)
    while True:
        while len(left) < BATCH:
            left = np.concatenate([left, numbers.permutation(round_)])
        yield left[:BATCH]
        left = left[BATCH:]


def main(work: Path) -> None:
    folder = work / "start-image"
    if (folder / "config.json").exists():
        return
    torch.manual_seed(SEED)
    config = checkpoint.read_config(CONFIG)
    shape = replace(config.encoders["vision"], patch_dropout=SECTION.patch_dropout or 0.0)
    paths, round_ = pictures(work)
    wanted = targets(taught(work, paths), config.dim)
    kept = torch.from_numpy(np.stack([shown(path, KEPT_SIZE) for path in paths])).permute(0, 3, 1, 2)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (shape.mean, shape.std))
    encoder = with_weights("vision", shape, fresh("vision", shape, SEED))
    tower = raise_tower("vision", encoder, SECTION, Run(precision="bf16"), torch.device("cpu"))
    optimizer = make_optimizer({"vision": encoder}, {"vision": SECTION}, torch.nn.Module(), OPTIMIZER)
    start = time.monotonic()
    for step, numbers in zip(range(STEPS), batches(round_), strict=False):
        set_rate(optimizer, rate_at(step, STEPS, WARMUP, OPTIMIZER))
        views = (crops(kept[numbers] / 255, shape.shape[-1]) - mean) / deviation
        loss = 1 - (tower.call(views) * wanted[numbers]).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        clip([encoder.parameters()], 1.0)
        optimizer.step()
        if step % 100 == 99 or step == STEPS - 1:
            rate = (step + 1) * BATCH / (time.monotonic() - start)
            print(
                f"distil: step {step + 1}, cosine to the teacher {1 - loss.item():.3f}, {rate:.0f} pictures/s", file=sys.stderr, flush=True
            )
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, folder / "vision.safetensors")
    own = replace(
        config,
        name="mini-start-image",
        licence="Apache-2.0",
        encoders={"vision": config.encoders["vision"]},
        about="image encoder distilled from EfficientNet-Lite0",
    )
    (folder / "config.json").write_text(own.to_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
