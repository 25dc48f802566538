"""calib.depth and calib.record_depth: the truth comes back from pictures of a board; bad input has its words."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from calib import depth as program
from calib import record_depth, stereo, synthetic
from calib.board import make_board
from calib.depth_picture import edges
from calib.pairs import read_infrared
from calib.record_depth import synthetic_rig
from realtime.calibration import load_calibration
from realtime.lens import Lens
from realtime.rig import Rig, make_rig
from realtime.source import open_source

BOARD = make_board("chessboard", "9x6", 25.0)
DEPTH = Lens(640, 480, 525.0, 525.0, 316.0, 243.0, (-0.08, 0.05, -0.0005, 0.0004, 0.0), "pinhole", 0.0)
TRUTH = make_rig(synthetic_rig().color, DEPTH, np.array(synthetic_rig().rotation), np.array((0.05, -0.002, 0.003)))
PAIRS = 10


def held(rig: Rig, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rotations (3, 3) and places (3,) of the board in the depth camera, in which both cameras see all of it."""
    turn, move = np.array(rig.rotation), np.array(rig.translation_m)
    found = []
    for rotation, place in synthetic.stances(BOARD, rig.depth, 8 * count, seed=3):
        there = rig.color.pixels((BOARD.points @ rotation.T + place) @ turn.T + move)
        if ((there > 12) & (there < (rig.color.width - 12, rig.color.height - 12))).all():
            found.append((rotation, place))
    assert len(found) >= count
    return found[:count]


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Path:
    """Two folders of pictures of one board; the infrared ones have 16 bits, of which few are used."""
    folder = tmp_path_factory.mktemp("pairs")
    turn, move = np.array(TRUTH.rotation), np.array(TRUTH.translation_m)
    (folder / "color").mkdir()
    (folder / "ir").mkdir()
    for number, (rotation, place) in enumerate(held(TRUTH, PAIRS)):
        seen = synthetic.picture(BOARD, TRUTH.color, turn @ rotation, turn @ place + move, seed=number)
        infrared = synthetic.picture(BOARD, TRUTH.depth, rotation, place, seed=100 + number)
        cv2.imwrite(str(folder / "color" / f"{number:02d}.png"), seen)
        cv2.imwrite(str(folder / "ir" / f"{number:02d}.png"), infrared.astype(np.uint16) * 9 + 120)
    return folder


@pytest.fixture
def copy(taken: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taken, tmp_path / "pairs"))


@pytest.fixture
def calibrate(monkeypatch, capfd, tmp_path) -> Callable[..., tuple[int, str]]:
    """Runs the program on two folders and gives its exit code and what it said, in one line."""

    def run(folder: Path | None, *flags: object, prog=program) -> tuple[int, str]:
        given = [] if folder is None else ["--color", folder / "color", "--infrared", folder / "ir"]
        if prog is program:
            given += ["--board", "chessboard", "--out", tmp_path / "rig.json"]
        monkeypatch.setattr("sys.argv", ["depth", *(str(flag) for flag in (*given, *flags))])
        try:
            code = prog.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, " ".join("".join(capfd.readouterr()).split())

    return run


def test_the_truth_comes_back_from_pictures(taken, calibrate, tmp_path):
    code, said = calibrate(taken)
    assert code == 0, said
    assert f"good: stereo RMS 0.0" in said and f"over {PAIRS} pairs (hold-out 0.0" in said  # noqa: F541
    assert "mm apart" in said and "turned by" in said
    rig = load_calibration(tmp_path / "rig.json").rig
    assert rig is not None
    assert abs(rig.baseline_m - TRUTH.baseline_m) < 0.0005
    assert np.linalg.norm(np.array(rig.translation_m) - TRUTH.translation_m) < 0.001
    assert stereo.angle_of(np.array(rig.rotation).T @ np.array(TRUTH.rotation)) < 0.15
    assert abs(rig.color.fx / TRUTH.color.fx - 1) < 0.004 and abs(rig.depth.fx / TRUTH.depth.fx - 1) < 0.004
    measured = json.loads((tmp_path / "rig.json").read_text())["measured"]
    assert measured["pairs"] == PAIRS and measured["rms_px"] < 0.1 and measured["hold_out_px"] < 0.1


def corners(rig: Rig, noise_px: float, count: int = PAIRS) -> list[stereo.Pair]:
    rng = np.random.default_rng(4)
    turn, move = np.array(rig.rotation), np.array(rig.translation_m)
    pairs = []
    for number, (rotation, place) in enumerate(held(rig, count)):
        points = BOARD.points.astype(float)
        placed = points @ rotation.T + place
        both = [rig.depth.pixels(placed), rig.color.pixels(placed @ turn.T + move)]
        seen = [one + rng.normal(size=one.shape) * noise_px for one in both]
        pairs.append(stereo.Pair(f"{number}.png", points, *seen))
    return pairs


def test_the_fit_is_opencvs():
    pairs = corners(TRUTH, 0.3)
    found = stereo.fit_stereo(pairs, TRUTH.color, TRUTH.depth)
    matrix = lambda one: np.array(((one.fx, 0, one.cx), (0, one.fy, one.cy), (0, 0, 1)))  # noqa: E731
    rms, *_, turn, move, _, _ = cv2.stereoCalibrate(
        [pair.points.astype(np.float32) for pair in pairs],
        [pair.depth.astype(np.float32)[:, None] for pair in pairs],
        [pair.color.astype(np.float32)[:, None] for pair in pairs],
        matrix(TRUTH.depth), np.array(TRUTH.depth.distortion), matrix(TRUTH.color), np.array(TRUTH.color.distortion),
        (640, 480), flags=cv2.CALIB_FIX_INTRINSIC,
    )  # fmt: skip
    np.testing.assert_allclose(found.rig.rotation, turn, atol=2e-5)
    np.testing.assert_allclose(found.rig.translation_m, move.ravel(), atol=2e-5)
    assert abs(found.rms_px - rms) < 0.01
    off = np.abs(np.array(found.rig.translation_m) - TRUTH.translation_m)
    assert (off < 4 * found.unsure_m).all() and found.unsure_m.max() < 0.001


def test_a_pair_whose_board_moved_is_left_out(calibrate, copy):
    shutil.copy(copy / "color" / "03.png", copy / "color" / "07.png")
    code, said = calibrate(copy)
    assert code == 0, said
    assert "left out 07.png: it contradicts the others" in said and f"over {PAIRS - 1} pairs" in said


def test_corners_counted_from_the_other_end_are_turned_round():
    pairs = corners(TRUTH, 0.1)
    turned = [stereo.Pair(one.name, one.points, one.depth[::-1], one.color) for one in pairs]
    good, bad = (stereo.start_of(one[0], TRUTH.color, TRUTH.depth)[0] for one in (pairs, turned))
    assert stereo.angle_of(good) < 5 < 100 < stereo.angle_of(bad)


def test_charuco_boards_need_not_be_whole(calibrate, tmp_path):
    board = make_board("charuco", "9x6", 25.0)
    turn, move = np.array(TRUTH.rotation), np.array(TRUTH.translation_m)
    for name in ("color", "ir"):
        (tmp_path / "c" / name).mkdir(parents=True)
    for number, (rotation, place) in enumerate(held(TRUTH, 8)):
        seen = synthetic.picture(board, TRUTH.color, turn @ rotation, turn @ place + move, seed=number)
        seen[:, :150] = 120  # something stands before a part of the colour picture
        cv2.imwrite(str(tmp_path / "c" / "color" / f"rgb{number}.png"), seen)
        infrared = synthetic.picture(board, TRUTH.depth, rotation, place, seed=50 + number)
        cv2.imwrite(str(tmp_path / "c" / "ir" / f"ir_{number}.jpg"), infrared)
    code, said = calibrate(tmp_path / "c", "--board", "charuco")
    assert code == 0, said
    assert "over 8 pairs" in said or "over 7 pairs" in said  # matched by the numbers in their names


def marked(picture: np.ndarray) -> bytes:
    """A JPEG that is stored upside down, with an EXIF mark that says so."""
    content = cv2.imencode(".jpg", np.ascontiguousarray(picture[::-1, ::-1]), (cv2.IMWRITE_JPEG_QUALITY, 98))[1]
    entry = struct.pack(">HHHIHH", 1, 0x0112, 3, 1, 3, 0) + b"\0\0\0\0"
    mark = b"Exif\0\0MM\0*\0\0\0\x08" + entry
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(mark) + 2) + mark + content.tobytes()[2:]


def test_pictures_are_turned_by_their_own_mark_as_everywhere_else(calibrate, copy, tmp_path):
    for path in (copy / "color").iterdir():
        path.with_suffix(".jpg").write_bytes(marked(cv2.imread(str(path))))
        path.unlink()
    code, said = calibrate(copy)
    assert code == 0, said
    rig = load_calibration(tmp_path / "rig.json").rig
    assert rig is not None and stereo.angle_of(np.array(rig.rotation).T @ np.array(TRUTH.rotation)) < 0.15


def test_infrared_pictures_are_turned_too_and_keep_their_16_bits(tmp_path):
    picture = np.zeros((48, 64), np.uint8)
    picture[:8, :8] = 255
    (tmp_path / "8.jpg").write_bytes(marked(picture))
    cv2.imwrite(str(tmp_path / "16.png"), picture.astype(np.uint16) // 8 + 300)
    for name in ("8.jpg", "16.png"):
        seen = read_infrared(tmp_path / name)
        assert seen[:6, :6].min() > 240 and seen[-6:, -6:].max() < 15
    assert read_infrared(tmp_path / "none.png") is None


def test_known_lenses_are_taken_as_they_are(calibrate, taken, tmp_path):
    for name, lens in (("c", TRUTH.color), ("d", TRUTH.depth)):
        document = {"schema": "calib-camera/1", **lens.described(), "measured": {}}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    code, said = calibrate(taken, "--color-lens", tmp_path / "c.json", "--infrared-lens", tmp_path / "d.json")
    assert code == 0, said
    rig = load_calibration(tmp_path / "rig.json").rig
    assert rig is not None and (rig.color, rig.depth) == (TRUTH.color, TRUTH.depth)
    assert np.linalg.norm(np.array(rig.translation_m) - TRUTH.translation_m) < 0.0005


def _mix_sizes(folder: Path) -> None:
    path = folder / "ir" / "02.png"
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), -1), (320, 240)))


def _lay_on_its_side(folder: Path) -> None:
    for path in (folder / "ir").iterdir():
        cv2.imwrite(str(path), np.rot90(cv2.imread(str(path), -1), 1))


def _one_stance(folder: Path) -> None:
    for name in ("color", "ir"):
        first = cv2.imread(str(folder / name / "00.png"), -1)
        for path in (folder / name).iterdir():
            spoiled = first.copy()
            spoiled[:4, :4] = int(path.stem)
            cv2.imwrite(str(path), spoiled)


def _shuffle(folder: Path) -> None:
    files = sorted((folder / "color").iterdir())
    for path in files:
        path.rename(path.with_suffix(".old"))
    for path, name in zip(files, files[3:] + files[:3], strict=True):
        path.with_suffix(".old").rename(name)


def _empty(folder: Path) -> None:
    for path in (folder / "ir").iterdir():
        path.unlink()


def _rename(folder: Path) -> None:
    for path in (folder / "ir").iterdir():
        path.rename(path.with_name("one" + "x" * int(path.stem) + ".png"))


def _cut(folder: Path) -> None:
    for path in sorted((folder / "color").iterdir())[:6]:
        path.write_bytes(path.read_bytes()[:200])


def _few(folder: Path) -> None:
    for path in sorted((folder / "color").iterdir())[4:]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (_empty, 4, "--infrared"),
        (lambda folder: shutil.rmtree(folder / "ir"), 4, "is no folder"),
        (_rename, 4, "no two pictures of the folders belong together"),
        (_few, 2, "found by both cameras in 4 of 4 and 6 are needed"),
        (_cut, 2, "cannot be read"),
        (_mix_sizes, 2, "its pictures are of 2 sizes"),
        (_lay_on_its_side, 2, "turned by 9"),
        (_one_stance, 2, ""),
        (_shuffle, 2, "taken at the same moment"),
    ],
)
def test_bad_pictures_are_refused_in_words(calibrate, copy, tmp_path, spoil, code, words):
    spoil(copy)
    found, said = calibrate(copy)
    assert (found, words in said) == (code, True), said
    assert "error: " in said and not (tmp_path / "rig.json").exists()


def test_flags_that_contradict_each_other_are_refused(calibrate, taken, tmp_path):
    lens = tmp_path / "lens.json"
    lens.write_text(json.dumps({"schema": "calib-camera/1", **DEPTH.described(), "width": 1280, "measured": {}}))
    cases: list[tuple[Path | None, tuple, str]] = [
        (None, (), "name two folders"),
        (None, ("--color", taken / "color"), "go together"),
        (None, ("--source", "0"), "must begin with depth:"),
        (None, ("--source", "depth:x", "--color-lens", lens), "go with --color and --infrared"),
        (taken, ("--picture", tmp_path / "p.png"), "--picture needs --source"),
        (taken, ("--corners", "6x6"), "looks the same from four sides"),
        (taken, ("--corners", "9"), "must be columns x rows"),
        (taken, ("--corners", "7x4"), ""),
        (taken, ("--color-lens", lens), "was measured at 1280x480, the pictures are 640x480"),
    ]
    for folder, flags, words in cases:
        code, said = calibrate(folder, *flags)
        assert (code, words in said) == (2, True), said
    (tmp_path / "rig.json").write_text("{}")
    code, said = calibrate(taken)
    assert code == 2 and "--replace" in said


def test_a_recording_is_made_stated_and_drawn(calibrate, tmp_path):
    made = tmp_path / "made"
    code, said = calibrate(None, "--source", "synthetic", "--seconds", 0.3, "--out", made, prog=record_depth)
    assert code == 0 and "3 frames, 3 with depth, its lenses stated in it" in said, said
    code, said = calibrate(None, "--source", f"depth:{made}", "--picture", tmp_path / "laid.png")
    assert code == 0 and "not measured: the cameras are 50.1 mm apart and turned by 1.80 degrees" in said, said
    rig = load_calibration(tmp_path / "rig.json").rig
    assert rig == synthetic_rig()
    picture = cv2.imread(str(tmp_path / "laid.png"))
    assert picture.shape == (480, 640, 3)
    assert ((picture == (0, 220, 255)).all(axis=2)).sum() > 500  # the edges of the body
    code, said = calibrate(None, "--source", f"depth:{made}", "--out", made, prog=record_depth)
    assert code == 2 and "not empty" in said
    code, said = calibrate(None, "--source", f"depth:{made}", "--out", tmp_path / "again", prog=record_depth)
    assert code == 0, said
    about = json.loads((made / "depth.json").read_text())
    (made / "depth.json").write_text(json.dumps({**about, "rig": None}))
    code, said = calibrate(None, "--source", f"depth:{made}", "--replace")
    assert code == 4 and "states nothing of its lenses" in said
    for flags, words in (
        (("--source", "0"), "must begin with depth:"),
        (("--source", "synthetic", "--seconds", -1), "--seconds must be above 0"),
    ):
        code, said = calibrate(None, *flags, "--out", tmp_path / "no", prog=record_depth)
        assert code == 2 and words in said


def test_lenses_that_do_not_fit_are_refused_before_anything_is_written(calibrate, tmp_path):
    """Stated ones that are wrong are no hindrance where measured ones are named."""
    made = tmp_path / "made"
    assert calibrate(None, "--source", "synthetic", "--seconds", 0.3, "--out", made, prog=record_depth)[0] == 0
    good = synthetic_rig().document()
    bad = {**good, "color": {**good["color"], "width": 1280, "height": 720}}
    for name, document in (("good", good), ("bad", bad)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    flags = ("--source", "synthetic", "--out", tmp_path / "again", "--calib", tmp_path / "good.json")
    code, said = calibrate(None, *flags, prog=record_depth)
    assert code == 2 and "leave --calib out" in said
    flags = ("--source", f"depth:{made}", "--out", tmp_path / "again")
    words = "its colour pictures are 640x480, the colour lens was measured on 1280x720"
    code, said = calibrate(None, *flags, "--calib", tmp_path / "bad.json", prog=record_depth)
    assert (code, words in said, (tmp_path / "again").exists()) == (4, True, False), said
    about = json.loads((made / "depth.json").read_text())
    stated = {key: value for key, value in bad.items() if key not in ("schema", "measured")}
    (made / "depth.json").write_text(json.dumps({**about, "rig": stated}))
    code, said = calibrate(None, "--source", f"depth:{made}")
    assert (code, words in said, (tmp_path / "rig.json").exists()) == (4, True, False), said
    code, said = calibrate(None, *flags, prog=record_depth)
    assert (code, words in said, (tmp_path / "again").exists()) == (4, True, False), said
    code, said = calibrate(None, *flags, "--calib", tmp_path / "good.json", prog=record_depth)
    assert code == 0, said
    assert open_source(f"depth:{tmp_path / 'again'}", fast=True).info.rig == synthetic_rig()


def test_a_recording_whose_name_is_no_text_can_be_stated(calibrate, tmp_path):
    made = tmp_path / os.fsdecode(b"fl\xfcr")
    code, said = calibrate(None, "--source", "synthetic", "--seconds", 0.3, "--out", made, prog=record_depth)
    assert code == 0, said
    code, said = calibrate(None, "--source", f"depth:{made}")
    assert code == 0, said
    assert load_calibration(tmp_path / "rig.json").rig == synthetic_rig()
    assert json.loads((tmp_path / "rig.json").read_text())["measured"]["from"] == f"stated by depth:{made}"


def test_edges_are_the_near_sides_of_steps():
    depth = np.full((10, 10), 3000, np.uint16)
    depth[3:7, 3:7] = 1000
    found = edges(depth)
    assert found[3:7, 3].all() and found[3, 3:7].all()
    assert not found[4:6, 4:6].any() and not found[:3].any()
