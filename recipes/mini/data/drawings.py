"""Render emoji of eight sets, clip art and stamps, and pair each picture with its captions.

    python recipes/mini/data/drawings.py WORK

Every drawing becomes 128 x 128 pixels on white, WORK/data/drawings/SET/HEXCODE.png; drawings of the training sets get further renderings with
outlines, other colours, turned, smaller, on coloured ground. Beside them, the program writes:

    train.jsonl        image-text pairs of the training sets, without the held-out concepts
    seen.json          names of the concepts in training
    unseen.json        names of the held-out concepts, one in ten, chosen by a hash of their code
    fxemoji.jsonl      an unseen set's drawings of seen concepts: image, label; likewise openmoji.jsonl
    unseen.jsonl       the held-out concepts, in all sets
"""

from __future__ import annotations

import html
import io
import json
import random
import re
import sys
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import resvg_py
from pairing import stamp_sentence, write_rows
from PIL import Image
from torchvision.transforms.v2 import functional as F

TRAINING = ("noto", "noto-v1", "twemoji", "emojione", "emojione-v1", "fluent-emoji-flat")
TESTS = ("fxemoji", "openmoji")
SETS = TRAINING + TESTS
LEAST_SETS = 4  # a concept is used if at least this many sets draw it
SIZE = 128
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
CLIP_ART_EVERY = 3  # one captioned piece of clip art in this many is kept: most show what no other drawing does
VARIATIONS = 5  # further renderings of each drawing of a training set
# Concepts that sounds and motion are bound to: never held out, since their names must have been seen with pictures.
ALWAYS_SEEN = frozenset(
    {"1FA97", "1FA88", "1F3B8", "1F3BB", "1F9CD", "1F9CD-200D-2640-FE0F", "1F42E", "1F411", "1F405", "1F43B", "1F983", "1F6CC", "1F6CF"}
    | {"1FA91", "1F4BA", "1F6B6", "1F3C3", "1F3F8", "1F476"}
)
# Captions written for this recipe, in words that the drawings' keywords lack. Class names of the tests are among them.
EXTRA_CAPTIONS = {
    "1F6CC": ("a person lying down", "lying", "lying in bed", "lie down"),
    "1F6CF": ("lying down", "lying", "a bed to lie on"),
    "1FA91": ("sitting", "sit down", "sitting down", "a chair to sit on"),
    "1F4BA": ("sitting", "sit down", "sitting in a seat"),
    "1F9CD": ("standing", "standing up", "a person standing"),
    "1F9CD-200D-2642-FE0F": ("standing", "standing up", "a man standing"),
    "1F9CD-200D-2640-FE0F": ("standing", "standing up", "a woman standing"),
    "1F6B6": ("walking", "a person walking", "going on foot"),
    "1F3C3": ("running", "a person running"),
    "1F476": ("a baby crying", "crying baby", "baby cry"),
    "1F570": ("clock ticking", "a ticking clock", "clock tick"),
    "23F0": ("clock ticking", "a ticking clock", "clock tick"),
    "1F927": ("a person sneezing", "sneeze", "person sneeze"),
    "1FA9A": ("a saw", "chainsaw", "sawing wood"),
    "1F30A": ("sea waves", "waves of the sea", "the sea"),
    "1F327": ("rain", "it is raining", "rain falling"),
    "1F525": ("fire", "a crackling fire", "fire crackling"),
    "1F436": ("a dog barking", "dog bark", "dog"),
    "1F415": ("a dog barking", "dog bark", "dog"),
    "1F413": ("rooster", "a rooster crowing", "cock"),
    "1F681": ("helicopter", "a helicopter flying"),
}
# Widths of the outlines that a varied drawing may get, as shares of the picture: some sets draw outlines, others do not.
OUTLINES = (0.0, 0.0, 0.0, 0.015, 0.03)
# Names of drawings whose mirror image shows something else.
NEVER_MIRRORED = re.compile(
    r"\b(left|right|clockwise|back|next|last|forward|reverse|o’clock|o'clock|thirty|flag|button|keycap|letter|input|latin|play|rewind)\b"
)


@dataclass(frozen=True)
class Concept:
    """An emoji: its code, its English name and its keywords."""

    code: str
    name: str
    words: tuple[str, ...]


def matching_key(name: str) -> str:
    """Reduce a name to plain lower-case letters and digits, so that the sets' spellings agree."""
    plain = unicodedata.normalize("NFKD", name.lower().replace("*", "asterisk").replace("#", "number sign"))
    return re.sub(r"[^a-z0-9]", "", plain)


def concepts(sources: Path) -> tuple[dict[str, Concept], dict[str, str]]:
    """Return the concepts by code, and the code behind every name that a set or a short-code vocabulary uses."""
    base = sources / "emojibase-data" / "en"
    by_code = {
        entry["hexcode"]: Concept(entry["hexcode"], entry["label"], tuple(entry.get("tags", ())))
        for entry in json.loads((base / "data.json").read_text())
    }
    plain = {strip_variation(code): code for code in by_code}
    codes = {matching_key(concept.name): code for code, concept in by_code.items()}
    for name in SETS:
        characters = sources / name / "chars.json"
        if characters.exists():
            for code, alias in json.loads(characters.read_text()).items():
                if strip_variation(code) in plain:
                    codes.setdefault(matching_key(alias), plain[strip_variation(code)])
    for vocabulary in sorted((base / "shortcodes").glob("*.json")):
        for code, aliases in json.loads(vocabulary.read_text()).items():
            for alias in [aliases] if isinstance(aliases, str) else aliases:
                if strip_variation(code) in plain:
                    codes.setdefault(matching_key(alias), plain[strip_variation(code)])
    return by_code, codes


def strip_variation(code: str) -> str:
    """Drop the variation selectors of a code, which only ask for a colour picture."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def drawings(sources: Path, name: str, codes: dict[str, str]) -> dict[str, str]:
    """Return the SVG of each concept that a set draws, by code."""
    icons = json.loads((sources / name / "icons.json").read_text())
    svgs: dict[str, str] = {}
    for alias, icon in icons["icons"].items():
        code = codes.get(matching_key(alias)) or codes.get(matching_key(alias.removesuffix("-flag") + "flag"))
        if code is not None and code not in svgs:
            width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
            svgs[code] = f'<svg {NAMESPACES} viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    return svgs


def is_held_out(code: str) -> bool:
    """Check whether a concept is held out: one in ten, independent of all others."""
    return zlib.crc32(code.encode()) % 10 == 0 and code not in ALWAYS_SEEN and code not in EXTRA_CAPTIONS


def render_svg(svg: str, outline: float = 0.0) -> Image.Image:
    """Render an SVG as RGBA, as large as fits into SIZE. outline: width of a black line around every shape, as a share of the picture."""
    if outline:
        box = re.search(r'viewBox="0 0 ([\d.]+)', svg)
        width = float(box[1]) * outline if box else 1.0
        inside = svg.index(">") + 1
        svg = f'{svg[:inside]}<g stroke="#000" stroke-width="{width:.3f}" stroke-linejoin="round">{svg[inside:-6]}</g></svg>'
    data = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, dpi=96, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


UNITS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}  # lengths of SVG units in pixels


def with_view_box(svg: str) -> str:
    """Give an SVG without a view box one of its own size, since the renderer needs one to scale it."""
    tag = re.search(r"<svg\b[^>]*>", svg)
    if tag is None or "viewBox" in tag[0]:
        return svg
    sides = [re.search(rf'\b{side}\s*=\s*["\']([\d.]+)(px|pt|pc|mm|cm|in|)["\']', tag[0]) for side in ("width", "height")]
    if None in sides:
        return svg
    width, height = (float(side[1]) * UNITS[side[2]] for side in sides if side)
    return svg[: tag.end() - 1] + f' viewBox="0 0 {width} {height}"' + svg[tag.end() - 1 :]


def paste_on(picture: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """Paste a picture into the middle of a square of one colour."""
    square = Image.new("RGB", (SIZE, SIZE), ground)
    square.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2), picture)
    return square


def vary(render: Callable[[float], Image.Image], numbers: random.Random, mirror: bool) -> Image.Image:
    """Vary a drawing's outlines, colours, size, rotation and ground. render: draws it with outlines of a given width."""
    picture = render(numbers.choice(OUTLINES))
    alpha = picture.getchannel("A")
    colours = picture.convert("RGB")
    if numbers.random() < 0.5:
        colours = F.adjust_hue(colours, numbers.randrange(-24, 25) / 255)
    for change, low, high in ((F.adjust_saturation, 0.0, 1.5), (F.adjust_brightness, 0.7, 1.3), (F.adjust_contrast, 0.6, 1.4)):
        if numbers.random() < 0.6:
            colours = change(colours, numbers.uniform(low, high))
    colours.putalpha(alpha)
    if mirror and numbers.random() < 0.5:
        colours = F.horizontal_flip(colours)
    if numbers.random() < 0.7:
        colours = colours.rotate(numbers.uniform(-15, 15), Image.Resampling.BICUBIC)
    size = round(SIZE * numbers.uniform(0.6, 1.0))
    across = round(size * numbers.uniform(0.85, 1.18))
    colours = colours.resize((min(across, SIZE), size), Image.Resampling.BILINEAR)
    light = numbers.random() < 0.5
    ground = (255, 255, 255) if light else tuple(numbers.randrange(256) for _ in range(3))
    square = Image.new("RGB", (SIZE, SIZE), ground)  # type: ignore[arg-type]
    square.paste(colours, (numbers.randint(0, SIZE - colours.width), numbers.randint(0, SIZE - colours.height)), colours)
    return square


def caption(concept: Concept, numbers: random.Random) -> str:
    """Draw a caption of a concept: its name, its name with keywords, or keywords alone."""
    if (extra := EXTRA_CAPTIONS.get(concept.code)) and numbers.random() < 0.6:
        return numbers.choice(extra)
    words = [word for word in concept.words if word not in concept.name] or list(concept.words)
    keywords = ", ".join(numbers.sample(words, min(len(words), numbers.randint(1, 3))))
    chance = numbers.random()
    if chance < 0.6 or not keywords:
        return concept.name
    return f"{concept.name}, {keywords}" if chance < 0.85 else keywords


def render_drawing(job: tuple[str, str, str, bool, int]) -> str | None:
    """Render one drawing, plain and varied, into its files. Return the reason if it cannot be rendered."""
    place, svg, seed, mirror, count = job
    if Path(f"{place}.{count}.png" if count else f"{place}.png").exists():  # from an interrupted run
        return None
    try:
        render = cache(partial(render_svg, svg))
        paste_on(render(0.0), (255, 255, 255)).save(f"{place}.png", compress_level=1)
        for number in range(1, count + 1):
            vary(render, random.Random(f"{seed} {number}"), mirror).save(f"{place}.{number}.png", compress_level=1)
    except Exception as error:  # resvg raises its own kinds, and one broken drawing among thousands must not end the rest
        return f"{place}: {error}"
    return None


def clip_art(sources: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield path, title and keywords of all titled clip art."""
    for path in sorted((sources / "openclipart-svg").rglob("*.svg")):
        if path.is_symlink():  # the same drawing under another heading
            continue
        if path.stat().st_size > 400_000:  # minutes of rendering for a few of them
            continue
        text = path.read_text(errors="replace")
        title = re.search(r"<dc:title>([^<]{2,80})</dc:title>", text)
        subject = re.search(r"<dc:subject>(.*?)</dc:subject>", text, re.S)
        words = re.findall(r"<rdf:li>([^<]{2,40})</rdf:li>", subject[1]) if subject else []
        words = [
            html.unescape(word).strip().lower()
            for word in words
            if word.strip().lower() not in ("unsorted", "clip art", "clipart", "externalsource")
        ]
        if title is not None and not re.search(r"\.svg|untitled|^[\W\d]+$", title[1].lower()):
            yield str(path), html.unescape(title[1]).strip().lower().replace("_", " "), tuple(dict.fromkeys(words))


def stamps(sources: Path) -> Iterator[tuple[str, str]]:
    """Yield path and sentence of each stamp: photos and drawings with a description."""
    for path in sorted((sources / "tuxpaint-stamps-default").rglob("*.txt")):
        for ending in (".png", ".svg"):
            picture = path.with_suffix(ending)
            if picture.exists():
                yield str(picture), stamp_sentence(path)
                break


def render_picture(job: tuple[str, str, int]) -> str | None:
    """Render one piece of clip art or stamp, plain and on coloured grounds. Return the reason if it cannot be rendered."""
    source, place, count = job
    if Path(f"{place}.{count}.png").exists():
        return None
    try:
        if source.endswith(".svg"):
            data = bytes(
                resvg_py.svg_to_bytes(
                    svg_string=with_view_box(Path(source).read_text(errors="replace")),
                    width=SIZE,
                    height=SIZE,
                    dpi=96,
                    skip_system_fonts=True,
                )
            )
            picture = Image.open(io.BytesIO(data)).convert("RGBA")
        else:
            picture = Image.open(source).convert("RGBA")
            picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        paste_on(picture, (255, 255, 255)).save(f"{place}.png", compress_level=1)
        numbers = random.Random(place)
        for number in range(1, count + 1):
            paste_on(picture, tuple(numbers.randrange(256) for _ in range(3))).save(f"{place}.{number}.png", compress_level=1)  # type: ignore[arg-type]
    except Exception as error:
        return f"{source}: {error}"
    return None


def clip_art_and_stamps(sources: Path, data: Path) -> tuple[list[tuple[str, str, int]], list[dict[str, Any]]]:
    """Return the rendering jobs of clip art and stamps, and their training pairs."""
    jobs: list[tuple[str, str, int]] = []
    rows: list[dict[str, Any]] = []
    for number, (path, title, words) in enumerate(clip_art(sources)):
        jobs.append((path, str(data / "clip-art" / f"{number:05d}"), 1))
        for look in ("", ".1"):
            for text in dict.fromkeys((title, ", ".join((title, *words[:3])))):
                pair = training_row(f"clip-art/{number:05d}{look}.png", text, f"clip-art {title}", "openclipart")
                if zlib.crc32(pair["id"].encode()) % CLIP_ART_EVERY == 0:
                    rows.append(pair)
    for number, (path, sentence) in enumerate(stamps(sources)):
        jobs.append((path, str(data / "stamps" / f"{number:05d}"), 3))
        for look in ("", ".1", ".2", ".3"):
            rows.append(training_row(f"stamps/{number:05d}{look}.png", sentence, f"stamp {sentence}", "tuxpaint-stamps"))
    return jobs, rows


def emoji_rows(svgs: dict[str, dict[str, str]], known: dict[str, Concept], seen: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the training pairs of the seen concepts: the plain drawing with its name, the varied ones with other captions too."""
    for name in TRAINING:
        for code in seen:
            if code in svgs[name]:
                numbers = random.Random(f"captions {name} {code}")
                yield training_row(f"{name}/{code}.png", known[code].name, code, name)
                for number in range(1, VARIATIONS + 1):
                    yield training_row(f"{name}/{code}.{number}.png", caption(known[code], numbers), code, name)


def main(work: Path) -> None:
    data, sources = work / "data" / "drawings", work / "sources"
    if (data / "train.jsonl").exists():
        return
    known, codes = concepts(sources)
    svgs = {name: drawings(sources, name, codes) for name in SETS}
    chosen = {code for code in known if sum(code in members for members in svgs.values()) >= LEAST_SETS}
    for name in (*SETS, "clip-art", "stamps"):
        (data / name).mkdir(parents=True, exist_ok=True)
    jobs = [
        (
            str(data / name / code),
            svg,
            f"{name} {code}",
            not NEVER_MIRRORED.search(known[code].name),
            VARIATIONS if name in TRAINING and code in chosen and not is_held_out(code) else 0,
        )
        for name, members in svgs.items()
        for code, svg in members.items()
    ]
    picture_jobs, rows = clip_art_and_stamps(sources, data)
    with ProcessPoolExecutor() as pool:
        failures = [reason for reason in pool.map(render_drawing, jobs, chunksize=16) if reason]
        failures += [reason for reason in pool.map(render_picture, picture_jobs, chunksize=8) if reason]
    seen = sorted(code for code in chosen if not is_held_out(code))
    unseen = sorted(chosen - set(seen))
    rows = [row for row in (*rows, *emoji_rows(svgs, known, seen)) if (data / row["image"]).exists()]
    names = {code: known[code].name for code in chosen}
    for file, members in (("seen.json", seen), ("unseen.json", unseen)):
        (data / file).write_text(json.dumps([names[code] for code in members], ensure_ascii=False, indent=0) + "\n")
    for name in TESTS:
        write_rows(data / f"{name}.jsonl", [test_row(name, code, names) for code in seen if code in svgs[name]])
    write_rows(data / "unseen.jsonl", [test_row(name, code, names) for name in SETS for code in unseen if code in svgs[name]])
    write_rows(data / "train.jsonl", rows)
    for line in (
        *(f"left out, {reason}" for reason in failures[:5]),
        f"{len(chosen)} concepts drawn in at least {LEAST_SETS} sets, {len(seen)} seen, {len(unseen)} held out",
        *(f"{name}: {sum(code in chosen for code in svgs[name])} drawings" for name in SETS),
        f"{len(rows)} image-text pairs, of {len(picture_jobs)} clip-art pictures and stamps among others; {len(failures)} left out",
    ):
        print(f"drawings: {line}", file=sys.stderr)


def training_row(image: str, text: str, group: str, source: str) -> dict[str, Any]:
    """Make a training pair."""
    return {"id": f"{image} {text}", "image": image, "text": text, "group": group, "source": source}


def test_row(name: str, code: str, names: dict[str, str]) -> dict[str, Any]:
    """Make a test item."""
    return {"id": f"{name}/{code}", "image": f"{name}/{code}.png", "label": names[code], "source": name}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
