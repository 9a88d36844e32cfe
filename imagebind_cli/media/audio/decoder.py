"""The interface that a library for decoding sound has to `Sound`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import numpy as np

RATES = 1_000, 768_000  # Hz; a header outside this range is taken for damaged
PREROLL_SECONDS = 1  # decoders of compressed sound need what comes before; it is decoded and discarded


class Decoder(Protocol):
    """An open sound as one library sees it.

    length: samples in each channel. promised: as many as the file itself states. seconds: its length as its pictures define it, if there are any.
    notes: what was assumed. filling: samples of the last packet, which an encoder may pad without saying so. left_out: seconds of sound
    outside the pictures. began: when the recording did, see `clock`.
    """

    rate: int
    channels: int
    length: int
    promised: int
    seconds: float | None
    facts: dict[str, Any]
    notes: tuple[str, ...]
    filling: int
    left_out: float
    began: datetime | None

    def seek(self, sample: int) -> None: ...

    def more(self, count: int) -> np.ndarray: ...  # up to count samples (n, channels) float32; none at the end

    def close(self) -> None: ...


def check_rate(rate: float) -> None:
    """Refuse a rate at which no sound is recorded."""
    if not RATES[0] <= rate <= RATES[1] or rate != int(rate):
        raise ValueError(f"sound at {rate:,} Hz; whole numbers from {RATES[0]:,} to {RATES[1]:,} Hz are understood")
