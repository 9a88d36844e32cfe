"""Cold start: one sound clip to one vector from a new process, ours beside the published code, on weights of the published size.

    python -m benchmarks.cold_start [--runs 3] [--work DIR]

The peer is `imagebind-unofficial` from the package index, in an environment of its own that borrows this one's torch. Its data module
does not import on today's packages (pkg_resources, pytorchvideo, decord), so a blank stands in for it and the peer gets torchaudio's
filterbank directly: everything it is timed for is its own model code. Both embed three windows of one 5-second clip.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.machine import machine
from benchmarks.published_weights import published_shapes, write_published_weights
from imagebind_cli.weights import model_config

PEER = """
import sys, types, json
sys.modules["imagebind.data"] = types.ModuleType("imagebind.data")  # its imports are gone from today's packages
import torch, torchaudio, soundfile
from imagebind.models.imagebind_model import ImageBindModel
weights, sound = sys.argv[1:]
model = ImageBindModel(vision_embed_dim=1280, vision_num_blocks=32, vision_num_heads=16, text_embed_dim=1024, text_num_blocks=24,
    text_num_heads=16, out_embed_dim=1024, audio_drop_path=0.1, imu_drop_path=0.7)
model.load_state_dict(torch.load(weights))
model.eval()
samples, rate = soundfile.read(sound, dtype="float32")
waveform = torch.from_numpy(samples)[None]
clips = []
for start in (0, 1.5, 3):
    clip = waveform[:, int(start * rate):int((start + 2) * rate)]
    clip -= clip.mean()
    mel = torchaudio.compliance.kaldi.fbank(clip, htk_compat=True, sample_frequency=rate, use_energy=False, window_type="hanning",
        num_mel_bins=128, dither=0.0, frame_length=25, frame_shift=10).T
    clips.append((torch.nn.functional.pad(mel, (0, 204 - mel.shape[1]))[None] + 4.268) / 9.138)
with torch.no_grad():
    vector = model({"audio": torch.stack(clips)[None]})["audio"][0]
print(json.dumps((vector / vector.norm()).tolist()))
"""


# A child's peak memory counts its parent's at the fork, so that the parent must be small.
LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
printed, talk = process.stdout.read(), process.stderr.read()
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
print(json.dumps([seconds, usage.ru_maxrss / 1e6, printed.decode()]) if not status else sys.exit(talk.decode()))
"""


def measured(command: list[str]) -> tuple[float, float, str]:
    """Wall seconds, peak memory in GB, and what a command printed."""
    launched = subprocess.run([sys.executable, "-c", LAUNCHER, *command], capture_output=True, text=True)
    if launched.returncode:
        raise SystemExit(launched.stderr)
    seconds, gigabytes, printed = json.loads(launched.stdout)
    return seconds, gigabytes, printed


def peer_environment(folder: Path) -> Path:
    """A Python that has the peer and borrows our torch."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=False)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        packages = ["imagebind-unofficial", "timm", "iopath", "portalocker", "einops", "open-clip-torch", "ftfy", "wcwidth"]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), *packages], check=True)
    return python


def huge_weights(work: Path) -> Path:
    """A file of the published size and form, its weights made by rule; 4.8 GB, written once."""
    path = work / "imagebind_huge.pth"
    return path if path.exists() else write_published_weights(path, published_shapes(model_config.packaged_config("huge")), seed=7)


def noise(work: Path) -> Path:
    """A sound of five seconds."""
    path = work / "clip.wav"
    soundfile.write(path, (0.1 * np.random.default_rng(0).standard_normal(80_000)).astype(np.float32), 16_000, subtype="FLOAT")
    return path


def run_beside_peer(module: str, work: Path) -> None:
    """Run a benchmark again with the same arguments and `--inside`, where the peer can be imported, and end as it ends."""
    command = [str(peer_environment(work / "peer")), "-m", module, "--inside", *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, cwd=Path(__file__).parent.parent).returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-benchmark", help="10 GB are needed")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    weights, sound = huge_weights(arguments.work), noise(arguments.work)
    script = arguments.work / "peer.py"
    script.write_text(PEER)
    commands = {
        "ours": [sys.executable, "-m", "imagebind_cli", "embed", "audio", str(sound), "--model", str(weights), "--clips", "3"],
        "published": [str(peer_environment(arguments.work / "peer")), str(script), str(weights), str(sound)],
        "import torch": [sys.executable, "-c", "import torch"],
    }
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    vectors: dict[str, np.ndarray] = {}
    for run in range(arguments.runs + 1):
        for name, command in commands.items():
            seconds, gigabytes, printed = measured(command)
            if run:  # the first round warms the page cache for all alike
                rows[name].append((seconds, gigabytes))
            if name == "ours":
                vectors[name] = np.array(json.loads(printed)["embedding"])
            elif name == "published":
                vectors[name] = np.array(json.loads(printed))

    median = {name: [statistics.median(column) for column in zip(*row, strict=True)] for name, row in rows.items()}
    difference = float(np.abs(vectors["ours"] - vectors["published"]).max())
    print(f"{'':<14}{'seconds':>9}{'from':>8}{'to':>8}{'peak GB':>9}")
    for name, row in rows.items():
        times = [seconds for seconds, _ in row]
        print(f"{name:<14}{median[name][0]:>9.2f}{min(times):>8.2f}{max(times):>8.2f}{median[name][1]:>9.2f}")
    result = {
        "machine": machine("torch"),
        "time, published over ours": median["published"][0] / median["ours"][0],
        "memory, published over ours": median["published"][1] / median["ours"][1],
        "time, ours over import torch": median["ours"][0] / median["import torch"][0],
        "largest difference of the vectors": difference,
        "runs": rows,
    }
    for name in list(result)[1:-1]:
        print(f"{name:<36}{result[name]:.3g}")
    (Path(__file__).parent / "cold_start.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
