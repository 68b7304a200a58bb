"""Files of results: what cannot be written is told, and a fault of something else is never laid on the file."""

import argparse
import errno
import os
import sys

import numpy as np
import pytest

from sdk import cli
from sdk.errors import InputError, OutputError
from sdk.media.sinks import VideoFile

cv2 = pytest.importorskip("cv2")


def noise(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


FAULTS = [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left on device"), KeyError("a")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_of_the_block_stays_itself(tmp_path, fault):
    with pytest.raises(type(fault)) as caught, VideoFile(tmp_path / "a.mp4", 25):
        raise fault
    assert caught.value is fault and names_in(tmp_path) == []


def test_a_reader_of_standard_output_that_left_is_not_the_files_fault(tmp_path, monkeypatch, capsys):
    def run(arguments):
        with VideoFile(tmp_path / "a.mp4", 25) as video:
            video.write(noise(90, 120))
            print("frame 0", flush=True)
        return 0

    reader, writer = os.pipe()
    os.close(reader)
    verb = argparse.Namespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(cli, "import_module", lambda name: verb)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        assert cli.main(["predict"]) == 1
    assert capsys.readouterr().err == "" and names_in(tmp_path) == []


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


@pytest.mark.parametrize("size_hw", [(90, 121), (91, 120), (91, 121), (1, 1)], ids=str)
def test_an_odd_video_keeps_its_last_row_and_column(tmp_path, size_hw, caplog):
    height, width = size_hw
    picture = noise(height, width)
    with caplog.at_level("INFO", "sdk"), VideoFile(tmp_path / "a.mp4", 25) as video:
        for _ in range(3):
            video.write(picture)
    found = frames_of(tmp_path / "a.mp4")
    even = height + height % 2, width + width % 2
    assert [frame.shape[:2] for frame in found] == [even] * 3
    padded = np.pad(picture, ((0, even[0] - height), (0, even[1] - width), (0, 0)), mode="edge")
    assert np.abs(found[0].astype(int) - padded).mean() < 12  # MPEG-4 is lossy
    assert [record.getMessage() for record in caplog.records] == [
        f"'{tmp_path / 'a.mp4'}' is {even[1]}x{even[0]} pixels: MP4 takes even sizes"
    ]


PICTURES = {
    "another size": (
        noise(64, 48),
        r"picture 1 of '.*a\.mp4' must be 120x90 pixels as the first is \(got 48x64 pixels\)",
    ),
    "grey": (noise(90, 120)[..., 0], "frame is grey"),
    "none": (None, "frame is None"),
}


@pytest.mark.parametrize(("picture", "message"), PICTURES.values(), ids=PICTURES)
def test_a_picture_that_does_not_fit_is_named(tmp_path, picture, message):
    with pytest.raises(InputError, match=message), VideoFile(tmp_path / "a.mp4", 25) as video:
        video.write(noise(90, 120))
        video.write(picture)
    assert names_in(tmp_path) == []


def test_a_picture_that_no_video_holds_is_refused(tmp_path):
    told = r"at most 8190 pixels a side.*\(got 8191x16 pixels\); scale them down"
    with pytest.raises(InputError, match=told), VideoFile(tmp_path / "a.mp4", 25) as video:
        video.write(noise(16, 8191))


def test_a_video_without_frames_is_none(tmp_path):
    told = r"a\.mp4' must hold at least one frame \(got none\)"
    with pytest.raises(OutputError, match=told), VideoFile(tmp_path / "a.mp4", 25):
        pass
    assert names_in(tmp_path) == []
