#!/usr/bin/env bash
# opencv-python 4.13 and 5.0, VideoCapture: where the picture size of a stream changes (a camera that is set anew, a joined
# recording), every later frame is squeezed to the FIRST size, whatever its aspect, without an error, a warning or a property that
# tells: CAP_PROP_FRAME_WIDTH stays too. What is found in such a frame lies in a stretched picture. PyAV gives each in its own size.
# Needs: bash, python3 with venv. Installs into a temporary folder, runs without this project, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 4.13.0.92 5.0.0.93; do
    python3 -m venv "cv$version"
    "cv$version/bin/pip" install -q --disable-pip-version-check "opencv-python-headless==$version" av==17.1.0
    "cv$version/bin/python" - << 'PYTHON'
import av, cv2
import numpy as np


def piece(path, width, height):
    """Ten frames: a white square of 40 pixels on black."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[20:60, 20:60] = 255
    with av.open(path, "w", format="mpegts") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(10):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        file.mux(stream.encode())


piece("wide.ts", 320, 160)
piece("tall.ts", 160, 320)
with open("both.ts", "wb") as file:                     # a transport stream may be joined so
    file.write(open("wide.ts", "rb").read() + open("tall.ts", "rb").read())
capture, seen, squares = cv2.VideoCapture("both.ts", cv2.CAP_FFMPEG), [], []
while True:
    read, frame = capture.read()
    if not read:
        break
    rows, columns = np.nonzero(frame[..., 1] > 128)
    seen.append((frame.shape[1], frame.shape[0], int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))))
    squares.append((int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1))
with av.open("both.ts") as file:
    own = [(frame.width, frame.height) for frame in file.decode(video=0)]
print(f"OpenCV {cv2.__version__}: {len(seen)} frames, of the sizes {sorted(set(seen))}; the square is {squares[0]}, then {squares[-1]}")
print(f"PyAV {av.__version__}: sizes {sorted(set(own))}")
assert set(own) == {(320, 160), (160, 320)}, "the stream does not change its size"
assert set(seen) == {(320, 160, 320)} and len(seen) > 12, "changed: OpenCV no longer keeps the first size"
assert squares[-1][0] > 1.5 * squares[0][0] and squares[-1][1] < 0.7 * squares[0][1], "changed: it is not squeezed"
PYTHON
done
echo "as described: a square becomes an oblong, and nothing tells"
