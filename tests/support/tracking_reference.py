"""Identities by their definition, in numpy, pair by pair: what `cpp_ext/host/persons.h` says, written from its words.

Boxes, places and motions in float32 and joints in float64, as is said there: who is paired goes by single bits where
two pairs are equally like.
"""

import numpy as np

SHARE = 0.53  # of a box, that a person's area is taken to be


def iou_reference(a, b):  # 4 each, xyxy
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    mine, its, common = np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]), np.prod(sides)
    union = mine + its - common
    return common / union if union > 0 else np.float32(0)


def oks_reference(joints, others, counted, area, sigmas):  # K x 2, K x 2, K
    """Mean of the counted joints' similarity; 0 where none is."""
    squared = ((joints.astype(np.float64) - others.astype(np.float64)) ** 2).sum(axis=1)
    spans = 2 * (2 * np.array(sigmas)) ** 2 * (max(SHARE * float(area), 1.0) + np.spacing(1))
    return np.float32(np.exp(-squared / spans)[counted].mean()) if counted.any() else np.float32(0)


class ReferenceTracker:
    """`sdk.people.tracking.Tracker`; each track a dict."""

    def __init__(self, min_likeness=0.2, patience=30):
        self.min_likeness, self.patience = min_likeness, patience
        self.tracks, self.next_id = [], 1

    def update(self, boxes, keypoints, scores, sigmas, fair):
        likeness = {
            (row, column): self.likeness(boxes[row], keypoints[row], scores[row], track, sigmas, np.float32(fair))
            for row in range(len(boxes))
            for column, track in enumerate(self.tracks)
        }
        track_of = {}
        for row, column in sorted(likeness, key=lambda pair: -likeness[pair]):  # equally like ones stay in their order
            free = row not in track_of and column not in track_of.values()
            if free and likeness[row, column] >= self.min_likeness:
                track_of[row] = column
        for track in self.tracks:
            track["missed"] += 1
        ids = [self.seen(track_of.get(row), boxes[row], keypoints[row], scores[row]) for row in range(len(boxes))]
        self.tracks = [track for track in self.tracks if track["missed"] <= self.patience]
        return ids

    def likeness(self, box, joints, scores, track, sigmas, fair):
        moved = track["step"] * np.float32(track["missed"] + 1)
        counted = (scores >= fair) & (track["scores"] >= fair)
        area = np.prod(track["box"][2:] - track["box"][:2])
        at = (np.zeros(2, np.float32), moved)
        return max(
            (
                iou_reference(box, track["box"] + np.tile(by, 2))
                + oks_reference(joints, track["joints"] + by, counted, area, sigmas)
            )
            / np.float32(2)
            for by in at
        )

    def seen(self, column, box, joints, scores):
        """The id of one who is the track of this column, or new."""
        step = np.zeros(2, np.float32)
        if column is None:
            track = {"id": self.next_id}
            self.next_id += 1
            self.tracks.append(track)
        else:
            track = self.tracks[column]
            moved = (box - track["box"]) / np.float32(track["missed"])
            step = track["step"] + ((moved[:2] + moved[2:]) / 2 - track["step"]) / 2
        track |= {"box": box.copy(), "joints": joints.copy(), "scores": scores.copy(), "step": step, "missed": 0}
        return track["id"]
