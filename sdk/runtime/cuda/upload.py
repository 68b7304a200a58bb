"""Frames in device memory, and the buffers that frames of the host are packed into.

What of a host frame is moved, where it lands and how is decided and done by the extension (`cpp_ext/host/packing.h`),
which asks here for room. A device frame is not moved, nor is a page-locked one on a Jetson.

    room = FrameRoom(device)
    room.grow(flight, wanted_bytes)
    record = device_record(taken_over(device, kernels, frame, stream, nv12=False), nv12=False)
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np

from sdk.errors import DeviceError
from sdk.geometry import bad_box
from sdk.runtime.cuda.bandwidth import transfer_costs
from sdk.runtime.cuda.context import DeviceContext
from sdk.runtime.cuda.device_frames import DeviceFrame, check_device_frame, device_frame
from sdk.runtime.cuda.kernels import Flight, FlightStatus, Kernels
from sdk.runtime.cuda.memory import DeviceMemory, PinnedArray

__all__ = ["FrameRecord", "FrameRoom", "device_record", "flown", "taken_over"]

FrameRecord = tuple[int, int, int, int, int, int]  # data, chroma, stride, chroma stride, height, width
PENDING = int(FlightStatus.PENDING)
GUARDS = 256  # bytes at least, before and behind what is packed
HEADROOM = 1.5  # of a buffer that grows again: what frames need differs from call to call


def taken_over(device: DeviceContext, kernels: Kernels, frame: Any, stream: int, *, nv12: bool) -> DeviceFrame:
    """A checked frame in device memory. What its producer still does to it, `stream` waits for, or is in `ready`."""
    found = device_frame(frame, stream, device.index)
    check_device_frame(found.array, nv12=nv12)
    device.check_memory(found.array.address)
    if found.producer_stream is None:
        return found
    return DeviceFrame(found.array, found.owner, ready=kernels.mark(found.producer_stream))


def device_record(found: DeviceFrame, *, nv12: bool) -> FrameRecord:
    """Where the crop finds a frame in device memory."""
    array = found.array
    rows, width, stride = array.shape[0], array.shape[1], array.strides[0]
    if not nv12:
        return array.address, 0, stride, 0, rows, width
    height = rows * 2 // 3
    return array.address, array.address + height * stride, stride, stride, height, width


def flown(device: DeviceContext, flight: Flight, room: FrameRoom, *call: Any) -> int:
    """One call of `Flight.run` as far as it goes, with what it wants on the way. InputError for what is no box."""
    frames, _, boxes = call[:3]
    while True:
        try:
            status = flight.run(*call)
        except RuntimeError as error:  # how the extension tells what CUDA answered
            raise DeviceError(str(error)) from error
        if status <= PENDING:
            return status
        if status == FlightStatus.NEEDS_COSTS:
            flight.set_costs(astuple(transfer_costs(device)))
        elif status == FlightStatus.NEEDS_ROOM:
            room.grow(flight, max(frame.nbytes for frame in frames if isinstance(frame, np.ndarray)))
        else:
            assert boxes is not None, "affines are not judged"
            raise bad_box(boxes, *flight.bad_box())


class FrameRoom:
    """One lane's buffers for frames of the host. The device's context must be entered for every method."""

    def __init__(self, device: DeviceContext) -> None:
        self._device = device
        self._bytes = 0
        self._frame: DeviceMemory | None = None
        self._staging: PinnedArray | None = None

    def grow(self, flight: Flight, frame_bytes: int) -> None:
        """Give `flight` the buffers that its last call wants: as large as a whole frame of `frame_bytes` at least, so
        that they do not grow with every step of a person towards the camera."""
        wanted_bytes, packs = flight.wanted()
        size, stage = max(wanted_bytes, frame_bytes + GUARDS), packs or self._staging is not None
        if self._bytes:
            size = self._bytes if size <= self._bytes else max(size, int(HEADROOM * self._bytes))
        flight.set_room(0, 0, 0)  # an error or an interrupt below leaves it without, not with freed ones
        self.free()
        if stage or self._device.integrated:
            self._staging = PinnedArray(self._device, (size,), np.uint8, "stage frames")
        if not self._device.integrated:  # else the device reads the host's memory
            self._frame = DeviceMemory(self._device, size, "hold frames")
        self._bytes = size
        staging, device = self._addresses()
        flight.set_room(staging, device, size)

    def _addresses(self) -> tuple[int, int]:
        """Where the host packs, and where the device reads."""
        staging = 0 if self._staging is None else self._staging.array.ctypes.data
        if self._frame is not None:
            return staging, self._frame.pointer
        return staging, 0 if self._staging is None else self._staging.device_pointer

    def free(self) -> None:
        for memory in (self._frame, self._staging):
            if memory is not None:
                memory.free()
        self._frame = self._staging = None
        self._bytes = 0

    def abandon(self) -> None:
        for memory in (self._frame, self._staging):
            if memory is not None:
                memory.abandon()
