#!/usr/bin/env bash
# The model repository on a real Triton, outside CI: the Python-backend models served and called, all configurations read
# by Triton's own protobuf. `nvidia-pytriton` carries the server (2.51, the Python backend alone): no server runs the plan
# or the graph here. Needs Linux on x86_64, the package registry, and the project installed in $PYTHON's environment.
#
#     PYTHON=.venv/bin/python SECONDS_OF_LOAD=60 bash tests/triton.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}"); load=${SECONDS_OF_LOAD:-60}
work=$(mktemp -d); server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi; rm -rf "$work"' EXIT

"$python" -m venv "$work/client"
"$work/client/bin/pip" install -q 'tritonclient[grpc]==2.73.0' numpy
"$work/client/bin/pip" install -q --no-deps --target "$work/box" nvidia-pytriton==0.7.0
triton=$work/box/pytriton/tritonserver
version=$("$python" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
library=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
cp -r "$triton/backends" "$work/backends"
cp "$triton/python_backend_stubs/$version/triton_python_backend_stub" "$work/backends/python/"
chmod +x "$triton/bin/tritonserver" "$work/backends/python/triton_python_backend_stub"

engine=body17-nano-128x128.fp32
"$(dirname "$python")/sdk" export-triton $engine --output "$work/all" --name pose --kind cpu --quiet
PYTHONPATH=$PWD "$python" tests/support/triton_expected.py $engine "$work/expected.npz"
"$work/client/bin/python" tests/support/triton_client.py rules "$work/all"

mkdir "$work/served"                                   # what this server's only backend runs
cp -r "$work/all/pose" "$work/all/pose_decode" "$work/served/"
LD_LIBRARY_PATH=$library:$work/box/nvidia_pytriton.libs PATH=$(dirname "$python"):$PATH PYTHONPATH=$PWD \
    "$triton/bin/tritonserver" --model-repository="$work/served" --backend-directory="$work/backends" --exit-timeout-secs=5 \
    --http-address=127.0.0.1 --grpc-address=127.0.0.1 --http-port=18000 --grpc-port=18001 --metrics-address=127.0.0.1 \
    --metrics-port=18002 >"$work/server.log" 2>&1 &
server=$!
if ! "$work/client/bin/python" tests/support/triton_client.py load "$work/expected.npz" "$load" "$server"; then
    tail -40 "$work/server.log"; exit 1
fi
