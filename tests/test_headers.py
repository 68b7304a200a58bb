"""Sizes of pictures by their headers, against OpenCV's own decoding; and the headers that ask for too much."""

import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from sdk.media.headers import problem_of, size_wh_of
from sdk.media.sources import Unreadable, read_image, read_stored_image

cv2 = pytest.importorskip("cv2")
ENDINGS = (".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")


def encoded(ending, height=37, width=53, options=()):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    if ending == ".pgm":
        picture = picture[..., 0]
    try:
        done, data = cv2.imencode(ending, picture, list(options))
    except cv2.error:
        pytest.skip(f"this OpenCV writes no {ending}")
    assert done
    return data.tobytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_size_is_what_the_decoder_finds(ending):
    data = encoded(ending)
    assert size_wh_of(data) == (53, 37) and problem_of(data) is None


@pytest.mark.parametrize(
    "options",
    [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1), (cv2.IMWRITE_JPEG_QUALITY, 1)],
    ids=["progressive", "with restarts", "of the lowest quality"],
)
def test_jpegs_of_every_kind_are_taken(options):
    assert problem_of(encoded(".jpg", 640, 480, options)) is None


def test_the_emptiest_jpeg_is_taken():
    """One grey, at the lowest quality: the fewest bits a block that an encoder writes."""
    for progressive in (0, 1):
        options = [cv2.IMWRITE_JPEG_QUALITY, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        data = cv2.imencode(".jpg", np.full((4000, 4000), 128, np.uint8), options)[1].tobytes()
        assert problem_of(data) is None, len(data)


@pytest.mark.parametrize(("ending", "options"), [(".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)), (".webp", ())], ids=str)
def test_both_kinds_of_webp(ending, options):
    assert size_wh_of(encoded(ending, options=options)) == (53, 37)


def png_of(width, height):
    """A PNG of black pixels, deflated: 1 bit a pixel, so 16 M pixels take two kilobytes."""
    rows = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    body = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_many_pixels_are_too_many_at_any_sides():
    header = struct.pack(">IIBBBBB", 16_000, 8_389, 1, 0, 0, 0, 0)
    assert problem_of(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + header).startswith("it must be at most 128 x 2^20 pixels")
    header = struct.pack(">IIBBBBB", 16_000, 8_388, 1, 0, 0, 0, 0)
    assert problem_of(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + header) is None


@pytest.mark.parametrize("read", [read_image, read_stored_image])
def test_a_picture_beyond_the_bound_is_never_decoded(tmp_path, monkeypatch, read):
    path = tmp_path / "large.png"
    path.write_bytes(png_of(16_385, 8))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    found = read(path)
    assert isinstance(found, Unreadable)
    assert found.reason == "it must be at most 16384 pixels a side (its header says 16385 x 8); shrink it"


def jpeg_that_says(width, height):
    data = bytearray(encoded(".jpg"))
    place = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, place + 5, height, width)
    return bytes(data)


def with_a_thumbnail(data):
    """A comment that holds another JPEG."""
    inner = encoded(".jpg", 8, 8)
    return data[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(inner)) + inner + data[2:]


LIARS = {
    "more than its bytes can hold": (jpeg_that_says(8_000, 8_000), "8000 x 8000 pixels, which .* cannot hold"),
    "cut behind a thumbnail": (with_a_thumbnail(encoded(".jpg"))[:-200], "the JPEG breaks off before its end"),
    "cut": (encoded(".jpg")[:-200], "the JPEG breaks off before its end"),
}


@pytest.mark.parametrize(("data", "message"), LIARS.values(), ids=LIARS)
def test_a_jpeg_whose_header_lies_is_broken(tmp_path, data, message):
    (tmp_path / "a.jpg").write_bytes(data)
    found = read_image(tmp_path / "a.jpg")
    assert isinstance(found, Unreadable)
    assert re.search(message, found.reason)


@pytest.mark.parametrize("ending", ENDINGS)
def test_headers_that_are_cut_or_damaged_say_nothing_or_something(ending):
    data, rng = encoded(ending), np.random.default_rng(1)
    tracemalloc.start()
    for length in range(0, min(len(data), 200), 3):
        size_wh_of(data[:length])
        problem_of(data[:length])
    for _ in range(200):
        damaged = bytearray(data)
        for place in rng.integers(0, min(200, len(data)), 3):
            damaged[place] = rng.integers(256)
        problem_of(bytes(damaged))
        found = size_wh_of(bytes(damaged))
        assert found is None or (len(found) == 2 and all(type(side) is int for side in found))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_a_thumbnail_is_not_the_picture():
    assert size_wh_of(with_a_thumbnail(encoded(".jpg"))) == (53, 37)
