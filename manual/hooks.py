"""mkdocs hooks of the manual: pages that do not stand in docs/ (the README, the changelog, one for each command) and `llms.txt`."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from manual.commands import all_commands, markdown_page  # noqa: E402

LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")
OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}  # files beside docs/ that are pages here


def on_config(config: Any) -> Any:
    """Add the commands to the navigation."""
    pages = [{" ".join(("imagebind", *command.words)): f"commands/{command.name}.md"} for command in all_commands()]
    for entry in config["nav"]:
        if isinstance(entry, dict) and "Commands" in entry:
            entry["Commands"] = pages
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made here."""
    pages = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in OUTSIDE.items()}
    pages |= {f"commands/{command.name}.md": markdown_page(command) for command in all_commands()}
    pages["llms.txt"] = _summary(files)
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to pages of the manual; what links to the code names its file."""
    here = posixpath.dirname(page.file.src_uri)
    beside_docs = page.file.src_uri in OUTSIDE.values()

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join("" if beside_docs else posixpath.join("docs", here), target))
        inside = OUTSIDE.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(inside) is not None:
            return f"[{words}]({posixpath.relpath(inside, here or '.')}{anchor})"
        if not (ROOT / path).exists():
            raise ValueError(f"{page.file.src_uri}: {target} does not exist")
        return f"{words} (`{path}`)"

    return LINK.sub(link, markdown)


def _summary(files: Files) -> str:
    """Return `llms.txt`: what this is, and each page with its first sentence, for programs that read documentation."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    lines = [readme[0], "", f"> {' '.join(readme[1].split())}", "", "## Pages", ""]
    for file in sorted(files.documentation_pages(), key=lambda file: file.src_uri):
        text = re.sub(r"^```.*?^```$", "", file.content_string, flags=re.MULTILINE | re.DOTALL)
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        first = next((part for part in text.split("\n\n") if part and part[0] not in "#|`!"), "")
        lines.append(f"- [{title[1] if title else file.name}]({file.dest_uri}): {re.split(r'(?<=[.:]) ', ' '.join(first.split()))[0]}")
    lines += ["", "## Commands", "", *(f"- `{' '.join(('imagebind', *command.words))}`: {command.summary}" for command in all_commands())]
    return "\n".join(lines) + "\n"
