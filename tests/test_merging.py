"""Token merging: what is merged, how attention counts it, what it refuses, and that stores record it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from imagebind_cli.errors import UsageError
from imagebind_cli.grounding.shares import dense
from imagebind_cli.merging import _merge, can_merge
from imagebind_cli.model import load
from imagebind_cli.store import open_store
from tests.conftest import Run


def test_the_most_alike_tokens_become_their_mean() -> None:
    x = torch.tensor([[9.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])[None]  # a class token and six patches
    angles = torch.tensor([0.0, 0.0, 1.0, 1.01, 2.0, 2.5, 0.4])  # the third is most like the fourth
    keys = torch.stack([angles.cos(), angles.sin()], dim=-1)[None]
    merged, sizes = _merge(x, None, keys, 1)
    assert merged[0, :, 0].tolist() == [9, 4, 6, 1, 2.5, 5]  # those that stay of the first half, then the second
    assert sizes is not None
    assert sizes[0, :, 0].tolist() == [1, 1, 1, 1, 2, 1]
    again, sizes = _merge(merged, sizes, torch.tensor([[[1.0, 0], [0, 1], [1, 1], [0, 1], [-1, 0], [0, -1]]]), 1)
    assert sizes is not None
    assert float((again * sizes).sum()) == pytest.approx(float(x.sum()))
    assert float(sizes.sum()) == 7


def test_the_class_token_is_first_and_alone_and_half_the_patches_stay() -> None:
    x = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0))
    merged, sizes = _merge(x, None, torch.ones(3, 9, 2), 100)
    assert sizes is not None
    assert merged.shape == (3, 5, 4)
    assert torch.equal(merged[:, 0], x[:, 0])
    assert sizes[:, 0].flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("modality", ["image", "audio", "depth", "thermal"])
def test_equal_patches_may_be_merged_without_a_change(modality: str) -> None:
    """A flat input has one patch many times over, if positions are the same everywhere: merging then only counts."""
    exact, merging = load("tiny", device="cpu"), load("tiny", device="cpu", merge=2)
    for model in (exact, merging):
        stem = model.encoder(modality).stem
        with torch.no_grad():
            stem.pos[:, 1:] = stem.pos[:, 1:2]
    flat = torch.full((2, *exact.config(modality).shape), 0.3)
    near = F.cosine_similarity(exact.encode(modality, flat), merging.encode(modality, flat))
    assert near.min() > 1 - 1e-6


def test_what_has_no_patches_is_refused() -> None:
    model = load("tiny", device="cpu", merge=2)
    assert [name for name in model.checkpoint.config.encoders if not can_merge(model.config(name))] == ["text", "imu"]
    for modality in ("text", "imu"):
        with pytest.raises(UsageError, match=f"{modality} has no patches whose tokens could be merged; leave --merge out"):
            model.encoder(modality)
    with pytest.raises(UsageError, match="this encoder merges them; load it without merge"):
        dense(model.encoder("image"), torch.zeros(1, *model.config("image").shape))


def test_a_store_records_it_and_is_continued_with_it_alone(imagebind: Run, tmp_path: Path) -> None:
    store, photo = tmp_path / "a.h5", tmp_path / "a.png"
    Image.effect_noise((64, 48), 50).save(photo)
    assert imagebind("embed", "image", photo, "-o", store, "--model", "tiny", "--merge", 2).code == 0
    assert open_store(store).provenance["merge"] == 2
    refused = imagebind("embed", "image", photo, "-o", store, "--model", "tiny")
    assert refused.code == 1
    assert "made with --merge 2; this run has no --merge" in refused.err
    refused = imagebind("embed", "text", "a dog", "--model", "tiny", "--merge", 2)
    assert refused.code != 0
    assert "text has no patches" in refused.err


def test_verify_measures_it_beside_int8_and_with_it(imagebind: Run) -> None:
    done = imagebind("weights", "verify", "mini", "--merge", 2, "--dtype", "int8", "--json")
    measured = json.loads(done.out)["measured"]
    assert [{key: kind.get(key) for key in ("dtype", "merge")} for kind in measured] == [
        {"dtype": "int8", "merge": None},
        {"dtype": None, "merge": 2},
        {"dtype": "int8", "merge": 2},
    ]
    assert list(measured[1]["cosines"]) == ["vision", "audio", "depth", "thermal"]
    for kind in measured:
        for row in kind["cosines"].values():
            assert -1 <= row["lowest"] <= row["mean"] <= 1
    assert measured[1]["cosines"]["vision"]["mean"] < 1
