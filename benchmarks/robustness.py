"""What a network stands: small persons, turned ones, blur, coarse JPEG, half bodies; several engines on the same crops.

    python benchmarks/robustness.py --data ../shared/data/lspet [--engine NAME.fp32 --engine OTHER.fp32] [--persons 250]
    python benchmarks/robustness.py --samples ../shared/data/samples/coco/test_coco.json
    python benchmarks/robustness.py --picture stands.jpg [--figure 8]

Each row changes the photographs of the first persons of val.json in one way; told is PCK@0.2 / @0.1 of the torso on the
joints that all engines and the labels have, so the joints compared are the same ones. `--samples` instead: mean OKS and
PCK on a COCO file, of the joints that each engine has. `--picture`: a rendered figure under each change, with rings at
its joints, and what the first engine finds. Engines run on the CPU with annotated boxes; nothing is drawn at random.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.estimator_overhead import print_machine  # noqa: E402
from sdk import PoseEstimator  # noqa: E402
from sdk.evaluate.scores.oks import person_oks  # noqa: E402
from sdk.evaluate.scores.pck import joint_hits, torso_px  # noqa: E402
from sdk.media.drawing import draw_poses  # noqa: E402
from sdk.media.figures import FIGURE_SKELETON, rendered_figure  # noqa: E402
from sdk.resources import DEFAULT_ENGINE  # noqa: E402
from sdk.skeletons import Skeleton, skeleton_by_name  # noqa: E402
from sdk.training.augment import body_halves  # noqa: E402

Array = NDArray[Any]
THRESHOLDS = (0.2, 0.1)
CONTEXT = 0.75  # of the longer side of a box, kept around it: more than any crop shows, turned ones too
TILE, COLUMNS = 200, 6  # of --picture
BOX_MARGIN = 0.15  # of the joints' extent at each side, as in the annotations


@dataclass(frozen=True)
class Person:
    """One annotated person in a picture of his own. `torso` is in pixels."""

    frame: Array  # h x w x 3, BGR
    box: Array  # 4, xyxy
    joints: Array  # K x 3: x, y, visibility
    torso: float
    area: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with val.json and its pictures")
    parser.add_argument("--samples", type=Path, help="a COCO file: OKS and PCK of its persons instead of the table")
    parser.add_argument("--images", type=Path, help="the pictures of --samples; default: beside it")
    parser.add_argument("--engine", action="append", help="an engine folder or a bundled name; once for each")
    parser.add_argument("--persons", type=int, default=250)
    parser.add_argument("--picture", type=Path, metavar="F.jpg", help="a figure under each change instead of figures")
    parser.add_argument("--figure", type=int, default=8, help="the seed of the figure of --picture")
    arguments = parser.parse_args()
    if [arguments.data, arguments.samples, arguments.picture].count(None) != 2:
        parser.error("give one of --data, --samples and --picture")
    engines = {name: PoseEstimator(name, device="cpu") for name in arguments.engine or [DEFAULT_ENGINE]}
    if arguments.picture is not None:
        draw_table(arguments.picture, arguments.figure, next(iter(engines.values())))
        return
    print_machine()
    if arguments.samples is not None:
        show_samples(arguments.samples, arguments.images or arguments.samples.parent, engines)
    else:
        show_table(arguments.data, arguments.persons, engines)


def show_table(data: Path, count: int, engines: dict[str, PoseEstimator]) -> None:
    shared, people = persons_of(data / "val.json", data, [each.recipe.skeleton for each in engines.values()], count)
    print(f"{len(people)} persons, {len(shared.joints)} joints; PCK@0.2 / @0.1 of {', '.join(engines)}")
    print("| what | joints | " + " | ".join(engines) + " |\n| --- | --- |" + " --- |" * len(engines))
    for name, change in changes(shared).items():
        changed = [each for each in map(change, people) if each is not None]
        scored = [scores(engine, changed, shared) for engine in engines.values()]
        told = " | ".join(f"{wide:.1f} / {narrow:.1f}" for wide, narrow in scored)
        print(f"| {name} | {sum(int((each.joints[:, 2] > 0).sum()) for each in changed)} | {told} |", flush=True)


def changes(skeleton: Skeleton) -> dict[str, Callable[[Person], Person | None]]:
    """Row name -> what it does to a person; None where he has too little of what it asks for."""
    upper, lower = body_halves(skeleton)
    return {
        "as photographed": lambda person: person,
        **{f"{side} px large": partial(sized, side=side) for side in (256, 128, 64, 32, 16, 8)},
        **{f"turned by {angle} degrees": partial(turned, angle=angle) for angle in (30, 60, 90, 135, 180)},
        **{f"blurred, sigma {share:.0%} of the person": partial(blurred, share=share) for share in (0.01, 0.02, 0.04)},
        **{f"moved by {share:.0%} of the person": partial(moved, share=share) for share in (0.04, 0.08)},
        **{f"JPEG of quality {quality}": partial(packed, quality=quality) for quality in (30, 10)},
        "upper half in the box": partial(half, rows=upper, cut=False),
        "lower half in the box": partial(half, rows=lower, cut=False),
        "upper half in the picture": partial(half, rows=upper, cut=True),
        "lower half in the picture": partial(half, rows=lower, cut=True),
    }


def persons_of(path: Path, images: Path, skeletons: list[Skeleton], count: int | None) -> tuple[Skeleton, list[Person]]:
    """The skeleton of the joints that all have, in the file's order, and its first persons, each cut out."""
    table = json.loads(path.read_text())
    names = table["categories"][0]["keypoints"]
    kept = [name for name in names if all(name in skeleton.joints for skeleton in skeletons)]
    rows = [names.index(name) for name in kept]
    base = next(each for each in skeletons if set(kept) <= set(each.joints))
    sigmas = tuple(base.tolerances[base.joints.index(name)] for name in kept)
    shared = Skeleton("shared", tuple(kept), (), (), sigmas)
    files = {image["id"]: image["file_name"] for image in table["images"]}
    records = [each for each in table["annotations"] if each["num_keypoints"] and not each["iscrowd"]][:count]
    return shared, [cut_out(cv2.imread(str(images / files[each["image_id"]])), each, rows, shared) for each in records]


def cut_out(frame: Array, record: dict[str, Any], rows: list[int], shared: Skeleton) -> Person:
    joints = np.reshape(record["keypoints"], (-1, 3)).astype(np.float64)[rows]
    x, y, w, h = record["bbox"]
    box = np.array([x, y, x + w, y + h])
    torso = float(torso_px(joints[None], box[None], shared)[0])
    around = CONTEXT * max(w, h)
    low = np.maximum(np.floor(box[:2] - around), 0).astype(int)
    high = np.ceil(box[2:] + around).astype(int)
    joints[:, :2] -= low
    return Person(
        frame[low[1] : high[1], low[0] : high[0]], box - np.tile(low, 2), joints, torso, float(record["area"])
    )


def scores(engine: PoseEstimator, people: list[Person], shared: Skeleton) -> tuple[float, ...]:
    """PCK in per cent at each threshold."""
    order = [engine.recipe.skeleton.joints.index(name) for name in shared.joints]
    found = np.stack([engine(each.frame, each.box[None]).keypoints[0][order] for each in people])
    truth = np.stack([each.joints for each in people])
    torsos = np.array([each.torso for each in people])
    counted = int((truth[..., 2] > 0).sum())
    return tuple(100 * int(joint_hits(found, truth, t * torsos, strict=True).sum()) / counted for t in THRESHOLDS)


def mapped(person: Person, affine: Array, size_wh: tuple[int, int]) -> Person:
    """The person after `affine` (2 x 3), a similarity: his box is that of his joints again, as annotated."""
    scale = math.sqrt(abs(float(np.linalg.det(affine[:, :2]))))
    frame = cv2.warpAffine(person.frame, affine, size_wh, flags=cv2.INTER_LINEAR)
    joints = person.joints.copy()
    joints[:, :2] = joints[:, :2] @ affine[:, :2].T + affine[:, 2]
    return Person(frame, box_of(joints), joints, person.torso * scale, person.area * scale**2)


def sized(person: Person, side: int) -> Person:
    """The longer side of his box is `side` pixels: shrunk by areas, so that nothing aliases."""
    factor = side / float((person.box[2:] - person.box[:2]).max())
    height, width = (max(1, round(factor * n)) for n in person.frame.shape[:2])
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    frame = cv2.resize(person.frame, (width, height), interpolation=way)
    ratio = np.array([width / person.frame.shape[1], height / person.frame.shape[0]])
    joints = person.joints.copy()
    joints[:, :2] = (joints[:, :2] + 0.5) * ratio - 0.5
    return Person(frame, person.box * np.tile(ratio, 2), joints, person.torso * factor, person.area * factor**2)


def turned(person: Person, angle: float) -> Person:
    """Turned about the middle of his box, in a picture that holds all of it."""
    side = math.ceil(math.hypot(*person.frame.shape[:2]))
    middle = (person.box[:2] + person.box[2:]) / 2
    affine = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), angle, 1.0)
    affine[:, 2] += side / 2 - middle
    return mapped(person, affine, (side, side))


def blurred(person: Person, share: float) -> Person:
    sigma = share * float((person.box[2:] - person.box[:2]).max())
    return replace(person, frame=cv2.GaussianBlur(person.frame, (0, 0), sigma))


def moved(person: Person, share: float) -> Person:
    """As if the camera went to the side meanwhile."""
    length = max(1, round(share * float((person.box[2:] - person.box[:2]).max())))
    return replace(person, frame=cv2.filter2D(person.frame, -1, np.full((1, length), 1 / length)))


def packed(person: Person, quality: int) -> Person:
    _, data = cv2.imencode(".jpg", person.frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return replace(person, frame=cv2.imdecode(data, cv2.IMREAD_COLOR))


def half(person: Person, rows: list[int], *, cut: bool) -> Person | None:
    """The box of half his joints, which alone count; `cut`: the picture ends where the box does."""
    joints = person.joints.copy()
    joints[[row for row in range(len(joints)) if row not in rows], 2] = 0
    if (joints[:, 2] > 0).sum() < 4:
        return None
    box = box_of(joints)
    if not cut:
        return replace(person, box=box, joints=joints)
    height, width = person.frame.shape[:2]
    low = np.clip(np.floor(box[:2]), 0, (width - 1, height - 1)).astype(int)
    high = np.maximum(np.clip(np.ceil(box[2:]), 0, (width, height)).astype(int), low + 1)
    joints[:, :2] -= low
    box = box - np.tile(low, 2)
    return replace(person, frame=person.frame[low[1] : high[1], low[0] : high[0]], box=box, joints=joints)


def box_of(joints: Array) -> Array:
    """The extent of the annotated joints and a margin."""
    points = joints[joints[:, 2] > 0, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.maximum(BOX_MARGIN * (high - low), 1)
    return np.concatenate([low - margin, high + margin])


def draw_table(path: Path, seed: int, engine: PoseEstimator) -> None:
    frame, points = rendered_figure(np.random.default_rng(seed), (480, 480))
    joints = np.concatenate([points, np.full((len(points), 1), 2)], axis=1).astype(np.float64)
    person = Person(frame, box_of(joints), joints, 1.0, 1.0)
    named = changes(skeleton_by_name(FIGURE_SKELETON)).items()
    tiles = [tile(name, changed, engine) for name, change in named if (changed := change(person)) is not None]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[at : at + COLUMNS]) for at in range(0, len(tiles), COLUMNS)]
    cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


def tile(name: str, person: Person, engine: PoseEstimator) -> Array:
    """The person in a square of TILE pixels, as large as in the others, what `engine` finds and where it should be."""
    scale = 0.6 * TILE / float((person.box[2:] - person.box[:2]).max())
    move = TILE / 2 - scale * (person.box[:2] + person.box[2:]) / 2
    affine = np.array([[scale, 0, move[0]], [0, scale, move[1]]])
    way = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_LINEAR
    picture = cv2.warpAffine(person.frame, affine, (TILE, TILE), flags=way)
    poses = engine(person.frame, person.box[None])
    picture = draw_poses(picture, replace(poses, keypoints=(poses.keypoints * scale + move).astype(np.float32)))
    for x, y in person.joints[person.joints[:, 2] > 0, :2] * scale + move:
        cv2.circle(picture, (round(x), round(y)), 4, (255, 255, 255), 1, cv2.LINE_AA)
    cv2.rectangle(picture, (0, 0), (TILE, 16), (0, 0, 0), -1)
    cv2.putText(picture, name, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def show_samples(path: Path, images: Path, engines: dict[str, PoseEstimator]) -> None:
    """Mean OKS of the persons and PCK, of all joints that an engine has, and of those that all have."""
    every = [each.recipe.skeleton for each in engines.values()]
    print("| engine | joints | persons | mean OKS | PCK@0.2 | PCK@0.1 |\n| --- | --- | --- | --- | --- | --- |")
    for name, engine in engines.items():
        for skeletons in ([engine.recipe.skeleton], every):
            shared, people = persons_of(path, images, skeletons, None)
            people = [each for each in people if (each.joints[:, 2] > 0).any()]
            wide, narrow = scores(engine, people, shared)
            oks = mean_oks(engine, people, shared)
            print(f"| {name} | {len(shared.joints)} | {len(people)} | {oks:.3f} | {wide:.1f} | {narrow:.1f} |")


def mean_oks(engine: PoseEstimator, people: list[Person], shared: Skeleton) -> float:
    order = [engine.recipe.skeleton.joints.index(name) for name in shared.joints]
    found = np.stack([engine(each.frame, each.box[None]).keypoints[0][order] for each in people])
    areas = np.array([each.area for each in people])
    similar = person_oks(found, np.stack([each.joints for each in people]), areas, shared.tolerances)
    return float(similar.mean())


if __name__ == "__main__":
    main()
