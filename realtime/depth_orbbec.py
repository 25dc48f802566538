"""Orbbec cameras (Gemini, Femto, Astra 2) by pyorbbecsdk2, as a `DepthSource`. The only door to pyorbbecsdk.

NEVER RUN ON HARDWARE: written from the library's examples; tried against 2.1 without a camera, and against a fake of it
in the tests.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np

from realtime.depth_source import Sight, loaded, pinhole
from realtime.errors import SourceError
from realtime.feed import SILENCE_S, Tally
from realtime.image import decoded
from realtime.lens import Lens
from realtime.rig import Rig, make_rig

# Its own requirements pull in a second OpenCV, which would break ours, and older PyAV; it needs NumPy alone.
INSTALL = "`pip install --no-deps pyorbbecsdk2` in this .venv"


class Orbbec:
    """The first Orbbec that is plugged in, in its default profiles."""

    named, id, kind, live = "depth:orbbec", "orbbec", "camera", True

    def __init__(self) -> None:
        """Starts it. SourceError where the library, a camera or the streams are not there."""
        self._ob: Any = loaded(lambda: importlib.import_module("pyorbbecsdk"), "orbbec", INSTALL)
        self.tally = Tally()
        self._pipeline: Any = None
        try:
            self._pipeline = pipeline = self._ob.Pipeline()
            config = self._ob.Config()
            sensors = (self._ob.OBSensorType.COLOR_SENSOR, self._ob.OBSensorType.DEPTH_SENSOR)
            profiles = [pipeline.get_stream_profile_list(one).get_default_video_stream_profile() for one in sensors]
            for profile in profiles:
                config.enable_stream(profile)
            config.set_frame_aggregate_output_mode(self._ob.OBFrameAggregateOutputMode.FULL_FRAME_REQUIRE)
            self.fps: float | None = float(profiles[0].get_fps())
            pipeline.start(config)
            self._waited()  # the stated parameters are those of the streams only once these run
            self.rig: Rig | None = self._stated(pipeline.get_camera_param())
        except (RuntimeError, self._ob.OBError) as error:
            self.close()
            raise SourceError(f"{self.named}: {error}; check its cable, power and udev rules") from error
        except SourceError:
            self.close()
            raise

    def read(self) -> Sight | None:
        """The next pair; its time is that of its arrival."""
        if self._pipeline is None:
            return None
        frames = self._waited()
        captured_ns = time.monotonic_ns()
        color, depth = frames.get_color_frame(), frames.get_depth_frame()
        image = self._image(color)
        if depth is None:
            return Sight(captured_ns, image, None)
        z = np.frombuffer(depth.get_data(), np.uint16).reshape(depth.get_height(), depth.get_width())
        scale = float(depth.get_depth_scale())  # millimetres in a unit
        z = z.copy() if abs(scale - 1) < 1e-6 else np.clip(np.rint(z * scale), 0, 65535).astype(np.uint16)
        return Sight(captured_ns, image, z)

    def close(self) -> None:
        """Stops it. May be called twice."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.stop()

    def _waited(self) -> Any:
        """The next frames of both cameras; the first may take some seconds."""
        until_s = time.monotonic() + SILENCE_S
        while time.monotonic() < until_s:
            try:
                frames = self._pipeline.wait_for_frames(500)
            except (RuntimeError, self._ob.OBError) as error:
                raise SourceError(f"{self.named} was lost: {error}; check its cable and power") from error
            if frames is not None and frames.get_color_frame() is not None:
                return frames
        raise SourceError(f"{self.named} gives no pictures for {SILENCE_S:.0f} s; check its cable and power")

    def _image(self, frame: Any) -> np.ndarray:
        kind, data = frame.get_format(), np.asanyarray(frame.get_data(), np.uint8)
        formats = self._ob.OBFormat
        if kind in (formats.RGB, formats.BGR):
            image = data.reshape(frame.get_height(), frame.get_width(), 3)
            return np.ascontiguousarray(image[..., ::-1] if kind == formats.RGB else image).copy()
        found = decoded(data) if kind == formats.MJPG else None
        if found is None:
            raise SourceError(f"{self.named}: a colour picture in {kind} cannot be read; set its colour to RGB or MJPG")
        return found

    def _stated(self, known: Any) -> Rig:
        if known.is_mirrored:
            raise SourceError(f"{self.named}: it mirrors its pictures; switch that off in Orbbec Viewer")
        color = _lens(known.rgb_intrinsic, known.rgb_distortion)
        depth = _lens(known.depth_intrinsic, known.depth_distortion)
        rotation = np.array(known.transform.rot, float).reshape(3, 3)
        return make_rig(color, depth, rotation, np.array(known.transform.transform, float) / 1000)


def _lens(found: Any, bent: Any) -> Lens:
    order = (bent.k1, bent.k2, bent.p1, bent.p2, bent.k3, bent.k4, bent.k5, bent.k6)
    return pinhole((found.width, found.height), (found.fx, found.fy), (found.cx, found.cy), list(order))
