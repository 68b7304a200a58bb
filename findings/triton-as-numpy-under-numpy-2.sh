#!/usr/bin/env bash
# Triton 2.51 (as nvidia-pytriton 0.7.0 carries it), Python backend, numpy 2 in the model's Python: `as_numpy()` of a request's
# tensor gives an array of the right shape and type whose EVERY element is the first one, and a `Tensor` made of a numpy array is
# sent without its bytes, both without an error: a model then answers, wrongly. The request's tensor through DLPack is right, and
# under numpy 1 all is. nvidia-pytriton itself demands numpy < 2; a model repository that its tritonserver, or one of that age,
# serves demands nothing.
# Needs: Linux x86_64, bash, pip, a python3 of 3.9 to 3.12 with its shared libpython. Installs into a temporary folder, runs
# without this project, and fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d); server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv client; client/bin/pip install -q --disable-pip-version-check 'tritonclient[grpc]==2.73.0' numpy
python3 -m pip install -q --disable-pip-version-check --no-deps --target box nvidia-pytriton==0.7.0
triton=$folder/box/pytriton/tritonserver
version=$(python3 -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
library=$(python3 -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
cp -r "$triton/backends" backends; cp "$triton/python_backend_stubs/$version/triton_python_backend_stub" backends/python/
chmod +x "$triton/bin/tritonserver" backends/python/triton_python_backend_stub

mkdir -p repository/echo/1
cat > repository/echo/config.pbtxt << 'CONFIG'
name: "echo"
backend: "python"
max_batch_size: 0
input { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group { kind: KIND_CPU }
CONFIG
cat > repository/echo/1/model.py << 'MODEL'
import sys
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "IN")
            seen, right = tensor.as_numpy(), np.from_dlpack(tensor)
            words = f"numpy {np.__version__[0]}: as_numpy {seen.tolist()}; DLPack {right.tolist()}"
            print(words, file=sys.stderr, flush=True)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", right.copy())]))
        return answers
MODEL
cat > ask.py << 'ASK'
import time
import numpy as np
import tritonclient.grpc as grpc

client = grpc.InferenceServerClient("127.0.0.1:18101")
for _ in range(120):
    try:
        if client.is_model_ready("echo"):
            break
    except Exception:
        pass
    time.sleep(0.5)
given = grpc.InferInput("IN", [4], "FP32")
given.set_data_from_numpy(np.array([1, 2, 3, 4], np.float32))
print("bytes in the answer:", len(client.infer("echo", [given]).get_response().raw_output_contents[0]))
ASK

for numpy in 1.26.4 2.2.6; do
    python3 -m venv "numpy$numpy"; "numpy$numpy/bin/pip" install -q --disable-pip-version-check numpy==$numpy
    LD_LIBRARY_PATH=$library:$folder/box/nvidia_pytriton.libs PATH=$folder/numpy$numpy/bin:$PATH \
        "$triton/bin/tritonserver" --model-repository=repository --backend-directory="$folder/backends" --exit-timeout-secs=3 \
        --http-address=127.0.0.1 --grpc-address=127.0.0.1 --http-port=18100 --grpc-port=18101 --allow-metrics=false >server.log 2>&1 &
    server=$!
    client/bin/python ask.py | tee "bytes-$numpy"
    kill "$server"; wait "$server" || true; server=
    grep '^numpy' server.log | tee "told-$numpy"
done
grep -q 'as_numpy \[1.0, 2.0, 3.0, 4.0\]' told-1.26.4 && grep -q ' 16$' bytes-1.26.4 || { echo "changed under numpy 1"; exit 1; }
grep -q 'as_numpy \[1.0, 1.0, 1.0, 1.0\]; DLPack \[1.0, 2.0, 3.0, 4.0\]' told-2.2.6 && grep -q ' 0$' bytes-2.2.6 ||
    { echo "changed under numpy 2"; exit 1; }
echo "as described: under numpy 2 every element is the first one, and nothing is sent"
