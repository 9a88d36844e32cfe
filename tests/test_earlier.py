"""What an earlier commit of this program wrote is read, resumed and added to: stores in every format, and prepared samples."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from imagebind_cli.store import open_store

EARLIER = Path(__file__).parent / "data" / "earlier"
SENTENCES = ["a dog barking", "rain on a roof"]


@pytest.fixture(autouse=True)
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of what was written, in the folder to work in."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    monkeypatch.chdir(tmp_path / "earlier")


@pytest.mark.parametrize("name", ["store.h5", "array.npy", "store.safetensors", "lines.jsonl", "folder.store"])
def test_a_store_is_read_resumed_and_added_to(embed: Run, tiny: Any, name: str) -> None:
    store = open_store(name)
    assert store.ids == SENTENCES
    assert np.abs(store.vectors() - tiny.embed("text", SENTENCES)).max() <= 1e-6
    again = embed("text", *SENTENCES, "-o", name)
    assert (again.code, f"{name}: 0 embedded, 2 there already" in again.err) == (0, True), again.err
    more = embed("text", *SENTENCES, "a bell", "-o", name)
    assert (more.code, f"{name}: 1 embedded, 2 there already" in more.err) == (0, True), more.err
    assert open_store(name).ids == [*SENTENCES, "a bell"]


@pytest.mark.parametrize("name", ["prepared.tar", "prepared.h5"])
def test_prepared_samples_are_embedded_and_added_to(imagebind: Run, embed: Run, tiny: Any, name: str) -> None:
    run = embed("text", name)
    assert (run.code, run.ids) == (0, SENTENCES)
    assert np.abs(run.vectors - tiny.embed("text", SENTENCES)).max() <= 1e-6
    more = imagebind("preprocess", "text", *SENTENCES, "a bell", "-o", name, "--model", "tiny")
    assert (more.code, f"{name}: 1 prepared, 2 there already" in more.err) == (0, True), more.err
    assert embed("text", name).ids == [*SENTENCES, "a bell"]
