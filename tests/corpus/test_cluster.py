"""Jobs on a Ray cluster of this machine: every input once, whatever ends; blocks, shares, refusals."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import corpus
from imagebind_cli.corpus.blocks import BLOCK_ITEMS, Blocks, ShareBlock
from imagebind_cli.corpus.cluster import shares_of
from imagebind_cli.corpus.ray_actors import Cluster, run_blocks
from imagebind_cli.corpus.share import Share
from imagebind_cli.errors import InUseError, UserError
from imagebind_cli.events import Listener
from imagebind_cli.sources import Failure, Inputs, Item
from imagebind_cli.store import open_store
from tests import generate
from tests.conftest import Run

SHARES = 4


@dataclass
class Heard(Listener):
    """Keeps what is reported."""

    def __post_init__(self) -> None:
        self.notes, self.reasons = list[str](), dict[str, str]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def failure(self, id: str, reason: str) -> None:
        super().failure(id, reason)
        self.reasons[id] = reason


@dataclass
class Names:
    """A job that writes the ids of a share to its file, each once, and ends its process with the id `deadly`."""

    folder: str
    held: bool = False

    def start(self, listener: Listener) -> dict[str, Any]:
        return {}

    def run(self, share: Share, items: Sequence[Item | Failure], listener: Listener) -> None:
        path = Path(self.folder) / f"{share.number}"
        if self.held and not (trace := Path(f"{path}.held")).exists():
            trace.touch()
            raise InUseError(f"{path}: in use")
        there = set(path.read_text().split()) if path.exists() else set()
        for item in items:
            if isinstance(item, Failure):
                listener.failure(item.id, item.reason)
            elif item.id == "deadly":
                os._exit(9)
            elif item.id in there:
                listener.skipped += 1
            else:
                with path.open("a") as file:
                    file.write(f"{item.id}\n")
                listener.succeeded(item.id)


@pytest.fixture(scope="module")
def machine() -> Iterator[Any]:
    """A cluster of this machine with two cores."""
    pytest.importorskip("ray", reason="Ray is not installed, or has no wheel for this Python")
    from ray import cluster_utils

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    equal = {"worker_niceness": 0}  # else the actors wait for every other process of the tests
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20, "_system_config": equal},
    )
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def ray(machine: Any) -> Iterator[Any]:
    """A connection to it, which the jobs of this process use."""
    import ray

    ray.init(address=machine.address, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def items(*more: str, count: int = 200) -> list[Item | Failure]:
    return [Item(id, id) for id in (*map(str, range(count)), *more)]


def written(folder: Path) -> list[str]:
    return sorted(id for path in folder.glob("[0-9]") for id in path.read_text().split())


def run(folder: Path, inputs: list[Item | Failure], held: bool = False) -> Heard:
    heard = Heard()
    run_blocks(Names(str(folder), held), inputs, SHARES, Cluster(), heard, False)
    return heard


@pytest.mark.filterwarnings("ignore")
def test_an_input_that_ends_its_process_is_the_only_failure(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebind_cli.corpus.ray_actors.GROW_SECONDS", 0.1)
    heard = run(tmp_path, items("deadly", count=3))  # one of them is in its share
    assert written(tmp_path) == ["0", "1", "2"]
    assert heard.reasons == {"deadly": "3 processes that read it ended"}
    assert heard.done + heard.skipped >= 3


@pytest.mark.filterwarnings("ignore")
def test_outputs_that_are_in_use_are_waited_for(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebind_cli.corpus.ray_actors.RETRY_SECONDS", 0.1)
    assert run(tmp_path, items(), held=True).done == 200
    monkeypatch.setattr("imagebind_cli.corpus.ray_actors.BUSY_SECONDS", -1)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="in use"):
        run(tmp_path / "other", items(), held=True)


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_embeds_as_one_process_does(ray: Any, tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and sentences; failures are kept by share; the same call again does what is left."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(3):
        generate.picture(Path("photos") / f"{number}.png", number)
    (tmp_path / "photos" / "broken.png").write_text("no picture")
    corpus.embed(tiny, "image", ["photos"], "whole.h5", batch_size=1)
    cluster, alone = Cluster(shares=SHARES), Cluster(shares=SHARES, cpus=2)  # two actors, and one
    for actors, done, skipped, left in ((cluster, 3, 0, 0), (alone, 0, 3, 1)):
        heard = Heard()
        corpus.embed_on_cluster(
            "tiny", "image", ["photos"], "out.h5", actors, device="cpu", listener=heard, errors="errors.jsonl", batch_size=1
        )
        assert (heard.done, heard.skipped, heard.failed_before) == (done, skipped, left)
    made, whole = open_store("out-*-of-00004.h5"), open_store("whole.h5")
    vectors = dict(zip(made.ids, made.vectors(), strict=True))
    assert sorted(vectors) == whole.ids
    assert np.array_equal(np.stack([vectors[id] for id in whole.ids]), whole.vectors())
    (line,) = [line for path in tmp_path.glob("errors-*.jsonl") for line in path.read_text().splitlines()]
    assert json.loads(line)["id"] == "photos/broken.png"
    assert len(list(tmp_path.glob("errors-*.jsonl"))) == 1
    heard = Heard()
    corpus.preprocess_on_cluster("image", ["photos"], "p-%06d.tar", alone, model="tiny", listener=heard)
    assert (heard.done, list(heard.reasons)) == (3, ["photos/broken.png"])
    corpus.embed(tiny, "image", sorted(map(str, tmp_path.glob("p-*.tar"))), "prepared.h5", batch_size=1)
    prepared = open_store("prepared.h5")
    assert all(np.array_equal(vectors[id], vector) for id, vector in zip(prepared.ids, prepared.vectors(), strict=True))
    assert len(prepared) == 3


@pytest.mark.filterwarnings("ignore")
def test_actors_and_the_driver_are_killed(machine: Any, tmp_path: Path, tiny: Any) -> None:
    """The campaign of `reliability/`, small: two actors at a time, sixteen shares."""
    from reliability.cluster import Campaign, compare

    campaign = Campaign(tmp_path, 200, random.Random(0), machine, "--shares", "16")
    try:
        campaign.run(["actor", "driver"])
    finally:
        campaign.close()
    assert campaign.killed == {"actor": 1, "driver": 1}
    corpus.embed(tiny, "text", Inputs(manifest=tmp_path / "texts.jsonl"), tmp_path / "whole.store")
    compare(tmp_path, 200)


def test_blocks_are_of_one_share_and_hold_every_input_once() -> None:
    names = [str(number) for number in range(3 * BLOCK_ITEMS)]
    came: list[str] = []
    with Blocks((Item(name, name) for name in names), 2) as blocks:
        while not blocks.are_done:
            if (block := blocks.take(())) is None:
                time.sleep(0.001)
                continue
            assert len(block.items) <= BLOCK_ITEMS
            assert all(Share(block.share + 1, 2).holds(item.id) for item in block.items)
            came += [item.id for item in block.items]
            assert blocks.take((0, 1)) is None
    assert sorted(came) == sorted(names)
    one, other = ShareBlock(0, tuple(Item(name, name) for name in "abc")).halves()
    assert [item.id for item in (*one.items, *other.items)] == list("abc")


def test_an_error_of_the_listing_ends_the_job() -> None:
    def broken() -> Iterator[Item]:
        yield Item("a", "a")
        raise UserError("the manifest is torn")

    with Blocks(broken(), 2) as blocks, pytest.raises(UserError, match="torn"):
        while not blocks.are_done:
            time.sleep(0.001)


def test_outputs_say_how_many_shares_there_are(tmp_path: Path) -> None:
    assert (shares_of(tmp_path / "a.h5"), shares_of(tmp_path / "a.h5", 8)) == (64, 8)
    (tmp_path / "a-00003-of-00016.h5").touch()
    (tmp_path / "p-000000-00003-of-00008.tar").touch()
    assert (shares_of(tmp_path / "a.h5"), shares_of(tmp_path / "b.h5"), shares_of(tmp_path / "p-%06d.tar")) == (16, 64, 8)
    with pytest.raises(UserError, match="outputs of 16 shares"):
        shares_of(tmp_path / "a.h5", 8)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--ray-address", "a:1"), "--ray-address is for a cluster; give --engine ray"),
        (("--engine", "ray"), "give -o NAME.store"),
        (("--engine", "ray", "-o", "a.h5", "--shard", "1/2"), "--engine ray does not take --shard"),
        (("--engine", "ray", "-o", "a.h5", "--merge", "2"), "--engine ray does not take --merge"),
        (("--engine", "ray", "-o", "a.safetensors"), "choose from .jsonl, .npy, .h5, .store"),
    ],
)
def test_flags_that_do_not_fit_are_refused(embed: Run, arguments: tuple[str, ...], why: str) -> None:
    done = embed("text", "a dog", *arguments)
    assert done.code == 2
    assert why in done.err


@pytest.mark.parametrize("name", ["nosuch", "empty"])
def test_no_cluster_is_started_where_no_input_can_be_read(embed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "empty").mkdir()
    done = embed("image", tmp_path / name, "--engine", "ray", "-o", tmp_path / "a.store")
    assert done.code == 1
    reason = "no such file or folder" if name == "nosuch" else "no file in this folder"
    assert done.notices[0] == f"imagebind: {tmp_path / name}: {reason}"
    assert "Ray" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_missing_package_has_its_remedy(embed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = embed("text", "a dog", "--engine", "ray", "-o", tmp_path / "a.store")
    assert done.code == 1
    assert "pip install 'imagebind-cli[ray]'" in done.err
