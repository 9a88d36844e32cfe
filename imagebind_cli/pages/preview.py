"""A look at a sample as its encoder will see it: a PNG per item, and a page to leaf through them.

Works on the tensors alone, undoing the encoder's normalisation: what is drawn is what goes in.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from imagebind_cli import registry
from imagebind_cli.files import write_text

if TYPE_CHECKING:
    from imagebind_cli.encoder import EncoderConfig, Sample

MARGIN, GAP = 44, 8
INK, PAPER = (60, 60, 60), (255, 255, 255)
TRACES = ["#c0392b", "#27ae60", "#2980b9"]  # x, y, z


def draw(sample: Sample, encoder: str, config: EncoderConfig, most: int = 6) -> Image.Image:
    """The first clips of a sample side by side, with their times.

    Pictures and frames as they are cropped; a spectrogram with mel bins up and seconds along; depth as a grey map from its smallest to its
    largest, thermal from 0 to 1; IMU as traces of accelerometer and gyroscope; text as its tokens.
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
        return _tokens(clip)
    mean, std = (np.asarray(values).reshape(-1, *[1] * (clip.ndim - 1)) for values in (config.mean, config.std))
    values = clip * std + mean
    if values.ndim == 2:
        return traces(values)
    if len(values) == 3:
        frames = values[:, None] if values.ndim == 3 else values  # (3, t, h, w)
        pixels = np.concatenate(list(frames.transpose(1, 2, 3, 0)), axis=1)
        return Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))
    preview = registry.get(encoder).preview
    if preview == "spectrogram":
        return _spectrogram(values[0])
    if preview == "levels":  # already scaled to its range, which may be wider than this picture's
        return Image.fromarray((values[0] * 255).round().clip(0, 255).astype(np.uint8))
    return Image.fromarray(grey(values[0]))


def grey(values: np.ndarray) -> np.ndarray:
    """Values as grey levels, uint8: the smallest black, the largest white."""
    low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low or 1) * 255).astype(np.uint8)


def _spectrogram(values: np.ndarray) -> Image.Image:
    """(bins, frames) in log energy, low sounds at the bottom; every frame is 10 ms."""
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
    """(6, t): accelerometer above, gyroscope below, x red, y green, z blue, each group on its own scale."""
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


def _tokens(clip: np.ndarray) -> Image.Image:
    numbers = [str(int(token)) for token in clip if token]
    lines = [" ".join(numbers[i : i + 11]) for i in range(0, len(numbers), 11)]
    sheet = Image.new("RGB", (480, 16 * len(lines) + 8), PAPER)
    ImageDraw.Draw(sheet).multiline_text((4, 4), "\n".join(lines), fill=INK)
    return sheet


def write_index(folder: Path, entries: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """`index.html` for the pictures of a folder: (file name, id, what was read and assumed) each."""
    rows = []
    for name, id, about in entries:
        facts = "".join(f"<tr><td>{html.escape(str(key))}</td><td>{html.escape(str(value))}</td></tr>" for key, value in about.items())
        shown = html.escape(id)
        rows.append(f'<section><h2>{shown}</h2><img src="{html.escape(name)}" alt=""><table>{facts}</table></section>')
    style = "body{font:14px sans-serif}h2{font-size:1em;word-break:break-all}img{max-width:100%;border:1px solid #ccc}td{padding:0 1em 0 0}"
    page = f"<!doctype html><meta charset=utf-8><title>As the encoder sees it</title><style>{style}</style>{''.join(rows)}\n"
    write_text(folder / "index.html", page, errors="backslashreplace")  # bytes of a name that are not text
