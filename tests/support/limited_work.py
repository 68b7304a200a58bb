"""Work for a child of `sdk.toolchain.limits`."""

from sdk.errors import GraphError

ERRORS = {"python's": MemoryError(), "onnxruntime's": RuntimeError("Exception during initialization: std::bad_alloc")}


def lacks_memory(request):
    raise GraphError("this graph does not run") from ERRORS[request["error"]]
