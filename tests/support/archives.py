"""Small archives, and what a plain loop over them gives: the rows that every way of annotating must give, bit for bit.

rows = rows_in(out)                                  # all rows, in the order of the listing
same_rows(rows, looped(photos, engine))
"""

import io
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np

from sdk import PoseEstimator
from sdk.media.sources import Unreadable, read_image
from sdk.scale.annotating import annotate
from sdk.scale.estimating import How
from sdk.scale.job import Job
from sdk.scale.plain import pieces
from tests.support.predict import noise


def write_archive(folder, count, *, bad=()):
    """`count` pictures of several sizes, 000.jpg ...; those numbered in `bad` are no pictures."""
    import cv2

    folder.mkdir(parents=True)
    for index in range(count):
        picture = noise(index, (90 + 10 * (index % 3), 120))
        content = b"not a picture" if index in bad else cv2.imencode(".jpg", picture)[1].tobytes()
        (folder / f"{index:03d}.jpg").write_bytes(content)
    return folder


def write_shard(path, count, *, cut=0):
    """A tar of pictures with a label beside each, as WebDataset has them; its last `cut` bytes are missing."""
    import cv2

    with tarfile.open(path, "w") as shard:
        for index in range(count):
            for name, data in (
                (f"{index:03d}.png", cv2.imencode(".png", noise(index))[1].tobytes()),
                (f"{index:03d}.cls", b"1"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])
    return path


def write_video(path, count=40, *, gop=8, open_gop=True):
    """H.264 with B frames and a key frame every `gop`; frames before a key frame may need it (open groups)."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.options = {"x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=3:open-gop={int(open_gop)}"}
        for index in range(count):
            picture = np.roll(noise(1, (96, 128)), 2 * index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def run(engine, output, *sources, device="cpu", **options):
    """An archive annotated by this process; the report."""
    how = How(str(engine), device=device, threads=1, **options.pop("how", {}))
    return annotate(Job(tuple(map(str, sources)), output, how, **{"block": 4, "batch": 3, **options}))


def stopping(after):
    """A way that gives `after` pieces and then fails, as if it were killed there."""

    def way(work):
        yield from islice(pieces(work), after)
        raise KeyboardInterrupt

    return way


def rows_in(output):
    """All rows of an output folder, as a table."""
    import pyarrow as pa

    from sdk.scale.output import tables_of

    return pa.concat_tables(table.replace_schema_metadata() for table in tables_of(output))


def looped(paths, engine, boxes=None):
    """(joints N x K x 3, boxes, sources) of a hand-written loop, a picture at a time."""
    joints, found_boxes, sources = [], [], []
    with PoseEstimator(str(engine), device="cpu", threads=1) as estimate:
        for path in paths:
            picture = read_image(Path(path))
            if isinstance(picture, Unreadable):
                continue
            poses = estimate(picture, None if boxes is None else boxes[Path(path).name])
            joints.append(np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2))
            found_boxes.append(poses.boxes)
            sources += [str(path)] * len(poses)
    return np.concatenate(joints), np.concatenate(found_boxes), sources


def check_rows(table, expected):
    """Rows equal what a loop gave, to the bit; those without a person are passed over."""
    from sdk.scale.rows import joints_of

    joints, boxes, sources = expected
    persons = table.filter(table["person"].is_valid())
    assert persons["source"].to_pylist() == sources
    assert joints_of(persons).tobytes() == joints.astype(np.float32).tobytes()
    assert np.array(persons["box"].to_pylist(), np.float32).tobytes() == boxes.tobytes()
