"""How the verbs take a person detector: what lies at a path; by a name of the catalogue, it is fetched on first use."""

from __future__ import annotations

from pathlib import Path

from sdk.detector_recipe import detector_catalogue

__all__ = ["fetched"]


def fetched(detector: Path) -> Path:
    """The path as it is; of a name of the catalogue the published file is downloaded, where it is not here yet."""
    if not detector.exists() and str(detector) in detector_catalogue():
        from sdk.networks import weights_file

        weights_file(detector_catalogue()[str(detector)])
    return detector
