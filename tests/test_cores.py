"""Cores that a process may really use: by affinity, and by the limits of its control groups, old and new."""

import os

import pytest

from sdk import cores
from sdk.cores import allowed_cores, physical_cores, restricted


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight hardware threads on four cores, no limits; files by their path in it."""
    for name in ("CGROUPS", "TOPOLOGY"):
        monkeypatch.setattr(cores, name, tmp_path / name.lower())
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")

    for cpu in range(8):
        write(f"topology/cpu{cpu}/topology/physical_package_id", 0)
        write(f"topology/cpu{cpu}/topology/core_id", cpu // 2)
    return write


def found():
    return allowed_cores(), physical_cores(), restricted()


def test_a_machine_without_limits(machine):
    assert found() == (8, 4, False)


@pytest.mark.parametrize(("cpus", "expected"), [({2}, (1, 1, True)), ({0, 1}, (2, 1, True)), ({1, 2, 5}, (3, 3, True))])
def test_a_set_of_processors(machine, monkeypatch, cpus, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus)
    assert found() == expected


GROUPS = {
    "two cores": ("0::/box", {"cgroups/box/cpu.max": "200000 100000"}, (2, 2, True)),
    "part of a core": ("0::/box", {"cgroups/box/cpu.max": "20000 100000"}, (1, 1, True)),
    "two and a half": ("0::/", {"cgroups/cpu.max": "250000 100000"}, (3, 3, True)),
    "no limit": ("0::/box", {"cgroups/box/cpu.max": "max 100000"}, (8, 4, False)),
    "a limit above": (
        "0::/a/b",
        {"cgroups/a/b/cpu.max": "max 100000", "cgroups/a/cpu.max": "100000 100000"},
        (1, 1, True),
    ),
    "version 1": (
        "4:memory:/x\n3:cpu,cpuacct:/box",
        {"cgroups/cpu/box/cpu.cfs_quota_us": "300000", "cgroups/cpu/box/cpu.cfs_period_us": "100000"},
        (3, 3, True),
    ),
    "version 1 without a limit": (
        "3:cpu,cpuacct:/box",
        {"cgroups/cpu/box/cpu.cfs_quota_us": "-1", "cgroups/cpu/box/cpu.cfs_period_us": "100000"},
        (8, 4, False),
    ),
    "files that are none": ("0::/box\nnonsense\n", {"cgroups/box/cpu.max": "many few"}, (8, 4, False)),
    "a limit of more than there is": ("0::/", {"cgroups/cpu.max": "6400000 100000"}, (8, 4, False)),
}


@pytest.mark.parametrize(("membership", "files", "expected"), GROUPS.values(), ids=GROUPS)
def test_limits_of_time(machine, membership, files, expected):
    machine("membership", membership)
    for path, text in files.items():
        machine(path, text)
    assert found() == expected


def test_a_core_is_counted_without_the_system_saying_where_it_lies(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path / "nothing")
    assert found() == (8, 8, False)


@pytest.mark.native
def test_onnx_runtime_is_told_how_many_where_they_are_few(machine, monkeypatch):
    from sdk.runtime.ort_session import _intra_threads

    assert _intra_threads(None) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6})
    assert _intra_threads(None) == 2 and _intra_threads(256) == 12
