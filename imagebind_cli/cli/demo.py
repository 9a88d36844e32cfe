"""`imagebind demo`: what the bundled model finds among the samples inside the package, in the terminal and as a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.command import single_command
from imagebind_cli.cli.output import AsJSON, write, write_json_line

if TYPE_CHECKING:
    from imagebind_cli.demo import SceneChapter, SearchChapter, TimelineChapter
    from imagebind_cli.pages.search import Card

    AnyChapter = SearchChapter | SceneChapter | TimelineChapter

SHOWN = 3  # answers to each search
BAR = 40  # columns of a cosine of 1
PLURALS = {"image": "pictures", "video": "films", "imu": "recordings"}
TITLE = "What belongs together lies close together"
INTRODUCTION = "One space for pictures, sounds, movements and words: related things lie close together. A full bar is a cosine of 1."
NEXT = "mini knows drawings and a few sounds. For your own files use the published model: imagebind weights pull huge"


def demo_command(
    html: Annotated[Path, typer.Option(metavar="FILE", help="File to write the page to.")] = Path("imagebind-demo.html"),
    as_json: AsJSON = False,
) -> None:
    """Find pictures by sounds, movements by words, a place by a cry and a moment by a picture, among samples inside the package.

    Prints the story and writes it as one page with pictures and players, which works offline. Needs no download and no files of yours.
    """
    from imagebind_cli.demo import MODEL, SAMPLES, chapters
    from imagebind_cli.errors import writing
    from imagebind_cli.model import load
    from imagebind_cli.pages.search import SearchPage
    from imagebind_cli.retrieval.stored_items import Exhibit

    with writing(html), SearchPage(html, TITLE, INTRODUCTION, SAMPLES) as page:
        told = list(enumerate(chapters(load(MODEL, device="cpu")), 1))
        if as_json:
            write_json_line({"page": str(html.resolve()), "chapters": [_document(chapter) for _, chapter in told]})
        else:
            _print(INTRODUCTION)
        for number, chapter in told:
            heading = f"{number}. {chapter.title}"
            if not as_json:
                _print("", f"{heading:<44} {_search(chapter)}", *_result(chapter))
            asked = [Exhibit(*part) for part in chapter.query]
            page.section(heading, asked, _cards(chapter), chapter.words, kind="chapter", figure=_figure(chapter))
    if not as_json:
        _print("", f"See and hear it: {html.resolve()}", NEXT)


def _document(chapter: AnyChapter) -> dict[str, Any]:
    """Return a chapter and its best answers as JSON has them."""
    from imagebind_cli.demo import SceneChapter, SearchChapter

    query = [{"modality": modality, "input": str(given)} for modality, given in chapter.query]
    if isinstance(chapter, SearchChapter):
        answers = [{"modality": answer.modality, "name": answer.name, "score": answer.score} for answer in chapter.answers[:SHOWN]]
    elif isinstance(chapter, SceneChapter):
        spot = chapter.located.spots[0]
        answers = [{"modality": "image", "name": chapter.name, "peak": list(spot.peak), "score": spot.score}]
    else:
        answers = [{"modality": "audio", "start": chapter.best.start, "end": chapter.best.end, "score": chapter.best.score}]
    return {"title": chapter.title, "query": query, "answers": answers, "right": chapter.is_right}


def _search(chapter: AnyChapter) -> str:
    """Return the query, and what it searches."""
    from imagebind_cli.demo import SearchChapter

    query = " + ".join(f'"{given}"' if modality == "text" else given for modality, given in chapter.query)
    if isinstance(chapter, SearchChapter):
        return f"{query} → {len(chapter.answers)} {PLURALS[chapter.answers[0].modality]}"
    return f"{query} → {chapter.file}"


def _result(chapter: AnyChapter) -> list[str]:
    """Return the answers in lines, the first with its mark."""
    from imagebind_cli.demo import SceneChapter, SearchChapter

    mark = "✓" if chapter.is_right else "✗"
    if isinstance(chapter, SceneChapter):
        x, y = chapter.located.spots[0].peak
        return [f" {mark} {chapter.name}, at x {x:.0f}, y {y:.0f}: the peak of the heat map on the page"]
    if not isinstance(chapter, SearchChapter):
        last = chapter.answer.curves[0][1].end
        return [f" {mark} from {chapter.best.start:g} to {chapter.best.end:g} s of {last:g} s: its timeline is on the page"]
    marks = [mark, *" " * (SHOWN - 1)]
    bars = [
        f" {mark} {answer.name:<18} {'█' * round(BAR * max(0.0, answer.score)):<{BAR}} {answer.score:5.2f}"
        for mark, answer in zip(marks, chapter.answers, strict=False)
    ]
    return [*bars, f"   {chapter.words}"]


def _cards(chapter: AnyChapter) -> list[Card]:
    """Return the samples that were found, for the page."""
    from imagebind_cli.demo import SearchChapter
    from imagebind_cli.pages.search import Card
    from imagebind_cli.retrieval.stored_items import Exhibit

    if not isinstance(chapter, SearchChapter):
        return []
    verdicts = ["right" if chapter.is_right else "wrong", *[""] * (SHOWN - 1)]
    return [
        Card(Exhibit(answer.modality, answer.file), rank, answer.score, (verdict,))
        for rank, (answer, verdict) in enumerate(zip(chapter.answers, verdicts, strict=False), 1)
    ]


def _figure(chapter: AnyChapter) -> str:
    """Return the heat map or timeline of a chapter that has one, for the page, and its verdict."""
    from imagebind_cli.demo import SAMPLES, SceneChapter, TimelineChapter
    from imagebind_cli.grounding.curves import MomentOptions
    from imagebind_cli.pages.heat import heat_image
    from imagebind_cli.pages.pictures import picture
    from imagebind_cli.pages.timeline import timeline_figure

    verdict = "<small>right<br></small>" if chapter.is_right else "<small>wrong<br></small>"
    if isinstance(chapter, SceneChapter):
        return f"<div>{heat_image(replace(chapter.located, id=chapter.file))}{verdict}</div>"
    if isinstance(chapter, TimelineChapter):
        (item, curve), path = chapter.answer.curves[0], str(SAMPLES / chapter.file)
        named = replace(item, id=chapter.file)
        drawn = timeline_figure(named, path, curve, chapter.answer.hits, curve.level(MomentOptions()), lambda hit: "moment")
        sound = picture("audio", path, (chapter.best.start, chapter.best.end)).sound
        player = f'<audio controls preload="metadata" src="{sound}" aria-label="play the moment"></audio>'
        return f'<div id="moment">{drawn}{player}{verdict}</div>'
    return ""


def _print(*lines: str) -> None:
    write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


app = single_command("demo", demo_command)
