"""The heat maps of one input, put together from its pieces as they are read: squares of a picture, windows of a video or of a sound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imagebind_cli.encoders.audio import band_hertz
from imagebind_cli.grounding.located import Located, Place, find_spot
from imagebind_cli.grounding.locator import BOTH, SHARES, Asked, Locator
from imagebind_cli.grounding.pieces import FILM, FRAME_SECONDS, SOUND, Pieces
from imagebind_cli.grounding.squares import Axis, Canvas, map_axes
from imagebind_cli.media.views import Box
from imagebind_cli.sources import Item

# Of a share beside a cosine, measured on drawings: 0.25, 0.5 and 1 find 96, 93 and 91 % of the objects.
SHARE_WEIGHT = 0.5
FILM_SHORT = 64  # cells along the short side of a video's maps, of which all windows are kept
PADDED_FRAMES = 2  # at the end of a window, where a frame of 25 ms would begin but not end

Windows = list[tuple[tuple[float, float] | None, np.ndarray]]  # the seconds of each window, and its maps (q, rows, columns)


class HeatMaps:
    """An input in progress: `add` its pieces, then take the `answers`.

    Args:
        asked: the queries. ground: whether the answers keep what heat maps are drawn on.
    """

    def __init__(self, item: Item, locator: Locator, asked: Asked, ground: bool) -> None:
        self.item, self.locator, self.asked, self._keeps_ground = item, locator, asked, ground
        self.notes: dict[str, None] = {}
        self.warnings: list[str] = []
        self._axes = map_axes(locator.config)
        self._pixels = tuple(map(float, locator.config.shape[-2:]))
        self._own: list[np.ndarray] = []
        self._canvases: dict[tuple[float, float] | None, Canvas] = {}  # by window, in order
        self._last: Pieces | None = None
        self._heard: list[tuple[Box, np.ndarray, np.ndarray]] = []  # of a sound: box, shares and spectrogram of each window
        self._ground: np.ndarray | None = None
        self._seconds = float("inf")

    def add(self, pieces: Pieces) -> None:
        """Add the next clips."""
        self.notes |= dict.fromkeys(pieces.notes)
        self.warnings += pieces.warnings
        units, cosines, shares = self.locator.look(pieces.tensor, self.asked.vectors)
        self._own += list(units[: pieces.own])
        if self.locator.kind == SOUND:
            assert shares is not None
            self._seconds = min(self._seconds, pieces.facts.get("seconds", float("inf")))
            for number, box in enumerate(pieces.boxes):
                assert box is not None
                self._heard.append((box, shares[number], pieces.tensor[number, 0].numpy() if self._keeps_ground else np.empty(0)))
            return
        span = pieces.spans[0]
        if span not in self._canvases:
            short = {"short": FILM_SHORT} if self.locator.kind == FILM else {}
            self._canvases[span] = Canvas(*pieces.covered, len(self.asked.vectors), **short)
        weight = SHARE_WEIGHT if self.locator.method == BOTH else 1.0
        for number, box in enumerate(pieces.boxes):
            if box is not None:
                level = np.zeros_like(cosines[number]) if self.locator.method == SHARES else cosines[number]
                maps = None if shares is None else weight * shares[number]
                self._canvases[span].add(box, level, maps, self._axes, self._pixels)  # type: ignore[arg-type]
        self._last, self._ground = pieces, pieces.ground if self._ground is None else self._ground

    def answers(self) -> Iterator[Located]:
        """Yield the answer to each query."""
        mean = np.stack(self._own).mean(axis=0)
        whole = self.asked.vectors.cpu().numpy() @ (mean / np.linalg.norm(mean))
        heats, place, size = self._hearing() if self.locator.kind == SOUND else self._sight()
        for number, (query, floor) in enumerate(zip(self.asked.queries, self.asked.floors, strict=True)):
            spots = sorted((find_spot(heat[number], span, place) for span, heat in heats), key=lambda spot: -spot.score)
            low = None if floor is None else (max(float(heat[floor].max()) for _, heat in heats), float(whole[floor]))
            yield Located(
                self.item.id,
                query,
                number,
                self.locator.face.name,
                self.locator.kind,
                self.locator.method,
                size,
                tuple(spots),
                float(whole[number]),
                low,
                self.item.payload,
                self._ground,
            )

    def _sight(self) -> tuple[Windows, Place, tuple[float, float]]:
        """Return the heat maps of each window, what turns shares of a map into pixels of the file, and the file's size."""
        assert self._last is not None
        (left, top), (width, height) = self._last.origin, self._last.covered
        heats: Windows = [(span, canvas.heat()) for span, canvas in self._canvases.items()]
        return heats, lambda x, y: (left + x * width, top + y * height), self._last.size

    def _hearing(self) -> tuple[Windows, Place, tuple[float, float]]:
        """Return the heat map of a sound whose windows are stitched, what turns shares of it into seconds and Hz, and its two ends."""
        bands = self._pixels[0]
        first = min(box[0] for box, _, _ in self._heard)
        last = max(box[2] for box, _, _ in self._heard)
        last = min(last, self._seconds) if self._seconds > first else last
        frames = (last - first) / FRAME_SECONDS
        canvas = Canvas(frames, bands, len(self.asked.vectors))
        for (start, _, end, _), shares, _ in self._heard:
            box = ((start - first) / FRAME_SECONDS, 0.0, (end - first) / FRAME_SECONDS, bands)
            canvas.add(box, np.zeros(len(shares), np.float32), shares, self._axes, (bands, box[2] - box[0]))
        if self._keeps_ground:
            ground = Canvas(frames, bands, 1)
            for (start, _, end, _), _, spectrogram in self._heard:
                box = ((start - first) / FRAME_SECONDS, 0.0, (end - first) / FRAME_SECONDS, bands)
                whole = spectrogram[None, :, : max(1, int(box[2] - box[0]) - PADDED_FRAMES)]
                axes = Axis(1, 1, whole.shape[1]), Axis(1, 1, whole.shape[2])
                ground.add(box, np.zeros(1, np.float32), whole, axes, (bands, box[2] - box[0]))
            self._ground = ground.heat()[0]
        hertz = band_hertz(int(bands))

        def place(x: float, y: float) -> tuple[float, float]:
            return first + x * (last - first), float(np.interp(y * bands, np.arange(len(hertz)), hertz))

        return [(None, canvas.heat())], place, (first, last)
