"""A web server on loopback that answers as none should: each connection gets the next of its answers, as bytes.

with HostileServer(b"HTTP/1.1 200 OK\\r\\nContent-Length: many\\r\\n\\r\\n") as server:
    fetch("https://download.test/net.pth", part, "weights", "mend", opener=server.opener)
"""

import contextlib
import re
import socket
import threading
import time
import urllib.request

TAIL = b"Connection: close\r\n\r\n"


def answer(status, body=b"", **headers):
    """A whole answer; a header's name is given with '_' for '-'."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}".encode("latin-1") + TAIL + body


class HostileServer:
    """`answers`: bytes, or a callable (connection, request bytes) -> None; the last is given again and again."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self._stop = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def opener(self, url, start):
        """Leads the https address to this server, as no production code can."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/net.pth", headers=headers)
        return urllib.request.urlopen(request, timeout=10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self.socket.close()

    def _serve(self):
        while not self._stop.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, contextlib.suppress(OSError):
            request = connection.recv(1 << 16)
            found = re.search(rb"Range: (.*)\r\n", request)
            self.asked.append(found.group(1).decode() if found else None)
            mine = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if callable(mine):
                mine(connection)
            else:
                connection.sendall(mine)


def drip(data, pause_s):
    """`data`, byte by byte."""

    def send(connection):
        for start in range(len(data)):
            connection.sendall(data[start : start + 1])
            time.sleep(pause_s)

    return send


def endless(head):
    """`head`, then bytes for as long as they are taken."""

    def send(connection):
        connection.sendall(head)
        while True:
            connection.sendall(b"\0" * (1 << 16))

    return send
