"""Models on the Hugging Face hub: `hf://owner/repo[@revision]`, the commit behind it, and which of its files are taken."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.weights.fetch import TIMEOUT, RemoteFile, is_safe_name, public_address
from imagebind_cli.weights.origin import ORIGIN

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
PLACE = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/@]+))?")
WHOLE = re.compile(
    r"(?:pytorch_)?model(?:-\d+-of-\d+)?(\.safetensors|\.bin)", re.ASCII
)  # a model's own weights, as transformers writes them
BESIDE = (".json", ".txt", "README.md", "LICENSE", "LICENSE.md")  # taken together with the weights


def split_place(place: str) -> tuple[str, str | None]:
    """Split `hf://owner/repo[@revision]` into repository and revision.

    Raises:
        UsageError: it is something else.
    """
    parts = PLACE.fullmatch(place)
    if parts:
        repository, revision = parts["repository"], parts["revision"]
        # As on the hub, no "--" in names: a folder's name means one repository only.
        if all(NAME.fullmatch(part) for part in (*repository.split("/"), revision or "main")) and "--" not in repository:
            return repository, revision
    raise UsageError(f"{place!r} is not hf://owner/repository or hf://owner/repository@revision")


def hub_client() -> HfApi:
    """Return the client of the hub that `HF_ENDPOINT` names, which the library itself reads at its import only."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)


def list_files(place: str) -> tuple[str, list[RemoteFile]]:
    """Return the commit behind a place on the hub, and the files to take: weights, JSON, text, licence.

    `.pth` and `.bin` are taken only where there is no `.safetensors`; of an OpenCLIP repository only OpenCLIP's own weights, and of one that
    transformers wrote only the model's, not those of an optimizer, an adapter or another part.

    Raises:
        UserError: no such repository or revision, no access, no weights, an unsafe file name, or no answer.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    repository, revision = split_place(place)
    hub = hub_client()
    try:
        model = hub.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except GatedRepoError as problem:
        raise UserError(f"{place}: access is granted on {public_address(hub.endpoint)}/{repository}; then `hf auth login`") from problem
    except RepositoryNotFoundError as problem:
        raise UserError(f"{place}: no such model, or a private one that needs `hf auth login`") from problem
    except RevisionNotFoundError as problem:
        raise UserError(f"{place}: the model has no revision {revision}") from problem
    except Exception as problem:  # its HTTP client's own errors (the client has changed before), or an answer of another shape
        reason = public_address(" ".join(str(problem).split())) or type(problem).__name__
        raise UserError(f"{place}: {public_address(hub.endpoint)} gave no list of files ({reason})") from problem
    listed = {file.rfilename: file for file in model.siblings or []}
    for name in listed:
        if not is_safe_name(name):
            raise UserError(f"{place}: the unsafe file name {name!r}; nothing was downloaded")
    if "open_clip_config.json" in listed:  # such a repository often holds the same weights again for another library
        listed = {name: file for name, file in listed.items() if name.startswith("open_clip_") or name.endswith(BESIDE)}
    elif whole := {name: match[1] for name in listed if (match := WHOLE.fullmatch(name))}:
        taken = ".safetensors" if ".safetensors" in whole.values() else ".bin"
        listed = {name: file for name, file in listed.items() if whole.get(name) == taken or name.endswith(BESIDE)}
    endings = ".safetensors" if any(name.endswith(".safetensors") for name in listed) else (".pth", ".bin")
    if not model.sha or not any(name.endswith(endings) for name in listed):
        raise UserError(f"{place}: no weights (.safetensors, .pth, .bin) in this repository")
    return model.sha, [
        RemoteFile(
            name,
            hf_hub_url(repository, name, revision=model.sha, endpoint=hub.endpoint),
            size=file.size,
            sha256=file.lfs.sha256 if file.lfs else None,
        )
        for name, file in listed.items()
        if name.endswith(endings) or (name.endswith(BESIDE) and name != ORIGIN)
    ]
