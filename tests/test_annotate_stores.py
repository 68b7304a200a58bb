"""`sdk annotate` of what lies in a store: S3 as moto's server plays it, and files behind HTTP. Rows are those of the
same files in a folder, to the bit."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sdk.errors import OutputError, UsageError
from sdk.scale.annotating import annotate
from sdk.scale.estimating import How
from sdk.scale.job import Job
from tests.support.archives import rows_in, run, stopping, write_archive, write_shard, write_video

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


@pytest.fixture(scope="module")
def s3(archive):
    """The archive in a bucket; its address."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    s3fs = pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            patch.setenv(name, "us-east-1" if "REGION" in name else "testing")
        store = s3fs.S3FileSystem(skip_instance_cache=True)
        store.mkdir("photos")
        for path in archive.iterdir():
            store.pipe(f"photos/may/{path.name}", path.read_bytes())
        yield "s3://photos/may"
    server.stop()


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
def test_rows_of_a_bucket_are_those_of_a_folder(small_engine, tmp_path, archive, s3, names):
    expected, expected_sources = rows_of(small_engine, tmp_path / "here", str(archive), *names)
    rows, sources = rows_of(small_engine, tmp_path / "there", s3, *names)
    assert sources == expected_sources
    assert rows.equals(expected)
    assert len(rows) > 1


def test_what_is_not_in_a_store_is_a_row_that_says_so(small_engine, tmp_path, s3, http):
    names = tmp_path / "list.txt"
    names.write_text(f"{s3}/none.jpg\n{http}/none.jpg\n{s3}/000.jpg\n")
    report = run(small_engine, tmp_path / "out", names)
    assert rows_in(tmp_path / "out")["error"].to_pylist() == ["there is no such file"] * 2 + [None]
    assert (report.frames, report.errors) == (3, 2)


@pytest.mark.parametrize("names", [("list.csv",), ("004.jpg", "more.tar")], ids=["a list", "files"])
def test_rows_of_files_behind_http_are_those_of_a_folder(small_engine, tmp_path, archive, http, names):
    expected, expected_sources = rows_of(small_engine, tmp_path / "here", str(archive), *names)
    rows, sources = rows_of(small_engine, tmp_path / "there", http, *names)
    assert sources == expected_sources
    assert rows.equals(expected)


def test_rows_in_a_bucket_are_those_in_a_folder_and_a_run_goes_on_there(small_engine, tmp_path, s3):
    place = s3.replace("may", "rows")
    job = Job((s3,), place, How(str(small_engine), device="cpu", threads=1), block=4, batch=3, segment_frames=8)
    with pytest.raises(KeyboardInterrupt):
        annotate(job, stopping(4))
    report = annotate(job)
    assert (report.found, report.blocks, report.missing) == (2, 6, 0)
    run(small_engine, tmp_path / "here", s3, segment_frames=8)
    assert rows_in(place).equals(rows_in(tmp_path / "here"))
    names = {name for name, _ in listed(place)}
    assert names >= {"_annotate.json", "_blocks.csv"}
    assert len(names) == 8


def test_a_bucket_keeps_no_block_that_is_no_longer_of_the_archive(small_engine, tmp_path, s3):
    archive, place = write_archive(tmp_path / "archive", 8), s3.replace("may", "less")
    run(small_engine, place, archive)
    before = listed(place)
    (archive / "007.jpg").unlink()
    report = run(small_engine, place, archive)
    assert (report.found, report.blocks, report.frames) == (1, 2, 3)
    assert len(listed(place)) == len(before) == 4
    assert len(rows_in(place)) == 7


def listed(place):
    """Names and sizes of what is in a bucket's folder."""
    import s3fs

    found = s3fs.S3FileSystem(skip_instance_cache=True).ls(place, detail=True)
    return sorted((each["name"].rpartition("/")[2], each["size"]) for each in found)


REFUSED = {
    "what is no output": ("s3://photos/may", UsageError, "'s3://photos/may' holds other files than an annotated arch"),
    "no bucket": ("s3://none/rows", OutputError, "'s3://none/rows/_annotate.json' cannot be written"),
    "an address that takes nothing": ("https://me:pw@host/rows", UsageError, "'https://host/rows' must be a folder"),
}


@pytest.mark.parametrize(("place", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(small_engine, archive, s3, place, error, message):
    with pytest.raises(error, match=message):
        run(small_engine, place, archive)
