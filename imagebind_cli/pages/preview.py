"""Samples as their encoder sees them: a picture of each, and a page to look through them.

Drawn from the tensors alone, with the encoder's normalisation undone: what is drawn is what goes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw

from imagebind_cli import registry
from imagebind_cli.pages.base import escape, table, write_page

if TYPE_CHECKING:
    from imagebind_cli.encoder import EncoderConfig, Sample

MARGIN, GAP = 44, 8
INK, PAPER = (60, 60, 60), (255, 255, 255)
TRACES = ["#c0392b", "#27ae60", "#2980b9"]  # x, y, z


def draw(sample: Sample, encoder: str, config: EncoderConfig, most: int = 6) -> Image.Image:
    """Draw the first clips of a sample side by side, each with its seconds above it.

    Text is drawn as the numbers of its tokens, a waveform as its outline, six channels over time as traces, three channels as frames, and
    one channel, or several spectrograms below each other, by the panel that the encoder's `Modality` names.

    Args:
        encoder: its name in the registry. most: clips drawn at most.
    """
    clips = sample.tensor[:most].float().numpy()
    panels = [_panel(clip, encoder, config) for clip in clips]
    titles = [f"{span[0]:.2f} to {span[1]:.2f} s" if span else "" for span in sample.spans[:most]]
    width = sum(panel.width + GAP for panel in panels)
    sheet = Image.new("RGB", (width, max(panel.height for panel in panels) + 16), PAPER)
    left = 0
    for panel, title in zip(panels, titles, strict=True):
        ImageDraw.Draw(sheet).text((left + 4, 2), title, fill=INK)
        sheet.paste(panel, (left, 16))
        left += panel.width + GAP
    return sheet


def _panel(clip: np.ndarray, encoder: str, config: EncoderConfig) -> Image.Image:
    if config.vocabulary:
        return _tokens(clip, config.padding)
    mean, std = (np.asarray(values).reshape(-1, *[1] * (clip.ndim - 1)) for values in (config.mean, config.std))
    values = clip * std + mean
    if values.ndim == 1:
        return _waveform(values)
    if values.ndim == 2:
        return traces(values)
    panel = registry.modality(encoder, config).preview
    if len(values) == 3 and panel != "spectrogram":
        frames = values[:, None] if values.ndim == 3 else values  # (3, t, h, w)
        pixels = np.concatenate(list(frames.transpose(1, 2, 3, 0)), axis=1)
        return Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))
    return _below_each_other([PANELS[panel](channel) for channel in values])


def _below_each_other(panels: list[Image.Image]) -> Image.Image:
    if len(panels) == 1:
        return panels[0]
    sheet = Image.new("RGB", (max(panel.width for panel in panels), sum(panel.height for panel in panels)), PAPER)
    top = 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.height
    return sheet


def grey(values: np.ndarray) -> np.ndarray:
    """Return values as grey levels, uint8: the smallest black, the largest white."""
    low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low or 1) * 255).astype(np.uint8)


def _spectrogram(values: np.ndarray) -> Image.Image:
    """Draw log energies (bins, frames), low sounds at the bottom; every frame is 10 ms."""
    bins, frames = values.shape
    sheet = Image.new("RGB", (MARGIN + 2 * frames, 2 * bins + 20), PAPER)
    picture = Image.fromarray(grey(values[::-1])).resize((2 * frames, 2 * bins), Image.Resampling.NEAREST)
    sheet.paste(picture.convert("RGB"), (MARGIN, 0))
    pen = ImageDraw.Draw(sheet)
    for bin in range(0, bins, 32):
        pen.text((2, 2 * (bins - bin) - 12), f"bin {bin}", fill=INK)
    for tenth in range(0, frames // 10 + 1, 5):
        pen.text((MARGIN + 20 * tenth, 2 * bins + 4), f"{tenth / 10:g} s", fill=INK)
    return sheet


def traces(values: np.ndarray) -> Image.Image:
    """Draw readings (6, t): accelerometer above, gyroscope below, each on its own scale; x is red, y green, z blue."""
    sheet = Image.new("RGB", (MARGIN + 500, 240), PAPER)
    pen = ImageDraw.Draw(sheet)
    for group, (name, top) in enumerate((("accel", 0), ("gyro", 120))):
        three = values[3 * group : 3 * group + 3]
        low, high = float(three.min()), float(three.max())
        pen.text((2, top + 2), f"{name}\n{high:.2g}", fill=INK)
        pen.text((2, top + 100), f"{low:.2g}", fill=INK)
        for trace, colour in zip(three, TRACES, strict=True):
            heights = top + 114 - (trace - low) / (high - low or 1) * 108
            columns = MARGIN + np.linspace(0, 499, len(trace))
            pen.line(list(zip(columns.tolist(), heights.tolist(), strict=True)), fill=colour)
    return sheet


def _waveform(values: np.ndarray) -> Image.Image:
    """Draw a waveform (samples,) as the outline from its smallest to its largest sample in each column."""
    columns = [column for column in np.array_split(values, 500) if len(column)]
    limit = float(np.abs(values).max()) or 1.0
    sheet = Image.new("RGB", (MARGIN + len(columns), 120), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2, 2), f"{limit:.2g}", fill=INK)
    for place, column in enumerate(columns, start=MARGIN):
        pen.line([(place, 60 - 58 * float(column.max()) / limit), (place, 60 - 58 * float(column.min()) / limit)], fill=INK)
    return sheet


def _tokens(clip: np.ndarray, padding: int) -> Image.Image:
    """Draw the numbers of tokens up to the padding."""
    used = len(np.trim_zeros(clip - padding, "b"))
    numbers = [str(int(token)) for token in clip[:used]]
    lines = [" ".join(numbers[i : i + 11]) for i in range(0, len(numbers), 11)]
    sheet = Image.new("RGB", (480, 16 * len(lines) + 8), PAPER)
    ImageDraw.Draw(sheet).multiline_text((4, 4), "\n".join(lines), fill=INK)
    return sheet


PANELS: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "map": lambda values: Image.fromarray(grey(values)),
    "levels": lambda values: Image.fromarray((values * 255).round().clip(0, 255).astype(np.uint8)),
    "spectrogram": _spectrogram,
}  # how one channel (h, w) is drawn, by `Modality.preview`


def write_index(folder: Path, entries: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Write `index.html` for the pictures of a folder. entries: for each its file name, the item's id, and what was read and assumed."""
    body = []
    for name, id, about in entries:
        facts = table(["", ""], [[str(key), str(value)] for key, value in about.items()], words=(0, 1))
        body.append(f'<section><h2>{escape(id)}</h2><img src="{escape(quote(name))}" alt="">{facts}</section>')
    write_page(folder / "index.html", "As the encoder sees it", "".join(body))
