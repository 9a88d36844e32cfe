"""A real browser without a window, Debian's chromium driven by Selenium, for pages that the program writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


@contextmanager
def browser(folder: Path, *more: str) -> Iterator[Chrome]:
    """A browser with a new profile in the folder, and more of its options. Without chromium the test is skipped, but fails where CI runs it."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        words = "no chromium and chromedriver here; on Debian: apt-get install chromium chromium-driver"
        pytest.fail(words) if os.environ.get("CI") == "true" else pytest.skip(words)
    options = ChromeOptions()
    options.binary_location = str(programs[0])
    for option in [*OPTIONS, *more, f"--user-data-dir={folder / 'profile'}"]:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(str(programs[1]), log_output=os.devnull))
    try:
        yield driver
    finally:
        driver.quit()


def complaints(driver: Chrome) -> list[Any]:
    """What the browser's console holds since it was last asked."""
    return list(driver.get_log("browser"))
