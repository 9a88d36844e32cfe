"""`imagebind weights`: what models there are, fetching, converting, describing and checking them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.flags import Dtype
from imagebind_cli.cli.talk import say
from imagebind_cli.errors import UsageError, UserError

if TYPE_CHECKING:
    from imagebind_cli.weights.fetch import Progress

CARD = "CARD.md"
"""What a model can do, what it learnt from and what binds its user, in a model's folder."""

app = typer.Typer(help="List, fetch, convert, describe and check models.", no_args_is_help=True, rich_markup_mode=None)

ModelName = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Name, folder, weight file or hf://owner/repo; the default model if not given.")
]
Config = Annotated[
    str | None,
    typer.Option(
        help="What a bare file is: our config.json, the published constructor's arguments, open_clip_config.json, or a name like ViT-H-14."
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON and no table.")]


@app.command("list")
def list_models(as_json: AsJSON = False) -> None:
    """The models known by name and those fetched from a hub, and which of them are on this machine."""
    from imagebind_cli.weights import download, foreign_config, model_config
    from imagebind_cli.weights.find import BUNDLED, default_name, is_bundled
    from imagebind_cli.weights.origin import ORIGIN

    rows: list[dict[str, Any]] = []
    for name in model_config.packaged_names():
        config = model_config.packaged_config(name)
        if config.rule_seed is not None:
            state = "ready, made by rule, untrained"
        elif config.address is None:
            state = "config only, to train from"
        else:
            state = "fetched" if download.pulled_folder(name) else f"not here; imagebind weights pull {name}"
        rows.append({"name": name, "state": state, "licence": config.licence, "about": config.about})
    if is_bundled(BUNDLED):
        bundled = foreign_config.read_config(Path(str(model_config.CONFIGS / BUNDLED / "config.json")))
        rows.append({"name": BUNDLED, "state": "ready, inside the package", "licence": bundled.licence, "about": bundled.about})
    for record in sorted((download.home() / "hf").glob(f"*/{ORIGIN}")):
        address = json.loads(record.read_text())["address"]
        rows.append({"name": address, "state": "fetched", "licence": None, "about": ""})
    for row in rows:
        row["default"] = row["name"] == default_name()
    if as_json:
        print(json.dumps(rows))  # noqa: T201
        return
    for row in rows:
        print(f"{'*' if row['default'] else ' '} {row['name']:<8} {row['state']:<38} {row['about']}")  # noqa: T201


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="`huge`, or hf://owner/repo[@revision].")],
    sha256: Annotated[str | None, typer.Option(help="Refuse the file unless its SHA-256 is this.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network; fail if the model is not here.")] = False,
) -> None:
    """Fetch a model, whole or not at all, and print its folder. The same command continues a broken download.

    Environment: `IMAGEBIND_HOME` (where to), `IMAGEBIND_MIRROR` and `HF_ENDPOINT` (from where), `https_proxy`, `HF_TOKEN`,
    `IMAGEBIND_OFFLINE`.

    \b
        imagebind weights pull huge
        imagebind weights pull hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K
    """
    from imagebind_cli.weights import download, model_config
    from imagebind_cli.weights.find import is_bundled
    from imagebind_cli.weights.origin import ORIGIN

    with _progress() as progress:
        if name.startswith("hf://"):
            if sha256:
                raise UsageError("--sha256 is for single files; the hub states its own")
            folder = download.pull_hub(name, progress=progress, offline=offline)
        else:
            config = model_config.packaged_config(name) if name in model_config.packaged_names() else None
            if config is None or config.address is None:
                if is_bundled(name):
                    raise UserError(f"{name!r} is inside this package: there is nothing to fetch")
                known = [known for known in model_config.packaged_names() if model_config.packaged_config(known).address]
                raise UserError(f"nothing to fetch for {name!r}; choose from {', '.join(known)}, hf://owner/repo")
            if config.licence:
                say(f"{name}: its weights are under {config.licence}")
            folder = download.pull_address(
                config.address, download.folder_of(name), sha256=sha256, progress=progress, offline=offline
            ).parent
    for file, record in json.loads((folder / ORIGIN).read_text())["files"].items():
        say(f"{file}: {record['size']:,} bytes, SHA-256 {record['sha256']}")
    print(folder)  # noqa: T201


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Published .pth, OpenCLIP weights, or any form of --model.")],
    folder: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to make: config.json and one safetensors file per encoder.")],
    config: Config = None,
) -> None:
    """Turn foreign weights into a model folder, exactly: every tensor is accounted for, or nothing is written."""
    from imagebind_cli.weights import checkpoint
    from imagebind_cli.weights.find import find_checkpoint
    from imagebind_cli.weights.origin import file_hash

    found = find_checkpoint(source, config)
    origin: dict[str, Any] = {"from": found.place}
    if Path(source).is_file():
        origin["sha256"] = file_hash(Path(source))
    made = checkpoint.convert(found, folder, origin)
    say(f"{folder}: {', '.join(made.encoders)}")
    print(folder)  # noqa: T201


@app.command()
def info(model: ModelName = None, config: Config = None, as_json: AsJSON = False) -> None:
    """What a model is made of: parameters and fingerprint per encoder, licence, where it comes from; then its model card, if it has one."""
    from imagebind_cli import registry
    from imagebind_cli.encoder import build_encoder
    from imagebind_cli.weights.find import find_checkpoint

    found = find_checkpoint(model, config)
    encoders: dict[str, dict[str, Any]] = {}
    for name, encoder in found.config.encoders.items():
        parameters = sum(tensor.numel() for tensor in build_encoder(registry.get(name), encoder).parameters())
        encoders[name] = {
            "parameters": parameters,
            "width": encoder.trunk.width,
            "layers": encoder.trunk.layers,
            "heads": encoder.trunk.heads,
            "input": list(encoder.shape),
            "fingerprint": found.fingerprint(name),
        }
    about = {
        "name": found.config.name,
        "about": found.config.about,
        "place": found.place,
        "licence": found.config.licence or "not stated",
        "dim": found.config.dim,
        "untrained": found.untrained,
        **({"unfinished": found.unfinished} if found.unfinished else {}),
        "origin": dict(found.config.origin) or _origin(found.place),
        "parameters": sum(encoder["parameters"] for encoder in encoders.values()),
        "encoders": encoders,
    }
    card = Path(found.place) / CARD
    text = card.read_text() if card.is_file() else ""
    if as_json:
        print(json.dumps(about | ({"card": text} if text else {})))  # noqa: T201
        return
    for key in ("name", "about", "place", "licence", "dim", "untrained", "unfinished", "origin"):
        if about.get(key, "") not in ("", {}):
            print(f"{key:<10} {about[key]}")  # noqa: T201
    print(f"{'encoder':<10}{'parameters':>15}{'width':>7}{'layers':>8}{'heads':>7}  {'input':<18}fingerprint")  # noqa: T201
    for name, row in encoders.items():
        shape = " x ".join(str(size) for size in row["input"])
        print(  # noqa: T201
            f"{name:<10}{row['parameters']:>15,}{row['width']:>7}{row['layers']:>8}{row['heads']:>7}  {shape:<18}{row['fingerprint']}"
        )
    print(f"{'all':<10}{about['parameters']:>15,}")  # noqa: T201
    if text:
        print(f"\n{text}", end="")  # noqa: T201


@app.command()
def verify(
    model: ModelName = None,
    dtype: Annotated[
        Dtype, typer.Option(help="Also say how far vectors in this type are from float32 ones, for each encoder.")
    ] = Dtype.auto,
) -> None:
    """Read every byte of a model again and compare with what was recorded when it was fetched or converted. Exit 1 if it differs."""
    from imagebind_cli.model import load
    from imagebind_cli.weights.find import find_checkpoint
    from imagebind_cli.weights.origin import ORIGIN, check_origin, file_hash

    found = find_checkpoint(model)
    folder = Path(found.place)
    folder = folder if folder.is_dir() else folder.parent
    bad, checked = [], 0
    if (folder / ORIGIN).is_file():
        bad += check_origin(folder)
        checked += len(json.loads((folder / ORIGIN).read_text())["files"])
    for name, record in found.config.files.items():
        path = folder / name
        if not path.is_file():
            bad.append(f"{name}: missing")
        elif path.stat().st_size != record["size"] or file_hash(path) != record["sha256"]:
            bad.append(f"{name}: differs from its record")
        checked += 1
    for line in bad:
        say(f"{folder}: {line}")
    if bad:
        raise typer.Exit(1)
    load(model, modalities=list(found.config.encoders), device="cpu")  # names and shapes
    print(f"{found.config.name}: {checked} files as recorded, {len(found.config.encoders)} encoders load")  # noqa: T201
    if dtype is not Dtype.auto:
        from imagebind_cli.evaluation.precision import ITEMS, cosines

        print(f"cosine of {dtype} to fp32, {ITEMS} generated inputs: mean, lowest")  # noqa: T201
        for name in found.config.encoders:  # one at a time: a pair of the largest fits where all do not
            exact, other = (load(model, device="cpu", dtype=kind) for kind in ("fp32", str(dtype)))
            near = cosines(exact, other, name)
            print(f"{name:<10}{near.mean():>10.6f}{near.min():>10.6f}")  # noqa: T201


def _origin(place: str) -> dict[str, Any]:
    """The record of a fetched file or folder, if there is one."""
    path = Path(place)
    record = (path if path.is_dir() else path.parent) / "origin.json"
    if not record.is_file():
        return {}
    origin = json.loads(record.read_text())
    return {key: origin[key] for key in ("address", "revision", "fetched") if key in origin}


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar per file on a terminal; elsewhere nothing until the end."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, refresh_per_second=5) as bars:
        tasks: dict[str, Any] = {}

        def progress(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield progress
