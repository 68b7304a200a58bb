"""tools/: the changelog's form, an sdist that says nothing of the machine, what the tools pin. Not the builds."""

import io
import re
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import release
    import wheels

    return release, wheels


def test_a_python_that_is_not_here_is_told_or_ends_the_build(tools):
    _, wheels = tools
    assert wheels.found_interpreter("3.99") is None
    with pytest.raises(SystemExit, match=r"no python3\.99 on PATH, .*leave it out by --python"):
        wheels.interpreter("3.99")


GOOD = (
    "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-11-27\n\n### Added\n\n- A thing.\n\n## [0.1.0]\n\nThe first.\n"
)
CHANGES = {  # (what is changed, into what) -> what is said; None: it is a changelog
    "as it is": ("", "", None),
    "no unreleased part": ("## [Unreleased]\n", "", r"first part must be ## \[Unreleased\]"),
    "a number alone": ("[0.2.0]", "0.2.0", r"'## 0.2.0 - 2026-11-27' must be"),
    "another date": ("2026-11-27", "27.11.2026", "must be ## "),
    "twice": ("[0.1.0]", "[0.2.0]", "stand once each, the newest first"),
    "an older one first": ("[0.1.0]", "[0.3.0]", "the newest first"),
    "another kind": ("### Added", "### New", "'### New' must be one of Added, Changed"),
    "not the package's": ("[0.2.0]", "[0.2.1]", "no part for 0.2.0"),
}


@pytest.mark.parametrize(("old", "new", "said"), CHANGES.values(), ids=CHANGES)
def test_a_changelog_has_its_form(tools, old, new, said):
    problems = tools[0].changelog_problems(GOOD.replace(old, new), "0.2.0")
    assert problems == [] if said is None else re.search(said, "\n".join(problems))


UNRELEASED = {
    "ready": ("", "", None),
    "entries wait": ("[Unreleased]\n", "[Unreleased]\n\n### Added\n\n- Another.\n", r"\[Unreleased\] holds entries"),
    "no date": (" - 2026-11-27", "", "- its date, with entries"),
}


@pytest.mark.parametrize(("old", "new", "said"), UNRELEASED.values(), ids=UNRELEASED)
def test_what_waits_is_released_under_a_number(tools, old, new, said):
    problems = tools[0].unreleased_problems(GOOD.replace(old, new), "0.2.0")
    assert problems == [] if said is None else re.search(said, "\n".join(problems))


def test_this_changelog_has_its_form_and_the_packages_version(tools):
    import sdk

    assert tools[0].version() == sdk.__version__
    assert tools[0].changelog_problems((ROOT / "CHANGELOG.md").read_text(), sdk.__version__) == []


def packed(owner, when, names):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.uname, member.mtime, member.mode = len(name), owner, when, 0o664 if when % 2 else 0o600
            tar.addfile(member, io.BytesIO(name.encode()))
    return archive.getvalue()


def test_an_sdist_has_the_same_bytes_wherever_it_is_made(tools):
    one = tools[1].settled(packed("anna", 1, ["p/b", "p/a"]), 1_790_000_000)
    time.sleep(1.1)  # gzip writes seconds
    other = tools[1].settled(packed("root", int(time.time()) // 2 * 2, ["p/a", "p/b"]), 1_790_000_000)
    assert one == other
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        assert [tar.extractfile(name).read() for name in ("p/a", "p/b")] == [b"p/a", b"p/b"]


def test_a_release_is_made_with_the_compiler_that_an_installation_takes(tools):
    pinned = {line for line in (ROOT / "tools/requirements.txt").read_text().splitlines() if "==" in line}
    taken = re.findall(r'"(nvidia-[\w-]+==[\d.]+)"', (ROOT / "cpp_ext/build_backend.py").read_text())
    assert len(taken) == 5 and set(taken) <= pinned


def test_wheels_serve_every_python_that_the_package_names(tools):
    oldest, end = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()).groups()
    served = [
        python
        for version in tools[1].PYTHONS
        for python in tools[0].serves(
            Path(f"p-0-cp{version.replace('.', '')}-{'abi3' if version == '3.12' else 'none'}-x.whl")
        )
    ]
    assert served == [f"3.{minor}" for minor in range(int(oldest), int(end))]
    assert re.search(r"sys\.version_info >= \(3, 12\)", (ROOT / "cpp_ext/build_native.py").read_text())


@pytest.mark.native
def test_the_kernels_use_what_the_processor_has(tools):
    """A compiler's own question may answer no to everything: right, green and slow."""
    native = pytest.importorskip("sdk._native", exc_type=ImportError)
    import try_wheel

    assert native.instruction_set() == try_wheel.best_instructions()


def test_an_sbom_lists_a_package_however_it_writes_its_name(tools):
    written = {"simcc-edge-sdk", "numpy", "onnxruntime", "tensorrt_rtx"}  # as their metadata have them
    assert {tools[0].normal(name) for name in written} == tools[0].HELD
    assert tools[0].normal("Foo._Bar") == "foo-bar"


LOADS = {  # what a program opens -> whether it looked for a driver
    "none": ("", False),
    "a driver, there or not": ("try: ctypes.CDLL('libcuda.so.1')\nexcept OSError: pass", True),
}


@pytest.mark.parametrize(("statement", "looked"), LOADS.values(), ids=LOADS)
def test_a_driver_that_is_looked_for_is_seen_where_there_is_none(tools, tmp_path, statement, looked):
    import try_wheel

    command = [sys.executable, "-c", f"import ctypes\n{statement}"]
    try_wheel.told(command, tmp_path, try_wheel.loader_log(tmp_path))
    names = try_wheel.looked_for(tmp_path)
    assert names and any(name.startswith("libcuda.so") for name in names) == looked
