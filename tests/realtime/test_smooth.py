"""The One-Euro filter: what stays, what follows, what does not depend on the frame rate."""

import numpy as np
import pytest

from realtime.smooth import OneEuro

SECOND = 1_000_000_000


def run(smooth: OneEuro, values: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """(T, ...) values at times in seconds -> (T, ...) smoothed."""
    return np.stack([smooth(value, round(t * SECOND)) for value, t in zip(values, times_s, strict=True)])


def test_what_does_not_move_stays_exactly() -> None:
    body = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
    times = np.cumsum(np.random.default_rng(1).uniform(0.01, 0.2, 50))
    assert (run(OneEuro(), np.repeat(body[None], 50, axis=0), times) == body).all()


def test_a_step_is_followed_without_overshoot_and_reached() -> None:
    times = np.arange(1, 91) / 30
    out = run(OneEuro(), np.r_[0.0, np.ones(89)], times)
    assert (np.diff(out) >= -1e-6).all() and out.max() <= 1 + 1e-6
    assert out[6] > 0.9  # within 0.2 s of a jump by a metre
    assert abs(out[-1] - 1) < 1e-3


def test_without_speed_a_step_is_the_exact_exponential_at_any_frame_rate() -> None:
    for times in (np.arange(1, 61) / 60, np.arange(1, 16) / 15, np.sort(np.random.default_rng(2).uniform(0, 1, 40))):
        out = run(OneEuro(min_cutoff=0.5, beta=0), np.r_[0.0, np.ones(len(times) - 1)], times)
        np.testing.assert_allclose(out, 1 - np.exp(-2 * np.pi * 0.5 * (times - times[0])), atol=1e-5)


@pytest.mark.parametrize("fps", [15, 25, 60])
def test_a_movement_comes_out_the_same_at_any_frame_rate(fps: int) -> None:
    def wave(fps: int) -> np.ndarray:
        times = 1 + np.arange(5 * fps + 1) / fps
        return run(OneEuro(), 0.3 * np.sin(2 * np.pi * 0.7 * times), times)[fps :: fps // 5]  # five times a second

    assert np.abs(wave(fps) - wave(100)).max() < 0.04  # metres, of a swing of 0.6


def test_it_is_quiet_at_rest_and_quick_in_motion() -> None:
    times = np.arange(1, 301) / 30
    noise = np.random.default_rng(3).normal(0, 0.01, 300)
    rest = run(OneEuro(), noise, times)
    assert np.diff(rest).std() < np.diff(noise).std() / 3
    wave = 0.4 * np.sin(2 * np.pi * times)
    moving = run(OneEuro(), wave, times)
    errors = [np.abs(moving[60:] - np.roll(wave, lag)[60:]).mean() for lag in range(6)]
    assert int(np.argmin(errors)) <= 1  # frames


def test_elements_do_not_touch_each_other() -> None:
    times, values = np.arange(1, 31) / 30, np.random.default_rng(4).normal(size=(30, 4)).astype(np.float32)
    together = run(OneEuro(), values, times)
    alone = np.stack([run(OneEuro(), values[:, i], times) for i in range(4)], axis=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_reset_forgets_and_nothing_is_shared_with_the_caller() -> None:
    smooth, value = OneEuro(), np.ones(3, np.float32)
    out = smooth(value, SECOND)
    value[:], out[:] = 7, 7
    np.testing.assert_array_equal(smooth(np.ones(3), 2 * SECOND), np.ones(3))
    smooth.reset()
    np.testing.assert_array_equal(smooth(np.full(2, 5.0), SECOND), [5, 5])  # earlier time, other shape


def test_what_cannot_be_smoothed_is_refused() -> None:
    smooth = OneEuro()
    smooth(np.ones(3), SECOND)
    with pytest.raises(ValueError, match="must grow, got 1000000000"):
        smooth(np.ones(3), SECOND)
    with pytest.raises(ValueError, match="shape must stay"):
        smooth(np.ones(4), 2 * SECOND)
    with pytest.raises(ValueError, match="above 0"):
        OneEuro(min_cutoff=0)
