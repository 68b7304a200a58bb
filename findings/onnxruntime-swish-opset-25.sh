#!/usr/bin/env bash
# ONNX Runtime 1.32.0 runs the operator Swish in a model of opset 24 and refuses the same model declared opset 25.
#
# Swish came with opset 24 and has not changed since: opset 25 and 26 mean the very same operator. ONNX Runtime has no
# kernel of its own for it and runs its definition instead; in models of opset 25 and 26 it does not find the definition
# and ends with NOT_IMPLEMENTED. Other operators that it runs by definition (RMSNormalization, Mish, HardSwish) do not
# mind. So a network that an exporter writes with SiLU as Swish runs or not by a number in its header. The SDK writes the
# operator out by its definition before it asks ONNX Runtime (sdk/toolchain/opsets.py).
#
# Fails when the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def answer(op, version):
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in ("x", "y")]
    inputs = ["x", "x"] if op == "RMSNormalization" else ["x"]
    graph = helper.make_graph([helper.make_node(op, inputs, ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return "NOT_IMPLEMENTED" if "NOT_IMPLEMENTED" in str(error) else str(error)
    return session.run(None, {"x": np.ones(8, np.float32)})[0][0].round(4)


found = {(op, version): answer(op, version) for op in ("Swish", "RMSNormalization") for version in (24, 25, 26)}
for (op, version), result in found.items():
    print(f"{op} in a model of opset {version}: {result}")
assert abs(found["Swish", 24] - 0.7311) < 1e-4
assert found["Swish", 25] == found["Swish", 26] == "NOT_IMPLEMENTED", "the behaviour has changed"
assert all(abs(found["RMSNormalization", version] - 1) < 1e-4 for version in (24, 25, 26))
PYTHON
