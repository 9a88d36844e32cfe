"""From files: a folder of 5-second sounds to vectors, and photos to the image encoder's input, ours beside the published way.

    python -m benchmarks.files [--sounds 24] [--pictures 200] [--turns 3] [--work DIR]

Sounds, at the published size: ours as `Model.embed` does it, decoding beside encoding; the published way file by file, decoded by soundfile,
resampled and filtered by torchaudio, three windows to the published encoder. Also printed: how much of ours the encoder is busy. Pictures:
JPEGs of 1,024 x 768, decoded, their short side made 224 and the middle cut out, normalised; the published way with Pillow and torchvision, one
after the other and on two threads. Both run in one process, in turns, in the published code's environment.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.audio_front_end import make_sounds, published_input, published_windows
from benchmarks.cold_start import huge_weights, run_beside_peer
from benchmarks.encoders import CHOSEN, published_model, seconds
from benchmarks.machine import machine

HERE = Path(__file__).parent
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def make_pictures(folder: Path, count: int) -> list[Path]:
    """Smooth colours with some noise: JPEGs of about 200 KB."""
    random = np.random.default_rng(0)
    paths = []
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((1024, 768), Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse).astype(np.int16) + random.integers(-12, 13, (768, 1024, 3))
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def shown(title: str, times: dict[str, list[float]], count: int) -> None:
    """A table: how many a second, and ours over each of the others, turn by turn."""
    print(f"\n| {title} | a second | ours over it, from and to |\n|---|---|---|")
    for name, some in times.items():
        ratios = sorted(other / own for other, own in zip(some, times["ours"], strict=True))
        print(
            f"| {name} | {count / statistics.median(some):.2f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |",
            flush=True,
        )


def in_turns(sides: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of each side in each turn; one round before does not count."""
    for call in sides.values():
        call()
    taken = [{name: seconds(call) for name, call in sides.items()} for _ in range(turns)]
    return {name: [turn[name] for turn in taken] for name in sides}


def sounds_to_vectors(weights: Path, files: list[Path], turns: int) -> dict[str, Any]:
    """Files to vectors."""
    import imagebind_cli as ib
    from imagebind_cli.model import Model

    published = published_model(weights)
    model = ib.load(weights, device="cpu")
    busy: list[float] = []
    encode = model.encode

    def watched(modality: str, tensor: Tensor) -> Tensor:
        start = time.perf_counter()
        vectors = encode(modality, tensor)
        busy.append(time.perf_counter() - start)
        return vectors

    model.encode = watched  # type: ignore[method-assign]

    def theirs() -> Tensor:
        with torch.no_grad():
            return torch.cat([published({"audio": published_input(published_windows(path))[None]})["audio"] for path in files])

    def ours(model: Model = model) -> np.ndarray:
        busy.clear()
        return model.embed("audio", [str(path) for path in files], clips=3)

    near = (torch.from_numpy(ours()) * torch.nn.functional.normalize(theirs(), dim=-1)).sum(-1)
    others = {f"ours, {dtype}": partial(ours, ib.load(weights, device="cpu", dtype=dtype)) for dtype in CHOSEN}
    times = in_turns({"published": theirs, **others, "ours": ours}, turns)  # the last one is watched
    share = sum(busy) / times["ours"][-1]
    shown(f"{len(files)} sounds of 5 seconds to vectors", times, len(files))
    print(f"\nThe encoder is busy {share:.1%} of ours; cosine to the published vectors from {near.min():.6f}")
    return {"seconds": times, "busy": share, "lowest cosine": float(near.min())}


def pictures_to_input(files: list[Path], turns: int) -> dict[str, Any]:
    """Files to the image encoder's input."""
    from torchvision import transforms

    import imagebind_cli as ib
    from imagebind_cli.engine import default_workers

    model = ib.load("tiny", device="cpu")
    published = transforms.Compose(
        [
            transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def one(path: Path) -> Tensor:
        with Image.open(path) as picture:
            tensor: Tensor = published(picture.convert("RGB"))
        return tensor

    def own(path: Path) -> Tensor:
        return next(model.read("image", path)).tensor  # type: ignore[no-any-return]

    def threaded(call: Callable[[Path], Tensor]) -> None:
        with ThreadPoolExecutor(default_workers(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(call, files):
                pass

    apart = max(float((own(path).reshape(3, 224, 224) - one(path)).abs().max()) for path in files[:8])
    sides = {
        "published": lambda: [one(path) for path in files],
        "published, on threads": lambda: threaded(one),
        "ours": lambda: threaded(own),
    }
    times = in_turns(sides, turns)
    shown(f"{len(files)} photos of 1,024 x 768 to the encoder's input", times, len(files))
    print(f"\nLargest difference of the inputs: {apart:.1e}")
    return {"seconds": times, "largest difference": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=int, default=24)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-benchmark", help="10 GB are needed")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    weights = huge_weights(arguments.work)
    if not arguments.inside:
        run_beside_peer("benchmarks.files", arguments.work)
    described = machine("torch")
    print(described)
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "machine": described,
            "pictures": pictures_to_input(make_pictures(Path(folder), arguments.pictures), arguments.turns),
            "sounds": sounds_to_vectors(weights, make_sounds(Path(folder), arguments.sounds), arguments.turns),
        }
    (HERE / "files.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
