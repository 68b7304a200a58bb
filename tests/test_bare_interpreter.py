"""The package with numpy alone: what must import, what must not be imported, and what is said of the rest."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "cv2",
    "pycocotools",
    "matplotlib",
    "tqdm",
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Run code in an isolated interpreter that sees the standard library, numpy and this checkout; its stdout."""
    folder = tmp_path_factory.mktemp("bare")
    site = Path(numpy.__file__).parents[1]
    names = ["numpy", "numpy.libs"] + (["tomli"] if sys.version_info < (3, 11) else [])
    for name in names:
        if (site / name).exists():
            (folder / name).symlink_to(site / name)
    (folder / "sdk").symlink_to(ROOT / "sdk")

    def run(code, status=0):
        program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr
        return done.stdout

    return run


def test_the_interpreter_is_bare(bare):
    found = bare(f"from importlib.util import find_spec\nprint([n for n in {HEAVY!r} if find_spec(n)])")
    assert found.strip() == "[]"


def test_the_estimator_imports(bare):
    assert bare("import sdk\nfrom sdk import PoseEstimator, Poses\nprint(sdk.__version__, PoseEstimator.__name__)")


def test_what_opens_an_engine_is_loaded_with_the_first_one(bare):
    code = """
import sdk
print([name for name in ("numpy", "sdk.poses", "sdk.errors") if name in sys.modules])
from sdk import PoseEstimator
print([name for name in ("sdk.recipe", "sdk.runtime.opening", "concurrent.futures") if name in sys.modules])
print(sorted({"PoseEstimator", "Poses", "SdkError", "draw_poses", "pinned_frame"} - set(dir(sdk))))"""
    assert bare(code).split("\n")[:3] == ["[]"] * 3


def runtime_modules():
    files = sorted((ROOT / "sdk" / "runtime").rglob("*.py")) + sorted((ROOT / "sdk").glob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if name != "sdk.ops"]


def test_every_module_of_the_run_time_imports(bare):
    modules = runtime_modules()
    assert "sdk.runtime.estimator" in modules and len(modules) > 20
    bare(f"from importlib import import_module\nfor name in {modules!r}: import_module(name)")


def test_importing_pulls_nothing_heavy_in():
    """In this very environment, where the heavy packages are installed."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import sdk, sdk.cli._findings
from sdk import PoseEstimator
print([n for n in {HEAVY!r} if n in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_doctor_works_and_names_what_is_missing(bare):
    report = json.loads(bare("from sdk.cli import main\nsys.exit(main(['doctor', '--json']))", status=1))
    assert report["devices"] == []
    findings = {finding["name"]: finding for finding in report["findings"]}
    for name in ("ONNX Runtime", "OpenCV", "torch", "onnx", "tensorrt", "tensorrt-rtx"):
        assert findings[name]["status"] == "missing" and findings[name]["found"] == "not installed"
        assert "pip install" in findings[name]["mend"] and findings[name]["disables"]


def test_a_missing_runtime_is_an_error_in_words(bare):
    code = """
from sdk.errors import MissingDependencyError
from sdk.runtime.ort_session import onnxruntime_session
try:
    onnxruntime_session("network.onnx")
except MissingDependencyError as error:
    print(error)
"""
    assert "needs ONNX Runtime" in (told := bare(code)) and "pip install onnxruntime" in told


def test_the_catalogue_is_read(bare):
    assert int(bare("from sdk.recipe import catalogue\nprint(len(catalogue()))")) > 0
