"""An engine folder of two small files, as tests of writing one take it.

engine = written(place, "k1")
left_beside(place)                      # what writing it left: []
"""

from sdk.manifest import FORMAT, GRAPH_NAME, BatchRange, CompilerNote, Manifest, WeightsNote
from sdk.toolchain.engine import write_engine
from tests.support.engines import SMALL

PLAN = "tensorrt-rtx.plan"
FILES = {GRAPH_NAME: b"graph" * 1000, PLAN: b"plan" * 1000}


def manifest(hashes, key="k1"):
    return Manifest(
        format=FORMAT,
        recipe=SMALL,
        precision="fp16",
        opset=19,
        batch=BatchRange(1, 4, 16),
        weights=WeightsNote("random", "seed 0"),
        files=dict(hashes),
        key=key,
        created_by="tests",
        compiler=CompilerNote("tensorrt-rtx", "1.7.1", "portable", PLAN, {"workspace_mib": 64}),
        notes=("a note",),
    )


def written(folder, key="k1", files=FILES):
    return write_engine(folder, files, lambda hashes: manifest(hashes, key))


def left_beside(folder):
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)
