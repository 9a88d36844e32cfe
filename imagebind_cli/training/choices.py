"""The recipe a command line asks for: a recipe, or none, with pairs, data and changes laid over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from imagebind_cli import registry
from imagebind_cli.errors import UsageError
from imagebind_cli.training.recipe import Pair, Recipe, read_recipe
from imagebind_cli.training.sides import PICTURES, PLACES, augmentations, options
from imagebind_cli.training.start import RANDOM, sections


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
    say: Callable[[str], None] = lambda text: None,
) -> Recipe:
    """A recipe by name or file, changed as the flags of `imagebind train` say.

    Args:
        pairs: `image-depth`; of a recipe that has them, these alone; one that a recipe of one pair does not have takes that pair's place and
            settings. data, val: files, of one pair, or each as `image-depth=FILE`. zeroshot: `audio:FILE`. model: in place of the recipe's.
            init: weights of every encoder that trains. batch: of every pair. changes: as `read_recipe` takes them.
        say: is given what of a recipe could not be kept.
    Raises:
        UserError: anything in it that does not fit.
    """
    given = read_recipe(recipe)
    sections_of = {name: section.model_dump(exclude_unset=True) for name, section in given.encoders.items()}
    chosen = _pairs(given, pairs, sections_of, say)
    for key, files in (("data", data), ("val", val)):
        _put_files(chosen, key, files)
    needed = {registry.encoder_name(modality) for pair in chosen for modality in pair["modalities"]}
    needed |= {name for test in given.zeroshot for name in (registry.encoder_name(test.modality), "text")}
    encoders = {name: section for name, section in sections_of.items() if name in needed or not pairs}
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
    if model is not None and "model" in given.model_fields_set and made.model != given.model:
        say(f"model {made.model} takes the place of the recipe's {given.model}")
    if init is None:
        return made
    trained = [name for name, section in sections(made).items() if section.train != "none"]
    sections_of = {name: section.model_dump(exclude_unset=True) for name, section in sections(made).items()}
    return Recipe.model_validate(
        made.model_dump(exclude_unset=True) | {"encoders": sections_of | {name: {**sections_of[name], "init": init} for name in trained}}
    )


def _pairs(given: Recipe, wanted: Sequence[str], encoders: dict[str, Any], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The recipe's pairs, or those that are wanted; encoders get the settings of those whose place they take."""
    there = {pair.name: pair.model_dump(exclude_unset=True) for pair in given.pairs}
    if not wanted:
        return list(there.values())
    chosen = []
    for name in (name for text in wanted for name in text.split(",")):
        if name in there:
            chosen.append(there[name])
        elif len(there) == 1:
            chosen.append(_in_place_of(given.pairs[0], _modalities(name), encoders, say))
        else:
            chosen.append({"modalities": _modalities(name)})
            if there:
                say(f"{name}: not in the recipe, which has {', '.join(there)}; its batch, temperature and augmentation are the defaults")
    return chosen


def _in_place_of(pair: Pair, modalities: tuple[str, str], encoders: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """A pair with the settings of another, but for its data; those of a modality that fit the one in its place."""
    name = "-".join(modalities)
    sides = [tuple(map(registry.encoder_name, names)) for names in (pair.modalities, modalities)]
    if sides[0][0] == sides[1][1] or sides[0][1] == sides[1][0]:
        bound = f"{pair.modalities[1]} to {pair.modalities[0]}, its anchor"
        raise UsageError(f"--pairs {name}: the recipe binds {bound}; the other way round is another recipe: copy it, and change it")
    made = pair.model_dump(exclude_unset=True, exclude={"modalities", "data", "val", "augment", "options"}) | {"modalities": modalities}
    left = [key for key in ("data", "val") if getattr(pair, key)]
    for old, new in zip(pair.modalities, modalities, strict=True):
        augment = pair.augment[old].model_dump(exclude_unset=True) if old in pair.augment else {}
        for key, values, fitting in (("augment", augment, augmentations(new)), ("options", pair.options.get(old, {}), options(new))):
            left += [f"{key}.{old}.{setting}" for setting in values if setting not in fitting]
            if kept := {setting: value for setting, value in values.items() if setting in fitting}:
                made.setdefault(key, {})[new] = kept
    anchor, other = (made.get("augment", {}).get(modality, {}) for modality in modalities)
    moved = {key: anchor[key] for key in PLACES if key in anchor}
    if moved and not other and pair.aligned and sides[1][1] in PICTURES:  # aligned pictures are moved alike
        made["augment"][modalities[1]] = moved
    for before, after in zip(*sides, strict=True):
        if before != after and before in encoders and after not in encoders:
            encoders[after] = dict(encoders[before])
            if encoders[after].get("init", RANDOM) != RANDOM:
                left.append(f"encoders.{before}.init")
                del encoders[after]["init"]
    say(f"{name} takes the place and the settings of the recipe's {pair.name}" + (f", but not {', '.join(left)}" if left else ""))
    return made


def _modalities(name: str) -> tuple[str, str]:
    anchor, dash, other = name.partition("-")
    if not dash or not anchor or not other or "-" in other:
        raise UsageError(f"--pairs {name!r}: two modalities are needed, the anchor first, as in image-depth")
    for modality in (anchor, other):
        registry.encoder_name(modality)
    if anchor == other:
        raise UsageError(f"--pairs {name!r}: a pair is of two modalities, and not {anchor} twice")
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
            raise UsageError(
                f"--{key} {file!r}: say of which pair it is: {next(iter(names), 'image-depth')}={file}; pairs are {', '.join(names)}"
            )
    for name, own in found.items():
        names[name][key] = tuple(own)


def _test(text: str) -> dict[str, Any]:
    modality, colon, path = text.partition(":")
    if not colon or not path:
        raise UsageError(f"--zeroshot {text!r}: MODALITY:FILE is needed, as in audio:labels.csv")
    return {"modality": modality, "data": path}
