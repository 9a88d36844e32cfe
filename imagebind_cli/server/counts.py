"""Counts of the server, in the text form that Prometheus collects."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
Labels = tuple[str, ...]


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.counts, self.sum = [0] * (len(bounds) + 1), 0.0


class Counts:
    """Counters and histograms. Threads may count at the same time.

    gauges: functions that return what is true now, by name and help.
    """

    def __init__(self) -> None:
        self.gauges: dict[tuple[str, str], Callable[[], float]] = {
            ("process_resident_memory_bytes", "Memory of the process."): _resident_bytes
        }
        self._lock = threading.Lock()
        self._requests: dict[Labels, int] = defaultdict(int)
        self._seconds: dict[Labels, _Histogram] = defaultdict(lambda: _Histogram(SECONDS))
        self._items: dict[Labels, int] = defaultdict(int)
        self._batches: dict[Labels, _Histogram] = defaultdict(lambda: _Histogram(SIZES))

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request. path: of its route, not as it was sent, so that clients cannot make up new ones."""
        with self._lock:
            self._requests[path, str(status)] += 1
            _observe(self._seconds[(path,)], SECONDS, seconds)

    def read(self, modality: str, good: int, bad: int) -> None:
        """Count inputs that were embedded, and those that could not be used."""
        with self._lock:
            self._items[modality, "embedded"] += good
            self._items[modality, "failed"] += bad

    def batch(self, lane: str, size: int) -> None:
        """Count a batch."""
        with self._lock:
            _observe(self._batches[(lane,)], SIZES, size)

    def as_text(self) -> str:
        """Return all of them in the text form of Prometheus, version 0.0.4."""
        with self._lock:
            lines = [
                *_counter("imagebind_requests_total", "Requests answered.", ("path", "status"), self._requests),
                *_histogram("imagebind_request_seconds", "Time from a request to its answer.", ("path",), SECONDS, self._seconds),
                *_counter("imagebind_inputs_total", "Inputs by modality, and what became of them.", ("modality", "result"), self._items),
                *_histogram("imagebind_batch_inputs", "Inputs of all clients that were embedded or answered together.", ("lane",), SIZES,
                            self._batches),
            ]  # fmt: skip
        for (name, help), value in self.gauges.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} gauge", f"{name} {value():.10g}"]
        return "\n".join(lines) + "\n"


def _observe(histogram: _Histogram, bounds: tuple[float, ...], value: float) -> None:
    histogram.counts[bisect_left(bounds, value)] += 1
    histogram.sum += value


def _labels(names: Labels, values: Labels) -> str:
    return ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))


def _counter(name: str, help: str, labels: Labels, counted: dict[Labels, int]) -> Iterator[str]:
    yield from (f"# HELP {name} {help}", f"# TYPE {name} counter")
    for values, count in counted.items():
        yield f"{name}{{{_labels(labels, values)}}} {count}"


def _histogram(name: str, help: str, labels: Labels, bounds: tuple[float, ...], observed: dict[Labels, _Histogram]) -> Iterator[str]:
    yield from (f"# HELP {name} {help}", f"# TYPE {name} histogram")
    for values, histogram in observed.items():
        total = 0
        for bound, count in zip([*map(str, bounds), "+Inf"], histogram.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{_labels(labels, values)},le="{bound}"}} {total}'
        yield f"{name}_sum{{{_labels(labels, values)}}} {histogram.sum:.10g}"
        yield f"{name}_count{{{_labels(labels, values)}}} {total}"


def _resident_bytes() -> float:
    with suppress(OSError, ValueError, IndexError):  # Linux alone has it
        import resource

        return float(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0.0
