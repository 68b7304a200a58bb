"""Small frames and affines for the GPU run time on a simulated device.

gpu.run(random_frame(), random_affines(3))
gpu.run(DeviceArray(random_frame()), random_affines(3))        # as a frame in device memory
"""

import numpy as np

from sdk.geometry import crop_affines

FRAME_HW = (90, 120)
OFF_FRAME = np.float32([[0, 0, -64], [0, 0, -64]])  # what fills up a bucket: a crop that reads nothing


def random_frame(seed=0, hw=FRAME_HW):
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


def random_affines(count, seed=0, hw=FRAME_HW):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-10, 10 + np.array(hw[::-1]), (count, 2))
    half = rng.uniform(4, 50, (count, 2))
    return crop_affines(np.concatenate([centre - half, centre + half], axis=1).astype(np.float32), (64, 48), 1.25)


class DeviceArray:
    """Host memory that says it is on the device; the simulation's addresses are the host's."""

    def __init__(self, array, stream=None):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": array.strides,
            "version": 3,
            **({} if stream is None else {"stream": stream}),
        }
