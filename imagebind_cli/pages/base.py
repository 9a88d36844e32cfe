"""What every HTML page shares: escaping, the security policy, one style sheet, tables, and writing a page whole.

A page is one file without scripts. Its policy lets a browser load nothing but what is in the file (`data:` addresses) and pictures beside it,
and everything that comes from outside (names, sentences, paths) passes `escape`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing

POLICY = "default-src 'none'; img-src data: 'self'; media-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { margin: 0 auto; max-width: 90rem; padding: 1rem }
h2 { font-size: 1.1rem; overflow-wrap: anywhere }
img { display: block; max-width: 100%; height: auto; margin-bottom: .4rem }
audio, meter { width: 100% }
small { opacity: .8 }
blockquote { margin: 0 0 .4rem; font-size: 1.05rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8882; padding: 1rem }
:focus-visible { outline: 3px solid Highlight }

table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .15rem .6rem; text-align: left; vertical-align: baseline }
.number { text-align: right; font-variant-numeric: tabular-nums }
tr:nth-child(even) > * { background: #8881 }
.wide { overflow-x: auto }

.cards { list-style: none; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: 1rem }
.cards > li, .asked > div { border: 1px solid #8886; border-radius: 6px; padding: .6rem; overflow-wrap: anywhere }
.asked { display: flex; flex-wrap: wrap; gap: 1rem }
.asked > div { max-width: 16rem }
.chapter { display: grid; grid-template-columns: 17rem 1fr; gap: 0 1.5rem; align-items: start }
.chapter > h2, .chapter > p { grid-column: 1 / -1; margin: 1rem 0 .5rem }
.chapter > ol { margin: 0 }
.chapter > div { min-width: 0 }
.chapter figure { display: block; margin-right: 0 }
.chapter svg { max-width: 100%; height: auto }
@media (max-width: 50rem) { .chapter { display: block } }

.confusion { font-size: 12px }
.confusion tr > td { background: none; min-width: 2em; height: 2em; padding: 0; text-align: center; vertical-align: middle }
.confusion tr > td { border: 1px solid #8884 }
.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem 0; font-weight: normal }
.confusion tbody th { background: none; font-weight: normal; text-align: right; vertical-align: middle; white-space: nowrap }

.boxed { position: relative; width: fit-content; margin-bottom: .4rem }
.boxed > img { margin: 0 }
.boxed > i { position: absolute; box-sizing: border-box; border: 2px solid; box-shadow: 0 0 1px 1px #0008, inset 0 0 1px 1px #0008 }
.boxed > i { font: 700 11px/1 system-ui, sans-serif; color: #fff; text-shadow: 0 0 2px #000, 0 0 2px #000; padding: 1px 2px; overflow: hidden }

figure { display: inline-block; margin: 0 1em 1.5em 0; vertical-align: top }
figcaption { font-weight: 600 }
.key { font-size: 13px }
.key span { margin-right: 1em; white-space: nowrap }
.key i { display: inline-block; width: 14px; height: 3px; margin-right: 4px }
"""


COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#00a5a5", "#f032e6", "#9a6324")  # of boxes, one for each class


def escape(text: str) -> str:
    """Return text that is safe anywhere in a page; bytes of a name that are not characters become escapes (`\\udce9`)."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[int] = (0,), kind: str = "") -> str:
    """Return a table.

    Args:
        head: the columns' names.
        rows: a cell of plain text for each column.
        words: the columns that hold words; all others hold numbers and are aligned to the right.
        kind: its class in the style sheet.
    """
    classes = ["" if column in words else ' class="number"' for column in range(len(head))]

    def row(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}{name}>{escape(cell)}</{tag}>' for name, cell in zip(classes, cells, strict=True))}</tr>"

    start = f'<table class="{kind}">' if kind else "<table>"
    return f"{start}<thead>{row('th', head)}</thead><tbody>{''.join(row('td', cells) for cells in rows)}</tbody></table>"


def boxed(image: str, size: tuple[int, int], boxes: Sequence[tuple[Sequence[float], str, int]]) -> str:
    """Draw boxes over a picture.

    Args:
        image: the picture as HTML. size: its width and height in the unit of the boxes. boxes: x, y, width and height of each, the text in its
            corner, and the number of its colour.
    """
    marks = (
        f'<i aria-hidden="true" style="left:{100 * x / size[0]:.2f}%;top:{100 * y / size[1]:.2f}%;width:{100 * width / size[0]:.2f}%;'
        f'height:{100 * height / size[1]:.2f}%;border-color:{COLOURS[colour % len(COLOURS)]}">{escape(text)}</i>'
        for (x, y, width, height), text, colour in boxes
    )
    return f'<div class="boxed">{image}{"".join(marks)}</div>'


def style_sheet(rules: str) -> str:
    """Return an element with rules of one page alone."""
    return f"<style>{rules}</style>\n"


def opening(title: str) -> str:
    """Return the beginning of a page, up to and including its heading."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="viewport" content="width=device-width">\n'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n<body><main><h1>{escape(title)}</h1>\n'
    )


ENDING = "</main></body></html>\n"


def document(title: str, body: str) -> str:
    """Return a whole page. body: HTML below the heading."""
    return f"{opening(title)}{body}{ENDING}"


def write_page(path: Path, title: str, body: str) -> None:
    """Write a page that fits in memory, all or nothing.

    Raises:
        UserError, OSError: as `PageFile`.
    """
    with PageFile(path, title) as file:
        file.write(body)


class PageFile:
    """A page that is written piece by piece. Use it as a context manager: the file appears once the page is complete.

    Raises:
        UserError: the path is a folder, or its folder does not exist. OSError: it cannot be written to.
    """

    def __init__(self, path: Path, title: str) -> None:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; give the page a file name")
        with ExitStack() as stack:
            place = stack.enter_context(replacing(path))
            self._file = stack.enter_context(open(place, "w", encoding="utf-8", errors="replace", newline="\n"))
            self._exits = stack.pop_all()
        self._file.write(opening(title))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._exits:
            if error is not None:
                raise error
            self._file.write(ENDING)

    def write(self, body: str) -> None:
        """Add HTML."""
        self._file.write(body)
