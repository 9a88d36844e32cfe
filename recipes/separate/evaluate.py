"""Measure how well the network separates held-out recordings, with controls and baselines, and print the tables of README.md.

    python recipes/separate/evaluate.py FOLDER [--mixtures N] [--threads N]

FOLDER holds `data.safetensors` and `network.safetensors`. Mixtures are of two held-out recordings of different classes, equally loud; in the second
table, of a recording and notes of a soundfont that training has not heard. Scores go to FOLDER/scores.json, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "mini" / "report"))

import numpy as np
import torch
from measured import Measured, measured, write_rows
from mixtures import REAL, HeldOutMixture, HeldOutSet, held_out_mixtures
from network import MaskNetwork, load_network, separated, spectrum, waveform
from prepare import SAMPLES, Data, Sounds, load
from scores import bss_eval, improvement, level, si_sdr
from torch import Tensor

from imagebind_cli import UserError
from imagebind_cli.metrics import interval

AT_ONCE = 20  # mixtures
CONTROL = "control: the other sound's name"
BASELINE = "baseline: the class's mean spectrum as a filter"
SEED = 0


@dataclass(frozen=True)
class Scores:
    """The scores of one way of separating, for each of n mixtures.

    gain: SI-SDR improvement in dB (n,). bss: SDR, SIR and SAR in dB (n, 3), or None. level: of what comes out, below the mixture, in dB (n,).
    """

    title: str
    gain: np.ndarray
    bss: np.ndarray | None
    level: np.ndarray

    def row(self) -> str:
        """Return a row of the table."""
        low, high = interval(self.gain)
        cells = [f"{self.gain.mean():.1f} ({low:.1f} to {high:.1f})", f"{np.median(self.gain):.1f}", f"{100 * (self.gain > 0).mean():.0f}"]
        cells += ["", "", ""] if self.bss is None else [f"{value:.1f}" for value in self.bss.mean(axis=0)]
        return f"| {self.title} | {' | '.join(cells)} | {self.level.mean():.1f} |"


HEADER = (
    "| asked by | SI-SDR improvement, dB (95 %) | median | improved, % | SDR | SIR | SAR | level, dB |",
    "|---|---|---|---|---|---|---|---|",
)


def queries(data: Data, seed: int = SEED) -> dict[str, Callable[[HeldOutMixture], np.ndarray]]:
    """Return the ways to ask for a mixture's target, by title: functions that return a vector (d,)."""
    random, test, asking = np.random.default_rng(seed), data.test, data.asking

    def drawn(label: str) -> np.ndarray:
        vectors = asking["unseen image"].of(label)
        return vectors[random.integers(len(vectors))]

    def name(label: str) -> np.ndarray:
        return asking["text"].of(label)[0]  # the name as it is

    return {
        "its name": lambda row: name(test.labels[row.target]),
        "other words": lambda row: asking["other text"].of(test.labels[row.target])[0],
        "a drawing of an unseen set": lambda row: drawn(test.labels[row.target]),
        "another held-out recording": lambda row: test.vectors[row.asking],
        CONTROL: lambda row: name(test.labels[row.other]),
        "control: the name of a third class": lambda row: name(row.third),
    }


def ask(network: MaskNetwork, mixtures: Tensor, vectors: np.ndarray) -> Tensor:
    """Separate mixtures (n, s) by vectors (n, d) into waveforms (n, s)."""
    asked = torch.from_numpy(vectors).float()[:, None]
    parts = [separated(network, mixtures[at : at + AT_ONCE], asked[at : at + AT_ONCE]) for at in range(0, len(mixtures), AT_ONCE)]
    return torch.cat(parts)[:, 0]


def filter_mixtures(mixtures: Tensor, shares: Tensor) -> Tensor:
    """Keep shares (n, f, t or 1) of the mixtures' spectra (n, s)."""
    return waveform(spectrum(mixtures) * shares, SAMPLES)


def mean_spectra(sounds: Sounds) -> dict[str, Tensor]:
    """Return the mean power spectrum of each label's recordings of ESC-10, (f,); each recording counts as equally loud."""
    numbers = {label: sounds.where(label, REAL) for label in {sounds.labels[number] for number in sounds.where(source=REAL)}}
    power = {label: spectrum(sounds.waves[of_label]).abs().square().mean(dim=2) for label, of_label in numbers.items()}
    return {label: (each / each.sum(dim=1, keepdim=True)).mean(dim=0) for label, each in power.items()}


def class_filter(spectra: dict[str, Tensor], label: str) -> Tensor:
    """Return the Wiener filter that a class's mean spectrum gives against the mean of all others, (f, 1)."""
    others = torch.stack([each for name, each in spectra.items() if name != label]).mean(dim=0)
    return (spectra[label] / (spectra[label] + others + 1e-20))[:, None]


def ideal_shares(targets: Tensor, mixtures: Tensor) -> Tensor:
    """Return the ratio masks that know both sounds, (n, f, t): no network reaches them."""
    one, other = spectrum(targets).abs().square(), spectrum(mixtures - targets).abs().square()
    return one / (one + other + 1e-20)


def score(title: str, estimates: Tensor, tested: HeldOutSet, with_bss: bool) -> Scores:
    """Score estimates (n, s)."""
    got, mixed, wanted = (each.double().numpy() for each in (estimates, tested.mixtures, tested.targets))
    bss = np.array([bss_eval(*three) for three in zip(got, mixed, wanted, strict=True)]) if with_bss else None
    return Scores(title, improvement(got, mixed, wanted), bss, level(got, mixed))


def measure(network: MaskNetwork, data: Data, tested: HeldOutSet, with_bss: bool = True) -> Iterator[Scores]:
    """Yield the scores of every way to ask, of the baseline, and of the ideal masks."""
    for title, vector in queries(data).items():
        vectors = np.stack([vector(row) for row in tested.rows])
        yield score(title, ask(network, tested.mixtures, vectors), tested, with_bss)
    spectra = mean_spectra(data.train)
    shares = torch.stack([class_filter(spectra, tested.label(row.target)) for row in tested.rows])
    yield score(BASELINE, filter_mixtures(tested.mixtures, shares), tested, with_bss)
    ideal = filter_mixtures(tested.mixtures, ideal_shares(tested.targets, tested.mixtures))
    yield score("ideal ratio mask", ideal, tested, with_bss)


def measured_rows(scores: Sequence[Scores]) -> dict[str, Measured]:
    """Return the rows for mini's report: the floor is the baseline's improvement, the control that by the other sound's name."""
    means = {each.title: each.gain.mean() for each in scores}
    return {each.title: measured(each.gain, means[BASELINE], means[CONTROL]) for each in scores}


def by_class(scores: Scores, tested: HeldOutSet) -> str:
    """Return the mean improvement of each class, in a line."""
    labels = np.array([tested.label(row.target) for row in tested.rows])
    return ", ".join(f"{label} {scores.gain[labels == label].mean():.1f}" for label in sorted(set(labels)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mixtures", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if find_spec("mir_eval") is None:
        sys.exit("evaluate: mir_eval is not installed: pip install -r recipes/separate/requirements.txt")
    try:
        data, (network, about) = load(given.folder / "data.safetensors"), load_network(given.folder / "network.safetensors")
    except UserError as error:
        sys.exit(f"evaluate: {error}")
    if about["held_out"] != data.about["held_out"]:
        sys.exit(
            f"evaluate: {given.folder}: the network was trained without fold {about['held_out']}, the data hold out {data.about['held_out']}"
        )
    rows: dict[str, Measured] = {}
    gains = {}
    for kind, against in (("recordings", REAL), ("notes", "notes")):
        tested = held_out_mixtures(data.test, given.mixtures, SEED, against)
        mixed = si_sdr(tested.mixtures.double().numpy(), tested.targets.double().numpy()).mean()
        print(f"\nA held-out recording and {kind}: {given.mixtures} mixtures, SI-SDR {mixed:.2f} dB.\n")
        print("\n".join(HEADER), flush=True)
        scores = []
        for each in measure(network, data, tested, with_bss=against == REAL):
            print(each.row(), flush=True)
            scores.append(each)
        print(f"\nBy its name, class by class: {by_class(scores[0], tested)}.")
        gains[kind] = {each.title: each.gain.round(3).tolist() for each in scores}
        rows = rows or measured_rows(scores)
    write_rows(rows, given.folder / "scores.json", held_out=data.about["held_out"], sounds_heard=data.about["sounds_heard"], gains=gains)


if __name__ == "__main__":
    main()
