"""Two people in training: who acts, who has nothing to do with whom, and that nothing of this is lost on the way."""

from __future__ import annotations

import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from export.bundle import Config as BundleConfig
from export.bundle import make_bundle
from export.windows import gather
from realtime.backends import open_engine
from realtime.bundle import default_bundle, load_bundle, shipped_interactions
from realtime.errors import UsageError
from realtime.features import PAIR_NORMALISATION, PAIR_STREAMS
from realtime.generator.beside import beside
from realtime.pairs import offline_pairs, swapped
from realtime.pose import PassThrough
from realtime.run import make_pipeline
from realtime.schema import SECOND_NS, Event, Frame, Pose
from realtime.skeleton import CORE_16, OPENNI_15
from tests.realtime.hands import figure
from train.augment import augment_pair, mirror
from train.data.clip import Clip
from train.data.sbu import read
from train.evaluate import evaluate, score_clips
from train.fit import Config, fit
from train.pairs import CLOSEST_M, DRIFT_M, PairPool, acting, clip_pairs, said, side_by_side
from train.pool import draw
from train.synthesis import synthetic_recordings
from train.vocabulary import DIRECTED, INTERACTIONS, NOTHING, PAIR_CLASSES, PAIR_MEANING

FPS = 20.0
STREAMS = ("joint", "bone", "motion", *PAIR_STREAMS)
HELD_OUT = ("s01s02", "s03s04", "s05s02", "s06s04")  # fold 1: the shipped model never saw them


def facing(apart: float = 1.2, rows: int = 60) -> np.ndarray:
    """(R, 2, V, 3): two figures, the second to the right of the first and turned towards it, both still."""
    first = turned(figure() - figure()[0], -90)
    second = turned(figure() - figure()[0], 90) + np.float32([apart, 0, 0])
    return np.repeat(np.stack([first, second])[None], rows, axis=0)


def turned(joints: np.ndarray, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (joints @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])).astype(np.float32)


def pair_clip(label: str, rows: np.ndarray | None = None) -> Clip:
    joints = facing() if rows is None else rows
    times = np.round(np.arange(len(joints)) * SECOND_NS / FPS).astype(np.int64)
    return Clip("sbu", "c", "s01s02", label, times, joints, np.ones(joints.shape[:3], np.float32), CORE_16)


def kick(by: int) -> np.ndarray:
    """One of the two reaches for the other with a foot."""
    rows = facing()
    towards = 1 if by == 0 else -1
    rows[20:40, by, CORE_16.index("right_ankle")] += np.float32([0.7 * towards, 0.5, 0])
    return rows


# who acts


@pytest.mark.parametrize("by", [0, 1])
def test_who_reaches_for_the_other_with_a_foot_kicks(by):
    assert acting(kick(by), "kick_someone") == (by == 0, by == 1)


def test_who_walks_approaches_and_both_do_where_both_walk():
    rows = facing()
    rows[:, 1, :, 0] += np.linspace(1, 0, len(rows))[:, None]
    assert acting(rows, "approach") == (False, True)
    rows[:, 0, :, 0] -= np.linspace(1, 0, len(rows))[:, None]
    assert acting(rows, "approach") == (True, True)


def test_a_handshake_is_of_both():
    assert acting(kick(0), "shake_hands") == (True, True)


def test_every_label_of_two_people_means_an_interaction():
    for labels in PAIR_MEANING.values():
        assert set(labels.values()) <= set(INTERACTIONS)
    assert set(DIRECTED) < set(INTERACTIONS) and PAIR_CLASSES[0] == NOTHING


# the pool


def test_a_clip_gives_each_order_and_the_one_who_is_kicked_does_nothing():
    pool = PairPool(FPS).add([pair_clip("kicking", kick(1)), pair_clip("hugging"), pair_clip("waving")])
    assert [PAIR_CLASSES[unit.action] for unit in pool.units[:4]] == ["nothing", "kick_someone", "hug", "hug"]
    assert {unit.action for unit in pool.units[4:]} == {0}  # its people side by side
    first, second = (pool.rows()[unit.start : unit.stop] for unit in pool.units[:2])
    np.testing.assert_allclose(first - first[:, 1:, :1], swapped(second), atol=1e-6)
    np.testing.assert_array_equal(pool.rows()[:, 0, 0], 0)


def test_single_people_become_pairs_that_do_nothing_together():
    pool = PairPool(FPS).add(synthetic_recordings(6, 0))
    assert len(pool.units) > 50 and {unit.action for unit in pool.units} == {0}


def test_people_put_side_by_side_keep_their_distance():
    people = [("walk" if n % 2 else "kick", facing(rows=100)[:, 0] + np.float32([0.01 * n, 0, 0])) for n in range(6)]
    found = list(side_by_side(people, 50, FPS, np.random.default_rng(0)))
    assert len(found) == 50
    for pair in found:
        apart = np.linalg.norm((pair[:, 1] - pair[:, 0])[:, 0, [0, 2]], axis=1)
        assert apart.min() >= CLOSEST_M and np.ptp(apart) <= DRIFT_M
        assert abs(pair[:, :, :, 1].min()) < 1e-4  # both stand on one floor
    assert not list(side_by_side(people[:1], 50, FPS, np.random.default_rng(0)))


def test_windows_drawn_of_pairs_have_two_bodies_and_labels_of_interactions():
    pool = PairPool(FPS).add([pair_clip("hugging"), pair_clip("kicking", kick(0))])
    joints, labels = draw(pool, np.zeros(32, int), 64, np.random.default_rng(0))
    assert joints.shape == (32, 64, 2, 16, 3) and labels.shape == (32, len(PAIR_CLASSES))
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert labels[:, PAIR_CLASSES.index("hug")].max() == 1


def test_augmentation_turns_both_bodies_together_and_mirroring_twice_is_the_identity():
    pairs = np.repeat(facing(rows=64)[None], 16, axis=0)
    np.testing.assert_array_equal(mirror(mirror(pairs)), pairs)
    np.testing.assert_array_equal(augment_pair(pairs, np.random.default_rng(0), 0.0), pairs)
    seen = augment_pair(pairs, np.random.default_rng(0), 0.5)
    roots = seen[:, :, 1, 0] - seen[:, :, 0, 0]  # (N, T, 3)
    assert seen.shape == pairs.shape and np.ptp(np.arctan2(roots[:, 0, 2], roots[:, 0, 0])) > 3  # headings of all kinds
    across = seen[:, :, :, CORE_16.index("right_shoulder")] - seen[:, :, :, CORE_16.index("left_shoulder")]
    opposed = (across[:, :, 0] * across[:, :, 1])[..., [0, 2]].sum(axis=2).mean(axis=1)
    assert (opposed < 0).all()  # they still face each other


# scoring


def test_a_clips_windows_are_those_of_the_line_in_either_order():
    made = clip_pairs(pair_clip("hugging"), 64, FPS, 0.3, 3)
    every = offline_pairs(*_arrays(pair_clip("hugging")), CORE_16, 64, FPS, 1, 1).joints
    np.testing.assert_array_equal(made[-2], every[-1])
    np.testing.assert_array_equal(made[1::2], swapped(made[::2]))


def _arrays(clip: Clip) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return clip.times_ns, clip.joints, clip.confidence


def test_a_clip_is_named_by_what_either_order_speaks_for():
    def logits(skeleton: np.ndarray) -> np.ndarray:
        values = np.zeros((len(skeleton), len(PAIR_CLASSES)), np.float32)
        values[::2, 0] = 9  # the first order sees nothing, the other a kick
        values[1::2, PAIR_CLASSES.index("kick_someone")] = 9
        return values

    clips = [pair_clip("kicking"), pair_clip("hugging"), pair_clip("waving")]
    scored = score_clips(logits, clips, PAIR_CLASSES, STREAMS, 64, FPS)
    assert scored == [
        ("kicking", "kick_someone", "kick_someone"),
        ("hugging", "hug", "kick_someone"),
        ("waving", "", ""),
    ]


def test_logits_of_one_person_are_said_as_they_are():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert said(logits, ("joint",), ("nothing", "a", "b")) is logits


# settings, run, bundle


def test_streams_and_texts_that_do_not_go_with_two_bodies_are_refused(tmp_path):
    for changes, told in (
        ({"streams": ("joint",), "bodies": 2}, "--bodies 2"),
        ({"streams": ("relation",)}, "--bodies 1"),
        ({"bodies": 3}, "must be 1 or 2"),
        ({"bodies": 2, "method": "pcle"}, "--method ce"),
    ):
        with pytest.raises(UsageError, match=told):
            fit(Config(out=tmp_path / "run", device="cpu", **changes), Console(quiet=True))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a run of a second on generated people."""
    folder = tmp_path_factory.mktemp("pairs")
    config = Config(
        out=folder / "run", bodies=2, synthetic=4, widths=(8, 16), epochs=1, draws=64, batch=32, device="cpu", threads=1
    )
    fit(config, Console(quiet=True))
    return make_bundle(BundleConfig(runs=(folder / "run",), out=folder / "bundle", stride=5))


def test_a_run_on_pairs_becomes_a_bundle_of_pairs_that_gives_its_answers(tiny):
    bundle = load_bundle(tiny)
    assert bundle.normalisation == PAIR_NORMALISATION and bundle.channels == 21
    assert bundle.classes == PAIR_CLASSES and bundle.directed == DIRECTED
    assert {action.name for action in bundle.actions} == set(INTERACTIONS.values())
    open_engine(bundle, "ort").close()  # proven on the reference
    report = evaluate(bundle, "sbu", [pair_clip("hugging"), pair_clip("kicking", kick(0))])
    assert report["clips"] == 2


def test_generated_pairs_give_enough_windows_for_a_gate(tiny):
    windows = gather(load_bundle(tiny))
    assert len(windows.gate) >= 1000 and windows.gate.shape[1:] == (21, 64, 16)
    assert not {window.tobytes() for window in windows.calibration} & {window.tobytes() for window in windows.gate}


def test_generated_pairs_are_the_same_for_the_same_seed_and_stand_apart():
    one, other = next(beside(1, 3)), next(beside(1, 3))
    np.testing.assert_array_equal(one.joints, other.joints)
    apart = (one.joints[0, 1] - one.joints[0, 0])[0]
    assert 0.7 < np.hypot(apart[0], apart[2]) < 2.3


# the whole line, on people whom the shipped model never saw


@pytest.fixture(scope="module")
def sbu(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = shared / "data" / "sbu_interaction.tar.xz"
    if not archive.is_file():
        pytest.skip(f"SBU is not there: {archive}")
    folder = tmp_path_factory.mktemp("sbu")
    with lzma.open(archive) as plain, tarfile.open(fileobj=plain) as tar:
        for member in tar:
            if member.isfile() and any(f"/{pair}/" in member.name for pair in HELD_OUT):
                tar.extract(member, folder, filter="data")
    return folder


def played(clip: Clip) -> list[Event]:
    """The events of pairs of a clip whose people stand still for 3 s before and 4 s after it."""
    bundle, pairs = load_bundle(default_bundle()), load_bundle(shipped_interactions())
    line = make_pipeline(PassThrough(), bundle, open_engine(bundle), 4, (pairs, open_engine(pairs, precision="fp32")))
    rows = [0] * 45 + list(range(len(clip.times_ns))) + [len(clip.times_ns) - 1] * 60
    events: list[Event] = []
    for index, row in enumerate(rows):
        now = round(index * SECOND_NS / 15)
        poses = tuple(
            Pose(index, now, body + 1, OPENNI_15, clip.joints[row, body], clip.confidence[row, body]) for body in (0, 1)
        )
        events += line.step(Frame(index, now, poses=poses)).events
    events += line.close(round(len(rows) * SECOND_NS / 15), "source_lost")
    return [event for event in events if event.partner is not None]


def test_a_clip_of_people_never_seen_gives_a_start_and_an_end_with_a_partner(sbu):
    clips = list(read(sbu, ("s01s02",)))
    hits = 0
    for label, action in (("hugging", "hug"), ("departing", "depart"), ("approaching", "approach")):
        told = played(next(clip for clip in clips if clip.label == label))
        starts = [event for event in told if event.phase == "start"]
        ends = [event for event in told if event.phase == "end"]
        assert sorted(event.id for event in starts) == sorted(event.id for event in ends)
        assert all({event.track, event.partner} == {1, 2} for event in told)
        hits += any(event.action == action for event in starts)
    assert hits >= 2


def test_the_shipped_model_names_most_clips_of_people_it_never_saw(sbu):
    report = evaluate(load_bundle(shipped_interactions()), "sbu", list(read(sbu)))
    assert report["clips"] == 55 and report["accuracy"] > 0.75
