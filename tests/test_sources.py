"""Where frames come from: what a word and an ending name, for prediction and calibration alike; what is let go of."""

from pathlib import Path

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.media.opening import open_source
from sdk.media.sources import Unreadable, frames_of, read_image, read_stored_image, sources_from
from tests.support.engines import SMALL

cv2 = pytest.importorskip("cv2")

FRAMES = 3


@pytest.fixture
def photos(tmp_path):
    """Two photographs, one in a folder far below, among what is none."""
    for name in ("A.JPG", "below/deep/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


WORDS = {
    "a folder": ("", ["A.JPG"]),
    "a pattern": ("*.[jJ]*", ["A.JPG"]),
    "a pattern of folders below": ("**/*.jpg", ["below/deep/b.jpg"]),
}


@pytest.mark.parametrize("case", WORDS, ids=str)
def test_a_word_names_files_that_opencv_reads(photos, case):
    word, names = WORDS[case]
    assert [source.path for source in sources_from([str(photos / word)])] == [photos / name for name in names]


def test_what_a_folder_holds_besides_is_named_and_counted(photos, caplog):
    for name in ("IMG_2.HEIC", "IMG_3.DNG", "a.1", "b.1", "c.1", "d.1", ".DS_Store"):
        (photos / name).write_text("none")
    (source,) = sources_from([str(photos)])
    assert source.path == photos / "A.JPG"
    assert "passed over 7 files: IMG_2.HEIC, IMG_3.DNG, a.1, b.1, c.1 and 2 more" in caplog.text
    assert "2 folders in it not looked into; --recursive does" in caplog.text


def test_a_folder_is_read_with_those_below_where_that_is_asked(photos, caplog):
    (photos / ".trash").mkdir()
    (photos / ".trash" / "c.jpg").write_bytes((photos / "A.JPG").read_bytes())
    found = sources_from([str(photos)], recursive=True)
    assert [source.relative.as_posix() for source in found] == ["A.JPG", "below/deep/b.jpg"]
    assert "passed over 1 file: notes.txt" in caplog.text and "not looked into" not in caplog.text


@pytest.mark.parametrize("where", [".", Path(), "*.JPG", Path("below")], ids=repr)
def test_a_source_of_several_files_is_called_what_was_asked_for(photos, monkeypatch, where):
    monkeypatch.chdir(photos)
    for name in ("B.JPG", "below/c.jpg", "below/d.jpg"):
        (photos / name).write_bytes((photos / "A.JPG").read_bytes())
    assert open_source(where).name == str(where) and len(list(open_source(where))) == 2


def test_a_folder_of_folders_says_so(photos):
    (photos / "A.JPG").unlink()
    told = r"holds no image and no video \(it holds notes\.txt; 2 folders in it not looked into; --recursive does\)"
    with pytest.raises(InputError, match=told):
        sources_from([str(photos)])


RELATIVE = {  # words -> what results are named after
    "a file": (["below/deep/b.jpg"], ["b.jpg"]),
    "a folder": (["below/deep"], ["b.jpg"]),
    "a pattern": (["below/*/b.jpg"], ["deep/b.jpg"]),
    "a pattern of names": (["below/deep/*.jpg"], ["b.jpg"]),
    "two folders": (["below/deep", "."], ["b.jpg", "A.JPG"]),
    "two of one name": (["below/deep", "other"], ["below/deep/b.jpg", "other/b.jpg"]),
    "one twice": (["A.JPG", "./A.JPG", "."], ["A.JPG"]),
}


@pytest.mark.parametrize(("words", "names"), RELATIVE.values(), ids=RELATIVE)
@pytest.mark.parametrize("whole", [False, True], ids=["from here", "from the root"])
def test_results_are_named_below_what_gave_them(photos, monkeypatch, words, names, whole):
    monkeypatch.chdir(photos)
    (photos / "other").mkdir()
    (photos / "other" / "b.jpg").write_bytes((photos / "A.JPG").read_bytes())
    found = sources_from([str(photos / word) if whole else word for word in words])
    assert [source.relative.as_posix() for source in found] == names


GREY = np.arange(240, dtype=np.uint8).reshape(12, 20)
DEEP = {  # stored picture -> what is read, or the words of the refusal
    "8 bits": ("a.png", GREY, GREY),
    "12 bits of 16": ("a.png", GREY.astype(np.uint16) << 4, GREY),
    "16 bits": ("a.png", GREY.astype(np.uint16) << 8, GREY),
    "16 bits, in colour": ("a.png", np.dstack([GREY.astype(np.uint16) << 8] * 3), GREY),
    "8 bits of 16": ("a.png", GREY.astype(np.uint16), GREY),
    "black, of 16": ("a.png", np.zeros((12, 20), np.uint16), np.zeros((12, 20), np.uint8)),
    "16 bits, TIFF": ("a.tif", GREY.astype(np.uint16) << 6, GREY),
    "floats": ("a.tif", GREY.astype(np.float32) / 255, GREY),
    "floats beyond white": ("a.tif", GREY.astype(np.float32), "its pixels are floats from 0 to 239, where 0 to 1 is"),
    "floats below black": ("a.tif", GREY.astype(np.float32) / 255 - 0.5, "floats from -0.5 to"),
    "no numbers": ("a.tif", np.full((12, 20), np.nan, np.float32), "floats from nan to nan"),
}


@pytest.mark.parametrize(("name", "stored", "expected"), DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("read", [read_image, read_stored_image], ids=["turned", "as stored"])
def test_pictures_of_other_depths_are_scaled_by_a_rule_or_refused(tmp_path, name, stored, expected, read):
    assert cv2.imwrite(str(tmp_path / name), stored)
    found = read(tmp_path / name)
    if isinstance(expected, str):
        assert expected in found.reason
    else:
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, np.dstack([expected] * 3))


def test_a_stream_is_one_whatever_the_case_of_its_scheme():
    (source,) = sources_from(["RTSP://camera/door"])
    assert (source.kind, source.address, source.path) == ("video", "RTSP://camera/door", Path("door"))


def test_a_file_that_is_gone_says_so_in_words(tmp_path):
    assert read_image(tmp_path / "gone.jpg") == Unreadable("No such file or directory")


class Capture:
    """OpenCV's capture of a video without an end, which claims fewer frames than none."""

    def __init__(self, address, *_):
        self.open, self.opened = True, address
        captures.append(self)

    def get(self, key):
        return -9e18

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        return True, np.zeros((4, 6, 3), np.uint8)

    def release(self):
        self.open = False


captures: list[Capture] = []


@pytest.fixture
def opened(monkeypatch):
    """The captures that are opened in a test."""
    captures.clear()
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    return captures


def test_a_video_that_is_listed_is_let_go_of_and_its_claims_are_bounded(tmp_path, opened):
    (tmp_path / "clip.mp4").write_bytes(b"")
    (source,) = sources_from([str(tmp_path / "clip.mp4")])
    assert source.frames == 0 and [capture.open for capture in opened] == [False]


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
    assert [frame.picture.shape for frame in frames_of(source)] == [(48, 64, 3)] * FRAMES


@pytest.mark.parametrize("ending", [".tif", ".ppm", ".JP2"])
def test_calibration_takes_the_pictures_that_prediction_takes(tmp_path, ending):
    pytest.importorskip("sdk._native")
    from sdk.toolchain.crops import people_from_data

    path = tmp_path / f"1{ending}"
    assert cv2.imwrite(str(path), np.zeros((64, 48, 3), np.uint8))
    assert [source.path for source in sources_from([str(tmp_path)])] == [path]
    assert [person.image for person in people_from_data(tmp_path, None, SMALL)] == [path]
