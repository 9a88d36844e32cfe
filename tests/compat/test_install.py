"""The distribution: what a wheel of it provides, and that it refuses to share its import name with another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installing import REPOSITORY, install


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the distribution into."""
    source, folder = tmp_path_factory.mktemp("source") / "compat", tmp_path_factory.mktemp("installed")
    install("compat", source, folder)
    return folder


def python(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run code with every warning an error, and with packages in these folders besides the environment's and `imagebind_cli`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*folders, REPOSITORY]))}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_an_installed_one_is_imported_silently_and_without_old_packages(installed: Path) -> None:
    code = """
import logging, sys
logging.basicConfig(level=logging.INFO)
import imagebind
from imagebind import data
from imagebind.models.imagebind_model import ModalityType, imagebind_huge
print(imagebind.__file__)
print(*(name for name in ("pytorchvideo", "decord", "fvcore", "iopath", "timm", "pkg_resources") if name in sys.modules))
"""
    done = python(code, installed)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(installed / "imagebind" / "__init__.py"), ""]
    assert (installed / "imagebind" / "py.typed").is_file()


@pytest.mark.parametrize("name", ["imagebind", "ImageBind_Packaged"])
def test_another_provider_of_the_name_is_refused(installed: Path, tmp_path: Path, name: str) -> None:
    record = tmp_path / f"{name}-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (record / "top_level.txt").write_text("imagebind\n")
    done = python("import imagebind", installed, tmp_path)
    plain = name.lower().replace("_", "-")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: imagebind-compat and {plain} both provide the package imagebind, and their files may be mixed; "
        f"remove both, pip uninstall -y imagebind-compat {plain}, and install the one to keep"
    )


def test_the_sound_backend_of_torchaudio_is_not_used() -> None:
    for path in (REPOSITORY / "compat").rglob("*.py"):
        assert "torchaudio.load" not in path.read_text(), path
