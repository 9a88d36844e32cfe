"""The options of thermal pictures."""

from __future__ import annotations

from dataclasses import dataclass

from imagebind_cli.errors import OptionError
from imagebind_cli.options import DATASET, FRAME, choice
from imagebind_cli.options.drawn import PINNED, RECENT, RESIZE, DrawnOptions

DEGREES = {"C": (1.0, 0.0), "K": (1.0, 273.15), "F": (1.8, 32.0)}  # degrees of a unit in one of Celsius, and its value at 0 °C


@dataclass(frozen=True)
class ThermalOptions(DrawnOptions):
    """Thermal pictures."""

    thermal_unit: str | None = choice(
        None,
        "Unit of thermal files; by default whole numbers of more than 8 bits are counts, others plain numbers.",
        choices=("counts", "centikelvin", "celsius", "kelvin"),
    )
    thermal_range: str = choice(
        "auto",
        "Values that become 0 and 1: auto, percentile, degrees (20C:40C, also K and F) or MIN:MAX. docs/thermal.md.",
    )
    thermal_invert: bool = choice(False, "Invert a black-hot picture.")
    palette: str | None = choice(
        None,
        "Palette of a false-colour picture, whose colours are turned back into values.",
        choices=("grey", "iron", "rainbow", "jet", "hot"),
    )
    dataset: str | None = choice(None, DATASET)
    frame: int = choice(0, FRAME, minimum=0)
    resize: str = choice(PINNED, RESIZE, choices=(PINNED, RECENT))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thermal_range not in ("auto", "percentile"):
            try:
                low, high, _ = self.limits()
            except ValueError:
                low = high = 0.0
            if not float("-inf") < low < high < float("inf"):
                known = "choose auto, percentile or MIN:MAX, as in 10:40 or 20C:40C"
                raise OptionError(f"unknown thermal_range {self.thermal_range!r}; {known}", self.names())

    def limits(self) -> tuple[float, float, bool]:
        """Return the two ends of a `thermal_range` that gives them, and whether they are temperatures, then in degrees Celsius.

        Raises:
            ValueError: they are not numbers, or only the first has a unit.
        """
        low, _, high = self.thermal_range.upper().replace("°", "").partition(":")
        if high[-1:] not in DEGREES:
            return float(low), float(high), False
        scale, zero = DEGREES[high[-1]]
        low_scale, low_zero = DEGREES.get(low[-1:], (scale, zero))  # 20:40C is 20C:40C
        low = low[:-1] if low[-1:] in DEGREES else low
        return (float(low) - low_zero) / low_scale, (float(high[:-1]) - zero) / scale, True
