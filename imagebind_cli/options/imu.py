"""The options of IMU recordings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imagebind_cli.errors import UsageError
from imagebind_cli.options import CLIPS, DATASET, HOP, PER_ITEM, ReadingOptions, choice


@dataclass(frozen=True)
class IMUOptions(ReadingOptions):
    """IMU recordings."""

    augmentations = ("turn",)

    clips: int | None = choice(None, CLIPS, minimum=1, windows=True)
    hop: float | None = choice(None, HOP, minimum=0.01, windows=True)
    centres: str | None = choice(None, "Take windows around these seconds: T,T,... or a file with one on each line.", windows=True)
    rate: float | None = choice(None, "Rate in Hz, instead of timestamps; 400 if there are none.", minimum=0.1)
    columns: str | None = choice(None, "Six columns by name or position from 1: accelerometer x,y,z, gyroscope x,y,z.")
    dataset: str | None = choice(None, DATASET)
    time_column: str | None = choice(None, "Column of the timestamps; by default found by its name.")
    time_unit: str | None = choice(None, "Unit of the timestamps.", choices=("s", "ms", "us", "ns", "iso"))
    accel: str | None = choice(None, "Unit of the accelerometer; by default read from its columns' names.", choices=("g", "m/s2"))
    gyro: str | None = choice(None, "Unit of the gyroscope; by default read from its columns' names.", choices=("deg/s", "rad/s"))
    max_gap: float = choice(
        0.1, "Bridge gaps of up to this many seconds by a straight line; windows with longer ones are left out.", minimum=0
    )
    imu_layout: str = choice(
        "auto",
        "Layout of the file; auto recognises it by content and name.",
        choices=("auto", "plain", "ego4d", "ucihar", "hapt", "pamap2"),
    )
    placement: str = choice("hand", "Sensor of a PAMAP2 recording.", choices=("hand", "chest", "ankle"))
    row: int = choice(0, "Window of a UCI HAR file, counted from 0.", minimum=0)
    remove_gravity: bool = choice(False, "Subtract the part that changes more slowly than 0.3 Hz from the accelerometer's readings.")
    standardise: bool = choice(False, "Scale each channel to mean 0 and deviation 1 over the recording.")
    moment: Any = field(default=None, metadata=PER_ITEM)
    stretch: Any = field(default=None, metadata=PER_ITEM)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.columns is not None and len(self.columns.split(",")) != 6:
            raise UsageError(f"columns names {len(self.columns.split(','))}; six are needed: accelerometer x,y,z, gyroscope x,y,z")
