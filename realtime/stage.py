"""The pose stage of a source at its site: what finds poses there, with what calib/ measured around it, in their order.

The lens undoes what it bends before anything else sees the joints, depth places them, the floor brings them upright.
"""

from __future__ import annotations

from realtime.calibration import Calibration
from realtime.feed import SourceInfo
from realtime.lifted import with_depth
from realtime.orientation import turned_lens, turned_pictures, upright
from realtime.pipeline import FindsPoses
from realtime.pose import PassThrough
from realtime.pose_choice import open_pose
from realtime.settings import MOST_PERSONS, PERSONS_IN_PICTURES, RecognitionFlags


def open_stage(chosen: RecognitionFlags, info: SourceInfo, site: Calibration) -> tuple[FindsPoses, int, str]:
    """The pose stage of a source at its site, how many people are followed, and a line about it for people."""
    if info.skeletons:
        if site.floor is not None and info.upright:
            return PassThrough(), chosen.persons or MOST_PERSONS, "floor: recorded upright, not turned again"
        return upright(PassThrough(), site), chosen.persons or MOST_PERSONS, ""
    persons = chosen.persons or PERSONS_IN_PICTURES
    if site.lens is not None and info.width and info.height:
        site.lens.fits(info.width, info.height)
    pose, why = open_pose(chosen.pose, persons, lens=turned_lens(site))
    pose, depth = with_depth(turned_pictures(pose, site), info, site.rig)
    return upright(pose, site), persons, "; ".join(part for part in (why, depth) if part)
