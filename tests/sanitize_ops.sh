#!/usr/bin/env bash
# Builds the CPU half of the fused ops with the address and undefined-behaviour sanitizers in a temporary copy, runs the
# case tables on it, then the fuzzer for the seconds given (600 unless told).
#
#   tests/sanitize_ops.sh [SECONDS]
set -euo pipefail
seconds=${1:-600}
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r "$root"/{sdk,cpp_ext,tests,setup.py,pyproject.toml,README.md,LICENSE} "$copy"
mkdir "$copy/engines" "$copy/calibration"
cd "$copy"
rm -f sdk/_native*.so

flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
SDK_CUDA_ARCHITECTURES=none CFLAGS="$flags" LDFLAGS="-fsanitize=address,undefined" \
    "$python" setup.py build_ext --inplace > build.log 2>&1 || { tail -30 build.log; exit 1; }

# Python itself frees nothing at exit; nanobind's and numpy's allocations go through the sanitizer by the preload.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so):$(g++ -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export PYTHONPATH="$copy" PYTHONMALLOC=malloc OMP_NUM_THREADS=1
"$python" -m pytest -q -p no:cacheprovider tests/test_ops_crop.py tests/test_ops_decode.py tests/test_ops_detections.py tests/test_ops_reduction.py \
    tests/test_ops_robust.py -k "not opencv and not million and not kibibyte and not forked"
"$python" tests/fuzz/fuzz_ops.py --seconds "$seconds"
