"""Drawing a person over 14 joints: tapered limbs in light and shade, clothes, a head with hair and a face. cv2 draws.

Every joint lies inside what is drawn of it. Drawn three times as large and averaged down, so that edges are smooth and
a picture of 64 pixels is as clean as one of 720. Poses and pictures are `sdk.media.figures`'s.

    draw_figure(frame, joints, height_px=180.0, wardrobe=Wardrobe.drawn(rng), facing=1)     # into `frame`, in place
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Wardrobe", "draw_figure"]

Frame = NDArray[np.uint8]
Point = NDArray[np.float64]  # x, y
Colour = tuple[int, int, int]  # BGR
Circle = tuple[Point, float]  # middle, radius

FINER = 3
SUBPIXEL_BITS = 4
SHADE, LIGHT = 0.80, 1.08  # of a colour, away from and towards the light at the upper left
AROUND = np.stack([np.cos(np.arange(20) * math.tau / 20), np.sin(np.arange(20) * math.tau / 20)], axis=1)

# Half widths in parts of the body's height, at the joints of each limb.
ARM, LEG = (0.030, 0.023, 0.016), (0.047, 0.033, 0.020)
SHOULDER, WAIST, HIP, THROAT, HAND, FOOT = 0.036, 0.050, 0.048, 0.024, 0.024, 0.019
SHOULDER_HALF = 0.105  # as `joints_from_pose` has it: what is narrower is turned
# Harmonious clothes (shirt, trousers, shoes), for pictures that people look at.
OUTFITS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((186, 128, 52), (92, 66, 48), (235, 235, 238)),
    ((96, 110, 224), (110, 82, 58), (70, 62, 56)),
    ((120, 168, 72), (86, 70, 60), (225, 225, 228)),
    ((84, 176, 236), (128, 96, 62), (72, 66, 190)),
)
SKINS: tuple[Colour, ...] = ((150, 186, 238), (122, 160, 214), (92, 126, 178), (66, 92, 138))
HAIRS: tuple[Colour, ...] = ((38, 46, 62), (26, 30, 36), (54, 84, 128), (70, 104, 150))


@dataclass(frozen=True)
class Wardrobe:
    """BGR colours and thickness of a figure."""

    skin: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    hair: Colour
    stout: float
    long_sleeves: bool
    long_trousers: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Wardrobe:
        """Random clothes, of any colour: what a network is to look past."""

        def colour() -> Colour:
            b, g, r = rng.integers(20, 236, 3)
            return int(b), int(g), int(r)

        light = rng.uniform(0.35, 1.0)
        skin = (int(140 * light), int(175 * light), int(225 * light))
        dark = int(rng.integers(10, 90))
        hair = (dark // 3, dark // 2, dark)
        return cls(
            skin, colour(), colour(), colour(), hair, float(rng.uniform(0.85, 1.25)), rng.random() < 0.5,
            rng.random() < 0.6,
        )  # fmt: skip

    @classmethod
    def matched(cls, rng: np.random.Generator) -> Wardrobe:
        """Clothes that go together."""
        shirt, trousers, shoes = OUTFITS[rng.integers(len(OUTFITS))]
        skin, hair = SKINS[rng.integers(len(SKINS))], HAIRS[rng.integers(len(HAIRS))]
        return cls(skin, shirt, trousers, shoes, hair, 1.0, bool(rng.random() < 0.5), long_trousers=True)


def draw_figure(
    frame: Frame, joints: NDArray[np.float32], height_px: float, wardrobe: Wardrobe, facing: int
) -> None:  # joints: 14 x 2
    """Draw the figure of `joints` into `frame`, far limbs first."""
    import cv2

    fine = frame.repeat(FINER, axis=0).repeat(FINER, axis=1)
    places = joints.astype(np.float64) * FINER + (FINER - 1) / 2
    _Painter(fine, places, height_px * FINER, wardrobe, facing).paint()
    frame[:] = cv2.resize(fine, frame.shape[1::-1], interpolation=cv2.INTER_AREA)


class _Painter:
    """One figure on one canvas. Joints are in CrowdPose order; 0 is the figure's left, 1 its right."""

    def __init__(
        self, canvas: Frame, joints: NDArray[np.float64], height_px: float, wardrobe: Wardrobe, facing: int
    ) -> None:
        self.canvas, self.joints, self.wardrobe, self.facing = canvas, joints, wardrobe, facing
        self.height, self.unit = height_px, height_px * wardrobe.stout
        across = abs(float(joints[0, 0] - joints[1, 0])) / (2 * SHOULDER_HALF * height_px)
        turned = math.sqrt(max(0.0, 1 - min(1.0, across) ** 2))
        self.turned = (
            -facing * turned
        )  # 0 frontal, -1 and 1 in profile: whose near side is the left one looks leftwards

    def paint(self) -> None:
        far, near = (0, 1) if self.facing < 0 else (1, 0)
        for side in (far, near):
            self._foot(side)
            self._leg(side)
        self._arm(far)
        self._trunk()
        self._head()
        self._arm(near)

    def _leg(self, side: int) -> None:
        w, (thigh, knee, ankle) = self.wardrobe, (self.joints[place + side] for place in (6, 8, 10))
        a, b, c = (self.unit * width for width in LEG)
        self._shaded(
            ((knee, b), (ankle, c * (1.25 if w.long_trousers else 1))), w.trousers if w.long_trousers else w.skin
        )
        self._shaded(((thigh, a), (knee, b * 1.06)), w.trousers)

    def _foot(self, side: int) -> None:
        ankle, outwards = self.joints[10 + side], 1 - 2 * side
        along = 0.075 * self.turned + 0.028 * outwards * self.facing * (1 - abs(self.turned))
        heel = ankle + self.unit * np.array([-0.012 * self.turned, 0.022])
        toes = ankle + self.unit * np.array([along, 0.034])
        self._shaded(
            ((ankle, self.unit * 0.02), (heel, self.unit * FOOT), (toes, self.unit * FOOT * 0.85)), self.wardrobe.shoes
        )

    def _arm(self, side: int) -> None:
        w, (shoulder, elbow, wrist) = self.wardrobe, (self.joints[place + side] for place in (0, 2, 4))
        a, b, c = (self.unit * width for width in ARM)
        hand = wrist + 0.22 * (wrist - elbow)
        self._shaded(((wrist, c), (hand, self.unit * HAND)), w.skin)
        self._shaded(((elbow, b), (wrist, c * (1.2 if w.long_sleeves else 1))), w.shirt if w.long_sleeves else w.skin)
        if w.long_sleeves:
            self._shaded(((shoulder, a), (elbow, b * 1.05)), w.shirt)
            return
        self._shaded(((shoulder, a * 0.9), (elbow, b)), w.skin)
        self._shaded(((shoulder, a), (shoulder + 0.62 * (elbow - shoulder), b * 1.25)), w.shirt)

    def _trunk(self) -> None:
        w, j, unit = self.wardrobe, self.joints, self.unit
        hips, chest = (j[6] + j[7]) / 2, (j[0] + j[1]) / 2
        narrow = hips + 0.32 * (chest - hips)
        across = (j[0] - j[1]) * 0.24
        waist = ((narrow + across, unit * WAIST), (narrow - across, unit * WAIST))
        shoulders = ((j[0], unit * SHOULDER), (j[1], unit * SHOULDER))
        self._shaded(((j[6], unit * HIP), (j[7], unit * HIP), *waist), w.trousers)
        hem = hips + 0.12 * (chest - hips)
        self._shaded((*shoulders, *waist, (hem + across, unit * WAIST), (hem - across, unit * WAIST)), w.shirt)
        throat = self.height * THROAT  # and a collar: what of the chest a network takes for the front
        self._hull(((chest, 0.75 * throat), (j[13], throat)), _tinted(w.skin, 0.9))

    def _head(self) -> None:
        w, top, neck = self.wardrobe, self.joints[12], self.joints[13]
        up = (top - neck) / max(float(np.hypot(*(top - neck))), 1e-6)
        right, long = np.array([-up[1], up[0]]), float(np.hypot(*(top - neck))) / 2
        short, middle = 0.051 * self.height, (top + neck) / 2
        self._oval(middle, up, (long, short * 1.08), w.hair)
        if self.facing < 0:
            return
        ahead = right * short * self.turned
        face = middle - 0.20 * long * up + 0.16 * ahead
        self._oval(face, up, (long * 0.79, short * 0.90), _tinted(w.skin, SHADE))
        self._oval(face - right * short * 0.06, up, (long * 0.76, short * 0.82), w.skin)
        self._oval(middle + 0.72 * long * up + 0.1 * ahead, up, (long * 0.26, short * 0.72), w.hair)
        self._features(face + 0.34 * ahead, up, right, long, short)

    def _features(self, face: Point, up: Point, right: Point, long: float, short: float) -> None:
        """Eyes and a smile, nearer to each other the further the head is turned."""
        apart, dark = short * 0.36 * (1 - 0.35 * abs(self.turned)), _tinted(self.wardrobe.hair, 0.75)
        for side in (-1, 1):
            self._oval(face + 0.10 * long * up + side * apart * right, up, (long * 0.075, short * 0.085), dark)
        lips = _tinted(self.wardrobe.skin, 0.62)
        smile = [
            face - (0.30 + 0.09 * math.cos(t)) * long * up + 0.28 * short * math.sin(t) * right
            for t in np.linspace(-1.3, 1.3, 7)
        ]
        for one, other in pairwise(smile):
            self._hull(((one, short * 0.045), (other, short * 0.045)), lips)

    def _shaded(self, circles: Sequence[Circle], colour: Colour) -> None:
        """What lies between circles, in shade, and most of it, towards the light, in light."""
        self._hull(circles, _tinted(colour, SHADE))
        lit = [(middle + radius * np.array([-0.20, -0.10]), 0.74 * radius) for middle, radius in circles]
        self._hull(lit, _tinted(colour, LIGHT))

    def _hull(self, circles: Sequence[Circle], colour: Colour) -> None:
        import cv2

        edge = np.concatenate([middle + radius * AROUND for middle, radius in circles])
        hull = cv2.convexHull(np.round(edge * (1 << SUBPIXEL_BITS)).astype(np.int32))
        cv2.fillConvexPoly(self.canvas, hull, colour, cv2.LINE_AA, SUBPIXEL_BITS)

    def _oval(self, middle: Point, up: Point, radii: tuple[float, float], colour: Colour) -> None:
        """An ellipse of (along `up`, across it)."""
        import cv2

        edge = AROUND[:, :1] * radii[0] * up + AROUND[:, 1:] * radii[1] * np.array([-up[1], up[0]]) + middle
        points = np.round(edge * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillConvexPoly(self.canvas, points, colour, cv2.LINE_AA, SUBPIXEL_BITS)


def _tinted(colour: Colour, factor: float) -> Colour:
    b, g, r = (min(255, max(1, round(value * factor))) for value in colour)
    return b, g, r
