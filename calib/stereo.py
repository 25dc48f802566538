"""How two cameras that see the same board stand to each other: a least-squares fit, and how far it may be believed.

The unknowns are the motion between the cameras and the board's pose in each pair; the lenses are given. Gauss-Newton
with Levenberg's damping on the residuals in pixels of both cameras (Hartley and Zisserman, Multiple View Geometry,
A6.3); each pair's own pose is eliminated (Schur), so many pairs cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calib import vision
from realtime.lens import Lens
from realtime.rig import Rig, make_rig

FOLDS = 5
STEPS = 30
TINY = 1e-6  # step of the numeric derivatives: radians, and metres


@dataclass(frozen=True, slots=True)
class Pair:
    """One board seen by both: points (n, 3) metres of the board, and where the two cameras see them (n, 2)."""

    name: str
    points: np.ndarray
    depth: np.ndarray
    color: np.ndarray


@dataclass(frozen=True, slots=True)
class Stereo:
    """rig, RMS pixels of all corners, of each pair (n,), and standard deviations of the motion.

    unsure_m: (3,) of the translation; unsure_deg: (3,) of the rotation. tilts: (n, 3) normals of the boards.
    """

    rig: Rig
    rms_px: float
    errors: np.ndarray
    unsure_m: np.ndarray
    unsure_deg: np.ndarray
    normals: np.ndarray


@dataclass
class _State:
    """What is fitted: the motion between the cameras, and each board's pose in the depth camera."""

    turn: np.ndarray  # (3, 3)
    move: np.ndarray  # (3,)
    turns: list[np.ndarray]  # of each board
    moves: list[np.ndarray]

    def stepped(self, shared: np.ndarray, own: Sequence[np.ndarray]) -> _State:
        turns = [vision.rotation(step[:3]) @ turn for step, turn in zip(own, self.turns, strict=True)]
        moves = [move + step[3:] for step, move in zip(own, self.moves, strict=True)]
        return _State(vision.rotation(shared[:3]) @ self.turn, self.move + shared[3:], turns, moves)


def start_of(pair: Pair, color: Lens, depth: Lens) -> tuple[np.ndarray, np.ndarray]:
    """The motion from the depth to the colour camera (rotation, translation) that one pair alone tells."""
    turn_d, move_d = _pose(pair.points, pair.depth, depth)
    turn_c, move_c = _pose(pair.points, pair.color, color)
    turn = turn_c @ turn_d.T
    return turn, move_c - turn @ move_d


def angle_of(turn: np.ndarray) -> float:
    """Degrees by which a rotation (3, 3) turns."""
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


def fit_stereo(pairs: Sequence[Pair], color: Lens, depth: Lens) -> Stereo:
    """The motion that explains these pairs best. At least two pairs; the RMS is of residuals' lengths, as OpenCV's."""
    state = _start(pairs, color, depth)
    residuals = _residuals(state, pairs, color, depth)
    cost, damping = _cost(residuals), 1e-4
    for _ in range(STEPS):
        shared, own, _ = _normal_step(state, pairs, color, depth, residuals, damping)
        trial = state.stepped(shared, own)
        tried = _residuals(trial, pairs, color, depth)
        better = _cost(tried)
        if not better < cost:
            damping *= 10
            if damping > 1e6:
                break
            continue
        done = cost - better < 1e-10 * cost
        state, residuals, cost, damping = trial, tried, better, max(damping / 10, 1e-9)
        if done:
            break
    _, _, information = _normal_step(state, pairs, color, depth, residuals, 0.0)
    count = sum(one.size for one in residuals)
    spread = np.linalg.pinv(information) * cost / max(count - 6 - 6 * len(pairs), 1)
    unsure = np.sqrt(np.maximum(np.diag(spread), 0))
    errors = np.array([_rms(one) for one in residuals])
    normals = np.array([turn[:, 2] for turn in state.turns])
    rig = make_rig(color, depth, state.turn, state.move)
    return Stereo(rig, _rms(np.concatenate(residuals)), errors, unsure[3:], np.degrees(unsure[:3]), normals)


def hold_out(pairs: Sequence[Pair], color: Lens, depth: Lens) -> float:
    """RMS pixels in the colour picture of boards placed by the depth camera alone, in pairs that were left out."""
    errors = []
    for fold in range(min(FOLDS, len(pairs))):
        rest = [pair for place, pair in enumerate(pairs) if place % FOLDS != fold]
        rig = fit_stereo(rest, color, depth).rig
        for pair in pairs[fold::FOLDS]:
            turn, move = _pose(pair.points, pair.depth, depth)
            there = (pair.points @ turn.T + move) @ np.array(rig.rotation).T + rig.translation_m
            errors.append(pair.color - color.pixels(there))
    return _rms(np.concatenate(errors))


def _pose(points: np.ndarray, seen: np.ndarray, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    return vision.solve_pose(points, lens.rays(seen, lens.width, lens.height))


def _start(pairs: Sequence[Pair], color: Lens, depth: Lens) -> _State:
    """Each board as the depth camera sees it, and the motion of the middle pair."""
    motions = [start_of(pair, color, depth) for pair in pairs]
    middle = np.median([move for _, move in motions], axis=0)
    turn, move = min(motions, key=lambda motion: float(np.linalg.norm(motion[1] - middle)))
    poses = [_pose(pair.points, pair.depth, depth) for pair in pairs]
    return _State(turn, move, [pose[0] for pose in poses], [pose[1] for pose in poses])


def _residuals(state: _State, pairs: Sequence[Pair], color: Lens, depth: Lens) -> list[np.ndarray]:
    """For each pair (2 n, 2): seen minus expected, in the depth and then the colour picture."""
    found = []
    for pair, turn, move in zip(pairs, state.turns, state.moves, strict=True):
        placed = pair.points @ turn.T + move
        moved = placed @ state.turn.T + state.move
        found.append(np.concatenate([pair.depth - depth.pixels(placed), pair.color - color.pixels(moved)]))
    return found


def _normal_step(
    state: _State, pairs: Sequence[Pair], color: Lens, depth: Lens, residuals: Sequence[np.ndarray], damping: float
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """A step of the motion (6,) and of each board (6,), and the motion's information matrix (6, 6)."""
    matrix, right = np.zeros((6, 6)), np.zeros(6)
    kept = []
    for place, pair in enumerate(pairs):
        of_motion, of_board = _slopes(state, place, pair, color, depth)
        wrong = residuals[place].ravel()
        board = of_board.T @ of_board
        board[np.diag_indices(6)] *= 1 + damping
        mixed, towards = of_motion.T @ of_board, of_board.T @ wrong
        inverse = np.linalg.pinv(board)
        matrix += of_motion.T @ of_motion - mixed @ inverse @ mixed.T
        right += of_motion.T @ wrong - mixed @ inverse @ towards
        kept.append((inverse, mixed, towards))
    damped = matrix.copy()
    damped[np.diag_indices(6)] *= 1 + damping
    shared = np.linalg.pinv(damped) @ right
    return shared, [inverse @ (towards - mixed.T @ shared) for inverse, mixed, towards in kept], matrix


def _slopes(state: _State, place: int, pair: Pair, color: Lens, depth: Lens) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives (4 n, 6) of where a pair's corners are expected, by the motion and by the board's pose."""
    one = _State(state.turn, state.move, [state.turns[place]], [state.moves[place]])
    base = _residuals(one, [pair], color, depth)[0]
    columns = []
    for index in range(12):
        step = np.zeros(12)
        step[index] = TINY
        moved = _residuals(one.stepped(step[:6], [step[6:]]), [pair], color, depth)[0]
        columns.append((base - moved).ravel() / TINY)
    slopes = np.stack(columns, axis=1)
    return slopes[:, :6], slopes[:, 6:]


def _cost(residuals: Sequence[np.ndarray]) -> float:
    return float(sum((one**2).sum() for one in residuals))


def _rms(residuals: np.ndarray) -> float:
    return float(np.sqrt((residuals**2).sum(axis=1).mean()))
