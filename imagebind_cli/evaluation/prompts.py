"""Prompts for class names, as in CLIP's zero-shot classification: a file of templates, one a line, with `{}` for the name.

`clip` is the set of 80 that CLIP published for ImageNet; ImageBind uses it for every modality (arXiv 2305.05665, B.3). The sets named after
a modality, and `plain`, the name alone, are this project's.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from imagebind_cli.errors import UserError
from imagebind_cli.tabular import read_lines

TEMPLATES = resources.files("imagebind_cli.evaluation") / "templates"
DEFAULT = "clip"


@dataclass(frozen=True)
class Templates:
    """A set of templates. name: the set or file it was read from. cleaned: whether the sentences are cleaned, see `cleaned_text`."""

    name: str
    lines: tuple[str, ...]
    cleaned: bool = False

    def fill(self, name: str) -> list[str]:
        """Put a class name into every template."""
        sentences = [line.replace("{}", name) for line in self.lines]
        return [cleaned_text(sentence) for sentence in sentences] if self.cleaned else sentences

    def record(self) -> dict[str, str | int]:
        """Return a report's entry on the set: its name, its size, a hash of the text, and that sentences are cleaned."""
        digest = hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
        return {"name": self.name, "count": len(self.lines), "sha256": digest, **({"cleaned": True} if self.cleaned else {})}


def cleaned_text(text: str) -> str:
    """Clean a text as ONE-PEACE's evaluation does: lower case, no punctuation before it, single spaces.

    A single line break inside the text stays, as it does there; punctuation behind a leading space does too.
    """
    without_marks = text.lower().lstrip(",.!?*#:;~")
    return re.sub(r"\s{2,}|\t", " ", without_marks).rstrip("\n").strip(" ")


def template_sets() -> list[str]:
    """List the sets in the package."""
    return sorted(entry.name.removesuffix(".txt") for entry in TEMPLATES.iterdir() if entry.name.endswith(".txt"))


def read_templates(chosen: str = DEFAULT) -> Templates:
    """Read a set by name, or a file with a template a line.

    Raises:
        UserError: there is no such set or file, the file is empty, a template has no `{}` or appears twice.
    """
    known = template_sets()
    if chosen not in known and not os.path.lexists(chosen):
        raise UserError(f"templates {chosen!r}: no such file, and not one of {', '.join(known)}")
    lines = (TEMPLATES / f"{chosen}.txt").read_text(encoding="utf-8").splitlines() if chosen in known else read_lines(Path(chosen))
    return check_templates(chosen, [line.strip() for line in lines if line.strip()])


def check_templates(name: str, lines: list[str]) -> Templates:
    """Return lines as a set of templates; raise as `read_templates` does."""
    if not lines:
        raise UserError(f"{name}: no templates in it")
    for number, line in enumerate(lines):
        if "{}" not in line:
            raise UserError(f"{name}: template {line!r} has no {{}} where the class name goes")
        if line in lines[:number]:
            raise UserError(f"{name}: template {line!r} is listed twice")
    return Templates(name, tuple(lines))
