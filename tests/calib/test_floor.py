"""The floor from people and from depth: real poses tilted by a known amount, generated ones, and what is refused."""

import json
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from calib.floor import main
from calib.floor_bodies import Gathering, straight
from calib.floor_depth import find_floor_in_depth
from calib.floor_fit import find_floor
from calib.floor_orientation import best_turn
from realtime.calibration import load_calibration
from realtime.clock import Clock
from realtime.errors import UsageError
from realtime.floor import upright_turn
from realtime.generator import perform
from realtime.generator.crowd import CAMERA_HEIGHT_M, crowd
from realtime.generator.sight import rays_of
from realtime.lens import Lens
from realtime.recording import RecordingWriter
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import KINECT_V2_25
from realtime.wire import pose_message
from scripts.tilt_cost import angle_deg, camera_of, floor_of, measure, shipped_accuracy, tilt_matrix, tilted
from train.data import read, subject_key

UP = np.array((0.0, 1.0, 0.0))
FOLDERS = {"nw_ucla": "nw_ucla_all_sqe", "utd_mhad": "utd_mhad_skeleton"}


@pytest.fixture(scope="module")
def unpacked(shared, tmp_path_factory):
    """The folder of a set's published files, unpacked, or a skip."""
    folders = {}

    def unpack(name: str) -> Path:
        archive = shared / "data" / f"{FOLDERS[name]}.tar.xz"
        if not archive.is_file():
            pytest.skip(f"{archive} is not there")
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            with tarfile.open(archive) as tar:
                tar.extractall(folders[name], filter="data")
        return folders[name]

    return unpack


@cache
def people_of(folder: Path, name: str, subjects: tuple[str, ...]):
    return list(read(name, folder, subjects))


@cache
def scenes(noise_m=0.01):
    """Generated people who walk about: seconds, person, joints (V, 3) in a level camera's space."""
    rng, rows, person, later = np.random.default_rng(0), [], 0, 0.0
    for scene in ("pass", "turn_back", "around", "three", "overtake", "behind"):
        made = crowd(scene, seed=5, fps=15)
        for joints in made.joints:
            person += 1
            noisy = joints + rng.normal(0, noise_m, joints.shape)
            rows += [
                (later + ns / SECOND_NS, person, one) for ns, one in zip(made.times_ns.tolist(), noisy, strict=True)
            ]
        later += made.times_ns[-1] / SECOND_NS + 1
    return rows


def gathered(rows, turn=None, lift=0.0, centred=False, confidence=None, layout=KINECT_V2_25):
    turn = np.eye(3) if turn is None else turn
    people = Gathering()
    for seconds, person, joints in rows:
        joints = joints - joints[layout.root] if centred else joints - (0, lift, 0)
        sure = np.ones(len(layout)) if confidence is None else confidence
        now = round(seconds * SECOND_NS)
        people.add(0, now, (Pose(0, now, person, layout, (joints @ turn.T).astype(np.float32), sure),))
    return people.bodies()


@pytest.mark.parametrize(
    ("down", "roll", "lift"), [(0, 0, 0), (15, 15, 0.5), (30, 0, 1.0), (45, -20, 0.7), (20, 90, 0)]
)
def test_of_generated_people_up_and_height_are_found(down, roll, lift):
    turn = tilt_matrix(down, roll)
    found = find_floor(gathered(scenes(), turn, lift))
    assert angle_deg(found.up, turn @ UP) < min(2.0, found.within_deg)
    assert abs(found.height_m - CAMERA_HEIGHT_M - lift) < max(0.1, found.height_within_m)


def test_poses_that_hang_at_their_hips_give_up_alone():
    turn = tilt_matrix(30, 10)
    found = find_floor(gathered(scenes(), turn, centred=True))
    assert angle_deg(found.up, turn @ UP) < 2.5
    assert found.height_m is None and "hang at their hips" in found.why_no_height


def test_who_lies_sits_or_bends_for_a_third_of_the_time_changes_nothing():
    turn = tilt_matrix(25, 0)
    lying = upright_turn(np.array((1.0, 0.05, 0)))
    rows = [(s, p, joints if p % 3 else (joints - joints[0]) @ lying.T + joints[0]) for s, p, joints in scenes()]
    found = find_floor(gathered(rows, turn))
    assert found.share < 0.95
    assert angle_deg(found.up, turn @ UP) < 2.0


def seated_rows(seconds=30.0):
    motion = perform([("sit_down", 2.6), ("nothing", seconds)], seed=1, fps=15)
    return [(ns / SECOND_NS, 1, j) for ns, j in zip(motion.times_ns.tolist(), motion.joints, strict=True)]


@pytest.mark.parametrize(
    ("bodies", "sentence"),
    [
        (lambda: gathered([]), "nobody was seen"),
        (lambda: gathered(scenes()[:100]), "people were seen for only"),
        (lambda: gathered(seated_rows()), "upright for only"),
        (lambda: gathered(scenes(), confidence=legless()), "knees and ankles hardly ever"),
        (lambda: gathered([(s, p, j @ tilt_matrix(0, 60 * (p % 3)).T) for s, p, j in scenes()]), "different ways"),
    ],
)
def test_what_does_not_show_up_is_refused_in_its_own_words(bodies, sentence):
    with pytest.raises(UsageError, match=sentence):
        find_floor(bodies())


def legless():
    sure = np.ones(25)
    sure[
        [KINECT_V2_25.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("knee", "ankle", "foot")]
    ] = 0
    return sure


def test_who_squats_or_bends_is_not_upright():
    motion = perform([("nothing", 2.0), ("squat", 3.0), ("pick_up", 3.0)], seed=3, noise=False)
    from realtime.skeleton import CORE_16, convert

    joints, sure = convert(motion.joints, motion.confidence, KINECT_V2_25, CORE_16)
    good = straight(joints, sure)
    hips = joints[:, CORE_16.index("left_hip"), 1]
    assert good[:30].all() and not good[hips < hips[0] - 0.2].any()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "camera"), [("nw_ucla", "v01"), ("nw_ucla", "v02"), ("utd_mhad", "the one")])
def test_real_people_of_a_tilted_camera_show_up_to_within_two_degrees(unpacked, name, camera):
    """The set's own camera is tilted by an unknown amount: it is told by other people, as recorded."""
    folder = unpacked(name)
    others = [c for c in people_of(folder, name, ("4", "5", "6")) if camera_of(c) == camera]
    clips = [c for c in people_of(folder, name, ("1", "2", "3")) if camera_of(c) == camera][::2]
    level = floor_of(others[::2])
    for down, roll, lift in ((0, 0, 0.0), (15, 15, 0.4), (30, 0, 0.9)):
        turn = tilt_matrix(down, roll)
        found = floor_of([tilted(clip, turn, lift) for clip in clips])
        assert angle_deg(found.up, turn @ level.up) < 2.0
        assert abs(found.height_m - level.height_m - lift) < 0.12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "held", "finders"), [("nw_ucla", ("9", "10"), ("1", "2")), ("utd_mhad", ("7", "8"), ("1",))]
)
def test_accuracy_at_thirty_degrees_returns_to_within_a_point_of_level(unpacked, name, held, finders):
    clips = people_of(unpacked(name), name, (*finders, *held))
    held_keys = [subject_key(one) for one in held]
    accuracy = shipped_accuracy()
    level = accuracy([clip for clip in clips if subject_key(clip.subject) in held_keys])
    (row,) = measure(clips, held_keys, [subject_key(one) for one in finders], accuracy, [(30, 0)])
    assert row["upright"] > level - 0.01


LENS = Lens(320, 240, 290.0, 290.0, 160.0, 120.0, (0.0, 0.0, 0.0, 0.0, 0.0), "pinhole", 0.1)


def room(down, height_m, rng, roll=0.0):
    """A depth picture of a bare room with a table, as a camera sees it that looks down: uint16 mm."""
    turn = tilt_matrix(down, roll)  # from level to the camera, Kinect axes
    flip = np.diag((-1.0, -1.0, 1.0))

    def plane(normal, away):
        return flip @ turn @ np.array(normal, float), away

    rays = np.column_stack((rays_of(LENS, 320, 240), np.ones(240 * 320))).reshape(240, 320, 3)
    depth = np.full((240, 320), np.inf)
    for normal, away in (plane((0, 1, 0), -height_m), plane((0, 0, 1), 4.0), plane((1, 0, 0), 2.0)):
        with np.errstate(divide="ignore", invalid="ignore"):
            z = away / (rays @ normal)
        depth = np.where((z > 0) & (z < depth), z, depth)
    depth = depth + rng.normal(0, 1, depth.shape) * (0.002 + 0.003 * np.minimum(depth, 9) ** 2)
    depth[rng.random(depth.shape) < 0.1] = 0
    return np.where((depth > 0) & (depth < 9), depth * 1000, 0).astype(np.uint16), turn @ UP


@pytest.mark.parametrize(("down", "height", "roll"), [(10, 1.0, 0), (30, 1.8, 5), (50, 2.4, -10)])
def test_the_floor_is_found_in_a_depth_picture(down, height, roll):
    rng = np.random.default_rng(0)
    pictures = [room(down, height, rng, roll)[0] for _ in range(5)]
    found = find_floor_in_depth(pictures, LENS)
    assert angle_deg(found.up, room(down, height, rng, roll)[1]) < 1.0
    assert abs(found.height_m - height) < 0.04
    assert found.within_deg < 2.0


def test_depth_without_a_floor_is_refused():
    wall = np.full((240, 320), 2500, np.uint16)
    with pytest.raises(UsageError, match="can be the floor"):
        find_floor_in_depth([wall], LENS)
    with pytest.raises(UsageError, match="depth is known in"):
        find_floor_in_depth([np.zeros((240, 320), np.uint16)], LENS)
    with pytest.raises(UsageError, match="no depth picture"):
        find_floor_in_depth([], LENS)
    with pytest.raises(UsageError, match="160x120 and 320x240"):  # of two sources
        find_floor_in_depth([wall, np.zeros((120, 160), np.uint16)], LENS)


class Lying:
    """A pose stage that sees one standing person in pictures whose brightest edge is at the top."""

    refused = gated = crowded = 0

    def find(self, frame):
        edges = [frame.image[0].mean(), frame.image[:, -1].mean(), frame.image[-1].mean(), frame.image[:, 0].mean()]
        if int(np.argmax(edges)):
            return ()
        joints = scenes()[0][2]
        return (Pose(0, frame.captured_ns, 1, KINECT_V2_25, joints.astype(np.float32), np.ones(25, np.float32)),)

    def reset(self):
        pass

    def close(self):
        pass


@pytest.mark.parametrize(("edge", "turn"), [(np.s_[0], 0), (np.s_[:, 0], 90), (np.s_[-1], 180), (np.s_[:, -1], 270)])
def test_pictures_are_turned_until_people_stand_in_them(edge, turn):
    image = np.zeros((60, 80, 3), np.uint8)
    image[edge] = 200
    best, counts = best_turn([Frame(i, i + 1, image) for i in range(4)], Lying)
    assert best == turn and counts[turn] == 4
    assert best_turn([Frame(0, 1, np.zeros((60, 80, 3), np.uint8) + 7)], Lying)[0] in (0, 90, 180, 270)


def record(path, rows, turn, marks=()):
    with RecordingWriter(path, marks) as writer:
        for seq, (seconds, person, joints) in enumerate(sorted(rows, key=lambda row: row[0])):
            now = round(seconds * SECOND_NS) + seq
            pose = Pose(seq, now, person, KINECT_V2_25, (joints @ turn.T).astype(np.float32), np.ones(25, np.float32))
            writer.write(
                pose_message(
                    (pose,), frame=seq, captured_ns=now, layout=KINECT_V2_25, session="s", seq=seq, source="cam",
                    clock=Clock(0, 0),
                )
            )  # fmt: skip


def command(monkeypatch, *args):
    monkeypatch.setattr("sys.argv", ["calib.floor", *map(str, args)])
    return main()


def test_the_command_writes_a_file_that_the_line_takes(tmp_path, monkeypatch, capsys):
    turn, out, picture = tilt_matrix(30, 0), tmp_path / "floor.json", tmp_path / "side.png"
    record(tmp_path / "today.mcap", scenes(), turn)
    assert command(monkeypatch, "--source", tmp_path / "today.mcap", "--out", out, "--picture", picture) == 0
    floor = load_calibration(out).floor
    assert angle_deg(np.array(floor.up), turn @ UP) < 2
    assert floor.orientation == 0 and abs(floor.height_m - CAMERA_HEIGHT_M) < 0.15
    told = " ".join(capsys.readouterr().err.split())
    assert "looks down by" in told and "up is known to ±" in told and "realtime.run --camera 0 --calib" in told
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size < 150_000
    assert json.loads(out.read_text())["measured"]["people"] > 3
    assert command(monkeypatch, "--source", tmp_path / "today.mcap", "--out", out) == 2
    assert "--replace" in capsys.readouterr().err


def test_a_recording_that_is_upright_already_says_nothing_of_a_camera(tmp_path, monkeypatch, capsys):
    record(tmp_path / "a.mcap", scenes()[:50], np.eye(3), ("upright",))
    assert command(monkeypatch, "--source", tmp_path / "a.mcap", "--out", tmp_path / "floor.json") == 2
    assert "recorded with a floor" in " ".join(capsys.readouterr().err.split())


def test_a_camera_on_its_side_is_said_to_be(tmp_path, monkeypatch, capsys):
    record(tmp_path / "side.mcap", scenes(), tilt_matrix(10, 90))
    assert command(monkeypatch, "--source", tmp_path / "side.mcap", "--out", tmp_path / "floor.json") == 0
    assert load_calibration(tmp_path / "floor.json").floor.orientation == 90
    assert "turned by 90° clockwise" in " ".join(capsys.readouterr().err.split())


def test_a_source_without_depth_is_refused_for_depth(tmp_path, monkeypatch, capsys):
    record(tmp_path / "a.mcap", scenes()[:50], np.eye(3))
    args = ("--source", tmp_path / "a.mcap", "--from", "depth", "--out", tmp_path / "f.json")
    assert command(monkeypatch, *args) == 2
    assert "has no depth" in " ".join(capsys.readouterr().err.split())


def test_wrong_flags_are_refused(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "--source", "synthetic", "--seconds", "1", "--out", tmp_path / "f.json") == 2
    assert command(monkeypatch, "--source", tmp_path / "no.mcap", "--out", tmp_path / "f.json") == 4
    assert command(monkeypatch, "--source", "synthetic", "--persons", "0", "--out", tmp_path / "f.json") == 2
