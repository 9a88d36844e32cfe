"""`imagebind doctor`: what is installed, what is missing, and whether every modality works here."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from imagebind_cli.libraries import TORCH_FAMILY, import_fault, install_command, requirement

NEEDED = [*TORCH_FAMILY, "numpy", "pillow", "soundfile", "av", "h5py", "safetensors", "open-clip-torch"]
IMPORTED = {"pillow": "PIL", "open-clip-torch": None}  # found, not imported: that takes seconds
EXTRAS = {"pyarrow": "Parquet recordings", "scipy": "MATLAB files of suites", "OpenEXR": "OpenEXR depth maps"}
CODECS = {"video": ["h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg"], "audio": ["aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le"]}


@dataclass
class Check:
    """One line of the report. ok: None where it is only told. mend: the command that mends it."""

    name: str
    found: str
    ok: bool | None = None
    mend: str = ""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="JSON and no table.")] = False) -> None:
    """Versions, devices, codecs, cached weights, room, and a self-test per modality on generated input.

    Exit code 1 when something a command needs is missing, with the line that mends it.
    """
    checks = [Check("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}", sys.version_info >= (3, 11))]
    checks += [_package(name) for name in NEEDED]
    checks += [Check(name, "there" if find_spec(name) else f"not there; only for {use}") for name, use in EXTRAS.items()]
    if all(check.ok for check in checks if check.ok is not None):
        checks += [_devices(), _sounds(), *_codecs(), *_models(), _memory(), _disk(), *_self_tests()]
    bad = [check for check in checks if check.ok is False]
    if as_json:
        print(json.dumps({"ok": not bad, "checks": [asdict(check) for check in checks]}))  # noqa: T201
    else:
        for check in checks:
            mark = {True: "ok", False: "BAD", None: ""}[check.ok]
            print(f"{mark:<4}{check.name:<17}{check.found}" + (f"\n    mend it: {check.mend}" if check.ok is False and check.mend else ""))  # noqa: T201
    if bad:
        raise typer.Exit(1)


def _package(name: str) -> Check:
    """Check whether a package is installed and can be imported beside the others."""
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
    outside = "" if wanted.contains(version, prereleases=True) else f", which imports but is not tested here; asked for is {wanted}"
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
        lacking = [name for name in names if name not in there]
        checks.append(
            Check(
                f"{kind} codecs", ", ".join(there) + (f"; lacking {', '.join(lacking)}" if lacking else ""), bool(there), "pip install av"
            )
        )
    return checks


def _models() -> list[Check]:
    from imagebind_cli.weights import download, model_config, origin
    from imagebind_cli.weights.find import default_name

    pulled = [name for name in model_config.packaged_names() if download.pulled_folder(name)]
    pulled += [json.loads(path.read_text())["address"] for path in sorted((download.home() / "hf").glob(f"*/{origin.ORIGIN}"))]
    return [Check("default model", default_name()), Check("fetched models", f"{', '.join(pulled) or 'none'} in {download.home()}")]


def _memory() -> Check:
    if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return Check("memory", "not told by this system")
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
    """Embed one generated input of every modality with the model that needs no file."""
    import numpy as np

    from imagebind_cli.model import load

    random = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        "image": random.integers(0, 256, (48, 64, 3), dtype=np.uint8),
        "video": (random.integers(0, 256, (8, 48, 64, 3), dtype=np.uint8), 4.0),
        "text": "a dog barking",
        "audio": ((0.1 * random.standard_normal(22_050)).astype(np.float32), 22_050),
        "depth": 1 + random.random((48, 64)),
        "thermal": random.integers(0, 256, (48, 64), dtype=np.uint8),
        "imu": random.standard_normal((6, 2000)),
    }
    model = load("tiny", device="cpu")
    return [_tried(f"embed {modality}", lambda m=modality, v=value: model.embed(m, [v])) for modality, value in inputs.items()]  # type: ignore[misc]


def _tried(name: str, test: Callable[[], Any]) -> Check:
    import numpy as np

    start = time.perf_counter()
    try:
        vector = test()[0]
    except Exception as error:  # whatever goes wrong is what is asked for here
        return Check(name, f"fails: {type(error).__name__}: {error}", False, "pip install --force-reinstall imagebind-cli")
    good = abs(float(np.linalg.norm(vector)) - 1) < 1e-5
    return Check(name, f"a unit vector in {1000 * (time.perf_counter() - start):.0f} ms" if good else "no unit vector", good)
