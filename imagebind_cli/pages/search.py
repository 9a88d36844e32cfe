"""Search results as one page: pictures, sounds and scores in a single file that needs no network, no script and no other file.

Whatever comes from outside (names, sentences, paths) is escaped, and the page's own policy lets a browser load nothing but what is in it.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.pages.pictures import EXCERPT_SECONDS, PICTURES, Shown, Span, show
from imagebind_cli.retrieval.search import Hit, Part, Query, stored_part
from imagebind_cli.sources import Stretch, whole_source

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 0 auto; max-width: 90rem; padding: 1rem }
h2 { font-size: 1.1rem; overflow-wrap: anywhere }
ol { list-style: none; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: 1rem }
li, .asked > div { border: 1px solid #8886; border-radius: 6px; padding: .6rem; overflow-wrap: anywhere }
.asked { display: flex; flex-wrap: wrap; gap: 1rem }
.asked > div { max-width: 16rem }
img { display: block; max-width: 100%; height: auto; margin-bottom: .4rem }
audio { width: 100% }
meter { width: 100% }
small { opacity: .8 }
blockquote { margin: 0 0 .4rem; font-size: 1.05rem }
.chapter { display: grid; grid-template-columns: 17rem 1fr; gap: 0 1.5rem; align-items: start }
.chapter > h2, .chapter > p { grid-column: 1 / -1; margin: 1rem 0 .5rem }
.chapter > ol { margin: 0 }
@media (max-width: 50rem) { .chapter { display: block } }
:focus-visible { outline: 3px solid Highlight }
"""


@dataclass(frozen=True)
class Card:
    """An answer as the page shows it. facts: lines about it. options: how its file is read."""

    part: Part
    rank: int
    score: float
    facts: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class Page:
    """A page being written, one query after the other. Use it as a context manager; the file is there when it is whole.

    title: what it is about. about: how the vectors were made, in words. root: where relative paths among the ids start.
    options: how a modality's queries are read.
    """

    def __init__(self, path: Path, title: str, about: str, root: Path, options: Callable[[str], Mapping[str, Any]]) -> None:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; give the page a file name")
        self._root, self._options = root, options
        with ExitStack() as stack:
            place = stack.enter_context(replacing(path))
            self._file = stack.enter_context(open(place, "w", encoding="utf-8", errors="replace"))
            self._exits = stack.pop_all()
        self._file.write(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="viewport" content="width=device-width">\n'
            f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n<body><main><h1>{_text(title)}</h1><p>{_text(about)}</p>\n'
        )

    def __enter__(self) -> Page:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._exits:
            if error is not None:
                raise error
            self._file.write("</main></body></html>\n")

    def add(self, query: Query, hits: Sequence[Hit]) -> None:
        """A query and its answers."""
        self.section(query.id, query.parts, [_card(hit) for hit in hits])

    def section(self, heading: str, parts: Sequence[Part], cards: Sequence[Card], words: str = "", kind: str = "") -> None:
        """Write what was searched for and the answers, then `words` about them. kind: the section's style."""
        self._file.write((f'<section class="{kind}">' if kind else "<section>") + f"<h2>{_text(heading)}</h2>\n")
        asked = "".join(
            f"<div>{self._body(part, 'query', self._options(part.kind) if part.kind in PICTURES else {})}</div>" for part in parts
        )
        self._file.write(f'<div class="asked">{asked}</div>\n' if asked else "")
        firsts = [place for place, card in enumerate(cards) if card.rank == 1]  # several where modalities are ranked apart
        for first, stop in pairwise([*firsts, len(cards)]):
            subheading = f"<h3>{_text(cards[first].part.kind)}</h3>" if len(firsts) > 1 else ""
            self._file.write(f"{subheading}<ol>{''.join(map(self._item, cards[first:stop]))}</ol>\n")
        self._file.write("" if cards else "<p>Nothing found.</p>")
        self._file.write(f"<p>{_text(words)}</p></section>\n" if words else "</section>\n")

    def _item(self, card: Card) -> str:
        label = f"score of {card.part.name or whole_source(card.part.source)}"
        score = f'<meter min="0" max="1" value="{max(0.0, card.score):.4f}" aria-label="{_text(label)}"></meter>'
        facts = f"<strong>{card.rank}.</strong> {card.score:.4f} <small>{'<br>'.join(map(_text, card.facts))}</small>"
        return f"<li>{self._body(card.part, f'result {card.rank}', card.options)}{score}{facts}</li>\n"

    def _body(self, part: Part, role: str, options: Mapping[str, Any]) -> str:
        """Return what one thing looks and sounds like, over its name; options: how its file is read."""
        kind, source = part.kind, part.source
        path, name, span = whole_source(source), part.name or whole_source(source), part.span
        if kind == "text":
            return f"<blockquote>{_text(path)}</blockquote>" + (f"<div>{_text(name)}</div>" if name != path else "")
        if span is None and isinstance(source, Stretch):
            start = source.start or 0.0
            span = start, start + EXCERPT_SECONDS if source.end is None else source.end
        body, about = "", "" if span is None else f"{span[0]:.2f} to {span[1]:.2f} s"
        if kind == "audio" or kind in PICTURES:
            try:
                shown = _shown(kind, os.path.join(self._root, path), span, tuple(sorted(options.items())))
            except (OSError, ValueError) as error:
                about = f"{about} (cannot be shown: {getattr(error, 'strerror', None) or error})".strip()
            else:
                body = f'<img src="{shown.picture}" alt="{_text(f"{role}: {kind} {name}")}">'
                if shown.sound:
                    body += f'<audio controls preload="metadata" src="{shown.sound}" aria-label="{_text(f"play {name}")}"></audio>'
                about = shown.about or about
        return f"{body}<div>{_text(name)}</div>" + (f"<small>{_text(about)}</small>" if about else "")


def _card(hit: Hit) -> Card:
    meta = (f"{key}: {value}" for key, value in hit.store.meta(hit.row).items())
    facts = (f"{hit.store.modality}, {hit.store.path}", *meta)
    return Card(stored_part(hit.store, hit.row), hit.rank, hit.score, facts, hit.store.provenance.get("options", {}))


@lru_cache(maxsize=1000)
def _shown(kind: str, path: str, span: Span, options: tuple[tuple[str, Any], ...]) -> Shown:
    return show(kind, path, span, dict(options))


def _text(text: str) -> str:
    """Text for anywhere in the page; what no character stands for becomes a question mark."""
    return html.escape(text.encode("utf-8", "replace").decode())
