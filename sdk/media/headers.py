"""The size of a picture by its header, before anything decodes it: a small file may ask for all the memory there is.

It reads what it must of PNG, JPEG, BMP, WebP, TIFF, PNM, JPEG 2000 and AVIF. It decodes nothing and believes nothing
but the size; what is damaged otherwise is the decoder's to find.

    problem_of(Path("photo.jpg").read_bytes())         # None, or 'it is 100000 x 100000 pixels; ...'
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from sdk.ops_arrays import MAX_SIDE

__all__ = ["problem_of", "size_wh_of"]

MOST_PIXELS = 1 << 27  # 402 MB as BGR, and what a decoder needs beside; cameras of one shot have up to 102 million
Size = tuple[int, int]
# Entropy-coded data hold a bit at least for each 8 x 8 block of a JPEG: fewer, and the header claims what is not there.
PIXELS_A_BYTE = 8 * 64


def problem_of(data: bytes) -> str | None:
    """Why a picture must not be decoded; None where its header says nothing against it."""
    size = size_wh_of(data)
    if size is None:
        return None
    width, height = size
    if max(size) > MAX_SIDE:
        return f"it must be at most {MAX_SIDE} pixels a side (its header says {width} x {height}); shrink it"
    if width * height > MOST_PIXELS:
        return f"it must be at most {MOST_PIXELS >> 20} x 2^20 pixels (its header says {width} x {height}); shrink it"
    if data[:2] == b"\xff\xd8":
        if width * height > PIXELS_A_BYTE * len(data):
            return f"its header says {width} x {height} pixels, which {len(data)} bytes of JPEG cannot hold"
        begins = [place for marker, place in _jpeg_markers(data) if marker == 0xDA]
        if begins and data.find(b"\xff\xd9", begins[0]) < 0:  # a thumbnail before it has an end of its own
            return "the JPEG breaks off before its end"
    return None


def size_wh_of(data: bytes) -> Size | None:
    """Width and height by the header; None where it cannot be read."""
    for begins, read in _READERS:
        if begins.match(data):
            try:
                return read(data)
            except (struct.error, IndexError, ValueError):
                return None
    return None


def _png(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> Size | None:
    for marker, place in _jpeg_markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack_from(">HH", data, place + 4)
            return width, height
    return None


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers and their places, up to the start of the first scan."""
    place = 2
    while 0 <= (place := data.find(b"\xff", place)) < len(data) - 1:  # padding, or damage, is passed over
        place += 1
        marker = data[place]
        if marker in (0x00, 0xFF):
            continue
        yield marker, place
        if marker == 0xDA:
            return
        place += 1
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD8):  # those stand alone
            place += max(2, int.from_bytes(data[place : place + 2], "big"))


def _bmp(data: bytes) -> Size:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind != b"VP8X":
        raise ValueError("another kind of WebP")
    return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")


def _pnm(data: bytes) -> Size | None:
    found = re.match(rb"P[1-6](?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})\s", data[:4096])
    return None if found is None else (int(found.group(1)), int(found.group(2)))


def _tiff(data: bytes) -> Size | None:
    """The largest picture of the file: a reader may take any."""
    order = "<" if data[:2] == b"II" else ">"
    sizes = [size for size in _tiff_directories(data, order) if min(size) > 0]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _tiff_directories(data: bytes, order: str) -> Iterator[Size]:
    place, seen = struct.unpack_from(f"{order}I", data, 4)[0], set[int]()
    while place and place not in seen and len(seen) < 1000:
        seen.add(place)
        (count,) = struct.unpack_from(f"{order}H", data, place)
        found = {256: 0, 257: 0}
        for start in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, start)
            if tag in found and kind in (3, 4):
                found[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, start + 8)[0]
        yield found[256], found[257]
        (place,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * count)


def _boxes(data: bytes) -> Size | None:
    """JPEG 2000 and AVIF: of all boxes of size that stand in the header, the largest."""
    sizes = []
    for found in re.finditer(rb"ihdr|ispe", data[: 1 << 20]):
        start = found.end() + (4 if found.group() == b"ispe" else 0)
        first, second = struct.unpack_from(">II", data, start)
        sizes.append((first, second) if found.group() == b"ispe" else (second, first))
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _codestream(data: bytes) -> Size:
    right, low, left, top = struct.unpack_from(">IIII", data, 8)
    return right - left, low - top


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Size | None]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n....IHDR", re.DOTALL), _png),
    (re.compile(rb"\xff\xd8"), _jpeg),
    (re.compile(rb"BM"), _bmp),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"II\*\0|MM\0\*"), _tiff),
    (re.compile(rb"P[1-6]\s"), _pnm),
    (re.compile(rb"\0\0\0\x0cjP  |....ftyp", re.DOTALL), _boxes),
    (re.compile(rb"\xff\x4f\xff\x51"), _codestream),
)
