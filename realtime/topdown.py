"""What a top-down pose network given as an ONNX file asks and answers: its shapes checked, its answers read.

N people in one batch, V = 17 joints (COCO), H and W the input's pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np

from realtime.engine import PlainSession
from realtime.errors import BundleError, UsageError
from realtime.image import BoxCrops
from realtime.skeleton import COCO_17

MEAN, SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet, RGB, as RTMPose is trained
MARGIN = 1.25  # the network's box is this much larger than the body, as in training
LARGEST = 64 << 20  # bytes of the answers for one person: more is no pose network


class TopDown:
    """A network that finds one person's joints in a box: input (N, 3, H, W) float32, normalised RGB.

    Output: SimCC (N, 17, W·r) and (N, 17, H·r), as RTMPose has it, or heat maps (N, 17, h, w); told apart by shape.
    Raises UsageError where there is no such file, BundleError where it is no such network.
    """

    def __init__(self, path: Path, threads: int = 2) -> None:
        self._named = f"pose network {path}"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{self._named}: {error.strerror}; name an ONNX file, or use --pose auto") from error
        self._session = PlainSession(content, self._named, threads)
        width, height, self._one_by_one = self._input()
        self._size = (width, height)
        self._crops = BoxCrops(width, height, MEAN, SPREAD)
        self._answers = self._kind(self._session(np.zeros((1, 3, height, width), np.float32)))

    @property
    def device(self) -> str:
        """What it runs on: cuda or cpu."""
        return self._session.device

    def __call__(self, rgb: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (N, 17, 2) in pixels and confidence (N, 17) in [0, 1] of the people in boxes of a picture.

        rgb: (H, W, 3) uint8; boxes: (N, 4) left, top, width, height in pixels, in the input's proportions.
        """
        batch = self._crops(rgb, boxes)
        parts = [batch[i : i + 1] for i in range(len(batch))] if self._one_by_one else [batch]
        answers = [self._session(part) for part in parts]
        whole = [np.concatenate([answer[i] for answer in answers]) for i in range(len(answers[0]))]
        if self._answers == "heat":
            places, confidence = read_heat(whole[0])  # in units of the input
        else:
            x, y = whole if self._answers == "xy" else whole[::-1]
            places, confidence = read_simcc(x, y)
        return boxes[:, None, :2] + places * boxes[:, None, 2:], confidence

    def boxes(self, bodies: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) around bodies (N, 4), left, top, width, height: with a margin and in the input's proportions."""
        ratio = self._size[0] / self._size[1]
        centres = bodies[:, :2] + bodies[:, 2:] / 2
        widths = np.maximum(bodies[:, 2], bodies[:, 3] * ratio) * MARGIN
        sizes = np.stack((widths, widths / ratio), axis=1)
        return np.concatenate((centres - sizes / 2, sizes), axis=1)

    def _input(self) -> tuple[int, int, bool]:
        """Width and height of the input, and whether it takes one person at a time."""
        if len(self._session.inputs) != 1:
            self._refuse(f"must have one input, has {', '.join(name for name, _, _ in self._session.inputs)}")
        name, kind, shape = self._session.inputs[0]
        fits = kind == "tensor(float)" and len(shape) == 4 and shape[1] == 3
        if not fits or not all(isinstance(side, int) and 32 <= side <= 1024 for side in shape[2:]):
            self._refuse(f"must have a float32 input (N, 3, H, W) with H and W fixed, has {name}: {kind} {shape}")
        if isinstance(shape[0], int) and shape[0] != 1:
            self._refuse(f"takes exactly {shape[0]} people at a time; export it with a free first dimension")
        return shape[3], shape[2], isinstance(shape[0], int)

    def _kind(self, answers: list[np.ndarray]) -> str:
        """Which answers these are, for one person: "heat" maps, SimCC "xy" or SimCC "yx"."""
        shapes = [np.shape(answer) for answer in answers]
        if any(np.asarray(answer).dtype != np.float32 or np.size(answer) * 4 > LARGEST for answer in answers):
            self._refuse(f"must answer in float32, answers {shapes}")
        joints = {shape[1] for shape in shapes if len(shape) > 2}
        if len(joints) == 1 and joints != {len(COCO_17)}:
            self._refuse(
                f"finds {joints.pop()} joints, must find the {len(COCO_17)} of COCO; take the body model, not a "
                "whole-body or hand model"
            )
        kind = "heat" if len(shapes) == 1 and len(shapes[0]) == 4 and min(shapes[0]) > 0 else self._simcc(shapes)
        if kind is None:
            self._refuse(
                f"must answer SimCC (N, 17, W·r) and (N, 17, H·r) or heat maps (N, 17, h, w), answers {shapes}"
            )
        return kind

    def _simcc(self, shapes: list[tuple[int, ...]]) -> str | None:
        """The order of SimCC's two answers, by their lengths and, for a square input, by their names."""
        if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes):
            return None
        (first, second), (wide, tall), names = (shapes[0][2], shapes[1][2]), self._size, self._session.outputs
        swapped = wide == tall and "y" in names[0] and "x" in names[1]
        if first >= wide and first * tall == second * wide:
            return "yx" if swapped else "xy"
        return "yx" if second >= wide and second * tall == first * wide else None

    def _refuse(self, problem: str) -> NoReturn:
        raise BundleError(f"{self._named}: it {problem}; export an RTMPose body model, or use --pose auto")


def read_simcc(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, V, 2) in units of the input and confidence (N, V) from SimCC peaks x (N, V, W·r), y (N, V, H·r)."""
    places = np.stack((x.argmax(axis=2) / x.shape[2], y.argmax(axis=2) / y.shape[2]), axis=2)
    return places, _confidence(np.minimum(x.max(axis=2), y.max(axis=2)))


def read_heat(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, V, 2) in units of the input and confidence (N, V) from heat maps (N, V, h, w).

    A peak is moved a quarter of a cell to its higher neighbour, the usual reading of such maps.
    """
    count, joints, height, width = maps.shape
    flat = maps.reshape(count, joints, -1)
    peak = flat.argmax(axis=2)
    rows, columns = peak // width, peak % width
    n, v = np.ogrid[:count, :joints]
    right = maps[n, v, rows, np.minimum(columns + 1, width - 1)] - maps[n, v, rows, np.maximum(columns - 1, 0)]
    below = maps[n, v, np.minimum(rows + 1, height - 1), columns] - maps[n, v, np.maximum(rows - 1, 0), columns]
    places = np.stack(((columns + np.sign(right) / 4) / width, (rows + np.sign(below) / 4) / height), axis=2)
    return places, _confidence(flat.max(axis=2))


def _confidence(peaks: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(peaks, nan=0.0), 0, 1).astype(np.float32)
