"""The manual: a page for every command, as Markdown and for `man`, and a site whose links all lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from manual.commands import Command, all_commands, man_page, markdown_page, write_man_pages

ROOT = Path(__file__).parents[2]
COMMANDS = list(all_commands())


def test_every_command_has_a_page() -> None:
    names = {command.name for command in COMMANDS}
    assert {"imagebind", "imagebind-embed", "imagebind-store-check", "imagebind-weights-pull"} <= names
    assert len(names) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_page_lists_every_option_of_its_command(command: Command) -> None:
    page, man = markdown_page(command), man_page(command).replace("\\-", "-")
    for parameter in command.click.get_params(command.context):
        for option in parameter.opts:
            if option.startswith("--"):
                assert re.search(rf"\| `[^|]*{option}\b", page), option
                assert re.search(rf"^\\fB.*{option}\b", man, re.MULTILINE), option
    assert page.startswith(f"# {' '.join(('imagebind', *command.words))}\n")
    assert command.summary in man


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_accepts_every_man_page(tmp_path: Path) -> None:
    write_man_pages(tmp_path)
    pages = sorted((tmp_path / "man1").iterdir())
    assert {page.stem for page in pages} == {command.name for command in COMMANDS}
    done = subprocess.run(["groff", "-man", "-ww", "-z", "-t", *pages], capture_output=True, text=True, check=True)
    assert done.stderr == ""


class Addresses(HTMLParser):
    """Collects what a page loads and links to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe") and values.get("src"):
            self.loaded.append(str(values["src"]))
        if tag == "link" and values.get("rel") in ("stylesheet", "preload"):
            self.loaded.append(str(values["href"]))


def test_the_site_is_built_strictly_and_needs_no_other_host(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", ROOT / "manual" / "mkdocs.yml", "-d", tmp_path]
    done = subprocess.run(build, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    for path in tmp_path.rglob("*.html"):
        page = Addresses()
        page.feed(path.read_text(encoding="utf-8"))
        assert [address for address in page.loaded if "//" in address] == [], path
    listed = (tmp_path / "llms.txt").read_text(encoding="utf-8")
    assert listed.startswith("# imagebind-cli\n\n> ")
    pages = re.findall(r"\]\(([^)]+\.html)\)", listed)
    assert len(pages) > 20
    assert all((tmp_path / page).is_file() for page in pages)
