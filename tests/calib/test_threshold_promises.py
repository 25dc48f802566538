"""What calib.thresholds promises of a site: nothing easier without reason, each event counted once, true words."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("scipy", reason="calib.thresholds needs what training needs")
pytest.importorskip("matplotlib", reason="calib.thresholds draws with matplotlib")

from calib.fitting import Asked, Fit, Fitter, with_thresholds
from calib.poisson import rate
from calib.rejecting import Fitted, fit_temperature
from calib.scored import Played, decide, play_nothing, tempered
from calib.telling import summary, verdict
from calib.threshold_file import content
from calib.thresholds import Config, check, fit
from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.errors import UsageError
from realtime.rejection import Rejection
from realtime.schema import SECOND_NS, Scores, Window
from tests.calib.sites import ACTIONS, PER_S, QUIET, made_bundle, played, site, still
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


def labelled(seed: int, right: float = 1.0) -> Played:
    """Five minutes with an action every eight seconds, told by its own name in this share of cases."""
    rng, share, truths = np.random.default_rng(seed), still(5), []
    for at in range(40, len(share) - 40, 8 * PER_S):
        action = int(rng.integers(1, 4))
        told = action if rng.random() < right else int(rng.integers(1, 4))
        share[at : at + 12] = 0.002
        share[at : at + 12, told] = 0.994
        truths.append(Truth(ACTIONS[action - 1], at * SECOND_NS // PER_S, (at + 12) * SECOND_NS // PER_S))
    return played(share, f"labelled {seed}", tuple(truths))


def fitted(bundle: Bundle, recordings: list[Played], console: Console = QUIET, **flags: object) -> tuple[Fit, Fitted]:
    config = Config(**{"out": Path("none.json"), "false_per_hour": 60.0, **flags})  # type: ignore[arg-type]
    found, made, _ = fit(config, bundle, recordings, console)
    return found, made


def low_logits(seed: int) -> Played:
    """Ten minutes of right and wrong events alike in probability; the wrong ones, and some right, have low logits."""
    rng = np.random.default_rng(seed)
    logits, truths = np.tile([8.0, 0.0, 0.0, 0.0], (10 * 60 * PER_S, 1)), []
    for k, at in enumerate(rng.permutation(len(logits) // 32)[:60] * 32):
        action, true = 1 + int(rng.integers(3)), k < 30
        logits[at : at + 12] = -300
        logits[at : at + 12, action] = (6 if k % 8 == 0 else 14) if true else 9
        if true:
            truths.append(Truth(ACTIONS[action - 1], int(at) * SECOND_NS // PER_S, (int(at) + 12) * SECOND_NS // PER_S))
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    one = played(
        share / share.sum(axis=1, keepdims=True), f"low {seed}", tuple(sorted(truths, key=lambda t: t.start_ns))
    )
    steps = [
        replace(step, scores=[replace(step.scores[0], logits=row)])
        for step, row in zip(one.steps, logits.astype(np.float32), strict=True)
    ]
    return replace(one, steps=steps)


def test_auto_takes_what_meets_the_rate_before_what_keeps_recall(bundle: Bundle) -> None:
    found, made = fitted(bundle, [low_logits(seed) for seed in range(3)], false_per_hour=30.0, keep=0.8)
    assert made.rejection is not None
    assert found.met(30.0)


def test_auto_does_without_a_rejection_that_cannot_be_fitted_and_says_so(bundle: Bundle) -> None:
    share = still(3)
    share[400:412] = 0.05, 0.9, 0.03, 0.02
    truths = (Truth("quiet", 102 * SECOND_NS, 102 * SECOND_NS),)
    said = Console(file=io.StringIO(), width=300)
    _, made = fitted(bundle, [replace(played(share, "point", truths), point_truth=True)], said)
    assert made.rejection is None
    assert "--reject auto does without logit, margin" in said.file.getvalue()  # type: ignore[attr-defined]


def test_what_happens_is_told_as_before_beside_labelled_recordings(bundle: Bundle) -> None:
    life = still(5)
    for at in range(40, len(life) - 40, 160):
        life[at : at + 20] = 0.1, 0.01, 0.88, 0.01
    recordings = [labelled(1, 0.6), labelled(2, 0.6), played(life, "life")]
    found, made = fitted(bundle, recordings, happens=("noisy",), nothing=(Path("life"),))
    assert made.bundle.temperature == bundle.temperature
    assert made.rejection is None
    here, one = with_thresholds(made.bundle, found.on, found.off), recordings[-1]
    told = [len([e for e in decide(b, tempered(b, one)) if e.label == "noisy"]) for b in (bundle, here)]
    assert told[0] == told[1] > 0
    assert "--happens" in summary(found, made, found.counted)


@pytest.mark.parametrize("count", [1, 4])
def test_the_bundle_s_own_stay_where_nothing_can_be_gained(bundle: Bundle, count: int) -> None:
    own = (0.6, 0.75, 0.9)
    uneven = with_thresholds(bundle, np.array(own))
    recordings = [labelled(seed) for seed in range(count)]
    fit = Fitter(uneven, recordings).fit(Asked(60))
    assert fit.kept and fit.crossed and fit.counted.recall == 1.0 and fit.rate.events == 0
    np.testing.assert_array_equal(fit.on, own)
    common = Fitter(uneven, recordings).fit(Asked(60, "common"))  # as asked for
    assert not common.kept and len(set(common.on.round(6))) == 1


def test_what_happens_and_rejection_exclude_each_other() -> None:
    config = Config(out=Path("none.json"), false_per_hour=6.0, happens=("walk",), nothing=(Path(__file__),),
                    generated=1, reject="margin")  # fmt: skip
    with pytest.raises(UsageError, match="leave one of the two out"):
        check(config)


@pytest.mark.parametrize(
    ("known", "kind", "why"), [(0, 1, "only labelled"), (40, 1, "only 40 windows"), (200, 0, "no window of an action")]
)
def test_the_reason_for_the_bundle_s_temperature_is_the_true_one(
    bundle: Bundle, known: int, kind: int, why: str
) -> None:
    labels = np.where(np.arange(500) < known, kind, -1)
    assert why in fit_temperature(bundle, np.zeros((500, 4)), labels).why


def test_no_rate_is_made_up_for_what_happens(bundle: Bundle) -> None:
    one = site(5, 5, {"noisy": 120.0, "quiet": 120.0})
    fit = Fitter(bundle, [one]).fit(Asked(60, happens=("noisy",)))
    document = content(60, "recall", bundle, fit, unfitted(bundle), fit.counted, [one])
    rates = {name: action["far_per_h"] for name, action in document["actions"].items()}
    assert rates.pop("noisy") is None
    assert sum(rates.values()) == pytest.approx(fit.rate.per_hour, rel=1e-3)
    assert fit.rate.events > 0
    assert document["measured"]["happens"] == ["noisy"]


def unfitted(bundle: Bundle) -> Fitted:
    return Fitted(bundle, 0, None, None, np.zeros((4, 4), int))


def test_the_file_decides_as_it_was_counted(bundle: Bundle) -> None:
    one = played(still(3), "still")
    steep = replace(bundle, actions=tuple(replace(action, on=0.75, off=4e-5) for action in bundle.actions))
    fit = Fitter(steep, [one]).fit(Asked(60))
    made = replace(unfitted(steep), rejection=Rejection("softmax", 0.99996))
    document = content(60, "recall", steep, fit, made, fit.counted, [one])
    assert document["actions"]["quiet"]["off"] == fit.off[0] > 0
    assert document["rejection"]["level"] == 0.99996


def test_small_rates_are_not_told_as_none(bundle: Bundle) -> None:
    fit = Fitter(bundle, [played(still(3), "still")]).fit(Asked(60))
    said = verdict(replace(fit, rate=rate(0, 10.0)), 0.1, bundle, [])
    assert "would still allow 0.3 an hour" in said
    assert "between 0.0 and 0.3 at" in said


def test_truths_without_time_in_between_are_refused_in_words(bundle: Bundle) -> None:
    share = np.tile([0.02, 0.96, 0.01, 0.01], (60 * PER_S, 1))
    full = [played(share, f"full {n}", (Truth("quiet", 0, 60 * SECOND_NS),)) for n in range(3)]
    with pytest.raises(UsageError, match="fill all of their time"):
        Fitter(bundle, full).fit(Asked(6))


def test_a_recording_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "life.mcap").write_bytes(b"")
    (tmp_path / "again.mcap").symlink_to(tmp_path / "life.mcap")
    for second in ("life.mcap", "again.mcap"):
        pair = (tmp_path / "life.mcap", tmp_path / second)
        with pytest.raises(UsageError, match="the same file"):
            check(Config(out=tmp_path / "out.json", false_per_hour=6.0, nothing=pair))


def test_recordings_of_one_name_in_two_folders_are_two(bundle: Bundle, tmp_path: Path) -> None:
    groups = set()
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
        shutil.copy(default_bundle().parent / "demo.mcap", tmp_path / folder / "life.mcap")
        groups.add(play_nothing(load_bundle(default_bundle()), Silent(), tmp_path / folder / "life.mcap").group)
    assert len(groups) == 2


class Silent:
    def score(self, windows: Sequence[Window]) -> list[Scores]:
        return [Scores(0, 0, 1, one.captured_ns, np.zeros(45), np.zeros(45)) for one in windows]
