"""Intel RealSense cameras by pyrealsense2, as a `DepthSource`. The only door to pyrealsense2.

NEVER RUN ON HARDWARE: written from the library's documentation; tried against 2.59 without a camera, and against a
fake of it in the tests.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np

from realtime.depth_source import Sight, loaded, pinhole
from realtime.errors import SourceError
from realtime.feed import SILENCE_S, Tally
from realtime.lens import Lens
from realtime.rig import Rig, make_rig

COLOR, DEPTH, FPS = (1280, 720), (640, 480), 30


class RealSense:
    """The first RealSense that is plugged in: colour 1280x720, depth 640x480, 30 frames a second."""

    named, id, kind, live = "depth:realsense", "realsense", "camera", True
    fps: float | None = float(FPS)

    def __init__(self) -> None:
        """Starts it. SourceError where the library, a camera or the streams are not there."""
        rs: Any = loaded(
            lambda: importlib.import_module("pyrealsense2"), "realsense", "`pip install pyrealsense2` in this .venv"
        )
        self.tally = Tally()
        self._pipeline: Any = rs.pipeline()
        config = rs.config()
        config.enable_stream(rs.stream.color, *COLOR, rs.format.bgr8, FPS)
        config.enable_stream(rs.stream.depth, *DEPTH, rs.format.z16, FPS)
        try:
            profile = self._pipeline.start(config)
            self._unit_mm = 1000 * float(profile.get_device().first_depth_sensor().get_depth_scale())
            color, depth = (profile.get_stream(s).as_video_stream_profile() for s in (rs.stream.color, rs.stream.depth))
            motion = depth.get_extrinsics_to(color)
        except RuntimeError as error:
            self._pipeline = None
            raise SourceError(f"{self.named}: {error}; check its cable (USB 3), and `rs-enumerate-devices`") from error
        rotation = np.array(motion.rotation, float).reshape(3, 3).T  # it is stated column by column
        self.rig: Rig | None = make_rig(_lens(color), _lens(depth), rotation, np.array(motion.translation, float))

    def read(self) -> Sight | None:
        """The next pair; its time is that of its arrival."""
        if self._pipeline is None:
            return None
        frames = self._waited()
        captured_ns = time.monotonic_ns()
        color, depth = frames.get_color_frame(), frames.get_depth_frame()
        image = np.array(color.get_data(), np.uint8)  # a copy: the library takes its buffers back
        if not depth:
            return Sight(captured_ns, image, None)
        z = np.array(depth.get_data(), np.uint16)
        if abs(self._unit_mm - 1) > 1e-6:
            z = np.clip(np.rint(z * self._unit_mm), 0, 65535).astype(np.uint16)
        return Sight(captured_ns, image, z)

    def close(self) -> None:
        """Stops it. May be called twice."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.stop()

    def _waited(self) -> Any:
        """The next frames with a colour picture: the first ones, and some under way, may hold depth only."""
        until_s = time.monotonic() + SILENCE_S
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                frames = self._pipeline.wait_for_frames(max(int(left_s * 1000), 1))
            except RuntimeError as error:
                raise SourceError(f"{self.named} was lost: {error}; check its cable and power") from error
            if frames.get_color_frame():
                return frames
        raise SourceError(f"{self.named} gives no colour pictures for {SILENCE_S:.0f} s; check its cable (USB 3)")


def _lens(profile: Any) -> Lens:
    """Its distortion is taken as Brown's whatever its model is called: where it is not, the coefficients are small."""
    found = profile.get_intrinsics()
    size, focal, middle = (found.width, found.height), (found.fx, found.fy), (found.ppx, found.ppy)
    return pinhole(size, focal, middle, list(found.coeffs))
