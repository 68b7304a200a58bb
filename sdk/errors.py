"""Errors a user can cause.

Every error has one root, `SdkError`, and one sentence with the subject, the rule, the value got and the mend.
Faults of the SDK itself are `AssertionError`s and are not listed here.

    try:
        estimate = PoseEstimator("rtmpose-s-256x192.fp16")
    except SdkError as error:
        sys.exit(str(error))
"""

from __future__ import annotations

__all__ = [
    "BuildError",
    "CalibrationError",
    "CheckpointError",
    "ClosedError",
    "ClusterError",
    "DatasetError",
    "DeviceError",
    "DeviceLostError",
    "DownloadError",
    "EngineError",
    "GraphError",
    "InputError",
    "MissingDependencyError",
    "OutOfMemoryError",
    "OutputError",
    "RecipeError",
    "RowError",
    "SdkError",
    "SourceError",
    "TrainingError",
    "UsageError",
]


class SdkError(Exception):
    """Root of everything a user can cause."""


class RecipeError(SdkError):
    """A recipe is unknown, or a key of it is missing, unknown or of the wrong type."""


class CheckpointError(SdkError):
    """A checkpoint cannot be read, or does not fit the network of its recipe."""


class DownloadError(SdkError):
    """Weights could not be fetched, or are not the file the recipe names."""


class GraphError(SdkError):
    """An ONNX file is not a SimCC graph, is unsafe to load, or differs from its network."""


class CalibrationError(SdkError):
    """Calibration data is unusable, or a calibration table belongs to another graph."""


class BuildError(SdkError):
    """A compiler refused a typed graph, or the build was interrupted."""


class EngineError(SdkError):
    """An engine folder is incomplete, altered, or made for another compiler, version or device."""


class InputError(SdkError, ValueError):
    """A frame, a box or an option given to a call is not what the call takes."""


class RowError(InputError, IndexError):
    """`poses[...]` names a person that is not there."""


class SourceError(SdkError):
    """A picture, a video, a camera, a stream or another source of frames cannot be read, or not whole."""


class UsageError(InputError):
    """Words of a command line that do not go together, or one that is missing; `sdk` ends with status 2."""


class OutputError(SdkError):
    """A result cannot be written: no room, no right, or something else is there."""


class DatasetError(SdkError):
    """Images or annotations for training or verification cannot be used."""


class TrainingError(SdkError):
    """A training run cannot start, resume or go on."""


class MissingDependencyError(SdkError, ImportError):
    """An optional package, or the CUDA half of the extension, is needed and absent."""


class DeviceError(SdkError):
    """The device asked for does not exist or cannot be used."""


class OutOfMemoryError(DeviceError):
    """The device has too little free memory; the estimator works again once memory is free."""

    needed_bytes: int | None = None  # None: the library that asked did not say
    free_bytes: int | None = None


class DeviceLostError(DeviceError):
    """A sticky CUDA error or a hang: the estimator is dead, and the process should be replaced."""


class ClusterError(SdkError):
    """A cluster cannot be started or joined, or its workers die again and again."""


class ClosedError(SdkError):
    """A session or an estimator is used after close, or in a forked child."""
