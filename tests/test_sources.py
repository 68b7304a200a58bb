"""What a file's ending makes of it, for prediction and calibration alike."""

import numpy as np
import pytest

from sdk.runtime.sources import frames_of, sources_from
from tests.support.engines import SMALL

cv2 = pytest.importorskip("cv2")

FRAMES = 3


@pytest.mark.parametrize("ending", [".mp4", ".MOV", ".flv", ".m2ts", ".mkv", ".mts", ".wmv"])
def test_a_video_of_any_usual_ending_is_one(tmp_path, ending):
    path = tmp_path / f"clip{ending}"
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(FRAMES):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "clip.avi").rename(path)  # ffmpeg looks into the file
    (source,) = sources_from([str(tmp_path)])
    assert (source.path, source.kind) == (path, "video")
    assert [frame.shape for frame in frames_of(source)] == [(48, 64, 3)] * FRAMES


@pytest.mark.parametrize("ending", [".tif", ".ppm", ".JP2"])
def test_calibration_takes_the_pictures_that_prediction_takes(tmp_path, ending):
    pytest.importorskip("sdk._native")
    from sdk.toolchain.crops import people_from_data

    path = tmp_path / f"1{ending}"
    assert cv2.imwrite(str(path), np.zeros((64, 48, 3), np.uint8))
    assert [source.path for source in sources_from([str(tmp_path)])] == [path]
    assert [person.image for person in people_from_data(tmp_path, None, SMALL)] == [path]
