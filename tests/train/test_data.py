"""Readers: small files as published, the faults that published files have, and real sets where they are at hand."""

import json
import tarfile

import numpy as np
import pytest
import scipy.io

from realtime.errors import UsageError
from realtime.schema import SECOND_NS
from realtime.skeleton import KINECT_V1_20, OPENNI_15
from train.data import READERS, clip, files, msr_action3d, msrc12, nw_ucla, read, sbu, utd_mhad, utkinect

V = len(KINECT_V1_20)


def body(order=KINECT_V1_20.joints):
    """(20, 3) a place for every joint that tells its name: x is its index in KINECT_V1_20, plus one."""
    return np.array([[1.0 + KINECT_V1_20.index(joint), 0.5, 2.0] for joint in order])


def line(numbers, separator=" "):
    return separator.join(f"{number:.6f}" for number in numbers)


def named(joints):
    """Whether joints (T, 1, 20, 3) made of `body` lie in the layout's order."""
    return np.array_equal(joints[:, 0, :, 0], np.broadcast_to(np.arange(1.0, V + 1), (len(joints), V)))


def write_ucla(folder, name, skeletons, label):
    (folder / f"{name}.json").write_text(json.dumps({"file_name": name, "skeletons": skeletons, "label": label}))


def test_nw_ucla_gives_a_clip_of_metres_and_times(tmp_path):
    write_ucla(tmp_path, "a12_s03_e04_v02", [body().tolist()] * 3, 10)
    (found,) = read("nw_ucla", tmp_path)
    assert (found.name, found.subject, found.label, found.data) == ("a12_s03_e04_v02", 3, "carry", "nw_ucla")
    assert found.joints.shape == (3, 1, V, 3) and found.joints.dtype == np.float32 and named(found.joints)
    assert found.times_ns.dtype == np.int64
    assert found.times_ns.tolist() == [0, round(SECOND_NS / nw_ucla.FPS), round(2 * SECOND_NS / nw_ucla.FPS)]
    assert found.layout is KINECT_V1_20 and found.confidence.min() == 1


def test_missing_and_non_finite_joints_have_no_confidence_and_lie_at_the_origin(tmp_path):
    skeleton = body()
    skeleton[3], skeleton[7] = 0.0, (1.0, float("nan"), 2.0)
    write_ucla(tmp_path, "a01_s01_e00_v01", [skeleton.tolist()], 1)
    (found,) = read("nw_ucla", tmp_path)
    assert np.flatnonzero(found.confidence[0, 0] == 0).tolist() == [3, 7]
    assert not found.joints[0, 0, [3, 7]].any() and np.isfinite(found.joints).all()


def test_only_the_subjects_asked_for_are_read(tmp_path):
    folder = tmp_path / "data" / "all_sqe"
    folder.mkdir(parents=True)
    for subject in (1, 2, 3):
        write_ucla(folder, f"a01_s{subject:02d}_e00_v01", [body().tolist()], 1)
    assert [found.subject for found in read("nw_ucla", tmp_path, subjects={1, 3})] == [1, 3]
    assert [found.subject for found in read("nw_ucla", tmp_path, subjects={"1", "03"})] == [1, 3]
    assert [found.subject for found in read("nw_ucla", tmp_path, subjects=["2", 2])] == [2]


def test_a_sequence_that_is_no_json_names_file_and_line(tmp_path):
    (tmp_path / "a01_s01_e00_v01.json").write_text('{"label": 1,\n "skeletons": [[}')
    with pytest.raises(UsageError, match=r"a01_s01_e00_v01\.json line 2"):
        list(read("nw_ucla", tmp_path))


@pytest.mark.parametrize("label", [0, 11])
def test_a_label_outside_the_set_is_refused(tmp_path, label):
    write_ucla(tmp_path, "a01_s01_e00_v01", [body().tolist()], label)
    with pytest.raises(UsageError, match=f"1 to 10, got {label}"):
        list(read("nw_ucla", tmp_path))


@pytest.mark.parametrize("name", list(READERS))
def test_a_folder_without_the_set_says_what_was_expected(tmp_path, name):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="such as"):
        read(name, tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        read(name, tmp_path / "absent")


def test_a_set_without_a_reader_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match="nw_ucla, utd_mhad, utkinect, msr_action3d, msrc12, sbu"):
        read("ntu", tmp_path)


def test_utd_mhad_joints_are_reordered_by_name(tmp_path):
    frames = np.repeat(body(utd_mhad._FILE_ORDER)[:, :, None], 2, axis=2)  # (20, 3, T), as published
    scipy.io.savemat(tmp_path / "a27_s8_t4_skeleton.mat", {"d_skel": frames})
    (found,) = read("utd_mhad", tmp_path)
    assert (found.name, found.subject, found.label) == ("a27_s8_t4", 8, "squat")
    assert found.joints.shape == (2, 1, V, 3) and named(found.joints)
    assert found.times_ns.tolist() == [0, round(SECOND_NS / utd_mhad.FPS)]


def test_a_damaged_matlab_file_is_named(tmp_path):
    (tmp_path / "a1_s1_t1_skeleton.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)
    with pytest.raises(UsageError, match=r"a1_s1_t1_skeleton\.mat"):
        list(read("utd_mhad", tmp_path))


def test_msr_joints_are_reordered_and_guessed_ones_are_kept(tmp_path):
    rows = np.column_stack([body(msr_action3d._FILE_ORDER), np.zeros(V)])
    rows[msr_action3d._FILE_ORDER.index("head"), 3] = 0.9
    (tmp_path / "a20_s09_e03_skeleton3D.txt").write_text("".join(line(row) + "\r\n" for row in rows))
    (found,) = read("msr_action3d", tmp_path)
    assert (found.name, found.subject, found.label) == ("a20_s09_e03", 9, "pick_up_and_throw")
    assert named(found.joints)
    assert found.confidence[0, 0, KINECT_V1_20.index("head")] == np.float32(0.9)
    assert found.confidence[0, 0, KINECT_V1_20.index("hip_center")] == clip.GUESSED


def test_an_empty_file_is_a_clip_of_no_frames(tmp_path):
    (tmp_path / "a01_s01_e01_skeleton3D.txt").write_text("")
    (found,) = read("msr_action3d", tmp_path)
    assert found.joints.shape == (0, 1, V, 3) and found.times_ns.shape == (0,)


def test_a_frame_that_is_cut_off_is_refused(tmp_path):
    (tmp_path / "a01_s01_e01_skeleton3D.txt").write_text("1 2 3 1\n" * 19)
    with pytest.raises(UsageError, match="line 19: a frame is 20 lines"):
        list(read("msr_action3d", tmp_path))


@pytest.mark.parametrize("bad", ["1 2 x 4", "1 2 3", "1 2 3 4 5"])
def test_a_faulty_line_of_numbers_is_named(tmp_path, bad):
    (tmp_path / "numbers.txt").write_text(f"1 2 3 4\n\n{bad}\n5 6 7 8 9\n")
    with pytest.raises(UsageError, match=r"numbers\.txt line 3"):
        files.table(tmp_path / "numbers.txt", columns=4)


def test_lines_that_are_too_short_and_too_long_do_not_make_up_for_each_other(tmp_path):
    (tmp_path / "numbers.txt").write_text("1 2 3\n4 5 6 7 8\n")
    with pytest.raises(UsageError, match="line 1"):
        files.table(tmp_path / "numbers.txt", columns=4)


def write_utkinect(folder, labels, numbers=(100, 102, 102, 106, 112), name="actionLabel.txt"):
    rows = "".join(f"{number}   {line(body().ravel(), '  ')}  \n" for number in numbers)
    (folder / "joints_s01_e02.txt").write_text(rows)
    (folder / name).write_text(labels)


def test_utkinect_gives_a_recording_on_the_clock_of_its_frame_numbers(tmp_path):
    write_utkinect(tmp_path, "s01_e02\nwalk: 100 106\nsitDown: 106 112 \n")
    (found,) = read("utkinect", tmp_path)
    per_number = SECOND_NS / utkinect.NUMBERS_PER_SECOND
    assert found.times_ns.tolist() == [round(n * per_number) for n in (0, 2, 6, 12)]  # the repeat is dropped
    assert named(found.joints) and not found.point_truth and found.subject == 1 and found.name == "s01_e02"
    assert [truth.label for truth in found.truths] == ["walk", "sit_down"]
    assert found.truths[0] == clip.Truth("walk", 0, round(6 * per_number))
    assert found.vocabulary[-1] == "clap_hands"


def test_utkinect_labels_with_a_nan_or_turned_round_are_left_out_and_logged(tmp_path, caplog):
    write_utkinect(tmp_path, "s01_e02\npush:  100   106 \ncarry: NaN NaN\npull: 112 106\n\nwalk : 106 112\n")
    (found,) = read("utkinect", tmp_path)
    assert [truth.label for truth in found.truths] == ["push", "walk"]
    assert "carry" in caplog.text and "pull" in caplog.text


def test_utkinect_takes_the_mended_labels_where_they_are_there(tmp_path):
    write_utkinect(tmp_path, "s01_e02\nwalk: 100 102\n")
    write_utkinect(tmp_path, "s01_e02\nwalk: 100 112\n", name="actionLabel_modified.txt")
    (found,) = read("utkinect", tmp_path)
    assert found.truths[0].end_ns == found.times_ns[-1]


@pytest.mark.parametrize(
    "labels", ["s01_e02\nfly: 1 2\n", "s01_e02\nwalk 1 2\n", "walk: 1 2\n", "s01_e02\nwalk: a 2\n"]
)
def test_a_utkinect_label_that_means_nothing_names_its_line(tmp_path, labels):
    write_utkinect(tmp_path, labels)
    with pytest.raises(UsageError, match=r"actionLabel\.txt line \d"):
        read("utkinect", tmp_path)


def write_msrc12(folder, csv="P1_1_1_p06.csv", tagstream="P1_1_1_P06.tagstream"):
    """Three seconds from tick 1,000,000 at 10 frames a second, the first unseen; a tag of G7 at 2.5 s."""
    people = np.column_stack([body(), np.ones(V)]).ravel()
    rows = [f"{1_000_000 + 100_000 * i} {line(people * (i > 0))}\r\n" for i in range(31)]
    (folder / csv).write_text("".join(rows))
    (folder / tagstream).write_text(f"XQPCTick;Tag\r\n{round(3_500_000 * 49.875)};G7  Bow\r\n")


def test_msrc12_tags_are_points_on_the_clock_of_the_frames(tmp_path):
    write_msrc12(tmp_path)
    (found,) = read("msrc12", tmp_path)
    assert found.point_truth and found.subject == 6
    assert found.times_ns[1] == SECOND_NS // 10
    (truth,) = found.truths
    assert truth.label == "bow" and truth.start_ns == truth.end_ns == pytest.approx(2.5 * SECOND_NS, abs=1000)
    assert not found.confidence[0].any() and named(found.joints[1:])


def test_an_msrc12_file_without_its_other_half_is_left_out_and_logged(tmp_path, caplog):
    write_msrc12(tmp_path)
    (tmp_path / "P1_2_5_p04.tagstream").write_text("XQPCTick;Tag\n")
    assert len(list(read("msrc12", tmp_path))) == 1
    assert "P1_2_5_p04.tagstream" in caplog.text


def test_an_msrc12_tag_of_no_gesture_names_its_line(tmp_path):
    write_msrc12(tmp_path)
    (tmp_path / "P1_1_1_P06.tagstream").write_text("XQPCTick;Tag\n1;G13 Fly\n")
    with pytest.raises(UsageError, match="line 2"):
        list(msrc12.read(tmp_path))


def test_sbu_is_two_people_upright_with_the_frame_number_dropped(tmp_path):
    folder = tmp_path / "s01s02" / "08" / "003"
    folder.mkdir(parents=True)
    numbers = np.tile([0.25, 0.5, 1.5625], (2, len(OPENNI_15), 1))
    numbers[:, 0, 1] = 0.25  # heads, nearer to the top of the image
    (folder / "skeleton_pos.txt").write_text(f"180,{line(numbers.ravel(), ',')}\n181,{line(numbers.ravel(), ',')}\n")
    (found,) = read("sbu", tmp_path)
    assert (found.name, found.subject, found.label) == ("s01s02_08_003", "s01s02", "punching")
    assert found.joints.shape == (2, sbu.BODIES, 15, 3) and found.layout is OPENNI_15
    assert found.joints[0, 0, 1] == pytest.approx([0.64, 0.0, 2.0])
    assert found.joints[0, 1, OPENNI_15.index("head"), 1] == pytest.approx(0.48)


def recording(truths, point_truth=False, seen=True):
    times = np.arange(0, 60) * (SECOND_NS // 10)
    joints = np.ones((60, 1, V, 3), np.float32)
    shown = np.full((60, 1, V), float(seen), np.float32)
    return clip.Recording("x", "take", 1, times, joints, shown, KINECT_V1_20, tuple(truths), point_truth, ("walk",))


def test_cutting_takes_the_frames_within_an_interval_and_starts_their_clock_anew():
    (found,) = clip.cut(recording([clip.Truth("walk", SECOND_NS, 2 * SECOND_NS)]))
    assert (found.name, found.label, len(found.times_ns)) == ("take_000", "walk", 11)
    assert found.times_ns[0] == 0 and found.times_ns[-1] == SECOND_NS


def test_cutting_takes_the_time_around_a_point():
    (found,) = clip.cut(recording([clip.Truth("walk", 3 * SECOND_NS, 3 * SECOND_NS)], point_truth=True))
    assert found.times_ns[-1] <= clip.POINT_BEFORE_NS + clip.POINT_AFTER_NS
    assert len(found.times_ns) == 20


def test_cutting_leaves_out_what_nobody_saw(caplog):
    truth = clip.Truth("walk", SECOND_NS, 2 * SECOND_NS)
    assert not list(clip.cut(recording([truth], seen=False)))
    assert not list(clip.cut(recording([clip.Truth("walk", 90 * SECOND_NS, 91 * SECOND_NS)])))
    assert "take_000" in caplog.text


@pytest.fixture(scope="module")
def unpacked(shared, tmp_path_factory):
    """Unpacks one of the shared archives by name."""

    def unpack(name):
        archive = shared / "data" / name
        if not archive.is_file():
            pytest.skip(f"{archive} is not there")
        folder = tmp_path_factory.mktemp("set")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        return folder

    return unpack


def front_shares(joints):
    """Of frames (T, V, 3): head above hips, right shoulder at larger x, feet to the front that shoulders give."""
    at = {joint: joints[:, i].astype(float) for i, joint in enumerate(KINECT_V1_20.joints)}
    up, across = at["head"] - at["hip_center"], at["right_shoulder"] - at["left_shoulder"]
    feet = at["left_foot"] - at["left_ankle"] + at["right_foot"] - at["right_ankle"]
    return (up[:, 1] > 0).mean(), (across[:, 0] > 0).mean(), ((np.cross(up, across) * feet).sum(axis=1) > 0).mean()


def test_real_utkinect_has_all_its_truths_and_is_not_mirrored(unpacked):
    found = list(read("utkinect", unpacked("utkinect_s01-s06.tar.xz")))
    assert len(found) == 12 and all(len(take.truths) == 10 for take in found)
    assert sum(len(list(clip.cut(take))) for take in found) == 120
    assert min(front_shares(np.concatenate([take.joints[:, 0] for take in found]))) > 0.9
    for take in found:
        assert np.diff(take.times_ns).min() > 0 and take.truths[-1].end_ns <= take.times_ns[-1]


def test_real_msr_action3d_has_all_its_sequences_and_is_not_mirrored(unpacked):
    found = list(read("msr_action3d", unpacked("msr_action3d_odd_subjects.tar.xz")))
    assert len(found) == 292 and {take.subject for take in found} == {1, 3, 5, 7, 9}
    assert {take.label for take in found} == set(msr_action3d.LABELS)
    joints = np.concatenate([take.joints[take.confidence.any(axis=(1, 2)), 0] for take in found])
    assert min(front_shares(joints)) > 0.9
