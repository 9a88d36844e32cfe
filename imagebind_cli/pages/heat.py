"""Heat maps over what they are of: pictures, spectrograms, clips of videos, and a page of all of them."""

from __future__ import annotations

import base64
import io
import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.files import replacing
from imagebind_cli.media.maps.palettes import ramp
from imagebind_cli.media.video.clips import open_video
from imagebind_cli.pages.base import PageFile, escape
from imagebind_cli.pages.pictures import picture
from imagebind_cli.pages.preview import grey
from imagebind_cli.prepared import member_key
from imagebind_cli.registry import PAGE_PICTURES, TEXT
from imagebind_cli.sources import Stretch, reason, whole_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebind_cli.grounding.located import Located, Spot

LARGEST, SHOWN = 1280, 400  # pixels of the longer side of a drawing, and of one on a page
FPS = 8  # frames of a clip in a second
CLIP_LARGEST = 640
OPAQUE = 0.65  # of the hottest place
MARK = (255, 255, 255)


def make_folder(folder: Path) -> None:
    """Make a folder for drawings unless it is there.

    Raises:
        UserError: it is a file, or its parent does not exist.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; a folder for the heat maps is needed") from None


def write_heat(located: Located, folder: Path, box: bool, listener: Listener) -> Path | None:
    """Draw an answer's heat map over its input and write it: a PNG, or of a video an MP4.

    Args:
        box: whether to draw the box, too. listener: receives an input that cannot be drawn.
    Returns:
        The file, whose name is made of letters, digits and a hash of the id; None where that failed.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", located.query.id).strip("-")[:40]
    stem = "-".join(filter(None, (member_key(located.id), f"{located.number + 1:03d}", words)))
    try:
        if located.kind == "film":
            path = folder / f"{stem}.mp4"
            with replacing(path) as place:
                _write_clip(located, place)
        else:
            drawn = draw_heat(located, box)
            path = folder / f"{stem}.png"
            with replacing(path) as place:
                drawn.save(place, "PNG")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.filename and str(folder) in str(error.filename):
            raise  # the folder cannot be written to
        listener.failure(located.id, f"its heat map cannot be drawn: {reason(error)}")
        return None
    return path


def draw_heat(located: Located, box: bool = False, largest: int = LARGEST) -> Image.Image:
    """Draw an answer's heat map over its input, with its peak; of a video over the middle of its best window.

    Args:
        box: whether to draw the box, too. largest: pixels of the longer side.
    Raises:
        OSError, ValueError: the video cannot be read again. ValueError: nothing to draw on was kept.
    """
    spot = located.spots[0]
    if located.kind == "film":
        ground = _middle_frame(located, spot)
    elif located.ground is None:
        raise ValueError("nothing to draw on was kept")
    elif located.kind == "sound":
        shade = grey(located.ground[::-1])  # low bands at the bottom
        ground = Image.fromarray(np.repeat(shade[:, :, None], 3, axis=2))
        ground = ground.resize((max(1, min(largest, 3 * ground.width)), 2 * ground.height), Image.Resampling.BILINEAR)
    else:
        ground = Image.fromarray(located.ground)
    ground.thumbnail((largest, largest))
    heat = spot.heat[::-1] if located.kind == "sound" else spot.heat
    picture = _blend(ground, heat)
    across, down = (length / cells for length, cells in zip(picture.size, heat.shape[::-1], strict=True))
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    if located.kind != "sound":  # the peak in shares of the picture, which is what it is made of
        (x, y), (width, height) = spot.peak, located.size
        place = x / width * picture.width, y / height * picture.height
    else:
        place = (column + 0.5) * across, (row + 0.5) * down
    pen = ImageDraw.Draw(picture)
    radius = max(3, max(picture.size) // 80)
    for shade_of, width_of in (((0, 0, 0), 3), (MARK, 1)):
        pen.ellipse((place[0] - radius, place[1] - radius, place[0] + radius, place[1] + radius), outline=shade_of, width=width_of)
        if box and located.kind != "sound":
            left, top, right, bottom = spot.box
            scale = picture.width / located.size[0], picture.height / located.size[1]
            pen.rectangle((left * scale[0], top * scale[1], right * scale[0] - 1, bottom * scale[1] - 1), outline=shade_of, width=width_of)
    return picture


def heat_image(located: Located, box: bool = False) -> str:
    """Return an answer's heat map over its input as a picture of a page; see `draw_heat`."""
    file = io.BytesIO()
    draw_heat(located, box, SHOWN).save(file, "JPEG", quality=85)
    address = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<img src="{address}" alt="{escape(f"heat map of {located.query.id} over {located.id}")}">'


def _blend(ground: Image.Image, heat: np.ndarray, low: float | None = None, high: float | None = None) -> Image.Image:
    """Lay a heat map over a picture in RGB: its coldest half is left as it is. low, high: the values of no colour and of full colour."""
    low = float(np.median(heat)) if low is None else low
    high = float(heat.max()) if high is None else high
    warm = ((heat - low) / ((high - low) or 1)).clip(0, 1).astype(np.float32)
    warm = np.asarray(Image.fromarray(warm).resize(ground.size, Image.Resampling.BILINEAR))
    colours = ramp("rainbow")[(128 + warm * 127).astype(np.uint8)]  # from green to red
    alpha = warm[:, :, None] * OPAQUE
    pixels = np.asarray(ground.convert("RGB"), np.float32) * (1 - alpha) + colours * alpha
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _middle_frame(located: Located, spot: Spot) -> Image.Image:
    assert spot.span is not None
    with open_video(whole_source(located.payload)) as video:
        start, end = (Fraction(str(time)) for time in spot.span)
        middle = min((start + end) / 2, Fraction(video.duration) - Fraction(1, 1000))
        return Image.fromarray(next(video.clips([(max(middle, Fraction(0)), end)], count=1))[0])


def _write_clip(located: Located, place: Path) -> None:
    """Write the located part of a video with its heat maps; where windows overlap, their mean. One scale of colour for all."""
    import av

    spots = sorted(located.spots, key=lambda spot: spot.span or (0.0, 0.0))
    low, high = float(np.median([np.median(spot.heat) for spot in spots])), max(spot.score for spot in spots)
    with open_video(whole_source(located.payload)) as video, av.open(str(place), "w", format="mp4") as clip:
        stream: Any = clip.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=FPS)
        stream.pix_fmt = "yuv420p"
        first, last = spots[0].span[0], min(max(spot.span[1] for spot in spots if spot.span), video.duration)  # type: ignore[index]
        steps = max(1, int((last - first) * FPS))
        times = [Fraction(str(first)) + Fraction(number, FPS) for number in range(steps)]
        for time, frames in zip(times, video.clips([(time, time + Fraction(1, FPS)) for time in times], count=1), strict=True):
            ground = Image.fromarray(frames[0])
            ground.thumbnail((CLIP_LARGEST, CLIP_LARGEST))
            ground = ground.crop((0, 0, max(2, ground.width // 2 * 2), max(2, ground.height // 2 * 2)))
            over = [spot.heat for spot in spots if spot.span and spot.span[0] <= time < spot.span[1]]
            drawn = _blend(ground, np.mean(over, axis=0), low, high) if over else ground
            if not stream.width or not clip.streams.video[0].codec_context.is_open:
                stream.width, stream.height = drawn.size
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(drawn), format="rgb24")))
        clip.mux(stream.encode(None))


class HeatPage(PageFile):
    """A page of heat maps, input by input.

    Args:
        box: whether boxes are drawn and named.
    """

    def __init__(self, path: Path, box: bool = False) -> None:
        super().__init__(path, "imagebind locate")
        self._box, self._id = box, ""
        self._words = False

    def __exit__(self, *exc: Any) -> None:
        if exc[0] is None and self._words:
            self.write("</ul></section>\n")
        super().__exit__(*exc)

    def add(self, located: Located) -> None:
        """Add an answer; those of one input stand together."""
        if not self._words:
            words = (
                "Every heat map has a peak, whether the query is there or not. Compare its numbers with those of an empty query "
                f"beside them; scores are of method {located.method}."
            )
            self.write(f"<p>{escape(words)}</p>\n")
        if located.id != self._id or not self._words:
            self.write(("</ul></section>\n" if self._words else "") + f'<section><h2>{escape(located.id)}</h2><ul class="cards">\n')
        self._id, self._words = located.id, True
        self.write(f"<li>{''.join(self._card(located))}</li>\n")

    def _card(self, located: Located) -> Iterator[str]:
        spot = located.spots[0]
        try:
            yield heat_image(located, self._box)
        except (OSError, ValueError) as error:
            yield f"<small>cannot be shown: {escape(reason(error))}</small>"
        yield f"<strong>{escape(located.query.id)}</strong>"
        for exhibit in located.query.exhibits:
            if exhibit.kind != TEXT and exhibit.kind in PAGE_PICTURES:
                yield _shown(exhibit.kind, exhibit.source)
        if located.kind == "sound" and isinstance(located.payload, str | Stretch):
            yield _shown(located.modality, located.payload, player_alone=True)
        floor = "" if located.floor is None else f"; an empty query: {located.floor[0]:.4f} and {located.floor[1]:.4f}"
        place = f"{spot.peak[0]:.2f} s, {spot.peak[1]:.0f} Hz" if located.kind == "sound" else f"x {spot.peak[0]:.0f}, y {spot.peak[1]:.0f}"
        when = "" if spot.span is None else f", {spot.span[0]:.2f} to {spot.span[1]:.2f} s"
        yield f"<div>{spot.score:.4f} at {escape(place + when)}</div><small>whole: {located.whole:.4f}{escape(floor)}</small>"


def _shown(kind: str, source: Any, player_alone: bool = False) -> str:
    """Return a small picture of a file, and its player if it has a sound."""
    span = None
    if isinstance(source, Stretch) and source.start is not None and source.end is not None:
        span = source.start, source.end
    try:
        shown = picture(kind, str(whole_source(source)), span)
    except (OSError, ValueError) as error:
        return f"<small>cannot be shown: {escape(reason(error))}</small>"
    image = "" if player_alone else f'<img src="{shown.image}" alt="{escape(f"query: {kind}")}">'
    return image + (f'<audio controls preload="metadata" src="{shown.sound}" aria-label="play"></audio>' if shown.sound else "")
