"""What calib.thresholds promises of a site: nothing easier without reason, each event counted once, true words."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="calib.thresholds needs what training needs")
pytest.importorskip("matplotlib", reason="calib.thresholds draws with matplotlib")

from calib.fitting import Asked, Fitter
from calib.scored import decide
from realtime.bundle import Bundle
from realtime.schema import SECOND_NS
from tests.calib.sites import ACTIONS, made_bundle, played, site, still
from train.data.clip import Truth


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return made_bundle()


@pytest.mark.parametrize("how", ["recall", "even", "common"])
@pytest.mark.parametrize(("minutes", "per_hour"), [(2, 6.0), (4, 60.0)])
def test_silence_makes_nothing_easier_to_start(bundle: Bundle, how: str, minutes: float, per_hour: float) -> None:
    """Neither in too little time nor in enough of it."""
    fit = Fitter(bundle, [played(still(minutes), "still")]).fit(Asked(per_hour, how))  # type: ignore[arg-type]
    assert (fit.on >= 0.75).all()
    if how == "recall":
        assert fit.on == pytest.approx(0.75)


def test_too_little_labelled_time_makes_nothing_easier_to_start(bundle: Bundle) -> None:
    share = still(1)
    share[40:60] = 0.02, 0.5, 0.02, 0.46
    truths = (Truth("quiet", 10 * SECOND_NS, 15 * SECOND_NS),)
    fit = Fitter(bundle, [played(share, f"short {n}", truths) for n in range(3)]).fit(Asked(6))
    assert fit.counted.recall == 0.0  # a lower threshold would have told it
    assert (fit.on >= 0.75).all()


def test_only_what_is_noisy_is_made_harder_where_nothing_is_labelled(bundle: Bundle) -> None:
    fit = Fitter(bundle, [site(5, 20, {"noisy": 240.0})]).fit(Asked(20))
    on = dict(zip(ACTIONS, fit.on, strict=True))
    assert on["noisy"] > 0.8
    assert on["quiet"] == pytest.approx(0.75)
    assert on["rare"] == pytest.approx(0.75)


def test_one_long_false_event_is_counted_once(bundle: Bundle) -> None:
    share = still(5)
    share[100:-100] = 0.001, 0.001, 0.997, 0.001
    fitter = Fitter(bundle, [played(share, "long")])
    fit = fitter.fit(Asked(60))
    assert len(fitter.parts) == 10  # across all of whose edges it goes
    assert fitter.own().false.tolist() == [0, 1, 0]
    assert fit.fitted.false.sum() <= 1
    assert fit.rate.events <= 1


def test_events_across_the_edges_of_pieces_are_counted_once(bundle: Bundle) -> None:
    share = still(10)
    for edge in range(240, 2400, 240):  # of the ten pieces, in windows
        share[edge - 20 : edge + 20] = 0.01, 0.01, 0.97, 0.01
    fitter = Fitter(bundle, [played(share, "edges")])
    on = fitter.own_on
    each = [fitter.counts(on, number).false.sum() for number in range(10)]
    assert each == [1] * 9 + [0]  # each where it begins
    assert sum(each) == len(decide(bundle, fitter.played[0])) == fitter.own().false.sum()
