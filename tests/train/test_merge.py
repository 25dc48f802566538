"""Sets put together: clips keep their frames, labels and side of the split; what does not go together is refused."""

import numpy as np
import pytest

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V1_20, KINECT_V2_25
from train.data.prepared import Part, load, write
from train.data.splits import split
from train.merge import merge


def prepare(folder, data, layout=KINECT_V1_20, clips=6, classes=("wave", "kick")):
    folder.mkdir()
    rng = np.random.default_rng(len(data))
    numbers = {key: np.ones(clips, np.int16) for key in ("frames", "label", "subject", "camera", "setup")}
    numbers |= {"label": np.arange(clips) % 2, "frames": np.full(clips, 3)}
    numbers |= {"subject": np.arange(clips) + 1, "camera": np.arange(clips) % 3 + 1}
    joints = rng.normal(0, 1, (3 * clips, 1, len(layout), 3)).astype(np.float32)
    part = folder / "part.npz"
    Part(joints, numbers, np.array([f"c{i}" for i in range(clips)]), {}).save(part, "x")
    write(folder, data, layout, classes, 1, 30.0, [part])
    return folder


def test_every_clip_keeps_its_frames_its_class_and_its_side(tmp_path):
    folders = [prepare(tmp_path / "a", "nw_ucla"), prepare(tmp_path / "b", "msrc12", classes=("throw", "bow"))]
    merge(folders, tmp_path / "both")
    both, parts = load(tmp_path / "both"), [load(folder) for folder in folders]
    train, test = split(both, "merged")
    at = 0
    for one, rule in zip(parts, ("xview", "xsub"), strict=True):
        here = slice(at, at + len(one))
        assert [*both.name[here]] == [f"{one.data}/{name}" for name in one.name]
        np.testing.assert_array_equal(train[here], split(one, rule)[0])
        np.testing.assert_array_equal(test[here], split(one, rule)[1])
        for i in range(len(one)):
            np.testing.assert_array_equal(both.clip(at + i), one.clip(i))
            assert both.classes[both.label[at + i]] == f"{one.data}-{one.classes[one.label[i]]}"
        at += len(one)
    assert at == len(both)


def test_a_set_can_be_split_by_subjects(tmp_path):
    folders = [prepare(tmp_path / "a", "nw_ucla"), prepare(tmp_path / "b", "msr_action3d")]
    merge(folders, tmp_path / "both", ("xview", "subjects:2,5"))
    both = load(tmp_path / "both")
    _, test = split(both, "merged")
    assert {name for name in both.name[test] if name.startswith("msr")} == {"msr_action3d/c1", "msr_action3d/c4"}


@pytest.mark.parametrize(
    ("second", "splits", "words"),
    [
        ({"data": "ntu60", "layout": KINECT_V2_25}, (), "KINECT_V2_25 and 1 bodies"),
        ({"data": "nw_ucla"}, (), "named twice"),
        ({"data": "msrc12"}, ("xview",), "one a set, so 2, got 1"),
        ({"data": "msrc12"}, ("xview", "subjects:77"), "no subject '77'; it has 1, 2"),
        ({"data": "msrc12"}, ("xview", "xset"), "no split 'xset'"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(tmp_path, second, splits, words):
    folders = [prepare(tmp_path / "a", "nw_ucla"), prepare(tmp_path / "b", **second)]
    with pytest.raises(UsageError, match=words):
        merge(folders, tmp_path / "both", splits)


def test_prepared_data_is_not_overwritten_and_one_set_is_no_merge(tmp_path):
    folder = prepare(tmp_path / "a", "nw_ucla")
    other = prepare(tmp_path / "b", "msrc12")
    with pytest.raises(UsageError, match="holds prepared data already"):
        merge([folder, other], folder)
    with pytest.raises(UsageError, match="two prepared sets or more, got 1"):
        merge([folder], tmp_path / "one")
