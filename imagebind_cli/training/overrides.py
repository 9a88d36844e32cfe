"""The recipe a command line asks for: a recipe of the package, a file or none, with the flags of `imagebind train` applied to it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from imagebind_cli import registry
from imagebind_cli.errors import UsageError
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.training.inputs import CROPPABLE, augment_keys, recipe_options
from imagebind_cli.training.plan import RANDOM, encoder_recipes
from imagebind_cli.training.recipe import MOVES_PIXELS, ROW_COLUMNS, AugmentRecipe, EncoderRecipe, PairRecipe, Recipe, TeacherRecipe
from imagebind_cli.training.recipe_files import read_recipe, refuse_changes

TEST_COLUMNS = ("id", "label")  # of a zero-shot manifest, besides its modality


def resolve_recipe(
    recipe: str | None,
    *,
    pairs: Sequence[str] = (),
    data: Sequence[str] = (),
    val: Sequence[str] = (),
    zeroshot: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    model: str | None = None,
    distil: str | None = None,
    modality: str | None = None,
    init: str | None = None,
    batch: int | None = None,
    micro_batch: int | None = None,
    changes: Sequence[str] = (),
    listener: Listener | None = None,
) -> Recipe:
    """Read a recipe and apply the flags of `imagebind train`.

    Args:
        recipe: a file or a name; None for the defaults.
        pairs: such as `image-depth`. Of a recipe with several pairs, only these are kept. A pair that a recipe of one pair does not have
            replaces that pair and takes over its settings.
        data: files, of the only pair, or each as `image-depth=FILE`.
        val: validation files, given like `data`, or a fraction of the training rows such as `0.2`.
        zeroshot: tests, as `audio:FILE`.
        columns: name of a column in the manifests by modality, `id`, `group`, `start`, `end` or `label`.
        model: in place of the recipe's. distil: the teacher, a model or vectors, in place of the recipe's; without a recipe, of a distillation
            with the default settings, for which `model` is the student and `modality` what it learns.
        init: initial weights of every encoder that trains. batch: of every pair. micro_batch: of the run.
        changes: as in `read_recipe`.
        listener: its `note` receives a line for each setting of the recipe that was dropped or replaced; by default they are logged.
    Raises:
        UserError: a flag or the recipe is wrong.
    """
    if distil is None and modality is not None:
        raise UsageError("--modality is for --distil; two modalities are bound with --pairs")
    original = read_recipe(recipe) if recipe is not None or distil is None else _distillation(distil, modality, model)
    tables = {name: table.model_dump(exclude_unset=True) for name, table in original.encoders.items()}
    listener = listener or LogListener()
    chosen = _choose_pairs(original, pairs, tables, listener)
    if distil is not None:
        _set_teacher(chosen, distil, modality)
    for key, files in (("data", data), ("val", val)):
        _set_files(chosen, key, files)
    for pair in chosen if columns else ():
        pair["columns"] = _matching_columns(columns, (*pair["modalities"], *ROW_COLUMNS))
    tests = [_parse_test(text, columns or {}) for text in zeroshot]
    _check_columns_used(columns or {}, [*chosen, *tests])
    needed = {registry.face(modality).encoder for pair in chosen for modality in pair["modalities"]}
    needed |= {name for test in original.zeroshot for name in (registry.face(test.modality).encoder, registry.TEXT)}
    resolved = read_recipe(
        recipe,
        [
            *(f"pairs.{number}.batch={batch}" for number in range(len(chosen)) if batch),
            *([f"run.micro_batch={micro_batch}"] if micro_batch else []),
            *changes,
        ],
        model=model,
        pairs=chosen,
        encoders={name: table for name, table in tables.items() if name in needed or not pairs},
        zeroshot=tests or None,
    )
    if model is not None and "model" in original.model_fields_set and resolved.model != original.model:
        listener.note(f"model {resolved.model} takes the place of the recipe's {original.model}")
    with refuse_changes(resolved, changes):
        return resolved if init is None else _with_init(resolved, init)


def _distillation(teacher: str, modality: str | None, student: str | None) -> Recipe:
    """Return the recipe of a distillation with default settings: a student that starts from fresh weights."""
    if modality is None:
        raise UsageError("--distil: say what the student learns, as in --modality image, or give a --recipe")
    if student is None:
        raise UsageError("--distil: name the student's config with --student, as base or mini.json, or give a --recipe")
    pair = PairRecipe(teacher=TeacherRecipe(model=teacher), modalities=(modality, modality))
    return Recipe(model=student, pairs=(pair,), encoders={registry.face(modality).encoder: EncoderRecipe(init=RANDOM)})


def _set_teacher(pairs: list[dict[str, Any]], teacher: str, modality: str | None) -> None:
    """Replace the teacher of every pair that has one."""
    taught = [pair for pair in pairs if pair.get("teacher") is not None]
    if not taught:
        raise UsageError("--distil: no pair of this recipe has a teacher")
    for pair in taught:
        if modality is not None and pair["modalities"][1] != modality:
            raise UsageError(f"--modality {modality}: this recipe distils {pair['modalities'][1]}")
        pair["teacher"] = {**pair["teacher"], "model": teacher}


def _name(pair: Mapping[str, Any]) -> str:
    return pair.get("label") or "-".join(dict.fromkeys(pair["modalities"]))


def _with_init(recipe: Recipe, init: str) -> Recipe:
    """Set the initial weights of every encoder that trains."""
    tables = {name: table.model_dump(exclude_unset=True) for name, table in encoder_recipes(recipe).items()}
    for table in tables.values():
        if table["train"] != "none":
            table["init"] = init
    return Recipe.model_validate(recipe.model_dump(exclude_unset=True) | {"encoders": tables})


def _choose_pairs(recipe: Recipe, names: Sequence[str], encoders: dict[str, Any], listener: Listener) -> list[dict[str, Any]]:
    """Return the named pairs, or all of the recipe's. `encoders` gains the tables of encoders that replace others."""
    known = {pair.name: pair.model_dump(exclude_unset=True) for pair in recipe.pairs}
    if not names:
        return list(known.values())
    chosen = []
    for name in (name for text in names for name in text.split(",")):
        if name in known:
            chosen.append(known[name])
        elif len(known) == 1:
            chosen.append(_replacement_pair(recipe.pairs[0], _parse_pair(name), encoders, listener))
        else:
            chosen.append({"modalities": _parse_pair(name)})
            if known:
                listener.note(
                    f"{name}: not in the recipe, which has {', '.join(known)}; its batch, temperature and augmentation are the defaults"
                )
    return chosen


def _replacement_pair(pair: PairRecipe, modalities: tuple[str, str], encoders: dict[str, Any], listener: Listener) -> dict[str, Any]:
    """Return a pair of other modalities with the settings of a recipe's pair, without its data and without settings that do not fit."""
    name = "-".join(modalities)
    before, after = (tuple(registry.face(name).encoder for name in names) for names in (pair.modalities, modalities))
    if before[0] == after[1] or before[1] == after[0]:
        bound = f"{pair.modalities[1]} to {pair.modalities[0]}, its anchor"
        raise UsageError(f"--pairs {name}: the recipe binds {bound}; for the reverse, copy the recipe and change it")
    data_keys = ("data", "val", "val_fraction", "columns")
    table = pair.model_dump(exclude_unset=True, exclude={"modalities", "augment", "options", *data_keys}) | {"modalities": modalities}
    dropped = [key for key in data_keys if getattr(pair, key)]
    for old, new in zip(pair.modalities, modalities, strict=True):
        augment = pair.augment[old].model_dump(exclude_unset=True) if old in pair.augment else {}
        for key, values, fitting in (
            ("augment", augment, augment_keys(new)),
            ("options", pair.options.get(old, {}), recipe_options(new)),
        ):
            dropped += [f"{key}.{old}.{setting}" for setting in values if setting not in fitting]
            if remaining := {setting: value for setting, value in values.items() if setting in fitting}:
                table.setdefault(key, {})[new] = remaining
    anchor, other = (table.get("augment", {}).get(modality, {}) for modality in modalities)
    geometry = {key: anchor[key] for key in AugmentRecipe.marked(MOVES_PIXELS) if key in anchor}
    if geometry and not other and pair.aligned and after[1] in CROPPABLE:  # aligned pictures need the same geometry
        table["augment"][modalities[1]] = geometry
    for old, new in zip(before, after, strict=True):
        if old != new and old in encoders and new not in encoders:
            encoders[new] = dict(encoders[old])
            if encoders[new].get("init", RANDOM) != RANDOM:
                dropped.append(f"encoders.{old}.init")
                del encoders[new]["init"]
    listener.note(
        f"{name} takes the place and the settings of the recipe's {pair.name}" + (f", but not {', '.join(dropped)}" if dropped else "")
    )
    return table


def _parse_pair(name: str) -> tuple[str, str]:
    anchor, dash, other = name.partition("-")
    if not dash or not anchor or not other or "-" in other:
        raise UsageError(f"--pairs {name!r}: two modalities are needed, the anchor first, as in image-depth")
    for modality in (anchor, other):
        registry.face(modality)
    if anchor == other:
        raise UsageError(f"--pairs {name!r}: a pair binds two different modalities, not {anchor} twice")
    return anchor, other


def _set_files(pairs: list[dict[str, Any]], key: str, values: Sequence[str]) -> None:
    """Replace the files of each pair, `data` or `val`; a number for `val` is a fraction of the training rows."""
    by_name = {_name(pair): pair for pair in pairs}
    files: dict[str, list[str]] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if equals and name in by_name:
            files.setdefault(name, []).append(path)
        elif len(pairs) == 1:
            files.setdefault(next(iter(by_name)), []).append(value)
        else:
            example = f"{next(iter(by_name), 'image-depth')}={value}"
            raise UsageError(f"--{key} {value!r}: name its pair, as in {example}; the pairs are {', '.join(by_name)}")
    for name, paths in files.items():
        pair = by_name[name]
        fractions = [fraction for path in paths if key == "val" and (fraction := _parse_fraction(path)) is not None]
        if not fractions:
            pair[key] = tuple(paths)
        elif len(paths) > 1:
            raise UsageError(f"--val {' --val '.join(paths)}: give files, or one fraction of the training rows, not both")
        elif pair.get("val"):
            raise UsageError(f"--val {paths[0]}: the recipe's {name} has validation files ({', '.join(pair['val'])}); remove them first")
        else:
            pair["val_fraction"] = fractions[0]
        if key == "val" and not fractions:
            pair.pop("val_fraction", None)


def _parse_fraction(text: str) -> float | None:
    """Return the number that `--val` gives in place of a file; None for a file.

    Raises:
        UsageError: a number that is not between 0 and 1.
    """
    try:
        fraction = float(text)
    except ValueError:
        return None
    if os.path.exists(text):
        return None
    if not 0 < fraction < 1:
        raise UsageError(f"--val {text}: a fraction of the training rows is between 0 and 1, as in 0.2")
    return fraction


def _matching_columns(columns: Mapping[str, str] | None, known: Sequence[str]) -> dict[str, str]:
    return {name: column for name, column in (columns or {}).items() if name in known}


def _check_columns_used(columns: Mapping[str, str], tables: Sequence[Mapping[str, Any]]) -> None:
    used = {name for table in tables for name in table.get("columns", {})}
    for name in columns:
        if name not in used:
            modalities = {modality for table in tables for modality in table.get("modalities", (table.get("modality"),))}
            known = [*sorted(modalities), *ROW_COLUMNS, *(["label"] if any("modality" in table for table in tables) else [])]
            raise UsageError(f"--column {name}={columns[name]}: nothing reads {name!r}; choose from {', '.join(known)}")


def _parse_test(text: str, columns: Mapping[str, str]) -> dict[str, Any]:
    modality, colon, path = text.partition(":")
    if not colon or not path:
        raise UsageError(f"--zeroshot {text!r}: MODALITY:FILE is needed, as in audio:labels.csv")
    return {"modality": modality, "data": path, "columns": _matching_columns(columns, (modality, *TEST_COLUMNS))}
