"""Power meters: rails in sysfs, tegrastats, NVML; the log of a run and its energy."""

import threading
import time

import numpy as np
import pytest

from sdk.cuda_devices import CudaDevice
from sdk.runtime.power import Meter, PowerLog, find_power_meter, sysfs_meter, watts_from_tegrastats

INA = {"in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "1500", "in2_label": "VDD_CPU", "in2_input": "900"}
POWER = {
    "input-rail": (INA, 7.5),
    "another-rail-only": ({"in1_label": "VDD_CPU", "in1_input": "5000", "curr1_input": "100"}, None),
    "no-current": ({"in1_label": "VDD_IN", "in1_input": "5000"}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("case", POWER)
def test_jetsons_input_rail_in_sysfs(tmp_path, case):
    files, watts = POWER[case]
    (tmp_path / "hwmon3").mkdir()
    for name, text in files.items():
        (tmp_path / "hwmon3" / name).write_text(text + "\n")
    meter = sysfs_meter(tmp_path)
    assert (None if meter is None else meter.watts()) == watts


AGX_ORIN = "VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 1431mW/1241mW VIN_SYS_5V0 4968mW/5048mW VDDQ_VDD2_1V8AO 1091mW/1091mW"
TEGRASTATS = {
    "RAM 2903/7620MB CPU [10%@1510] GR3D_FREQ 0% VDD_IN 4513mW/4480mW VDD_CPU_GPU_CV 600mW/590mW": 4.513,
    "RAM 1/2MB POM_5V_IN 2310/2310 POM_5V_GPU 80/80": 2.31,
    f"RAM 13983/62780MB SWAP 126/31390MB tj@77.281C {AGX_ORIN}": 3.150 + 1.431 + 4.968 + 1.091,
    "RAM 1/2MB CPU [1%@1]": None,
}


@pytest.mark.parametrize("line", TEGRASTATS)
def test_tegrastats_lines(line):
    assert watts_from_tegrastats(line) == pytest.approx(TEGRASTATS[line])


def hwmon_of(folder, *rails):
    """A sysfs of INA3221 channels: name, millivolts, milliamperes."""
    for number, (name, millivolts, milliamperes) in enumerate(rails):
        chip, channel = folder / f"hwmon{number // 3}", number % 3 + 1
        chip.mkdir(parents=True, exist_ok=True)
        (chip / f"in{channel}_label").write_text(f"{name}\n")
        (chip / f"in{channel}_input").write_text(f"{millivolts}\n")
        (chip / f"curr{channel}_input").write_text(f"{milliamperes}\n")
    return folder


SYSFS = {  # rails -> watts, source
    "orin-nano": ([("VDD_IN", 5000, 900), ("VDD_CPU_GPU_CV", 5000, 300), ("VDD_SOC", 5000, 200)], 4.5, "VDD_IN"),
    "agx-orin": (
        [("VDD_GPU_SOC", 800, 1000), ("VDD_CPU_CV", 700, 1000), ("VIN_SYS_5V0", 5000, 1000), ("NC", 1, 1),
         ("VDDQ_VDD2_1V8AO", 1800, 500)],
        0.8 + 0.7 + 5 + 0.9,
        "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 + VDDQ_VDD2_1V8AO",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rails", "watts", "source"), SYSFS.values(), ids=SYSFS)
def test_rails_in_sysfs(tmp_path, rails, watts, source):
    meter, said = find_power_meter("cpu", hwmon_of(tmp_path, *rails))
    assert meter.watts() == pytest.approx(watts) and said == f"{source}, INA3221"


def test_a_failed_reading_is_nan_and_the_log_goes_on(tmp_path):
    hwmon = hwmon_of(tmp_path, ("VDD_IN", 5000, 900))
    meter = sysfs_meter(hwmon)
    (hwmon / "hwmon0" / "in1_input").write_text("")
    assert np.isnan(meter.watts())
    (hwmon / "hwmon0" / "in1_input").unlink()
    assert np.isnan(meter.watts())
    assert sysfs_meter(tmp_path / "none") is None


def test_a_reading_that_waits_is_ended_by_closing_its_meter():
    waiting, closed = threading.Event(), threading.Event()

    def watts():
        waiting.set()
        closed.wait()
        return float("nan")

    with PowerLog(Meter("slow", watts, closed.set)):
        waiting.wait()
    assert closed.is_set()


def tegrastats_that(monkeypatch, folder, script):
    tool = folder / "tegrastats"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(tool))


@pytest.mark.parametrize("script", ["exec sleep 600", "echo RAM 1/2MB; exec sleep 600", "exit 1"])
def test_a_tegrastats_that_gives_no_number_is_refused(tmp_path, monkeypatch, script):
    monkeypatch.setattr("sdk.runtime.power.PATIENCE_SECONDS", 0.3)
    tegrastats_that(monkeypatch, tmp_path, script)
    meter, reason = find_power_meter("cpu", tmp_path)
    assert meter is None and reason == "unavailable: no number came from tegrastats"


def test_a_tegrastats_that_falls_silent_ends_with_the_log(tmp_path, monkeypatch):
    tegrastats_that(monkeypatch, tmp_path, "echo VDD_IN 4513mW/4480mW; exec sleep 600")
    meter, source = find_power_meter("cpu", tmp_path)
    assert source == "tegrastats"
    with PowerLog(meter):
        pass
    assert np.isnan(meter.watts())


class Nvml:
    """NVML of two GPUs, in another order than CUDA's."""

    watts = {b"0000:65:00.0": 50, b"0000:17:00.0": 300}  # noqa: RUF012
    failing = False

    def nvmlInit_v2(self):  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus, handle):  # noqa: N802
        handle._obj.value = self.watts[bus]
        return 0

    def nvmlDeviceGetPowerUsage(self, handle, milliwatts):  # noqa: N802
        milliwatts._obj.value = 1000 * handle.value
        return int(self.failing)


@pytest.fixture
def two_gpus(monkeypatch):
    devices = [CudaDevice(n, "GPU", "8.6", 1, bus) for n, bus in enumerate(("0000:17:00.0", "0000:65:00.0"))]
    monkeypatch.setattr("sdk.runtime.nvml.cuda_devices", lambda: tuple(devices))
    monkeypatch.setattr("ctypes.CDLL", lambda name: Nvml())
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sdk.runtime.power.PATIENCE_SECONDS", 0.0)


@pytest.mark.parametrize(("device", "watts"), [("cuda", 300), ("cuda:0", 300), ("cuda:1", 50)])
def test_nvml_reads_the_device_that_cuda_means(two_gpus, tmp_path, device, watts):
    meter, source = find_power_meter(device, tmp_path)
    assert meter.watts() == watts and source.startswith("NVML, GPU 0000:")


def test_a_gpu_that_tells_no_power_is_refused(two_gpus, tmp_path, monkeypatch):
    monkeypatch.setattr(Nvml, "failing", True)
    assert find_power_meter("cuda:1", tmp_path)[1] == "unavailable: no number came from NVML, GPU 0000:65:00.0"
    assert find_power_meter("cuda:7", tmp_path)[1].startswith("unavailable (no INA3221")


def test_energy_is_mean_power_within_the_spans_times_their_length(monkeypatch):
    monkeypatch.setattr("sdk.runtime.power.PERIOD_SECONDS", 0.1)
    readings = iter([2.0, 4.0, *[100.0] * 10_000])
    with PowerLog(Meter("test", lambda: next(readings))) as log:
        deadline = time.perf_counter() + 30
        while len(log._samples) < 3 and time.perf_counter() < deadline:
            time.sleep(0.02)
    (first, _), (second, _) = log._samples[:2]
    spans = [(first - 0.01, first + 0.01), (second - 0.02, second + 0.01)]
    assert log.joules(spans) == pytest.approx(3.0 * 0.05)
    assert log.joules([(0.0, 1e-6)]) is None


def test_without_a_meter_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    meter, reason = find_power_meter("cpu", tmp_path)
    assert meter is None and reason.startswith("unavailable (")
