"""PKU-MMD: videos, labels and split lists written as published, and the faults they can have."""

import numpy as np
import pytest

from realtime.errors import UsageError
from realtime.schema import SECOND_NS
from realtime.skeleton import KINECT_V2_25
from train.data import pku_mmd, read

V = len(KINECT_V2_25)


def video(frames=60, people=1):
    """(T, 2, 25, 3) metres; a joint's x tells its frame, y its body, z is 2 + its index; absent bodies are zeros."""
    joints = np.zeros((frames, 2, V, 3))
    joints[..., 0] = np.arange(frames)[:, None, None] / 100 + 0.01
    joints[..., 1] = np.arange(2)[:, None] + 0.5
    joints[..., 2] = 2 + np.arange(V)
    joints[:, people:] = 0
    return joints


def write(folder, name="0002-L", labels="4,10,20,1\n14,30,40,2\n", joints=None):
    for kind in ("PKU_Skeleton_Renew", "Train_Label_PKU_final"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    rows = (video() if joints is None else joints).reshape(-1, 150)
    text = "".join(" ".join(f"{value:.6f}" for value in row) + " \n" for row in rows)
    (folder / "PKU_Skeleton_Renew" / f"{name}.txt").write_text(text)
    if labels is not None:
        (folder / "Train_Label_PKU_final" / f"{name}.txt").write_text(labels)


def clips(folder, data="pku_mmd1"):
    ((name, file, labels),) = pku_mmd.found(data, folder)
    return pku_mmd.clips_of(data, name, file, labels)


def test_a_video_is_a_recording_with_its_truths(tmp_path):
    write(tmp_path, labels="14,30,40,2\n4,10,20,1\n", joints=video(people=2))
    (found,) = read("pku_mmd1", tmp_path)
    assert (found.data, found.name, found.subject, found.layout) == ("pku_mmd1", "0002-L", 0, KINECT_V2_25)
    np.testing.assert_array_equal(found.joints, video(people=2).astype(np.float32))
    assert [truth.label for truth in found.truths] == ["4", "14"] and not found.point_truth
    assert found.truths[0].start_ns == round(10 * SECOND_NS / 30)
    assert found.truths[0].end_ns == round(19 * SECOND_NS / 30)  # the end is the first frame after it
    assert found.vocabulary[0] == "1" and found.vocabulary[-1] == "51"


def test_clips_are_cut_from_start_to_before_end(tmp_path):
    write(tmp_path)
    (one, other), skipped = clips(tmp_path)
    assert (one.name, one.label, other.name, other.label) == ("0002-L_000", "4", "0002-L_001", "14")
    np.testing.assert_array_equal(one.joints, video()[10:20].astype(np.float32))
    assert one.times_ns[0] == 0 and not one.confidence[:, 1].any() and not skipped


def test_a_label_past_the_end_is_cut_there_and_labels_without_frames_are_told(tmp_path):
    joints = video()
    joints[:5] = 0
    write(tmp_path, labels="1,50,99,1\n2,60,70,1\n3,20,20,1\n4,30,20,1\n5,0,5,1\n6,0,6,1\n", joints=joints)
    found, skipped = clips(tmp_path)
    assert {clip.label: len(clip.joints) for clip in found} == {"1": 10, "6": 6}
    assert list(skipped) == ["0002-L_001", "0002-L_002", "0002-L_003", "0002-L_004"]
    assert "60 to 70 has no frame among 60" in skipped["0002-L_001"]
    assert "nobody is seen" in skipped["0002-L_004"]


def test_a_label_without_a_frame_is_no_truth_and_logged(tmp_path, caplog):
    write(tmp_path, labels="1,50,99,1\n2,60,70,1\n4,30,20,1\n")
    (found,) = read("pku_mmd1", tmp_path)
    assert [(truth.label, truth.end_ns) for truth in found.truths] == [("1", found.times_ns[-1])]
    assert "60 to 70" in caplog.text and "30 to 20" in caplog.text


def test_part_two_says_subject_and_camera(tmp_path):
    for name in ("A01N02-L", "A03N13-R", "A26N13-M"):
        write(tmp_path, name)
    assert [(take.name, take.subject) for take in read("pku_mmd2", tmp_path)] == [
        *(("A01N02-L", 2), ("A03N13-R", 13), ("A26N13-M", 13))
    ]
    assert [take.name for take in read("pku_mmd2", tmp_path, subjects={"2"})] == ["A01N02-L"]
    assert [pku_mmd.place(name) for name in ("A03N13-R_004", "0002-M")] == [(13, 3, 0), (0, 2, 0)]


def test_subjects_cannot_be_asked_of_part_one(tmp_path):
    write(tmp_path)
    with pytest.raises(UsageError, match="do not name subjects"):
        read("pku_mmd1", tmp_path, subjects={1})


def test_a_half_without_the_other_is_logged(tmp_path, caplog):
    write(tmp_path)
    write(tmp_path, "0003-M", labels=None)
    write(tmp_path, "0004-M")
    (tmp_path / "PKU_Skeleton_Renew" / "0004-M.txt").unlink()
    assert [take.name for take in read("pku_mmd1", tmp_path)] == ["0002-L"]
    assert "0003-M.txt has no label file" in caplog.text and "0004-M.txt has no skeleton file" in caplog.text


def test_two_copies_of_a_video_are_refused(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two")
    with pytest.raises(UsageError, match="the same video"):
        read("pku_mmd1", tmp_path)


def test_labels_without_skeletons_are_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "PKU_Skeleton_Renew" / "0002-L.txt").unlink()
    with pytest.raises(UsageError, match="labels only"):
        read("pku_mmd1", tmp_path)


@pytest.mark.parametrize(
    ("fault", "told"),
    [("1 2 3", "line 61: a line holds 150 numbers, this one 3"), ("x " * 150, "line 61: could not convert")],
)
def test_a_faulty_line_of_a_skeleton_is_named(tmp_path, fault, told):
    write(tmp_path)
    with (tmp_path / "PKU_Skeleton_Renew" / "0002-L.txt").open("a") as file:
        file.write(fault)
    with pytest.raises(UsageError, match=rf"0002-L\.txt {told}"):
        list(read("pku_mmd1", tmp_path))


def test_an_empty_skeleton_is_refused(tmp_path):
    write(tmp_path, joints=video(0))
    with pytest.raises(UsageError, match="holds no frame"):
        list(read("pku_mmd1", tmp_path))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("4,10,20,1\n52,1,2,1\n", "label 2: must be"),
        ("0,10,20,1\n", "label 1: must be"),
        ("4,10.5,20,1\n", "label 1: must be"),
        ("4,10,20\n", "line 1: a line holds 4"),
        ("4,10,20,1\n4,ten,20,1\n", "line 2: could not convert"),
    ],
)
def test_a_faulty_label_is_named(tmp_path, labels, told):
    write(tmp_path, labels=labels)
    with pytest.raises(UsageError, match=rf"Train_Label_PKU_final/0002-L\.txt {told}"):
        clips(tmp_path)


LIST = "Training videos: \n0002-L, 0002-M, 0003-L\nValidataion videos: \n0004-R, \n"


@pytest.mark.parametrize("name", ["cross-subject.txt", "cross_subject.txt"])
def test_a_published_list_is_found_and_read(tmp_path, name):
    (tmp_path / "Split").mkdir()
    (tmp_path / "Split" / name).write_text(LIST)
    (tmp_path / "Split" / "cross_view_v2.txt").write_text("of part II")
    assert pku_mmd.lists_of("pku_mmd1", tmp_path) == {
        "xsub": {"train": ["0002-L", "0002-M", "0003-L"], "test": ["0004-R"]}
    }


def test_a_list_that_is_given_is_taken_instead(tmp_path):
    (tmp_path / "cross-subject.txt").write_text(LIST)
    (tmp_path / "my-view.txt").write_text(LIST)
    assert list(pku_mmd.lists_of("pku_mmd1", tmp_path, [tmp_path / "my-view.txt"])) == ["xview"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("list.txt", LIST, "must have `subject` or `view`"),
        ("cross-view.txt", "0002-L\n" + LIST, "before a line that says"),
        ("cross-view.txt", "Training videos:\n0002-L\n", "got 1 and 0"),
        ("cross-view.txt", "Training videos:\n0002-L\nValidation videos:\n0002-L", "0002-L in both"),
        ("cross-view.txt", "Training videos:\nA01N01-L\nValidation videos:\nA01N01-M", "got 0 and 0"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=told):
        pku_mmd.lists_of("pku_mmd1", tmp_path, [tmp_path / name])
