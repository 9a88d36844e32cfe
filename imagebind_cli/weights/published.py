"""Models that are published under a name: where they are, what they may be used for, and fetching them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from imagebind_cli import registry
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.weights import download, model_config
from imagebind_cli.weights.fetch import Progress

MODEL_ENDINGS = (".json", ".safetensors", ".pth", ".bin", ".pt")


class PublishedModel(NamedTuple):
    """A name that `--model` and `weights pull` take, the family whose name it is, and what is published under it; see `family.Publication`."""

    name: str
    family: str
    address: str
    licence: str | None
    about: str

    @property
    def place(self) -> str:
        """What `download.folder_of` takes: the address on the hub, or for a single file the name."""
        return self.address if self.address.startswith("hf://") else self.name


def published_models() -> dict[str, PublishedModel]:
    """Return all models that can be fetched by name: those whose config is in the package first, then the families' own."""
    configs = [model_config.packaged_config(name) for name in model_config.packaged_names()]
    models = {
        config.name: PublishedModel(config.name, config.family, config.address, config.licence, config.about)
        for config in configs
        if config.address is not None
    }
    for family in registry.families():
        for name, publication in family.publications.items():
            if name not in models:
                models[name] = PublishedModel(name, family.name, publication.address, publication.licence, publication.about)
    return models


def is_place(model: str) -> bool:
    """Check whether a model is given by its file or folder. A folder without weights and config may have a model's name, as one of photos."""
    path = Path(model)
    if not path.is_dir():
        return path.exists()
    if any(entry.suffix in MODEL_ENDINGS for entry in path.iterdir()):
        return True
    return not (model_config.is_bundled(model) or model in model_config.packaged_names() or model in published_models())


def pull_named(name: str, *, sha256: str | None = None, progress: Progress, offline: bool = False) -> Path:
    """Download the model of a name, or of an address on the hub, unless it is here already; return its folder.

    Args:
        sha256: what a single file must have, in hex.
    Raises:
        UserError: nothing is published under this name, or as `download.pull_address` and `download.pull_hub`.
    """
    place = name
    if not name.startswith("hf://"):
        model = published_models().get(name)
        if model is None:
            raise UserError(f"nothing to fetch for {name!r}; choose from {', '.join(published_models())}, hf://owner/repo")
        if model.place == name:
            return download.pull_address(model.address, download.folder_of(name), sha256=sha256, progress=progress, offline=offline).parent
        place = model.place
    if sha256:
        raise UsageError("--sha256 is for single files; the hub states its own")
    return download.pull_hub(place, progress=progress, offline=offline)
