"""Following persons between detections: who is kept and who is let go, on clips with known truth (`benchmarks.clips`).

    python benchmarks/following.py [--against CHECKOUT] [--photographs 150] [--seed 1]

A clip is 24 frames. The first is estimated in the box of a real detector, with its score; the others without a
detector, as between two detections. Told is the share of clips whose person is still followed in the last frame: of
persons who are there, whole and half visible, it should be high; of background, and of persons who have left 11 frames
before, low.
`--against` names another checkout with its extension built: both get the same frames, in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

MEASURE = "--measure"


def main() -> None:
    from benchmarks.children import Child, checkouts
    from benchmarks.clips import all_clips
    from benchmarks.estimator_overhead import print_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--photographs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1, help="0 is the one that the rule's constants were chosen on")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    arguments = parser.parse_args()
    print_machine()
    told: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
    with ExitStack() as stack:
        children = [stack.enter_context(Child(each, __file__, MEASURE)) for each in checkouts(arguments.against)]
        for clip in all_clips(arguments.shared, arguments.photographs, arguments.seed):
            question = pickle.dumps((clip.frames, clip.box, clip.score))
            told[clip.kind].append([child.asked(question) for child in children])
    show(told)


def show(told: dict[str, list[list[dict[str, Any]]]]) -> None:
    from benchmarks.clips import is_half

    groups = {
        "half visible": [kind for kind in told if is_half(kind)],
        "whole": [kind for kind in told if kind.removeprefix("figure: ") == "whole"],
        "background": ["background"],
        "has left": [kind for kind in told if any(word in kind for word in ("leaves", "walks out", "gone"))],
    }
    groups["background and left"] = groups["background"] + groups["has left"]
    for name, kinds in {**{kind: [kind] for kind in sorted(told)}, **groups}.items():
        clips = [clip for kind in kinds for clip in told[kind]]
        shares = [f"{100 * np.mean([clip[at]['kept'] for clip in clips]):5.1f} %" for at in range(len(clips[0]))]
        print(f"{name:32} {len(clips):4} clips, followed to the end: {', before: '.join(shares)}")


def measure(clips: BinaryIO) -> None:
    """Answers for each clip of a stream; the checkout on the path is the one that is measured."""
    from sdk import PoseEstimator

    with PoseEstimator(device="cpu", threads=1, tracker=True) as estimate:
        while True:
            try:
                frames, box, score = pickle.load(clips)
            except EOFError:
                return
            estimate.reset_tracks()
            estimate(frames[0], [box], box_scores=[score])
            print(json.dumps({"kept": all(is_followed(estimate(frame), frame) for frame in frames[1:])}), flush=True)


def is_followed(poses: Any, frame: Any) -> bool:
    """Whether boxes came from the frame before, and not, where nobody was, from the whole frame."""
    height, width = frame.shape[:2]
    return bool(len(poses)) and poses.boxes[0].tolist() != [0, 0, width, height]


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURE]:
        measure(sys.stdin.buffer)
    else:
        main()
