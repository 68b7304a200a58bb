"""GPU checks: `python -m pytest tests/gpu` runs them all on a machine with a GPU, and skips with the reason elsewhere.

At the end a short report tells the device and what the checks measured.
"""

from pathlib import Path

import pytest

LINES: list[str] = []


def pytest_collection_modifyitems(items):
    here = Path(__file__).resolve().parent
    for item in items:
        if here in Path(item.path).resolve().parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def note():
    """note("one line") adds to the report at the end of the run."""
    return LINES.append


@pytest.fixture(scope="session")
def cuda_context():
    """The primary context of device 0, current for the session's thread."""
    driver = pytest.importorskip("pycuda.driver", exc_type=ImportError)
    driver.init()
    if driver.Device.count() == 0:
        pytest.skip("no CUDA device")
    device = driver.Device(0)
    context = device.retain_primary_context()
    context.push()
    major, minor = device.compute_capability()
    LINES.insert(0, f"{device.name()}, compute capability {major}.{minor}, driver {driver.get_driver_version()}")
    yield context
    context.pop()
    context.detach()


def pytest_terminal_summary(terminalreporter):
    if LINES:
        terminalreporter.section("GPU report")
        for line in LINES:
            terminalreporter.write_line(line)
