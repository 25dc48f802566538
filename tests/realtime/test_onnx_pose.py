"""A user's own ONNX pose network: read where it points, followed and told apart, refused in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from realtime import litert
from realtime.blazepose import Region
from realtime.body import Belief
from realtime.errors import BundleError, LineError, UsageError
from realtime.schema import Frame
from realtime.skeleton import COCO_17
from realtime.topdown import MEAN, SPREAD, TopDown, read_heat, read_simcc

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
if litert.unavailable() is None:
    from realtime.onnx_pose import OnnxPose, believe_flat, scale_of_bones

needs_litert = pytest.mark.skipif(litert.unavailable() is not None, reason=str(litert.unavailable()))
STEP = 33_333_333
WIDTH, HEIGHT = 48, 64
J = COCO_17.index
# A body that stands, in hundredths of its box with margin: x, y of each joint.
STANDING = """
nose 50 14 left_eye 52 12 right_eye 48 12 left_ear 54 13 right_ear 46 13 left_shoulder 62 25 right_shoulder 38 25
left_elbow 66 38 right_elbow 34 38 left_wrist 68 49 right_wrist 32 49 left_hip 57 50 right_hip 43 50
left_knee 58 69 right_knee 42 69 left_ankle 58 88 right_ankle 42 88
"""
NAMES, ACROSS, DOWN = (STANDING.split()[i::3] for i in range(3))
assert tuple(NAMES) == COCO_17.joints
PLACES = np.array([ACROSS, DOWN], float).T / 100


def save(path: Path, answers: dict[str, np.ndarray], shape: Sequence[int | str] = ("N", 3, HEIGHT, WIDTH)) -> Path:
    """A network that answers the same for everybody, whatever it sees: arrays (…) become outputs (N, …)."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes, constants, outputs = [], [], []
    axes = list(range(1, len(shape)))
    nodes.append(helper.make_node("ReduceMean", ["input"], ["mean"], axes=axes, keepdims=1))
    constants.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    for name, value in answers.items():
        constants.append(onnx.numpy_helper.from_array(np.array([-1] + [1] * value.ndim, np.int64), f"{name}_shape"))
        constants.append(onnx.numpy_helper.from_array(value[None].astype(np.float32), f"{name}_value"))
        nodes.append(helper.make_node("Reshape", ["nothing", f"{name}_shape"], [f"{name}_zeros"]))
        nodes.append(helper.make_node("Add", [f"{name}_zeros", f"{name}_value"], [name]))
        outputs.append(helper.make_tensor_value_info(name, float32, [None] * (value.ndim + 1)))
    inputs = [helper.make_tensor_value_info("input", float32, list(shape))]
    graph = helper.make_graph(nodes, "made_up", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def simcc(places: np.ndarray, peak: float = 0.8) -> dict[str, np.ndarray]:
    """SimCC answers, two bins a pixel, that peak at places (V, 2) in units of the input."""
    found = {}
    for axis, size in ((0, WIDTH * 2), (1, HEIGHT * 2)):
        bins = np.zeros((len(places), size), np.float32)
        bins[np.arange(len(places)), np.round(places[:, axis] * size).astype(int)] = peak
        found["simcc_" + "xy"[axis]] = bins
    return found


def test_simcc_is_read_where_it_peaks(tmp_path: Path) -> None:
    network = TopDown(save(tmp_path / "a.onnx", simcc(PLACES)))
    boxes = np.array(((10, 20, 96, 128), (200, 40, 48, 64)), float)
    joints, confidence = network(np.zeros((240, 320, 3), np.uint8), boxes)
    assert joints.shape == (2, 17, 2) and confidence == pytest.approx(np.full((2, 17), 0.8))
    for box, found in zip(boxes, joints, strict=True):
        np.testing.assert_allclose(found, box[:2] + PLACES * box[2:], atol=0.5 * box[2] / WIDTH)


def test_the_order_of_the_outputs_does_not_matter(tmp_path: Path) -> None:
    answers = simcc(PLACES)
    swapped = {name: answers[name] for name in ("simcc_y", "simcc_x")}
    box, black = np.array(((0, 0, 48, 64),), float), np.zeros((64, 48, 3), np.uint8)
    one, other = (TopDown(save(tmp_path / f"{i}.onnx", each))(black, box) for i, each in enumerate((answers, swapped)))
    np.testing.assert_array_equal(one[0], other[0])


def test_heat_maps_are_told_by_their_shape(tmp_path: Path) -> None:
    maps = np.zeros((17, 16, 12), np.float32)
    cells = np.round(PLACES * (12, 16)).astype(int)
    maps[np.arange(17), cells[:, 1], cells[:, 0]] = 1.3
    joints, confidence = TopDown(save(tmp_path / "h.onnx", {"heat": maps}))(
        np.zeros((64, 48, 3), np.uint8), np.array(((0, 0, 48, 64),), float)
    )
    np.testing.assert_allclose(joints[0], cells * 4, atol=1e-6)
    assert confidence.max() == 1.0  # cut to [0, 1]


def test_a_peak_moves_a_quarter_to_its_higher_neighbour_and_weak_axes_count() -> None:
    maps = np.zeros((1, 1, 8, 8), np.float32)
    maps[0, 0, 4, 5], maps[0, 0, 4, 6], maps[0, 0, 3, 5] = 1, 0.5, 0.5
    places, _ = read_heat(maps)
    np.testing.assert_allclose(places[0, 0] * 8, (5.25, 3.75))
    _, confidence = read_simcc(np.full((1, 1, 4), 0.9, np.float32), np.array([[[0.2, np.nan, 0, 0]]], np.float32))
    assert confidence[0, 0] == 0  # a number that is none is not seen


def test_colours_come_in_order_and_normalised(tmp_path: Path) -> None:
    network = TopDown(save(tmp_path / "a.onnx", simcc(PLACES)))
    picture = np.zeros((64, 48, 3), np.uint8) + np.array((200, 100, 50), np.uint8)
    batch = network._crops(picture, np.array(((0, 0, 48, 64), (-48, 0, 48, 64)), float))
    np.testing.assert_allclose(batch[0, :, 30, 20], (np.array((200, 100, 50)) - MEAN) / SPREAD, rtol=1e-5)
    np.testing.assert_allclose(batch[1, :, 30, 20], -np.array(MEAN) / SPREAD, rtol=1e-5)  # outside: black


def test_one_at_a_time_is_as_good(tmp_path: Path) -> None:
    free = TopDown(save(tmp_path / "a.onnx", simcc(PLACES)))
    fixed = TopDown(save(tmp_path / "b.onnx", simcc(PLACES), (1, 3, HEIGHT, WIDTH)))
    boxes, picture = np.array(((0, 0, 48, 64), (9, 9, 48, 64)), float), np.zeros((99, 99, 3), np.uint8)
    np.testing.assert_array_equal(free(picture, boxes)[0], fixed(picture, boxes)[0])


@pytest.mark.parametrize(
    ("answers", "shape", "complaint"),
    [
        (simcc(np.full((133, 2), 0.5)), ("N", 3, HEIGHT, WIDTH), "finds 133 joints, must find the 17 of COCO"),
        ({"heat": np.zeros((21, 16, 12))}, ("N", 3, HEIGHT, WIDTH), "finds 21 joints"),
        (simcc(PLACES), ("N", 1, HEIGHT, WIDTH), r"must have a float32 input \(N, 3, H, W\).*\['N', 1, 64, 48\]"),
        (simcc(PLACES), ("N", 3, "h", "w"), "with H and W fixed"),
        (simcc(PLACES), (4, 3, HEIGHT, WIDTH), "takes exactly 4 people at a time"),
        ({"joints": np.zeros((17, 3))}, ("N", 3, HEIGHT, WIDTH), r"must answer SimCC .*answers \[\(1, 17, 3\)\]"),
        ({"x": np.zeros((17, 96)), "y": np.zeros((17, 99))}, ("N", 3, HEIGHT, WIDTH), "must answer SimCC"),
    ],
)
def test_other_networks_are_refused(
    tmp_path: Path, answers: dict[str, np.ndarray], shape: Sequence[int | str], complaint: str
) -> None:
    path = save(tmp_path / "odd.onnx", answers, shape)
    with pytest.raises(BundleError, match=rf"pose network .*odd\.onnx: it .*{complaint}.*--pose auto"):
        TopDown(path)


def test_no_file_and_no_network_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.onnx: No such file or directory; name an ONNX file"):
        TopDown(tmp_path / "gone.onnx")
    with pytest.raises(UsageError, match="Is a directory"):
        TopDown(tmp_path)
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(BundleError, match=r"text\.onnx: onnxruntime cannot load it"):
        TopDown(tmp_path / "text.onnx")


class Two:
    """Finds two people once."""

    def __init__(self, *centres: tuple[float, float]) -> None:
        self._new = [(Region(np.array(one, np.float32), 150.0, 0.3), False) for one in centres]

    def new(self, rgb: np.ndarray, captured_ns: int, followed: list[Region], believed: int) -> list:
        return [] if followed else self._new

    def forget(self) -> None: ...
    def close(self) -> None: ...


@needs_litert
def test_two_people_are_followed_by_their_own_joints(tmp_path: Path) -> None:
    stage = OnnxPose(save(tmp_path / "a.onnx", simcc(PLACES)), 2)
    stage._lookout = Two((160, 180), (480, 180))  # type: ignore[assignment]
    black = np.zeros((360, 640, 3), np.uint8)
    found = [stage.find(Frame(i, (i + 1) * STEP, black)) for i in range(10)]
    assert [len(poses) for poses in found] == [0, 0] + [2] * 8
    left, right = found[-1]
    assert (left.track, right.track, left.layout) == (1, 2, COCO_17)
    assert (
        left.joints.dtype == np.float32 and left.joints.shape == (17, 3) and left.confidence.min() == pytest.approx(0.8)
    )
    assert np.ptp(left.joints[:, 2]) < 1e-6  # no depth
    assert left.joints[J("left_hip"), 0] > right.joints[J("left_hip"), 0] + 1  # +x is the picture's left
    assert left.joints[J("nose"), 1] > left.joints[J("left_ankle"), 1] + 1
    assert left.joints[J("right_hip"), 0] > left.joints[J("left_hip"), 0]  # who faces the camera
    assert left.image_joints[J("nose"), 0] == pytest.approx(0.25, abs=0.02)
    assert 0 <= left.box[0] < left.box[0] + left.box[2] < 0.5
    stage.reset()
    again = [stage.find(Frame(i, (i + 1) * STEP, black)) for i in range(10, 14)]
    assert [pose.track for pose in again[-1]] == [3, 4]
    stage.close()
    stage.close()
    with pytest.raises(LineError, match="closed"):
        stage.find(Frame(20, 21 * STEP, black))


@needs_litert
def test_one_body_found_twice_is_one_and_bad_pictures_are_counted(tmp_path: Path) -> None:
    stage = OnnxPose(save(tmp_path / "a.onnx", simcc(PLACES)), 2)
    stage._lookout = Two((160, 180), (162, 181))  # type: ignore[assignment]
    black = np.zeros((360, 640, 3), np.uint8)
    assert [len(stage.find(Frame(i, (i + 1) * STEP, black))) for i in range(5)] == [0, 0, 1, 1, 1]
    assert stage.find(Frame(5, 6 * STEP, None)) == stage.find(Frame(5, 2 * STEP, black)) == ()
    assert stage.refused == 2


@needs_litert
def test_a_weak_find_is_nobody(tmp_path: Path) -> None:
    stage = OnnxPose(save(tmp_path / "a.onnx", simcc(PLACES, peak=0.2)), 1)
    stage._lookout = Two((160, 180))  # type: ignore[assignment]
    assert [stage.find(Frame(i, (i + 1) * STEP, np.zeros((360, 640, 3), np.uint8))) for i in range(5)] == [()] * 5
    assert believe_flat(np.full(17, 0.2)) is Belief.NONE
    assert believe_flat(np.full(17, 0.35)) is Belief.DOUBTFUL
    assert believe_flat(np.full(17, 0.5)) is Belief.SURE


@needs_litert
def test_a_foreshortened_limb_does_not_make_a_body_small() -> None:
    joints = PLACES * (150, 200)
    whole = scale_of_bones(joints, np.ones(17))
    bent = joints.copy()
    bent[J("left_wrist")] = bent[J("left_elbow")]
    bent[J("right_knee")] = bent[J("right_hip")] + (0, 4)
    assert scale_of_bones(bent, np.ones(17)) == pytest.approx(whole, rel=0.1)
