"""The found floor as a picture: people from the side, as the camera has them and upright."""

from __future__ import annotations

import io

import numpy as np

from calib.floor_bodies import Bodies
from calib.floor_fit import Found
from realtime.errors import UsageError
from realtime.floor import upright_turn
from realtime.skeleton import CORE_16

PEOPLE = 14  # skeletons that are drawn
APART_M = 0.9  # between bodies whose place is not known
_BONES = np.array(CORE_16.bones)


def side_view(bodies: Bodies, found: Found, words: str) -> bytes:
    """A PNG: skeletons seen from the side, left as they came, right turned upright, with camera and floor.

    UsageError where matplotlib, which comes with training, is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--picture needs matplotlib: run `make install-test`, or leave --picture out") from error
    shown = np.flatnonzero(found.standing)
    shown = shown[np.linspace(0, len(shown) - 1, min(PEOPLE, len(shown))).astype(int)] if len(shown) else shown
    joints = bodies.joints[shown]
    if bodies.centred:  # they would lie in one place
        joints = joints + np.arange(1, len(joints) + 1)[:, None, None] * np.array((0, 0, APART_M))
    turn = upright_turn(found.up)
    upright = joints @ turn.T + (0, found.height_m or 0.0, 0)
    figure = Figure(figsize=(9.5, 3.9), dpi=100)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    view = np.array((0.0, 0.0, 1.0))
    _draw(left, joints, view * 0, view, "as the camera has them")
    _draw(right, upright, np.array((0, found.height_m or 0.0, 0)), turn @ view, "upright")
    if found.height_m is not None:
        right.axhline(0, color="#7a5c3a", linewidth=2)
        right.annotate("floor", (0.02, 0), xycoords=("axes fraction", "data"), xytext=(0, 3),
                       textcoords="offset points", color="#7a5c3a")  # fmt: skip
        _floor_line(left, found)
    figure.suptitle(words, fontsize=9, wrap=True)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _draw(axes, joints: np.ndarray, camera: np.ndarray, view: np.ndarray, title: str) -> None:  # type: ignore[no-untyped-def]
    for body in joints:
        ends = body[_BONES]  # (bones, 2, 3)
        axes.plot(ends[:, :, 2].T, ends[:, :, 1].T, color="#3467a8", linewidth=1, alpha=0.7)
    axes.plot(camera[2], camera[1], marker="s", color="black", markersize=7)
    axes.annotate("", camera[[2, 1]] + 0.8 * view[[2, 1]], camera[[2, 1]], arrowprops={"arrowstyle": "->"})
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("away from the camera, m")
    axes.set_ylabel("up, m")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)


def _floor_line(axes, found: Found) -> None:  # type: ignore[no-untyped-def]
    """The floor in the camera's own space, straight ahead of it: up · (0, y, z) = -height."""
    low, high = axes.get_xlim()
    z = np.array((max(low, 0.3), high))
    if abs(found.up[1]) > 0.2 and found.height_m is not None:
        axes.plot(z, (-found.height_m - found.up[2] * z) / found.up[1], color="#7a5c3a", linewidth=2)
