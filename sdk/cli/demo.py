"""`sdk demo`: the whole way on this machine, with nothing to download.

The bundled network becomes an engine here (compiled where a TensorRT flavour is installed) and follows a rendered
figure through a short clip: no boxes are given, the frame and then the previous joints are the next box. The figure's
joints are known, so the accuracy is measured. `--source 0` or a file takes a camera or a video instead, opened as
`sdk predict` would.

    sdk demo
    sdk demo --source clip.mp4 --output seen
    sdk demo --live                                    # the figure on the live page, until Ctrl-C
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from sdk.cli._opening import add_source_arguments, check_forms, source_options
from sdk.cli._page import add_page_arguments, check_page, refuse_page_options, serve_page
from sdk.cli._paths import refuse_overwriting
from sdk.errors import UsageError
from sdk.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sdk.manifest import Engine
    from sdk.media.sources import Source
    from sdk.media.videos import SourceFrame
    from sdk.poses import Poses
    from sdk.recipe import Recipe

    Frame = NDArray[np.uint8]
    Joints = NDArray[np.float32]

__all__ = ["add_arguments", "run"]

log = logging.getLogger("sdk.demo")
CLIP_FPS = 24.0
CLIP_SIZE_HW = (384, 384)
PAGE_SIZE_HW = (432, 768)  # 72 frames of it are 72 MB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", help="a camera's number, a stream's URL, or a video or image file; default: a rendered figure"
    )
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="default ./demo")
    parser.add_argument("--frames", type=int, default=72, help="most frames of the clip or camera (default 72)")
    parser.add_argument("--seed", type=int, default=3, help="of the rendered figure")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--compiler", choices=("auto", "tensorrt", "tensorrt-rtx", "none"), default="auto")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--live", action="store_true", help="show it on the live page instead, until Ctrl-C")
    add_source_arguments(parser, live=False)
    add_page_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from sdk.media.cv_feed import opencv_told
    from sdk.media.sources import sources_from

    if arguments.frames < 1:
        raise UsageError(f"--frames must be at least 1 (got {arguments.frames})")
    if arguments.seed < 0:
        raise UsageError(f"--seed must be 0 or more (got {arguments.seed})")
    if not arguments.live:
        refuse_page_options(arguments)
    sources = [] if arguments.source is None else sources_from([arguments.source])
    check_forms(arguments, sources)
    with opencv_told(sources):
        return _show(arguments, sources) if arguments.live else _run(arguments, sources)


def _run(arguments: argparse.Namespace, sources: list[Source]) -> int:
    given = [source.path for source in sources if source.address is None]
    refuse_overwriting({"--output": _clip(arguments), "--output (picture)": _picture(arguments)}, given)
    engine = _engine(arguments)
    seen = _Seen()
    _follow(engine, arguments, sources, seen)
    result = _result(engine, seen, arguments)
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _show(arguments: argparse.Namespace, sources: list[Source]) -> int:
    """The clip or the source on the live page."""
    from sdk.cli.live import live_source
    from sdk.live.playback import Playback

    options = check_page(arguments)
    engine = _engine(arguments)
    if sources:
        shown = live_source(arguments.source, **source_options(arguments, sources[0]))
        return serve_page([shown], engine, arguments, options)
    clip = _there_and_back(arguments)
    return serve_page([Playback("rendered figure", lambda: clip, repeat=True)], engine, arguments, options)


def _there_and_back(arguments: argparse.Namespace) -> list[SourceFrame]:
    """The walk, and the same backwards, so that it begins where it ends."""
    from sdk.media.figures import rendered_clip
    from sdk.media.videos import SourceFrame

    walk = [frame for frame, _ in rendered_clip(arguments.seed, arguments.frames, PAGE_SIZE_HW)]
    both = [*walk, *walk[-2:0:-1]]
    return [SourceFrame(frame, number, 1e3 * number / CLIP_FPS) for number, frame in enumerate(both)]


class _Seen:
    """What the clip gave: poses and, where they are known, the figure's joints."""

    def __init__(self) -> None:
        self.poses: list[Poses] = []
        self.truth: list[Joints] = []


def _engine(arguments: argparse.Namespace) -> Engine:
    """The bundled network's engine, compiled for this machine into the output folder."""
    from sdk.runtime.opening import engine_from
    from sdk.toolchain.build import rebuild_engine
    from sdk.toolchain.compile import CompileOptions

    bundled = engine_from(None)
    folder = arguments.output / bundled.folder.name
    rebuild_engine(bundled.folder, CompileOptions(compiler=arguments.compiler), folder)
    return engine_from(folder)


def _follow(engine: Engine, arguments: argparse.Namespace, sources: list[Source], seen: _Seen) -> None:
    """Run the clip frame by frame and write it, annotated."""
    from sdk import PoseEstimator
    from sdk.media.sinks import VideoFile, write_picture

    middle = None
    with (
        PoseEstimator(engine, device=arguments.device, tracker=True) as estimate,
        VideoFile(_clip(arguments), CLIP_FPS) as video,
    ):
        for frame, joints in _frames(arguments, sources):
            poses = estimate(frame)
            seen.poses.append(poses)
            if joints is not None:
                seen.truth.append(joints)
            picture = poses.draw(frame)
            video.write(picture)
            if middle is None or len(seen.poses) <= arguments.frames // 2:
                middle = picture
    if middle is not None:
        write_picture(_picture(arguments), middle)


def _frames(arguments: argparse.Namespace, sources: list[Source]) -> Iterator[tuple[Frame, Joints | None]]:
    from sdk.media.figures import rendered_clip
    from sdk.media.opening import open_source

    if not sources:
        yield from rendered_clip(arguments.seed, arguments.frames, CLIP_SIZE_HW)
        return
    with open_source(arguments.source, **source_options(arguments, sources[0])) as frames:
        for frame in islice(frames, arguments.frames):
            yield frame.picture, None


def _result(engine: Engine, seen: _Seen, arguments: argparse.Namespace) -> dict[str, Any]:
    from sdk.runtime.device import choose_device

    stages: dict[str, list[float]] = defaultdict(list)
    for poses in seen.poses[min(3, len(seen.poses) - 1) :]:  # the first frames warm up
        for stage, value in poses.timings_ms.items():
            if not isinstance(value, str):
                stages[stage].append(value)
    compiler = engine.manifest.compiler
    device, reason = choose_device(engine, arguments.device)
    return {
        "engine": str(engine.folder),
        "device": str(device),
        "device_reason": reason,
        "compiler": "none" if compiler is None else f"{compiler.name} {compiler.version}, target {compiler.target}",
        "frames": len(seen.poses),
        "accuracy": _accuracy(seen, engine.manifest.recipe) if seen.truth else None,
        "latency_ms": {stage: round(median(values), 3) for stage, values in stages.items()},
        "picture": str(_picture(arguments)),
        "clip": str(_clip(arguments)),
    }


def _accuracy(seen: _Seen, recipe: Recipe) -> dict[str, float]:
    """Against the joints that the figure was drawn from and the network knows; a frame without him counts as missed."""
    import numpy as np

    from sdk.evaluate.scores.pck import pck, torso_px
    from sdk.joints import match_joints
    from sdk.media.figures import FIGURE_SKELETON
    from sdk.skeletons import skeleton_by_name

    missed = np.full((recipe.joints, 2), np.nan, np.float32)
    found = np.stack([poses.keypoints[0] if len(poses) else missed for poses in seen.poses])
    drawn = np.stack(seen.truth)
    marked = np.concatenate([drawn, np.full((*drawn.shape[:2], 1), 2, np.float32)], axis=2)
    matched = match_joints(skeleton_by_name(FIGURE_SKELETON).joints, recipe.skeleton.joints)
    truth = matched.in_order(marked, axis=1)
    torsos = torso_px(truth, np.concatenate([drawn.min(axis=1), drawn.max(axis=1)], axis=1), recipe.skeleton)
    errors_px = np.linalg.norm(found - truth[..., :2], axis=2)[truth[..., 2] > 0]
    return {
        "pck_0.2": round(pck(found, truth, torsos, 0.2).mean, 2),
        "pck_0.1": round(pck(found, truth, torsos, 0.1).mean, 2),
        "median_error_px": round(float(np.nanmedian(errors_px)), 2),
    }


def _print(result: dict[str, Any]) -> None:
    print(f"engine    {result['engine']} (compiler: {result['compiler']})")
    print(f"device    {result['device']} ({result['device_reason']})")
    accuracy = result["accuracy"]
    if accuracy is not None:
        print(
            f"accuracy  PCK@0.2 {accuracy['pck_0.2']:.1f}, PCK@0.1 {accuracy['pck_0.1']:.1f}, median error "
            f"{accuracy['median_error_px']:.1f} px over {counted(result['frames'], 'frame')} of a rendered figure"
        )
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in result["latency_ms"].items())
    print(f"latency   {stages} ms (medians of a frame)")
    print(f"picture   {result['picture']}")
    print(f"clip      {result['clip']}")


def _picture(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.output
    return folder / "picture.png"


def _clip(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.output
    return folder / "clip.mp4"
