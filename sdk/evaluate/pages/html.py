"""Filling the pages' templates (`templates/*.j2`), by Jinja2: everything that is no markup of ours is escaped.

text = filled("verify.html.j2", title="body.int8 on lsp", ...)
check_page_packages()                                   # before a long run whose end is a page
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sdk import __version__
from sdk.errors import MissingDependencyError

__all__ = ["check_page_packages", "filled"]

TEMPLATES = Path(__file__).with_name("templates")
PACKAGES = ("jinja2", "matplotlib")


def check_page_packages() -> None:
    """MissingDependencyError where a page could not be made."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"a page needs {' and '.join(missing)}, not installed here; pip install 'simcc-edge-sdk[eval]'"
        )


def filled(template: str, **context: Any) -> str:
    """The page of a template; a name that the context lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template).render(made_by=f"Made by simcc-edge-sdk {__version__}.", **context) + "\n"
