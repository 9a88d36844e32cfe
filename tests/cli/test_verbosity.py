"""--quiet, --verbose and IMAGEBIND_DEBUG: how much is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import generate
from tests.conftest import Run


@pytest.mark.parametrize("line", ["-q embed image a.png gone.png -o v.h5", "embed image a.png gone.png -o v.h5 --quiet"])
def test_quiet_leaves_errors_and_failures(here: Run, line: str) -> None:
    generate.picture(Path("a.png"))
    done = here(line)
    assert (done.code, done.err) == (1, "imagebind: gone.png: no such file or folder\n")
    assert here("-q embed image a.png --device gpu").err.startswith("imagebind: unknown device 'gpu'")


@pytest.mark.parametrize("line", ["-v embed image a.png", "embed image a.png --verbose"])
def test_verbose_names_readers_times_and_what_sets_options(here: Run, line: str) -> None:
    generate.picture(Path("a.png"))
    plain, done = here("embed image a.png"), here(line)
    assert done.out == plain.out
    assert "in force: IMAGEBIND_MODEL=tiny" in done.err
    assert "image: read by imagebind_cli.encoders.vision" in done.err
    assert "a.png: embedded after" in done.err
    assert "imagebind: done after" in done.err
    assert "read by" not in plain.err


def test_both_at_once_are_refused(here: Run) -> None:
    assert here("-q embed text a -v").code == 2
    assert "exclude each other" in here("weights list -q -v").err


def test_debug_gives_the_traceback_beside_the_line(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in here("weights info nosuch").err
    monkeypatch.setenv("IMAGEBIND_DEBUG", "1")
    done = here("weights info nosuch")
    assert done.code == 1
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("imagebind: no model 'nosuch'")
