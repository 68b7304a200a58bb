"""A pinhole camera: from joints in the picture and their depths to points in metres. numpy only.

    camera = Camera(focal_px=(1145.0, 1143.8), centre_px=(640.0, 360.0))
    points = poses.in_camera(camera, root_m=5.1)        # N x K x 3

Focal lengths and centre must be the camera's own. RTMW3D's published code, where no camera is given, takes half of the
picture's height for the centre's x and half of its width for its y: a slip, by which points of a picture that is not
square are off. Nothing is taken for granted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdk.errors import InputError

__all__ = ["Camera"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """Focal lengths and principal point along x and y, in pixels of the frames that poses are in."""

    focal_px: tuple[float, float]
    centre_px: tuple[float, float]

    def __post_init__(self) -> None:
        if len(self.focal_px) != 2 or not all(isfinite(focal) and focal > 0 for focal in self.focal_px):
            raise InputError(f"focal_px must be two positive numbers of pixels, along x and y (got {self.focal_px})")
        if len(self.centre_px) != 2 or not all(map(isfinite, self.centre_px)):
            raise InputError(f"centre_px must be two finite numbers of pixels, x and y (got {self.centre_px})")

    def points(
        self,
        keypoints: Float32Array,  # N x K x 2, frame pixels
        depths: Float32Array,  # N x K, metres from the root
        root_m: ArrayLike,  # one number, or N
    ) -> Float32Array:
        """N x K x 3: metres to the right, downwards and away from the camera."""
        root = np.asarray(root_m, np.float64)
        if root.shape not in ((), (len(keypoints),)) or not (np.isfinite(root) & (root > 0)).all():
            raise InputError(
                f"root_m must be a positive distance in metres, one number or one for each of {len(keypoints)} persons "
                f"(got {np.array2string(root, threshold=8)})"
            )
        away = depths + (root[:, None] if root.ndim else root)
        across = (keypoints - np.array(self.centre_px)) / np.array(self.focal_px) * away[..., None]
        return np.concatenate([across, away[..., None]], axis=2).astype(np.float32)
