#!/usr/bin/env bash
# The aarch64 wheel on an emulated aarch64 machine: its ops, estimator and predict tests, and its results beside x86_64's.
#
#     python tools/wheels.py --output dist && tests/aarch64.sh dist
#
# Needs root, mmdebstrap, qemu-user-static and binfmt-support (apt-get install ...), the package index and Debian's. About
# ten minutes; not part of CI. The machine is a folder of Debian's packages, unpacked and not configured (10 s in place
# of 24 minutes), in which qemu runs each program. /sys is not there: ONNX Runtime dies of it under qemu.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dist=$(realpath "${1:?usage: tests/aarch64.sh FOLDER_OF_WHEELS [PYTHON_OF_X86_64]}")
python=${2:-python3}
words() { echo "tests/aarch64.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || words "needs root, for chroot and mounts"
command -v mmdebstrap >/dev/null || words "no mmdebstrap: apt-get install mmdebstrap qemu-user-static binfmt-support"
handlers=/proc/sys/fs/binfmt_misc
[ -e $handlers/register ] || mount -t binfmt_misc binfmt_misc $handlers
[ -e $handlers/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
ls "$dist"/*aarch64.whl >/dev/null 2>&1 || words "no aarch64 wheel in $dist: python tools/wheels.py --output $dist"

work=$(mktemp -d)
machine=$work/machine
trap 'umount "$machine/proc" 2>/dev/null || true; rm -rf "$work"' EXIT
step() { printf '\n=== %s (%ss)\n' "$1" "$SECONDS"; }

step "a machine"
packages=python3,libpython3-stdlib,libstdc++6,libgl1,libglib2.0-0,libxcb1,bash,coreutils  # libgl1 to libxcb1: what OpenCV loads
mmdebstrap --quiet --arch=arm64 --variant=extract --include=$packages bookworm "$machine"
mount --bind /proc "$machine/proc"
mkdir -p "$machine/root/project" "$machine/etc"
echo "127.0.0.1 localhost" >"$machine/etc/hosts"
emulated() { chroot "$machine" /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 /bin/bash -c "cd /root/project && $1"; }
version=$(emulated "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'")

step "the wheel, on both machines"
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64)
"$python" -m venv "$work/host"
"$work/host/bin/pip" install -q --find-links "$dist" --only-binary simcc-edge-sdk simcc-edge-sdk
"$work/host/bin/pip" install -q --find-links "$dist" --target "$machine/usr/local/lib/python$version/dist-packages" --python-version "$version" \
  --only-binary :all: "${platforms[@]}" simcc-edge-sdk onnx pytest pytest-timeout hypothesis
cd "$root"
git ls-files -z tests pyproject.toml docs examples | xargs -0 cp --parents -t "$machine/root/project"
emulated "python3 -c 'import platform, sdk, sdk.ops as ops; from sdk import _native; print(platform.machine(), sdk.__file__, ops.instruction_set(), _native.cuda.ARCHITECTURES)'"

step "the same results as on x86_64"
(cd "$work" && host/bin/python "$root/tests/portable.py" write "$work/x86_64.npz")
emulated "python3 tests/portable.py write aarch64.npz"
"$work/host/bin/python" tests/portable.py compare "$work/x86_64.npz" "$machine/root/project/aarch64.npz"

step "its tests"
# ends_cleanly: they want stderr empty, and without /sys ONNX Runtime writes there.
files="tests/test_ops_arrays.py tests/test_ops_crop.py tests/test_ops_decode.py tests/test_ops_detections.py tests/test_ops_spread.py
  tests/test_estimator.py tests/test_estimator_life.py tests/test_estimator_streams.py tests/test_predict.py"
emulated "python3 -m pytest -q -p no:cacheprovider --timeout 1200 -k 'not ends_cleanly' ${files//$'\n'/ }"
step "done"
