"""The file of `--errors`: a JSON line for each input that failed and has not succeeded since, with the reason and what the input was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError, writing
from imagebind_cli.files import write_text
from imagebind_cli.store import UNKNOWN, Stamp
from imagebind_cli.store.row import row_stamp

BEGINNING = b'{"id": "'  # of every line


class FailureFile:
    """Failures of this run and of earlier ones. A line is added at once; at the end, the lines of inputs that have succeeded are removed.

    Raises:
        UserError: it cannot be written, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        self._stamps: dict[str, Stamp] = {}
        self._stale = False
        try:
            self._file = open(path, "a+b")  # noqa: SIM115 - closed in close
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        length = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n") and line[: len(BEGINNING)] == BEGINNING[: len(line)]:  # torn by a kill
                self._file.truncate(length)
                break
            try:
                row = parse_json(line)
                row_stamp(row)
                if not isinstance(row["id"], str):
                    raise ValueError
                self._known[row["id"]] = row
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(f"{self._path}: line {number} is not a failure of an earlier run; give --errors another file") from None
            length += len(line)

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def failed_as(self, id: str, stamp: Stamp) -> bool:
        """Check whether exactly this input failed before. An input known only by name may have changed."""
        row = self._known.get(id)
        if row is None or ("size" not in row and "hash" not in row):
            return False
        return row_stamp(row).is_of(stamp)

    def begin(self, id: str, stamp: Stamp) -> None:
        """Remember what an input is while it is being tried, until `add` or `done`."""
        self._stamps[id] = stamp

    def add(self, id: str, reason: str) -> None:
        """Record a failure of this run."""
        stamp = self._stamps.pop(id, UNKNOWN)
        row: dict[str, Any] = {"id": id, "reason": reason}
        if stamp.size >= 0:
            row |= {"size": stamp.size, "mtime": stamp.mtime}
        if stamp.hash:
            row["hash"] = stamp.hash.hex()
        self._stale = self._stale or id in self._known
        self._known[id] = row
        with writing(self._path):
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()

    def done(self, id: str) -> None:
        """Remove an input that has succeeded."""
        self._stamps.pop(id, None)
        self._stale = self._known.pop(id, None) is not None or self._stale

    def close(self, tidy: bool = True) -> None:
        """Close the file. tidy: leave one line for each input that still fails."""
        with writing(self._path):
            self._file.close()
        if tidy and self._stale:
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in self._known.values()))
