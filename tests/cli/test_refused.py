"""What the system refuses to write: one line with the name of the file, whichever command writes it."""

from pathlib import Path

import pytest

from imagebind_cli.prepared import member_key
from tests import generate
from tests.conftest import UNTRAINED, Python, Run

NAMES = "\n".join(f"gone{number}.png" for number in range(100))
LIMITED = """
import resource
from imagebind_cli.cli import run_command_line
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # the kernel's own refusal, as a full disk gives it
run_command_line()
"""


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("embed", "image", "a.png", "-o", "v.jsonl"), "v.jsonl"),
        (("embed", "image", "a.png", "-o", "v.safetensors"), "v.safetensors"),
        (("embed", "image", "--errors", "failed.jsonl"), "failed.jsonl"),
        (("preprocess", "image", "a.png", "-o", "s.tar"), "s.tar"),
        (("preprocess", "image", "a.png", "--preview", "look"), f"look/{member_key('a.png')}.image.png"),
        (("retrieve", "photos.h5", "--like", "a.png", "--html", "near.html"), "near.html"),
    ],
)
def test_a_full_disk_is_told_with_the_name_of_the_file(
    embed: Run, python: Python, tmp_path: Path, arguments: tuple[str, ...], name: str
) -> None:
    generate.picture(tmp_path / "a.png")
    generate.picture(tmp_path / "b.png", seed=1)
    if arguments[0] == "retrieve":
        assert embed("image", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "photos.h5").code == 0
        arguments = tuple(str(tmp_path / "a.png") if argument == "a.png" else argument for argument in arguments)
    run = python("-c", LIMITED, *arguments, cwd=tmp_path, input=NAMES)
    notices = [line for line in run.stderr.splitlines() if UNTRAINED not in line and "gone" not in line]
    assert (run.returncode, notices) == (1, [f"imagebind: {name}: File too large"])


def test_a_folder_that_is_not_ours_is_told_in_one_line(imagebind: Run, tmp_path: Path) -> None:
    generate.picture(tmp_path / "a.png")
    run = imagebind("preprocess", "image", tmp_path / "a.png", "--preview", "/sys/look")
    assert (run.code, len(run.notices)) == (1, 1)
    assert run.notices[0].startswith("imagebind: /sys/look: ")
    run = imagebind("preprocess", "image", tmp_path / "a.png", "--preview", tmp_path / "a.png")
    assert (run.code, run.notices) == (1, [f"imagebind: {tmp_path / 'a.png'}: exists and is not a folder"])


def test_a_page_of_previews_takes_names_that_are_no_text(imagebind: Run, tmp_path: Path) -> None:
    odd = generate.picture(tmp_path / "\udcff.png")
    run = imagebind("preprocess", "image", odd, "--preview", tmp_path / "look")
    assert run.code == 0, run.err
    assert "\\udcff.png" in (tmp_path / "look/index.html").read_text()
