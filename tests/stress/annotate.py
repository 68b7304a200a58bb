"""`sdk annotate` on a real Ray under attack: every run's rows are those of a plain loop, bit for bit.

    python -m tests.stress.annotate                      # all of it, about a quarter of an hour on two cores
    python -m tests.stress.annotate workers driver       # kill -9 of a worker, of the driver: ten moments each
    python -m tests.stress.annotate driver --moments 3 4  # of these ten
    python -m tests.stress.annotate disk vanishing twice poison joined machines shared

Exit status 1 and a line for each finding where something is amiss. Needs Ray; `disk` needs to mount a tmpfs.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdk.resources import bundled_engines
from sdk.scale.annotating import annotate
from sdk.scale.cluster import Cluster
from sdk.scale.estimating import How
from sdk.scale.job import Job
from sdk.scale.on_ray import OnRay
from sdk.scale.pictures import Reading
from tests.support.archives import looped, rows_in
from tests.support.processes import alive, below, kill, wait_until

ROOT = Path(__file__).resolve().parents[2]
PICTURES, BLOCK, MOMENTS = 240, 20, range(10)
WAIT_S = 240
VERB = "import sys; from sdk.cli import main; sys.exit(main())"
ENGINE = next(iter(bundled_engines()))
HOW = ["--engine", ENGINE, "--device", "cpu", "--threads", "1", "--block", str(BLOCK), "--batch", "4", "--json"]
RAY = ["--workers", "2", "--readers", "1", "--store-mb", "200"]


class Attacked:
    """A run of the verb in a process of its own."""

    def __init__(self, output, *sources, ray=RAY, env=None):
        self.output = output
        words = [sys.executable, "-c", VERB, "annotate", *map(str, sources), "--output", str(output), *HOW, *ray]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)

    def when(self, blocks, title):
        """The processes of that title once so many blocks are written; none where the run is over before."""

        def met():
            if self.process.poll() is not None:
                return "over"
            written = len(list(self.output.glob("*.parquet"))) if self.output.exists() else 0
            return [each for each in below(self.process.pid) if title in each.title] if written >= blocks else None

        found = wait_until(met, WAIT_S, f"{title} after {blocks} blocks")
        return [] if found == "over" else found

    def end(self):
        """(exit status, report, log); standard output must hold the report and nothing else."""
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, json.loads(out) if out else None, err


def write_pictures(folder, count=PICTURES):
    import cv2

    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:04d}.jpg"), rng.integers(0, 256, (360, 480, 3), np.uint8))
    (folder / "0007.jpg").write_bytes(b"not a picture")
    return folder


def differences(output, expected):
    """What is not as a plain loop has it."""
    from sdk.scale.rows import joints_of

    if not list(Path(output).glob("*.parquet")):
        return ["no rows"]
    rows = rows_in(output)
    persons = rows.filter(rows["person"].is_valid())
    joints, boxes, sources = expected
    if persons["source"].to_pylist() != sources:
        return [f"{len(persons)} rows of {len(set(persons['source'].to_pylist()))} pictures, not {len(sources)}"]
    told = [] if joints_of(persons).tobytes() == joints.astype(np.float32).tobytes() else ["other joints"]
    same = np.array(persons["box"].to_pylist(), np.float32).tobytes() == boxes.tobytes()
    return told if same else [*told, "other boxes"]


def workers(folder, pictures, expected, moments):
    """A worker or a reader dies at ten moments: the run goes on by itself, and says so."""
    again = {"_Estimating)).submit": [], "MapBatches(read)": []}  # a call under way, a task
    for moment in moments:
        title = list(again)[(moment + 1) % 2]
        run = Attacked(folder / f"workers-{moment}", pictures)
        victims = run.when(moment + 1, title) or run.when(moment + 1, "ray::")
        for victim in victims[:1]:
            kill(victim.pid)
        status, report, log = run.end()
        killed = victims[0].title[:60] if victims else "nobody: it was over"
        print(f"  {moment}: killed {killed}; exit {status}, {report and report['again']} blocks again")
        if status or report["blocks"] != PICTURES // BLOCK:
            yield f"moment {moment}: exit {status}: {log[-800:]}"
        else:
            again[title].append(report["again"])
        yield from differences(run.output, expected)
    yield from (
        f"no block was told to be done again: {title}" for title, told in again.items() if told and not any(told)
    )


def driver(folder, pictures, expected, moments):
    """The driver dies at ten moments: its processes go, and a second run ends what the first began."""
    for moment in moments:
        run = Attacked(folder / f"driver-{moment}", pictures)
        run.when(moment, "ray::")
        others = [each.pid for each in below(run.process.pid)]
        kill(run.process.pid)
        run.process.communicate()
        began = time.monotonic()
        wait_until(lambda pids=others: not alive(pids), WAIT_S, "Ray's processes to end")
        ended_s = time.monotonic() - began
        found = len(list(run.output.glob("*.parquet")))
        second = Attacked(run.output, pictures)
        status, report, log = second.end()
        print(f"  {moment}: {found} blocks kept, {len(others)} processes gone in {ended_s:.1f} s")
        if status or report["found"] != found:
            yield f"moment {moment}: exit {status}, {report}: {log[-800:]}"
        yield from differences(run.output, expected)


def disk(folder, pictures, expected, _):
    """The output's disk is full: the run ends in words, what is done stays, and with room it is ended."""
    place = folder / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(place)], check=True)
    try:
        for ray in ([], RAY):
            run = Attacked(place / "out", pictures, ray=ray)
            status, _, log = run.end()
            kept = len(list(run.output.glob("*.parquet")))
            print(f"  {kept} blocks fit; exit {status}: {log.strip().splitlines()[-1]}")
            if status != 1 or "cannot be written" not in log or not kept:
                yield f"a full disk: exit {status}: {log[-800:]}"
        subprocess.run(["mount", "-o", "remount,size=10m", str(place)], check=True)
        status, report, log = Attacked(place / "out", pictures).end()
        if status or report["found"] != kept:
            yield f"with room: exit {status}, {report}: {log[-800:]}"
        yield from differences(place / "out", expected)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def vanishing(folder, pictures, *_):
    """The pictures go while the run works: each that is gone is a row that says so, and none is missing."""
    source = shutil.copytree(pictures, folder / "vanishing")
    run = Attacked(folder / "vanishing-out", source)
    run.when(3, "ray::")
    shutil.rmtree(source)
    status, report, log = run.end()
    rows = rows_in(run.output)
    gone = sum(error == "there is no such file" for error in rows["error"].to_pylist())
    print(f"  {gone} of {PICTURES} pictures were gone; exit {status}")
    if status or len(rows) != PICTURES or report["errors"] != gone + 1 or not gone:
        yield f"a source that vanished: exit {status}, {len(rows)} rows, {report}: {log[-800:]}"


def twice(folder, pictures, expected, _):
    """Pictures that are named twice, by sources and in a list: each has its rows once."""
    names = folder / "twice.txt"
    names.write_text("".join(f"{path}\n" for path in sorted(pictures.iterdir())[::3]) * 2)
    status, report, log = Attacked(folder / "twice-out", pictures, f"{pictures}/00*.jpg", names).end()
    print(f"  passed over {report and report['passed_over']}; exit {status}")
    if status or report["passed_over"] != {"duplicates": 100 + 2 * PICTURES // 3}:
        yield f"duplicates: exit {status}, {report}: {log[-800:]}"
    yield from differences(folder / "twice-out", expected)


def joined(folder, pictures, expected, _):
    """A cluster that runs already is joined, and left as it was."""
    words = ["--head", "--block", "--node-ip-address", "127.0.0.1", "--port", "6399", "--num-cpus", "4"]
    words += ["--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", folder / "ray"]
    settings = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    program = [sys.executable, "-m", "ray.scripts.scripts", "start", *map(str, words)]
    with subprocess.Popen(program, env=settings, stdout=subprocess.DEVNULL) as cluster:
        try:
            wait_until(lambda: [each for each in below(cluster.pid) if "raylet" in each.title], WAIT_S, "a raylet")
            there = ["--workers", "2", "--address", "127.0.0.1:6399"]
            run = Attacked(folder / "joined-out", pictures, ray=there, env=settings)
            status, report, log = run.end()
            left = cluster.poll() is None
            print(
                f"  exit {status}, {report and report['blocks']} blocks; the cluster is {'there' if left else 'gone'}"
            )
            if status or not left:
                yield f"a cluster joined: exit {status}, {report}: {log[-800:]}"
            yield from differences(run.output, expected)
        finally:
            others = [each.pid for each in below(cluster.pid)]
            cluster.terminate()
            wait_until(lambda: not alive(others), WAIT_S, "the cluster to end")


def machines(folder, pictures, expected, _):
    """A cluster of two machines, as two nodes of this one play them: both work, and one is lost half way."""

    def lost(nodes, run):
        blocks = len(list(run.output.glob("*.parquet")))
        nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
        return f"one lost after {blocks} blocks"

    yield from _on_nodes(folder / "machines", pictures, expected, [{}, {}], ["--retries", "10"], (2, lost))


def shared(folder, pictures, expected, _):
    """Two workers share a GPU, which Ray only believes to be there: it is asked for half of one by each."""
    one = ["--gpus-per-worker", "0.5"]
    yield from _on_nodes(folder / "shared", pictures, expected, [{"num_gpus": 1}], one, (1, _gpus_left))


def _gpus_left(*_):
    import ray

    left = ray.available_resources().get("GPU", 0)
    assert left == 0, f"two workers left {left:g} of 1 GPU"
    return "no GPU left"


def _on_nodes(folder, pictures, expected, nodes, words, then):
    """A run on a cluster of these nodes; what is done half way, once actors work on so many of them."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    many, half_way = then
    cluster = Nodes()
    try:
        for node in nodes:
            cluster.add_node(num_cpus=4 // len(nodes), object_store_memory=200 << 20, **node)
        words = ["--workers", "2", "--readers", "1", "--address", cluster.address, *words]
        run = Attacked(folder, pictures, ray=words)
        ray.init(address=cluster.address, log_to_driver=False)

        def at_work():
            actors = ray._private.state.actors().values()
            places = [each["Address"]["NodeID"] for each in actors if each["State"] == "ALIVE" and _estimates(each)]
            blocks = len(list(folder.glob("*.parquet"))) if folder.exists() else 0
            return run.process.poll() is not None or (blocks and len(places) == 2 and len(set(places)) == many)

        wait_until(at_work, WAIT_S, f"two actors on {many} nodes")
        told = half_way(cluster, run) if run.process.poll() is None else "over before"
        ray.shutdown()
        status, report, log = run.end()
        print(f"  two actors on {many} nodes; {told}; exit {status}, {report and report['again']} blocks again")
        if status or told == "over before":
            yield f"{told}, exit {status}: {log[-800:]}"
        yield from differences(run.output, expected)
    finally:
        ray.shutdown()
        cluster.shutdown()


def _estimates(actor):
    return "_Estimating" in actor["ActorClassName"]


@dataclass(frozen=True)
class Killer:
    """Boxes of a file, which whoever asks for those of one picture does not survive."""

    name: str

    def of(self, image, frame=0):
        if image.name == self.name:
            kill(os.getpid())
        return np.array([[0, 0, 480, 360]], np.float32), np.ones(1, np.float32)

    def image_id(self, image):
        return None


@dataclass(frozen=True)
class Poisoned(Job):
    def reading(self):
        return Reading(self.batch, Killer("0031.jpg"))


def poison(folder, pictures, *_):
    """A picture that kills whoever reads it, each time: it is a row with its error, and nothing else is lost."""
    how = How(ENGINE, device="cpu", threads=1)
    job = Poisoned((str(pictures),), folder / "poison-out", how, block=BLOCK, batch=4)
    report = annotate(job, OnRay(Cluster(workers=2, readers=1, retries=1, store_mb=200)))
    rows = rows_in(job.output)
    errors = {Path(row["source"]).name: row["error"] for row in rows.to_pylist() if row["error"]}
    print(f"  {report.again} blocks again, errors: {errors}")
    if set(errors) != {"0007.jpg", "0031.jpg"} or "killed" not in errors["0031.jpg"] or len(rows) != PICTURES:
        yield f"a picture that kills: {report}, {errors}"


ATTACKS = {each.__name__: each for each in (workers, driver, disk, vanishing, twice, poison, joined, machines, shared)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    parser.add_argument(
        "--moments", type=int, nargs="+", default=MOMENTS, metavar="N", help="when workers and drivers die"
    )
    arguments = parser.parse_args()
    chosen = arguments.attacks or list(ATTACKS)
    findings = []
    with tempfile.TemporaryDirectory(prefix="sdk-annotate-") as place:
        pictures = write_pictures(Path(place) / "pictures")
        expected = looped(sorted(pictures.iterdir()), bundled_engines()[ENGINE])
        for name in chosen:
            print(f"{name}: {ATTACKS[name].__doc__}", flush=True)
            found = list(ATTACKS[name](Path(place), pictures, expected, arguments.moments))
            findings += [f"{name}: {each}" for each in found]
            print(f"  {len(found)} findings", flush=True)
    print("\n".join(findings) or "no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
