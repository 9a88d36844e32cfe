"""The recipe a command line asks for: a recipe, or none, with pairs, data and changes laid over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.training.recipe import Recipe, read_recipe
from imagebind_cli.training.start import sections


def requested(
    recipe: str | None,
    *,
    pairs: Sequence[str] = (),
    data: Sequence[str] = (),
    val: Sequence[str] = (),
    zeroshot: Sequence[str] = (),
    model: str | None = None,
    init: str | None = None,
    batch: int | None = None,
    micro_batch: int | None = None,
    changes: Sequence[str] = (),
) -> Recipe:
    """A recipe by name or file, changed as the flags of `imagebind train` say.

    Args:
        pairs: `image-depth`; of a recipe that has them, these alone. data, val: files, of one pair, or each as `image-depth=FILE`.
        zeroshot: `audio:FILE`. init: weights of every encoder that trains. batch: of every pair. changes: as `read_recipe` takes them.
    Raises:
        UserError: anything in it that does not fit.
    """
    given = read_recipe(recipe)
    chosen = _pairs(given, pairs)
    for key, files in (("data", data), ("val", val)):
        _put_files(chosen, key, files)
    needed = {registry.encoder_name(modality) for pair in chosen for modality in pair["modalities"]}
    needed |= {name for test in given.zeroshot for name in (registry.encoder_name(test.modality), "text")}
    encoders = {name: section.model_dump(exclude_unset=True) for name, section in given.encoders.items() if name in needed or not pairs}
    made = read_recipe(
        recipe,
        [
            *(f"pairs.{number}.batch={batch}" for number in range(len(chosen)) if batch),
            *([f"run.micro_batch={micro_batch}"] if micro_batch else []),
            *changes,
        ],
        model=model,
        pairs=chosen,
        encoders=encoders,
        zeroshot=[_test(text) for text in zeroshot] or None,
    )
    if init is None:
        return made
    trained = [name for name, section in sections(made).items() if section.train != "none"]
    sections_of = {name: section.model_dump(exclude_unset=True) for name, section in sections(made).items()}
    return Recipe.model_validate(
        made.model_dump(exclude_unset=True) | {"encoders": sections_of | {name: {**sections_of[name], "init": init} for name in trained}}
    )


def _pairs(given: Recipe, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The recipe's pairs, or those that are wanted, as the recipe has them where it does."""
    there = {pair.name: pair.model_dump(exclude_unset=True) for pair in given.pairs}
    if not wanted:
        return list(there.values())
    names = [name for text in wanted for name in text.split(",")]
    return [there.get(name) or {"modalities": _modalities(name)} for name in names]


def _modalities(name: str) -> tuple[str, ...]:
    anchor, dash, other = name.partition("-")
    if not dash or not anchor or not other or "-" in other:
        raise UserError(f"--pairs {name!r}: two modalities are needed, the anchor first, as in image-depth")
    for modality in (anchor, other):
        registry.encoder_name(modality)
    return anchor, other


def _put_files(pairs: list[dict[str, Any]], key: str, files: Sequence[str]) -> None:
    """Give each pair its files, in place of the recipe's."""
    names = {"-".join(pair["modalities"]): pair for pair in pairs}
    found: dict[str, list[str]] = {}
    for file in files:
        name, equals, path = file.partition("=")
        if equals and name in names:
            found.setdefault(name, []).append(path)
        elif len(pairs) == 1:
            found.setdefault(next(iter(names)), []).append(file)
        else:
            raise UserError(
                f"--{key} {file!r}: say of which pair it is: {next(iter(names), 'image-depth')}={file}; pairs are {', '.join(names)}"
            )
    for name, own in found.items():
        names[name][key] = tuple(own)


def _test(text: str) -> dict[str, Any]:
    modality, colon, path = text.partition(":")
    if not colon or not path:
        raise UserError(f"--zeroshot {text!r}: MODALITY:FILE is needed, as in audio:labels.csv")
    return {"modality": modality, "data": path}
