"""A simulated camera: an RTSP server whose pictures tell when they were captured. For Debian's python3, which has gi.

    /usr/bin/python3 rtsp_camera.py 8554            # rtsp://127.0.0.1:8554/cam, once it prints "ready"

A line on its standard input, such as `320x240`, is the next pictures' size. SIGSTOP is a stall, SIGKILL a dead camera.
The first 24 squares of 16 pixels, black or white, are CLOCK_MONOTONIC in centiseconds; the lowest bit comes first.
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BITS, SQUARE, STEP_MS = 24, 16, 40
LAUNCH = (
    "( appsrc name=camera is-live=true do-timestamp=true format=time ! videoconvert "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1 "
    "! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)
size = [640, 480]


def picture():
    width, height = size
    stamp = int(100 * time.monotonic())
    luma = bytearray(b"\x60" * (width * height))
    for bit in range(BITS):
        row, column = divmod(bit * SQUARE, width)
        for line in range(row * SQUARE, (row + 1) * SQUARE):
            at = line * width + column
            luma[at : at + SQUARE] = (b"\xeb" if stamp >> bit & 1 else b"\x10") * SQUARE
    return bytes(luma + b"\x80" * (width * height // 2))


def push(source, shown):
    if shown != size:
        shown[:] = size
        text = f"video/x-raw,format=I420,width={size[0]},height={size[1]},framerate=25/1"
        source.set_property("caps", Gst.Caps.from_string(text))
    data = picture()
    buffer = Gst.Buffer.new_allocate(None, len(data), None)
    buffer.fill(0, data)
    return source.emit("push-buffer", buffer) == Gst.FlowReturn.OK


def configure(_, media):
    source = media.get_element().get_by_name("camera")
    GLib.timeout_add(STEP_MS, push, source, [])


def listen(stream, _):
    line = stream.readline()
    if line.strip():
        size[:] = (int(side) for side in line.split("x"))
    return bool(line)


Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_shared(True)
factory.set_launch(LAUNCH)
factory.connect("media-configure", configure)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
GLib.io_add_watch(sys.stdin, GLib.IO_IN, listen)
print("ready", flush=True)
GLib.MainLoop().run()
