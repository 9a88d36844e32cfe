"""The examples of docs/integrations.md run as they stand."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests import generate

PAGE = (Path(__file__).parents[2] / "docs/integrations.md").read_text()


def examples(section):
    part = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", part, re.DOTALL)


@pytest.mark.parametrize(("section", "count"), [("sentence-transformers", 2), ("LanceDB", 1)])  # mteb's is in test_mteb.py
@pytest.mark.filterwarnings("ignore::DeprecationWarning:lancedb.*")
def test_examples_run(section, count, tmp_path, monkeypatch, capsys):
    pytest.importorskip(section.lower().replace("-", "_"))
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(["yard.png", "street.png"]):
        Image.fromarray(generate.pixels(seed)).save(name)
    generate.audio(Path("bark.wav"))
    generate.depth(Path("room.npy"))
    code = examples(section)
    assert len(code) == count
    names = {"__name__": "example"}
    for part in code:
        exec(compile(part, "docs/integrations.md", "exec"), names)
    assert capsys.readouterr().out
