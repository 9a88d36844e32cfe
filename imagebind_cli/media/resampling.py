"""A long sound at another rate, a stretch at a time: torchaudio's `functional.resample` over the whole of it, without holding the whole.

Bandlimited interpolation by a sinc under a Hann window, six zero crossings to each side, cut off at 0.99 of the lower rate's half:
torchaudio's defaults, and its float32 arithmetic. The filters of a pair of rates are made once.

Dimensions: r rows, p phases (outputs until input and output meet again), m periods, t taps of a filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

CROSSINGS = 6
ROLLOFF = 0.99

PHASES_AT_ONCE = 32  # neighbouring outputs reach nearly the same inputs: this many are one matrix product, at all periods of a block

# About this many outputs are computed at once, at places that do not depend on the request: the same sample is always the same
# number. A product of another size rounds in another way, which shows in bands that hold nothing but rounding.
BLOCK = 65_536


class Resampled:
    """A sound's rows at another rate. length: samples at that rate."""

    def __init__(self, read: Callable[[int, int], Tensor], length: int, rate: int, target: int) -> None:
        """read: samples [start, stop) of the sound, (r, stop - start). length: its samples. rate, target: its rate and the wanted one, Hz."""
        self._read, self._length = read, length
        divisor = math.gcd(rate, target)
        old, new = rate // divisor, target // divisor
        self.length = -(-length * new // old)  # rounded up
        self._same = old == new
        self._reach = width(old, new)
        # So many periods are taken as one that it holds all taps of a product: rows of taps then do not overlap, and none is copied.
        together = -(-(old * PHASES_AT_ONCE // new + 2 * self._reach + 2) // old)
        self._filters = filters_of(old, new, together)
        self._old, self._new = old * together, new * together
        self._size = max(1, BLOCK // self._new) * self._new
        self._latest = -1, torch.empty(0)  # the first output of the block computed last, and the block

    def read(self, start: int, stop: int) -> Tensor:
        """Return samples [start, stop) at the new rate, (r, stop - start); each call starts where the last one stopped, or later."""
        if stop <= start or self._same:
            return self._read(start, stop)
        firsts = range(start // self._size * self._size, stop, self._size)
        return torch.cat([self._block(first)[:, max(start - first, 0) : stop - first] for first in firsts], dim=1)

    def final(self, received: int) -> int:
        """Return how many samples at the new rate cannot change any more once `received` samples of a growing sound are there."""
        return received if self._same else max(0, (received - self._reach - 1) * self._new // self._old)

    def first_needed(self, start: int) -> int:
        """Return the first sample of the sound that a read from `start` on, at the new rate, asks for."""
        return start if self._same else max(0, start // self._size * self._size // self._new * self._old - self._reach)

    def forget(self) -> None:
        """Compute the latest block anew when it is next read: the sound has grown since."""
        self._latest = -1, torch.empty(0)

    def _block(self, first: int) -> Tensor:
        if self._latest[0] != first:
            self._latest = first, self._compute(first)
        return self._latest[1]

    def _compute(self, first: int) -> Tensor:
        """Compute the block from output `first` on, (r, m p); the last one ends with the period that ends the sound."""
        old, new = self._old, self._new
        periods = -(-min(self._size, self.length - first) // new)
        start = first // new * old - self._reach
        samples = self._pad(start, start + (periods + 1) * old)
        outputs = samples.new_empty(len(samples), periods, new)
        for row, output in zip(samples, outputs, strict=True):
            for phase, offset, filters in self._filters:
                taps = row[offset:].as_strided((periods, len(filters)), (old, 1))
                torch.mm(taps, filters, out=output[:, phase : phase + filters.shape[1]])
        return outputs.flatten(1)

    def _pad(self, start: int, stop: int) -> Tensor:
        """Return the sound's samples [start, stop), with zeros before its beginning and past its end."""
        first = max(start, 0)
        last = max(min(stop, self._length), first)
        return F.pad(self._read(first, last), (first - start, stop - last))


def width(old: int, new: int) -> int:
    """Return how many samples of the input to each side of an output its filter reaches."""
    return math.ceil(CROSSINGS * old / (min(old, new) * ROLLOFF))


@lru_cache(maxsize=4)
def filters_of(old: int, new: int, periods: int) -> list[tuple[int, int, Tensor]]:
    """Return, for each product over a number of periods: its first phase, its first tap's place past `width` before them, and its filters (t, p)."""
    products = []
    for phase in range(0, new * periods, PHASES_AT_ONCE):
        phases = torch.arange(phase, min(phase + PHASES_AT_ONCE, new * periods))
        first, last = (int(phases[i]) * old // new for i in (0, -1))
        places = torch.arange(first - width(old, new), last + width(old, new) + 2)
        # Counted from each output's own period, as torchaudio does: rounded to float32, a later one's times would differ.
        products.append((phase, first, _filters(old, new, phases % new, places[:, None] - phases // new * old)))
    return products


def _filters(old: int, new: int, phases: Tensor, places: Tensor) -> Tensor:
    cutoff = min(old, new) * ROLLOFF
    time = places.float() / old - phases.float() / new
    time = (time * cutoff).clamp_(-CROSSINGS, CROSSINGS)
    window = torch.cos(time * math.pi / CROSSINGS / 2) ** 2
    time *= math.pi
    return torch.where(time == 0, torch.ones(()), time.sin() / time) * (window * (cutoff / old))
