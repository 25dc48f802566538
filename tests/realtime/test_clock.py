"""Steps of the wall clock and sleep of the machine."""

from __future__ import annotations

import pytest

from realtime.clock import Clock, Sleep

CLOCK = Clock(5_000_000_000, 1_790_856_000_000_000_000)  # 2026-10-01T12:00:00Z


@pytest.mark.parametrize(("step_s", "way"), [(3600, "forward"), (-3600, "back"), (-1.5, "back")])
def test_a_step_of_the_wall_clock_changes_reported_utc_alone(step_s, way):
    later_ns = CLOCK.mono_ns + 10_000_000_000
    now = Clock(later_ns, CLOCK.utc_ns + 10_000_000_000 + round(step_s * 1e9))
    clock, said = CLOCK.checked(now)
    assert said.startswith(f"the wall clock went {way} by {abs(step_s):.1f} s")
    assert clock.utc(later_ns) == Clock(later_ns, now.utc_ns).utc(later_ns)
    assert clock.seconds(later_ns) == CLOCK.seconds(later_ns) == 10.0  # media time goes on
    assert clock.checked(now) == (clock, None)


def test_a_slow_drift_under_a_second_is_left_alone():
    assert CLOCK.checked(Clock(CLOCK.mono_ns, CLOCK.utc_ns + 900_000_000)) == (CLOCK, None)
    assert Clock.now().checked()[1] is None


def test_sleep_is_told_once_with_its_length():
    behind = iter([100, 100 + 40_000, 3_600_000_000_100, 3_600_000_000_100])
    sleep = Sleep(lambda: next(behind))
    assert [sleep.slept_s() for _ in range(3)] == [0.0, pytest.approx(3600, rel=1e-6), 0.0]
    assert Sleep().slept_s() == 0.0
