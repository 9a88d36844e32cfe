"""ESC-50 and ESC-10 (Piczak 2015): environmental sounds in five folds, which the paper evaluates separately and averages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.suite import Contents, LabelledItem
from imagebind_cli.evaluation.suites.tree import Row, Tree
from imagebind_cli.sources import Item

# ESC-10's folders, and the names of these classes in ESC-50.
ESC10_FOLDERS = {
    "001 - Dog bark": "dog",
    "002 - Rain": "rain",
    "003 - Sea waves": "sea_waves",
    "004 - Baby cry": "crying_baby",
    "005 - Clock tick": "clock_tick",
    "006 - Person sneeze": "sneezing",
    "007 - Helicopter": "helicopter",
    "008 - Chainsaw": "chainsaw",
    "009 - Rooster": "rooster",
    "010 - Fire crackling": "crackling_fire",
}


def esc50_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the clips of `meta/esc50.csv`."""
    return Contents(_listed(tree, recipe, tree.rows(tree.find("meta/esc50.csv"), ["filename", "fold", "category"])))


def esc10_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read ESC-10 as it was first published, with a folder for each class, or the clips of ESC-50 that are marked as ESC-10."""
    if tree.has("meta/esc50.csv"):
        rows = tree.rows(tree.find("meta/esc50.csv"), ["filename", "fold", "category", "esc10"])
        return Contents(_listed(tree, recipe, ((place, row) for place, row in rows if row["esc10"] == "True")))
    numbers = {name: number for number, name in enumerate(recipe.classes)}
    items: list[LabelledItem] = []
    for folder, name in ESC10_FOLDERS.items():
        paths = sorted(tree.find(folder).glob("[1-5]-*.ogg"))
        items += [(Item(path.name, str(path)), (numbers[name],), path.name[0]) for path in paths]
    return Contents(items)


def _listed(tree: Tree, recipe: SuiteRecipe, rows: Iterable[Row]) -> list[LabelledItem]:
    audio = tree.find("audio")
    numbers = {name: number for number, name in enumerate(recipe.classes)}
    items: list[LabelledItem] = []
    for place, row in rows:
        if row["category"] not in numbers:
            raise UserError(f"{place}: unknown category {row['category']!r}; ESC has {', '.join(numbers)}")
        items.append((Item(row["filename"], str(tree.named(audio, row["filename"]))), (numbers[row["category"]],), row["fold"]))
    tree.all_there(Path(item.payload) for item, _, _ in items)
    return items
