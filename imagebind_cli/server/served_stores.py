"""The stores that are searched: opened once, and again when they have changed, since `embed` may add to them while they are served."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.retrieval.finder import Finder
from imagebind_cli.server.limits import Refusal
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, open_store

KEPT = 32  # finders over some of the stores


class ServedStores:
    """Stores by number and by name. index: as `Finder` takes it.

    Raises:
        UserError: as `Finder`.
    """

    def __init__(self, space: Space, places: Sequence[str | Path], index: str | None = None) -> None:
        self._space, self._places, self._index = space, [Path(place) for place in places], index
        self._lock = threading.Lock()
        self._finders: OrderedDict[tuple[int, ...], Finder] = OrderedDict()
        self._states = [_state(place) for place in self._places]
        self._readers: list[StoreReader] = Finder(self._places, space=space).stores if places else []

    def __len__(self) -> int:
        return len(self._places)

    @property
    def readers(self) -> list[StoreReader]:
        """The stores as they are now. One that cannot be opened while it is written is as it was."""
        with self._lock:
            for number, place in enumerate(self._places):
                state = _state(place)
                if state != self._states[number]:
                    try:
                        self._readers[number] = self._space.admit(open_store(place))
                    except (UserError, OSError) as error:
                        self._space.note(f"{place}: served as it was before: {error}")
                    self._states[number] = state
                    self._finders.clear()
            return list(self._readers)

    @property
    def names(self) -> list[str]:
        """Return what requests call the stores: the names of their files, with numbers where two are alike."""
        names = [place.name for place in self._places]
        return [f"{name}:{number}" if names.count(name) > 1 else name for number, name in enumerate(names)]

    def chosen(self, names: Sequence[str], modalities: Sequence[str] = ()) -> tuple[int, ...]:
        """Return the numbers of the stores of some names and modalities, all if there are none.

        Raises:
            Refusal: no store is served, none is called so, or none is of these modalities.
        """
        if not self._places:
            raise Refusal(404, "this server has no stores; start it with some: imagebind serve photos.h5")
        known = self.names
        if unknown := [name for name in names if name not in known]:
            raise Refusal(404, f"no store {unknown[0]!r:.80}; there are {', '.join(known)}")
        readers = self.readers
        numbers = [number for number in range(len(known)) if not names or known[number] in names]
        found = tuple(number for number in numbers if not modalities or readers[number].modality in modalities)
        if not found:
            raise Refusal(404, f"no store of {', '.join(modalities)}; there are {', '.join(dict.fromkeys(r.modality for r in readers))}")
        return found

    def finder(self, numbers: tuple[int, ...], options: Mapping[str, Any] = MappingProxyType({})) -> Finder:
        """Return what searches some of the stores. options: how files of queries are read, as `Finder` takes them."""
        readers = self.readers
        if options:
            return Finder([readers[number] for number in numbers], space=self._space, index=self._index, options=options)
        with self._lock:
            if numbers not in self._finders:
                self._finders[numbers] = Finder([readers[number] for number in numbers], space=self._space, index=self._index)
            self._finders.move_to_end(numbers)
            while len(self._finders) > KEPT:
                self._finders.popitem(last=False)
            return self._finders[numbers]

    def reader(self, number: int) -> StoreReader:
        """Return one store.

        Raises:
            Refusal: there is none of this number.
        """
        if not 0 <= number < len(self._places):
            raise Refusal(404, f"no store {number}")
        return self.readers[number]


def _state(place: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a store is added to: the sizes and times of its files."""
    try:
        files = sorted(os.scandir(place), key=lambda entry: entry.name) if place.is_dir() else [place]
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except OSError:
        return ()
