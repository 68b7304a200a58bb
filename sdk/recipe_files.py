"""The TOML files of recipes: a network's sizes in one file, and which kind of recipe a file holds.

`[base]` is what the recipes of a file share and each `[recipes.<name>]` is laid over it, key by key. `kind` says what
they describe and who gives the rest a meaning: 'pose' where it is left out (`sdk.recipe`), or 'detector'
(`sdk.detector_recipe`).

    file = recipe_file(path, "pose")
    table, where = file.merged(chosen_name(file, "rtmpose-s-256x192"))      # the merged table; how a message names it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sdk.errors import RecipeError
from sdk.reading import toml_from_file
from sdk.resources import catalogue_folder

__all__ = ["Kind", "RecipeFile", "chosen_name", "files_of_kind", "names_of_kind", "recipe_file"]

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


def files_of_kind(kind: Kind) -> Iterator[RecipeFile]:
    """The catalogue's files of this kind, in the order of their names."""
    files = (recipe_file(path) for path in sorted(catalogue_folder("engines").glob("*.toml")))
    return (file for file in files if file.kind == kind)


def names_of_kind(kind: Kind) -> list[str]:
    """The names in the catalogue, with nothing else of the recipes read."""
    return [name for file in files_of_kind(kind) for name in file.tables]


def _laid_over(base: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in table.items():
        below = merged.get(key)
        both = isinstance(value, dict) and isinstance(below, dict) and value.get("kind") in (None, below.get("kind"))
        merged[key] = _laid_over(below, value) if both else value  # type: ignore[arg-type]
    return merged
