"""Check the requirements of the package on this machine: versions, devices, codecs, models, disk space, and a self-test of every modality."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from imagebind_cli import registry
from imagebind_cli.additions import package_of
from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.libraries import TORCH_FAMILY, import_fault, install_command, requirement

NEEDED = [*TORCH_FAMILY, "numpy", "pillow", "soundfile", "av", "h5py", "safetensors", "open-clip-torch"]
IMPORTED = {"pillow": "PIL", "open-clip-torch": None}  # the module to import; None: finding it is enough, importing takes seconds
EXTRAS = {
    "pyarrow": "Parquet recordings",
    "scipy": "MATLAB recordings before 7.3",
    "OpenEXR": "OpenEXR depth maps",
    "soxr": "ONE-PEACE's sounds",
}
CODECS = {"video": ["h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg"], "audio": ["aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le"]}


@dataclass
class Check:
    """One line of the report. ok: None where it is only information. mend: the command that fixes it."""

    name: str
    found: str
    ok: bool | None = None
    mend: str = ""


def check_installation() -> list[Check]:
    """Check everything that commands need. Where a package is missing or broken, nothing that needs it is tried."""
    checks = [Check("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}", sys.version_info >= (3, 11))]
    checks += [_package(name) for name in NEEDED]
    checks += [Check(name, "there" if find_spec(name) else f"not installed; only for {use}") for name, use in EXTRAS.items()]
    if all(check.ok for check in checks if check.ok is not None):
        checks += [_devices(), _sounds(), *_codecs(), *_families(), *_models(), _memory(), _disk(), *_self_tests()]
    return checks


def _package(name: str) -> Check:
    """Check whether a package is installed and can be imported together with the others."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "not installed", False, install_command(name))
    wanted = requirement(name).specifier
    module = IMPORTED.get(name, name)
    fault = import_fault(module) if module else None
    if fault:
        flag = " --force-reinstall" if wanted.contains(version, prereleases=True) else ""
        return Check(name, f"{version}, but {fault}", False, install_command(name, flag))
    outside = "" if wanted.contains(version, prereleases=True) else f", which can be imported but is not tested; required is {wanted}"
    return Check(name, version + outside, True)


def _devices() -> Check:
    import torch

    there = [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"]
    there += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    there += ["mps"] if torch.backends.mps.is_available() else []
    return Check("devices", ", ".join(there), True)


def _sounds() -> Check:
    import soundfile

    return Check("libsndfile", f"{soundfile.__libsndfile_version__}: {', '.join(sorted(soundfile.available_formats())).lower()}", True)


def _codecs() -> list[Check]:
    import av

    checks = []
    for kind, names in CODECS.items():
        there = [name for name in names if name in av.codecs_available]
        missing = [name for name in names if name not in there]
        found = ", ".join(there) + (f"; missing {', '.join(missing)}" if missing else "")
        checks.append(Check(f"{kind} codecs", found, bool(there), "pip install av"))
    return checks


def _families() -> list[Check]:
    """Check the families of models, and load what other packages add."""
    checks = [Check("families", ", ".join(registry.FAMILIES))]
    for kind, entries in registry.added().items():
        for entry in entries:
            found, ok = f"{entry.name}, of the package {package_of(entry)}", True
            try:
                registry.family(entry.name) if kind == "families" else registry.own_modality(entry.name)
            except UserError as error:
                found, ok = str(error), False
            checks.append(
                Check(kind, found, ok, "" if ok or entry.dist is None else f"pip uninstall {entry.dist.name}, or install one that fits")
            )
    return checks


def _models() -> list[Check]:
    from imagebind_cli.weights import download
    from imagebind_cli.weights.find import default_name
    from imagebind_cli.weights.published import published_models

    published = published_models()
    named = [name for name, model in published.items() if download.pulled_folder(model.place)]
    places = {model.place for model in published.values()}
    pulled = [*named, *(address for address in download.pulled_addresses() if address not in places)]
    return [Check("default model", default_name()), Check("fetched models", f"{', '.join(pulled) or 'none'} in {download.home()}")]


def _memory() -> Check:
    if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return Check("memory", "unknown on this system")
    page = os.sysconf("SC_PAGE_SIZE")
    free, total = page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
    return Check("memory", f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free; the largest encoder, huge's vision, needs 3 GB", None)


def _disk() -> Check:
    from imagebind_cli.weights import download

    folder = download.home()
    while not folder.exists():
        folder = folder.parent
    return Check("disk", f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free at {folder}; huge takes 4.8 GB")


def _self_tests() -> list[Check]:
    """Embed one generated input of every modality with the model that needs no file; say which have none."""
    import numpy as np

    from imagebind_cli.model import load

    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    inputs: dict[str, Any] = {
        "image": picture,
        "vision": picture,
        "video": (random.integers(0, 256, (8, 48, 64, 3), dtype=np.uint8), 4.0),
        "text": "a dog barking",
        "audio": ((0.1 * random.standard_normal(22_050)).astype(np.float32), 22_050),
        "depth": 1 + random.random((48, 64)),
        "thermal": random.integers(0, 256, (48, 64), dtype=np.uint8),
        "imu": random.standard_normal((6, 2000)),
    }
    model = load("tiny", device="cpu")

    def embed(modality: str) -> np.ndarray:
        return model.embed(modality, [inputs[modality]], listener=Listener())

    untried = [Check(f"embed {name}", "no sample to try it with") for name in registry.MODALITIES if name not in inputs]
    return [_tried(f"embed {modality}", partial(embed, modality)) for modality in inputs] + untried


def _tried(name: str, test: Callable[[], Any]) -> Check:
    import numpy as np

    start = time.perf_counter()
    try:
        vector = test()[0]
    except Exception as error:  # any failure is a finding
        return Check(name, f"fails: {type(error).__name__}: {error}", False, "pip install --force-reinstall imagebind-cli")
    good = abs(float(np.linalg.norm(vector)) - 1) < 1e-5
    return Check(name, f"a unit vector in {1000 * (time.perf_counter() - start):.0f} ms" if good else "not a unit vector", good)
