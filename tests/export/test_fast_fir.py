"""Fast filters are the plain sum, and lose as few digits as they say."""

import numpy as np
import pytest

from export.fast_fir import Algorithm, halving_filter, minimal_filter


def filtered(algorithm: Algorithm, taps: np.ndarray, frames: np.ndarray) -> np.ndarray:
    return algorithm.outputs @ ((algorithm.taps @ taps) * (algorithm.inputs @ frames))


@pytest.mark.parametrize(("taps", "tile", "products"), [(9, 8, 16), (9, 4, 12), (5, 8, 12), (4, 8, 11), (3, 2, 4)])
def test_a_tile_is_the_plain_sum_with_as_many_products_as_frames(taps, tile, products):
    rng = np.random.default_rng(0)
    made = minimal_filter(taps, tile)
    g, d = rng.normal(size=taps), rng.normal(size=products)
    assert made.inputs.shape == (products, products) and len(made.taps) == products
    np.testing.assert_allclose(filtered(made, g, d), np.correlate(d, g), atol=1e-9)


def test_a_stride_of_two_takes_every_second_output():
    rng = np.random.default_rng(1)
    made = halving_filter(9, 8)
    g, d = rng.normal(size=9), rng.normal(size=23)
    assert made.inputs.shape == (23, 23)
    np.testing.assert_allclose(filtered(made, g, d), np.correlate(d, g)[::2], atol=1e-9)


def test_single_precision_keeps_four_digits_of_a_layer():
    rng = np.random.default_rng(2)
    made = minimal_filter(9, 8)
    frames = np.maximum(rng.normal(size=(16, 64, 40)), 0).astype(np.float32)  # frames, channels, windows
    weights = rng.normal(size=(32, 64, 9))
    evaluated = np.tensordot(made.inputs.astype(np.float32), frames, 1)
    products = np.einsum("pr,ocr->poc", made.taps, weights).astype(np.float32) @ evaluated
    found = np.tensordot(made.outputs.astype(np.float32), products, 1)
    expected = np.stack([np.einsum("ocr,rcn->on", weights, frames[t : t + 9].astype(np.float64)) for t in range(8)])
    assert 1e-7 < np.abs(found - expected).max() / np.abs(expected).max() < 3e-4


def test_too_long_a_tile_is_refused():
    with pytest.raises(ValueError, match=r"tile \+ taps must be at most 17, got 9 \+ 9"):
        minimal_filter(9, 9)
