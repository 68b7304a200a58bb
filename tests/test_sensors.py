"""Temperature and NVML's other readings: which zone is taken, and what a reading that fails gives."""

import ctypes

import numpy as np
import pytest

from sdk.cuda_devices import CudaDevice
from sdk.live.sensors import Sensors
from sdk.runtime.nvml import nvml_device
from sdk.runtime.power import Meter
from sdk.runtime.temperature import find_thermometer
from tests.support.threads import wait_for


def zone(folder, number, name, text):
    path = folder / f"thermal_zone{number}"
    path.mkdir(parents=True)
    (path / "type").write_text(f"{name}\n")
    (path / "temp").write_text(f"{text}\n")


def chip(folder, number, name, text):
    path = folder / f"hwmon{number}"
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "temp1_input").write_text(f"{text}\n")


ORIN = {"cpu-thermal": "48000", "gpu-thermal": "51500", "tj-thermal": "52000"}
ZONES = {  # zones, chips, device -> source and degrees
    "an Orin's GPU": (ORIN, {}, "cuda:0", "gpu-thermal", 51.5),
    "an Orin's CPU: the junction": (ORIN, {}, "cpu", "tj-thermal", 52.0),
    "a zone that cannot be read is passed over": ({**ORIN, "gpu-thermal": ""}, {}, "cuda", "tj-thermal", 52.0),
    "a desktop's package": ({"acpitz": "27800", "x86_pkg_temp": "61000"}, {}, "cpu", "x86_pkg_temp", 61.0),
    "a chip of hwmon": ({"acpitz": "27800"}, {"nvme": "30000", "k10temp": "44125"}, "cpu", "k10temp", 44.125),
}


@pytest.mark.parametrize(("zones", "chips", "device", "source", "celsius"), ZONES.values(), ids=ZONES)
def test_the_zone_that_tells_of_the_device_is_read(tmp_path, monkeypatch, zones, chips, device, source, celsius):
    monkeypatch.setattr("sdk.runtime.nvml.cuda_devices", lambda: ())
    for number, (name, text) in enumerate(zones.items()):
        zone(tmp_path / "thermal", number, name, text)
    for number, (name, text) in enumerate(chips.items()):
        chip(tmp_path / "hwmon", number, name, text)
    found = find_thermometer(device, tmp_path / "thermal", tmp_path / "hwmon")
    assert (found.source, found.celsius()) == (source, pytest.approx(celsius))


def test_where_nothing_is_told_there_is_no_thermometer(tmp_path):
    zone(tmp_path, 0, "iwlwifi_1", "40000")
    assert find_thermometer("cpu", tmp_path, tmp_path) is None


class Nvml:
    """NVML of one GPU that tells everything, or nothing."""

    failing = False

    def nvmlInit_v2(self):  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus, handle):  # noqa: N802
        return 0

    def nvmlDeviceGetTemperature(self, handle, sensor, degrees):  # noqa: N802
        degrees._obj.value = 63
        return int(self.failing)

    def nvmlDeviceGetMemoryInfo(self, handle, memory):  # noqa: N802
        assert ctypes.sizeof(memory._obj) == 24
        memory._obj.total, memory._obj.used = 8 << 30, 3 << 30
        return int(self.failing)


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr("sdk.runtime.nvml.cuda_devices", lambda: (CudaDevice(0, "GPU", "8.6", 1, "0000:17:00.0"),))
    monkeypatch.setattr("ctypes.CDLL", lambda name: Nvml())


def test_nvml_tells_temperature_and_memory(one_gpu, tmp_path):
    gpu = nvml_device("cuda:0")
    assert (gpu.celsius(), gpu.memory_bytes()) == (63.0, 3 << 30)
    assert find_thermometer("cuda", tmp_path, tmp_path).source == "GPU 0000:17:00.0"
    assert nvml_device("cpu") is None and nvml_device("cuda:1") is None


def test_an_nvml_that_tells_nothing_gives_no_number(one_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(Nvml, "failing", True)
    gpu = nvml_device("cuda:0")
    assert np.isnan(gpu.celsius()) and gpu.memory_bytes() is None
    assert find_thermometer("cuda", tmp_path, tmp_path) is None


def test_power_is_the_last_number_told_and_nothing_is_one(monkeypatch):
    now = [5.0]
    monkeypatch.setattr("sdk.live.sensors.find_power_meter", lambda device: (Meter("a rail", lambda: now[0]), "a rail"))
    with Sensors("cpu") as sensors:
        wait_for(lambda: sensors.readings()["watts"] is not None)
        told = []
        for now[0] in (5.0, np.nan, 0.0, np.nan, 7.0):
            told.append(sensors.readings()["watts"])
    assert told == [5.0, 5.0, 0.0, 0.0, 7.0]
