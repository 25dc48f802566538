"""NTU RGB+D: `.skeleton` files written as published, the faults they can have, and who is chosen as actor."""

import numpy as np
import pytest

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V2_25
from train.data import ntu, read
from train.data.clip import GUESSED

V = len(KINECT_V2_25)
NAME = "S001C002P003R001A050"
# Ids of real files are this long: neighbours differ by less than a float64 can tell apart at this size.
FIRST, SECOND, THIRD = 72057594037931101, 72057594037931102, 72057594037931103


def pose(x=0.0, wide=False, rng=None):
    """(25, 3) metres of someone upright, or as wide as tall, at x; moved a little at random where rng is given."""
    joints = np.column_stack([np.linspace(-0.3, 0.3, V), np.linspace(-0.9, 0.9, V), np.linspace(2.9, 3.1, V)])
    joints[:, 0] *= 3.0 if wide else 1.0
    joints[:, 0] += x
    return np.round(joints if rng is None else joints + rng.normal(0, 0.05, joints.shape), 6)


def skeleton(frames, state=2):
    """The lines of a file; frames: a list of bodies (id, joints) each."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for name, joints in bodies:
            lines += [f"{name} 0 1 1 1 1 0 0.0276 -0.0574 2", str(V)]
            lines += [
                f"{x:.6f} {y:.6f} {z:.6f} 277.4 191.8 1036.2 519.1 -0.2059 0.0549 0.9692 -0.1239 {state}"
                for x, y, z in joints
            ]
    return lines


def write(folder, frames, name=NAME, **options):
    file = folder / f"{name}.skeleton"
    file.write_bytes(("\r\n".join(skeleton(frames, **options)) + "\r\n").encode())
    return file


def of(folder, frames, data="ntu60", **options):
    write(folder, frames, **options)
    (found,) = read(data, folder)
    return found


def test_a_clip_has_its_names_metres_and_times(tmp_path):
    found = of(tmp_path, [[(FIRST, pose(0.1))], [(FIRST, pose(0.2))]])
    assert (found.data, found.name, found.subject, found.label) == ("ntu60", NAME, 3, "A050")
    assert ntu.place(found.name) == (3, 2, 1)
    assert found.layout is KINECT_V2_25 and found.times_ns.tolist() == [0, 33333333]
    np.testing.assert_array_equal(found.joints[:, 0], np.float32([pose(0.1), pose(0.2)]))
    assert not found.joints[:, 1].any() and not found.confidence[:, 1].any()


@pytest.mark.parametrize(("state", "confidence"), [(2, 1.0), (1, GUESSED), (0, GUESSED)])
def test_a_joint_that_was_guessed_is_less_sure(tmp_path, state, confidence):
    assert (of(tmp_path, [[(FIRST, pose())]], state=state).confidence[:, 0] == confidence).all()


def test_frames_without_a_body_are_dropped(tmp_path):
    frames = [[], [(FIRST, pose(0.1))], [], [], [(FIRST, pose(0.2))], []]
    found = of(tmp_path, frames)
    np.testing.assert_array_equal(found.joints[:, 0], np.float32([pose(0.1), pose(0.2)]))


def test_positions_that_are_not_finite_are_missing_joints_and_other_columns_may_be_anything(tmp_path):
    lines = skeleton([[(FIRST, pose())]])
    lines[4] = "NaN 1 2 3 4 5 6 7 8 9 0 1"
    lines[5] = "1 2 3 -Infinity NaN 5 6 7 8 9 0 1"
    (tmp_path / f"{NAME}.skeleton").write_text("\n".join(lines))
    (found,) = read("ntu60", tmp_path)
    assert not found.joints[0, 0, 0].any() and found.confidence[0, 0, 0] == 0
    assert found.joints[0, 0, 1].tolist() == [1, 2, 3]


def test_spaces_and_blank_lines_at_ends_do_no_harm(tmp_path):
    lines = skeleton([[(FIRST, pose())]])
    (tmp_path / f"{NAME}.skeleton").write_text("\n".join(line + " " for line in lines) + "\n\n \n")
    (found,) = read("ntu60", tmp_path)
    np.testing.assert_array_equal(found.joints[0, 0], np.float32(pose()))


def test_ids_are_told_apart_to_the_last_digit(tmp_path):
    file = write(tmp_path, [[(FIRST, pose(0.0)), (SECOND, pose(1.0))]] * 3)
    assert float(FIRST) == float(SECOND)  # what reading them as numbers would do
    one, other = ntu.parse(file)
    np.testing.assert_array_equal(one.joints[0], pose(0.0))
    np.testing.assert_array_equal(other.joints[0], pose(1.0))


def test_ids_that_come_and_go_keep_their_frames(tmp_path):
    frames = [[(FIRST, pose(0.0))], [], [(SECOND, pose(1.0))], [(FIRST, pose(0.2)), (SECOND, pose(1.1))]]
    one, other = ntu.parse(write(tmp_path, frames))
    assert one.at.tolist() == [0, 2] and other.at.tolist() == [1, 2]  # the empty frame is not counted
    np.testing.assert_array_equal(other.joints, [pose(1.0), pose(1.1)])


def test_of_two_bodies_of_one_id_in_a_frame_the_first_is_kept(tmp_path):
    (body,) = ntu.parse(write(tmp_path, [[(FIRST, pose(0.0)), (FIRST, pose(1.0))], [(FIRST, pose(0.1))]]))
    np.testing.assert_array_equal(body.joints, [pose(0.0), pose(0.1)])


WHOLE = skeleton([[(FIRST, pose())], [(FIRST, pose()), (SECOND, pose(1.0))]])


@pytest.mark.parametrize(
    ("kept", "before"),
    [
        (0, "the frame count"),
        (1, "the body count of frame 1 of 2"),
        (2, "body 1 of frame 1 of 2"),
        (3, "body 1 of frame 1 of 2"),
        (4, "the joints of body 1 of frame 1"),
        (28, "the joints of body 1 of frame 1"),
        (29, "the body count of frame 2 of 2"),
        (30, "body 1 of frame 2"),
        (57, "body 2 of frame 2"),
        (58, "body 2 of frame 2"),
        (len(WHOLE) - 1, "the joints of body 2 of frame 2"),
    ],
)
def test_a_file_that_is_cut_off_names_where(tmp_path, kept, before):
    (tmp_path / f"{NAME}.skeleton").write_text("".join(line + "\n" for line in WHOLE[:kept]))
    with pytest.raises(UsageError, match=rf"{NAME}\.skeleton line {kept}: .* cut off before {before}"):
        list(read("ntu60", tmp_path))


@pytest.mark.parametrize("half", ["0.1 0.2 0.3 277", "0.1"])
def test_a_file_that_is_cut_off_within_a_line_names_it(tmp_path, half):
    (tmp_path / f"{NAME}.skeleton").write_text("\n".join([*WHOLE[:-1], half]))
    with pytest.raises(
        UsageError, match=f"line {len(WHOLE)}: a line here holds 12 numbers, this one {len(half.split())}"
    ):
        list(read("ntu60", tmp_path))


@pytest.mark.parametrize(
    ("line", "text", "told"),
    [
        (1, "two", "the frame count must be a whole number, got 'two'"),
        (1, "-1", "the frame count must be a whole number"),
        (2, "1.5", "the body count of frame 1 of 2 must be a whole number"),
        (4, "24", "the joint count must be 25, got '24'"),
        (4, "", "the joint count must be 25"),
        (3, f"{FIRST} 0 1 1 1 1 0 0.0276 x 2", "could not convert string to float: 'x'"),
        (3, f"{FIRST} 0 1 1 1", "holds 10 numbers, this one 5"),
        (9, "1 2 3 4 5 6 7 8 9 0 1 O", "could not convert string to float: 'O'"),
        (9, "1 2 3 4 5 6 7 8 9 0 1", "holds 12 numbers, this one 11"),
        (9, "1 2 3 4 5 6 7 8 9 0 1 2 3", "holds 12 numbers, this one 13"),
        (9, "1.2.3 2 3 4 5 6 7 8 9 0 1 2", "could not convert"),
        (len(WHOLE) + 1, "7", "says 2 frames and goes on"),
    ],
)
def test_junk_names_file_and_line(tmp_path, line, text, told):
    lines = [*WHOLE, ""]
    lines[line - 1] = text
    (tmp_path / f"{NAME}.skeleton").write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=rf"{NAME}\.skeleton line {line}: .*{told}"):
        list(read("ntu60", tmp_path))


def test_lines_that_are_too_short_and_too_long_do_not_make_up_for_each_other(tmp_path):
    lines = list(WHOLE)
    lines[8], lines[9] = "1 2 3 4 5 6 7 8 9 0 1", "1 2 3 4 5 6 7 8 9 0 1 2 3"
    (tmp_path / f"{NAME}.skeleton").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="line 9"):
        list(read("ntu60", tmp_path))


@pytest.mark.parametrize("frames", [[], [[], []], [[(FIRST, np.zeros((V, 3)))]]])
def test_a_file_that_shows_nobody_is_refused_by_name(tmp_path, frames):
    write(tmp_path, frames)
    with pytest.raises(UsageError, match=rf"{NAME}\.skeleton: no frame of it shows a body.*missing"):
        list(read("ntu60", tmp_path))


def test_what_the_published_list_says_is_missing_is_not_read(tmp_path):
    write(tmp_path, [[]])
    write(tmp_path, [[(FIRST, pose())]], name="S001C001P003R001A050")
    (tmp_path / "NTU_RGBD_samples_with_missing_skeletons.txt").write_text(f"Missing or incomplete:\n\n{NAME}\n")
    assert [found.name for found in read("ntu60", tmp_path)] == ["S001C001P003R001A050"]


def test_a_list_without_names_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("nothing\n")
    with pytest.raises(UsageError, match=r"list\.txt names no clip"):
        ntu.missing_names(tmp_path / "list.txt")


def test_ntu60_is_setups_1_to_17_and_ntu120_all(tmp_path):
    for name in ("S017C001P001R001A060", "S018C001P001R001A061", "S032C001P106R002A120"):
        write(tmp_path, [[(FIRST, pose())]], name=name)
    assert [found.label for found in read("ntu60", tmp_path)] == ["A060"]
    assert [found.label for found in read("ntu120", tmp_path)] == ["A060", "A061", "A120"]
    assert [found.subject for found in read("ntu120", tmp_path, subjects=["106"])] == [106]


def test_an_action_outside_the_set_is_refused(tmp_path):
    write(tmp_path, [[(FIRST, pose())]], name="S001C001P001R001A061")
    with pytest.raises(UsageError, match="1 to 60, got 61"):
        list(read("ntu60", tmp_path))


def moving(step, frames=20, at=0.0, **options):
    """A body that goes `step` metres to the side in each frame."""
    return [pose(at + step * frame, **options) for frame in range(frames)]


def together(**bodies):
    """Frames of bodies id=(first frame, poses)."""
    total = max(first + len(poses) for first, poses in bodies.values())
    return [
        [(name[1:], poses[frame - first]) for name, (first, poses) in bodies.items() if 0 <= frame - first < len(poses)]
        for frame in range(total)
    ]


def test_who_moves_most_is_actor_1(tmp_path):
    still, mover = moving(0.0), moving(0.05, at=1.0)
    found = of(tmp_path, together(_1=(0, still), _2=(0, mover)))
    np.testing.assert_array_equal(found.joints[:, 0], np.float32(mover))
    np.testing.assert_array_equal(found.joints[:, 1], np.float32(still))


def test_a_body_of_11_frames_is_noise_and_one_of_12_is_not(tmp_path):
    alone = of(tmp_path, together(_1=(0, moving(0.0)), _2=(0, moving(0.05, frames=11, at=1.0))))
    assert not alone.joints[:, 1].any() and alone.joints[0, 0, 0, 0] == np.float32(-0.3)
    assert of(tmp_path, together(_1=(0, moving(0.0)), _2=(0, moving(0.05, frames=12, at=1.0)))).joints[:, 1].any()


def test_a_lone_body_is_kept_however_short(tmp_path):
    assert len(of(tmp_path, together(_1=(0, moving(0.0, frames=3)))).joints) == 3


def test_of_short_bodies_alone_the_longest_is_kept(tmp_path):
    found = of(tmp_path, together(_1=(0, moving(0.0, frames=3)), _2=(0, moving(0.0, frames=5, at=1.0))))
    assert len(found.joints) == 5 and not found.joints[:, 1].any()


@pytest.mark.parametrize(("wide", "kept"), [(13, True), (14, False)])  # 13/20 < 0.69754 <= 14/20
def test_a_body_that_is_mostly_too_wide_is_noise(tmp_path, wide, kept):
    person = moving(0.001)
    chair = [pose(1.0 + 0.1 * frame, wide=frame < wide) for frame in range(20)]
    found = of(tmp_path, together(_1=(0, chair), _2=(0, person)))
    assert bool(found.joints[:, 1].any()) == kept


def test_noisy_frames_do_not_count_as_motion(tmp_path):
    """13 wide frames spread over metres, 7 good ones still: the other, who moves a little, is actor 1."""
    flicker = [pose(1.0 + (0.5 * frame if frame < 13 else 0.0), wide=frame < 13) for frame in range(20)]
    person = moving(0.02)
    found = of(tmp_path, together(_1=(0, flicker), _2=(0, person)))
    np.testing.assert_array_equal(found.joints[:, 0], np.float32(person))


def test_the_last_body_is_kept_however_wide(tmp_path):
    found = of(tmp_path, together(_1=(0, moving(0.0, wide=True)), _2=(0, moving(0.05, at=1.0, wide=True))))
    np.testing.assert_array_equal(found.joints[:, 0], np.float32(moving(0.05, at=1.0, wide=True)))
    assert not found.joints[:, 1].any()


def test_an_id_lost_and_given_anew_fills_actor_1_and_another_at_the_time_actor_2(tmp_path):
    mover, again, other = moving(0.1), moving(0.05, at=0.2), moving(0.01, frames=40, at=2.0)
    found = of(tmp_path, together(_1=(0, mover), _2=(20, again), _3=(0, other)))
    np.testing.assert_array_equal(found.joints[:, 0], np.float32(mover + again))
    np.testing.assert_array_equal(found.joints[:, 1], np.float32(other))


def test_a_third_body_at_the_same_time_is_left_out(tmp_path):
    bodies = {f"_{i}": (0, moving(0.1 - 0.03 * i, at=float(i))) for i in range(3)}
    found = of(tmp_path, together(**bodies))
    np.testing.assert_array_equal(found.joints[:, 0], np.float32(moving(0.1)))
    np.testing.assert_array_equal(found.joints[:, 1], np.float32(moving(0.07, at=1.0)))


def test_frames_that_only_noise_filled_are_dropped(tmp_path):
    found = of(tmp_path, together(_1=(0, moving(0.02)), _2=(20, moving(0.1, frames=5, at=1.0))))
    assert len(found.joints) == 20


def test_a_body_that_comes_back_keeps_its_own_frames(tmp_path):
    frames = together(_1=(0, moving(0.1, frames=15)), _2=(0, moving(0.0, frames=40, at=2.0)))
    for frame in range(30, 40):
        frames[frame].append(("1", pose(5.0)))
    found = of(tmp_path, frames)
    assert found.joints[:, 0].any(axis=(1, 2)).tolist() == [frame < 15 or frame >= 30 for frame in range(40)]
    assert found.joints[:, 1].any(axis=(1, 2)).all()


def test_values_are_parsed_as_float_does(tmp_path):
    rng = np.random.default_rng(0)
    poses = [pose(rng=rng) for _ in range(5)]
    file = write(tmp_path, [[(FIRST, joints)] for joints in poses])
    rows = [line.split() for line in file.read_text().splitlines()]
    truth = np.array([[float(word) for word in row[:3]] for row in rows if len(row) == 12]).reshape(5, V, 3)
    (body,) = ntu.parse(file)
    np.testing.assert_array_equal(body.joints, truth)
