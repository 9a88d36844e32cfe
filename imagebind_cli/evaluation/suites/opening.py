"""A suite's recipe over the folder of its dataset: the same steps for suites that are classified, located, or searched for moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.recipe import (
    DEFAULT_PROTOCOL,
    Figures,
    Protocol,
    SuiteRecipe,
    Value,
    chosen_options,
    read_suite_recipe,
    suite_names,
)
from imagebind_cli.evaluation.suites.tree import Tree

T = TypeVar("T")


@dataclass(frozen=True)
class Opening:
    """A recipe under the protocol of a family, its chosen options, and the folder that a layout reads."""

    name: str
    recipe: SuiteRecipe
    family: str
    protocol: Protocol
    options: dict[str, Value]
    tree: Tree

    def layout(self, layouts: Mapping[str, T]) -> T:
        """Return the layout that the recipe names, or the one of the suite's name.

        Raises:
            UserError: there is no such layout.
        """
        name = self.recipe.layout or Path(self.name).stem
        if name not in layouts:
            raise UserError(f"{self.name}: unknown layout {name!r}; choose from {', '.join(layouts)}")
        return layouts[name]

    def once(self, items: Sequence[T], id_of: Callable[[T], object]) -> list[T]:
        """Return items without those whose id came before.

        Raises:
            UserError: there are none.
        """
        first: dict[object, T] = {}
        for item in items:
            first.setdefault(id_of(item), item)
        if not first:
            raise UserError(f"{self.name}: nothing to run in {self.tree.root}; it takes {', '.join(self.recipe.tree)}")
        return list(first.values())

    @staticmethod
    def repeated(count: int) -> list[str]:
        """Return a note on repeated items, if there are any."""
        return [f"rows with an item that came before, left out: {count:,}"] if count else []

    @property
    def figures(self) -> list[Figures]:
        """The published figures that are valid for the chosen options."""
        return [figures for figures in self.protocol.figures if figures.when.items() <= self.options.items()]

    def about(self, items: int, classes: int, notes: Sequence[str]) -> dict[str, Any]:
        """Return the facts that every opened suite has, by the names of the fields of `Suite`. notes: about this copy."""
        figures = self.figures
        return {
            "name": self.name,
            "about": self.recipe.about,
            "published": dict(figures[0].values) if figures else {},
            "source": figures[0].source if figures else "",
            "notes": [*self.protocol.assumed, *notes, *self._differences(items, classes, figures)],
            "options": self.options,
            "files": self.tree.files,
            "protocol": self.family,
        }

    def _differences(self, items: int, classes: int, figures: Sequence[Figures]) -> list[str]:
        """Describe how the counts of this copy differ from the paper's, and which figures are published besides the first."""
        notes = [
            f"{count:,} {what} here; the paper has {paper:,}"
            for what, count, paper in (
                ("items", items, self.protocol.paper_items),
                ("classes", classes, self.protocol.paper_classes),
            )
            if paper is not None and count != paper
        ]
        if self.protocol.figures and not figures:
            notes.append("no figure is published for these options")
        if any(each.model for each in figures):
            notes.append(f"published: {'; '.join(each.describe() for each in figures)}")
        return notes


def recipe_of_command(name: str, command: str) -> SuiteRecipe:
    """Read the recipe of a suite that a command runs.

    Raises:
        UserError: no such suite, or one that another command runs.
    """
    if not name.endswith(".toml") and name not in suite_names():
        raise UserError(f"unknown suite {name!r}; choose from {', '.join(suite_names(command))}, or give a .toml file")
    recipe = read_suite_recipe(name)
    if recipe.command != command:
        raise UserError(f"suite {name} is run by another command: imagebind {recipe.command} --suite {name}")
    return recipe


def open_recipe(name: str, recipe: SuiteRecipe, root: Path, options: Mapping[str, Any], family: str = DEFAULT_PROTOCOL) -> Opening:
    """Open the folder of a suite's dataset under the protocol of a family.

    Args:
        options: of the suite, by name, in place of their defaults.
    Raises:
        UserError: no such option, or no such folder.
    """
    protocol = recipe.protocol(family)
    chosen = chosen_options(name, recipe, {**protocol.options, **options})
    return Opening(name, recipe, family, protocol, chosen, Tree(root, name, recipe.tree))
