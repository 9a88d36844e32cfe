"""What tests of the import name `imagebind` share: the small model whose outputs the published code recorded."""

from __future__ import annotations

import pytest
from torch import Tensor

from benchmarks.published_weights import published_weights
from imagebind import data
from imagebind.models.imagebind_model import ImageBindModel
from tests.golden import META, published_inputs


@pytest.fixture(scope="session")
def weights() -> dict[str, Tensor]:
    """Tensors by their published names."""
    return published_weights(META["state_dict"], META["seed"])


@pytest.fixture
def model(weights: dict[str, Tensor]) -> ImageBindModel:
    """The small model, as code in the wild makes one: built, loaded, and put in eval mode."""
    built = ImageBindModel(**META["config"])
    built.load_state_dict(weights)
    return built.eval()


@pytest.fixture(scope="session")
def inputs() -> dict[str, Tensor]:
    """Ready tensors by name; the modality is the name's first word."""
    texts = data.load_and_transform_text(META["texts"], "cpu")
    assert texts is not None
    return published_inputs() | {"text": texts}
