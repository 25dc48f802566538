import json

import numpy as np
import pytest

from export import windows as module
from export.windows import Spec, Stretch, gather
from realtime.bundle import default_bundle, load_bundle
from realtime.errors import UsageError
from train.vocabulary import CLASSES

MODEL = {"layout": "CORE_16", "streams": ["joint", "bone"], "window": 32, "fps": 20, "classes": list(CLASSES),
         "nothing": "nothing"}  # fmt: skip


@pytest.fixture(scope="module")
def generated():
    return gather(MODEL)


@pytest.fixture
def people(tmp_path):
    """A folder of NW-UCLA's form: each subject stands in a pose of their own."""
    for subject in range(1, 5):
        frame = np.random.default_rng(subject).normal((0, 0, 2), 0.3, (20, 3)).tolist()
        content = {"file_name": "", "skeletons": [frame] * 60, "label": 10}
        for episode in range(3):
            (tmp_path / f"a12_s{subject:02d}_e{episode:02d}_v02.json").write_text(json.dumps(content))
    return f"nw_ucla:{tmp_path}"


def test_generated_people_give_enough_windows_for_a_gate(generated):
    assert generated.source == "generated people" and generated.clips is None
    assert generated.calibration.shape == (512, 6, 32, 16) and generated.gate.shape[1:] == (6, 32, 16)
    assert module.LEAST_GATE <= len(generated.gate) <= module.MOST_GATE
    assert generated.gate.dtype == np.float32 and np.isfinite(generated.gate).all()


def test_calibration_and_gate_see_different_people(generated):
    seen = {window.tobytes() for window in generated.calibration}
    assert not any(window.tobytes() in seen for window in generated.gate)


def test_the_same_seed_gives_the_same_windows_and_another_others(generated):
    again, other = gather(MODEL), gather(MODEL, seed=1)
    assert (again.gate == generated.gate).all() and (again.calibration == generated.calibration).all()
    assert other.gate.shape != generated.gate.shape or (other.gate != generated.gate).any()


def test_a_bundle_says_what_its_windows_are():
    bundle = load_bundle(default_bundle())
    spec = Spec.of(bundle)
    assert (spec.layout, spec.streams, spec.window, spec.fps) == (
        bundle.layout, bundle.streams, bundle.window, bundle.fps
    )  # fmt: skip


def test_lost_joints_are_placed_as_on_the_device():
    times = np.arange(60, dtype=np.int64) * 33_333_333
    joints = np.random.default_rng(0).normal(0, 0.3, (60, 16, 3)).astype(np.float32)
    whole = Stretch(times, joints, np.ones((60, 16), np.float32))
    lost = [module._lose(whole, np.random.default_rng(seed)) for seed in range(40)]
    shares = [float((one.confidence == 0).any()) for one in lost]
    assert 0 < np.mean(shares) < 0.6
    worst = min(lost, key=lambda one: one.confidence.sum())
    assert (worst.joints[worst.confidence == 0] == 0).all()
    made = module._windows(Spec.of(MODEL), worst, 5)
    assert np.isfinite(made).all() and (made != module._windows(Spec.of(MODEL), whole, 5)).any()


def test_many_windows_are_thinned_evenly_while_they_are_made():
    every = np.arange(1000)
    parts = [every[:7], every[7:7], every[7:500], every[500:503], every[503:]]
    for most in (10, 64, 999):
        kept = np.concatenate(module._thinned(parts, most))
        assert most / 2 <= len(kept) <= most
        assert (np.diff(kept) == kept[1]).all() and kept[0] == 0
    assert (np.concatenate(module._thinned(parts, 1000)) == every).all() and module._thinned([], 5) == []


def test_held_out_people_are_judged_on_and_no_one_else(people, monkeypatch):
    monkeypatch.setattr(module, "LEAST_GATE", 40)
    monkeypatch.setattr(module, "LOST_SHARE", 0.0)
    found = gather(MODEL, (people,), ("nw_ucla:3,4",))
    assert found.source == "held-out subjects (nw_ucla 3 4)"
    assert len(found.clips) == 6 and {clip.truth for clip in found.clips} == {CLASSES.index("carry")}
    assert found.nothing == CLASSES.index("nothing")
    seen, judged = (
        {np.rint(100 * window).astype(int).tobytes() for window in part} for part in (found.calibration, found.gate)
    )
    assert len(seen) == 2 and len(judged) == 2 and not seen & judged  # one still pose for each of four people


def test_too_few_held_out_windows_are_said(people):
    with pytest.raises(UsageError, match=r"give \d+ windows, and a gate needs 1000: hold out more .* leave --data out"):
        gather(MODEL, (people,), ("nw_ucla:4",))


def test_a_set_without_held_out_people_is_refused(people):
    with pytest.raises(UsageError, match="add --held-out nw_ucla:S1,S2"):
        gather(MODEL, (people,), ())


def test_nobody_left_to_calibrate_on_is_said(people, monkeypatch):
    monkeypatch.setattr(module, "LEAST_GATE", 40)
    with pytest.raises(UsageError, match="nothing is left to calibrate on"):
        gather(MODEL, (people,), ("nw_ucla:1,2,3,4",))


def test_a_layout_of_a_published_protocol_is_refused():
    with pytest.raises(UsageError, match="this model takes KINECT_V2_25"):
        gather({**MODEL, "layout": "KINECT_V2_25"})
