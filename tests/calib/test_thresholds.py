"""Thresholds of a site: on made-up scores whose false rate is known, what is promised comes true on a fresh hour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="calib.thresholds needs what training needs")
pytest.importorskip("matplotlib", reason="calib.thresholds draws with matplotlib")

from calib.allot import Curves, allot, levels, shifted
from calib.counts import Counts, confusions, count
from calib.fitting import Asked, Fit, Fitter, folds_of, with_thresholds
from calib.labels import UNKNOWN, best_temperature, labels_of
from calib.poisson import expected, hours_for, rate
from calib.rejecting import auroc, fit_rejection, fit_temperature, passed
from calib.scored import Played, decide, parts_of
from calib.telling import taught, verdict
from calib.thresholds import Config, run, wanted
from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.calibration import load_calibration
from realtime.errors import SourceError, UsageError
from realtime.schema import SECOND_NS
from realtime.thresholds import Thresholds
from tests.calib.sites import ACTIONS, CLASSES, PER_S, QUIET, made_bundle, site
from train.data.clip import Truth
from train.scoring import Detection


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return made_bundle()


def measured(bundle: Bundle, fit: Fit, played: Played) -> Counts:
    return count(played, decide(with_thresholds(bundle, fit.on, fit.off), played), ACTIONS)


@pytest.mark.parametrize("how", ["recall", "even", "common"])
def test_a_promised_rate_comes_true_on_a_fresh_hour(bundle: Bundle, how: str) -> None:
    bumps = {"noisy": 200.0, "quiet": 20.0}
    fit = Fitter(bundle, [site(n, 20, bumps, 2) for n in range(4)]).fit(Asked(30, how))  # type: ignore[arg-type]
    fresh = measured(bundle, fit, site(99, 120, bumps, 2))
    assert fit.crossed
    assert 15 <= fit.rate.per_hour <= 30 * 1.001
    assert 15 <= fresh.per_hour <= 60
    assert fresh.recall == pytest.approx(fit.counted.recall, abs=0.15)


def test_the_noisy_action_gets_the_high_threshold(bundle: Bundle) -> None:
    played = [site(n, 20, {"noisy": 200.0}, 2) for n in range(4)]
    fit = Fitter(bundle, played).fit(Asked(30))
    quiet, noisy, rare = fit.on
    assert noisy > max(quiet, rare) + 0.1
    assert (fit.off < fit.on).all()
    assert fit.off / fit.on == pytest.approx(0.7 / 0.75)
    even = Fitter(bundle, played).fit(Asked(30, "common"))
    assert fit.counted.recall is not None
    assert even.counted.recall is not None
    assert fit.counted.recall > even.counted.recall


def test_ordinary_life_alone_is_enough_for_a_rate(bundle: Bundle) -> None:
    bumps = {"noisy": 120.0, "quiet": 30.0}
    fit = Fitter(bundle, [site(5, 60, bumps)]).fit(Asked(30))
    assert fit.crossed  # one recording is cut into pieces
    assert fit.counted.recall is None
    assert measured(bundle, fit, site(77, 120, bumps)).per_hour == pytest.approx(fit.rate.per_hour, rel=0.7)


def test_what_does_happen_there_is_no_false_alarm(bundle: Bundle) -> None:
    played = [site(5, 60, {"noisy": 120.0})]
    fit = Fitter(bundle, played).fit(Asked(5, happens=("noisy",)))
    assert fit.on[ACTIONS.index("noisy")] == 0.75
    assert fit.rate.events == 0
    assert not fit.confused


def test_no_event_leaves_three_over_the_time(bundle: Bundle) -> None:
    found = rate(0, 0.5)
    assert (found.low, found.per_hour) == (0.0, 0.0)
    assert found.high == pytest.approx(3 / 0.5, rel=0.01)
    assert hours_for(60) == pytest.approx(3 / 60, rel=0.01)
    fit = Fitter(bundle, [site(1, 2, {})]).fit(Asked(60))
    said = verdict(fit, 60, bundle, [site(1, 2, {})])
    assert "TOO LITTLE DATA" in said
    assert "at least 3 minutes" in said


@pytest.mark.parametrize(("events", "low", "high"), [(1, 0.0253, 5.572), (10, 4.795, 18.39), (100, 81.36, 121.6)])
def test_intervals_are_the_published_ones(events: int, low: float, high: float) -> None:
    found = rate(events, 1.0)
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-3), pytest.approx(high, rel=1e-3))


@pytest.mark.parametrize(("events", "hours"), [(-1, 1.0), (1, 0.0), (1, float("nan"))])
def test_a_rate_of_no_time_is_refused(events: int, hours: float) -> None:
    with pytest.raises(ValueError, match="a rate needs"):
        rate(events, hours)


def test_verdicts_name_what_may_be_believed(bundle: Bundle) -> None:
    fit = Fitter(bundle, [site(n, 20, {"noisy": 200.0}, 2) for n in range(4)]).fit(Asked(30))
    played = [site(0, 20, {}, 2)]
    assert "GOOD" in verdict(replace(fit, rate=rate(30, 1.0)), 30, bundle, played)
    assert "UNSURE" in verdict(replace(fit, rate=rate(3, 0.2)), 20, bundle, played)
    assert "NOT REACHED" in verdict(replace(fit, rate=rate(300, 1.0)), 30, bundle, played)
    assert "give a second one" in verdict(replace(fit, crossed=False), 30, bundle, played)
    dim = replace(site(0, 20, {}), seen_ns=SECOND_NS)
    assert "in sight for less than half" in verdict(fit, 30, bundle, [dim])


def test_people_whom_training_saw_are_named(bundle: Bundle) -> None:
    played = [replace(site(n, 1, {}, 2), group=f"msrc12 {n}") for n in (8, 9)]
    assert taught(bundle, played) == ["msrc12 8"]
    assert taught(bundle, [replace(played[0], truths=None)]) == []
    spaced = replace(bundle, training={**bundle.training, "held_out": ["msrc12:10, 09"]})  # as train.fit takes it
    assert taught(spaced, played) == ["msrc12 8"]


def test_people_are_left_out_whole() -> None:
    played = [replace(site(n, 1, {}), group=f"set {n // 2}") for n in range(12)]
    folds = folds_of(played)
    assert sorted(n for fold in folds for n in fold) == list(range(12))
    assert all((n ^ 1) in fold for fold in folds for n in fold)
    assert folds_of(played[:1]) == [[0]]


def test_pieces_add_up_to_the_recording() -> None:
    whole = site(3, 10, {"noisy": 60.0})
    pieces = parts_of(whole, 7)
    assert sum(piece.played.seen_ns for piece in pieces) == pytest.approx(whole.seen_ns, rel=1e-6)
    found = [Detection("noisy", at * SECOND_NS, (at + 1) * SECOND_NS, at * SECOND_NS) for at in range(-1, 601)]
    assert [one for piece in pieces for one in piece.own(found)] == found
    labelled = site(3, 10, {}, 2)
    assert [part.played for part in parts_of(labelled, 7)] == [labelled]


def test_a_budget_goes_where_it_costs_least_recall() -> None:
    on = levels()
    false, matched = np.zeros((2, 1, 2, len(on)), int)
    false[0, 0] = np.where(on < 0.9, 50, 0)
    matched[0] = np.where(on < 0.95, 10, 0)
    curves = Curves(false, matched, np.full((1, 2), 10), np.array([1.0]))
    first, second = allot(curves, on, 10.0)
    assert 0.9 <= first < 0.95
    assert second < 0.95
    assert shifted(on, 0.0) == pytest.approx(on)
    assert (shifted(on, 1.0) > on).all()


def test_expected_counts_keep_their_sum() -> None:
    assert sum(expected([0, 0, 12, 4], 0.5)) == pytest.approx(16)
    assert expected([0, 0], 0.5) == [0.0, 0.0]
    none, many = expected([0, 12], 0.5)
    assert 0 < none < many < 12


def test_a_known_temperature_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 5)) * 2
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (share.cumsum(axis=1) > rng.random((20000, 1))).argmax(axis=1)
    assert best_temperature(2.5 * logits, labels) == pytest.approx(2.5, rel=0.05)
    with pytest.raises(ValueError, match="got none"):
        best_temperature(logits[:0], labels[:0])


def test_a_temperature_of_nothing_alone_is_not_fitted(bundle: Bundle) -> None:
    logits = np.zeros((500, 4))
    assert fit_temperature(bundle, logits, np.zeros(500, int)).bundle.temperature == bundle.temperature
    assert fit_temperature(bundle, logits, np.full(500, UNKNOWN)).before is None


def test_windows_are_labelled_from_the_middle_of_an_action(bundle: Bundle) -> None:
    played = replace(site(0, 1, {}), truths=(Truth("quiet", 20 * SECOND_NS, 24 * SECOND_NS),))
    labels = labels_of(bundle, played)
    named = np.flatnonzero(labels == CLASSES.index("quiet")) / PER_S
    assert (named.min(), named.max()) == (pytest.approx(21.75, abs=0.25), 24.0)  # half of a window of 3.2 s
    assert (np.delete(labels, (named * PER_S).astype(int)) == UNKNOWN).all()
    points = replace(played, truths=(Truth("quiet", 20 * SECOND_NS, 20 * SECOND_NS),), point_truth=True)
    labels = labels_of(bundle, points)
    assert labels[40 * PER_S] == 0  # a set that marks every gesture has none here
    assert labels[19 * PER_S] == UNKNOWN
    assert labels[20 * PER_S] == CLASSES.index("quiet")
    assert (labels_of(bundle, site(0, 1, {})) == UNKNOWN).all()


def test_events_are_counted_by_action(bundle: Bundle) -> None:
    played = replace(
        site(0, 1, {}), truths=(Truth("quiet", 0, 4 * SECOND_NS), Truth("outside: dance", 10**10, 12 * SECOND_NS))
    )
    found = [Detection("quiet", 0, 4 * SECOND_NS, 10**9), Detection("noisy", 10**10, 12 * SECOND_NS, 10**10)]
    counted = count(played, found, ACTIONS)
    assert counted.truths.tolist() == [1, 0, 0]
    assert counted.matched.tolist() == [1, 0, 0]
    assert counted.false.tolist() == [0, 1, 0]
    assert counted.hours == pytest.approx(56 / 3600)
    assert confusions(played, found) == {("dance", "noisy"): 1}
    assert confusions(played, []) == {("quiet", "nothing"): 1}
    assert confusions(played, [Detection("rare", 40 * SECOND_NS, 41 * SECOND_NS, 0)])["nothing", "rare"] == 1
    assert count(replace(played, truths=None), found, ACTIONS, ("quiet",)).false.tolist() == [0, 1, 0]


def test_a_level_keeps_the_share_it_is_asked_to(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, 1000)
    logits = rng.normal(size=(1000, 4)) + 8 * np.eye(4)[labels]
    made = fit_rejection(fit_temperature(bundle, logits, labels), logits, logits, labels, "margin", 0.9)
    assert made.rejection is not None
    top = np.sort(logits, axis=1)
    assert (top[:, -1] - top[:, -2] >= made.rejection.level).mean() == pytest.approx(0.9, abs=0.02)
    with pytest.raises(UsageError, match="only 0 of the 100"):
        fit_rejection(made, logits[:5], logits[:5], np.zeros(5, int), "margin", 0.9)


def test_auroc_is_the_chance_of_the_right_order() -> None:
    assert auroc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auroc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert passed(np.arange(100.0), np.array([2.0, 50.0])) == 0.5
    with pytest.raises(ValueError, match="both kinds"):
        auroc(np.array([]), np.array([1.0]))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "nothing to measure on"),
        ({"generated": 1, "false_per_hour": 0.0}, "above 0"),
        ({"generated": 1, "keep": 1.0}, "--keep"),
        ({"generated": 1, "happens": ("walk",)}, "--happens"),
        ({"generated": 1, "subjects": ("9",)}, "--subjects"),
        ({"generated": -1}, "--generated"),
        ({"nothing": (Path("no.mcap"),)}, "no such file"),
        ({"nothing": (Path(__file__),), "reject": "energy"}, "labelled"),
        ({"nothing": (Path(__file__),), "happens": ("cartwheel",)}, "no such action"),
        ({"data": ("elsewhere:here",)}, "NAME:PATH"),
    ],
)
def test_flags_that_cannot_be_are_one_line(tmp_path: Path, flags: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(Config(**{"out": tmp_path / "out.json", "false_per_hour": 6.0, **flags}), QUIET)
    assert not list(tmp_path.iterdir())


def test_a_file_is_never_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(UsageError, match="--replace"):
        run(Config(out=tmp_path / "out.json", false_per_hour=6.0, generated=1), QUIET)
    with pytest.raises(UsageError, match="is a folder"):
        run(Config(out=tmp_path, false_per_hour=6.0, generated=1), QUIET)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "life.mcap").write_bytes(b"not one")
    with pytest.raises(SourceError, match="damaged"):
        run(Config(out=tmp_path / "out.json", false_per_hour=6.0, nothing=(tmp_path / "life.mcap",)), QUIET)


def test_subjects_are_of_every_set_or_of_one() -> None:
    names = ("msrc12", "utkinect")
    assert wanted(("9", "utkinect:06,7"), names) == {"msrc12": {"9"}, "utkinect": {"9", "6", "7"}}
    with pytest.raises(UsageError, match="names a set"):
        wanted(("sbu:1",), names)
    with pytest.raises(UsageError, match="must be people"):
        wanted(("msrc12:",), names)


@pytest.mark.slow
def test_the_whole_tool_on_generated_people(tmp_path: Path) -> None:
    out, pictures = tmp_path / "out.json", tmp_path / "pictures"
    assert run(Config(out=out, false_per_hour=60.0, generated=4, pictures=pictures), QUIET) == 0
    thresholds = load_calibration(out).thresholds
    assert isinstance(thresholds, Thresholds)
    here = thresholds.applied(load_bundle(default_bundle()))
    assert all(0 < action.off <= action.on < 1 for action in here.actions)
    said = thresholds.measured
    assert said["recordings"] == 4
    assert said["interval_95"][0] <= said["false_per_hour"] <= said["interval_95"][1]
    assert sum(one.far_per_h or 0 for one in thresholds.actions.values()) == pytest.approx(
        said["false_per_hour"], abs=0.1
    )
    assert {path.name for path in pictures.iterdir()} == {"operating.png", "thresholds.png", "confusion.png"}


@pytest.mark.slow
def test_sixty_an_hour_on_strangers_is_sixty_within_a_factor_of_two(shared: Path, tmp_path: Path) -> None:
    import tarfile

    from calib.scored import play_labelled, tempered
    from calib.thresholds import fit
    from realtime.backends import open_engine
    from train.data import read

    bundle = load_bundle(default_bundle())
    for name in ("msrc12_p01-p10", "utkinect_s01-s06"):
        archive = shared / "data" / f"{name}.tar.xz"
        if not archive.is_file():
            pytest.skip(f"research material is not there: {archive}")
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path / name, filter="data")
    engine = open_engine(bundle, "ort", precision="fp32")

    def played(data: str, folder: str, subject: int) -> list[Played]:
        return [play_labelled(bundle, engine, one) for one in read(data, tmp_path / folder, {subject})]  # type: ignore[arg-type]

    nine = played("msrc12", "msrc12_p01-p10", 9)
    strangers = played("msrc12", "msrc12_p01-p10", 10) + played("utkinect", "utkinect_s01-s06", 6)
    found, made, _ = fit(Config(out=tmp_path, false_per_hour=60.0), bundle, nine, QUIET)
    here, total = with_thresholds(made.bundle, found.on, found.off), None
    for one in strangers:
        counted = count(one, decide(here, tempered(here, one, made.rejection)), tuple(a.id for a in bundle.actions))
        total = counted if total is None else total + counted
    assert total is not None
    assert 30 <= total.per_hour <= 120
    assert total.recall is not None
    assert total.recall > 0.7
