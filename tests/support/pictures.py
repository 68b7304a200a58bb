"""Pictures that a reader can get wrong: one with a rotation note, one that claims too many pixels."""

import zlib

import numpy as np

TURN_RIGHT = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6


def turned_jpeg(frame):
    """A JPEG of `frame` with a note that it is to be shown turned to the right."""
    import cv2

    jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(TURN_RIGHT) + 2).to_bytes(2, "big") + TURN_RIGHT + jpeg[2:]


def vast_png():
    """A PNG whose header claims 100,000 x 100,000 pixels, above OpenCV's limit of 2^30."""
    import cv2

    png = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    header = b"IHDR" + 2 * (100_000).to_bytes(4, "big") + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
