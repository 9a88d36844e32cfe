"""Train the image encoder's start: it imitates a network trained on photos, on this recipe's pictures and without a word.

    python recipes/mini/train/distil_image.py WORK

The teacher, EfficientNet-Lite0 (ImageNet's photos and classes, Apache 2.0; see data/README.md), sees every training picture at 160 x 160 pixels.
Training has three rounds, and a model folder is written after each:

1. WORK/start-image-imitation. The encoder learns to give a crop the direction that the teacher gives the whole picture: the teacher's 1280
   figures along their 256 principal directions, each divided by the root of its spread, so that the few largest do not drown the rest.
2. WORK/start-image-concepts. It also learns what the teacher cannot know: that the sets draw the same concepts, and which views show one piece of
   furniture. Each concept has a vector, and a picture's direction has to pick its own among all of them.
3. WORK/start-image. It learns to ignore the colour of furniture, which neither depth nor heat can know: crops in random colours learn the mean of
   the encoder's own directions of the view in several colourings, and all other pictures keep theirs.

Pictures of furniture come more often, since there are few. No picture of a test is used.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from model_folder import CONFIG, write_model
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.training import (
    EncoderRecipe,
    OptimizerRecipe,
    RunRecipe,
    clip_gradients,
    encoder_with,
    fresh_weights,
    make_optimizer,
    make_tower,
    rate_at,
    set_rate,
)
from imagebind_cli.weights import foreign_config
from imagebind_cli.weights.find import find_checkpoint

TEACHER_SIZE, KEPT_SIZE = 160, 96  # pixels of a side: of what the teacher sees, and of what is kept to cut the encoder's crops of 64 from
BATCH, WARMUP = 256, 50


@dataclass(frozen=True)
class Round:
    """A round of training.

    steps: of BATCH pictures. rate: peak learning rate. concepts: weight of the concepts' loss. furniture: how often each picture of furniture
    comes while each other comes once. recoloured: share of the furniture's crops in random colours; above 0, the targets are the encoder's own
    former directions, not the teacher's.
    """

    steps: int
    rate: float
    concepts: float = 0.0
    furniture: int = 3
    recoloured: float = 0.0


# The rounds by the folder that each writes.
ROUNDS = {
    "start-image-imitation": Round(2700, 3e-3),
    "start-image-concepts": Round(2000, 1.5e-3, concepts=0.1),
    "start-image": Round(450, 1e-3, concepts=0.1, furniture=8, recoloured=0.7),
}
COLOURINGS = 9  # colourings over which a view of furniture is averaged: its own, and random ones
SHARPNESS, SMOOTHING = 20.0, 0.1  # factor of the cosines to concepts, and label smoothing over them
ENCODER_SETTINGS = EncoderRecipe(train="all", patch_dropout=0.5)
SMALLEST, RATIO = 0.5, 4 / 3  # smallest share of the area that a crop keeps, and its most extreme aspect ratio
SEED = 0


def pictures(work: Path) -> tuple[list[Path], Tensor, Tensor]:
    """Return the training pictures, a mask of those of furniture, and the number of each one's concept, or -1.

    A concept is what several pictures show: an emoji, a stamp's subject, a model of furniture. Clip art has none: its titles name albums.
    """
    concepts: dict[Path, str | None] = {}
    for line in (work / "data" / "drawings" / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        concepts[work / "data" / "drawings" / row["image"]] = None if row["source"] == "openclipart" else row["group"]
    drawings = len(concepts)
    for line in (work / "data" / "furniture" / "image-text.jsonl").read_text().splitlines():
        path = work / "data" / "furniture" / json.loads(line)["image"]
        concepts[path] = f"furniture {path.stem.rpartition('-')[0]}"
    numbers = {concept: number for number, concept in enumerate(dict.fromkeys(filter(None, concepts.values())))}
    return list(concepts), torch.arange(len(concepts)) >= drawings, torch.tensor([numbers.get(c, -1) for c in concepts.values()])


def read_picture(path: Path, size: int) -> np.ndarray:
    """Read a picture as (size, size, 3) uint8."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


@torch.inference_mode()
def teacher_vectors(work: Path, paths: list[Path]) -> Tensor:
    """Return the teacher's vectors of pictures (n, 1280), means over its last map; kept in WORK, since they take ten minutes.

    Raises:
        SystemExit: the kept vectors are of another number of pictures.
    """
    place = work / "teacher-image.pt"
    if not place.exists():
        import timm

        teacher = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval().to(memory_format=torch.channels_last)
        weights = torch.load(next((work / "sources" / "efficientnet").rglob("*.pth")), weights_only=True)
        # The same layers in the same order under other names; a tensor of another shape would be refused.
        teacher.load_state_dict(dict(zip(teacher.state_dict(), weights.values(), strict=True)))
        parts = []
        for first in range(0, len(paths), 64):
            batch = torch.from_numpy(np.stack([read_picture(path, TEACHER_SIZE) for path in paths[first : first + 64]]))
            maps = teacher.forward_features((batch.permute(0, 3, 1, 2) / 127.5 - 1).contiguous(memory_format=torch.channels_last))
            parts.append(maps.mean((2, 3)).half())
            if first % 6400 == 0:
                print(f"distil_image: the teacher has seen {first:,} of {len(paths):,} pictures", file=sys.stderr, flush=True)
        torch.save(torch.cat(parts), place)
    vectors = torch.load(place, weights_only=True).float()
    if len(vectors) != len(paths):
        sys.exit(
            f"distil_image: {place} holds {len(vectors)} vectors, and there are {len(paths)} pictures; delete it, so that it is computed anew"
        )
    return vectors


def principal(vectors: Tensor, size: int) -> Tensor:
    """Return the principal directions (size, d) of centred vectors (n, d), each divided by the root of its spread, its largest entry positive."""
    spread, directions = torch.linalg.eigh(vectors.T @ vectors / len(vectors))  # ascending
    directions = directions[:, -size:].flip(1)
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    return (directions / spread[-size:].flip(0) ** 0.25).T


def targets(vectors: Tensor, size: int) -> Tensor:
    """Turn the teacher's vectors (n, d) into unit targets (n, size): centred, along `principal` directions."""
    centred = vectors - vectors.mean(0)
    return F.normalize(centred @ principal(centred, size).T, dim=-1)


def random_crops(batch: Tensor, size: int) -> Tensor:
    """Crop each picture at random: (b, 3, s, s) in [0, 1] to (b, 3, size, size)."""
    area = SMALLEST + (1 - SMALLEST) * torch.rand(len(batch))
    ratio = torch.exp((2 * torch.rand(len(batch)) - 1) * math.log(RATIO))
    place = torch.zeros(len(batch), 2, 3)
    for side, share in enumerate(((area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1))):
        place[:, side, side] = share
        place[:, side, 2] = (2 * torch.rand(len(batch)) - 1) * (1 - share)
    grid = F.affine_grid(place, [len(batch), 3, size, size], align_corners=False)
    return F.grid_sample(batch, grid, align_corners=False, padding_mode="border")


def batches(round_: np.ndarray) -> Iterator[np.ndarray]:
    """Yield batches of picture numbers, all of a round in random order before any comes again."""
    numbers, left = np.random.default_rng(SEED), np.empty(0, np.int64)
    while True:
        while len(left) < BATCH:
            left = np.concatenate([left, numbers.permutation(round_)])
        yield left[:BATCH]
        left = left[BATCH:]


class Concepts(nn.Module):
    """A vector for each concept, at first the mean of its pictures' targets (n, d). concepts: the concept's number of each picture (n,), or -1."""

    def __init__(self, wanted: Tensor, concepts: Tensor) -> None:
        super().__init__()
        self._concepts = concepts
        has_concept = concepts >= 0
        sums = torch.zeros(int(concepts.max()) + 1, wanted.shape[1]).index_add(0, concepts[has_concept], wanted[has_concept])
        self.vectors = nn.Parameter(F.normalize(sums, dim=-1))

    def forward(self, directions: Tensor, numbers: Tensor) -> Tensor:
        """Return the loss of picking each picture's concept among all; pictures without one do not count."""
        scores = SHARPNESS * directions @ F.normalize(self.vectors, dim=-1).T
        return F.cross_entropy(scores, self._concepts[numbers], ignore_index=-1, label_smoothing=SMOOTHING)


def recolour(batch: Tensor) -> Tensor:
    """Recolour pictures (b, 3, h, w) in [0, 1] at random: three in ten grey, the others with mixed channels; brightness and contrast change too."""
    mixed = torch.eye(3) + 0.5 * torch.randn(len(batch), 3, 3)
    grey = torch.rand(len(batch), 1, 3).softmax(-1).expand(-1, 3, 3)
    mixed = torch.where(torch.rand(len(batch), 1, 1) < 0.3, grey, mixed)
    mixed = mixed / mixed.sum(-1, keepdim=True).abs().clamp(min=0.5)  # white stays nearly white
    contrast, brightness = 0.6 + 0.8 * torch.rand(len(batch), 1, 1, 1), 0.3 * (torch.rand(len(batch), 1, 1, 1) - 0.5)
    return ((torch.einsum("bij,bjhw->bihw", mixed, batch) - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


class Pictures:
    """The training pictures as the encoder sees them. kept: (n, 3, KEPT_SIZE, KEPT_SIZE) uint8. furniture: mask (n,)."""

    def __init__(self, kept: Tensor, furniture: Tensor, shape: EncoderConfig) -> None:
        self._kept, self._furniture, self._size = kept, furniture, shape.shape[-1]
        self._mean, self._deviation = (torch.tensor(values).view(3, 1, 1) for values in (shape.mean, shape.std))

    def crops_of(self, numbers: Tensor, share: float) -> Tensor:
        """Return random crops (b, 3, s, s) of the pictures with these numbers; a share of the furniture's in random colours."""
        batch = random_crops(self._kept[numbers] / 255, self._size)
        if share:
            chosen = self._furniture[numbers] & (torch.rand(len(numbers)) < share)
            batch[chosen] = recolour(batch[chosen])
        return (batch - self._mean) / self._deviation

    @torch.inference_mode()
    def directions(self, encoder: nn.Module) -> Tensor:
        """Return an encoder's unit vectors (n, d) of every whole picture; of furniture, their mean over its colourings."""
        parts = []
        for numbers in torch.arange(len(self._kept)).split(BATCH):
            batch = F.interpolate(self._kept[numbers] / 255, (self._size, self._size), mode="bilinear", antialias=True)
            total = encoder((batch - self._mean) / self._deviation)
            chosen = self._furniture[numbers]
            for _ in range(COLOURINGS - 1 if chosen.any() else 0):
                total[chosen] += encoder((recolour(batch[chosen]) - self._mean) / self._deviation)
            parts.append(F.normalize(total, dim=-1))
        return torch.cat(parts)


def main(work: Path) -> None:
    if all((work / name / "config.json").exists() for name in ROUNDS):
        return
    config = foreign_config.read_config(CONFIG)
    shape = config.encoders["vision"]
    paths, furniture, concept_numbers = pictures(work)
    images = Pictures(torch.from_numpy(np.stack([read_picture(path, KEPT_SIZE) for path in paths])).permute(0, 3, 1, 2), furniture, shape)
    tensors = fresh_weights("vision", shape, SEED)
    for name, round_ in ROUNDS.items():
        if not (work / name / "config.json").exists():
            torch.manual_seed(SEED)
            if round_.recoloured:
                wanted = images.directions(encoder_with("vision", shape, tensors).eval()).clone()
            else:
                wanted = targets(teacher_vectors(work, paths), config.dim)
            concepts = Concepts(wanted, concept_numbers)
            encoder = encoder_with("vision", replace(shape, patch_dropout=ENCODER_SETTINGS.patch_dropout or 0.0), tensors)
            tower = make_tower("vision", encoder, ENCODER_SETTINGS, RunRecipe(precision="bf16"), torch.device("cpu"))
            settings = OptimizerRecipe(name="muon", lr=round_.rate, beta2=0.98, weight_decay=0.1, final=0.01)
            optimizer = make_optimizer(
                {"vision": encoder}, {"vision": ENCODER_SETTINGS}, concepts if round_.concepts else nn.Module(), settings
            )
            source = batches(np.repeat(np.arange(len(paths)), np.where(furniture, round_.furniture, 1)))
            start = time.monotonic()
            for step in range(round_.steps):
                numbers = torch.from_numpy(next(source))
                set_rate(optimizer, rate_at(step, round_.steps, WARMUP, settings))
                directions = tower.call(images.crops_of(numbers, round_.recoloured))
                cosine = (directions * wanted[numbers]).sum(-1).mean()
                loss = 1 - cosine + (round_.concepts * concepts(directions, numbers) if round_.concepts else 0)
                optimizer.zero_grad()
                loss.backward()
                clip_gradients([encoder.parameters()], 1.0)
                optimizer.step()
                if step % 100 == 99 or step == round_.steps - 1:
                    print(
                        f"distil_image: {name}, step {step + 1} of {round_.steps}, loss {loss.item():.3f}, "
                        f"cosine to what is wanted {cosine.item():.3f}, "
                        f"{(step + 1) * BATCH / (time.monotonic() - start):.0f} pictures/s",
                        file=sys.stderr,
                        flush=True,
                    )
            write_model(
                work / name,
                replace(config, origin={"steps": round_.steps}),
                {"vision": encoder.state_dict()},
                "image encoder distilled from EfficientNet-Lite0",
            )
        tensors = {
            key: tensor.float().clone() for key, tensor in find_checkpoint(work / name).read("vision").items()
        }  # copied, since those of a file are mapped


if __name__ == "__main__":
    main(Path(sys.argv[1]))
