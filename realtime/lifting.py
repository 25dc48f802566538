"""2-D landmarks and a depth picture to joints in metres, where the body really is. NumPy only.

A depth camera sees skin and cloth, not joints, and it sees them badly at edges. So around each landmark a disc as wide
as the limb is read, whatever its distance; pixels without depth are left out, and those whose depth a bone from the
joint before could not reach; of what is left the nearest surface counts, and the joint lies behind it by what is
usual for that joint (SITES). Joints of which no depth is to be had keep the model's own relative depth, from the
body's distance. Letters: V joints, K samples of a disc.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from realtime.person import KINECT_AXES
from realtime.schema import Pose
from realtime.skeleton import Layout


class Site(NamedTuple):
    """What is known of a joint of adults, in metres. Children's are smaller by a third, which costs 1 to 3 cm."""

    disc: float  # radius of the disc that is read: most of the limb's own
    behind: float  # from the surface that the camera sees to the joint
    bone: float  # the longest that the bone to the parent is


# Girths from anthropometric tables (limb circumference / 2 pi), the trunk's depth from the front; bones of a tall
# adult (method.md 5.2 says what each joint is).
SITES = {
    name: Site(disc, behind, bone)
    for name, disc, behind, bone in (
        *(("hip_center", 0.06, 0.11, 0.3), ("spine", 0.06, 0.11, 0.45), ("shoulder_center", 0.05, 0.10, 0.45)),
        *(("neck", 0.035, 0.07, 0.2), ("head", 0.05, 0.10, 0.35), ("nose", 0.02, 0.01, 0.35)),
        *(("eye", 0.015, 0.01, 0.1), ("eye_inner", 0.015, 0.01, 0.1), ("eye_outer", 0.015, 0.01, 0.1)),
        *(("ear", 0.02, 0.02, 0.2), ("mouth", 0.015, 0.01, 0.12), ("clavicle", 0.04, 0.06, 0.3)),
        *(("shoulder", 0.04, 0.055, 0.45), ("elbow", 0.03, 0.042, 0.38), ("wrist", 0.02, 0.03, 0.34)),
        *(("hand", 0.022, 0.025, 0.16), ("tip", 0.012, 0.015, 0.16), ("thumb", 0.015, 0.02, 0.16)),
        *(("pinky", 0.012, 0.015, 0.16), ("index", 0.012, 0.015, 0.16), ("heel", 0.025, 0.035, 0.15)),
        *(("hip", 0.06, 0.10, 0.7), ("knee", 0.04, 0.06, 0.55), ("ankle", 0.028, 0.055, 0.52)),
        ("foot", 0.025, 0.035, 0.25),
    )
}
TRUNK = ("hip_center", "spine", "shoulder_center", "hip", "shoulder", "nose")  # says where the body is

SAMPLES = 37
GAP_MM = 35  # a step of more than this from one depth of a disc to the next is another surface
LEAST = 7  # samples of a surface that are enough
INNER = 0.5  # share of a surface's samples, those nearest to the landmark, whose median counts
SLACK_M = 0.08  # what may be wrong with two depths and their landmarks
SEEN = 0.5  # of a joint below this confidence the depth must agree with the model's own
AGREES_M = 0.15
GUESSED = 0.6  # what is left of the confidence of a joint without depth
NEAREST_M = 0.2  # no joint is nearer to the camera
TRUNK_BEHIND_M = 0.1  # from the trunk's surface to its joints
BODY_M = 0.9  # the trunk's surface and any joint's are no farther apart than this


class Placed(NamedTuple):
    """One body's joints with the depth's help."""

    joints: np.ndarray  # (V, 3) float32 metres, Kinect axes
    confidence: np.ndarray  # (V,) float32
    measured: np.ndarray  # (V,) bool: by depth; the others by the model's relative depth
    body_m: float  # how far the middle of the trunk's joints is


def site_of(joint: str) -> Site:
    """By a joint's name, whichever side it is on."""
    side, _, part = joint.partition("_")
    return SITES[part if side in ("left", "right") else joint]


class Lifting:
    """Lifts bodies of one layout. It keeps what follows from the layout, and nothing of any body."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        sites = [site_of(joint) for joint in layout.joints]
        self._disc = np.array([site.disc for site in sites])
        self._behind = np.array([site.behind for site in sites])
        self._bone = np.array([site.bone for site in sites])
        names = [joint.removeprefix("left_").removeprefix("right_") for joint in layout.joints]
        self._trunk = np.array([name in TRUNK for name in names])
        self._order = layout.order()
        turn = np.arange(SAMPLES) * np.pi * (3 - np.sqrt(5))  # a sunflower: the same number in each part of the disc
        far = np.sqrt((np.arange(SAMPLES) + 0.5) / SAMPLES)
        self._pattern = np.stack((far * np.cos(turn), far * np.sin(turn)), axis=1)  # (K, 2)

    def __call__(
        self, pose: Pose, rays: np.ndarray, pixels: np.ndarray, focal_px: float, depth: np.ndarray
    ) -> Placed | None:
        """The pose placed by depth, or None where no depth tells where its body is.

        rays: (V, 2) undistorted x/z, y/z of its landmarks, x right and y down. pixels: (V, 2) where these are in
        depth, (H, W) uint16 millimetres registered to the colour camera, of focal length focal_px.
        """
        trunk = np.flatnonzero(self._trunk & (pose.confidence > 0))
        coarse = self._samples(depth, pixels[trunk], self._disc[trunk] * metre_px(pose, pixels))
        surface = np.array([_surface(row[row > 0], 0.0) for row in coarse])  # millimetres, 0 where there is none
        told = surface > 0
        told = told & (pose.confidence[trunk] >= SEEN) if (pose.confidence[trunk][told] >= SEEN).any() else told
        if not told.any():
            return None
        body_mm = float(np.median(surface[told]))
        fine = self._samples(depth, pixels, np.maximum(self._disc * focal_px * 1000 / body_mm, 1.5))
        return self._placed(pose, rays, fine, body_mm)

    def _placed(self, pose: Pose, rays: np.ndarray, samples: np.ndarray, body_mm: float) -> Placed:
        """Walks from the root outwards: each joint's surface is one that a bone from the last one reaches."""
        relative = self._relative(pose) * 1000
        parents = self.layout.parents
        surface, quality = np.zeros(len(rays)), np.zeros(len(rays))
        for joint in self._order:
            row = samples[joint]
            row = row[(row > body_mm - BODY_M * 1000) & (row < body_mm + BODY_M * 1000)]
            parent = parents[joint]
            if parent != joint and surface[parent]:
                across = np.linalg.norm(rays[joint] - rays[parent]) * surface[parent] / 1000
                reach = np.sqrt(max(self._bone[joint] ** 2 - across**2, 0.0)) + SLACK_M
                row = row[np.abs(row - surface[parent]) <= reach * 1000]
            # A limb that is seen is in front of what is behind it; the trunk may have an arm before it.
            found = _surface(row, body_mm if self._trunk[joint] else 0.0)
            doubtful = pose.confidence[joint] < SEEN
            if found and doubtful and abs(found - body_mm - relative[joint]) > AGREES_M * 1000:
                continue  # what is in front of a joint that the model does not see
            if found and pose.confidence[joint] > 0:
                surface[joint], quality[joint] = found, min(2 * len(row) / SAMPLES, 1.0)
        return self._joined(pose, rays, surface, quality, body_mm)

    def _joined(self, pose: Pose, rays: np.ndarray, surface: np.ndarray, quality: np.ndarray, body_mm: float) -> Placed:
        """Measured joints behind their surface, the others at the model's relative depth from the body."""
        measured = surface > 0
        toward = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)  # (V, 3), z = 1
        slant = np.linalg.norm(toward, axis=1)
        z = surface / 1000 + self._behind / slant
        relative = self._relative(pose)
        anchors = measured & self._trunk if (measured & self._trunk).any() else measured
        body_m = float(np.median((z - relative)[anchors])) if anchors.any() else body_mm / 1000 + TRUNK_BEHIND_M
        z = np.where(measured, z, np.maximum(relative + body_m, NEAREST_M))
        joints = (toward * z[:, None] * KINECT_AXES).astype(np.float32)
        trust = np.where(measured, 0.7 + 0.3 * quality, GUESSED)
        return Placed(joints, (pose.confidence * trust).astype(np.float32), measured, body_m)

    def guessed(self, pose: Pose, rays: np.ndarray, body_m: float) -> Placed:
        """The pose by its landmarks and its relative depth alone, at the distance that its body had a moment ago."""
        z = np.maximum(self._relative(pose) + body_m, NEAREST_M)[:, None]
        toward = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
        joints = (toward * z * KINECT_AXES).astype(np.float32)
        measured = np.zeros(len(rays), bool)
        return Placed(joints, (pose.confidence * GUESSED).astype(np.float32), measured, body_m)

    def _relative(self, pose: Pose) -> np.ndarray:
        """The model's own depths (V,) in metres, from the middle of its trunk's joints."""
        return pose.joints[:, 2].astype(np.float64) - float(pose.joints[self._trunk, 2].mean())

    def _samples(self, depth: np.ndarray, pixels: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """(V, K) millimetres within discs of radii (V,) around pixels (V, 2); 0 outside the picture."""
        height, width = depth.shape
        places = np.rint(pixels[:, None] + self._pattern * radii[:, None, None])  # (V, K, 2)
        inside = ((places >= 0) & (places < (width, height))).all(axis=2)
        x, y = np.where(inside[..., None], places, 0).astype(np.intp).transpose(2, 0, 1)
        return np.where(inside, depth[y, x], 0).astype(np.float64)


def _surface(row: np.ndarray, wanted_mm: float) -> float:
    """Of the surfaces in a disc the one nearest to a depth: millimetres, 0 where too few samples agree.

    row: (n,) millimetres, the innermost sample first.
    """
    if len(row) < LEAST:
        return 0.0
    order = np.argsort(row)
    ends = np.flatnonzero(np.diff(row[order]) > GAP_MM) + 1
    best = 0.0
    for group in np.split(order, ends) if len(ends) else (order,):
        if len(group) >= LEAST:
            inner = np.sort(group)[: max(round(INNER * len(group)), LEAST)]
            middle = float(np.median(row[inner]))
            best = middle if not best or abs(middle - wanted_mm) < abs(best - wanted_mm) else best
    return best


def metre_px(pose: Pose, pixels: np.ndarray) -> float:
    """Pixels in a metre at the body: the picture's spread over the body's own, whatever the posture."""
    seen = pose.confidence > 0
    if seen.sum() < 2:
        return 1.0
    spread = float(np.ptp(pose.joints[seen, :2], axis=0).sum())
    return max(float(np.ptp(pixels[seen], axis=0).sum()), 1e-3) / max(spread, 1e-3)  # also where all are on one pixel
