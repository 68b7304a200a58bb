"""Where a person's picture is read from: its own file, or a pack that holds many (`sdk.training.pack`).

StoredPicture(Path("photos/7.jpg")).read()                   # H x W x 3 BGR as stored, or Unreadable
PackedPicture(Path("lspet.pack"), 0, 8192).read()
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.media.sources import Unreadable, read_stored_image

__all__ = ["PICTURES", "PackedPicture", "Picture", "StoredPicture", "opened_pack"]

Frame = NDArray[np.uint8]
PICTURES = "pictures"  # a pack's tensor: all pictures, one behind the other


@dataclass(frozen=True)
class StoredPicture:
    """A picture file; `root`: the folder that its name in the labels starts from."""

    path: Path
    root: Path

    def __str__(self) -> str:
        return f"image '{self.path}'"

    def read(self) -> Frame | Unreadable:
        return read_stored_image(self.path)


@dataclass(frozen=True)
class PackedPicture:
    """Bytes `first` to `end` of a pack's pictures."""

    path: Path
    first: int
    end: int

    def __str__(self) -> str:
        return f"the picture at byte {self.first} of pack '{self.path}'"

    def read(self) -> Frame | Unreadable:
        import cv2

        data = opened_pack(self.path).get_slice(PICTURES)[self.first : self.end]
        frame = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return Unreadable("not an image that OpenCV reads") if frame is None else np.asarray(frame, np.uint8)


Picture = StoredPicture | PackedPicture


@lru_cache(maxsize=8)
def opened_pack(path: Path) -> Any:
    """The pack's tensors, memory-mapped, opened once a process."""
    from safetensors import safe_open

    return safe_open(path, framework="numpy")
