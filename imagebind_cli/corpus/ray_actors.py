"""Run the blocks of a job on a Ray cluster: an actor for each free GPU or group of cores takes the next block, and lost blocks are run again.

That each row is stored once does not depend on this file: the share of an id is fixed, a share has one output, and that output knows its
ids. Ray only runs what is left, so that retried blocks, killed actors and killed drivers need no record of their own.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from imagebind_cli.corpus.blocks import Blocks, ShareBlock
from imagebind_cli.corpus.share import Share
from imagebind_cli.errors import InUseError, UserError, first_line
from imagebind_cli.events import Listener
from imagebind_cli.signals import ENDING
from imagebind_cli.sources import Failure, Item

POLL_SECONDS = 0.2
GROW_SECONDS = 1.0  # between looks at what is free in the cluster
LOSSES = 3  # of actors, after which a block is halved to find the input that ends them
FAILED_STARTS = 5  # in a row, after which the job is refused
BUSY_SECONDS, RETRY_SECONDS = 600.0, 2.0  # a lost actor may hold its share's output until its node, or the system, ends it
PLACE_SECONDS = 60.0  # without any actor, after which that is reported


class BlockJob(Protocol):
    """The work of each actor. It is pickled, so it creates what it needs on first use."""

    def start(self, listener: Listener) -> dict[str, Any]:
        """Load what the job needs, and return how its outputs are made, which must be the same on every node."""

    def run(self, share: Share, items: Sequence[Item | Failure], listener: Listener) -> object:
        """Process inputs of one share, and return once all of them are on the disk."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and the resources of it that a job takes.

    address: of its head, as `ray.init` takes it; the variable RAY_ADDRESS if not given, and without it a cluster of this machine alone.
    shares: of the inputs, each with an output of its own, which at most one actor writes at a time; those of the outputs that are there, or 64.
    cpus, gpus: of each actor; fractions are allowed. By default one GPU, if the cluster has any, with its share of cores; else one core.
    """

    address: str | None = None
    shares: int | None = None
    cpus: float | None = None
    gpus: float | None = None


@dataclass
class Recorder(Listener):
    """Keeps what an actor reports, until the driver repeats it to its listener."""

    events: list[tuple[Any, ...]] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a note on the run."""
        self.events.append(("note", text))

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Keep what was assumed of an input, and what was lost."""
        remarks = ("remarks", id, tuple(notes), tuple(warnings))
        if remarks[2] or remarks[3]:
            self.events.append(remarks)

    def succeeded(self, id: str) -> None:
        """Keep that an input is done."""
        super().succeeded(id)
        self.events.append(("succeeded", id))

    def failure(self, id: str, reason: str) -> None:
        """Keep why an input failed."""
        super().failure(id, reason)
        self.events.append(("failure", id, reason))


@dataclass(frozen=True)
class BlockAnswer:
    """The answer of an actor about a block. refusal: why it could not, in words. in_use: another process holds the output of the share."""

    events: tuple[tuple[Any, ...], ...] = ()
    skipped: int = 0
    failed_before: int = 0
    record: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""
    in_use: bool = False
    node: str = ""


class BlockActor:
    """Does the blocks of a job in a process of its own, in the driver's folder, so that relative paths mean the same files."""

    def __init__(self, job: BlockJob, folder: str) -> None:
        self._job, self._folder, self._node = job, folder, socket.gethostname()

    def start(self) -> BlockAnswer:
        """Load what the job needs."""
        listener = Recorder()
        try:
            os.chdir(self._folder)
        except OSError as error:
            return BlockAnswer(
                refusal=f"node {self._node}: {self._folder}: {error.strerror}; every node needs this folder, as on a shared disk"
            )
        try:
            return BlockAnswer(record=self._job.start(listener), events=tuple(listener.events), node=self._node)
        except UserError as error:
            return BlockAnswer(refusal=f"node {self._node}: {error}")

    def run(self, block: ShareBlock, shares: int) -> BlockAnswer:
        """Process a block."""
        listener, refusal, in_use = Recorder(), "", False
        try:
            self._job.run(Share(block.share + 1, shares), block.items, listener)
        except UserError as error:
            refusal, in_use = str(error), isinstance(error, InUseError)
        return BlockAnswer(tuple(listener.events), listener.skipped, listener.failed_before, {}, refusal, in_use, self._node)


def run_blocks(job: BlockJob, items: Iterable[Item | Failure], shares: int, cluster: Cluster, listener: Listener, on_gpus: bool) -> None:
    """Process a job's inputs on a cluster.

    Args:
        shares: how many the ids are divided into. on_gpus: take GPUs if there are any, unless `cluster` sets their number.
    Raises:
        UserError: Ray is not installed, there is no cluster at the address, no actor starts, or an actor refuses the job.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray, which is not installed: pip install 'imagebind-cli[ray]'") from None
    with _connected(ray, cluster.address, listener.note), Blocks(items, shares) as blocks:
        pool = _Pool(ray, job, blocks, shares, _resources(ray, cluster, on_gpus), listener)
        try:
            pool.run()
        finally:
            pool.close()


@contextmanager
def _connected(ray: Any, address: str | None, note: Callable[[str], None]) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine, which ends with the block; use the one that this process is connected to."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that we start sends no usage statistics
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level="ERROR", **({} if address else {"include_dashboard": False})
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UserError(f"Ray: no cluster at {address}: {first_line(error)}; start one with: ray start --head") from None
    finally:
        for number, handler in handlers.items():  # Ray's own would end this process silently
            signal.signal(number, handler)
    try:
        resources = ray.cluster_resources()
        count = len([node for node in ray.nodes() if node["Alive"]])
        where = address or "this machine"
        note(f"Ray on {where}: {count} node{'s' * (count > 1)}, {resources.get('CPU', 0):g} cores, {resources.get('GPU', 0):g} GPUs")
        yield
    finally:
        ray.shutdown()


def _resources(ray: Any, cluster: Cluster, on_gpus: bool) -> dict[str, float]:
    """Return what one actor takes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpus = [node for node in nodes if node.get("GPU")]
    gpus = cluster.gpus if cluster.gpus is not None else float(bool(on_gpus and with_gpus))
    cpus = cluster.cpus
    if cpus is None:
        beside = min((node.get("CPU", 1) * gpus // node["GPU"] for node in with_gpus), default=1.0) if gpus else 1.0
        cpus = min(8.0, max(1.0, beside))
    return {"num_cpus": cpus, "num_gpus": gpus}


class _Pool:
    """The actors of a job. Each is idle, starting, or runs a block; one that ended gives its block back."""

    def __init__(self, ray: Any, job: BlockJob, blocks: Blocks, shares: int, resources: dict[str, float], listener: Listener) -> None:
        self._ray, self._job, self._blocks, self._shares, self._listener = ray, job, blocks, shares, listener
        self._resources = resources
        self._class = ray.remote(BlockActor).options(max_restarts=0, max_task_retries=0, **resources)
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}  # what `start` will return, and the actor
        self._running: dict[Any, tuple[Any, ShareBlock]] = {}
        self._delayed: list[tuple[float, ShareBlock]] = []  # until when, because another process holds the output
        self._held_since: dict[int, float] = {}  # by another process, the output of a share
        self._first = BlockAnswer()  # of the first actor that started
        self._failed_starts, self._noted = 0, set[str]()
        self._grew, self._alone_since = 0.0, time.monotonic()

    def run(self) -> None:
        """Process all blocks."""
        while self._running or self._delayed or not self._blocks.are_done:
            self._hand_out()
            self._grow()
            pending = [*self._running, *self._starting]
            if not pending:
                time.sleep(POLL_SECONDS)
            elif self._ray.wait(pending, num_returns=1, timeout=POLL_SECONDS)[0]:
                for answer in self._ray.wait(pending, num_returns=len(pending), timeout=0)[0]:
                    self._finish(answer)

    def close(self) -> None:
        """End all actors."""
        for actor in [*self._idle, *self._starting.values(), *(actor for actor, _ in self._running.values())]:
            self._ray.kill(actor)

    def _hand_out(self) -> None:
        """Give each idle actor a block of a share that no other has."""
        now = time.monotonic()
        self._blocks.put_back(block for until, block in self._delayed if until <= now)
        self._delayed = [(until, block) for until, block in self._delayed if until > now]
        taken = {block.share for _, block in (*self._running.values(), *self._delayed)}
        while self._idle and (block := self._blocks.take(taken)) is not None:
            actor = self._idle.pop()
            taken.add(block.share)
            self._running[actor.run.remote(block, self._shares)] = actor, block

    def _grow(self) -> None:
        """Start actors where the cluster has room, and one more for an autoscaler to make room for, while blocks wait."""
        now, ready = time.monotonic(), len(self._idle) + len(self._running)
        if ready:
            self._alone_since = now
        elif now - self._alone_since > PLACE_SECONDS:
            self._alone_since = now
            needs = ", ".join(f"{self._resources[key]:g} {name}" for key, name in (("num_cpus", "cores"), ("num_gpus", "GPUs")))
            self._note(f"Ray has started no actor yet: each takes {needs} of one node; add nodes, or lower --ray-cpus and --ray-gpus")
        if now - self._grew < GROW_SECONDS:
            return
        self._grew = now
        free = self._ray.available_resources()
        places = [
            int(free.get(name, 0) // self._resources[key])
            for key, name in (("num_cpus", "CPU"), ("num_gpus", "GPU"))
            if self._resources[key]
        ]
        wanted = min(max(1 + ready // 4, min(places, default=1)), self._blocks.waiting, self._shares - ready)
        for _ in range(wanted - len(self._starting)):
            actor = self._class.remote(self._job, os.getcwd())
            self._starting[actor.start.remote()] = actor

    def _finish(self, answer: Any) -> None:
        """Take what an actor returned, or its block if it ended."""
        errors = self._ray.exceptions
        starting = self._starting.pop(answer, None)
        actor, block = (starting, None) if starting is not None else self._running.pop(answer)
        try:
            result: BlockAnswer = self._ray.get(answer)
        except errors.RayTaskError as error:  # a bug
            raise error.cause from None
        except errors.RayError as error:
            self._ray.kill(actor)  # if only the connection broke, it must not continue
            if block is not None:
                self._lost(block)
                return
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise UserError(f"Ray: {FAILED_STARTS} actors in a row did not start: {first_line(error)}") from None
            return
        if result.in_use and block is not None:
            self._delay(block, result.refusal)
        elif result.refusal:
            raise UserError(result.refusal)
        elif block is None:
            self._failed_starts = 0
            self._first = self._first if self._first.node else result
            _check_same(self._first, result)
        else:
            self._held_since.pop(block.share, None)
        self._repeat(result)
        self._idle.append(actor)

    def _lost(self, block: ShareBlock) -> None:
        """Put a block whose actor ended back into the queue. Its rows that are on the disk are skipped then."""
        block = replace(block, losses=block.losses + 1)
        if block.losses < LOSSES:
            self._blocks.put_back([block])
        elif len(block.items) > 1:
            self._blocks.put_back(block.halves())
        else:
            failure = Failure(block.items[0].id, f"{LOSSES} processes that read it ended")
            self._blocks.put_back([replace(block, items=(failure,), losses=0)])

    def _delay(self, block: ShareBlock, refusal: str) -> None:
        """Let a block wait until another process, such as an actor that its node has not ended yet, leaves its output.

        Raises:
            UserError: it has held it for too long.
        """
        now = time.monotonic()
        if now - self._held_since.setdefault(block.share, now) > BUSY_SECONDS:
            raise UserError(refusal)
        self._delayed.append((now + RETRY_SECONDS, block))

    def _repeat(self, answer: BlockAnswer) -> None:
        """Report to the listener what an actor reported."""
        for kind, *values in answer.events:
            if kind == "note":
                self._note(*values)
            else:
                getattr(self._listener, kind)(*values)
        self._listener.skipped += answer.skipped
        self._listener.failed_before += answer.failed_before

    def _note(self, text: str) -> None:
        """Report something about the run once, though each actor notices it."""
        if text not in self._noted:
            self._noted.add(text)
            self._listener.note(text)


def _check_same(first: BlockAnswer, other: BlockAnswer) -> None:
    """Refuse an actor that would make other outputs than the first one.

    Raises:
        UserError: its model differs, or its precision, as of nodes with and without GPUs.
    """
    ours, theirs = first.record, other.record
    key = next((key for key in {**ours, **theirs} if key != "folder" and ours.get(key) != theirs.get(key)), None)
    if key is None:
        return
    remedy = "give --dtype" if key == "dtype" else "every node needs the same versions and weights"
    raise UserError(f"node {other.node} has {key} {theirs.get(key)!r}, node {first.node} {ours.get(key)!r}: {remedy}")
