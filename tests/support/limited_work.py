"""Work for a child of `sdk.toolchain.limits`."""

from sdk.errors import GraphError

ERRORS = {
    "python's": MemoryError(),
    "onnxruntime's": RuntimeError("Exception during initialization: std::bad_alloc"),
    "its arena's": RuntimeError("Failed to allocate memory for requested buffer of size 4096"),
    "its threads'": RuntimeError("pthread_create failed, error code: 12 error msg: Cannot allocate memory"),
}


def lacks_memory(request):
    raise GraphError("this graph does not run") from ERRORS[request["error"]]
