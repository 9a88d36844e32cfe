"""Measure how far vectors of a user's own pictures and videos move when they are decoded fast, and how much time that saves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.file_kinds import KINDS
from imagebind_cli.media.isolation import processor_seconds
from imagebind_cli.model import Model
from imagebind_cli.options.vision import EXACT, FAST

MOST = {"image": 200, "video": 20}  # files that are compared
ENDINGS = {"image": frozenset({"jpg", "jpeg"}), "video": KINDS["video"]}


@dataclass(frozen=True)
class DecodingLoss:
    """The cost and the gain of fast decoding on some files of one modality.

    cosines: of each one's vector to the exact one, (n,). faster: the processor time of reading them, exact over fast. unchanged: how many
    vectors are the exact ones, as of files that fast decoding reads exactly.
    """

    cosines: np.ndarray
    faster: float
    unchanged: int

    def figures(self) -> dict[str, float]:
        """Return the number of files, the mean and the lowest cosine, the vectors that are unchanged, and how many times faster files are read."""
        mean, lowest = float(self.cosines.mean()), float(self.cosines.min())
        return {"files": len(self.cosines), "mean": mean, "lowest": lowest, "unchanged": self.unchanged, "faster": self.faster}


def sample_files(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """List the JPEG files and the videos among paths and in folders by modality, evenly spaced where there are more than `MOST`.

    Raises:
        UserError: there are neither.
    """
    paths = list(paths)
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    found = {}
    for modality, endings in ENDINGS.items():
        fit = [file for file in files if file.suffix.lower().removeprefix(".") in endings and file.is_file()]
        if len(fit) > (most := MOST[modality]):
            fit = [fit[place] for place in np.linspace(0, len(fit) - 1, most).round().astype(int)]
        if fit:
            found[modality] = fit
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: no JPEG file and no video; fast decoding is of those alone")
    return found


def decoding_losses(model: Model, samples: Mapping[str, Sequence[Path]]) -> dict[str, DecodingLoss]:
    """Embed the files of each modality, decoded exactly and fast, and compare them.

    Raises:
        UserError: a file cannot be read, or the model does not read the modality.
    """
    return {modality: _decoding_loss(model, modality, files) for modality, files in samples.items()}


def _decoding_loss(model: Model, modality: str, files: Sequence[Path]) -> DecodingLoss:
    exact, fast = (model.embed(modality, files, decode=way) for way in (EXACT, FAST))
    seconds = {EXACT: 0.0, FAST: 0.0}
    for file in files:
        for way in seconds:
            began = processor_seconds()
            for _ in model.read(modality, file, decode=way):
                pass  # a long video's samples together may not fit in memory
            seconds[way] += processor_seconds() - began
    cosines = np.clip(np.einsum("nd,nd->n", exact, fast, dtype=np.float64), -1, 1)
    return DecodingLoss(cosines, seconds[EXACT] / max(seconds[FAST], 1e-9), int((exact == fast).all(axis=1).sum()))
