"""Downloads from servers that answer as none should, and a cache that holds other things: bounded, told, unfollowed."""

import fcntl
import hashlib
import os
import re
import threading
from dataclasses import replace

import numpy as np
import pytest

from sdk.errors import DownloadError
from sdk.networks import download
from sdk.networks.weights import weights_file, weights_path
from sdk.recipe import Weights
from sdk.recipe_networks import HeatmapHead, ResNet
from sdk.resources import CACHE_VARIABLE
from tests.support.hostile_server import HostileServer, answer, drip, endless
from tests.support.networks import recipe_of

DATA = np.random.default_rng(3).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(DATA).hexdigest()
WHOLE = answer(200, DATA, Content_Length=len(DATA))
RECIPE = replace(
    recipe_of(ResNet("resnet", 18), HeatmapHead("heatmap", ()), (64, 64), split_ratio=None),
    weights=Weights(f"https://download.test/net-{DIGEST[:8]}.pth", DIGEST[:8]),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder


def fetched(server, recipe=RECIPE):
    return weights_file(recipe, opener=server.opener, pause_s=0.0)


def part_of(cache):
    return cache / f"{weights_path(RECIPE).name}.part"


HOSTILE = {
    "a length that is none": (answer(200, DATA, Content_Length="many"), "Content-Length is no number .*'many'"),
    "a length and a control": (answer(200, DATA, Content_Length="50000\x1d"), "Content-Length is no number"),
    "a length below zero": (answer(200, DATA, Content_Length="-5"), "Content-Length is no number .*'-5'"),
    "a length of a thousand digits": (answer(200, DATA, Content_Length="9" * 1000), "Content-Length is no number"),
    "a length beyond the bound": (answer(200, DATA, Content_Length=1 << 50), "it is larger than 4096 MiB"),
    "less than it says": (answer(200, DATA, Content_Length=len(DATA) + 9), "the connection ended after 50000 of 50009"),
    "a redirect to nowhere": (answer(302, Location="http://[::1"), r"could not be fetched from https://download\.test"),
    "a redirect without a place": (answer(302), "302"),
    "a redirect to itself": (answer(302, Location="/net.pth"), "302"),
    "a chunk without a length": (answer(200, b"zz\r\n", Transfer_Encoding="chunked"), "could not be fetched"),
    "no HTTP": (b"\0" * 999, "could not be fetched"),
    "nothing": (b"", "could not be fetched"),
    "headers without end": (answer(200, X="y" * 70_000), "could not be fetched"),
    "another file": (answer(200, DATA[::-1], Content_Length=len(DATA)), "is not the file the recipe names"),
}


@pytest.mark.parametrize(("said", "message"), HOSTILE.values(), ids=HOSTILE)
def test_an_answer_that_is_none_is_an_error_in_words(cache, said, message):
    with HostileServer(said) as server, pytest.raises(DownloadError, match=message) as caught:
        fetched(server)
    assert "weights of recipe" in str(caught.value) and not weights_path(RECIPE).exists()


def test_a_file_without_end_is_given_up_and_not_kept(cache, monkeypatch):
    monkeypatch.setattr(download, "LARGEST_BYTES", 1 << 20)
    with HostileServer(endless(answer(200))) as server, pytest.raises(DownloadError, match="it is larger than 1 MiB"):
        fetched(server)
    assert not part_of(cache).exists() and len(server.asked) == 1


def test_headers_that_come_letter_by_letter_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(download, "ANSWER_S", 0.05)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    slow = drip(WHOLE[:200], 0.05)
    with HostileServer(slow) as server, pytest.raises(DownloadError, match=r"no answer came within 0\.05 s"):
        fetched(server)


def test_a_rate_below_the_lowest_is_given_up_and_what_came_is_resumed(cache, monkeypatch):
    monkeypatch.setattr(download, "SLOW_S", 0.1)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    head = answer(200, Content_Length=len(DATA))
    with (
        HostileServer(lambda to: (to.sendall(head), drip(DATA[:100], 0.02)(to))) as server,
        pytest.raises(DownloadError, match="gave less than 16 KiB a second"),
    ):
        fetched(server)
    came = part_of(cache).read_bytes()
    assert came and DATA.startswith(came)


def test_all_attempts_have_one_deadline(monkeypatch):
    monkeypatch.setattr(download, "DEADLINE_S", -1.0)
    with HostileServer(WHOLE) as server, pytest.raises(DownloadError, match="hours are over"):
        fetched(server)
    assert len(server.asked) == 1


RESUMES = {
    "another place": answer(206, DATA[:40_000], Content_Range=f"bytes 0-39999/{len(DATA)}", Content_Length=40_000),
    "no place": answer(206, DATA[10_000:], Content_Length=40_000),
    "a place that is none": answer(206, DATA[10_000:], Content_Range="bytes ten-40/many", Content_Length=40_000),
}


@pytest.mark.parametrize("said", RESUMES.values(), ids=RESUMES)
def test_a_false_resume_is_fetched_anew(cache, said):
    part_of(cache).write_bytes(DATA[:10_000])
    with HostileServer(said, WHOLE) as server:
        assert fetched(server).read_bytes() == DATA
        assert server.asked == ["bytes=10000-", None]


def linked(path, tmp_path):
    target = tmp_path / "elsewhere"
    target.write_bytes(b"mine")
    path.symlink_to(target)


PLACES = {"the file": "", "its part": ".part", "its lock": ".lock", "its digest": ".sha256"}
THINGS = {"a link": (linked, "it is a link"), "a pipe": (lambda path, _: os.mkfifo(path), "it is a pipe")}


@pytest.mark.parametrize("ending", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("make", "word"), THINGS.values(), ids=THINGS)
def test_links_and_pipes_in_the_cache_are_not_followed(cache, tmp_path, ending, make, word):
    place = cache / f"{weights_path(RECIPE).name}{ending}"
    make(place, tmp_path)
    with (
        HostileServer(WHOLE) as server,
        pytest.raises(DownloadError, match=rf"must be a plain file \({word}.*remove it"),
    ):
        fetched(server)
    assert not (tmp_path / "elsewhere").exists() or (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_who_waits_for_another_download_says_so(cache, caplog):
    caplog.set_level("INFO", "sdk")
    with HostileServer(WHOLE) as server, (cache / f"{weights_path(RECIPE).name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=fetched, args=(server,))
        waiting.start()
        while "another process is fetching" not in caplog.text:
            assert waiting.is_alive()
        fcntl.flock(lock, fcntl.LOCK_UN)
        waiting.join(20)
    assert weights_path(RECIPE).read_bytes() == DATA


def other_file_of_the_same_beginning(monkeypatch):
    """A file whose digest begins as the recipe's: by a stand-in for the digest, as eight digits are soon found."""
    other = DATA[::-1]
    real = hashlib.sha256(other).hexdigest()

    def digest(path):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        return DIGEST[:8] + real[8:] if found == real else found

    monkeypatch.setattr("sdk.networks.weights.sha256_of_file", digest)
    return other


def test_the_whole_digest_of_the_first_file_is_remembered(cache, monkeypatch):
    with HostileServer(WHOLE) as server:
        path = fetched(server)
    pin = cache / f"{path.name}.sha256"
    assert pin.read_text() == f"{DIGEST}  {path.name}\n"
    other = other_file_of_the_same_beginning(monkeypatch)
    path.write_bytes(other)
    with pytest.raises(DownloadError, match=r"is not the file that was fetched first .*remove that file if you trust"):
        weights_file(RECIPE)
    path.unlink()
    with (
        HostileServer(answer(200, other, Content_Length=len(other))) as server,
        pytest.raises(DownloadError, match=r"is not the file that was fetched first .*nothing was kept"),
    ):
        fetched(server)
    assert not path.exists()
    pin.write_text("nothing\n")
    with pytest.raises(DownloadError, match=re.escape(f"'{pin}' must begin with the 64 hex digits")):
        fetched(server)


def test_a_recipe_that_holds_the_whole_digest_needs_no_other(cache):
    with HostileServer(WHOLE) as server:
        path = fetched(server, replace(RECIPE, weights=Weights(RECIPE.weights.url, DIGEST)))
    assert not (cache / f"{path.name}.sha256").exists()
