#!/usr/bin/env python3
"""zig, from the package index (`ziglang`), as a C++ compiler for a glibc older than this machine's, or another machine.

    CC="python tools/zig.py cc" CXX="python tools/zig.py c++" SDK_ZIG_TARGET=x86_64-linux-gnu.2.17 python -m build -w

It links its own libc++ in, so that a wheel needs no libstdc++ of any age. nvcc does not take it: .cu files keep g++.
"""

import importlib.util
import os
import sys

UNKNOWN = ("-Wl,--exclude-libs",)  # to zig's linker; hidden visibility does that work


def main() -> None:
    kind, *arguments = sys.argv[1:]
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("tools/zig.py needs the package ziglang: pip install ziglang")
    zig = f"{spec.submodule_search_locations[0]}/zig"
    asked = os.environ.get("SDK_ZIG_TARGET")
    if asked and "-dumpmachine" in arguments:  # clang, which zig asks, knows no version of glibc
        asked = asked.split(".")[0]
    target = ("-target", asked) if asked else ()
    known = [each for each in arguments if not each.startswith(UNKNOWN)]
    os.execv(zig, [zig, kind, *target, *known])


if __name__ == "__main__":
    main()
