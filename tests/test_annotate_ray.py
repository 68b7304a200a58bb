"""`sdk annotate` on a real Ray of two workers, one of which is killed: the rows of one process, and nothing else said.

Much more of it: python -m tests.stress.annotate.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sdk.cli import main
from sdk.errors import ClusterError, EngineError, MissingDependencyError, UsageError
from sdk.scale import careful
from sdk.scale.cluster import Cluster, started, stdout_on_stderr
from sdk.scale.entries import Block, Entry
from sdk.scale.job import Piece
from sdk.scale.on_ray import _begun, _in_words
from sdk.scale.packing import chunk_from_table, piece_from_table, table_from_chunk, table_from_piece
from sdk.scale.pictures import Chunk, Picture, Reading
from tests.support.archives import rows_in, run, write_archive, write_shard
from tests.support.processes import alive, below, kill, wait_until

pa = pytest.importorskip("pyarrow")
ROOT = Path(__file__).resolve().parents[1]
VERB = "import sys; from sdk.cli import main; sys.exit(main())"
needs_ray = pytest.mark.skipif(
    not __import__("importlib").util.find_spec("ray"), reason="ray is not installed (pip install '.[ray]')"
)


def listening(pids):
    """Addresses that the processes listen on, as hexadecimal numbers."""
    inodes = set()
    for pid in pids:
        try:
            inodes |= {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                found.add(words[1].partition(":")[0])
    return found


@needs_ray
@pytest.mark.native
@pytest.mark.timeout(280)
def test_rows_on_ray_are_those_of_one_process_though_a_worker_is_killed(small_engine, tmp_path):
    archive = write_archive(tmp_path / "archive", 48, bad=(3,))
    write_shard(archive / "a.tar", 9)
    words = ["annotate", archive, "--output", tmp_path / "out", "--engine", small_engine, "--device", "cpu", "--json"]
    words += ["--workers", 2, "--readers", 1, "--threads", 1, "--block", 4, "--batch", 3, "--store-mb", 100]
    program = [sys.executable, "-c", VERB, *map(str, words)]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        try:
            wait_until(lambda: list((tmp_path / "out").glob("*.parquet")) or driver.poll() is not None, 200, "a block")
            others = below(driver.pid)
            addresses = listening([driver.pid, *(each.pid for each in others)])
            kill(next((each.pid for each in others if "_Estimating" in each.title), 0) or driver.pid)
            out, err = driver.communicate(timeout=200)
        finally:
            driver.kill()
    assert driver.returncode == 0, err
    told = json.loads(out)
    assert (told["frames"], told["persons"], told["errors"], told["missing"]) == (57, 56, 1, 0)
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    wait_until(lambda: not alive([each.pid for each in others]), 30, "Ray's processes to end")
    run(small_engine, tmp_path / "plain", archive)
    assert rows_in(tmp_path / "out").equals(rows_in(tmp_path / "plain"))


def test_chunks_and_pieces_travel_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    pictures = [Picture("a", pixels=pixels), Picture("b", error="none"), Picture("c", 3, pixels=pixels[:2, :3])]
    chunk, again = chunk_from_table(table_from_chunk(Chunk("block", 2, True, pictures), again=True))
    assert again
    assert (chunk.block, chunk.number, chunk.last) == ("block", 2, True)
    assert [(each.source, each.frame, each.error) for each in chunk.pictures] == [
        ("a", 0, None), ("b", 0, "none"), ("c", 3, None)
    ]  # fmt: skip
    assert np.array_equal(chunk.pictures[0].pixels, pixels)
    assert chunk.pictures[1].pixels is None
    assert np.array_equal(chunk.pictures[2].pixels, pixels[:2, :3])
    piece = Piece("block", 1, False, pa.table({"a": [1, None]}), again=True)
    back = piece_from_table(table_from_piece(piece))
    assert (back.block, back.number, back.last, back.again) == ("block", 1, False, True)
    assert back.rows.equals(piece.rows)


class Dying:
    """Ray as far as work shows that dies over every picture named 'bad', with the error that is given."""

    def __init__(self, error):
        import ray.exceptions

        self.exceptions, self._error = ray.exceptions, error
        self.rows = self  # of an actor

    def remote(self, *given, **_):
        return (lambda work: self) if not given else given[0]

    def get(self, given):
        pictures = given.pictures if isinstance(given, Chunk) else [Picture(each.place) for each in given.entries]
        if any(each.source == "bad" and each.error is None for each in pictures):
            raise self._error
        return pictures


@needs_ray
@pytest.mark.parametrize("name", ["WorkerCrashedError", "ActorDiedError", "OutOfMemoryError"])
def test_a_picture_that_kills_who_works_on_it_is_its_own_error(name):
    import ray.exceptions

    kind = getattr(ray.exceptions, name)
    ray = Dying(kind("no memory") if name == "OutOfMemoryError" else kind())
    block = Block(0, 4, (Entry("picture", "a"), Entry("picture", "bad"), Entry("tar", "bad", count=0)))
    read = list(careful._pictures(ray, block, Reading()))
    assert [(each.source, each.error, each.image_id) for each in read] == [
        ("a", None, None), ("bad", careful.KILLED, 6), ("bad", careful.KILLED, None)
    ]  # fmt: skip
    pixels = np.zeros((2, 2, 3), np.uint8)
    chunk = Chunk("block", 0, True, [Picture("a", pixels=pixels), Picture("bad", pixels=pixels)])
    piece = careful._estimated(ray, ray, chunk)
    assert [each.error for each in piece.rows] == [None, careful.REFUSED]


@needs_ray
def test_a_chunk_over_which_someone_died_is_told(tmp_path, monkeypatch):
    import ray

    session = SimpleNamespace(get_session_dir_path=lambda: str(tmp_path))
    monkeypatch.setattr(ray._private.worker, "_global_node", session)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "01000000"))

    def dies(chunk):
        with _begun(chunk):
            return os._exit(0)

    def before(chunk):
        with _begun(chunk) as told:
            return told

    chunk, other = (Chunk("block", number, True, []) for number in range(2))
    assert not before(chunk)
    child = multiprocessing.get_context("fork").Process(target=dies, args=(chunk,))
    child.start()
    child.join()
    assert [before(other), before(chunk), before(chunk)] == [False, True, False]


REFUSED = {
    "no worker": (Cluster(workers=0), "--workers must be at least 1"),
    "more than a GPU and a half": (Cluster(gpus=1.5), "a share of one GPU, or whole ones"),
    "no retries but fewer": (Cluster(retries=-1), "--retries must be from 0 to 100"),
    "a store too small": (Cluster(store_mb=10), "--store-mb must be at least 80"),
}


@pytest.mark.parametrize(("cluster", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(cluster, message):
    with pytest.raises(UsageError, match=message):
        cluster.check()


def test_a_gpu_that_is_not_there_is_told_and_not_waited_for(monkeypatch):
    monkeypatch.setattr("sdk.scale.cluster.cuda_devices", lambda: ())
    with pytest.raises(UsageError, match="this machine has none"), started(Cluster(gpus=0.5)):
        pass


class Elsewhere:
    """Ray as far as a cluster of one processor shows."""

    def cluster_resources(self):
        return {"CPU": 1.0}


@pytest.mark.parametrize("gpus", [None, 1], ids=["a processor", "a GPU"])
def test_what_a_cluster_lacks_is_told(gpus):
    from sdk.scale.cluster import _check_resources

    with pytest.raises(UsageError, match="Ray would wait for them without an end"):
        _check_resources(Elsewhere(), Cluster(gpus=gpus, cpus=1.0))


def test_options_of_ray_need_workers(tmp_path, capsys):
    assert main(["annotate", str(tmp_path), "--output", str(tmp_path / "o"), "--address", "auto"]) == 2
    assert "--address is of Ray's workers" in capsys.readouterr().err


def test_the_sdks_own_error_is_found_below_rays():
    error = RuntimeError("ray says much\nand more")
    assert isinstance(_in_words(error), ClusterError)
    error.__cause__ = ValueError()
    error.__cause__.__cause__ = EngineError("altered")
    assert _in_words(error).args == ("altered",)


def test_without_ray_the_mend_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"simcc-edge-sdk\[ray\]"), started(Cluster()):
        pass


def test_what_ray_prints_goes_to_standard_error(capfd):
    with stdout_on_stderr():
        os.write(1, b"crash report")
    print("result")
    told = capfd.readouterr()
    assert (told.out, told.err) == ("result\n", "crash report")
