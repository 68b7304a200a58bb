"""Compiles a libcuda for the installed bindings: what a C source can do, and every other symbol as 'not supported'.

library = compiled_libcuda(folder, SIMULATED.read_text())          # to be loaded first: LD_PRELOAD
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

SIMULATED = Path(__file__).with_name("simulated_libcuda.c")


BINDINGS = {"pycuda": "pycuda", "cuda-bindings": "cuda"}  # package -> what it is imported as


def use_only(binding):
    """Hide the other bindings from this process."""
    sys.modules.update({module: None for name, module in BINDINGS.items() if name != binding})


def is_installed(binding):
    return importlib.util.find_spec(BINDINGS[binding]) is not None


def compiled_libcuda(folder, source):
    needed = _symbols_of_pycuda() if is_installed("pycuda") else []
    stubs = "".join(f"int {each}(void) {{ return 801; }}\n" for each in needed if f" {each}(" not in source)
    (folder / "main.c").write_text(source)
    (folder / "rest.c").write_text(stubs)
    target = folder / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-w", "-O2", "-Wl,-soname,libcuda.so.1", "-o", target]
    compiler = shutil.which("cc") or "gcc"
    subprocess.run([compiler, *options, folder / "main.c", folder / "rest.c", "-lpthread", "-ldl"], check=True)
    return target


def _symbols_of_pycuda():
    """PyCUDA is linked to the driver and needs each name it uses; cuda-bindings asks for them one by one."""
    (driver,) = Path(importlib.util.find_spec("pycuda").submodule_search_locations[0]).glob("_driver*.so")
    listed = subprocess.run(["nm", "-D", driver], capture_output=True, text=True, check=True).stdout
    return sorted({line.split()[-1] for line in listed.splitlines() if " U cu" in line})
