"""What `tests/triton.sh` asks of a repository and of a server; runs in an environment with tritonclient alone.

python triton_client.py rules REPOSITORY
python triton_client.py load EXPECTED.npz SECONDS PID_OF_SERVER
"""

import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from processes import below, kill  # beside this file
from tritonclient import grpc
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

URL, CLIENTS, TYPES = "127.0.0.1:18001", 8, {"uint8": "UINT8", "float32": "FP32"}


def rules(repository):
    """Every configuration by Triton's own protobuf, held to what its models.py and its engine need."""
    configs = {}
    for path in sorted(Path(repository).glob("*/config.pbtxt")):
        config = configs[path.parent.name] = text_format.Parse(path.read_text(), ModelConfig())
        assert config.name == path.parent.name, "a model is called as its folder"
        assert (path.parent / "1").is_dir(), "version 1"
        assert config.backend in ("python", "onnxruntime") or config.platform in ("ensemble", "tensorrt_plan")
        assert all(list(tensor.dims) and tensor.data_type for tensor in (*config.input, *config.output))
        for group in config.instance_group:
            assert group.count == 1 and group.kind == group.KIND_CPU
    whole, network, decode, crops = (configs[f"pose{end}"] for end in ("", "_network", "_decode", "_crops"))
    assert whole.HasField("dynamic_batching") and all(tensor.allow_ragged_batch for tensor in whole.input)
    assert [tensor.optional for tensor in whole.input] == [False, True]
    assert network.HasField("dynamic_batching") and {each.batch_size for each in network.model_warmup} == {1, 4, 16}
    assert network.max_batch_size == crops.max_batch_size == decode.max_batch_size == 16
    told = [(t.name, list(t.dims), t.data_type) for t in network.output]
    assert told == [(t.name, list(t.dims), t.data_type) for t in decode.input[:-1]], "what the network gives is decoded"
    for step in crops.ensemble_scheduling.step:
        model = configs[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in model.input}
        assert set(step.output_map) <= {tensor.name for tensor in model.output}
    print(f"{len(configs)} configurations read by tritonclient's protobuf")


def tensor(name, array):
    value = grpc.InferInput(name, array.shape, TYPES[str(array.dtype)])
    value.set_data_from_numpy(array)
    return value


def asked(client, frame, boxes=None, model="pose"):
    inputs = [tensor("FRAME", frame[None])] + ([] if boxes is None else [tensor("BOXES", boxes[None])])
    result = client.infer(model, inputs, client_timeout=30)
    return result.as_numpy("KEYPOINTS")[0], result.as_numpy("SCORES")[0]


def check_equal(client, want):
    """Bit for bit what `PoseEstimator` and `sdk.ops.decode` give."""
    for index in range(4):
        frame, boxes = want[f"frame{index}"], want[f"boxes{index}"]
        for name, given in (("", boxes), ("whole_", None)):
            keypoints, scores = asked(client, frame, given)
            assert (keypoints == want[f"{name}keypoints{index}"]).all(), f"{name or 'boxes'} of frame {index}"
            assert (scores == want[f"{name}scores{index}"]).all()
    empty = asked(client, want["frame0"], np.zeros((0, 4), np.float32))
    assert [part.shape for part in empty] == [(0, 14, 2), (0, 14)]
    inputs = [tensor(name, want[key]) for name, key in (("simcc_x",) * 2, ("simcc_y",) * 2, ("AFFINES", "affines"))]
    assert (client.infer("pose_decode", inputs).as_numpy("JOINTS") == want["joints"]).all()
    pair = np.stack([want["frame0"], want["frame3"]])
    boxes = np.stack([want["boxes0"], want["boxes3"]])
    result = client.infer("pose", [tensor("FRAME", pair), tensor("BOXES", boxes)])
    assert (result.as_numpy("KEYPOINTS") == np.stack([want["keypoints0"], want["keypoints3"]])).all()
    print("equal to PoseEstimator and ops.decode bit for bit: 8 calls, no person, two frames in one request, decode")


WRONG = {
    "four channels": (np.zeros((20, 20, 4), np.uint8), None, "Expected [-1,-1,-1,3], got [1,20,20,4]"),
    "floats": (np.zeros((20, 20, 3), np.float32), None, "data-type"),
    "boxes of five": (np.zeros((20, 20, 3), np.uint8), np.zeros((1, 5), np.float32), "Expected [-1,-1,4], got [1,1,5]"),
    "NaN": (np.zeros((20, 20, 3), np.uint8), np.full((1, 4), np.nan, np.float32), "must be finite"),
    "a vast frame": (np.zeros((2, 20000, 3), np.uint8), None, "16384"),
}


def check_words(client):
    for name, (frame, boxes, words) in WRONG.items():
        try:
            asked(client, frame, boxes)
        except InferenceServerException as error:
            print(f"{name}: {error.message()}")
            assert words in error.message(), f"{name}: '{words}' is not in it"
        else:
            raise AssertionError(f"{name} was taken")


def check_load(want, seconds):
    """`CLIENTS` callers at once, each waiting for its answer before the next call; one in thirty asks for nonsense."""
    times_ms, faults, refused, until = [], [], [0], time.monotonic() + seconds

    def call(number):
        with grpc.InferenceServerClient(URL) as client:
            rng = np.random.default_rng(number)
            while time.monotonic() < until:
                index, start = int(rng.integers(4)), time.perf_counter()
                if rng.integers(30) == 0:
                    try:
                        asked(client, want["frame0"], np.full((1, 4), np.nan, np.float32))
                    except InferenceServerException:
                        refused[0] += 1
                    continue
                try:
                    keypoints, _ = asked(client, want[f"frame{index}"], want[f"boxes{index}"])
                    times_ms.append(1e3 * (time.perf_counter() - start))
                    if not (keypoints == want[f"keypoints{index}"]).all():
                        faults.append("other keypoints")
                except InferenceServerException as error:
                    faults.append(error.message())

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = statistics.median(times_ms), sorted(times_ms)[int(0.99 * len(times_ms))]
    told = f"{len(times_ms)} calls, {refused[0]} refused, {len(faults)} faults {faults[:2]}"
    print(f"{CLIENTS} clients, {seconds:g} s: {told}")
    print(f"{len(times_ms) / seconds:.0f} calls a second, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    assert not faults
    with grpc.InferenceServerClient(URL) as client:
        stats = client.get_inference_statistics("pose").model_stats[0]
        print(f"requests a batch: {stats.inference_count / stats.execution_count:.2f}")
        assert stats.execution_count < stats.inference_count, "requests never shared a batch"


def check_index(client):
    """The repository's index names the served models, each with its version, and nothing else."""
    models = client.get_model_repository_index().models
    found = sorted((each.name, each.version, each.state) for each in models)
    assert found == [("pose", "1", "READY"), ("pose_decode", "1", "READY")], found


def check_probe(client, want, server):
    """A killed stub: the server still calls itself ready, and only a request tells."""
    stubs = [each.pid for each in below(server) if "triton_python_backend_stub" in each.title]
    assert stubs, "no stub runs"
    for pid in stubs:
        kill(pid)
    try:
        asked(client, want["frame0"])
        raise AssertionError("a killed stub answered")
    except InferenceServerException as error:
        print(f"after kill -9 of the stubs: ready says {client.is_model_ready('pose')}, a request: {error.message()}")


def main(what, path, seconds="60", server="0"):
    if what == "rules":
        return rules(path)
    want = dict(np.load(path))
    with grpc.InferenceServerClient(URL) as client:
        for _ in range(240):
            try:
                if client.is_model_ready("pose"):
                    break
            except InferenceServerException:
                pass
            time.sleep(0.5)
        check_index(client)
        check_equal(client, want)
        check_words(client)
        check_load(want, float(seconds))
        check_probe(client, want, int(server))
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
