"""The TOML files of recipes: a network's sizes in one file, and which kind of recipe a file holds.

`[base]` is what the recipes of a file share and each `[recipes.<name>]` is laid over it, key by key. `kind` says what
they describe and who gives the rest a meaning: 'pose' where it is left out (`sdk.recipe`), or 'detector'
(`sdk.detector_recipe`).

    file = recipe_file(path, "pose")
    table, where = file.merged(chosen_name(file, "rtmpose-s-256x192"))      # the merged table; how a message names it
    catalogue_of("pose", recipe_from_table)                                 # of all that ship: name -> recipe
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from sdk.errors import RecipeError
from sdk.reading import toml_from_file
from sdk.resources import catalogue_folder

__all__ = [
    "Kind", "RecipeFile", "catalogue_of", "chosen_name", "did_you_mean", "names_of_kind", "recipe_file", "recipes_of",
]  # fmt: skip

T = TypeVar("T")

Kind = Literal["pose", "detector"]
KEYS = ("format", "base", "recipes", "kind")


@dataclass(frozen=True)
class RecipeFile:
    """What a file says: the kind of its recipes, what they share, and the table of each."""

    path: Path
    kind: Kind
    base: Any
    tables: Mapping[str, Any]

    def merged(self, name: str) -> tuple[dict[str, Any], str]:
        """The whole table of one recipe, and how a message names it."""
        where, table = f"{self.path.name}: recipe '{name}'", self.tables[name]
        if not isinstance(self.base, dict) or not isinstance(table, dict):
            raise RecipeError(f"{where}: [base] and [recipes.*] must be tables")
        return {**_laid_over(self.base, table), "name": name}, where


def recipe_file(path: Path, kind: Kind | None = None) -> RecipeFile:
    """The file, read; RecipeError where it is none, or one of another kind than `kind`."""
    document = toml_from_file(path, "recipe file", RecipeError)
    for key in sorted(set(document) - set(KEYS)):
        raise RecipeError(f"{path.name}: unknown key '{key}'; known keys are {', '.join(KEYS)}")
    if document.get("format") != 1:
        raise RecipeError(f"{path.name}: key 'format' must be 1 (got {document.get('format')!r})")
    found = document.get("kind", "pose")
    if found not in get_args(Kind):
        raise RecipeError(f"{path.name}: key 'kind' must be one of {', '.join(get_args(Kind))} (got {found!r})")
    if kind not in (None, found):
        raise RecipeError(f"'{path}' holds recipes of kind '{found}', and one of kind '{kind}' is asked for")
    tables = document.get("recipes")
    if not isinstance(tables, dict) or not tables:
        raise RecipeError(f"{path.name}: key 'recipes' is missing; name at least one, as [recipes.\"net-64x64\"]")
    return RecipeFile(path, found, document.get("base", {}), tables)


def chosen_name(file: RecipeFile, name: str | None) -> str:
    """`name`, or the only recipe's."""
    if name is None and len(file.tables) == 1:
        name = next(iter(file.tables))
    if name is None or name not in file.tables:
        known = ", ".join(file.tables)
        raise RecipeError(f"'{file.path}' holds {known}: name one of them as RECIPE (got {name or 'none'})")
    return name


def recipes_of(file: RecipeFile, from_table: Callable[[dict[str, Any], str], T]) -> dict[str, T]:
    """All recipes of a file, by name; `from_table` gives a merged table its meaning."""
    return {name: from_table(*file.merged(name)) for name in file.tables}


def catalogue_of(kind: Kind, from_table: Callable[[dict[str, Any], str], T]) -> dict[str, T]:
    """Every recipe of this kind that ships, by name, in the order of names."""
    recipes: dict[str, T] = {}
    for file in _files_of_kind(kind):
        for name, recipe in recipes_of(file, from_table).items():
            if name in recipes:
                raise RecipeError(f"{file.path.name}: recipe '{name}' is in the catalogue twice; rename one")
            recipes[name] = recipe
    return dict(sorted(recipes.items()))


def names_of_kind(kind: Kind) -> list[str]:
    """The names in the catalogue, with nothing else of the recipes read."""
    return [name for file in _files_of_kind(kind) for name in file.tables]


def did_you_mean(name: str, recipes: Mapping[str, object]) -> str:
    """How a message goes on that says that the catalogue has no such name."""
    near = get_close_matches(name, recipes, n=3, cutoff=0.4)
    return f"; did you mean {', '.join(near)}?" if near else "."


def _files_of_kind(kind: Kind) -> Iterator[RecipeFile]:
    """The catalogue's, in the order of their names."""
    files = (recipe_file(path) for path in sorted(catalogue_folder("engines").glob("*.toml")))
    return (file for file in files if file.kind == kind)


def _laid_over(base: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in table.items():
        below = merged.get(key)
        both = isinstance(value, dict) and isinstance(below, dict) and value.get("kind") in (None, below.get("kind"))
        merged[key] = _laid_over(below, value) if both else value  # type: ignore[arg-type]
    return merged
