"""Damage files of every kind, give them to `imagebind` beside good ones, and look for what must never be.

    python -m reliability.fuzz [--seconds 60] [--count N] [--kinds png,mat] [--seed 0] [--findings DIR]

Never: a signal, a traceback, an exit code other than 0 and 1, a file that takes over 20 seconds or over 2 GB, a good file that is not
embedded. Damaged inputs go in batches between two good files; a batch that breaks a rule is taken apart, and the file that broke it is
kept in the folder of findings, made as small as the same fault allows. Own formats are damaged one at a time and given to the commands
that read them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from reliability.mutations import mutate
from reliability.nursery import Run, run, warm
from reliability.own_formats import OWN, Own
from reliability.seeds import KINDS, Kind

BATCH = 24
SECONDS = 20.0
MEGABYTES = 2048


def fault(result: Run, lines: int | None = None) -> str | None:
    """Name the rule that a run breaks, or return None.

    lines: vectors that must come out at least.
    """
    if result.seconds > SECONDS:
        return "hang"
    if result.code < 0:
        return f"signal {-result.code}"
    if result.is_traceback or result.code not in (0, 1):
        return "traceback" if result.is_traceback else f"exit {result.code}"
    if result.megabytes > MEGABYTES:
        return "memory"
    if lines is not None and result.out.count(b"\n") < lines:
        return "good file lost"
    return None


def embed(kind: Kind, folder: Path, files: list[Path], good: Path) -> str | None:
    """Embed damaged files between two good ones and return the broken rule, if any."""
    result = run(
        ["embed", kind.modality, good, *files, good.with_stem("good2"), *kind.arguments, "--model", "tiny", "--device", "cpu"],
        folder=folder,
        limit=SECONDS + 5,
    )
    broken = fault(result, 2)
    if broken:
        (folder / "said").write_text(result.err)
    return broken


def shrink(kind: Kind, folder: Path, file: Path, good: Path, broken: str) -> None:
    """Cut a damaged file while it breaks the same rule."""
    data = file.read_bytes()
    size = len(data) // 2
    until = time.monotonic() + 30
    while size and time.monotonic() < until:
        place = 0
        while place < len(data) and time.monotonic() < until:
            file.write_bytes(data[:place] + data[place + size :])
            if embed(kind, folder, [file], good) == broken:
                data = data[:place] + data[place + size :]
            else:
                place += size
        size //= 2
    file.write_bytes(data)


def keep(findings: Path, name: str, file: Path, broken: str, said: Path) -> None:
    """Copy a damaged file to the findings, named after its fault and content."""
    findings.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    kept = findings / f"{broken.replace(' ', '-')}-{digest}-{name}"
    shutil.copy(file, kept)
    if said.exists():
        shutil.copy(said, kept.with_name(kept.name + ".stderr"))


def fuzz_kind(kind: Kind, work: Path, draw: random.Random, findings: Path, counts: Counter[str]) -> None:
    """Try one batch of damaged files of a kind."""
    folder = work / kind.name
    seed = folder / f"seed{kind.suffix}"
    good = folder / f"good{kind.suffix}"
    if not folder.exists():
        folder.mkdir(parents=True)
        kind.write(seed)
        for copy in (good, good.with_stem("good2")):
            shutil.copy(seed, copy)
        warm(["embed", kind.modality, good, *kind.arguments, "--model", "tiny", "--device", "cpu"], folder)
    data = seed.read_bytes()
    files = []
    for number in range(BATCH):
        file = folder / f"damaged{number}{kind.suffix}"
        file.write_bytes(mutate(data, kind.suffix, draw))
        files.append(file)
    counts["tried"] += len(files)
    if embed(kind, folder, files, good) is None:
        return
    for file in files:
        broken = embed(kind, folder, [file], good)
        if broken:
            counts[broken] += 1
            print(f"{kind.name}: {broken}", flush=True)
            if counts[f"shrunk {kind.name} {broken}"] < 2:
                counts[f"shrunk {kind.name} {broken}"] += 1
                shrink(kind, folder, file, good, broken)
                keep(findings, kind.name, file, broken, folder / "said")


def fuzz_own(own: Own, work: Path, draw: random.Random, findings: Path, counts: Counter[str]) -> None:
    """Try one damaged file of a format of ours with every command that reads it."""
    folder = work / f"own-{own.name}"
    if not folder.exists():
        folder.mkdir(parents=True)
        own.write(folder)
        for command in own.commands:
            warm(command, folder)
    file = draw.choice(sorted(path for path in folder.glob(own.file) if path.is_file()))
    damaged = mutate(file.read_bytes(), file.suffix, draw)
    try:
        for command in own.commands:
            counts["tried"] += 1
            file.write_bytes(damaged)
            result = run(command, folder=folder, limit=SECONDS + 5)
            broken = fault(result)
            if broken:
                counts[broken] += 1
                print(f"{own.name}: {broken}: imagebind {' '.join(command)}", flush=True)
                (folder / "said").write_text(result.err)
                file.write_bytes(damaged)
                keep(findings, f"{own.name}-{file.name}", file, broken, folder / "said")
    finally:
        shutil.rmtree(folder)
        folder.mkdir()
        own.write(folder)


def main() -> None:
    """Fuzz until the time or the count is over; exit with 1 if a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, help="damaged inputs to try, in place of a time")
    parser.add_argument("--kinds", help="parts of names of kinds, with commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("build/findings"))
    chosen = parser.parse_args()
    draw, counts = random.Random(chosen.seed), Counter[str]()
    wanted = chosen.kinds.split(",") if chosen.kinds else [""]
    kinds: list[Kind | Own] = [kind for kind in (*KINDS, *OWN) if any(part in kind.name for part in wanted)]
    until = time.monotonic() + chosen.seconds
    with tempfile.TemporaryDirectory() as work:
        while counts["tried"] < chosen.count if chosen.count else time.monotonic() < until:
            kind = draw.choice(kinds)
            (fuzz_kind if isinstance(kind, Kind) else fuzz_own)(kind, Path(work), draw, chosen.findings, counts)  # type: ignore[arg-type]
    faults = {name: count for name, count in counts.items() if name != "tried" and not name.startswith("shrunk")}
    print(json.dumps({"seed": chosen.seed, "tried": counts["tried"], "faults": faults}))
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
