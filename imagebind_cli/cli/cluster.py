"""`--engine ray`: the flags of commands whose job may run on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import input_option, model_option
from imagebind_cli.errors import UsageError

if TYPE_CHECKING:
    from imagebind_cli.corpus import Cluster


@dataclass(frozen=True)
class ClusterOptions:
    """Hold whether a job runs on a cluster, and what it takes of it."""

    engine: Literal["ray"] | None = None
    ray_address: str | None = None
    ray_cpus: float | None = None
    ray_gpus: float | None = None
    shares: int | None = None

    def cluster(self, output: Path | str | None, refused: Mapping[str, Any]) -> Cluster | None:
        """Return the cluster that the flags ask for; None for this process.

        Args:
            refused: flags that have no use on a cluster, by name.
        Raises:
            UsageError: one of them was given, or a flag of a cluster without it.
        """
        if self.engine is None:
            for flag in ("ray_address", "ray_cpus", "ray_gpus", "shares"):
                if getattr(self, flag) is not None:
                    refuse_useless(name := f"--{flag.replace('_', '-')}", f"{name} is for a cluster; give --engine ray")
            return None
        for flag, value in refused.items():
            if value:
                raise UsageError(f"--engine ray does not take --{flag.replace('_', '-')}")
        if output is None or str(output) == "-":
            raise UsageError("--engine ray writes an output for each share of the inputs, and nothing to stdout; give -o NAME.store")
        from imagebind_cli.corpus import Cluster

        return Cluster(self.ray_address, self.shares, self.ray_cpus, self.ray_gpus)


CLUSTER_FLAGS: dict[str, Any] = {
    "engine": Annotated[
        Literal["ray"] | None,
        model_option("--engine", metavar="ray", hidden=True, help="Run on a Ray cluster; by default in this process. See docs/scale.md."),
    ],
    "ray_address": Annotated[
        str | None,
        model_option(
            "--ray-address",
            metavar="HOST:PORT",
            hidden=True,
            help="Address of the cluster; by default RAY_ADDRESS, else this machine.",
        ),
    ],
    "ray_cpus": Annotated[
        float | None, model_option("--ray-cpus", metavar="N", min=0.01, hidden=True, help="With --engine ray: cores of each actor.")
    ],
    "ray_gpus": Annotated[
        float | None,
        model_option("--ray-gpus", metavar="N", min=0, hidden=True, help="With --engine ray: GPUs of each actor, as 1 or 0.5."),
    ],
    "shares": Annotated[
        int | None,
        input_option(
            "--shares", metavar="N", min=1, max=99999, hidden=True, help="With --engine ray: number of shares of the ids. Default: 64."
        ),
    ],
}
