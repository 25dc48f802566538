"""The pose stage of a source at its site: what finds poses there, with what calib/ measured around it, in their order.

The lens undoes what it bends before anything else sees the joints, depth places them, the floor brings them upright.
"""

from __future__ import annotations

import logging

import numpy as np

from realtime.calibration import Calibration
from realtime.errors import LineError
from realtime.feed import PLACED, UPRIGHT, SourceInfo
from realtime.lens import Lens
from realtime.lifted import with_depth
from realtime.orientation import turned_lens, turned_pictures, upright
from realtime.pipeline import Around, FindsPoses
from realtime.pose import PassThrough
from realtime.pose_choice import open_pose
from realtime.rig import Rig
from realtime.schema import Frame, Pose
from realtime.settings import MOST_PERSONS, PERSONS_IN_PICTURES, RecognitionFlags

log = logging.getLogger(__name__)


class Fitting(Around):
    """A pose stage that is shown only pictures of the shapes that lens and depth were measured on.

    A camera may come back with others: those are counted as refused, and said once until it fits again.
    """

    def __init__(self, inner: FindsPoses, lens: Lens | None, rig: Rig | None) -> None:
        super().__init__(inner)
        self._lens, self._rig = lens, rig
        self._others, self._why = 0, ""
        self._shapes: tuple[tuple[int, ...], tuple[int, ...] | None] | None = None

    @property
    def refused(self) -> int:
        """Frames that the stage inside refused, and those of another shape."""
        return self._inner.refused + self._others

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The poses in this frame; none where its pictures have another shape."""
        image = frame.image
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.size:  # what is none, the stage inside refuses
            shapes = image.shape[:2], None if frame.depth is None else frame.depth.shape
            if shapes != self._shapes:
                self._shapes, before = shapes, self._why
                self._why = self._misfit(*shapes)
                if self._why and not before:
                    log.warning("%s; such pictures are left out", self._why)
            if self._why:
                self._others += 1
                return ()
        return self._inner.find(frame)

    def _misfit(self, image: tuple[int, ...], depth: tuple[int, ...] | None) -> str:
        """What does not fit pictures of these shapes, rows first; empty where all does."""
        size = image[1], image[0]
        try:
            if self._lens is not None:
                self._lens.fits(*size)
            if self._rig is not None:
                self._rig.fits(size, None if depth is None else (depth[1], depth[0]), "this source")
        except LineError as error:
            return str(error)
        return ""


def marks_of(info: SourceInfo, site: Calibration) -> frozenset[str]:
    """What is so of the poses of a source at its site."""
    made = {UPRIGHT: site.floor is not None, PLACED: info.depth_size is not None}
    return info.marks | {mark for mark, so in made.items() if so}


def open_stage(chosen: RecognitionFlags, info: SourceInfo, site: Calibration) -> tuple[FindsPoses, int, str]:
    """The pose stage of a source at its site, how many people are followed, and a line about it for people."""
    if info.skeletons:
        if site.floor is not None and UPRIGHT in info.marks:
            return PassThrough(), chosen.persons or MOST_PERSONS, "floor: recorded upright, not turned again"
        return upright(PassThrough(), site), chosen.persons or MOST_PERSONS, ""
    persons = chosen.persons or PERSONS_IN_PICTURES
    if site.lens is not None and info.width and info.height:
        site.lens.fits(info.width, info.height)
    pose, why = open_pose(chosen.pose, persons, lens=turned_lens(site))
    pose, depth = with_depth(turned_pictures(pose, site), info, site.rig)
    rig = None if info.depth_size is None else site.rig or info.rig
    if site.lens is not None or rig is not None:
        pose = Fitting(pose, site.lens, rig)
    return upright(pose, site), persons, "; ".join(part for part in (why, depth) if part)
