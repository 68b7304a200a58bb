"""Downloads: whole, resumed, wrong, broken off, at once from several sides, and without a network."""

import hashlib
import http.server
import multiprocessing
import re
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest

from sdk.errors import DownloadError
from sdk.networks.weights import weights_file, weights_path
from sdk.recipe import Weights
from sdk.recipe_networks import HeatmapHead, ResNet
from sdk.resources import CACHE_VARIABLE
from tests.support.networks import recipe_of
from tests.support.threads import in_threads

DATA = np.random.default_rng(5).integers(0, 256, 700_001, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(DATA).hexdigest()
URL = f"https://download.test/mmpose/net-{DIGEST[:8]}_20230126.pth"
RECIPE = replace(
    recipe_of(ResNet("resnet", 18), HeatmapHead("heatmap", ()), (64, 64), split_ratio=None),
    weights=Weights(URL, DIGEST[:8]),
)


class Server:
    """A web server of this test, over http; `opener` leads the https address to it, as no production code can."""

    def __init__(self, data=DATA, *, ranges=True, cut_after=None, status=None):
        self.data, self.ranges, self.cut_after, self.status = data, ranges, cut_after, status
        self.asked = []  # the Range header of each request
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        if self.status is not None:
            handler.send_error(self.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1)) if wanted and self.ranges else 0
        if wanted and start >= len(self.data):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        handler.send_header("Content-Length", str(len(self.data) - start))
        handler.end_headers()
        body = self.data[start:]
        if self.cut_after is not None and len(self.asked) == 1:
            body = body[: self.cut_after]
        handler.wfile.write(body)

    def opener(self, url, start):
        assert url.startswith("https://download.test/")
        local = f"http://127.0.0.1:{self.server.server_address[1]}/"
        request = urllib.request.Request(local, headers={"Range": f"bytes={start}-"} if start else {})
        return urllib.request.urlopen(request, timeout=10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def fetch(server, recipe=RECIPE):
    return weights_file(recipe, opener=server.opener, pause_s=0.0)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".lock", ".sha256"))


def test_a_download_is_kept_under_its_name_and_made_once(cache):
    with Server() as server:
        path = fetch(server)
        assert fetch(server) == path == weights_path(RECIPE)
        assert server.asked == [None]
    assert path == cache / URL.rsplit("/", 1)[1]
    assert path.read_bytes() == DATA
    assert names(cache) == [path.name]


def test_a_file_put_there_by_hand_needs_no_network(cache):
    cache.mkdir(parents=True)
    weights_path(RECIPE).write_bytes(DATA)

    def no_network(url, start):
        raise AssertionError("the network was asked")

    assert weights_file(RECIPE, opener=no_network).read_bytes() == DATA


@pytest.mark.parametrize("digest", [DIGEST[:8], DIGEST[:20], DIGEST])
def test_the_digest_may_be_a_beginning_or_whole(digest):
    with Server() as server:
        assert fetch(server, replace(RECIPE, weights=Weights(URL, digest))).read_bytes() == DATA


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_broken_connection_is_resumed_where_the_server_can(ranges):
    with Server(ranges=ranges, cut_after=300_000) as server:
        assert fetch(server).read_bytes() == DATA
        assert server.asked == [None, "bytes=300000-"]


def test_an_interrupted_run_is_resumed_by_the_next(cache):
    cache.mkdir(parents=True)
    (cache / f"{weights_path(RECIPE).name}.part").write_bytes(DATA[:1000])
    with Server() as server:
        assert fetch(server).read_bytes() == DATA
        assert server.asked == ["bytes=1000-"]


@pytest.mark.parametrize("leftover", [b"\0" * 1000, DATA + b"more", DATA], ids=["other bytes", "too long", "whole"])
def test_a_leftover_that_is_not_its_beginning_is_fetched_anew(leftover, cache):
    cache.mkdir(parents=True)
    (cache / f"{weights_path(RECIPE).name}.part").write_bytes(leftover)
    with Server() as server:
        assert fetch(server).read_bytes() == DATA
        assert server.asked[-1] is None
    assert names(cache) == [weights_path(RECIPE).name]


def test_another_file_is_refused_and_not_kept(cache):
    with Server(DATA[::-1]) as server, pytest.raises(DownloadError, match="is not the file the recipe names") as caught:
        fetch(server)
    assert DIGEST[:8] in str(caught.value)
    assert names(cache) == []


def test_an_altered_file_in_the_cache_is_refused_and_left(cache):
    with Server() as server:
        path = fetch(server)
        path.write_bytes(DATA[:-1])
        with pytest.raises(DownloadError, match="remove it and run again") as caught:
            fetch(server)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == DATA[:-1]


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (500, 4), (503, 4)])
def test_a_refusing_server_is_asked_again_only_where_that_may_help(status, requests, cache):
    with Server(status=status) as server:
        with pytest.raises(DownloadError, match=f"could not be fetched from {re.escape(URL)} .*{status}"):
            fetch(server)
        assert len(server.asked) == requests


def test_without_a_network_the_error_says_which_file_to_put_where(cache):
    def offline(url, start):
        raise urllib.error.URLError("Name or service not known")

    with pytest.raises(DownloadError) as caught:
        weights_file(RECIPE, opener=offline, pause_s=0.0)
    message = str(caught.value)
    assert "on a machine with a network, download that file and put it at" in message
    assert URL in message
    assert str(weights_path(RECIPE)) in message


def test_a_recipe_without_weights_says_what_to_give():
    with pytest.raises(DownloadError, match=r"names no released weights .* --weights, or --weights random"):
        weights_file(replace(RECIPE, weights=None))


def test_a_full_disk_is_told_apart_from_a_bad_connection(monkeypatch):
    from sdk.networks import download

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_progress", full)
    with Server() as server, pytest.raises(DownloadError, match=f"No space left .* in {CACHE_VARIABLE}"):
        fetch(server)


def test_a_cache_that_is_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with Server() as server, pytest.raises(DownloadError, match=f"cannot be kept in .*{CACHE_VARIABLE}"):
        fetch(server)


def test_threads_share_one_download():
    with Server() as server:
        paths = []
        in_threads(lambda _: paths.append(fetch(server)), 8)
        assert len(paths) == 8
        assert server.asked == [None]


def _fetch_in_process(port, queue):
    server = Server.__new__(Server)
    server.server = type("Address", (), {"server_address": ("127.0.0.1", port)})
    queue.put(hashlib.sha256(fetch(server).read_bytes()).hexdigest())


def test_processes_share_one_download():
    context = multiprocessing.get_context("fork")
    with Server() as server:
        queue = context.Queue()
        port = server.server.server_address[1]
        processes = [context.Process(target=_fetch_in_process, args=(port, queue)) for _ in range(4)]
        for process in processes:
            process.start()
        digests = [queue.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
        assert digests == [DIGEST] * 4
        assert server.asked == [None]


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/x.pth", "ftp://download.test/x.pth", "file:///etc/hostname"])
def test_a_redirect_away_from_https_is_refused(target):
    from sdk.networks.download import _HttpsOnly

    request = urllib.request.Request(URL)
    with pytest.raises(urllib.error.HTTPError, match="redirected away from https"):
        _HttpsOnly().redirect_request(request, None, 302, "Found", {}, target)
    followed = _HttpsOnly().redirect_request(request, None, 302, "Found", {}, "https://mirror.test/x.pth")
    assert followed.full_url == "https://mirror.test/x.pth"


def test_every_url_is_https():
    """The recipe refuses anything else, and so does the download, should a recipe be made past its checks."""
    recipe = replace(RECIPE, weights=None)
    object.__setattr__(recipe, "weights", Weights("http://download.test/a.pth", DIGEST[:8]))
    with pytest.raises(DownloadError, match="must come over https"):
        weights_file(recipe)


def test_a_file_whose_digest_nobody_published(tmp_path, monkeypatch, caplog):
    """It is taken whole, begun anew rather than resumed, and its digest told each time."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    recipe = replace(RECIPE, weights=Weights("https://download.test/mmpose/net-20231122.pth"))
    path = weights_path(recipe)
    path.parent.mkdir(parents=True)
    path.with_name(f"{path.name}.part").write_bytes(b"half of another file")
    with Server() as server:
        assert weights_file(recipe, opener=server.opener).read_bytes() == DATA
        assert server.asked == [None]
        weights_file(recipe, opener=server.opener)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2
    assert all(
        f"no digest of net-20231122.pth is published, so it cannot be checked; its sha256 is {DIGEST}" in line
        for line in told
    )
