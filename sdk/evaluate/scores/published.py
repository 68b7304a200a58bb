"""Published figures beside measured ones: the measured figure of the same kind, and the `sdk verify` command for it.

    command_for(recipe, recipe.published[0])        # 'sdk verify ENGINE --dataset coco ... --flip-test', or None
    measured_beside(recipe.published[0], "coco", scores.figures)                       # 74.1, or None

The files are the usual ones, by their usual names; nobody but their owners may hand them out. None: the figure is of
another variant than the recipe's (other labels, no quarter-pixel shift), or its data are not public as one set.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdk.recipe import Published, Recipe

__all__ = ["COMMANDS", "PICTURES", "command_for", "measured_beside"]

COMMANDS = {
    "COCO val2017": (
        "--dataset coco --annotations annotations/person_keypoints_val2017.json --images val2017 "
        "--detections COCO_val2017_detections_AP_H_56_person.json"
    ),
    "CrowdPose test": (
        "--dataset crowdpose --annotations mmpose_crowdpose_test.json --images images "
        "--detections det_for_crowd_test_0.1_0.5.json"
    ),
    "COCO-WholeBody v1.0 val": (
        "--dataset wholebody --annotations coco_wholebody_val_v1.0.json --images val2017 "
        "--detections COCO_val2017_detections_AP_H_56_person.json"
    ),
    "COCO-WholeBody-Hand val": "--dataset hand --annotations coco_wholebody_val_v1.0.json --images val2017",
    "COCO-WholeBody-Face val": "--dataset face --annotations coco_wholebody_val_v1.0.json --images val2017",
    "WFLW test": "--dataset face --annotations face_landmarks_wflw_test.json --images images",
    "LaPa val": "--dataset face --annotations lapa_val.json --images LaPa",
    "AP-10K val": "--dataset ap10k --annotations ap10k-val-split1.json --images data",
    "Human-Art val": "--dataset coco --annotations validation_humanart.json --images HumanArt",
    "MPII val": "--dataset mpii --annotations mpii_val.json --images images --head-boxes mpii_gt_val.mat",
}
# of the whole set, which a published figure is of
PICTURES = {"COCO val2017": 5000, "COCO-WholeBody v1.0 val": 5000, "CrowdPose test": 8000}
PLAIN_METRICS = ("AP", "AP body", "AP foot", "AP face", "PCKh@0.5", "PCKh@0.1", "PCK@0.2", "AUC", "NME")


def command_for(recipe: Recipe, figure: Published) -> str | None:
    """The command that measures `figure` again on an engine of `recipe` with the published weights."""
    files = COMMANDS.get(figure.dataset)
    if files is None or figure.metric not in PLAIN_METRICS:
        return None
    flip = " --flip-test" if recipe.protocol.flip_test else ""
    return f"sdk verify {recipe.name}.fp32 {files}{flip}"


def measured_beside(figure: Published, kind: str, figures: Mapping[str, float | None]) -> float | None:
    """What a verification on a dataset of `kind` measured of `figure`'s metric; None where the two are not one thing.

    That the pictures are those of the published set, and the weights too, is the reader's to see.
    """
    same = f"--dataset {kind} " in COMMANDS.get(figure.dataset, "") and figure.metric in PLAIN_METRICS
    return figures.get(figure.metric) if same else None
