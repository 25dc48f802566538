"""Descriptions: true to generated motions, the same wherever and however often they were filmed, honest about gaps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from realtime.generator import perform
from realtime.skeleton import CORE_16, KINECT_V2_25, LAYOUTS, OPENNI_15, convert
from tests.train.told_sets import prepared_of
from train.describe import MAIN, describe, facts_of, mirrored

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2, 3)
# What must be said of a generated motion, whoever performs it: patterns that each match one of its sentences.
TRUTHS = {
    ("wave:right", 4.0): ["right hand is raised to (shoulder|head) height|right hand is raised above the head",
                          "right hand .* from side to side again and again"],
    ("wave:left", 4.0): ["left hand .* from side to side again and again"],
    ("wave:both", 6.0): ["(Both hands are|left hand is) raised"],
    ("walk:across", 7.0): ["The person walks away and comes back"],
    ("walk:treadmill", 5.0): ["walks on the spot"],
    ("jog:place", 5.0): ["(runs|walks) on the spot"],
    ("sit_down", 2.6): ["stands at first and sits down"],
    ("stand_up", 2.6): ["sits at first and stands up"],
    ("clap", 4.0): ["hands come together and part again and again"],
    ("throw:right", 2.6): ["right hand is raised (to head height|above the head) and lowered", "right hand moves fast",
                           "right hand goes .*forward"],
    ("kick:right", 2.0): ["right foot is lifted off the floor and swings forward"],
    ("squat", 3.0): ["goes down into a crouch and stands up again", "Both hands are stretched out to the front"],
    ("pick_up:right", 3.0): ["(bends down and comes up|goes down into a crouch and stands up) again"],
    ("push:both", 2.4): ["Both hands are stretched out to the front"],
    ("point:left", 3.0): ["left hand is stretched out to the front"],
    ("raise_arms", 3.4): ["Both hands are raised above the head and lowered again"],
    ("bow", 3.0): ["upper body leans far forward and comes up again"],
}  # fmt: skip


def motion(script, seed=3, **options):
    return perform([script], seed=seed, **{"noise": False, **options})


def told(script, seed=3, count=16, **options) -> list[str]:
    made = motion(script, seed, **options)
    return describe(made.joints, KINECT_V2_25, made.fps, made.confidence, count)


def main_of(joints: np.ndarray, fps: float = 30.0) -> list[str]:
    """What is said of the whole clip."""
    return sorted(fact.text for fact in facts_of(joints, KINECT_V2_25, fps) if fact.level == MAIN)


@pytest.mark.parametrize("script", TRUTHS, ids=lambda script: script[0])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_generated_person_does_is_said(script, seed: int):
    sentences = told(script, seed, noise=True)
    for pattern in TRUTHS[script]:
        assert any(re.search(pattern, sentence) for sentence in sentences), (pattern, sentences)


@pytest.mark.parametrize("hand", ["right", "left"])
def test_only_the_hand_that_waves_is_said_to_be_raised(hand: str):
    other = {"right": "left", "left": "right"}[hand]
    sentences = " ".join(told((f"wave:{hand}", 4.0)))
    assert f"{hand} hand is raised" in sentences.lower()
    assert f"{other} hand is raised" not in sentences.lower() and "both hands" not in sentences.lower()


def test_a_hand_that_reaches_low_and_a_trunk_that_follows_are_said():
    sentences = told(("pick_up:right", 3.0))
    assert "Both hands reach down to the knees and come up again." in sentences
    assert "The upper body leans far forward and comes up again." in sentences


def turned(joints: np.ndarray, degrees: float) -> np.ndarray:
    sin, cos = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    x, y, z = np.moveaxis(joints.astype(float), -1, 0)
    return np.stack([x * cos + z * sin, y, z * cos - x * sin], axis=-1)


@pytest.mark.parametrize("script", TRUTHS, ids=lambda script: script[0])
def test_place_heading_and_body_size_change_no_word(script):
    made = motion(script)
    plain = describe(made.joints, KINECT_V2_25, 30.0)
    centre = made.joints[0, 0]
    assert describe(made.joints + np.array([1.5, 0.3, 2.0]), KINECT_V2_25, 30.0) == plain
    assert describe(turned(made.joints - centre, 130.0) + np.array([0.5, 0.0, 5.0]), KINECT_V2_25, 30.0) == plain
    assert describe((made.joints - centre) * 0.8 + centre, KINECT_V2_25, 30.0) == plain


@pytest.mark.parametrize("script", TRUTHS, ids=lambda script: script[0])
@pytest.mark.parametrize("fps", [10.0, 15.0, 60.0])
def test_the_frame_rate_changes_no_main_sentence(script, fps: float):
    made = motion(script, fps=fps)
    assert main_of(made.joints, fps) == main_of(motion(script).joints)


@pytest.mark.parametrize("script", TRUTHS, ids=lambda script: script[0])
def test_noise_of_a_centimetre_changes_no_main_sentence(script):
    made = motion(script)
    noise = np.random.default_rng(0).normal(0, 0.01, made.joints.shape)
    assert main_of(made.joints + noise) == main_of(made.joints)


def reflected(joints: np.ndarray, layout=KINECT_V2_25) -> np.ndarray:
    return joints[..., list(layout.mirror()), :] * np.array([-1, 1, 1], joints.dtype)


@pytest.mark.parametrize("script", TRUTHS, ids=lambda script: script[0])
def test_a_mirrored_motion_swaps_left_and_right_and_nothing_else(script):
    made = motion(script, noise=True)
    plain = describe(made.joints, KINECT_V2_25, 30.0)
    other = describe(reflected(made.joints), KINECT_V2_25, 30.0)
    assert other == [mirrored(sentence) for sentence in plain]
    assert [mirrored(mirrored(sentence)) for sentence in plain] == plain


def test_one_frame_is_a_posture_without_motion():
    sentences = describe(motion(("wave:right", 4.0)).joints[60:61], KINECT_V2_25, 30.0)
    assert sentences[0] == "The person stands."
    assert not re.search("move|again|walk|beginning|fast|still", " ".join(sentences))


@pytest.mark.parametrize("frames", range(1, 12))
def test_every_length_can_be_told(frames: int):
    assert describe(motion(("throw:right", 2.6)).joints[20 : 20 + frames], KINECT_V2_25, 30.0)


def test_a_person_who_stands_still_is_said_to():
    joints = np.repeat(motion(("nothing", 1.0)).joints[:1], 60, axis=0)
    assert "The person keeps still." in describe(joints, KINECT_V2_25, 30.0)


@pytest.mark.parametrize(("gone", "words"), [
    (("left_wrist", "left_hand", "left_tip", "left_thumb"), "left hand|both hands|hands"),
    (("left_ankle", "right_ankle", "left_knee", "right_knee"), "knee|foot|feet|legs|stands|sits|crouch"),
    (("head",), "head"),
])  # fmt: skip
def test_absent_joints_are_not_spoken_of(gone, words: str):
    for script in TRUTHS:
        joints = motion(script).joints.copy()
        joints[:, [KINECT_V2_25.index(joint) for joint in gone]] = 0
        sentences = " ".join(describe(joints, KINECT_V2_25, 30.0)).lower()
        assert not re.search(words, sentences), (script, sentences)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_every_layout_tells_of_the_wave(layout):
    made = motion(("wave:right", 4.0))
    if layout.name in ("BLAZEPOSE_33", "COCO_17"):
        pytest.skip("no map from Kinect to a face; the next test goes the other way")
    joints, sure = convert(made.joints, made.confidence, KINECT_V2_25, layout)
    sentences = " ".join(describe(joints, layout, 30.0, sure))
    assert re.search("right hand .* from side to side again and again", sentences)


@pytest.mark.parametrize("name", ["BLAZEPOSE_33", "COCO_17"])
def test_a_face_of_ears_and_eyes_is_a_head(name: str):
    made, layout = motion(("wave:right", 4.0)), LAYOUTS[name]
    joints = np.zeros((len(made.joints), len(layout), 3), np.float32)
    for i, joint in enumerate(layout.joints):
        there = joint if joint in KINECT_V2_25.joints else "head"
        joints[:, i] = made.joints[:, KINECT_V2_25.index(there)]
    sentences = " ".join(describe(joints, layout, 30.0))
    assert re.search("right hand .* from side to side again and again", sentences)


def two(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=1)


def test_two_people_come_nearer_and_only_one_walks():
    walker = motion(("walk:treadmill", 3.0)).joints.copy()
    stander = motion(("nothing", 3.0), seed=5).joints - [0, 0, 2.5]
    walker[..., 2] -= np.linspace(0, 1.6, len(walker))[:, None]
    stander = turned(stander - stander[0, 0], 180.0) + stander[0, 0]
    sentences = describe(two(walker, stander), KINECT_V2_25, 30.0)
    assert "They come nearer to each other." in sentences
    assert "One person walks to the other, who stays." in sentences
    assert describe(two(stander, walker), KINECT_V2_25, 30.0) == sentences  # the bodies' order says nothing


def test_mirrored_pairs_swap_left_and_right():
    joints = two(
        motion(("push:right", 2.4)).joints, motion(("nothing", 2.4), seed=5).joints - np.float32([0.2, 0, 0.6])
    )
    plain = describe(joints, KINECT_V2_25, 30.0)
    assert describe(reflected(joints), KINECT_V2_25, 30.0) == [mirrored(sentence) for sentence in plain]


def test_nobody_is_told_as_such():
    assert describe(np.zeros((9, 2, 15, 3)), OPENNI_15, 15.0) == ["Nobody is seen."]


@pytest.mark.parametrize("count", [1, 4, 16, 40])
def test_as_many_sentences_as_asked_and_each_but_once(count: int):
    sentences = told(("pick_up:right", 3.0), count=count)
    assert 0 < len(sentences) <= count and len(set(sentences)) == len(sentences)
    assert all(re.fullmatch(r"[A-Z][A-Za-z', -]*\.", sentence) for sentence in sentences), sentences


def test_what_cannot_be_told_is_refused():
    joints = motion(("nothing", 1.0)).joints
    broken = joints.copy()
    broken[3, 2, 1] = np.nan
    for bad, fps, count, words in (
        (broken, 30.0, 16, "finite"), (joints[:0], 30.0, 16, "T > 0"), (joints[:, :5], 30.0, 16, "KINECT_V2_25"),
        (joints, 0.0, 16, "fps"), (joints, 30.0, 0, "count"), (joints[0], 30.0, 16, "joints must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            describe(bad, KINECT_V2_25, fps, count=count)


def test_the_description_of_core_joints_is_that_of_all_joints():
    made = motion(("clap", 3.0))
    core, sure = convert(made.joints, made.confidence, KINECT_V2_25, CORE_16)
    assert describe(core, CORE_16, 30.0, sure) == describe(made.joints, KINECT_V2_25, 30.0)


@pytest.fixture(scope="module")
def unpacked(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = shared / "data" / "utd_mhad_skeleton.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    folder = tmp_path_factory.mktemp("utd")
    with tarfile.open(archive) as tar:
        few = [item for item in tar.getmembers() if re.search(r"_s[12]_t[12]_", item.name)]
        tar.extractall(folder, few, filter="data")
    return folder


def test_descriptions_tell_the_classes_of_real_people_apart(unpacked: Path):
    """Nearest neighbour of another person's clips, by the mean sentence feature: 27 classes, chance is 4 %."""
    torch = pytest.importorskip("torch")
    from realtime.errors import UsageError
    from train.data import utd_mhad
    from train.text import open_encoder

    try:
        encoder = open_encoder("all-MiniLM-L6-v2")
    except UsageError as error:
        pytest.skip(str(error))
    clips = list(utd_mhad.read(unpacked, [1, 2]))
    said = [describe(clip.joints, clip.layout, utd_mhad.FPS, clip.confidence) for clip in clips]
    distinct = sorted({sentence for of_clip in said for sentence in of_clip})
    vectors = dict(zip(distinct, torch.nn.functional.normalize(encoder.encode(distinct), dim=1), strict=True))
    feature = torch.stack([torch.stack([vectors[sentence] for sentence in of_clip]).mean(dim=0) for of_clip in said])
    feature = torch.nn.functional.normalize(feature, dim=1)
    label, first = np.array([clip.label for clip in clips]), np.array([clip.subject == 1 for clip in clips])
    nearest = (feature[~first] @ feature[first].T).argmax(dim=1).numpy()
    accuracy = float((label[first][nearest] == label[~first]).mean())
    assert len(clips) > 100 and accuracy > 0.4


def test_the_command_writes_json_lines_and_refuses_unknown_clips(tmp_path: Path):
    prepared_of(tmp_path / "prepared")

    def command(*arguments: str):
        whole = [sys.executable, "-m", "train.describe", "--prepared", str(tmp_path / "prepared"), *arguments]
        return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)

    printed, written = (
        command(),
        command("--out", str(tmp_path / "said.jsonl"), "--clips", "clap-0", "--sentences", "2"),
    )
    assert printed.returncode == written.returncode == 0, printed.stderr + written.stderr
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [row["name"] for row in rows] == ["wave-0", "clap-0", "bow-0"] and rows[1]["label"] == "clap"
    (row,) = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert row["name"] == "clap-0" and row["sentences"][1].startswith("The hands come together and part again")
    refused = command("--clips", "dance-0")
    assert refused.returncode == 2 and "no clip dance-0" in " ".join(refused.stderr.split())


def test_mirrored_real_pairs_swap_left_and_right(shared: Path, tmp_path: Path):
    from train.data import sbu

    archive = shared / "data" / "sbu_interaction.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    for clip in list(sbu.read(tmp_path))[::6]:
        partner = list(clip.layout.mirror())
        plain = describe(clip.joints, clip.layout, 15.0, clip.confidence, count=40)
        other = describe(
            reflected(clip.joints, clip.layout), clip.layout, 15.0, clip.confidence[..., partner], count=40
        )
        assert other == [mirrored(sentence) for sentence in plain], clip.name


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("kind", ["noise", "wander", "a point", "gaps", "tiny", "huge"])
def test_no_numbers_break_it(layout, kind: str):
    rng = np.random.default_rng(0)
    for frames, people in ((1, 1), (2, 3), (17, 2), (60, 1)):
        shape = (frames, people, len(layout), 3)
        joints = {
            "noise": rng.normal(size=shape),
            "wander": np.cumsum(rng.normal(0, 0.03, shape), axis=0),
            "a point": np.ones(shape),
            "gaps": rng.normal(size=shape) * (rng.random((*shape[:3], 1)) < 0.6),
            "tiny": 1e-6 * rng.normal(size=shape),
            "huge": 1e4 * rng.normal(size=shape),
        }[kind]
        sentences = describe(joints, layout, 15.0, count=40)
        assert sentences and describe(reflected(joints, layout), layout, 15.0, count=40) == [
            mirrored(sentence) for sentence in sentences
        ]


def test_real_circles_are_said_to_be_round_and_which_way(unpacked: Path):
    from train.data import utd_mhad

    clips = list(utd_mhad.read(unpacked, [1, 2]))

    def share(label: str, pattern: str) -> float:
        said = [
            " ".join(describe(clip.joints, clip.layout, utd_mhad.FPS, clip.confidence))
            for clip in clips
            if clip.label == label
        ]
        return sum(bool(re.search(pattern, text)) for text in said) / len(said)

    assert share("draw_circle_cw", "right hand goes round in a circle before the body, outward over the top") > 0.7
    assert share("draw_circle_ccw", "right hand goes round in a circle before the body, inward over the top") > 0.7
    assert all(share(label, "in a circle") == 0 for label in ("throw", "push", "walk", "bowling", "sit2stand"))


def test_the_documents_sentences_are_the_describers():
    lines = (ROOT / "docs" / "knowledge.md").read_text(encoding="utf-8").splitlines()
    examples: dict[tuple[str, float], list[str]] = {}
    for line in lines:
        if match := re.fullmatch(r"    ([a-z_:]+) ([\d.]+)", line):
            script = (match[1], float(match[2]))
            examples[script] = []
        elif re.fullmatch(r" {8}[A-Z].*\.", line):
            examples[script].append(line.strip())
    assert len(examples) > 5
    for script, sentences in examples.items():
        assert sentences == told(script, noise=True, count=40)[: len(sentences)], script
