"""Where the data that ships with the SDK lies: recipes, calibration tables, bundled engines; and where the cache is.

In a wheel, `engines/` and `calibration/` are installed as `sdk/data/`; in a checkout or an editable install they lie
beside `sdk/`. The SDK's own environment variables are read here and nowhere else.

    catalogue_folder("engines") / "rtmpose.toml"
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from sdk.errors import DownloadError, SdkError

__all__ = [
    "CACHE_VARIABLE",
    "DEFAULT_ENGINE",
    "LEAVING_ENGINES",
    "bundled_engine_of",
    "bundled_engines",
    "bundled_weights",
    "cache_folder",
    "catalogue_folder",
    "released_path",
]

CACHE_VARIABLE = "SIMCC_EDGE_SDK_CACHE"
DEFAULT_ENGINE = "body17-nano-128x128.fp32"  # the bundled engine that is used where none is named
LEAVING_ENGINES = ("body14-nano-128x128.fp32",)  # bundled in this release for the last time


def catalogue_folder(name: Literal["engines", "calibration"]) -> Path:
    """The folder of recipes or of calibration tables, installed or in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise SdkError(f"the catalogue folder '{name}' is missing from the installation; install simcc-edge-sdk again")


def bundled_engines() -> dict[str, Path]:
    """Engine folders that ship with the SDK, by name."""
    folder = catalogue_folder("engines") / "bundled"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/engine.json"))}


def bundled_engine_of(name: str) -> Path | None:
    """The folder of the fp32 engine that ships with the SDK for recipe `name`; None where none does."""
    return bundled_engines().get(f"{name}.fp32")


def bundled_weights(name: str) -> Path | None:
    """The weights for fine-tuning recipe `name` that lie beside its engine in a checkout; None in a wheel."""
    path = catalogue_folder("engines") / "bundled" / f"{name}.safetensors"
    return path if path.is_file() else None


def cache_folder() -> Path:
    """Where downloaded weights are kept: $SIMCC_EDGE_SDK_CACHE, else ~/.cache/simcc-edge-sdk. Not created here."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "simcc-edge-sdk"


def released_path(url: str) -> Path:
    """Where the released file of this address is kept, once it is fetched."""
    name = Path(unquote(urlsplit(url).path)).name
    if not name or name.startswith("."):
        raise DownloadError(f"weights URL must end in a file name (got '{url}')")
    return cache_folder() / "weights" / name
