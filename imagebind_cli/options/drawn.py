"""The options that pictures and maps share."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from imagebind_cli.errors import OptionError
from imagebind_cli.options import FOR_PICTURES, PER_ITEM, ReadingOptions, choice

REGION_OPTIONS = ("tiles", "region_shape")  # those of a reader that reads regions

PINNED, RECENT = "pinned", "recent"
RESIZE = "LanguageBind: resize as published, or (recent) with antialiasing."


@dataclass(frozen=True)
class DrawnOptions(ReadingOptions):
    """The base of the options of pictures and maps: which part of one is read as an input, or which parts as an input each."""

    tiles: str | None = choice(
        None,
        "A row for each square with sides of these fractions of the short side: 1/2,1/3.",
        only=FOR_PICTURES,
        windows=True,
    )
    region_shape: str = choice(
        "box",
        "Part of a box that is seen: its middle, the square around it, or its mask.",
        choices=("box", "square", "mask"),
        only=FOR_PICTURES,
        windows=True,
    )
    view: Any = field(default=None, metadata=PER_ITEM)  # media.views.View, in place of the centre crop
    regions: Any = field(default=None, metadata=PER_ITEM)  # of media.regions.Region, in place of the whole; see sources.Regions

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tiles is not None and self.regions is not None:
            raise OptionError("tiles divide whole pictures; leave out tiles if boxes are given", self.names())
        if self.tiles is not None:
            self.tile_sides()

    @property
    def has_regions(self) -> bool:
        """Check whether parts of an input are read, and not the whole."""
        return self.tiles is not None or self.regions is not None

    def tile_sides(self) -> tuple[Fraction, ...]:
        """Return the sides of the tiles as fractions of the short side.

        Raises:
            OptionError: they are not fractions from 0 to 1.
        """
        try:
            sides = tuple(Fraction(text.strip()) for text in (self.tiles or "").split(","))
        except (ValueError, ZeroDivisionError):
            sides = (Fraction(0),)
        if not all(0 < side <= 1 for side in sides):
            raise OptionError(f"tiles is {self.tiles!r}; fractions of the short side are needed, as in 1/2,1/3", self.names())
        return sides
