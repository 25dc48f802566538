"""Luxonis OAK cameras with stereo depth by depthai 3, as a `DepthSource`. The only door to depthai.

NEVER RUN ON HARDWARE: written from the library's examples; tried against 3.12 without a camera, and against a fake of
it in the tests. The camera itself straightens its colour pictures and registers depth to them, so both are one lens.
"""

from __future__ import annotations

import importlib
import time
from datetime import timedelta
from typing import Any

import numpy as np

from realtime.depth_source import Sight, loaded, pinhole
from realtime.errors import SourceError
from realtime.feed import SILENCE_S, Tally
from realtime.rig import Rig, make_rig

COLOR, SIDE, FPS = (1280, 720), (640, 400), 20
BREATH_S = 0.002


class Oak:
    """The first OAK with two mono cameras that is plugged in: colour 1280x720, 20 pairs a second."""

    named, id, kind, live = "depth:oak", "oak", "camera", True
    fps: float | None = float(FPS)

    def __init__(self) -> None:
        """Starts it. SourceError where the library, a camera or one of its three lenses is not there."""
        dai: Any = loaded(lambda: importlib.import_module("depthai"), "oak", "`pip install depthai` in this .venv")
        self.tally = Tally()
        self._pipeline: Any = None
        try:
            self._pipeline = pipeline = dai.Pipeline()
            sockets, node = dai.CameraBoardSocket, dai.node
            color, left, right = (
                pipeline.create(node.Camera).build(one) for one in (sockets.CAM_A, sockets.CAM_B, sockets.CAM_C)
            )
            stereo, both = pipeline.create(node.StereoDepth), pipeline.create(node.Sync)
            both.setSyncThreshold(timedelta(seconds=0.5 / FPS))
            straight = color.requestOutput(COLOR, fps=FPS, enableUndistortion=True)
            left.requestOutput(SIDE, fps=FPS).link(stereo.left)
            right.requestOutput(SIDE, fps=FPS).link(stereo.right)
            device = pipeline.getDefaultDevice()
            if device.getPlatform() == dai.Platform.RVC4:
                align = pipeline.create(node.ImageAlign)
                stereo.depth.link(align.input)
                straight.link(align.inputAlignTo)
                align.outputAligned.link(both.inputs["depth"])
            else:
                straight.link(stereo.inputAlignTo)
                stereo.depth.link(both.inputs["depth"])
            straight.link(both.inputs["color"])
            self._queue: Any = both.out.createOutputQueue(2, False)  # the newest, never waited for
            matrix = device.readCalibration().getCameraIntrinsics(sockets.CAM_A, *COLOR)
            pipeline.start()
        except RuntimeError as error:
            self.close()
            raise SourceError(f"{self.named}: {error}; check its cable, power and udev rules") from error
        (fx, _, cx), (_, fy, cy), _ = matrix
        lens = pinhole(COLOR, (fx, fy), (cx, cy), [0.0] * 5)
        self.rig: Rig | None = make_rig(lens, lens, np.eye(3), np.zeros(3))

    def read(self) -> Sight | None:
        """The next pair; its time is that of its arrival."""
        if self._pipeline is None:
            return None
        until_s = time.monotonic() + SILENCE_S
        try:
            while (group := self._queue.tryGet()) is None:
                if not self._pipeline.isRunning() or time.monotonic() > until_s:
                    raise SourceError(f"{self.named} gives no pictures any more; check its cable and power")
                time.sleep(BREATH_S)
        except RuntimeError as error:
            raise SourceError(f"{self.named} was lost: {error}; check its cable and power") from error
        captured_ns = time.monotonic_ns()
        depth = np.array(group["depth"].getFrame(), np.uint16)  # millimetres
        return Sight(captured_ns, np.array(group["color"].getCvFrame(), np.uint8), depth)

    def close(self) -> None:
        """Stops it. May be called twice."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None and pipeline.isRunning():
            pipeline.stop()
