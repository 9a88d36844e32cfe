"""The flags of published suites, which `zeroshot`, `locate` and `moments` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.output import check_output_file
from imagebind_cli.errors import UsageError


class OpenedSuite(Protocol):
    """A suite with the modality of its inputs."""

    @property
    def modality(self) -> str:
        """Return the modality of its inputs."""


S = TypeVar("S", bound=OpenedSuite)

suite_option = partial(typer.Option, rich_help_panel="Published suites")

SuiteName = Annotated[str | None, suite_option(metavar="NAME|FILE", help="Run this published evaluation; an unknown name lists them all.")]
SuiteRoot = Annotated[Path | None, suite_option(metavar="FOLDER", help="Folder of the suite's dataset.")]
SuiteOption = Annotated[list[str] | None, suite_option(metavar="NAME=VALUE", hidden=True, help="Option of the suite. Repeatable.")]
Limit = Annotated[int | None, suite_option(metavar="N", min=1, help="Use only the first N items of the suite.")]
SuiteReport = Annotated[
    Path | None, suite_option(metavar="FILE", help="Write scores and their origin as JSON; - for stdout, in place of lines.")
]
Draws = Annotated[int, suite_option(metavar="N", min=0, hidden=True, help="Bootstrap draws behind each interval; 0 for none.")]


def suite_settings(texts: Iterable[str]) -> dict[str, str]:
    """Read NAME=VALUE as options of a suite.

    Raises:
        UsageError: a malformed one.
    """
    pairs = list(texts)
    malformed = next((pair for pair in pairs if "=" not in pair), None)
    if malformed is not None:
        raise UsageError(f"--suite-option {malformed!r}: NAME=VALUE is needed")
    return dict(pair.split("=", 1) for pair in pairs)


def required_root(root: Path | None) -> Path:
    """Return the folder of a suite's dataset.

    Raises:
        UsageError: it was not given.
    """
    if root is None:
        raise UsageError("--suite needs --root, the folder of its dataset")
    return root


def open_suite_of(open_suite: Callable[..., S], name: str, root: Path | None, settings: list[str] | None, modality: str | None) -> S:
    """Open a suite of a command that is asked for one modality, None for any.

    Args:
        open_suite: opens it by its name, the folder of its dataset and its options.
    Raises:
        UsageError: no folder, a malformed option, or a suite of another modality. UserError: as `open_suite`.
    """
    suite = open_suite(name, required_root(root), suite_settings(settings or ()))
    if modality not in (None, suite.modality):
        raise UsageError(f"suite {name} is of {suite.modality}, not {modality}")
    return suite


def refuse_with_suite(given: Mapping[str, Any]) -> None:
    """Refuse the first of some options, by its name, that says what a suite says itself.

    Raises:
        UsageError: one was given.
    """
    for name, value in given.items():
        if value:
            refuse_useless(name, f"{name}: a suite has its own")


def refuse_without_suite(given: Mapping[str, Any]) -> None:
    """Refuse the first of some options, by its name, that only a suite takes.

    Raises:
        UsageError: one was given.
    """
    for name, value in given.items():
        if value:
            refuse_useless(name, f"{name}: only a --suite takes it")


def check_suite_report(path: Path | None) -> None:
    """Refuse a file for the report that could not be written at the end.

    Raises:
        UserError: its folder does not exist, or it cannot be written to.
    """
    if path is not None:
        check_output_file(path)
