"""Adds the native extension to what pyproject.toml says. See cpp_ext/build_native.py."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "cpp_ext"))

from build_native import STABLE_ABI, NativeBuild, native_extension

setup(
    ext_modules=[native_extension()],
    cmdclass={"build_ext": NativeBuild},
    options={"bdist_wheel": {"py_limited_api": "cp312"}} if STABLE_ABI else {},
)
