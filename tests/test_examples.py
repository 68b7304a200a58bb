"""The programs in examples/, run as a reader would run them."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

FOLDER = Path(__file__).resolve().parents[1] / "examples"


def run(name, *arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(FOLDER / name), run_name="__main__")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


SAYS = {  # program -> what one of its lines begins with, and what it leaves
    "picture.py": ("left_shoulder", ["poses.png"]),
    "video.py": ("0 {1:", ["tracked.mp4"]),
    "camera.py": ("1 persons, ", []),
    "cameras.py": ("camera 3: 1 persons", []),
}


@pytest.mark.parametrize(("name", "says", "leaves"), [(n, *v) for n, v in SAYS.items()], ids=SAYS)
def test_it_runs_on_the_rendered_figure(here, monkeypatch, capsys, name, says, leaves):
    run(name, monkeypatch=monkeypatch)
    assert any(line.startswith(says) for line in capsys.readouterr().out.splitlines())
    assert sorted(path.name for path in here.iterdir()) == leaves


def test_a_picture_and_boxes_of_the_users_own(here, monkeypatch, capsys):
    from tests.support.frames import noise

    cv2.imwrite("street.png", noise(0))
    run("picture.py", "street.png", "1,2,30,40", "5,5,50,60", monkeypatch=monkeypatch)
    assert sum(line.startswith("left_shoulder") for line in capsys.readouterr().out.splitlines()) == 2


def test_frames_of_torch_need_a_gpu_and_say_so(monkeypatch):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU; tests/gpu gives torch's frames to the estimator")
    with pytest.raises(SystemExit, match="no CUDA GPU"):
        run("torch_frames.py", "engine", monkeypatch=monkeypatch)


def test_frames_of_torch_without_an_engine_say_how_it_is_called(monkeypatch):
    pytest.importorskip("torch")
    with pytest.raises(SystemExit, match=r"torch_frames\.py ENGINE"):
        run("torch_frames.py", monkeypatch=monkeypatch)


def test_the_drawn_video_keeps_the_times_of_its_source(here, monkeypatch, capsys):
    from sdk import open_source
    from sdk.media.sinks import VideoFile
    from tests.support.frames import noise

    with VideoFile(here / "slow.mp4", 10.0) as video:
        for seed in range(4):
            video.write(noise(seed))
    run("video.py", "slow.mp4", monkeypatch=monkeypatch)
    with open_source(here / "tracked.mp4") as frames:
        assert [frame.time_ms for frame in frames] == pytest.approx([0.0, 100.0, 200.0, 300.0], abs=0.5)


@pytest.mark.parametrize(("gone", "says"), [("fastapi", "pip install fastapi"), (None, "uvicorn --app-dir")])
def test_the_service_says_what_it_needs(monkeypatch, gone, says):
    if gone is None:
        pytest.importorskip("fastapi")
    else:
        monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(SystemExit, match=says):
        run("service.py", monkeypatch=monkeypatch)


@pytest.fixture
def client():
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed")
    spec = importlib.util.spec_from_file_location("service", FOLDER / "service.py")
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    with testclient.TestClient(service.app) as client:
        yield client


def test_the_service_answers(client):
    from tests.support.frames import noise

    body = cv2.imencode(".png", noise(0))[1].tobytes()
    found = client.post("/poses?box=1,2,30,40&box=5,5,50,60", content=body).json()
    assert len(found["keypoints"]) == 2 and len(found["joints"]) == 17
    assert client.post("/poses", content=b"no picture").status_code == 422
    assert "has no area" in client.post("/poses?box=9,9,9,9", content=body).json()["detail"]


def test_every_example_is_listed_and_tested():
    listed = (FOLDER / "README.md").read_text()
    tested = Path(__file__).read_text()
    for path in FOLDER.glob("*.py"):
        assert f"({path.name})" in listed and path.name in tested
