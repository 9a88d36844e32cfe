"""The search page in a real browser: typed, dropped and recorded queries, pictures and players, heat maps, filters, keyboard and labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from imagebind_cli import Model, corpus
from tests import generate
from tests.browsing import browser, complaints
from tests.serving import Client, serving

FAKE_DEVICES = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("browser"), *FAKE_DEVICES) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for modality in ("image", "audio", "depth", "imu", "video", "thermal"):
        files = [generate.sample(modality, folder, seed) for seed in range(2)]
        corpus.embed(tiny, modality, files, folder / f"{modality}.h5")
    corpus.embed(tiny, "text", ["<b>a dog</b>", "a cat"], folder / "text.h5")
    return folder


KINDS = ("image", "audio", "depth", "imu", "video", "thermal", "text")


@pytest.fixture(scope="module")
def client(tiny: Model, folder: Path) -> Iterator[Client]:
    with serving(tiny, [folder / f"{kind}.h5" for kind in KINDS], root=folder) as client:
        yield client


@pytest.fixture
def page(driver: Chrome, client: Client) -> Chrome:
    """The page, newly opened."""
    complaints(driver)
    driver.get(client.address)
    until(driver, lambda: "Model tiny, untrained" in text(driver, "#state"))
    return driver


def until(driver: Chrome, true: Any) -> Any:
    return WebDriverWait(driver, 20, 0.05, [StaleElementReferenceException]).until(lambda _: true())


def one(driver: Chrome, selector: str) -> WebElement:
    return driver.find_element(By.CSS_SELECTOR, selector)


def text(driver: Chrome, selector: str) -> str:
    return one(driver, selector).text


def cards(driver: Chrome) -> list[WebElement]:
    return driver.find_elements(By.CSS_SELECTOR, "#results > li")


def searched(driver: Chrome) -> list[WebElement]:
    """The answers, once their pictures are there."""
    until(driver, lambda: re.match(r"\d+ answer", text(driver, "#state")))
    until(driver, lambda: all(card.find_elements(By.CSS_SELECTOR, "img, blockquote, small:first-child") for card in cards(driver)))
    return cards(driver)


def test_a_sentence_finds_things_of_every_kind(page: Chrome, client: Client) -> None:
    box = one(page, "#text")
    box.send_keys("a dog", Keys.ENTER)
    found = searched(page)
    wanted = client.post("/search", {"query": "a dog", "k": 12}).json["results"]
    assert [card.find_element(By.CSS_SELECTOR, "meter").get_attribute("aria-label") for card in found] == [
        f"score of {row['id']}" for row in wanted
    ]
    pictures = page.execute_script("return [...document.querySelectorAll('#results img')].map(i => [i.alt, i.naturalWidth])")
    assert len(pictures) == sum(row["modality"] != "text" for row in wanted)
    assert all(width > 30 and re.match(r"result \d+: (image|audio|depth|imu|video|thermal) ", alt) for alt, width in pictures)
    quotes = [quote.text for quote in page.find_elements(By.CSS_SELECTOR, "blockquote")]
    assert quotes == [row["id"] for row in wanted if row["modality"] == "text"]
    assert page.switch_to.active_element.get_attribute("id") == "found"
    outside = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith((client.address, "data:")) for name in outside)
    assert complaints(page) == []


def test_players_play(page: Chrome) -> None:
    one(page, "#text").send_keys("rain", Keys.ENTER)
    searched(page)
    until(page, lambda: page.execute_script("return [...document.querySelectorAll('audio')].every(a => a.readyState > 0)"))
    assert len(page.find_elements(By.CSS_SELECTOR, "#results audio[aria-label^='play ']")) == 2
    page.execute_script("document.querySelector('#results audio').play()")
    until(page, lambda: page.execute_script("return document.querySelector('#results audio').currentTime > 0.1"))
    assert complaints(page) == []


def test_files_are_combined_with_weights(page: Chrome, client: Client, folder: Path) -> None:
    image, audio, depth, imu = (generate.sample(kind, folder, 0) for kind in ("image", "audio", "depth", "imu"))
    one(page, "#files").send_keys("\n".join([image, audio, depth, imu]))
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#parts img")) == 4)
    kinds = [Select(select).first_selected_option.text for select in page.find_elements(By.CSS_SELECTOR, "#parts select")]
    assert kinds[:2] == ["image", "audio"]
    labels = [one.get_attribute("aria-label") for one in page.find_elements(By.CSS_SELECTOR, "#parts input, #parts select, #parts button")]
    assert all(labels)
    for number, kind in enumerate(("image", "audio", "depth", "imu")):
        Select(page.find_elements(By.CSS_SELECTOR, "#parts select")[number]).select_by_value(kind)
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#parts img")) == 4)
    weights = page.find_elements(By.CSS_SELECTOR, "#parts .weight")
    weights[1].clear()
    weights[1].send_keys("-0.5")
    one(page, "#text").send_keys("rain")
    one(page, "#query button").click()
    found = searched(page)
    query = [{"text": "rain"}, {"image": f"file:{image}"}, {"audio": f"file:{audio}", "weight": -0.5}]
    query += [{"depth": f"file:{depth}"}, {"imu": f"file:{imu}"}]
    wanted = client.post("/search", {"query": query, "k": 12}).json["results"]
    assert [card.find_element(By.CSS_SELECTOR, "meter").get_attribute("aria-label") for card in found] == [
        f"score of {row['id']}" for row in wanted
    ]
    page.find_elements(By.CSS_SELECTOR, "#parts button")[0].click()
    assert len(page.find_elements(By.CSS_SELECTOR, "#parts > li")) == 3
    assert complaints(page) == []


def test_a_file_is_dropped(page: Chrome) -> None:
    page.execute_script("""
        const data = new DataTransfer();
        data.items.add(new File(["time,ax,ay,az,gx,gy,gz\\n" + [...Array(600).keys()].map(i => `${i / 100},0,0,9.8,0,0,${Math.sin(i)}`).join("\\n")],
            "walk.csv", {type: "text/csv"}));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    """)
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, "#parts img"))
    assert Select(one(page, "#parts select")).first_selected_option.text == "imu"
    one(page, "#query button").click()
    assert len(searched(page)) == 12
    assert complaints(page) == []


def test_a_sound_and_a_picture_are_recorded(page: Chrome) -> None:
    button = one(page, "#sound")
    button.click()
    until(page, lambda: button.get_attribute("aria-pressed") == "true")
    assert button.text == "Stop recording"
    page.execute_script("return new Promise(resolve => setTimeout(resolve, 1200))")
    button.click()
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, "#parts audio"))
    one(page, "#camera").click()
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#parts img")) == 2)
    one(page, "#query button").click()
    assert len(searched(page)) == 12
    assert complaints(page) == []


def test_a_heat_map_says_where(page: Chrome) -> None:
    one(page, "#text").send_keys("a dog", Keys.ENTER)
    searched(page)
    for kind in ("image", "audio"):
        place = f"//li[.//small[starts-with(., '{kind}')]]"
        card = page.find_element(By.XPATH, place)
        button = card.find_element(By.XPATH, ".//button[.='Where?']")
        button.click()
        until(page, lambda button=button: button.get_attribute("aria-pressed") == "true")
        picture = card.find_element(By.CSS_SELECTOR, "img")
        assert str(picture.get_attribute("alt")).startswith("heat map of a dog over ")
        assert "an empty query" in card.text
        assert len(card.find_elements(By.CSS_SELECTOR, "audio")) == (kind == "audio")
        button.click()
        until(page, lambda card=card: page.execute_script("return arguments[0].querySelector('img')?.alt.startsWith('result ')", card))
    assert complaints(page) == []


def test_answers_are_filtered_and_lead_on(page: Chrome) -> None:
    one(page, "#text").send_keys("a dog")
    for kind in KINDS[1:]:
        one(page, f"#kinds input[value={kind}]").click()
    one(page, "#query button").click()
    assert len(searched(page)) == 2
    one(page, "#kinds input[value=audio]").click()
    one(page, "#stores input[value='image.h5']").click()
    one(page, "#query button").click()
    until(page, lambda: all("audio" in card.text for card in cards(page)))
    more = one(page, "#results button")
    more.click()
    until(page, lambda: text(page, "#state") == "1 answer.")  # an item is not among its own answers
    assert "an item of the stores" in text(page, "#parts")
    assert complaints(page) == []


def test_problems_are_told(page: Chrome, tmp_path: Path) -> None:
    one(page, "#query button").click()
    until(page, lambda: text(page, "#problem") == "type a sentence or add a file first")
    assert one(page, "#problem").get_attribute("role") == "alert"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    one(page, "#files").send_keys(str(tmp_path / "broken.png"))
    until(page, lambda: "not a readable picture" in text(page, "#parts"))
    one(page, "#query button").click()
    until(page, lambda: "not a readable picture" in text(page, "#problem"))
    assert all("422" in complaint["message"] for complaint in complaints(page))  # the browser's own lines


def test_the_keyboard_reaches_everything_and_everything_has_a_name(page: Chrome) -> None:
    one(page, "#text").send_keys("a dog", Keys.ENTER)
    searched(page)
    nameless = page.execute_script("""
        return [...document.querySelectorAll("button, input, select, audio, meter, img")].filter(e =>
            e.checkVisibility() && !(e.getAttribute("aria-label") || e.alt || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)
    """)
    assert nameless == []
    page.execute_script("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    reached = set()
    for _ in range(120):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.add(
            page.execute_script("const e = document.activeElement; return e.id || e.getAttribute('aria-label') || e.value || e.textContent")
        )
    buttons = page.execute_script("return [...document.querySelectorAll('#results button')].map(b => b.getAttribute('aria-label'))")
    assert {"text", "files", "sound", "camera", "k", "each", *buttons} <= reached
    assert one(page, "html").get_attribute("lang") == "en"
    assert complaints(page) == []


def test_a_token_is_asked_for(driver: Chrome, tiny: Model, folder: Path) -> None:
    with serving(tiny, [folder / "text.h5"], token="secret") as client:
        driver.get(client.address)
        until(driver, lambda: one(driver, "#entry").is_displayed())
        assert "a token is needed" in text(driver, "#problem")
        one(driver, "#token").send_keys("secret", Keys.ENTER)
        until(driver, lambda: "Model tiny" in text(driver, "#state"))
        assert not one(driver, "#entry").is_displayed()
        one(driver, "#text").send_keys("a dog", Keys.ENTER)
        assert len(searched(driver)) == 2
        driver.execute_script("sessionStorage.clear()")


def test_its_policy_lets_nothing_else_run(page: Chrome, client: Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    page.execute_script("""
        const script = document.createElement("script");
        script.textContent = "document.title = 'run'";
        document.body.append(script);
    """)
    assert page.title == "imagebind search"
    assert any("Content Security Policy" in complaint["message"] for complaint in complaints(page))


def test_the_list_of_requests_needs_nothing_else(driver: Chrome, client: Client) -> None:
    complaints(driver)
    driver.get(f"{client.address}/docs")
    headings = [heading.text for heading in driver.find_elements(By.TAG_NAME, "h2")]
    paths = client.get("/openapi.json").json["paths"]
    assert {heading.split(" ", 1)[1] for heading in headings if " " in heading} == set(paths)
    assert {"POST /v1/embeddings", "POST /search", "POST /vectorize", "GET /metrics"} <= set(headings)
    assert "per_modality" in text(driver, "main")
    outside = driver.execute_script(
        "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).map(e => e.name)"
    )
    assert outside == []
    assert complaints(driver) == []
