"""Ray, started on this machine for one job, or joined where it runs.

    with started(Cluster(workers=2)) as ray: ...

A cluster that is started here listens on the loopback interface alone, asks for a token that only this run's processes
know, and is gone with the block. What Ray writes to standard output, crash reports of its processes too, goes to
standard error. What a job needs and the cluster does not have is told at once: Ray would wait for it without an end.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sdk.cores import allowed_cores
from sdk.cuda_devices import cuda_devices
from sdk.errors import ClusterError, MissingDependencyError, UsageError

__all__ = ["Cluster", "gpus_of_worker", "started", "stdout_on_stderr"]

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
STARTS = 3  # Ray gives its processes 30 s, which a machine at twenty times its load does not keep


@dataclass(frozen=True)
class Cluster:
    """`workers`: actors with an estimator each. `gpus`, `cpus`: of a worker, as Ray counts them; `gpus` None: a whole
    one where there are any. `readers`: tasks that read and decode at a time; None: the cores that are left. `address`
    None: a cluster of this machine's own. `retries`: how often a task is done again whose process died. `store_mb`:
    memory for what travels, of a cluster that is started here."""

    workers: int = 1
    gpus: float | None = None
    cpus: float = 1.0
    readers: int | None = None
    address: str | None = None
    retries: int = 3
    store_mb: int = 256

    def check(self) -> None:
        """UsageError for what no cluster could be."""
        rules = (
            ("--workers", self.workers, self.workers >= 1, "at least 1"),
            ("--gpus-per-worker", self.gpus, self.gpus is None or self.gpus >= 0, "0 or more"),
            ("--cpus-per-worker", self.cpus, self.cpus > 0, "above 0"),
            ("--readers", self.readers, self.readers is None or self.readers >= 1, "at least 1"),
            ("--retries", self.retries, 0 <= self.retries <= 100, "from 0 to 100"),
            ("--store-mb", self.store_mb, self.store_mb >= 80, "at least 80"),
        )
        for option, value, met, rule in rules:
            if not met:
                raise UsageError(f"{option} must be {rule} (got {value})")
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise UsageError(f"--gpus-per-worker must be a share of one GPU, or whole ones (got {self.gpus})")

    @property
    def tasks(self) -> int:
        """How many tasks read at a time, on this machine."""
        return self.readers or max(1, allowed_cores() - self.workers)

    def needs(self) -> dict[str, float]:
        """What a cluster must have for one worker and one reader at a time."""
        return {"CPU": self.cpus + 1, "GPU": self.gpus or 0}


@contextmanager
def started(cluster: Cluster) -> Iterator[Any]:
    """The module `ray`, connected; a cluster of our own ends with the block. One that the program has is used."""
    cluster.check()
    if cluster.address is None and (cluster.gpus or 0) > 0 and not cuda_devices():
        raise UsageError(
            f"--gpus-per-worker {cluster.gpus:g} needs a GPU, and this machine has none; Ray would wait for one "
            "without an end. Leave it out, or join a cluster with --address"
        )
    with stdout_on_stderr():
        ray = _imported(cluster)
        ours = not ray.is_initialized()
        folder = tempfile.mkdtemp(prefix="sdk-ray-") if ours and cluster.address is None else None
        try:
            if ours:
                _connect(ray, cluster, folder)
            _check_resources(ray, cluster)
            yield ray
        finally:
            if ours:
                ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _imported(cluster: Cluster) -> Any:
    """Ray, with its settings made before it reads them, which it does as it is imported."""
    settings = {"RAY_USAGE_STATS_ENABLED": "0"}
    if cluster.address is None:
        # Its name tells of Windows; what it does is keep an address of the loopback interface as it is given.
        settings |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    if "ray" not in sys.modules:
        os.environ.update({name: value for name, value in settings.items() if name not in os.environ})
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            "--workers 1 and more need Ray, which is not installed; run `pip install 'simcc-edge-sdk[ray]'`, or leave "
            "--workers out"
        ) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


def _connect(ray: Any, cluster: Cluster, folder: str | None) -> None:
    where = "could not be started" if cluster.address is None else f"at '{cluster.address}' cannot be joined"
    for number in range(1, STARTS + 1):
        try:
            ray.init(**_how_to_connect(cluster, folder))
            break
        except Exception as error:  # Ray raises that class itself where its processes do not start within 30 s
            ray.shutdown()
            if cluster.address is not None or number == STARTS or isinstance(error, (ValueError, TypeError)):
                raise ClusterError(f"a Ray cluster {where} ({str(error).partition(chr(10))[0]})") from error
            log.warning("Ray did not start (%s); trying again", str(error).partition("\n")[0])
    here = ray.util.get_node_ip_address()
    if cluster.address is None and here != LOOPBACK:
        log.warning("Ray listens on %s and not on %s alone: it was imported before it could be told", here, LOOPBACK)


def _how_to_connect(cluster: Cluster, folder: str | None) -> dict[str, Any]:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is not None:
        return {"address": cluster.address, **quiet}
    return {
        "num_cpus": math.ceil(cluster.workers * cluster.cpus) + cluster.tasks,
        "num_gpus": len(cuda_devices()),
        "include_dashboard": False,
        "object_store_memory": cluster.store_mb << 20,
        "_node_ip_address": LOOPBACK,
        "_temp_dir": folder,
        **quiet,
    }


def _check_resources(ray: Any, cluster: Cluster) -> None:
    """UsageError where not even one worker would ever start."""
    has: Mapping[str, float] = ray.cluster_resources()
    for name, count in cluster.needs().items():
        if has.get(name, 0) < count:
            raise UsageError(
                f"a worker and a reader need {count:g} {name}, and the cluster has {has.get(name, 0):g}; Ray would "
                "wait for them without an end. Ask for less with --gpus-per-worker and --cpus-per-worker, or enlarge it"
            )


def gpus_of_worker(ray: Any, cluster: Cluster, device: str) -> float:
    """How many GPUs a worker gets: what is asked for, else a whole one where there are any and the CPU is not."""
    if cluster.gpus is not None:
        return cluster.gpus
    return 1.0 if device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


@contextmanager
def stdout_on_stderr() -> Iterator[None]:
    """The file of standard output is that of standard error, for this process and those that it starts in the block."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
