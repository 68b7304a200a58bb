"""`sdk annotate` of what lies in a store: S3, Google's and Azure's as emulators play them, and files behind HTTP.
Rows are those of the same files in a folder, to the bit."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sdk.errors import InputError, OutputError, UsageError
from sdk.scale.annotating import annotate
from sdk.scale.estimating import How
from sdk.scale.job import Job
from sdk.scale.listing import Listing
from sdk.scale.stores import read_bytes
from tests.support.archives import rows_in, run, stopping, write_archive, write_shard, write_video
from tests.support.object_stores import STORES, system_of

pytest.importorskip("pyarrow")
pytest.importorskip("onnxruntime")
pytest.importorskip("fsspec")
pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Pictures, one of them none, a shard, a video, and a list with boxes."""
    pytest.importorskip("av")
    folder = write_archive(tmp_path_factory.mktemp("store") / "may", 5, bad=(2,))
    write_shard(folder / "more.tar", 3)
    write_video(folder / "clip.mp4", 20)
    (folder / "list.csv").write_text("path,x1,y1,x2,y2\n000.jpg,5,5,60,80\n000.jpg,9,2,90,70\n004.jpg,,,,\n")
    return folder


@pytest.fixture(scope="module", params=STORES)
def store(archive, request):
    """The archive in a bucket of each store; its address."""
    with pytest.MonkeyPatch.context() as patch, STORES[request.param](patch) as base:
        system = system_of(base)
        for path in archive.iterdir():
            system.pipe_file(f"{base}/may/{path.name}", path.read_bytes())
        yield f"{base}/may"


@pytest.fixture(scope="module")
def http(archive):
    """The archive's folder behind HTTP; its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archive)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def rows_of(engine, output, base, *names):
    """Rows of these sources below `base`, with what of their place is the base's taken away."""
    run(engine, output, *(f"{base}/{name}" if name else base for name in names), segment_frames=8)
    rows = rows_in(output)
    sources = [source.removeprefix(f"{base}/") for source in rows["source"].to_pylist()]
    return rows.drop_columns(["source"]), sources


SOURCES = {
    "a folder": ("",),
    "a list with boxes": ("list.csv",),
    "a pattern": ("00[0-3].jpg",),
    "single files": ("004.jpg", "more.tar", "clip.mp4"),
}


@pytest.mark.parametrize("names", SOURCES.values(), ids=SOURCES)
def test_rows_of_a_bucket_are_those_of_a_folder(small_engine, tmp_path, archive, store, names):
    expected, expected_sources = rows_of(small_engine, tmp_path / "here", str(archive), *names)
    rows, sources = rows_of(small_engine, tmp_path / "there", store, *names)
    assert sources == expected_sources
    assert rows.equals(expected)
    assert len(rows) > 1


def test_what_is_not_in_a_store_is_a_row_that_says_so(small_engine, tmp_path, store, http):
    names = tmp_path / "list.txt"
    names.write_text(f"{store}/none.jpg\n{http}/none.jpg\n{store}/000.jpg\n")
    report = run(small_engine, tmp_path / "out", names)
    assert rows_in(tmp_path / "out")["error"].to_pylist() == ["there is no such file"] * 2 + [None]
    assert (report.frames, report.errors) == (3, 2)


@pytest.mark.parametrize("names", [("list.csv",), ("004.jpg", "more.tar")], ids=["a list", "files"])
def test_rows_of_files_behind_http_are_those_of_a_folder(small_engine, tmp_path, archive, http, names):
    expected, expected_sources = rows_of(small_engine, tmp_path / "here", str(archive), *names)
    rows, sources = rows_of(small_engine, tmp_path / "there", http, *names)
    assert sources == expected_sources
    assert rows.equals(expected)


def test_rows_in_a_bucket_are_those_in_a_folder_and_a_run_goes_on_there(small_engine, tmp_path, store):
    place = store.replace("may", "rows")
    job = Job((store,), place, How(str(small_engine), device="cpu", threads=1), block=4, batch=3, segment_frames=8)
    with pytest.raises(KeyboardInterrupt):
        annotate(job, stopping(4))
    report = annotate(job)
    assert (report.found, report.blocks, report.missing) == (2, 6, 0)
    run(small_engine, tmp_path / "here", store, segment_frames=8)
    assert rows_in(place).equals(rows_in(tmp_path / "here"))
    names = {name for name, _ in listed(place)}
    assert names >= {"_annotate.json", "_blocks.csv"}
    assert len(names) == 8


def test_a_bucket_keeps_no_block_that_is_no_longer_of_the_archive(small_engine, tmp_path, store):
    archive, place = write_archive(tmp_path / "archive", 8), store.replace("may", "less")
    run(small_engine, place, archive)
    before = listed(place)
    (archive / "007.jpg").unlink()
    report = run(small_engine, place, archive)
    assert (report.found, report.blocks, report.frames) == (1, 2, 3)
    assert len(listed(place)) == len(before) == 4
    assert len(rows_in(place)) == 7


def listed(place):
    """Names and sizes of what is in a store's folder."""
    found = system_of(place).ls(place, detail=True)
    return sorted((each["name"].rpartition("/")[2], each["size"]) for each in found)


REFUSED = {
    "what is no output": ("may", UsageError, "/may' holds other files than an annotated archive"),
    "no bucket": ("../none/rows", OutputError, "none/rows/_annotate.json' cannot be written"),
}


@pytest.mark.parametrize(("place", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(small_engine, archive, store, place, error, message):
    scheme, bucket, _ = store.replace("://", "/").split("/")
    address = f"{scheme}://{bucket}/{place}" if ".." not in place else f"{scheme}://{place[3:]}"
    with pytest.raises(error, match=message):
        run(small_engine, address, archive)


def test_an_address_that_takes_nothing_is_refused(small_engine, archive):
    with pytest.raises(UsageError, match="'https://host/rows' must be a folder"):
        run(small_engine, "https://me:pw@host/rows", archive)


NAMES = (
    "b c.jpg",
    "\u00fc.jpg",
    "50%25.jpg",
    "50%.jpg",
    "q?x=1.jpg",
    "w?.jpg",
    "h#a.jpg",
    "br[1].jpg",
    "{a}.jpg",
    "a::b.jpg",
)


def test_names_are_taken_letter_by_letter(small_engine, tmp_path, archive, store):
    base, picture = f"{store}-names", (archive / "000.jpg").read_bytes()
    system = system_of(base)
    for name in NAMES:
        system.pipe_file(f"{base}/{name}", picture)
    system.pipe_file(f"{base}/below/", b"")
    expected = [f"{base}/{name}" for name in NAMES]
    run(small_engine, tmp_path / "listed", base)
    run(small_engine, tmp_path / "named", *expected)
    for place in ("listed", "named"):
        rows = rows_in(tmp_path / place)
        assert rows["error"].null_count == len(rows)
        assert sorted(rows["source"].to_pylist()) == sorted(expected)


def test_a_pattern_is_one_folders_and_a_listing_has_more_than_a_page(store):
    base, system = f"{store}-many", system_of(store)
    many = 1010 if store.startswith("s3") else 20  # a page of S3's emulator holds 1000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: system.pipe_file(f"{base}/a/{number:04d}.jpg", b""), range(many)))
    system.pipe_file(f"{base}/a/below/0001.jpg", b"")
    counts = {"a": many, "a/": many, "a/*.jpg": many, "a/**": many + 1, "*/00[01]5.jpg": 2}
    assert counts == {source: len(list(Listing((f"{base}/{source}",)).entries())) for source in counts}
    whole = [entry.place for entry in Listing((base.rpartition("/")[0] + "/",), recursive=True).entries()]
    assert f"{base}/a/below/0001.jpg" in whole


def test_a_file_that_changes_is_another_and_is_read_whole(archive, store):
    place, system = f"{store}-changing.jpg", system_of(store)
    versions = [b"1" * 200_000, b"2" * 200_000, b"3" * 300_000, b""]
    stamps = set()
    for content in versions:
        stamps |= set(changing(system, place, content))
        assert read_bytes(place) == content
    assert len(stamps) == len(versions)


def changing(system, place, content):
    """The stamps of a file's folder, once it is written."""
    system.pipe_file(place, content)
    return [entry.stamp for entry in Listing((place.rpartition("/")[0],)).entries() if entry.place == place]


WITHOUT_CREDENTIALS = {
    "none": ("", "unable to connect to account"),
    "half of them": ("AccountKey=c2VjcmV0;", "cannot be opened"),
}


@pytest.mark.parametrize(("words", "message"), WITHOUT_CREDENTIALS.values(), ids=WITHOUT_CREDENTIALS)
def test_what_a_store_lacks_is_told(monkeypatch, words, message):
    adlfs = pytest.importorskip("adlfs")
    adlfs.AzureBlobFileSystem.clear_instance_cache()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", words)
    with pytest.raises(InputError, match=message) as caught:
        list(Listing(("az://photos/may",)).entries())
    assert "credentials in the environment" in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_what_a_store_refuses_is_told(tmp_path, monkeypatch, small_engine):
    gcsfs = pytest.importorskip("gcsfs")

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"error": {"code": 401, "message": "invalid authentication credentials"}}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    monkeypatch.setattr("sdk.scale.stores.TRIES", 1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
        gcsfs.GCSFileSystem.clear_instance_cache()
        with pytest.raises(
            InputError, match=r"cannot be listed \(invalid authentication credentials\); check its address"
        ):
            run(small_engine, tmp_path / "listed", "gs://photos/may")
        run(small_engine, tmp_path / "out", "gs://photos/a.jpg")
        server.shutdown()
    assert rows_in(tmp_path / "out")["error"].to_pylist() == ["invalid authentication credentials"]
