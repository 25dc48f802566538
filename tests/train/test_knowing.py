"""Live windows with what is said of them: whole units, mirrored ones with mirrored words, a backbone to train from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from export.bundle import Config as BundleConfig
from export.bundle import bundle_spec
from export.runs import load_runs
from realtime.errors import UsageError
from realtime.schema import SECOND_NS
from realtime.skeleton import CORE_16, KINECT_V1_20
from tests.train import tiny_runs
from tests.train.test_fit import same_weights
from tests.train.test_pretrain import stop_at
from tests.train.tiny_texts import tiny_encoder
from train import outcome
from train.augment import mirror
from train.data.clip import Clip
from train.describe import describe
from train.distributed import Ranks
from train.fit import fit
from train.knowing import LiveKnowledge
from train.knowledge import __main__ as program
from train.knowledge.__main__ import Describe
from train.knowledge_folder import load, sentences, write
from train.learner import Learner, under
from train.pool import Pool, views
from train.pretrain import Config, check, pretrain
from train.pretrained import read

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
FPS = 20.0
HELD = ("nw_ucla:10",)


def raised(frames, side):
    """A standing person (T, 20, 3) that walks to its front and raises a hand."""
    joints = np.zeros((frames, 20, 3), np.float32)
    heights = {"hip_center": 0.9, "spine": 1.0, "shoulder_center": 1.4, "head": 1.6}
    for name, height in heights.items():
        joints[:, KINECT_V1_20.index(name)] = (0, height, 2.5)
    for sign, who in ((-1, "left"), (1, "right")):
        places = {"shoulder": (0.18, 1.4), "elbow": (0.22, 1.12), "wrist": (0.22, 0.88), "hand": (0.22, 0.8),
                  "hip": (0.1, 0.88), "knee": (0.1, 0.46), "ankle": (0.1, 0.06), "foot": (0.1, 0.0)}  # fmt: skip
        for name, (across, height) in places.items():
            joints[:, KINECT_V1_20.index(f"{who}_{name}")] = (-sign * across, height, 2.5)
    up = np.linspace(0, 0.9, frames)
    for name, share in (("elbow", 0.5), ("wrist", 1.0), ("hand", 1.0)):
        joints[:, KINECT_V1_20.index(f"{side}_{name}"), 1] += share * up
    joints[:, :, 2] -= np.linspace(0, 1, frames)[:, None]
    return joints


@pytest.fixture(scope="module")
def ucla(tmp_path_factory):
    """NAME:PATH of a folder in NW-UCLA's form: eight clips of subjects 1 and 6, one of subject 10."""
    folder = tmp_path_factory.mktemp("live") / "ucla"
    folder.mkdir()
    for number in range(9):
        name = f"a12_s{(1, 6)[number % 2] if number < 8 else 10:02d}_e{number:02d}_v02"
        joints = raised(12 + 4 * number, "left" if number % 2 else "right")
        content = {"file_name": name, "skeletons": joints.tolist(), "label": 10}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return f"nw_ucla:{folder}"


@pytest.fixture(scope="module")
def knowledge(ucla, tmp_path_factory):
    """What the describer says of these clips but the held-out subject's, by a tiny encoder."""
    out = tmp_path_factory.mktemp("live") / "knowledge"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "open_encoder", lambda name, weights: tiny_encoder())
        program.run(program.Config(Describe(out=out, data=(ucla,), held_out=HELD, device="cpu")), QUIET)
    return out


def settings(out, ucla, knowledge, **changes):
    small = {
        "out": out, "data": (ucla,), "held_out": HELD, "knowledge": knowledge, "epochs": 2, "batch": 4, "draws": 12,
        "backbone": "graphnet", "widths": (8, 16), "groups": 2, "dim": 16, "warm_up": 1, "threads": 1,
        "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return Config(**{**small, **changes})


def one_clip(joints, fps=FPS):
    times = (np.arange(len(joints)) * SECOND_NS / fps).astype(np.int64)
    there = np.ones((len(joints), 1, 20), np.float32)
    return Clip("utd_mhad", "c", 1, "wave", times, joints[:, None], there, KINECT_V1_20)


def test_a_pool_still_knows_where_a_person_was():
    joints = raised(40, "left")
    pool = Pool(FPS).add([one_clip(joints), one_clip(joints + 1)])
    np.testing.assert_allclose(pool.person(pool.units[0])[:, CORE_16.index("head")], joints[:, 3], atol=1e-5)
    np.testing.assert_allclose(pool.person(pool.units[1]), pool.person(pool.units[0]) + 1, atol=1e-5)
    said = describe(pool.person(pool.units[0]), CORE_16, FPS)
    assert said == describe(joints, KINECT_V1_20, FPS) and any("walks" in one or "moves" in one for one in said)


def test_a_whole_view_has_all_of_a_short_unit_in_sight():
    pool = Pool(FPS).add([one_clip(raised(30, "left"))])
    rows, flips, shares = views(pool, np.zeros(40, np.int64), 64, np.random.default_rng(0), strength=0, whole=True)
    assert (shares == 1).all() and 0 < flips.sum() < 40
    seen = np.where(flips[:, None, None, None], mirror(rows), rows)[:, :, CORE_16.index("left_wrist"), 1]
    first, last = pool.rows()[[0, -1], CORE_16.index("left_wrist"), 1]
    np.testing.assert_allclose(seen.min(axis=1), first, atol=0.06)
    np.testing.assert_allclose(seen.max(axis=1), last, atol=0.2)  # it may end four rows before
    assert (seen.max(axis=1) - seen.min(axis=1) > 0.7).all()


def test_knowledge_is_of_each_unit_and_its_mirror_image(knowledge):
    made = load(knowledge)
    said = dict(sentences(knowledge))
    assert made.data == "pooled" and len(made) == 16 and made.known.all()
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    for name in made.names[:8]:
        words = [[swap.get(word, word) for word in one.split(" ")] for one in said[name]]
        assert [" ".join(one) for one in words] == said[f"{name}, mirrored"] != said[name]


def test_a_mirrored_window_comes_with_the_mirrored_words(tmp_path, ucla, knowledge):
    batches = LiveKnowledge(settings(tmp_path, ucla, knowledge, strength=0, draws=40, batch=8), CPU, QUIET)
    said = dict(sentences(knowledge))
    left, right = CORE_16.index("left_wrist"), CORE_16.index("right_wrist")
    language = batches.known.rows["language"]
    seen = set()
    for x, knows in batches.epoch(0, Ranks()):
        wrists = x[:, 1, :, [left, right], 0]  # heights of the joint stream
        for height, row in zip(wrists, knows["language"], strict=True):
            number = int((language == row).all(dim=1).nonzero()[0])
            spoken = " ".join(said[batches.pool.names()[number]])
            raises = "left" if height[-1, 0] > height[-1, 1] else "right"
            assert f"The {raises} hand is raised" in spoken
            seen.add((raises, number >= 8))
    assert len(seen) == 4  # both hands, as they are and mirrored


def test_the_ranks_share_a_batch(tmp_path, ucla, knowledge):
    batches = LiveKnowledge(settings(tmp_path, ucla, knowledge), CPU, QUIET)
    whole, *halves = (list(batches.epoch(1, ranks)) for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2)))
    assert len(whole) == 3
    for (x, said), (x0, said0), (x1, said1) in zip(whole, *halves, strict=True):
        assert torch.equal(x, torch.cat([x0, x1]))
        assert torch.equal(said["language"], torch.cat([said0["language"], said1["language"]]))


def test_a_recogniser_of_live_windows_starts_from_it(tmp_path, monkeypatch, ucla, knowledge):
    monkeypatch.setattr(outcome, "draw_figures", lambda folder: None)
    config = settings(tmp_path / "c2vl", ucla, knowledge)
    pretrain(config, QUIET)
    assert json.loads((config.out / "result.json").read_text())["clips"] == 8
    first = {}

    def begun(self, number):
        first.update({k: v.clone() for k, v in under(self.network.state_dict(), "recogniser.backbone.").items()})
        raise KeyboardInterrupt

    start = tiny_runs.settings(tmp_path / "fit", data=(ucla,), held_out=HELD, synthetic=0, init=config.out)
    monkeypatch.setattr(Learner, "epoch", begun)
    with pytest.raises(KeyboardInterrupt):
        fit(start, QUIET)
    tensors = read(config.out).tensors
    assert first.keys() == tensors.keys() and all(torch.equal(first[name], tensors[name]) for name in first)
    with pytest.raises(UsageError, match="was trained on nw_ucla:6, whom this run holds out"):
        fit(replace(start, out=tmp_path / "leak", held_out=("nw_ucla:6,10",)), QUIET)
    with pytest.raises(UsageError, match="streams joint bone motion, not joint"):
        fit(replace(start, out=tmp_path / "joint", streams=("joint",)), QUIET)


def test_a_bundle_says_what_its_start_saw(tmp_path, monkeypatch, ucla, knowledge):
    """Also after a resume: the sets and the people of the run that it started from."""
    monkeypatch.setattr(outcome, "draw_figures", lambda folder: None)
    pretrain(settings(tmp_path / "c2vl", ucla, knowledge, epochs=1), QUIET)
    start = tiny_runs.settings(tmp_path / "fit", data=(), synthetic=1, init=tmp_path / "c2vl", epochs=2)
    undo = stop_at(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit(start, QUIET)
    undo()
    fit(tiny_runs.Config(out=start.out, resume=True), QUIET)
    (seen,) = load_runs([start.out]).begun
    assert seen == {"method": "c2vl", "data": [ucla], "held_out": list(HELD)}
    spec = bundle_spec(BundleConfig(runs=(start.out,), out=tmp_path / "bundle"), load_runs([start.out]))
    assert spec["training"]["data"] == ["nw_ucla"] and spec["training"]["held_out"] == list(HELD)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, ucla, knowledge):
    pretrain(settings(tmp_path / "whole", ucla, knowledge), QUIET)
    undo = stop_at(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings(tmp_path / "parts", ucla, knowledge), QUIET)
    undo()
    pretrain(Config(out=tmp_path / "parts", resume=True), QUIET)
    same_weights(tmp_path / "whole", tmp_path / "parts")


def test_units_of_which_nothing_is_said_are_not_drawn(tmp_path, ucla, knowledge):
    made = load(knowledge)
    rows = made.language.copy()
    rows[[0, 1, 10]] = 0  # a unit counts as known where its mirror image is known too
    about = {"made": made.about["made"]}
    write(tmp_path / "few", made.data, made.names, {"language.npy": rows}, None, about)
    batches = LiveKnowledge(settings(tmp_path, ucla, tmp_path / "few"), CPU, QUIET)
    assert (batches.chances > 0).tolist() == [False, False, False, True, True, True, True, True]
    assert batches.known.unknown == 3 and batches.known.clips == 5 and batches.chances.sum() == pytest.approx(1)
    rows[:8] = 0
    write(tmp_path / "none", made.data, made.names, {"language.npy": rows}, None, about)
    with pytest.raises(UsageError, match="has the weight of 0"):
        LiveKnowledge(settings(tmp_path, ucla, tmp_path / "none"), CPU, QUIET)


def test_knowledge_of_other_clips_is_refused(tmp_path, ucla, knowledge):
    with pytest.raises(UsageError, match="says nothing of"):
        LiveKnowledge(settings(tmp_path, ucla, knowledge, held_out=()), CPU, QUIET)
    folder = tmp_path / "ucla"
    folder.mkdir()
    for path in sorted((tmp_path / ucla.partition(":")[2]).glob("*.json")):
        content = json.loads(path.read_text())
        content["skeletons"][0][0][0] += 0.01
        (folder / path.name).write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is of other clips"):
        LiveKnowledge(settings(tmp_path, f"nw_ucla:{folder}", knowledge), CPU, QUIET)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prepared": "there"}, "one of the two"),
        ({"data": ()}, "one of the two"),
        ({"knowledge": None}, "--knowledge"),
        ({"split": "xsub"}, "--split are for --prepared"),
        ({"augment": False}, "--augment are for --prepared"),
        ({"prepared": "there", "data": (), "draws": 7}, "--draws are for live windows"),
        ({"draws": 3}, "fills no batch"),
        ({"streams": ("bone_motion",)}, "--streams"),
        ({"fps": 0.0}, "--fps"),
        ({"share": ("nowhere:1",)}, "nowhere"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, ucla, knowledge, changes, said):
    base = {} if changes.get("prepared") and "data" in changes else {"held_out": HELD}
    config = settings(tmp_path, ucla, knowledge, **base)
    if not base:
        config = replace(config, held_out=())
    with pytest.raises(UsageError, match=said):
        check(replace(config, **changes))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "one of the two"),
        ({"prepared": "there", "data": ("nw_ucla:there",)}, "one of the two"),
        ({"prepared": "there", "fps": 30.0}, "--fps are for live windows"),
        ({"data": ("nw_ucla:there",), "fps": 0.0}, "--fps must be above 0"),
    ],
)
def test_describe_takes_one_kind_of_clips(tmp_path, monkeypatch, given, said):
    monkeypatch.setattr(program, "open_encoder", lambda name, weights: tiny_encoder())
    with pytest.raises(UsageError, match=said):
        program.run(program.Config(Describe(out=tmp_path / "out", **given)), QUIET)
