"""`imagebind demo`: what the bundled model finds among the samples inside the package, in the terminal and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.output import AsJSON, write, write_json_line

if TYPE_CHECKING:
    from imagebind_cli.demo import Chapter
    from imagebind_cli.pages.search import Card

SHOWN = 3  # answers to each search
BAR = 40  # columns of a cosine of 1
PLURALS = {"image": "pictures", "video": "films", "imu": "recordings"}
TITLE = "What belongs together lies close together"
INTRODUCTION = "One space for pictures, sounds, movements and words: related things lie close together. A full bar is a cosine of 1."
NEXT = "mini knows drawings and a few sounds. For your own files take the published model: imagebind weights pull huge"


def demo_command(
    html: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the page.")] = Path("imagebind-demo.html"),
    as_json: AsJSON = False,
) -> None:
    """Find pictures by sounds and movements by words: six searches among samples inside the package.

    Prints the story and writes it as one page with pictures and players, which works offline. Needs no download and no files of yours.
    """
    from imagebind_cli.demo import MODEL, SAMPLES, chapters
    from imagebind_cli.errors import writing
    from imagebind_cli.model import load
    from imagebind_cli.pages.search import SearchPage
    from imagebind_cli.retrieval.stored_items import Exhibit

    with writing(html), SearchPage(html, TITLE, INTRODUCTION, SAMPLES) as page:
        searches = list(enumerate(chapters(load(MODEL, device="cpu")), 1))
        if as_json:
            write_json_line({"page": str(html.resolve()), "searches": [_document(chapter) for _, chapter in searches]})
        else:
            _print(INTRODUCTION)
        for number, chapter in searches:
            heading = f"{number}. {chapter.title}"
            if not as_json:
                _print("", f"{heading:<44} {_search(chapter)}", *_bars(chapter), f"   {chapter.words}")
            page.section(heading, [Exhibit(*part) for part in chapter.query], _cards(chapter), chapter.words, kind="chapter")
    if not as_json:
        _print("", f"See and hear it: {html.resolve()}", NEXT)


def _document(chapter: Chapter) -> dict[str, Any]:
    """Return a search and its best answers as JSON has them."""
    query = [{"modality": modality, "input": str(given)} for modality, given in chapter.query]
    answers = [{"modality": answer.modality, "name": answer.name, "score": answer.score} for answer in chapter.answers[:SHOWN]]
    return {"title": chapter.title, "query": query, "answers": answers, "right": chapter.is_right}


def _search(chapter: Chapter) -> str:
    """Return the query, and how many samples it searches."""
    query = " + ".join(f'"{given}"' if modality == "text" else given for modality, given in chapter.query)
    return f"{query} → {len(chapter.answers)} {PLURALS[chapter.answers[0].modality]}"


def _bars(chapter: Chapter) -> list[str]:
    """Return a bar for each of the best answers, the first with its mark."""
    marks = ["✓" if chapter.is_right else "✗", *" " * (SHOWN - 1)]
    return [
        f" {mark} {answer.name:<18} {'█' * round(BAR * max(0.0, answer.score)):<{BAR}} {answer.score:5.2f}"
        for mark, answer in zip(marks, chapter.answers, strict=False)
    ]


def _cards(chapter: Chapter) -> list[Card]:
    """Return the same answers for the page."""
    from imagebind_cli.pages.search import Card
    from imagebind_cli.retrieval.stored_items import Exhibit

    verdicts = ["right" if chapter.is_right else "wrong", *[""] * (SHOWN - 1)]
    return [
        Card(Exhibit(answer.modality, answer.file), rank, answer.score, (verdict,))
        for rank, (answer, verdict) in enumerate(zip(chapter.answers, verdicts, strict=False), 1)
    ]


def _print(*lines: str) -> None:
    write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
