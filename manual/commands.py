"""The manual's page of every command, as Markdown and as a man page, from what `--help-all` knows.

python -m manual.commands FOLDER    # writes FOLDER/man1/imagebind-embed.1 and so on
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import typer

from imagebind_cli import __version__
from imagebind_cli.cli import app
from imagebind_cli.cli.command import SHOW_ALL, ModalityGroup, write_sections

EXIT_CODES = (  # as docs/outputs.md explains them
    ("0", "Everything was done."),
    ("1", "Some inputs failed, each with a line on stderr; the rest was done."),
    ("2", "Wrong usage; nothing was done."),
)


@dataclass(frozen=True)
class Command:
    """A command of the command line. words: as it is typed, behind `imagebind`. context: click's, in which all of its options are listed."""

    words: tuple[str, ...]
    click: Any
    context: Any

    @property
    def name(self) -> str:
        """The words as one name, as `imagebind-store-check`."""
        return "-".join(("imagebind", *self.words))

    @property
    def summary(self) -> str:
        """The first sentence of the help."""
        return re.split(r"(?<=\.)\s", " ".join((self.click.help or "").split()), maxsplit=1)[0]

    @property
    def usage(self) -> str:
        """The line that shows its arguments."""
        return " ".join([self.context.command_path, *self.click.collect_usage_pieces(self.context)])


class Formatter(Protocol):
    """The interface that `write_sections` writes to: `MarkdownPage` and `ManPage`."""

    def section(self, heading: str) -> Any:
        """Return a context manager that writes a heading."""

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 0) -> None:
        """Write names with their texts."""

    def write(self, text: str) -> None:
        """Write a paragraph."""


def all_commands() -> Iterator[Command]:
    """Yield every command and subcommand. Modalities are not pages of their own: their command's page lists all options."""
    root = typer.main.get_command(app)
    context = root.make_context("imagebind", [], resilient_parsing=True)
    yield from _below(root, (), context)


def _below(click: Any, words: tuple[str, ...], context: Any) -> Iterator[Command]:
    context.meta[SHOW_ALL] = True
    yield Command(words, click, context)
    if isinstance(click, ModalityGroup):
        return
    for name, command in getattr(click, "commands", {}).items():
        below = command.make_context(name, [], parent=context, resilient_parsing=True)
        yield from _below(command, (*words, name), below)


class MarkdownPage:
    """The page of a command as Markdown."""

    def __init__(self, command: Command) -> None:
        self.lines = [f"# {' '.join(('imagebind', *command.words))}", "", "```", command.usage, "```", ""]
        self.write(command.click.help or "")

    @contextmanager
    def section(self, heading: str) -> Iterator[None]:
        """Write a heading of the second level."""
        self.lines += [f"## {heading}", ""]
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 0) -> None:
        """Write a table."""
        self.lines += ["| | |", "|---|---|", *(f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows), ""]

    def write(self, text: str) -> None:
        """Write paragraphs, and examples as code."""
        for part, is_example in _parts(text):
            self.lines += ["```", *(line.strip() for line in part.splitlines()), "```", ""] if is_example else [_prose(part), ""]


class ManPage:
    """The page of a command in the language of man pages."""

    def __init__(self, command: Command) -> None:
        self.lines = [
            f'.TH "{command.name.upper()}" 1 "" "imagebind-cli {__version__}"',
            ".SH NAME",
            f"{command.name} \\- {_roff(command.summary)}",
        ]
        self.lines += [".SH SYNOPSIS", _roff(command.usage), ".SH DESCRIPTION"]
        self.write(command.click.help or "")

    @contextmanager
    def section(self, heading: str) -> Iterator[None]:
        """Write a heading of the first level."""
        self.lines.append(f'.SH "{heading.upper()}"')
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 0) -> None:
        """Write tagged paragraphs."""
        for name, text in rows:
            self.lines += [".TP", f"\\fB{_roff(name)}\\fR", _roff(text)]

    def write(self, text: str) -> None:
        """Write paragraphs, and examples line by line."""
        for part, is_example in _parts(text):
            lines = [_roff(line.strip()) for line in part.splitlines()]
            self.lines += [".PP", ".nf", *lines, ".fi"] if is_example else [".PP", *lines]


def markdown_page(command: Command) -> str:
    """Return a command's page as Markdown."""
    page = MarkdownPage(command)
    _fill(page, command)
    return "\n".join(page.lines) + "\n"


def man_page(command: Command) -> str:
    """Return a command's man page."""
    page = ManPage(command)
    _fill(page, command)
    with page.section("Exit status"):
        page.write_dl(EXIT_CODES)
    return "\n".join(page.lines) + "\n"


def _fill(page: Formatter, command: Command) -> None:
    below = getattr(command.click, "commands", {})
    if below:
        with page.section("Modalities" if isinstance(command.click, ModalityGroup) else "Commands"):
            page.write_dl([(name, each.get_short_help_str(200)) for name, each in below.items()])
    write_sections(command.click.get_params(command.context), command.context, page)


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the paragraphs of a help text, each with whether it is an example, whose lines are kept."""
    for part in re.split(r"\n\s*\n", text.replace("\b", "").strip()):
        yield part, any(line.lstrip().startswith("imagebind ") for line in part.splitlines())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")


def _roff(text: str) -> str:
    """Escape a line for roff: a backslash, a hyphen that stands for itself, letters beyond ASCII, and a dot or quote that would begin a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def write_man_pages(folder: Path) -> None:
    """Write the man page of every command into `man1` of a folder."""
    place = folder / "man1"
    place.mkdir(parents=True, exist_ok=True)
    for command in all_commands():
        (place / f"{command.name}.1").write_text(man_page(command), encoding="utf-8")


if __name__ == "__main__":
    write_man_pages(Path(sys.argv[1]))
