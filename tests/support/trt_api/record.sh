#!/usr/bin/env bash
# Records the bindings of a TensorRT version from the package index:  tests/support/trt_api/record.sh 10.16.1.11
# Only the bindings are fetched (1 MB); their libraries are stood in for by empty ones. Needs the project's Python in
# $PYTHON (default python3), pip, unzip, readelf and a C compiler.
set -euo pipefail
version=${1:?usage: record.sh VERSION}
cd "$(dirname "$0")/../../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cuda=cu13
case $version in 10.[0-9].* | 10.1[0-2].*) cuda=cu12 ;; esac
"${PYTHON:-python3}" -m pip download -q --no-deps -d "$work" "tensorrt-$cuda-bindings==$version"
unzip -q "$work"/*.whl -d "$work/wheel"
bindings=$(find "$work/wheel" -name tensorrt.so)
# What it takes from its libraries as it is loaded; calls are bound later, and none is made.
nm -D --undefined-only "$bindings" | awk '$2 !~ /@|^_?Py|^__/ {print "void " $2 "(void) {}"}' >"$work/empty.c"
for library in $(readelf -d "$bindings" | sed -n 's/.*NEEDED.*\[\(libnv.*\)\]/\1/p'); do
  cc -w -shared -fPIC "$work/empty.c" -Wl,-soname,"$library" -o "$work/$library"
done
LD_LIBRARY_PATH=$work "${PYTHON:-python3}" -m tests.support.trt_api "$bindings" "tests/support/trt_api/tensorrt-$version.json"
