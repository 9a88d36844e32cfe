"""A long sound at another rate, a stretch at a time: torchaudio's `functional.resample` over the whole of it, without holding the whole.

Bandlimited interpolation by a sinc under a Hann window, six zero crossings to each side, cut off at 0.99 of the lower rate's half:
torchaudio's defaults, and its float32 arithmetic. The filters of a pair of rates are made once.

Dimensions: r rows, n samples, p phases (outputs until input and output meet again), t taps of a filter.
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
DENSE_VALUES = 1_000_000
"""Up to this many values, filters are laid out over a whole period of the input and applied as one convolution. Rates with hardly
a common divisor (44,101 Hz) need more; there each output gets its own few taps."""


BLOCK = 131_072
"""Outputs computed at once, at places that do not depend on what is asked for: the same sample is always the same number. The
convolution rounds a shorter stretch in another way, which shows in bands that hold nothing but rounding."""

SAMPLES_AT_ONCE = 8_192


class Resampled:
    """A sound's rows at another rate. length: samples at that rate."""

    def __init__(self, read: Callable[[int, int], Tensor], length: int, rate: int, target: int) -> None:
        """read: samples [start, stop) of the sound, (r, n). length: its samples. rate, target: its rate and the wanted one, Hz."""
        self._read, self._length = read, length
        divisor = math.gcd(rate, target)
        self._old, self._new = rate // divisor, target // divisor
        self._periods = -(-BLOCK // self._new)
        self._latest = -1, torch.empty(0)  # the block computed last, and its number
        self.length = -(-length * self._new // self._old)  # rounded up

    def read(self, start: int, stop: int) -> Tensor:
        """Samples [start, stop) at the new rate, (r, stop - start); each call goes on where the last one stopped, or later."""
        if stop <= start or self._old == self._new:
            return self._read(start, stop)
        size = self._periods * self._new
        numbers = range(start // size, -(-stop // size))
        return torch.cat([self._block(number)[:, max(start - number * size, 0) : stop - number * size] for number in numbers], dim=1)

    def _block(self, number: int) -> Tensor:
        if self._latest[0] != number:
            dense = self._new * (self._old + 2 * width(self._old, self._new)) <= DENSE_VALUES
            self._latest = number, (self._by_period if dense else self._by_sample)(number * self._periods)
        return self._latest[1]

    def _padded(self, start: int, stop: int) -> Tensor:
        """The sound's samples [start, stop), with zeros before its beginning and past its end."""
        first = max(start, 0)
        last = max(min(stop, self._length), first)
        return F.pad(self._read(first, last), (first - start, stop - last))

    def _by_period(self, first: int) -> Tensor:
        """A block from period `first` on, (r, n)."""
        reach = width(self._old, self._new)
        samples = self._padded(first * self._old - reach, (first + self._periods) * self._old + reach)
        periods = F.conv1d(samples[:, None], filters_by_period(self._old, self._new)[:, None], stride=self._old)  # (r, p, periods)
        return periods.transpose(1, 2).flatten(1)

    def _by_sample(self, first: int) -> Tensor:
        """As `_by_period`."""
        filters = filters_by_sample(self._old, self._new)  # (p, t)
        outputs = torch.arange(first * self._new, (first + self._periods) * self._new)
        places = outputs * self._old // self._new - width(self._old, self._new)
        samples = self._padded(int(places[0]), int(places[-1]) + filters.shape[1])
        taps = samples.unfold(-1, filters.shape[1], 1)  # (r, n, t)
        parts = zip(torch.split(outputs, SAMPLES_AT_ONCE), torch.split(places - places[0], SAMPLES_AT_ONCE), strict=True)
        return torch.cat([torch.einsum("rnt,nt->rn", taps[:, place], filters[output % self._new]) for output, place in parts], dim=1)


def width(old: int, new: int) -> int:
    """Samples of the input to each side of an output that its filter reaches."""
    return math.ceil(CROSSINGS * old / (min(old, new) * ROLLOFF))


@lru_cache(maxsize=4)
def filters_by_period(old: int, new: int) -> Tensor:
    """(p, t) over one period of the input and `width` samples to each side."""
    reach = width(old, new)
    return _filters(old, new, torch.arange(-reach, reach + old))


@lru_cache(maxsize=2)
def filters_by_sample(old: int, new: int) -> Tensor:
    """(p, t), each filter's taps starting `width` samples before its output's place."""
    reach = width(old, new)
    return _filters(old, new, (torch.arange(new) * old // new)[:, None] + torch.arange(-reach, reach + 2))


def _filters(old: int, new: int, places: Tensor) -> Tensor:
    cutoff = min(old, new) * ROLLOFF
    time = torch.arange(0, -new, -1, dtype=torch.float32)[:, None] / new + places.float() / old
    time = (time * cutoff).clamp_(-CROSSINGS, CROSSINGS)
    window = torch.cos(time * math.pi / CROSSINGS / 2) ** 2
    time *= math.pi
    return torch.where(time == 0, torch.ones(()), time.sin() / time) * (window * (cutoff / old))
