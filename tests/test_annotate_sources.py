"""What an archive may be made of: folders, lists, annotations, shards, videos and stores."""

import itertools
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.scale import sorting, stores
from sdk.scale.entries import Block, Entry, block_from_text, blocks_from
from sdk.scale.listing import Listing
from sdk.scale.pictures import Reading, chunks_of
from sdk.scale.segments import frames_of_segment, segments_of
from sdk.scale.sorting import Seen, sorted_names
from sdk.scale.stores import shown, told
from tests.support.archives import rows_in, run, write_archive, write_shard, write_video
from tests.support.predict import noise

pa = pytest.importorskip("pyarrow")
needs_av = pytest.mark.skipif(not __import__("importlib").util.find_spec("av"), reason="av is not installed")


def places(*sources, **options):
    return [entry.place for entry in Listing(tuple(map(str, sources)), **options).entries()]


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path / "archive", 4)


def written(path, content):
    path.write_text(content)
    return path


def test_a_folder_is_listed_in_order_and_the_rest_of_it_is_counted(archive):
    write_archive(archive / "below", 1)
    (archive / "notes.md").write_text("")
    (archive / ".hidden.jpg").write_text("")
    (archive / "lost.jpg").symlink_to(archive / "nowhere.jpg")
    listing = Listing((str(archive),))
    assert [entry.place for entry in listing.entries()] == [str(archive / f"00{i}.jpg") for i in range(4)]
    assert listing.counts == {"other files": 1, "folders not looked into": 1, "vanished": 1}
    assert len(places(archive, recursive=True)) == 5


def test_each_file_is_named_once_whatever_names_it_again(archive, tmp_path):
    names = written(tmp_path / "list.txt", f"{archive}/001.jpg\narchive/../archive/001.jpg\n{archive}/002.jpg\n")
    listing = Listing((str(archive), f"{archive}/00[12].jpg", str(names)))
    assert len(list(listing.entries())) == 4
    assert listing.counts["duplicates"] == 5


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_lists_with_boxes(tmp_path, suffix):
    import pyarrow.csv
    import pyarrow.parquet

    text = "file,x1,y1,x2,y2,score\na.jpg,1,2,30,40,0.5\na.jpg,5,6,70,80,0.25\nsub/b.jpg,,,,,\n"
    text += "/c.jpg,1,1,2,2,0.0\n/c.jpg,1,1,2,2,\n"
    path = written(tmp_path / "list.csv", text)
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(path), tmp_path / "list.parquet")
        path = tmp_path / "list.parquet"
    found = list(Listing((str(path),)).entries())
    assert [entry.place for entry in found] == [str(tmp_path / "a.jpg"), str(tmp_path / "sub/b.jpg"), "/c.jpg"]
    assert [entry.boxes for entry in found] == [
        ((1.0, 2.0, 30.0, 40.0, 0.5), (5.0, 6.0, 70.0, 80.0, 0.25)),
        (),
        ((1.0, 1.0, 2.0, 2.0, 0.0), (1.0, 1.0, 2.0, 2.0, 1.0)),
    ]


def test_a_text_list_counts_from_its_folder_or_the_root(tmp_path):
    names = written(tmp_path / "list.lst", "# of May\n\na.jpg\nhttps://host/p/2?size=l\n")
    assert places(names) == [str(tmp_path / "a.jpg"), "https://host/p/2?size=l"]
    assert places(names, root="s3://bucket/may/") == ["s3://bucket/may/a.jpg", "https://host/p/2?size=l"]


def test_annotations_give_ids_and_boxes_of_single_persons(tmp_path, caplog):
    images = [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}, {"id": 9, "file_name": "c.jpg"}]
    persons = [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 2, 90, 90], "iscrowd": 1},
        {"id": 3, "image_id": 3, "category_id": 1, "bbox": [5, 5, 30, 40], "iscrowd": 0},
        {"id": 4, "image_id": 3, "category_id": 1, "bbox": [5, 5, -30, 40], "iscrowd": 0},
    ]
    table = {"images": images, "annotations": persons, "categories": [{"id": 1, "name": "person"}]}
    path = written(tmp_path / "instances.json", json.dumps(table))
    found = list(Listing((str(path),), root="val").entries())
    assert [(entry.place, entry.image_id, entry.boxes) for entry in found] == [
        ("val/a.jpg", 3, ((5.0, 5.0, 35.0, 45.0, 1.0),)),
        ("val/b.jpg", 7, ((1.0, 2.0, 31.0, 42.0, 1.0),)),
        ("val/c.jpg", 9, ()),
    ]
    assert f"1 row of '{path}' left out: no box" in caplog.text


def test_braces_stand_for_shards(tmp_path):
    names = ["t-008.tar", "t-009.tar", "t-010.tar", "u-3.tar", "v-3.tar"]
    for name in names:
        write_shard(tmp_path / name, 1)
    found = places(f"{tmp_path}/t-{{008..010}}.tar", f"{tmp_path}/{{u,v}}-{{3,3}}.tar")
    assert found == [str(tmp_path / name) for name in names]


BAD_LISTS = {
    "no column": ("list.csv", "name\na.jpg\n", "must have a column of paths"),
    "some columns": ("list.csv", "path,x1,y1\na.jpg,1,2\n", "all of the columns x1, y1, x2, y2"),
    "no number": ("list.csv", "path,x1,y1,x2,y2\na.jpg,1,2,3,four\n", "row 2: a box is four numbers"),
    "no box": ("list.csv", "path,x1,y1,x2,y2\na.jpg,9,2,3,4\n", "row 2: box 0 has no area"),
    "no path": ("list.csv", "path,x1,y1,x2,y2\n,9,2,13,4\n", "row 2: column 'path' must be a path"),
    "no text": ("list.txt", "a.jpg\nb\udcff.jpg\n", "line 2 is no UTF-8"),
    "no table": ("list.parquet", "text", "no Parquet file"),
    "boxes of a clip": ("list.csv", "path,x1,y1,x2,y2\na.mp4,1,2,3,4\n", "which is no picture"),
    "an empty list": ("list.txt", "\n", "holds no picture"),
    "no annotations": ("a.json", "{}", "must be COCO annotations"),
    "another ending": ("a.doc", "", "unknown ending"),
    "braces that count down": ("t.tar", "", None),
}


@pytest.mark.parametrize(("name", "text", "message"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_refused(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    source = tmp_path / name if message else f"{tmp_path}/t{{9..8}}.tar"
    with pytest.raises(InputError, match=message or "braces must count up"):
        places(source)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("a b.jpg", "a b.jpg"),
        ("https://me:secret@host/a.jpg", "https://host/a.jpg"),
        ("https://host/a.jpg?id=5&X-Amz-Signature=abc&sig=x", "https://host/a.jpg?id=5"),
        ("https://host/a.jpg?id=5&pwd=abc&auth=def&user=me", "https://host/a.jpg?id=5"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("s3://me:secret@bucket/a#b?c@d.jpg", "s3://bucket/a#b?c@d.jpg"),
        ("gs://bucket/a.jpg?token=abc", "gs://bucket/a.jpg?token=***"),
        ("abfs://may@account.dfs.core.windows.net/a.jpg", "abfs://may@account.dfs.core.windows.net/a.jpg"),
    ],
    ids=["a path", "a password", "a signature", "a camera's words", "a key", "a name", "a token", "a container"],
)
def test_no_credential_is_written_down(place, expected):
    assert shown(place) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError("403, message='Forbidden', url='https://me:abc@host/a.jpg?X-Amz-Signature=abc&id=5'"),
            "403, message='Forbidden', url='https://host/a.jpg?X-Amz-Signature=***&id=5'",
        ),
        (OSError("no https://h/a?id=5&client_secret=abc, pwd=abc"), "no https://h/a?id=5&client_secret=*** pwd=***"),
        (OSError(13, "not https://h/a?sig=abc"), "not https://h/a?sig=***"),
        (ValueError(f"https://h/{'a' * 281}?token=abc"), f"https://h/{'a' * 281}?token=**"),
        (RuntimeError("it broke\nabc"), "it broke"),
        (OSError("Forbidden: https://h/o?token=abc\nnot yours"), "not yours"),
    ],
    ids=["a signature", "a secret", "the system's words", "a long one", "many lines", "Google's"],
)
def test_no_credential_is_written_down_with_an_error(error, expected):
    assert told(error) == expected
    assert "abc" not in told(error)


def test_threads_read_the_same_chunks(tmp_path):
    archive = write_archive(tmp_path / "archive", 23, bad=(7,))
    (block,) = blocks_from(Listing((str(archive),)).entries(), 50)
    one, many = (list(chunks_of(block, Reading(4, threads=threads))) for threads in (1, 3))
    assert [chunk.number for chunk in many] == list(range(6))
    pictures = [list(itertools.chain.from_iterable(chunk.pictures for chunk in chunks)) for chunks in (one, many)]
    for here, there in zip(*pictures, strict=True):
        assert (here.source, here.image_id, here.error) == (there.source, there.image_id, there.error)
        assert np.array_equal(here.pixels, there.pixels)


def test_a_block_comes_back_from_its_text_and_is_named_by_all_that_it_says():
    entries = (
        Entry("picture", "a.jpg", boxes=((1.0, 2.0, 3.0, 4.0, 0.5),), image_id=4, stamp="5/6"),
        Entry("video", "b.mp4", count=9, segment=2, first=18, begin=512, end=1024),
        Entry("tar", "c.tar", count=0),
        Entry("picture", "d.jpg", boxes=()),
    )
    blocks = list(blocks_from(entries, 2))
    assert [block_from_text(block.to_text()) for block in blocks] == blocks
    assert [(block.number, block.first, block.frames) for block in blocks] == [
        (0, 0, 1),
        (1, 1, 9),
        (2, 10, 0),
        (3, 10, 1),
    ]
    others = [Block(0, 0, entries[:1]), Block(1, 0, entries[:1]), Block(0, 1, entries[:1]), Block(0, 0, entries[3:])]
    assert len({block.name for block in others}) == 4
    assert blocks[0].name == others[0].name == "000000000-91f7a0a84ae304eb"  # names must outlive versions


def test_names_are_sorted_and_told_apart_beyond_what_memory_is_given(monkeypatch):
    monkeypatch.setattr(sorting, "RUN", 7)
    monkeypatch.setattr(sorting, "LINE", 2)
    names = [f"{number * 37 % 101:03d}\n\udcff" for number in range(101)]
    assert list(sorted_names(names)) == sorted(names)
    with Seen() as seen:
        assert [seen.is_new(name) for name in names] == [True] * 101
        assert [seen.is_new(name) for name in names] == [False] * 101


@pytest.mark.native
def test_shards_are_read_to_where_they_break_off(small_engine, tmp_path):
    write_shard(tmp_path / "a.tar", 5)
    write_shard(tmp_path / "b.tar", 5, cut=18000)
    report = run(small_engine, tmp_path / "out", tmp_path / "{a,b}.tar", how={})
    rows = rows_in(tmp_path / "out").to_pylist()
    assert [row["source"] for row in rows[:5]] == [f"{tmp_path}/a.tar::{index:03d}.png" for index in range(5)]
    assert [row["error"] for row in rows[:5]] == [None] * 5
    assert rows[-1]["source"] == f"{tmp_path}/b.tar"
    assert "the shard breaks off" in rows[-1]["error"]
    assert report.blocks == 2
    assert report.errors == 1


@needs_av
@pytest.mark.parametrize("open_gop", [False, True], ids=["closed groups", "open groups"])
def test_segments_hold_what_the_whole_video_holds(tmp_path, open_gop):
    path = str(write_video(tmp_path / "clip.mp4", open_gop=open_gop))
    segments = list(segments_of(path, "", 10, None))
    assert [(each.first, each.count) for each in segments] == [(0, 16), (16, 16), (32, 8)]
    whole = list(frames_of_segment(Entry("video", path, count=40)))
    found = list(itertools.chain.from_iterable(map(frames_of_segment, segments)))
    assert [frame.number for frame in found] == list(range(40))
    assert [frame.time_ms for frame in found] == [40.0 * number for number in range(40)]
    assert all(np.array_equal(one.picture, other.picture) for one, other in zip(found, whole, strict=True))


@needs_av
def test_frames_are_those_that_other_verbs_see_and_segments_are_remembered(tmp_path):
    from sdk.media.sources import frames_of, sources_from

    path = write_video(tmp_path / "clip.mp4")
    (source,) = sources_from([str(path)])
    seen = [item.picture for item in frames_of(source)]
    found = [frame.picture for frame in frames_of_segment(Entry("video", str(path), count=40))]
    assert all(np.array_equal(one, other) for one, other in zip(seen, found, strict=True))
    first = list(segments_of(str(path), "stamp", 10, tmp_path / "memory"))
    path.write_bytes(b"")
    assert list(segments_of(str(path), "stamp", 10, tmp_path / "memory")) == first


@needs_av
def test_a_damaged_frame_is_a_row_with_its_error_and_those_after_keep_their_numbers(tmp_path):
    import av

    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        for index in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(index, (96, 128)), format="bgr24")))
        container.mux(stream.encode())
    segments = list(segments_of(str(path), "", 4, None))
    with av.open(str(path)) as container:
        sixth = [bytes(packet) for packet in container.demux(video=0)][5]
    path.write_bytes(path.read_bytes().replace(sixth, bytes(len(sixth))))
    assert [(each.first, each.count) for each in segments] == [(0, 4), (4, 4), (8, 4)]
    pictures = [
        picture
        for segment in segments
        for chunk in chunks_of(Block(0, 0, (segment,)), Reading())
        for picture in chunk.pictures
    ]
    assert [picture.frame for picture in pictures] == list(range(12))
    assert [picture.error for picture in pictures] == [*[None] * 5, "frame 5 is damaged", *[None] * 6]
    assert [picture.time_ms for picture in pictures][6:8] == [240.0, 280.0]


@needs_av
@pytest.mark.native
def test_ids_hold_within_a_segment_and_are_those_of_a_tracker(small_engine, tmp_path):
    from sdk.people.tracking import Tracker
    from sdk.runtime.confidence import scale_from_recipe
    from sdk.runtime.opening import engine_from
    from sdk.scale.rows import joints_of

    path = write_video(tmp_path / "clip.mp4")
    csv = tmp_path / "boxes.csv"
    lines = [f"clip.mp4,{x},5,{x + 40},90,{frame}" for frame in range(40) for x in (2 + frame, 80 - frame)]
    csv.write_text("\n".join(["file,x1,y1,x2,y2,frame", *lines]))
    run(small_engine, tmp_path / "out", path, segment_frames=10, boxes=csv)
    rows = rows_in(tmp_path / "out")
    recipe = engine_from(small_engine).manifest.recipe
    joints, boxes = joints_of(rows), np.array(rows["box"].to_pylist(), np.float32)
    assert rows["frame"].to_pylist() == [frame for frame in range(40) for _ in range(2)]
    for segment, (first, end) in enumerate([(0, 32), (32, 64), (64, 80)]):
        assert set(rows["segment"].to_pylist()[first:end]) == {segment}
        tracker, fair = Tracker(), scale_from_recipe(recipe).fair
        for row in range(first, end, 2):
            here = slice(row, row + 2)
            expected = tracker.update(
                boxes[here], joints[here, :, :2], joints[here, :, 2], recipe.skeleton.tolerances, fair
            )
            assert rows["id"].to_pylist()[here] == expected.tolist()


@needs_av
def test_a_video_that_breaks_off_and_one_that_is_none_are_rows_with_their_errors(tmp_path):
    path = write_video(tmp_path / "clip.mkv")
    segments = list(segments_of(str(path), "", 10, None))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pictures = [
        picture
        for block in blocks_from(segments, 4)
        for chunk in chunks_of(block, Reading())
        for picture in chunk.pictures
    ]
    errors = [picture.error for picture in pictures if picture.error]
    assert 0 < sum(picture.pixels is not None for picture in pictures) < 40
    assert errors
    assert all("cannot be decoded" in error or "breaks off" in error for error in errors)
    (none,) = segments_of(str(written(tmp_path / "none.mp4", "text")), "", 10, None)
    (chunk,) = chunks_of(Block(0, 0, (none,)), Reading())
    assert "not a video that PyAV reads" in chunk.pictures[0].error


def test_a_store_is_listed_and_read_like_a_folder(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    archive = write_archive(tmp_path / "archive", 3)
    store = fsspec.filesystem("memory")
    for path in sorted(archive.iterdir()):
        store.pipe(f"/bucket/may/{path.name}", path.read_bytes())
    store.pipe("/bucket/may/below/9.jpg", b"no picture")
    folder = "memory://bucket/may"
    names = [f"memory:///bucket/may/00{index}.jpg" for index in range(3)]
    assert [place.replace("memory://bucket", "memory:///bucket") for place in places(folder)] == names
    assert len(places(folder, recursive=True)) == 4
    assert len(places(f"{folder}/00[12].jpg")) == 2
    (chunk,) = chunks_of(next(blocks_from(Listing((folder,), recursive=True).entries(), 9)), Reading())
    assert [picture.error for picture in chunk.pictures] == [None] * 3 + ["not an image that OpenCV reads"]
    store.rm("/bucket/may/001.jpg")
    (chunk,) = chunks_of(Block(0, 0, (Entry("picture", f"{folder}/001.jpg"),)), Reading())
    assert chunk.pictures[0].error == "there is no such file"


@pytest.mark.parametrize(("takes_s", "tries"), [(9, 3), (35, 1)], ids=["soon", "after tries of its library's"])
def test_a_store_that_does_not_answer_is_asked_again_but_not_for_ever(monkeypatch, takes_s, tries):
    clock, asked = itertools.count(0, takes_s), []

    def failing(place):
        asked.append(place)
        raise ConnectionError("no answer")

    monkeypatch.setattr(stores, "monotonic", lambda: next(clock))
    monkeypatch.setattr(stores, "WAIT_S", 0)
    monkeypatch.setattr(stores, "_read", failing)
    with pytest.raises(OSError, match="no answer"):
        stores.read_bytes("s3://bucket/a.jpg")
    assert len(asked) == tries


ANSWERS = {
    "gone": (404, FileNotFoundError, None),
    "not yours": (403, OSError, "403, message='Forbidden'"),
    "broken": (500, OSError, "500, message='Internal Server Error'"),
    "nobody": (None, OSError, "Connect call failed"),
}


@pytest.mark.parametrize(("status", "error", "message"), ANSWERS.values(), ids=ANSWERS)
def test_what_http_answers_is_told_as_it_is(status, error, message):
    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        do_HEAD = do_GET  # noqa: N815 (the server's name for it)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        if status is None:
            server.socket.close()
        with pytest.raises(error, match=message) as caught, stores.opened(f"http://me:pw@{host}/a.jpg?token=abc"):
            pass
        server.shutdown()
    assert type(caught.value) is error
    assert not {"pw@", "abc"} & set(told(caught.value).split())


def test_a_host_that_says_nothing_is_waited_for_no_longer_than_told(monkeypatch):
    monkeypatch.setattr(stores, "SILENT_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(OSError, match="Timeout on reading data"),
        stores.opened(f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg"),
    ):
        pass


STRANGE = {
    "no store": ("foo://bucket/a", "is of no store that fsspec knows"),
    "a live stream": ("rtsp://me:pw@host/1", "'rtsp://host/1' is a live stream"),
    "a pattern of buckets": ("memory://buck*/a.jpg", "must name its bucket"),
    "no folder": ("memory://bucket/none", "cannot be listed .there is no such file."),
}


@pytest.mark.parametrize(("source", "message"), STRANGE.values(), ids=STRANGE)
def test_a_source_that_no_store_holds_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        places(source)
