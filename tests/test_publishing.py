"""Models and stores published on the hub: the files that arrive, their cards, what is refused, and what is sent again."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagebind_cli as ib
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.publishing import push_model, push_store
from imagebind_cli.weights.convert import convert
from imagebind_cli.weights.find import find_checkpoint
from tests import stores
from tests.conftest import Run
from tests.hub import Hub, serve_hub
from tests.later import Later

parquet = Later("pyarrow.parquet")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the hub's client about its own


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # the server here has large files as Git LFS has them; read at the client's import
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # tests of other tools set it
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for served in serve_hub():
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        yield served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that `weights convert` wrote, from a path that is nobody's business."""
    place = tmp_path_factory.mktemp("private") / "tiny"
    convert(find_checkpoint("tiny"), place, {"from": str(place.parent / "weights.pth"), "sources": [{"from": str(place)}]})
    return place


def test_a_model_arrives_as_it_is_with_its_card(hub: Hub, folder: Path) -> None:
    upload = push_model(folder, "hf://me/tiny")
    assert upload.address == f"{hub.address}/me/tiny"
    there = hub.files["models/me/tiny"]
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    assert sorted(there) == sorted([*weights, "README.md", "config.json"])
    assert all(there[name] == (folder / name).read_bytes() for name in weights)
    card = there["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: imagebind-cli\ntags:\n- imagebind\n")
    assert "| vision |" in card
    assert hub.private == set()
    assert set(hub.tokens) == {"Bearer hf_secret"}


def test_what_arrives_is_a_model_and_names_no_folder_of_this_machine(hub: Hub, folder: Path, tmp_path: Path) -> None:
    push_model(folder, "hf://me/tiny", private=True)
    assert hub.private == {"models/me/tiny"}
    for name, content in hub.files["models/me/tiny"].items():
        (tmp_path / name).write_bytes(content)
        assert str(folder.parent).encode() not in content or name.endswith(".safetensors")
    assert json.loads((tmp_path / "config.json").read_text())["origin"] == {"from": "weights.pth", "sources": [{"from": "tiny"}]}
    there, here = (ib.load(place, device="cpu").embed("text", ["a dog"]) for place in (tmp_path, folder))
    assert (there == here).all()


def test_a_second_upload_sends_only_what_is_not_there(hub: Hub, folder: Path) -> None:
    push_model(folder, "hf://me/tiny")
    first = len(hub.received)
    assert first == len(list(folder.glob("*.safetensors")))
    push_model(folder, "hf://me/tiny")
    assert len(hub.received) == first


def test_a_refused_file_is_one_line_and_the_same_command_sends_the_rest(hub: Hub, folder: Path, imagebind: Run) -> None:
    hub.forgets = 1
    done = imagebind("weights", "push", str(folder), "hf://me/tiny")
    assert done.code == 1
    assert done.err.startswith("imagebind: hf://me/tiny: ")
    assert done.err.count("\n") == 1
    assert hub.files["models/me/tiny"] == {}  # no half a model
    done = imagebind("weights", "push", str(folder), "hf://me/tiny")
    assert (done.code, done.out.decode()) == (0, f"{hub.address}/me/tiny\n")
    assert len(hub.received) == len(set(hub.received)) == len(list(folder.glob("*.safetensors")))


@pytest.mark.parametrize("status", [401, 403])
def test_without_access_it_says_how_to_log_in(hub: Hub, folder: Path, status: int) -> None:
    hub.refuses = status
    with pytest.raises(
        UserError, match=r"hf://me/tiny: the hub does not let you write there; log in with `hf auth login`, or set HF_TOKEN"
    ):
        push_model(folder, "hf://me/tiny")


def test_a_dry_run_sends_nothing(hub: Hub, folder: Path, imagebind: Run) -> None:
    done = imagebind("weights", "push", str(folder), "hf://me/tiny", "--dry-run", "--json")
    about = json.loads(done.out)
    assert about["sizes"]["vision.safetensors"] == (folder / "vision.safetensors").stat().st_size
    assert about["address"] == ""
    assert "license: apache-2.0" in imagebind("weights", "push", str(folder), "hf://me/tiny", "--dry-run").out.decode()
    assert (hub.files, hub.tokens) == ({}, [])


def test_a_damaged_file_is_not_published(hub: Hub, folder: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    path = damaged / "audio.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged: audio\.safetensors: .*; nothing was published"):
        push_model(damaged, "hf://me/tiny")
    assert hub.tokens == []


def test_a_model_without_a_licence_or_folder_is_refused(hub: Hub, tmp_path: Path) -> None:
    convert(find_checkpoint("tiny"), tmp_path / "model", {})
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["licence"] = None
    config.pop("crc32", None)
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="its config states no licence; name it with --licence"):
        push_model(tmp_path / "model", "hf://me/tiny")
    card = push_model(tmp_path / "model", "hf://me/tiny", licence='My "own" 2', dry_run=True).card
    assert card.startswith('---\nlicense: other\nlicense_name: "My \\"own\\" 2"\n')
    with pytest.raises(UserError, match="tiny: is not a model folder; write a whole one first: imagebind weights convert tiny DEST"):
        push_model("tiny", "hf://me/tiny")


@pytest.mark.parametrize("place", ["me/tiny", "hf://tiny", "hf://datasets/me/tiny", "hf://me/tiny@main", "hf://me/../x"])
def test_a_wrong_address_is_wrong_usage(folder: Path, place: str, imagebind: Run) -> None:
    done = imagebind("weights", "push", str(folder), place)
    assert done.code == 2
    assert done.err.splitlines()[0].startswith("imagebind: ")


def test_a_store_arrives_as_a_dataset(hub: Hub, tmp_path: Path, imagebind: Run) -> None:
    stores.store(tmp_path / "photos.h5", "image", list("abcde"))
    done = imagebind("store", "push", str(tmp_path / "photos.h5"), "hf://datasets/me/photos", "--licence", "CC-BY-4.0")
    assert (done.code, done.out.decode()) == (0, f"{hub.address}/datasets/me/photos\n"), done.err
    there = hub.files["datasets/me/photos"]
    assert sorted(there) == ["README.md", "data/photos.parquet"]
    assert parquet.read_table(io.BytesIO(there["data/photos.parquet"])).num_rows == 5
    card = there["README.md"].decode()
    assert "license: cc-by-4.0" in card
    assert '- "n<1K"' in card
    assert "| rows | 5 |" in card
    with pytest.raises(UsageError, match="is not hf://datasets/owner/repository"):
        push_store(tmp_path / "photos.h5", "hf://me/photos", licence="MIT")
    assert imagebind("store", "push", str(tmp_path / "photos.h5"), "hf://datasets/me/photos").code == 2
