"""Depth cameras of three makers, each behind a fake of its library: what units, orders and axes become, what fails."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import numpy as np
import pytest

from realtime.depth import device, open_device
from realtime.errors import SourceError
from realtime.source import open_source


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("orbbec", "pyorbbecsdk", "pip install --no-deps pyorbbecsdk2"),
        ("realsense", "pyrealsense2", "pip install pyrealsense2"),
        ("oak", "depthai", "pip install depthai"),
    ],
)
def test_a_device_whose_library_is_missing_says_what_to_install(monkeypatch, name, module, command):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=command) as caught:
        open_source(f"depth:{name}", fast=False)
    assert caught.value.exit_code == 4
    with pytest.raises(SourceError, match="devices are orbbec, realsense, oak"):
        device("kinect")


class Fake:
    """Stands for a library's objects: whatever is asked of it is itself, but for what it was given."""

    def __init__(self, **known: object) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Fake:
        return self

    def __call__(self, *_: object, **__: object) -> Fake:
        return self


def says(value: object) -> Callable[..., object]:
    return lambda *_, **__: value


COLOR_BGR = np.full((720, 1280, 3), (10, 20, 30), np.uint8)
Z = np.full((480, 640), 2000, np.uint16)


def fake_realsense(sets: Iterable[str] = ()) -> Fake:
    """sets: what those before the whole ones hold; a set without a stream gives a frame that is false."""
    lens = {"fx": 600.0, "fy": 600.0, "ppx": 300.0, "ppy": 200.0, "coeffs": [0.1, 0, 0, 0, 0]}
    # Column by column: a turn by 90 degrees about z.
    motion = SimpleNamespace(rotation=[0, 1, 0, -1, 0, 0, 0, 0, 1], translation=[0.015, 0, 0])
    color = Fake(get_intrinsics=says(SimpleNamespace(width=1280, height=720, **lens)))
    depth = Fake(get_intrinsics=says(SimpleNamespace(width=640, height=480, **lens)), get_extrinsics_to=says(motion))
    streams = {"color": Fake(as_video_stream_profile=says(color)), "depth": Fake(as_video_stream_profile=says(depth))}
    frames = {"color": says(Fake(get_data=says(COLOR_BGR))), "depth": says(Fake(get_data=says(Z // 2)))}

    def wait_for_frames(_: int) -> Fake:
        held = next(waiting, "color depth")
        return Fake(**{f"get_{name}_frame": frame if name in held else says(None) for name, frame in frames.items()})

    waiting = iter(sets)
    profile = Fake(get_stream=streams.__getitem__, get_depth_scale=says(0.002))  # two millimetres a unit
    pipeline = Fake(start=says(profile), wait_for_frames=wait_for_frames)
    return Fake(pipeline=says(pipeline), stream=SimpleNamespace(color="color", depth="depth"))


def fake_orbbec() -> Fake:
    lens = SimpleNamespace(fx=600.0, fy=600.0, cx=300.0, cy=200.0, width=1280, height=720)
    bent = SimpleNamespace(k1=0.1, k2=0.0, k3=0.0, k4=0.0, k5=0.0, k6=0.0, p1=0.0, p2=0.0)
    motion = SimpleNamespace(rot=[0, -1, 0, 1, 0, 0, 0, 0, 1], transform=[15.0, 0, 0])
    known = SimpleNamespace(
        is_mirrored=False, rgb_intrinsic=lens, rgb_distortion=bent, depth_distortion=bent, transform=motion,
        depth_intrinsic=SimpleNamespace(fx=600.0, fy=600.0, cx=300.0, cy=200.0, width=640, height=480),
    )  # fmt: skip
    color = Fake(
        get_format=says("RGB"), get_data=says(COLOR_BGR[..., ::-1].ravel()), get_width=says(1280), get_height=says(720)
    )
    depth = Fake(
        get_data=says((Z // 2).view(np.uint8).ravel()), get_width=says(640), get_height=says(480),
        get_depth_scale=says(2.0),
    )  # fmt: skip
    frames = Fake(get_color_frame=says(color), get_depth_frame=says(depth))
    pipeline = Fake(get_camera_param=says(known), wait_for_frames=says(frames), get_fps=says(30))
    formats = SimpleNamespace(RGB="RGB", BGR="BGR", MJPG="MJPG")
    return Fake(Pipeline=says(pipeline), OBError=RuntimeError, OBFormat=formats)


def fake_oak() -> Fake:
    group = {
        "color": Fake(getCvFrame=says(COLOR_BGR)),
        "depth": Fake(getFrame=says(np.full((720, 1280), 2000, np.uint16))),
    }
    calibration = Fake(getCameraIntrinsics=says([[600.0, 0, 300], [0, 600, 200], [0, 0, 1]]))
    running = Fake(
        isRunning=says(True), tryGet=says(group), readCalibration=says(calibration), inputs={"color": 0, "depth": 0}
    )
    running.__dict__["create"] = says(running)
    running.__dict__["getDefaultDevice"] = says(running)
    running.__dict__["out"] = running
    running.__dict__["createOutputQueue"] = says(running)
    return Fake(Pipeline=says(running))


@pytest.mark.parametrize(
    ("name", "module", "fake"),
    [
        ("realsense", "pyrealsense2", fake_realsense),
        ("orbbec", "pyorbbecsdk", fake_orbbec),
        ("oak", "depthai", fake_oak),
    ],
)
def test_a_device_gives_bgr_pictures_millimetres_and_its_own_lenses(monkeypatch, name, module, fake):
    """Against a fake of each library: what units, orders and axes become, not that a device works."""
    monkeypatch.setitem(sys.modules, module, fake())
    opened = open_device(name)
    frame = next(opened.frames)
    assert opened.info.live and opened.info.id == name
    assert tuple(frame.image[0, 0]) == (10, 20, 30)
    assert frame.depth.dtype == np.uint16 and frame.depth[100, 100] == 2000
    rig = opened.info.rig
    assert rig is not None and (rig.color.fx, rig.color.cy) == (600.0, 200.0)
    if name == "oak":
        assert rig.registered
    else:
        np.testing.assert_allclose(rig.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
        assert rig.translation_m == (0.015, 0, 0) and rig.color.distortion[0] == 0.1
    opened.release()
    opened.release()


@pytest.mark.parametrize("name", ["realsense", "orbbec", "oak"])
def test_a_device_that_is_not_there_is_one_line_and_code_4(monkeypatch, name):
    def none(*_: object) -> None:
        raise RuntimeError("No device connected")

    library = {"realsense": "pyrealsense2", "orbbec": "pyorbbecsdk", "oak": "depthai"}[name]
    absent = Fake(pipeline=says(Fake(start=none)), Pipeline=none, OBError=RuntimeError)
    monkeypatch.setitem(sys.modules, library, absent)
    with pytest.raises(SourceError, match=f"depth:{name}: No device connected; check its cable"):
        open_source(f"depth:{name}", fast=False)


@pytest.mark.parametrize("sets", [("depth", "depth"), ("color", "color"), ("depth", "color", "depth", "")])
def test_a_camera_whose_streams_do_not_begin_at_once_is_waited_for(monkeypatch, sets):
    monkeypatch.setitem(sys.modules, "pyrealsense2", fake_realsense(sets))
    opened = open_device("realsense")
    assert opened.info.depth_size == (640, 480) and next(opened.frames).depth is not None


def test_a_set_without_colour_under_way_is_passed_over_and_one_without_depth_has_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", fake_realsense(("color depth", "depth", "color", "depth")))
    frames = open_device("realsense").frames
    assert [next(frames).depth is not None for _ in range(3)] == [True, False, True]


@pytest.mark.parametrize(("held", "words"), [("depth", "no colour pictures"), ("color", "no depth pictures")])
def test_a_camera_that_gives_one_stream_only_is_one_line_and_code_4(monkeypatch, held, words):
    for module in ("depth", "depth_realsense"):
        monkeypatch.setattr(f"realtime.{module}.SILENCE_S", 0.2)
    monkeypatch.setitem(sys.modules, "pyrealsense2", fake_realsense(itertools.repeat(held)))
    with pytest.raises(SourceError, match=f"depth:realsense gives {words} for 0 s; check its cable"):
        open_device("realsense")
