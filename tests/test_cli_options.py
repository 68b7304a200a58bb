"""What words of the command line become of options: each reaches what does the work."""

import logging
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdk import cli
from sdk.cli import benchmark, build_engine, demo, predict
from sdk.errors import RecipeError, UsageError
from sdk.manifest import BatchRange
from sdk.media.sources import sources_from
from sdk.resources import bundled_engines

NAME = "body14-nano-128x128"


def parsed(*words):
    return cli._parser(words).parse_args(words)


@pytest.fixture
def asked(monkeypatch):
    """What the phases are asked: (positional, named) arguments of each call."""
    calls = []

    def note(*given, **named):
        calls.append((given, named))
        return SimpleNamespace(folder="made")

    for name in (
        "sdk.toolchain.build.build_engine", "sdk.toolchain.build.rebuild_engine", "sdk.PoseEstimator",
        "sdk.people.detector.Detector",
    ):  # fmt: skip
        monkeypatch.setattr(name, note)
    return calls


def test_words_of_build_engine(asked, capsys):
    words = (
        NAME, "--precision", "int8", "--images", "photos", "--calibration", "table.json", "--quantize-all",
        "--max-drop", "0.2", "--keep-float", "/head/", "--compiler", "tensorrt", "--workspace", "64",
        "--optimization-level", "2", "--timing-cache", "timings", "--dla-core", "1", "--max-batch", "32",
        "--weights", "random", "--seed", "7", "--output", "there", "--force",
    )  # fmt: skip
    assert build_engine.run(parsed("build-engine", *words)) == 0 and capsys.readouterr().out == "made\n"
    ((options,), _) = asked[0]
    assert (options.recipe.name, options.precision, options.random_seed) == (NAME, "int8", 7)
    assert (options.images, options.calibration, options.output) == (Path("photos"), Path("table.json"), Path("there"))
    assert (options.quantise_all, options.max_drop, options.keep_float, options.force) == (True, 0.2, ("/head/",), True)
    compiler = options.compile
    assert (compiler.compiler, compiler.workspace_mib, compiler.optimization_level) == ("tensorrt", 64, 2)
    assert (compiler.timing_cache, compiler.dla_core, compiler.batch.max) == (Path("timings"), 1, 32)


@pytest.mark.parametrize(("words", "place"), [((), f"{NAME}.fp32"), (("--output", "there"), "there")])
def test_a_bundled_engine_is_rebuilt_into_a_copy(asked, tmp_path, monkeypatch, words, place):
    monkeypatch.chdir(tmp_path)
    build_engine.run(parsed("build-engine", "--rebuild", f"{NAME}.fp32", "--force", *words))
    ((folder, _, output), named) = asked[0]
    assert (folder, output, named) == (bundled_engines()[f"{NAME}.fp32"], Path(place), {"force": True})


@pytest.mark.parametrize("name", [NAME, f"{NAME}.fp32"])
def test_a_folder_here_comes_before_what_is_installed(asked, tmp_path, monkeypatch, name):
    """A build's own folder is named like the bundled engine."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundled_engines()[f"{NAME}.fp32"], tmp_path / name)
    for words in ((), ("--precision", "int8")):
        build_engine.run(parsed("build-engine", name, "--output", "there", *words))
        ((options,), _) = asked.pop()
        assert options.engine.folder == Path(name)
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(RecipeError, match="recipe '' is not in the catalogue"):
        build_engine.run(parsed("build-engine", ""))


def test_a_drop_of_nothing_is_a_limit_too():
    with pytest.raises(UsageError, match=r"--max-drop is for --precision int8 or auto \(got fp16\)"):
        build_engine.run(parsed("build-engine", NAME, "--max-drop", "0"))


@pytest.mark.parametrize("verb", ["export", "build-engine"])
def test_a_seed_that_draws_nothing_is_told(verb, tmp_path, capsys):
    words = [verb, NAME, "--seed", "7", "--output", str(tmp_path / "there")]
    assert cli.main(words) == 2 and "--seed 7 is of --weights random; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--device", "cuda"), ("--partly",)], ids=lambda option: option[0])
def test_an_option_of_the_spread_is_refused_for_ranges(option, tmp_path, capsys):
    words = ["calibrate", NAME, "--data", str(tmp_path), "--output", str(tmp_path / "t.json"), *option]
    assert cli.main(words) == 2 and f"{option[0]} is for --spread" in capsys.readouterr().err


BATCHES = {  # words -> what becomes of 2 to 8, best at 4
    "none": ((), (2, 4, 8)),
    "all": (("--min-batch", "1", "--opt-batch", "3", "--max-batch", "5"), (1, 3, 5)),
    "a smallest above the best": (("--min-batch", "6"), (6, 6, 8)),
    "a smallest above the largest": (("--min-batch", "16"), (16, 16, 16)),
    "a largest below the best": (("--max-batch", "3"), (2, 3, 3)),
}


@pytest.mark.parametrize("case", BATCHES, ids=str)
def test_a_range_of_batches_holds_together(case):
    words, expected = BATCHES[case]
    assert build_engine._batch(parsed("build-engine", NAME, *words), BatchRange(2, 4, 8)) == BatchRange(*expected)


def test_words_of_predict(asked):
    words = (
        "--detector", "person.onnx", "--box-threshold", "0.4", "--threads", "2", "--refine", "dark", "--flip-test",
        "--device", "cpu", "--detect-every", "auto", "--smooth", "--spread",
    )  # fmt: skip
    predict._estimator(parsed("predict", "engine", "clip.mp4", *words), tracked=True)
    detector, ((engine,), options) = asked
    assert detector == ((Path("person.onnx"),), {"score_threshold": 0.4, "threads": 2})
    assert options.pop("detector").folder == "made" and engine == "engine"
    assert options == {
        "device": "cpu", "tracker": True, "detect_every": "auto", "smooth": True, "refine": "dark",
        "flip_test": True, "threads": 2, "spread": True,
    }  # fmt: skip


def test_words_of_benchmark():
    words = (
        "--batch", "1,4", "--persons", "2", "--frame", "640x480", "--seconds", "1", "--threads", "2", "--device", "cpu",
        "--flip-test", "--peer", "rtmlib",
    )  # fmt: skip
    options = benchmark._options(parsed("benchmark", "engine", *words))
    assert (options.engine, options.device, options.batches, options.persons) == ("engine", "cpu", (1, 4), (2,))
    assert (options.frame_wh, options.seconds, options.threads) == ((640, 480), 1.0, 2)
    assert (options.flip_test, options.peer) == (True, "rtmlib")


@pytest.mark.parametrize("word", ["1,4x", "1,", "-1"])
def test_numbers_have_commas_between(word, capsys):
    with pytest.raises(SystemExit):
        parsed("benchmark", "engine", f"--batch={word}")
    assert f"must be whole numbers with commas between, as in 1,4,16 (got '{word}')" in capsys.readouterr().err


def test_the_demo_takes_no_more_frames_than_it_is_told(monkeypatch):
    given = iter(range(100))
    opened = nullcontext(SimpleNamespace(picture=number) for number in given)
    monkeypatch.setattr("sdk.media.opening.open_source", lambda name, **how: opened)
    taken = demo._frames(parsed("demo", "--source", "0", "--frames", "3"), sources_from(["0"]))
    assert [frame for frame, _ in taken] == [0, 1, 2] and next(given) == 3


@pytest.mark.parametrize(("word", "level"), [("-v", logging.DEBUG), ("-q", logging.WARNING), ("--json", logging.INFO)])
def test_the_log_is_as_loud_as_asked(monkeypatch, word, level):
    logger = logging.getLogger("sdk")
    monkeypatch.setattr(logger, "level", logger.level)
    cli._log_to_stderr(parsed("models", word))
    assert logger.level == level
