"""One process's share of the inputs: `--shard I/N`, a task of a job array, or a process of torchrun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagebind_cli.errors import UsageError
from imagebind_cli.store import id_hash

ARRAY = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True)
class Share:
    """Share `number` of `count`, from 1: the inputs whose ids hash to it, so that shares stay the same while a folder grows.

    local: the process's number on this machine, where torchrun started it.
    """

    number: int
    count: int
    local: int | None = None

    def holds(self, id: str) -> bool:
        """Check whether an input belongs to this share."""
        return id_hash(id) % self.count == self.number - 1

    def name(self, path: Path) -> Path:
        """Return a file's name for this share: `photos-00001-of-00004.h5` for `photos.h5`."""
        return path.with_name(f"{path.stem}-{self.number:05}-of-{self.count:05}{path.suffix}")

    def pattern(self, path: Path) -> Path:
        """Return the pattern of a file's names for all shares: `photos-*-of-00004.h5`."""
        return path.with_name(f"{path.stem}-*-of-{self.count:05}{path.suffix}")

    def device(self, given: str) -> str:
        """Return the device of this process: under torchrun, if none is given, a GPU of its own where there is one."""
        if given != "auto" or self.local is None:
            return given
        import torch

        return f"cuda:{self.local}" if self.local < torch.cuda.device_count() else given


def chosen_share(given: str | None, environment: Mapping[str, str] = os.environ) -> Share | None:
    """Return the share that `--shard` asks for (`I/N`, or `auto` in a Slurm job array), torchrun's if not given, or None for all inputs.

    Raises:
        UsageError: it is not a share, or the environment does not say which.
    """
    if given is None:
        return _torchrun(environment)
    if given == "auto":
        share = _torchrun(environment) or _array(environment)
        if share is None:
            raise UsageError(f"--shard auto: neither {ARRAY}ID and {ARRAY}COUNT nor torchrun's RANK and WORLD_SIZE are set")
        return share
    number, _, count = given.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 99999):
        raise UsageError(f"--shard {given}: I/N is needed, I from 1 to N, as in 3/8; or auto, in a job array")
    return Share(int(number), int(count))


def array_task(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return which task of a job array this process is, in words; None if it is not one."""
    share = _array(environment)
    return None if share is None or share.count == 1 else f"task {share.number} of {share.count}"


def _array(environment: Mapping[str, str]) -> Share | None:
    try:
        first, step = int(environment.get(f"{ARRAY}MIN", "0")), int(environment.get(f"{ARRAY}STEP", "1"))
        return Share((int(environment[f"{ARRAY}ID"]) - first) // step + 1, int(environment[f"{ARRAY}COUNT"]))
    except (KeyError, ValueError):
        return None


def _torchrun(environment: Mapping[str, str]) -> Share | None:
    if "TORCHELASTIC_RUN_ID" not in environment or int(environment.get("WORLD_SIZE", "1")) == 1:
        return None
    return Share(int(environment["RANK"]) + 1, int(environment["WORLD_SIZE"]), int(environment["LOCAL_RANK"]))
