"""A viewer of the live page without a browser. Needs websockets.

with Viewer(page) as one:
    one.say(do="stop")
    one.text("state")
"""

import json

from websockets.sync.client import connect

from sdk.live.wire import parsed_frame

WAIT_S = 60.0  # for one answer: a busy machine's; what comes is not waited for longer


def viewer(page, **options):
    return connect(f"ws://127.0.0.1:{page.port}/watch", compression=None, max_size=None, **options)


class Viewer:
    """A client that answers as the page does."""

    def __init__(self, page):
        self._open = viewer(page)
        self.socket = self._open.__enter__()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._open.__exit__(*(error or (None, None, None)))

    def frame(self):
        """The next frame."""
        while True:
            data = self.socket.recv(timeout=WAIT_S)
            if isinstance(data, bytes):
                self.say(do="arrived", camera=parsed_frame(data)[0]["camera"])
                return parsed_frame(data)

    def text(self, kind, met=lambda told: True):
        """The next message of a kind that meets a rule."""
        while True:
            data = self.socket.recv(timeout=WAIT_S)
            if isinstance(data, bytes):
                self.say(do="arrived", camera=parsed_frame(data)[0]["camera"])
            elif (told := json.loads(data))["type"] == kind and met(told):
                return told

    def say(self, **message):
        self.socket.send(json.dumps(message))
