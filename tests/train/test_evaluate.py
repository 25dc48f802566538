import json

import numpy as np
import pytest

from export.bundle import Config as BundleConfig
from export.bundle import make_bundle
from realtime.bundle import load_bundle
from realtime.schema import SECOND_NS, Pose
from realtime.skeleton import CORE_16, KINECT_V1_20, KINECT_V2_25
from realtime.window import WindowBuffer
from train import evaluate as module
from train.data.clip import Clip, Recording, Truth
from train.evaluate import clip_report, clip_windows, evaluate, score_clips
from train.fit import Config, fit
from train.synthesis import synthetic_recordings
from train.vocabulary import CLASSES


def clip(frames, label="wave", data="utd_mhad", fps=20):
    joints = np.random.default_rng(frames).normal(size=(frames, 1, 20, 3)).astype(np.float32)
    times = (np.arange(frames) * SECOND_NS / fps).astype(np.int64)
    return Clip(data, "c", 1, label, times, joints, np.ones((frames, 1, 20), np.float32), KINECT_V1_20)


@pytest.mark.parametrize("frames", [1, 5, 64, 65, 100])
def test_a_clips_windows_are_those_a_device_would_have_seen(frames):
    made = clip(frames)
    windows = clip_windows(made, 64, 20.0)
    live = []
    buffer = WindowBuffer(CORE_16, 64, 20.0, 1, 1)
    for i, now in enumerate(made.times_ns.tolist()):
        live += buffer.push(i, now, (Pose(i, now, 1, KINECT_V1_20, made.joints[i, 0], made.confidence[i, 0]),))
    given = [window.joints for window in live][:: -module.CLIP_STRIDE][::-1]
    np.testing.assert_array_equal(windows, given[-len(windows) :])
    assert len(windows) >= 1 and (len(windows) + 1) * module.CLIP_STRIDE > 0.69 * (frames - 1)


def test_a_clip_is_answered_with_the_action_that_rises_highest():
    nothing_leads = [[5.0, 1.0, 2.0]] * 3
    assert module.clip_answer(np.array(nothing_leads), 0) == 0
    assert module.clip_answer(np.array([*nothing_leads, [1.0, 4.0, 2.0]]), 0) == 1
    assert module.clip_answer(np.zeros((0, 3)), 0) == 0


def test_a_clip_in_which_nobody_is_seen_is_answered_with_nothing():
    unseen = clip(30)
    unseen.confidence[:] = 0
    assert len(clip_windows(unseen, 64, 20.0)) == 0
    assert score_clips(lambda x: 1 / 0, [unseen], CLASSES, ("joint",), 64, 20.0) == [("wave", "wave", "nothing")]


def test_only_covered_clips_count_and_nothing_is_wrong():
    wave, clap = CLASSES.index("wave"), CLASSES.index("clap")

    def logits(skeleton):
        return np.tile(np.eye(len(CLASSES), dtype=np.float32)[wave], (len(skeleton), 1))

    scored = score_clips(logits, [clip(10), clip(20, "clap"), clip(9, "unheard of")], CLASSES, ("joint",), 64, 20.0)
    assert scored == [("wave", "wave", "wave"), ("clap", "clap", "wave"), ("unheard of", "", "")]
    report = clip_report("utd_mhad", scored, CLASSES)
    assert (report["clips"], report["accuracy"], report["mean_class_accuracy"]) == (2, 0.5, 0.5)
    assert report["coverage"] == pytest.approx(2 / 3)
    assert report["per_class"]["wave"] == {"clips": 1, "accuracy": 1.0}
    assert report["confused"] == [{"true": "clap", "answer": "wave", "clips": 1}]
    assert clap != wave


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    settings = Config(
        out=folder / "run", synthetic=4, epochs=4, draws=512, batch=32, widths=(16, 24), groups=2, threads=1, lr=0.05
    )
    fit(settings, module.Console(quiet=True))
    return load_bundle(make_bundle(BundleConfig(runs=(folder / "run",), out=folder / "bundle", on=0.2, off=0.1)))


def test_recordings_are_played_through_the_line_and_scored(bundle):
    recordings = list(synthetic_recordings(2, 7))
    report = evaluate(bundle, "synthetic", recordings)
    assert report["clips"] == sum(len(r.truths) for r in recordings) and report["coverage"] == 1.0
    events = report["events"]
    assert set(events) >= {"f1", "precision", "recall", "onset_delay_s_median", "false_per_hour"}
    assert events["detections"] > 0 and events["truths"] == report["clips"]
    json.dumps(report)


def test_an_action_outside_the_vocabulary_is_time_without_truth(bundle):
    made = next(synthetic_recordings(1, 3))
    foreign = Recording(
        "synthetic", "r", 1, made.times_ns, made.joints, made.confidence, KINECT_V2_25,
        (Truth("juggling", SECOND_NS, 3 * SECOND_NS),), False, ("juggling",),
    )  # fmt: skip
    report = evaluate(bundle, "synthetic", [foreign])
    assert report["clips"] == 0 and report["coverage"] == 0.0 and report["accuracy"] == 0.0
    assert report["events"]["truths"] == 0
    json.dumps(report, allow_nan=False)


def test_of_two_people_the_one_who_moves_is_looked_at():
    one = clip(40)
    still = np.zeros_like(one.joints) + 0.1
    pair = Clip(
        "sbu", "p", 1, "kick", one.times_ns, np.concatenate([still, one.joints], axis=1),
        np.concatenate([one.confidence] * 2, axis=1), KINECT_V1_20,
    )  # fmt: skip
    np.testing.assert_array_equal(clip_windows(pair, 64, 20.0), clip_windows(one, 64, 20.0))


def evaluate_line(monkeypatch, *flags):
    """The exit code of `python -m train.evaluate` with these flags."""
    monkeypatch.setattr("sys.argv", ["evaluate", *map(str, flags)])
    return module.main()


@pytest.fixture
def ucla(tmp_path):
    """A folder of NW-UCLA's form with subjects 1, 6 and 10, one clip each."""
    folder = tmp_path / "ucla"
    folder.mkdir()
    skeletons = np.random.default_rng(0).normal(size=(12, 20, 3)).tolist()
    for subject in (1, 6, 10):
        name = f"a12_s{subject:02d}_e04_v02"
        (folder / f"{name}.json").write_text(json.dumps({"file_name": name, "skeletons": skeletons, "label": 10}))
    return folder


@pytest.mark.parametrize("given", ["6", "06"])
def test_subjects_of_the_command_line_are_the_sets_numbers(bundle, ucla, tmp_path, monkeypatch, given):
    flags = ("--data", f"nw_ucla:{ucla}", "--bundle", bundle.path, "--json", tmp_path / "out.json")
    assert evaluate_line(monkeypatch, *flags, "--subjects", given, "10") == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["subjects"] == ["10", "6"] and report["clips"] == 2


def test_a_subject_that_the_set_lacks_is_said(bundle, ucla, monkeypatch, capsys):
    flags = ("--data", f"nw_ucla:{ucla}", "--bundle", bundle.path)
    assert evaluate_line(monkeypatch, *flags, "--subjects", "6", "66") == 2
    assert "nothing of subject 66" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_said_before_scoring(bundle, ucla, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "evaluate", lambda *_: 1 / 0)
    flags = ("--data", f"nw_ucla:{ucla}", "--bundle", bundle.path, "--json", tmp_path / "no" / "out.json")
    assert evaluate_line(monkeypatch, *flags) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_graph_that_the_bundle_lacks_is_said(bundle, ucla, monkeypatch, capsys):
    flags = ("--data", f"nw_ucla:{ucla}", "--bundle", bundle.path)
    assert evaluate_line(monkeypatch, *flags, "--precision", "fp16") == 3
    assert "fp16" in capsys.readouterr().err


def test_the_report_says_which_graph_was_scored(bundle, ucla, tmp_path, monkeypatch):
    flags = ("--data", f"nw_ucla:{ucla}", "--bundle", bundle.path, "--json", tmp_path / "out.json")
    assert evaluate_line(monkeypatch, *flags) == 0
    assert json.loads((tmp_path / "out.json").read_text())["precision"] == "fp32"


def test_a_calibration_without_thresholds_scores_nothing(bundle, ucla, tmp_path, monkeypatch, capsys):
    floor = {"schema": "calib-floor/1", "up": [0.0, 1.0, 0.0], "height_m": 2.0, "orientation": 0, "measured": {}}
    (tmp_path / "floor.json").write_text(json.dumps(floor))
    flags = ("--data", f"nw_ucla:{ucla}", "--bundle", bundle.path, "--calib", tmp_path / "floor.json")
    assert evaluate_line(monkeypatch, *flags) == 2
    assert "holds no thresholds" in capsys.readouterr().err
