"""Time `imagebind --help` against importing `typer` and `rich`, which any such command line does.

    python -m benchmarks.help_text [--turns 15]

Each run is a new process. The commands take turns, after one run of each that is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

HELP = ["--help", "embed --help", "embed imu --help", "retrieve --help", "train --help", "zeroshot --help"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import typer, rich": [sys.executable, "-c", "import typer, rich"],
    **{f"imagebind {words}": [sys.executable, "-m", "imagebind_cli", *words.split()] for words in HELP},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(parser.parse_args().turns + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn:
                taken[name].append(time.perf_counter() - start)
    print("| | median s | from | to | over the import |\n|---|---|---|---|---|")
    for name, seconds in taken.items():
        ratio = statistics.median(one / other for one, other in zip(seconds, taken["import typer, rich"], strict=True))
        print(f"| `{name}` | {statistics.median(seconds):.3f} | {min(seconds):.3f} | {max(seconds):.3f} | {ratio:.2f} |")
    (Path(__file__).parent / "help_text.json").write_text(json.dumps({"seconds": taken}) + "\n")


if __name__ == "__main__":
    main()
