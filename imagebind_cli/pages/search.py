"""Answers to queries as one page: pictures, sounds and scores in a single file that needs no network and no other file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli.events import Listener
from imagebind_cli.pages.base import PageFile, boxed, escape
from imagebind_cli.pages.pictures import Picture, Span, picture, seconds_shown
from imagebind_cli.registry import PAGE_PICTURES, TEXT
from imagebind_cli.retrieval.search import Hit, Query
from imagebind_cli.retrieval.stored_items import Exhibit, stored_exhibit
from imagebind_cli.sources import whole_source

if TYPE_CHECKING:
    from imagebind_cli.retrieval.finder import Finder


@dataclass(frozen=True)
class Card:
    """An answer as the page shows it. facts: lines about it. options: how its file is read."""

    exhibit: Exhibit
    rank: int
    score: float
    facts: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class SearchPage(PageFile):
    """A page of queries and their answers, written query by query.

    Args:
        title: of the page. about: how the vectors were made, in words. root: where relative paths among the ids start.
        options: how files of queries are read, by modality.
    """

    def __init__(
        self, path: Path, title: str, about: str, root: Path, options: Callable[[str], Mapping[str, Any]] = lambda modality: {}
    ) -> None:
        super().__init__(path, title)
        self._root, self._options = root, options
        self.write(f"<p>{escape(about)}</p>\n")

    @classmethod
    def of(cls, path: Path, finder: Finder, root: Path = Path(), listener: Listener | None = None) -> SearchPage:
        """Return a page for the answers of a finder, as `imagebind retrieve --html` writes it."""
        made = finder.stores[0].provenance
        about = f"Nearest in {', '.join(str(store.path) for store in finder.stores)}, by cosine. Model {made.get('model')}"
        about += f" of the family {made['family']}" if "family" in made else ""
        about += ", untrained." if made.get("untrained") else "."
        return cls(path, "imagebind retrieve", about, root, finder.encoder(listener or Listener()).reading_options)

    def add(self, query: Query, hits: Sequence[Hit]) -> None:
        """Add a query and its answers."""
        self.section(query.id, query.exhibits, [_card(hit) for hit in hits])

    def section(
        self, heading: str, asked: Sequence[Exhibit], cards: Sequence[Card], words: str = "", kind: str = "", figure: str = ""
    ) -> None:
        """Add a query and its answers, then `words` about them.

        Args:
            kind: the section's class in the style sheet. figure: HTML in place of answers.
        """
        self.write((f'<section class="{kind}">' if kind else "<section>") + f"<h2>{escape(heading)}</h2>\n")
        shown = (self._body(exhibit, "query", self._options(exhibit.kind) if exhibit.kind in PAGE_PICTURES else {}) for exhibit in asked)
        self.write(f'<div class="asked">{"".join(f"<div>{body}</div>" for body in shown)}</div>\n' if asked else "")
        firsts = [place for place, card in enumerate(cards) if card.rank == 1]  # several where modalities are ranked separately
        for first, stop in pairwise([*firsts, len(cards)]):
            subheading = f"<h3>{escape(cards[first].exhibit.kind)}</h3>" if len(firsts) > 1 else ""
            self.write(f'{subheading}<ol class="cards">{"".join(map(self._item, cards[first:stop]))}</ol>\n')
        self.write(figure or ("" if cards else "<p>Nothing found.</p>"))
        self.write(f"<p>{escape(words)}</p></section>\n" if words else "</section>\n")

    def _item(self, card: Card) -> str:
        label = f"score of {card.exhibit.name or whole_source(card.exhibit.source)}"
        score = f'<meter min="0" max="1" value="{max(0.0, card.score):.4f}" aria-label="{escape(label)}"></meter>'
        facts = f"<strong>{card.rank}.</strong> {card.score:.4f} <small>{'<br>'.join(map(escape, card.facts))}</small>"
        return f"<li>{self._body(card.exhibit, f'result {card.rank}', card.options)}{score}{facts}</li>\n"

    def _body(self, exhibit: Exhibit, role: str, options: Mapping[str, Any]) -> str:
        """Return a picture, a player or the words of an exhibit, over its name. options: how its file is read."""
        kind, source, span = exhibit.kind, exhibit.source, exhibit.span
        path = whole_source(source)
        name = exhibit.name or path
        if kind == TEXT:
            return f"<blockquote>{escape(path)}</blockquote>" + (f"<div>{escape(name)}</div>" if name != path else "")
        span = seconds_shown(source, span)
        body, about = "", "" if span is None else f"{span[0]:.2f} to {span[1]:.2f} s"
        if kind in PAGE_PICTURES:
            try:
                shown = _cached(kind, os.path.join(self._root, path), span, tuple(sorted(options.items())))
            except (OSError, ValueError) as error:
                about = f"{about} (cannot be shown: {getattr(error, 'strerror', None) or error})".strip()
            else:
                body = f'<img src="{shown.image}" alt="{escape(f"{role}: {kind} {name}")}">'
                if exhibit.box is not None and shown.size is not None:
                    body = boxed(body, shown.size, [(exhibit.box, "", 0)])
                if shown.sound:
                    body += f'<audio controls preload="metadata" src="{shown.sound}" aria-label="{escape(f"play {name}")}"></audio>'
                about = shown.about or about
        return f"{body}<div>{escape(name)}</div>" + (f"<small>{escape(about)}</small>" if about else "")


def _card(hit: Hit) -> Card:
    meta = (f"{key}: {value}" for key, value in hit.store.meta(hit.row).items())
    windows = [f"best of {len(hit.stretch)} windows"] if len(hit.stretch) > 1 else []
    facts = (f"{hit.store.modality}, {hit.store.path}", *windows, *([hit.clock] if hit.clock else []), *meta)
    return Card(
        stored_exhibit(hit.store, hit.row)._replace(span=hit.span), hit.rank, hit.score, facts, hit.store.provenance.get("options", {})
    )


@lru_cache(maxsize=1000)
def _cached(kind: str, path: str, span: Span, options: tuple[tuple[str, Any], ...]) -> Picture:
    return picture(kind, path, span, dict(options))
