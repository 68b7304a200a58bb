"""A verification that was stopped goes on where it was, and only as the same run."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sdk.errors import DatasetError, OutputError
from sdk.evaluate.predictions.journal import Journal
from sdk.evaluate.predictions.predict import BatchRunner
from sdk.evaluate.verify import verify
from sdk.locks import held_folder
from tests.support.engines import SMALL, wrapped_engine
from tests.support.verify import PERSONS_IN, options, write_annotated

pytestmark = pytest.mark.native
pytest.importorskip("cv2")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_annotated(tmp_path_factory.mktemp("pictures"))


class StoppedError(Exception):
    """The user's Ctrl-C, as a test can catch it."""


class StoppingRunner(BatchRunner):
    left = 0

    def infer(self, prepared, affines, timing):
        StoppingRunner.left -= 1
        if StoppingRunner.left < 0:
            raise StoppedError
        return super().infer(prepared, affines, timing)


def test_a_stopped_run_goes_on_where_it_was(small_engine, photographs, tmp_path, monkeypatch):
    whole = verify(options(small_engine, photographs)).persons
    monkeypatch.setattr("sdk.evaluate.predictions.predict.BatchRunner", StoppingRunner)
    StoppingRunner.left = 2
    chosen = options(small_engine, photographs, output=tmp_path / "out")
    with pytest.raises(StoppedError):
        verify(chosen)
    journal = tmp_path / "out" / "predictions.journal"
    journal.write_bytes(journal.read_bytes() + b"\0" * 77)  # a record cut off by a kill
    StoppingRunner.left = 1000
    found = verify(chosen)
    assert 0 < found.resumed < sum(PERSONS_IN) and found.timing.persons == sum(PERSONS_IN) - found.resumed
    np.testing.assert_array_equal(found.persons[: found.resumed], whole[: found.resumed])
    np.testing.assert_allclose(found.persons, whole, atol=1e-3)
    again = verify(chosen)
    assert again.resumed == sum(PERSONS_IN) and again.timing.persons == 0
    np.testing.assert_array_equal(again.persons, found.persons)


def test_a_journal_of_another_run_is_refused_and_restart_starts_over(small_engine, photographs, tmp_path):
    verify(options(small_engine, photographs, output=tmp_path))
    with pytest.raises(DatasetError, match=r"journal of another run \(it differs in flip_test\)"):
        verify(options(small_engine, photographs, output=tmp_path, flip_test=True))
    assert verify(options(small_engine, photographs, output=tmp_path, flip_test=True, restart=True)).resumed == 0
    (tmp_path / "predictions.journal").write_bytes(b"rubbish\nmore")
    with pytest.raises(DatasetError, match="first line cannot be read"):
        verify(options(small_engine, photographs, output=tmp_path))


def test_a_record_that_was_cut_off_is_dropped_from_the_file(tmp_path):
    path, key = tmp_path / "journal", {"run": 1}
    first, second = np.ones((1, 2, 3), np.float32), np.full((1, 2, 3), 2, np.float32)
    with Journal.open(path, key, (2, 3)) as journal:
        journal.append(first)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 23)
    with Journal.open(path, key, (2, 3)) as journal:
        assert len(journal) == 1 and path.read_bytes() == whole
        journal.append(second)
    with Journal.open(path, key, (2, 3)) as journal:
        np.testing.assert_array_equal(journal.predictions, np.concatenate([first, second]))


def changed_dataset(chosen, **changes):
    return replace(chosen, dataset=replace(chosen.dataset, **changes))


def test_a_run_of_other_pictures_boxes_or_recipe_is_not_resumed(small_engine, photographs, tmp_path):
    (tmp_path / "other").mkdir()
    for path in photographs.glob("*.png"):
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    truth = json.loads((photographs / "annotations.json").read_text())["annotations"]
    (tmp_path / "boxes.json").write_text(json.dumps([{**record, "score": 1.0} for record in truth]))
    padded = replace(SMALL, input=replace(SMALL.input, box_padding=1.0))
    chosen = options(small_engine, photographs, output=tmp_path / "out")
    verify(chosen)
    others = {
        "images": changed_dataset(chosen, images=tmp_path / "other"),
        "detections": changed_dataset(chosen, detections=tmp_path / "boxes.json"),
        "recipes": replace(chosen, engine=wrapped_engine(small_engine / "network.onnx", tmp_path / "padded", padded)),
    }
    for word, other in others.items():
        with pytest.raises(DatasetError, match=rf"journal of another run \(it differs in {word}\)"):
            verify(other)
    assert verify(changed_dataset(chosen, images=photographs / ".." / photographs.name)).resumed == sum(PERSONS_IN)


def test_a_resumed_run_still_says_what_was_left_out(small_engine, photographs, tmp_path):
    for path in photographs.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "4.png").write_bytes(b"no picture")
    chosen = options(small_engine, tmp_path, photographs / "annotations.json", output=tmp_path / "out")
    first, again = verify(chosen), verify(chosen)
    assert again.timing.persons == 0 and dict(again.scores[0].figures) == pytest.approx(
        dict(first.scores[0].figures), nan_ok=True
    )
    [line] = again.dataset.problems.lines()
    assert line == "picture could not be used when the run began, left out of every figure: 1 (4.png)"


def test_a_second_run_in_one_folder_is_refused_while_the_first_one_writes(small_engine, photographs, tmp_path):
    with held_folder(tmp_path), pytest.raises(OutputError, match="is being written by another run"):
        verify(options(small_engine, photographs, output=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_place_that_cannot_be_written_is_said(small_engine, photographs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory"):
        verify(options(small_engine, photographs, output=tmp_path / "file" / "out"))
