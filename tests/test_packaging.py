"""What is in the sdist and the wheel, and that each way of installing finds the catalogue."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build", reason="the package 'build' is not installed")
ROOT = Path(__file__).resolve().parents[1]
LIST_CATALOGUE = (
    "import sdk, sdk.recipe as r, sdk.resources as s;"
    "print(sdk.__file__); print(','.join(r.catalogue())); print(','.join(s.bundled_engines()))"
)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """An sdist of the checkout, and the wheel built from that sdist alone, without the CUDA half."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    environment = {**os.environ, "SDK_CUDA_ARCHITECTURES": "none"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def listing(python_path):
    environment = {**os.environ, "PYTHONPATH": str(python_path)}
    done = subprocess.run(
        [sys.executable, "-c", LIST_CATALOGUE], env=environment, capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.splitlines()


def test_the_wheel_holds_the_package_and_nothing_else(distributions):
    names = set(zipfile.ZipFile(distributions[1]).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sdk"}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "sdk").rglob("*.py")}
    assert modules <= names
    for folder in ("engines", "calibration"):
        shipped = {f"sdk/data/{p.relative_to(ROOT)}" for p in (ROOT / folder).rglob("*") if p.is_file()}
        weights = {name for name in shipped if name.endswith(".safetensors")}  # for training: in the sdist alone
        assert shipped - weights == {name for name in names if name.startswith(f"sdk/data/{folder}/")}
    assert {"sdk/py.typed", "sdk/_native.pyi"} <= names
    assert any(name.startswith("sdk/_native.") and name.endswith(".so") for name in names)


def test_the_sdist_holds_what_a_build_needs_and_no_binaries(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    sources = (path for path in (ROOT / "cpp_ext").rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".py"))
    needed = {str(path.relative_to(ROOT)) for path in sources}
    assert needed | {"LICENSE", "setup.py", "pyproject.toml", "README.md"} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "engines").rglob("*.safetensors")} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


def test_an_installed_wheel_and_a_checkout_find_the_same_catalogue(distributions, tmp_path):
    zipfile.ZipFile(distributions[1]).extractall(tmp_path)
    installed, checkout = listing(tmp_path), listing(ROOT)
    assert installed[0].startswith(str(tmp_path))
    assert checkout[0].startswith(str(ROOT))
    assert installed[1:] == checkout[1:]
    assert len(installed[1].split(",")) > 20
