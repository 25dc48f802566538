"""--source depth: a recorded folder through the whole line, and what is refused and how."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime import run as program
from realtime.depth_recording import DepthWriter
from realtime.errors import LineError, SourceError, UsageError
from realtime.recording import open_recording
from realtime.schema import SECOND_NS, Frame
from realtime.slot import Change
from realtime.source import open_source
from tests.realtime.depth_scene import COLOR, DEPTH, RIG, Knows, guess, posture, write_recording
from tests.realtime.hands import write_hands

FPS, FRAMES = 10.0, 6


@pytest.fixture(scope="module")
def truth() -> list[np.ndarray]:
    """A person who comes nearer by 8 cm a frame."""
    base = posture("nothing", 3, 30)
    return [base + np.float32((0.1, 0, 0.3 - 0.08 * number)) for number in range(FRAMES)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, truth) -> Path:
    return write_recording(tmp_path_factory.mktemp("depth") / "hall", truth, FPS)


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    """A recording to spoil."""
    return Path(shutil.copytree(recorded, tmp_path / "hall"))


def frames_of(spec: str, **options: bool) -> list[Frame]:
    return [item for item in open_source(spec, **{"fast": True, **options}) if isinstance(item, Frame)]


def test_a_recording_gives_every_frame_with_its_depth_and_its_lenses(recorded: Path):
    source = open_source(f"depth:{recorded}", fast=True)
    frames = [item for item in source if isinstance(item, Frame)]
    info = source.info
    assert (info.id, info.kind, info.live, info.fps, info.skeletons) == ("hall", "depth", False, FPS, False)
    assert (info.width, info.height, info.depth_size, info.rig) == (*COLOR, DEPTH, RIG)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    np.testing.assert_allclose(np.diff([frame.captured_ns for frame in frames]), SECOND_NS / FPS, atol=2)
    for frame in frames:
        assert frame.depth.shape == DEPTH[::-1] and frame.depth.dtype == np.uint16
        assert frame.image.shape == (COLOR[1], COLOR[0], 3)
    assert source.corrupt == 0
    assert len(frames_of(f"depth:{recorded / 'depth.json'}")) == FRAMES


def test_it_plays_at_live_pace_and_begins_again(recorded: Path):
    paced = open_source(f"depth:{recorded}", fast=False)
    begin = [item.captured_ns for item in paced if isinstance(item, Frame)]
    assert 0.35 * SECOND_NS < begin[-1] - begin[0] < 0.6 * SECOND_NS
    source, seen, seams = open_source(f"depth:{recorded}", fast=True, loop=True), [], 0
    for item in source:
        seams += isinstance(item, Change)
        seen += [item] if isinstance(item, Frame) else []
        if len(seen) == 2 * FRAMES + 2:
            break
    source.close()
    assert seams == 2 and all(frame.depth is not None for frame in seen)
    assert (np.diff([frame.captured_ns for frame in seen]) > 0).all()


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth) -> Iterator[Callable[..., int]]:
    """The program, its pose stage one that knows the landmarks: rendered capsules are no people for a network."""
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    hands = write_hands(tmp_path / "hands")
    rng = np.random.default_rng(1)
    known = {round(1000 * number / FPS): guess(joints, rng, 1.0) for number, joints in enumerate(truth)}
    monkeypatch.setattr("realtime.stage.open_pose", lambda *_, **__: (Knows(dict(known)), "pose: the truth"))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*flags: object) -> int:
        given = ["run", "--bundle", hands, "--pub", "none", *flags]
        monkeypatch.setattr("sys.argv", [str(flag) for flag in given])
        return program.main()

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def kept(path: Path) -> np.ndarray:
    """The joints (T, 25, 3) of a recording."""
    return np.stack([item.poses[0].joints for item in open_recording(path).frames if item.poses])


def test_the_line_plays_a_recording_and_records_joints_where_the_body_is(line, recorded, truth, tmp_path, capfd):
    assert line("--source", f"depth:{recorded}", "--fast", "--record", tmp_path / "out.mcap") == 0
    assert "joints in metres from 320x240, as the source states" in capfd.readouterr().err
    joints = kept(tmp_path / "out.mcap")
    assert joints.shape == (FRAMES, 25, 3)
    assert np.median(np.linalg.norm(joints - np.stack(truth), axis=2)) < 0.03
    np.testing.assert_allclose(np.diff(np.median(joints[..., 2], axis=1)), -0.08, atol=0.02)


def test_what_was_measured_at_the_site_comes_before_what_the_source_states(line, copy, truth, tmp_path, capfd):
    about = json.loads((copy / "depth.json").read_text())
    assert line("--source", f"depth:{copy}", "--fast", "--record", tmp_path / "one.mcap") == 0
    rig = tmp_path / "rig.json"
    rig.write_text(json.dumps(RIG.document({"verdict": "good"})))
    about["rig"] = None
    (copy / "depth.json").write_text(json.dumps(about))
    assert line("--source", f"depth:{copy}", "--fast") == 2  # now nothing says how the cameras stand
    assert "python -m calib.depth" in capfd.readouterr().err
    assert line("--source", f"depth:{copy}", "--fast", "--calib", rig, "--record", tmp_path / "two.mcap") == 0
    assert "as measured (--calib)" in capfd.readouterr().err
    np.testing.assert_array_equal(kept(tmp_path / "one.mcap"), kept(tmp_path / "two.mcap"))


def change(folder: Path, **keys: object) -> None:
    about = json.loads((folder / "depth.json").read_text())
    (folder / "depth.json").write_text(json.dumps({**about, **keys}))


def rig_with(folder: Path, **keys: object) -> None:
    rig = json.loads((folder / "depth.json").read_text())["rig"]
    change(folder, rig={**rig, **keys})


def first_line(folder: Path, **keys: object) -> None:
    lines = (folder / "frames.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), **keys})
    (folder / "frames.jsonl").write_text("\n".join(lines) + "\n")


def _spoil(folder: Path, how: str) -> None:
    lens = RIG.depth.described()
    depth = folder / "depth" / "000000.png"
    actions: dict[str, Callable[[], object]] = {
        "no depth.json": lambda: (folder / "depth.json").unlink(),
        "truncated json": lambda: (folder / "depth.json").write_text('{"schema": "depth-rec'),
        "other schema": lambda: change(folder, schema="depth-recording/9"),
        "missing key": lambda: (folder / "depth.json").write_text('{"schema": "depth-recording/1", "fps": 30}'),
        "no frames": lambda: (folder / "frames.jsonl").unlink(),
        "no lines": lambda: (folder / "frames.jsonl").write_text(""),
        "a pipe": lambda: ((folder / "frames.jsonl").unlink(), os.mkfifo(folder / "frames.jsonl")),
        "no depth picture": depth.unlink,
        "all depth pictures": lambda: shutil.rmtree(folder / "depth"),
        "no colour": lambda: shutil.rmtree(folder / "color"),
        "8 bit": lambda: cv2.imwrite(str(depth), np.zeros(DEPTH[::-1], np.uint8)),
        "3 channels": lambda: cv2.imwrite(str(depth), np.zeros((*DEPTH[::-1], 3), np.uint16)),
        "truncated png": lambda: depth.write_bytes(depth.read_bytes()[:40]),
        "other shape": lambda: cv2.imwrite(str(depth), np.zeros((200, 320), np.uint16)),
        "lens of another shape": lambda: rig_with(folder, depth={**lens, "height": 200}),
        "no lens": lambda: rig_with(folder, color=3),
        "no rotation": lambda: rig_with(folder, rotation=[[1, 0, 0], [0, 1, 0], [0, 0, 2]]),
        "mirror": lambda: rig_with(folder, rotation=[[-1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        "not 3x3": lambda: rig_with(folder, rotation=[1, 0, 0]),
        "words": lambda: rig_with(folder, translation_m=["a", 0, 0]),
        "millimetres": lambda: rig_with(folder, translation_m=[52, 0, 0]),
        "not a number": lambda: rig_with(folder, translation_m=[float("nan"), 0, 0]),
        "escape": lambda: first_line(folder, depth="../../secret.png"),
        "absolute": lambda: first_line(folder, color="/etc/hosts"),
        "no time": lambda: first_line(folder, t_ms=None),
        "time back": lambda: first_line(folder, t_ms=1e6),
        "depth first": lambda: first_line(folder, depth=None),
        "unit": lambda: change(folder, depth_unit_m=7),
    }
    actions[how]()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no depth.json", "has no depth.json, so it is none"),
        ("truncated json", "depth.json is not valid JSON"),
        ("other schema", "key 'schema' must be 'depth-recording/1', got 'depth-recording/9'"),
        ("missing key", "depth.json lacks the key 'depth_unit_m'"),
        ("no frames", "has no frames.jsonl"),
        ("no lines", "gives no picture at all"),
        ("a pipe", "frames.jsonl is no file"),
        ("no depth picture", "depth/000000.png is not there or cannot be read"),
        ("all depth pictures", "depth/000000.png is not there or cannot be read"),
        ("no colour", "gives no picture at all"),
        ("8 bit", r"000000.png is uint8 \(240, 320\), and depth must be one 16-bit channel"),
        ("3 channels", "depth must be one 16-bit channel"),
        ("truncated png", "depth/000000.png"),
        ("no lens", "rig.color. must be an object, got 3"),
        ("no rotation", "'rotation' must be a rotation: rows of length 1, at right angles, no mirror"),
        ("mirror", "no mirror"),
        ("not 3x3", "'rotation' must be 3 rows of 3 numbers"),
        ("words", "'translation_m' must be 3 numbers in metres"),
        ("millimetres", "are these millimetres"),
        ("not a number", "'translation_m' must be 3 numbers in metres"),
        ("escape", "leads out of the folder"),
        ("absolute", "leads out of the folder"),
        ("no time", "t_ms must be milliseconds, got None"),
        ("time back", "t_ms must grow"),
        ("depth first", "its first picture has no depth"),
        ("unit", "'depth_unit_m' must be a number"),
    ],
)
def test_bad_recordings_are_refused_by_name(copy: Path, how: str, words: str):
    _spoil(copy, how)
    with pytest.raises(SourceError, match=words) as caught:
        frames_of(f"depth:{copy}")
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value) and "hall" in str(caught.value)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("other shape", "depth pictures are 320x200, the depth lens was measured on 320x240"),
        ("lens of another shape", "depth pictures are 320x240, the depth lens was measured on 320x200"),
    ],
)
def test_stated_lenses_of_another_shape_are_refused_where_nothing_was_measured(line, copy, how, words, capfd):
    _spoil(copy, how)
    assert line("--source", f"depth:{copy}", "--fast") == 4
    said = capfd.readouterr().err
    assert words in said and "source hall" in said


def test_stated_lenses_of_another_shape_do_not_stop_measured_ones(line, copy, tmp_path, capfd):
    _spoil(copy, "lens of another shape")
    rig = tmp_path / "rig.json"
    rig.write_text(json.dumps(RIG.document({"verdict": "good"})))
    assert line("--source", f"depth:{copy}", "--fast", "--calib", rig) == 0
    assert "as measured (--calib)" in capfd.readouterr().err


def test_a_folder_without_anything_and_a_name_that_is_none_are_refused(tmp_path: Path):
    for spec, words in (
        (tmp_path, "has no depth.json"),
        (tmp_path / "nowhere", "is not there"),
        ("", "names no source"),
    ):
        with pytest.raises(SourceError, match=words):
            open_source(f"depth:{spec}", fast=True)
    with pytest.raises(UsageError, match="leave --mirror out"):
        open_source(f"depth:{tmp_path}", fast=True, mirror=True)


def test_what_is_damaged_under_way_is_left_out_and_counted(copy: Path):
    """A depth picture that is gone, one of another size, a colour picture that is gone, a last line that is cut off."""
    (copy / "depth" / "000001.png").unlink()
    cv2.imwrite(str(copy / "depth" / "000002.png"), np.zeros((120, 160), np.uint16))
    (copy / "color" / "000003.jpg").unlink()
    with (copy / "frames.jsonl").open("a") as lines:
        lines.write('{"t_ms": 700, "col')
    source = open_source(f"depth:{copy}", fast=True)
    frames = [item for item in source if isinstance(item, Frame)]
    assert [frame.depth is not None for frame in frames] == [True, False, False, True, True]
    assert source.corrupt == 4


def test_depth_of_another_moment_is_no_depth_of_this_picture(copy: Path):
    lines = [json.loads(line) for line in (copy / "frames.jsonl").read_text().splitlines()]
    for line, late_ms in zip(lines, (0, 20, 49, 51, -60, 0), strict=True):  # half a frame's time is 50 ms
        line["depth_t_ms"] = line["t_ms"] + late_ms
    (copy / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [frame.depth is not None for frame in frames_of(f"depth:{copy}")] == [True, True, True, False, False, True]


def test_other_units_become_millimetres(copy: Path):
    before = frames_of(f"depth:{copy}")[0].depth
    change(copy, depth_unit_m=0.0002)  # a fifth of a millimetre, as in the TUM data sets
    np.testing.assert_allclose(frames_of(f"depth:{copy}")[0].depth, before / 5, atol=0.5)


def test_a_writer_overwrites_nothing(copy: Path):
    with pytest.raises(LineError, match="has a recording already"):
        DepthWriter(copy, RIG, 30.0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: "\ud800.png",
        lambda folder: "a\0b.png",
        lambda folder: "a" * 300 + ".png",
        lambda folder: "color",
        lambda folder: pipe(folder),
        lambda folder: lies(folder),
    ],
)
@pytest.mark.parametrize("key", ["color", "depth"])
def test_names_and_files_that_are_no_pictures_are_left_out_and_counted(copy: Path, key: str, spoil, caplog):
    lines = (copy / "frames.jsonl").read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), key: spoil(copy)})
    (copy / "frames.jsonl").write_text("\n".join(lines) + "\n")
    source = open_source(f"depth:{copy}", fast=True)
    frames = [item for item in source if isinstance(item, Frame)]
    assert source.corrupt == 1 and "is not there or cannot be read" in caplog.text
    assert len(frames) == FRAMES - (key == "color") and sum(frame.depth is None for frame in frames) == (key == "depth")


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "depth" / "pipe.png")
    return "depth/pipe.png"


def lies(folder: Path) -> str:
    """A picture whose header says that it has ten thousand million pixels."""
    content = (folder / "depth" / "000000.png").read_bytes()
    (folder / "depth" / "lies.png").write_bytes(content[:16] + b"\0\1\x86\xa0" * 2 + content[24:])
    return "depth/lies.png"


def test_a_link_within_the_folder_is_followed_and_one_that_leads_out_is_refused(copy: Path, tmp_path: Path):
    (copy / "color" / "000009.jpg").symlink_to("000001.jpg")
    first_line(copy, color="color/000009.jpg")
    assert len(frames_of(f"depth:{copy}")) == FRAMES
    (tmp_path / "link").symlink_to(copy)  # the folder itself may lie elsewhere
    assert len(frames_of(f"depth:{tmp_path / 'link'}")) == FRAMES
    (copy / "color").rename(tmp_path / "elsewhere")
    (copy / "color").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="leads out of the folder"):
        frames_of(f"depth:{copy}")


def test_a_recording_in_a_folder_whose_name_is_no_text_is_written_and_played(tmp_path: Path, truth):
    folder = write_recording(tmp_path / os.fsdecode(b"fl\xfcr"), truth[:2], FPS)
    assert len(frames_of(f"depth:{folder}")) == 2
