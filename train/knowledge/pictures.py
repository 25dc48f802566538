"""What pictures of clips say: crops of people, answers about them, image features; clip by clip (log.py)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from train.knowledge.frames import Box, around, pictures_of
from train.knowledge.log import logged


class Detects(Protocol):
    """Boxes of the people in a picture (H, W, 3)."""

    def boxes(self, picture: np.ndarray) -> list[Box]:
        """In pixels, none where nobody is found."""


class Answers(Protocol):
    """A sentence about a picture (H, W, 3)."""

    def answer(self, picture: np.ndarray) -> str:
        """On one line, "" where nothing is said."""


class Sees(Protocol):
    """Features of pictures."""

    width: int

    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """(N, D), not of unit length."""


@dataclass(frozen=True)
class Eyes:
    """The models that look at frames; None for what is not asked for. frames: pictures a clip, at most."""

    detector: Detects | None
    answerer: Answers | None
    image: Sees | None
    frames: int


@dataclass(frozen=True)
class Seen:
    """What was said of a clip, and its image feature (E,): unit length, or None."""

    sentences: list[str]
    feature: np.ndarray | None


def look(eyes: Eyes, folder: Path, name: str) -> dict[str, Any]:
    """The log's line for one clip: crops, answers and the unit mean of the unit image features of its frames."""
    crops, pictures = [], []
    for picture in pictures_of(folder, name, eyes.frames):
        height, width = picture.shape[:2]
        boxes = eyes.detector.boxes(picture) if eyes.detector is not None else []
        left, top, right, bottom = around(boxes, width, height)
        crops.append([left, top, right, bottom])
        pictures.append(np.ascontiguousarray(picture[top:bottom, left:right]))
    line: dict[str, Any] = {"name": name, "crops": crops}
    if eyes.answerer is not None:
        line["sentences"] = [said for picture in pictures if (said := eyes.answerer.answer(picture))]
    if eyes.image is not None:
        units = nn.functional.normalize(eyes.image.encode(pictures).double(), dim=1)
        mean = nn.functional.normalize(units.mean(dim=0), dim=0).float().cpu().numpy()
        line["feature"] = base64.b64encode(mean.astype("<f4").tobytes()).decode()
    return line


def look_at_all(
    eyes: Eyes, folder: Path, names: Sequence[str], log: Path, advance: Callable[[int], None] = lambda _: None
) -> list[Seen]:
    """What is seen of each clip, in order, going on with the log of an earlier run. advance: told of clips as done.

    UsageError where a clip has no pictures; those before it are kept.
    """
    return [_seen(line) for line in logged(names, lambda name: look(eyes, folder, name), log, advance)]


def _seen(line: dict[str, Any]) -> Seen:
    feature = line.get("feature")
    array = None if feature is None else np.frombuffer(base64.b64decode(feature), "<f4").astype(np.float32)
    return Seen(line.get("sentences", []), array)
