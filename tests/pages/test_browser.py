"""Pages in a real browser: pictures have pixels, sounds play, nothing complains, nothing comes from elsewhere, and all stand on one base."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from imagebind_cli import registry
from imagebind_cli.pages import base
from imagebind_cli.pages.curves import chart
from tests import generate
from tests.browsing import browser, complaints
from tests.conftest import Run
from tests.stores import store


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def shown(driver: Chrome, page: Path) -> Chrome:
    complaints(driver)
    driver.get(page.as_uri())
    return driver


def measured(driver: Chrome) -> list[dict[str, Any]]:
    script = "return [...document.images].map(i => ({alt: i.alt, width: i.naturalWidth, height: i.naturalHeight, src: i.src.slice(0, 22)}))"
    found: list[dict[str, Any]] = driver.execute_script(script)
    return found


def test_every_modality_is_shown_and_nothing_complains(imagebind: Run, driver: Chrome, tmp_path: Path) -> None:
    stores = []
    for modality in registry.MODALITIES:
        ids = [generate.sample(modality, tmp_path, seed) for seed in range(2)]
        stores.append(store(tmp_path / f"{modality}.npy", modality, ids, seed=len(stores)))
    query = str(tmp_path / "audio0.wav")
    run = imagebind("retrieve", *stores, "--like", query, "-k", 2, "--per-modality", "--html", tmp_path / "page.html")
    assert (run.code, len(run.rows)) == (0, 15)  # 8 modalities, 2 each, but the query
    page = shown(driver, tmp_path / "page.html")
    pictures = measured(page)
    assert len(pictures) == 1 + 15 - 2  # the query; sentences have none
    assert {picture["src"] for picture in pictures} == {"data:image/jpeg;base64"}
    assert all(picture["width"] > 30 and picture["height"] > 30 for picture in pictures)
    assert [quote.text for quote in page.find_elements(By.TAG_NAME, "blockquote")] == [
        row["id"] for row in run.rows if row["modality"] == "text"
    ]
    scores = [float(meter.get_attribute("value")) for meter in page.find_elements(By.TAG_NAME, "meter")]
    assert scores == [pytest.approx(max(0, row["score"]), abs=1e-4) for row in run.rows]
    headings = [heading.text for heading in page.find_elements(By.TAG_NAME, "h3")]
    assert headings == list(registry.MODALITIES)
    assert page.execute_script("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    assert complaints(page) == []


def test_sounds_play(imagebind: Run, driver: Chrome, tmp_path: Path) -> None:
    ids = [str(generate.audio(tmp_path / name, seed=seed, rate=rate)) for seed, (name, rate) in enumerate(
        [("a.wav", 16_000), ("b.mp3", 44_100), ("c.flac", 96_000), ("d.m4a", 16_000), ("e.wav", 11_000)]
    )]  # fmt: skip
    long = str(generate.audio(tmp_path / "long.wav", seconds=40))
    store(tmp_path / "sounds.npy", "audio", [*ids, long])
    store(tmp_path / "windows.npy", "audio", [long], spans=[(20.0, 22.0)])
    run = imagebind(
        "retrieve", tmp_path / "sounds.npy", tmp_path / "windows.npy", "--vector", tmp_path / "windows.npy", "--html", tmp_path / "p.html"
    )
    assert run.code == 0
    page = shown(driver, tmp_path / "p.html")
    players = page.find_elements(By.TAG_NAME, "audio")
    assert len(players) == 8  # the query, a window of a store, first
    WebDriverWait(page, 20).until(
        lambda page: page.execute_script("return [...document.querySelectorAll('audio')].every(a => a.readyState > 0)")
    )
    lasts = dict(zip(["query", *[row["id"] + str(row.get("start", "")) for row in run.rows]], page.execute_script(
        "return [...document.querySelectorAll('audio')].map(a => a.duration)"
    ), strict=True))  # fmt: skip
    wanted = {"query": 2, **dict.fromkeys(ids, 2.5), long: 10, f"{long}20.0": 2}
    assert lasts == pytest.approx(wanted, abs=0.15)
    page.execute_script("document.querySelector('audio').play()")
    WebDriverWait(page, 20).until(lambda page: page.execute_script("return document.querySelector('audio').currentTime > 0.2"))
    assert all(picture["width"] > 100 for picture in measured(page))
    text = page.find_element(By.TAG_NAME, "main").text
    assert "0.0 to 10.0 of 40.0 s" in text
    assert "20.0 to 22.0 of 40.0 s" in text
    assert complaints(page) == []


HOSTILE = [
    "<script>document.title = 'run'</script>",
    "</div></section><img src=x onerror=\"document.title = 'run'\">",
    "\" autofocus onfocus=\"document.title='run'\" '",
    "&lt;b&gt; {{7*7}} ${7*7}",
    "caf\udce9 \u202e gnirts",
    "javascript:document.title='run'",
]


def test_a_timeline_leads_from_a_moment_to_its_player(imagebind: Run, driver: Chrome, tmp_path: Path) -> None:
    sound, film = generate.audio(tmp_path / "a.wav", 9), generate.video(tmp_path / "v.mp4", 6, sound=True)
    run = imagebind("moments", sound, film, "--text", "a dog", "-k", 4, "--html", tmp_path / "page.html")
    assert run.code == 0, run.err
    page = shown(driver, tmp_path / "page.html")
    pictures = measured(page)
    assert len(pictures) == len({row["id"] for row in run.rows}) + len(run.rows)  # a strip for each recording, a picture for each moment
    assert all(picture["width"] > 1 and picture["height"] > 1 for picture in pictures)
    moment = page.find_element(By.CSS_SELECTOR, "svg a")
    moment.click()
    card = page.find_element(By.CSS_SELECTOR, ":target")
    assert (card.tag_name, card.get_attribute("id")) == ("li", str(moment.get_dom_attribute("href")).removeprefix("#"))
    assert card.find_elements(By.TAG_NAME, "audio")
    assert complaints(page) == []


def test_names_are_text_whatever_they_hold(imagebind: Run, driver: Chrome, tmp_path: Path) -> None:
    for modality in ("text", "image", "audio"):
        store(tmp_path / f"{modality}.npy", modality, HOSTILE)
    stores = [tmp_path / f"{modality}.npy" for modality in ("text", "image", "audio")]
    run = imagebind("retrieve", *stores, "--like", HOSTILE[0], "-k", 30, "--html", tmp_path / "page.html")
    assert run.code == 0
    page = shown(driver, tmp_path / "page.html")
    assert page.title == "imagebind retrieve"
    assert page.find_elements(By.TAG_NAME, "script") == []
    assert measured(page) == []  # no such files
    seen = page.execute_script("return [...document.querySelectorAll('li')].map(item => item.querySelector('blockquote, div').textContent)")
    assert sorted(seen) == sorted(3 * [name.encode("utf-8", "backslashreplace").decode() for name in HOSTILE[1:]])
    assert "(cannot be shown: No such file or directory)" in page.find_element(By.TAG_NAME, "main").text
    assert complaints(page) == []


def test_the_keyboard_reaches_every_player(imagebind: Run, driver: Chrome, tmp_path: Path) -> None:
    ids = [str(generate.audio(tmp_path / f"{seed}.wav", seed=seed)) for seed in range(3)]
    store(tmp_path / "sounds.npy", "audio", ids)
    assert imagebind("retrieve", tmp_path / "sounds.npy", "--queries", tmp_path / "sounds.npy", "--html", tmp_path / "page.html").code == 0
    page = shown(driver, tmp_path / "page.html")
    labels = [player.get_attribute("aria-label") for player in page.find_elements(By.TAG_NAME, "audio")]
    assert len(labels) == 9  # three queries, each with the two others
    reached = []
    for _ in range(60):
        page.switch_to.active_element.send_keys(Keys.TAB)
        if page.switch_to.active_element.tag_name == "audio":
            reached.append(page.switch_to.active_element.get_attribute("aria-label"))
    assert set(labels) == {f"play {id}" for id in ids}
    assert set(reached) == set(labels)
    assert all(picture["alt"] for picture in measured(page))


def test_the_page_is_one_file_with_no_address_but_its_own(imagebind: Run, tmp_path: Path) -> None:
    ids = [generate.sample(modality, tmp_path) for modality in ("audio", "image")]
    stores = [store(tmp_path / f"{modality}.npy", modality, [id]) for modality, id in zip(("audio", "image"), ids, strict=True)]
    assert imagebind("retrieve", *stores, "--vector", stores[0], "--html", tmp_path / "page.html").code == 0
    text = (tmp_path / "page.html").read_text()
    assert {address[:5] for address in re.findall(r'(?:src|href)="([^"]*)', text)} == {"data:"}
    assert "http://" not in text
    assert "https://" not in text


def test_relative_ids_start_at_the_root(imagebind: Run, driver: Chrome, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    generate.picture(tmp_path / "photos/dog.png")
    place = store(tmp_path / "store.npy", "image", ["dog.png"])
    run = imagebind("retrieve", place, "--vector", place, "--html", tmp_path / "page.html", "--root", tmp_path / "photos")
    assert run.code == 0
    pictures = measured(shown(driver, tmp_path / "page.html"))  # of the query, which comes from a store, and of its answer
    assert [(picture["width"], picture["height"]) for picture in pictures] == [generate.PICTURE_SIZE] * 2


def test_a_run_that_fails_leaves_the_page_that_was_there(imagebind: Run, tmp_path: Path) -> None:
    place = store(tmp_path / "store.npy", "image", ["dog.png"])
    page = tmp_path / "page.html"
    page.write_text("before")
    assert imagebind("retrieve", place, "--like", "cat.png", "--html", page).code == 1
    assert page.read_text() == "before"
    assert [path.name for path in tmp_path.glob(".page*")] == []
    run = imagebind("retrieve", place, "--like", "dog.png", "--html", tmp_path / "none" / "page.html")
    assert (run.code, len(run.notices)) == (1, 1)
    assert "there is no folder" in run.err
    run = imagebind("retrieve", place, "--like", "dog.png", "--html", tmp_path)
    assert (run.code, run.notices) == (1, [f"imagebind: {tmp_path}: is a folder; give the page a file name"])


def test_an_index_of_previews_shows_the_pictures_beside_it(imagebind: Run, driver: Chrome, tmp_path: Path) -> None:
    names = [generate.sample(modality, tmp_path) for modality in ("image", "audio")]
    odd = generate.picture(tmp_path / "<b>#?.png")
    for modality, name in (("image", odd), ("audio", names[1])):
        folder = tmp_path / modality
        assert imagebind("preprocess", modality, name, "--preview", folder).code == 0
        page = shown(driver, folder / "index.html")
        assert [picture["width"] > 30 for picture in measured(page)] == [True]
        assert page.find_element(By.TAG_NAME, "h2").text == str(name)
        assert complaints(page) == []


PAGES = Path(base.__file__).parent
MAKERS = [path for path in [*PAGES.glob("*.py"), PAGES.parent / "training" / "report.py"] if path.name != "base.py"]


@pytest.mark.parametrize("path", MAKERS, ids=lambda path: path.name)
def test_every_page_stands_on_the_one_base(path: Path) -> None:
    """Escaping, policy and style are in `base.py` alone."""
    text = path.read_text()
    for own in ("<!doctype", "<style", "Content-Security-Policy", "html.escape", "<script"):
        assert own not in text


def test_what_comes_from_outside_is_text_in_every_part_of_a_page(driver: Chrome, tmp_path: Path) -> None:
    cells = [[name, name] for name in HOSTILE]
    body = base.table([HOSTILE[0], HOSTILE[1]], cells) + chart(HOSTILE[0], {name: [(0, 1), (1, 2)] for name in HOSTILE})
    base.write_page(tmp_path / "page.html", HOSTILE[1], body)
    page = shown(driver, tmp_path / "page.html")
    assert page.title == " ".join(HOSTILE[1].split())
    seen = page.execute_script("return [...document.querySelectorAll('td')].map(cell => cell.textContent)")
    assert seen == [name.encode("utf-8", "backslashreplace").decode() for name in HOSTILE for _ in range(2)]
    assert (page.find_elements(By.TAG_NAME, "script"), measured(page)) == ([], [])
    assert complaints(page) == []


def test_a_page_that_fails_leaves_what_was_there_and_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("before")
    with pytest.raises(RuntimeError), base.PageFile(page, "title") as file:
        file.write("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert page.read_text() == "before"
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    read: list[str] = []
    reader.start()
    base.write_page(tmp_path / "pipe", "title", "body")
    reader.join(10)
    assert read[0].endswith("body</main></body></html>\n")
    assert not (tmp_path / "pipe").is_file()
