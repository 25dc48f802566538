"""Convolutions along time with fewer multiplications: Toom-Cook, also known as Winograd's minimal filtering.

m outputs of an r-tap filter, a tile, are `outputs @ ((taps @ g) * (inputs @ d))` for the taps g and m + r - 1 frames d:
m + r - 1 products instead of m * r. Filter and frames are taken as polynomials and evaluated at as many points, one of
them infinity. Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray, CVPR 2016.

Points of like size lose least: at 16 of them, for 8 outputs of 9 taps, single precision keeps four to five digits of an
output, where the plain sum keeps six to seven; the logits of ten such layers keep about four. Half precision would keep
none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.polynomial import polyfromroots

POINTS = (0, 1, -1, 1 / 2, -1 / 2, 2, -2, 3 / 4, -3 / 4, 4 / 3, -4 / 3, 1 / 4, -4, -1 / 4, 4)  # and infinity


@dataclass(frozen=True)
class Algorithm:
    """y (m,) = outputs (m, P) @ ((taps (P, r) @ g) * (inputs (P, n) @ d)), in double precision."""

    outputs: np.ndarray
    taps: np.ndarray
    inputs: np.ndarray


def minimal_filter(taps: int, tile: int) -> Algorithm:
    """m = tile outputs of r = taps coefficients from n = m + r - 1 frames by P = n products.

    ValueError where that needs more points than there are.
    """
    size = tile + taps - 1
    if size > len(POINTS) + 1:
        raise ValueError(f"tile + taps must be at most {len(POINTS) + 2}, got {tile} + {taps}")
    inputs = _interpolation(size)
    outputs = _powers(size, tile).T
    # Powers of two move size between the factors, so that rounding treats products alike.
    first = 2.0 ** np.round(np.log2(np.abs(inputs).max(axis=1, keepdims=True)))
    last = 2.0 ** np.round(np.log2(np.abs(outputs).max(axis=0)))
    return Algorithm(outputs / last, _powers(size, taps) * first * last[:, None], inputs / first)


def halving_filter(taps: int, tile: int) -> Algorithm:
    """m = tile outputs of r = taps coefficients with stride 2, from n = 2 m + r - 2 frames; r is odd.

    One filter of the even frames and one, shorter by a tap, of the odd ones: P = 2 m + r - 2.
    """
    even, odd = (minimal_filter(size, tile) for size in (taps // 2 + 1, taps // 2))
    split = len(even.taps)
    size = 2 * tile + taps - 2
    coefficients, inputs = np.zeros((size, taps)), np.zeros((size, size))
    coefficients[:split, ::2], coefficients[split:, 1::2] = even.taps, odd.taps
    inputs[:split, ::2], inputs[split:, 1::2] = even.inputs, odd.inputs
    return Algorithm(np.concatenate([even.outputs, odd.outputs], axis=1), coefficients, inputs)


def _interpolation(size: int) -> np.ndarray:
    """(size, size) coefficients of the polynomials that are 1 at one of the points and 0 at the others.

    By Lagrange's formula: an inverse of the powers would lose eight digits.
    """
    points = np.array(POINTS[: size - 1], dtype=np.float64)
    made = np.zeros((size, size))
    for row, point in enumerate(points):
        others = np.delete(points, row)
        made[row, :-1] = polyfromroots(others) / np.prod(point - others)
    made[-1] = polyfromroots(points)  # its leading coefficient is 1: the value at infinity
    return made


def _powers(points: int, count: int) -> np.ndarray:
    """(points, count) powers 0 to count - 1 of the first points; those of the last, infinity, are 0, ..., 0, 1."""
    finite = np.array(POINTS[: points - 1], dtype=np.float64)[:, None] ** np.arange(count)
    return np.concatenate([finite, np.eye(count)[-1:]])
