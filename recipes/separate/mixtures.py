"""Draw mixtures of two sounds: varied ones to learn from, each by the seed and its step alone, and whole clips to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from network import FREQUENCIES, HOP, RATE, WINDOW, spectrum
from prepare import SAMPLES, Data, Sounds
from torch import Tensor
from torch.nn import functional as F

REAL = "ESC-10"
CROP = 2 * RATE // HOP * HOP  # samples of a training mixture
LEAST_ENERGY = 0.15  # of a crop, in shares of its recording's mean: most of some recordings is silent
TRIES = 6  # crops drawn until one has that energy
SPEEDS = 0.8, 1.25  # a recording is played slower or faster, which shifts its pitch too
LOUDER = 5.0  # the most dB by which one sound is louder or softer than usual; two differ by up to twice as much
CURVE, KNOTS = 4.0, 8  # deviation in dB and points of the random equalisation of a sound
NOTE = 0.15  # share of the sounds that are notes
ABSENT = 0.2  # share of mixtures whose second query names what is not in them
BLENDED, MOST_BLENDED = 0.6, 0.7  # share of queries mixed with a recording's vector, and the most of it
NOISE = 0.03  # deviation of each number of a query, whose length is 1


@dataclass(frozen=True)
class Batch:
    """Mixtures (b, f, t) complex, and for each of two queries (b, 2, d) the spectrum of what it names (b, 2, f, t): nothing where that is absent."""

    mixtures: Tensor
    queries: Tensor
    targets: Tensor


class Drawing:
    """Draws training batches."""

    def __init__(self, data: Data, batch: int, seed: int) -> None:
        self._sounds, self._asking, self._batch, self._seed = data.train, data.asking, batch, seed
        energy = self._sounds.waves.double().square().cumsum(dim=1)
        self._energy = F.pad(energy, (1, 0)).numpy()  # before each sample
        labels = self._sounds.labels
        self._real = sorted({labels[number] for number in self._sounds.where(source=REAL)})
        self._notes = sorted(set(labels) - set(self._real))
        self._numbers = {label: self._sounds.where(label) for label in set(labels)}

    def draw(self, step: int) -> Batch:
        """Draw the batch of a step."""
        random = np.random.default_rng([self._seed, step])
        labels = [self._labels(random) for _ in range(self._batch)]
        waves = torch.stack([self._crop(str(label), random) for row in labels for label in row[:2]])
        spectra = spectrum(waves) * self._curves(len(waves), random)
        loudness = torch.from_numpy(10 ** (random.uniform(-LOUDER, LOUDER, len(waves)) / 20)).float()[:, None, None]
        power = spectra.abs().square().mean(dim=(1, 2), keepdim=True)
        targets = (spectra * loudness / (power + 1e-9).sqrt()).unflatten(0, (-1, 2))
        mixtures = targets.sum(dim=1)
        absent = random.random(self._batch) < ABSENT
        asked = [(row[0], row[2] if gone else row[1]) for row, gone in zip(labels, absent, strict=True)]
        queries = torch.from_numpy(np.stack([[self._query(str(label), random) for label in row] for row in asked])).float()
        targets[torch.from_numpy(absent), 1] = 0
        return Batch(mixtures, queries, targets)

    def _labels(self, random: np.random.Generator) -> list[str]:
        """Draw the labels of two sounds, and one of neither."""
        chosen: list[str] = []
        while len(chosen) < 3:
            labels = self._notes if self._notes and random.random() < NOTE else self._real
            label = str(random.choice(labels))
            if label not in chosen:
                chosen.append(label)
        return chosen

    def _crop(self, label: str, random: np.random.Generator) -> Tensor:
        """Cut a stretch of a recording in which something sounds, and change its speed."""
        number = int(random.choice(self._numbers[label]))
        energy = self._energy[number]
        length = min(int(CROP * np.exp(random.uniform(*np.log(SPEEDS)))), SAMPLES)
        for _ in range(TRIES):
            start = int(random.integers(SAMPLES - length + 1))
            if energy[start + length] - energy[start] > LEAST_ENERGY * energy[-1] * length / SAMPLES:
                break
        wave = self._sounds.waves[number, start : start + length]
        return F.interpolate(wave[None, None], CROP, mode="linear")[0, 0]

    def _curves(self, count: int, random: np.random.Generator) -> Tensor:
        """Draw smooth gains over the octaves, (count, f, 1)."""
        octaves = np.log2(np.maximum(np.arange(FREQUENCIES) * RATE / WINDOW, 30) / 30)
        knots = np.linspace(0, octaves[-1], KNOTS)
        gains = [10 ** (np.interp(octaves, knots, random.normal(0, CURVE, KNOTS)) / 20) for _ in range(count)]
        return torch.from_numpy(np.stack(gains)).float()[:, :, None]

    def _query(self, label: str, random: np.random.Generator) -> np.ndarray:
        """Draw a vector that asks for a label: of a sentence or a picture, often on the way to that of a recording, with noise."""
        vectors = self._asking["text" if random.random() < 0.5 else "image"].of(label)
        vector = vectors[random.integers(len(vectors))]
        if random.random() < BLENDED:
            share = random.uniform(0, MOST_BLENDED)
            vector = (1 - share) * vector + share * self._sounds.vectors[int(random.choice(self._numbers[label]))]
            vector = vector / np.linalg.norm(vector)
        vector = vector + random.normal(0, NOISE, len(vector))
        return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class HeldOutMixture:
    """A target and another sound, by their numbers, a third number that asks as another recording of the target's label, and a label of neither."""

    target: int
    other: int
    asking: int
    third: str


@dataclass(frozen=True)
class HeldOutSet:
    """Mixtures of held-out sounds, equally loud over their whole length."""

    sounds: Sounds
    rows: Sequence[HeldOutMixture]

    @cached_property
    def targets(self) -> Tensor:
        """Waveforms (n, s)."""
        return self._equally_loud([row.target for row in self.rows])

    @cached_property
    def mixtures(self) -> Tensor:
        """Waveforms (n, s)."""
        return self.targets + self._equally_loud([row.other for row in self.rows])

    def label(self, number: int) -> str:
        """Return the label of a sound."""
        return self.sounds.labels[number]

    def _equally_loud(self, numbers: list[int]) -> Tensor:
        waves = self.sounds.waves[numbers]
        return 0.1 * waves / waves.square().mean(dim=1, keepdim=True).sqrt()


def held_out_mixtures(sounds: Sounds, count: int, seed: int = 0, against: str = REAL) -> HeldOutSet:
    """Draw test mixtures of recordings of two labels. against: source of the other sound.

    The recording that asks was not cut from the same one as the target, for that would know more than what it is.
    """
    random = np.random.default_rng(seed)
    targets, others = (
        sounds.where(source=REAL),
        [number for number in sounds.where() if (sounds.sources[number] == REAL) == (against == REAL)],
    )
    labels = sorted({sounds.labels[number] for number in targets})
    rows = []
    while len(rows) < count:
        label = str(random.choice(labels))
        target = int(random.choice([number for number in targets if sounds.labels[number] == label]))
        other = int(random.choice([number for number in others if sounds.labels[number] != label]))
        alike = [number for number in sounds.where(label, REAL) if sounds.recordings[number] != sounds.recordings[target]]
        third = [each for each in labels if each not in (label, sounds.labels[other])]
        rows.append(HeldOutMixture(target, other, int(random.choice(alike)), str(random.choice(third))))
    return HeldOutSet(sounds, rows)
