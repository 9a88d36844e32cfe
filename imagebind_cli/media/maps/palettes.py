"""False colours, and the values they represent."""

from __future__ import annotations

import numpy as np

# Colours (red, green, blue) at even steps from the smallest value to the largest; straight lines between them.
PALETTES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "grey": ((0, 0, 0), (255, 255, 255)),
    "iron": (
        (0, 0, 0),
        (70, 0, 145),
        (143, 0, 165),
        (203, 34, 130),
        (240, 84, 63),
        (255, 139, 8),
        (255, 190, 4),
        (255, 234, 64),
        (255, 255, 255),
    ),
    "rainbow": ((0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)),
    "jet": (
        (0, 0, 128),
        (0, 0, 255),
        (0, 128, 255),
        (0, 255, 255),
        (128, 255, 128),
        (255, 255, 0),
        (255, 128, 0),
        (255, 0, 0),
        (128, 0, 0),
    ),
    "hot": ((0, 0, 0), (255, 0, 0), (255, 255, 0), (255, 255, 255)),
}
FARTHEST = 30.0  # mean distance (red, green and blue as axes, 0 to 255 each) beyond which a picture was not painted with a palette


def ramp(name: str) -> np.ndarray:
    """Return a palette's 256 colours, (256, 3) float32."""
    points = np.array(PALETTES[name], np.float32)
    places = np.linspace(0, len(points) - 1, 256)
    return np.stack([np.interp(places, np.arange(len(points)), channel) for channel in points.T], axis=1).astype(np.float32)


def undo_palette(colours: np.ndarray, name: str) -> np.ndarray:
    """Return the places of a picture's colours (h, w, 3) uint8 on a palette, (h, w) uint8.

    Raises:
        ValueError: its colours are, on average, too far from the palette's.
    """
    palette = ramp(name)
    packed = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    distinct, back, counts = np.unique(packed, return_inverse=True, return_counts=True)
    place, total = np.empty(len(distinct), np.uint8), 0.0
    for start in range(0, len(distinct), 65536):
        piece = slice(start, start + 65536)
        pixels = np.stack([distinct[piece] >> 16, distinct[piece] >> 8 & 255, distinct[piece] & 255], axis=1).astype(np.float32)
        squared = (pixels**2).sum(1)[:, None] - 2 * pixels @ palette.T + (palette**2).sum(1)  # (colours, 256)
        place[piece] = squared.argmin(1)
        total += float((np.sqrt(squared.min(1).clip(0)) * counts[piece]).sum())
    distance = total / packed.size
    if distance > FARTHEST:
        raise ValueError(f"its colours are not the palette {name}'s: {distance:.0f} away on average, {FARTHEST:g} at most")
    return place[back].reshape(packed.shape)
