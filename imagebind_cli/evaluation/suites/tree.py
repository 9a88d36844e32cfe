"""A dataset's folder: label files are read strictly, media are found by name, and what is missing is one clear error line."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError
from imagebind_cli.files import leaves_folder
from imagebind_cli.tabular import BadRow, table_rows

Row = tuple[str, dict[str, str]]  # the place of a row, for messages, and its cells by column


class Tree:
    """The folder of an unpacked dataset. files: the label files read so far."""

    def __init__(self, root: Path, suite: str, layout: Sequence[str]) -> None:
        self.root, self.suite, self.layout = root, suite, layout
        self.files: list[Path] = []
        if not root.is_dir():
            raise UserError(f"{suite}: {root}: no such folder; the unpacked dataset is needed: {', '.join(layout)}")

    def find(self, *names: str) -> Path:
        """Return the first of these files and folders that exists.

        Raises:
            UserError: none does; if one is a folder deeper, the message names that folder.
        """
        for name in names:
            if (self.root / name).exists():
                return self.root / name
        deeper = next((path for name in names for path in sorted(self.root.glob(f"*/{name}"))), None)
        hint = f"; is the root {self.root / deeper.relative_to(self.root).parts[0]}?" if deeper else ""
        raise UserError(f"{self.suite}: no {' or '.join(names)} in {self.root}, which must hold {', '.join(self.layout)}{hint}")

    def has(self, name: str) -> bool:
        """Check whether there is such a file or folder."""
        return (self.root / name).exists()

    def named(self, folder: Path, name: str) -> Path:
        """Return the path in a folder of the dataset that a label file names.

        Raises:
            UserError: it leads out of the folder.
        """
        if leaves_folder(name):
            raise UserError(f"{self.files[-1]}: names {name!r}, which is outside {folder}, and is refused")
        return folder / name

    def text(self, path: Path) -> str:
        """Read the text of a label file."""
        self.files.append(path)
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a text file in UTF-8") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None

    def json(self, path: Path) -> Any:
        """Read a label file in JSON."""
        try:
            return parse_json(self.text(path))
        except ValueError as error:
            raise UserError(f"{path}: not JSON: {error}") from None

    def rows(self, path: Path, columns: Sequence[str], *, header: bool = True, comment: str | None = None) -> Iterator[Row]:
        """Read the rows of a CSV file that has at least these columns; without a header, exactly these.

        comment: the beginning of lines to leave out.
        Raises:
            UserError: a column is missing, or a row is short.
        """
        lines = (line for line in io.StringIO(self.text(path), newline="") if comment is None or not line.startswith(comment))
        rows = table_rows(lines, path, ",", None if header else columns, columns if header else ())
        for number, (_, row) in enumerate(rows, start=1):
            place = f"{path}: row {number}"
            cells = row.cells if isinstance(row, BadRow) else row
            empty = [column for column in columns if not cells.get(column, "").strip()] if cells else []
            if empty:
                raise UserError(f"{place} has no {empty[0]}")
            if isinstance(row, BadRow):
                raise UserError(f"{place} {row.reason}")
            yield place, row

    def clips(self, folder: str) -> dict[str, Path]:
        """Find every file below a folder, or below the root if it is empty, by name without ending."""
        top = self.root / folder
        if not top.is_dir():
            raise UserError(f"{self.suite}: no folder {folder} in {self.root}")
        files_by_name: dict[str, Path] = {}
        seen: set[str] = set()
        for place, folders, files in os.walk(top, followlinks=True):
            folders[:] = sorted(folders) if os.path.realpath(place) not in seen else []  # a link may lead back to a folder above it
            seen.add(os.path.realpath(place))
            for name in sorted(files):
                files_by_name.setdefault(Path(name).stem, Path(place, name))
        return files_by_name

    def all_there(self, paths: Iterable[Path]) -> None:
        """Check that all of these files exist.

        Raises:
            UserError: one is missing.
        """
        paths = list(paths)
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise UserError(f"{self.suite}: {len(missing):,} of {len(paths):,} files are missing, the first {missing[0]}")


def number(place: str, name: str, text: str) -> float:
    """Parse a cell as a number.

    Raises:
        UserError: it is not a number.
    """
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{place}: {name} is {text!r}, which is not a number") from None
