"""The options of depth maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagebind_cli.options import DATASET, FRAME, Floats, choice
from imagebind_cli.options.drawn import PINNED, RECENT, RESIZE, DrawnOptions


@dataclass(frozen=True)
class DepthOptions(DrawnOptions):
    """Depth maps. The defaults are the first Kinect's, which NYU Depth v2 and part of SUN RGB-D were taken with."""

    depth_format: str | None = choice(
        None,
        "Unit of the numbers; by default whole numbers are millimetres, others metres.",
        choices=("metres", "mm", "sunrgbd", "disparity", "relative"),
    )
    sensor: str | None = choice(None, "Depth camera, which sets the baseline.", choices=("kv1", "kv1_b", "kv2", "realsense", "xtion"))
    focal: float | None = choice(
        None, "Focal length of the depth camera in pixels; by default from intrinsics.txt, else 518.86.", minimum=1e-6
    )
    baseline: float | None = choice(
        None, "Distance between the sensor's two eyes in metres; by default --sensor's, else 0.075.", minimum=1e-6
    )
    fill: str = choice(
        "nearest",
        "Depth of a pixel without one: that of the nearest known pixel, the farthest, or none (infinitely far).",
        choices=("nearest", "far", "none"),
    )
    depth_clamp: float = choice(75.0, "Largest disparity in pixels: values are cut off there and divided by it.", minimum=1)
    depth_normalise: str = choice(
        "omnivore",
        "Normalise as Omnivore's inference code does (mean 0.0418, deviation 0.0295), or not at all.",
        choices=("omnivore", "none"),
    )
    dataset: str | None = choice(None, DATASET)
    frame: int = choice(0, FRAME, minimum=0)
    resize: str = choice(PINNED, RESIZE, choices=(PINNED, RECENT))

    @classmethod
    def normalisation(cls, record: Mapping[str, Any], mean: Floats, std: Floats) -> tuple[Floats, Floats]:
        """Return the encoder's mean and deviation, or 0 and 1 where the record says so."""
        return ((0.0,), (1.0,)) if record.get("depth_normalise") == "none" else (mean, std)
