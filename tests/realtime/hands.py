"""What the tests of the whole line share: a bundle that knows a raised hand, a figure that raises one, and the line.

Nothing here is trained, so these tests hold whatever the shipped bundle has learned: the model reads the height of
each wrist over the last third of its window and nothing else.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from realtime.bundle import write_bundle
from realtime.clock import Clock
from realtime.features import NORMALISATION, features
from realtime.messages import ActionEvent, decode, encode
from realtime.recording import RecordingWriter
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import CORE_16, Layout
from realtime.wire import pose_message

ROOT = Path(__file__).resolve().parents[2]
T, V, C = 24, len(CORE_16), 3
CLASSES = ("nothing", "left_up", "right_up")
SHOULDER_M = 0.5  # height of the shoulders of the canonical body above its hips
STRONG = 40.0  # logits per metre: a raised wrist is half a metre above the shoulder


def weights(gain: float = STRONG) -> tuple[np.ndarray, np.ndarray]:
    """(C * T * V, K) and (K,) of logits = gain * (mean wrist height - shoulder height), and 0 for nothing."""
    matrix = np.zeros((C, T, V, len(CLASSES)), np.float32)
    for column, side in ((1, "left"), (2, "right")):
        matrix[1, -T // 3 :, CORE_16.index(f"{side}_wrist"), column] = gain / (T // 3)
    return matrix.reshape(-1, len(CLASSES)), np.array([0, -gain * SHOULDER_M, -gain * SHOULDER_M], np.float32)


def model(gain: float = STRONG) -> bytes:
    """The ONNX graph of `weights`; its embedding is (1, 0) for every window."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    matrix, bias = weights(gain)
    constants = {
        "matrix": matrix,
        "bias": bias,
        "none": np.zeros((C * T * V, 2), np.float32),
        "unit": np.array([1, 0], np.float32),
    }
    nodes = [
        helper.make_node("Flatten", ["skeleton"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["heights"]),
        helper.make_node("Add", ["heights", "bias"], ["logits"]),
        helper.make_node("MatMul", ["flat", "none"], ["zeros"]),
        helper.make_node("Add", ["zeros", "unit"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "hands",
        [helper.make_tensor_value_info("skeleton", kind, ["N", C, T, V])],
        [
            helper.make_tensor_value_info("logits", kind, ["N", len(CLASSES)]),
            helper.make_tensor_value_info("embedding", kind, ["N", 2]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def gate(precision: str = "int8", **changes: object) -> dict:
    """What the gate of a graph says in bundle.json; it passed unless told otherwise."""
    fields = {
        "precision": precision, "windows": 1000, "source": "made up", "agreement": 0.998, "needed": 0.99,
        "passed": True, "allowed": False, "worst_logits": 0.3, "reference": {"logits": 0.1, "embedding": 0.01},
        "accuracy": {"clips": 40, "fp32": 0.9, "this": 0.9}, "bytes": 10, "fp32_bytes": 20,
        "latency_ms": {"1": 0.5, "8": 3.0}, "fp32_latency_ms": {"1": 1.0, "8": 6.0},
    }  # fmt: skip
    return {**fields, **changes}


def write_hands(folder: Path, **graphs: tuple[bytes, dict]) -> Path:
    """A whole bundle around the model. graphs: by precision, further graphs with their gates."""
    rule = {"on": 0.6, "off": 0.4, "min_on_s": 0.2, "min_off_s": 0.2}
    spec = {
        "name": "hands",
        "layout": "CORE_16",
        "joints": list(CORE_16.joints),
        "streams": ["joint"],
        "channels": C,
        "window": T,
        "fps": 20.0,
        "stride": 4,
        "normalisation": NORMALISATION,
        "actions": [{"id": f"{side}_up", "name": f"{side} hand up", **rule} for side in ("left", "right")],
        "classes": list(CLASSES),
        "nothing": "nothing",
        "temperature": 1.0,
        "smoothing_s": 0.2,
        "onset_shift_s": 0.0,
        "offset_shift_s": 0.0,
        "text": None,
        "training": {"data": ["none: the weights were written by hand"]},
    }
    joints = np.stack([np.stack([figure(side)] * T) for side in (None, "left", "right")])  # (n, T, V, 3)
    skeleton = features(joints, np.ones(joints.shape[:3], np.float32), ("joint",))
    matrix, bias = weights()
    logits = (skeleton.reshape(len(skeleton), -1) @ matrix + bias).astype(np.float32)
    packed = io.BytesIO()
    np.savez(packed, skeleton=skeleton, logits=logits, embedding=np.tile(np.float32([1, 0]), (len(skeleton), 1)))
    files = {"model.onnx": model(), "reference.npz": packed.getvalue(), "MODEL_CARD.md": b"# Hands\n"}
    if graphs:
        spec["graphs"] = {"fp32": {"file": "model.onnx", "gate": None}}
    for precision, (graph, judged) in graphs.items():
        files[f"model.{precision}.onnx"] = graph
        spec["graphs"][precision] = {"file": f"model.{precision}.onnx", "gate": judged}
    return write_bundle(folder, spec, files, replace=True)


def figure(up: str | None = None, share: float = 1.0) -> np.ndarray:
    """A stiff person (V, 3) in metres 2.5 m before the sensor, facing it. up: the arm raised, by a share of all."""
    places = {
        "hip_center": (0, 0),
        "spine": (0, 0.25),
        "shoulder_center": (0, 0.5),
        "head": (0, 0.74),
        "hip": (0.1, 0),
        "knee": (0.1, -0.42),
        "ankle": (0.1, -0.82),
        "shoulder": (0.18, 0.5),
    }
    joints = np.zeros((V, 3), np.float32)
    for row, joint in enumerate(CORE_16.joints):
        side, _, part = joint.partition("_")
        sign = {"left": -1.0, "right": 1.0}.get(side, 0.0)  # a person who faces the sensor has the right at larger x
        part = part if sign else joint
        if part in ("elbow", "wrist"):
            reach = {"elbow": 0.28, "wrist": 0.53}[part]
            angle = np.pi * (share if side == up else 0.0) * 0.95  # from straight down
            across, height = 0.18 + reach * np.sin(angle), 0.5 - reach * np.cos(angle)
        else:
            across, height = places[part]
        joints[row] = sign * across, height + 0.1, 2.5
    return joints


def motion(script: Sequence[tuple[str | None, float]], fps: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) int64 ns and joints (T, V, 3): (arm, seconds) one after the other, 0.4 s up, 0.4 s down within."""
    seconds = np.cumsum([0.0] + [length for _, length in script])
    times = np.arange(round(seconds[-1] * fps)) / fps
    rows = []
    for t in times:
        part = min(int(np.searchsorted(seconds, t, side="right")) - 1, len(script) - 1)
        since, left = t - seconds[part], seconds[part + 1] - t
        rows.append(figure(script[part][0], float(np.clip(min(since, left) / 0.4, 0, 1))))
    return np.rint(times * SECOND_NS).astype(np.int64), np.stack(rows)


ONE_HAND = ((None, 2.0), ("right", 2.0), (None, 2.0))
RAISED = 105  # frames of `frames()` after which the hand is up and told


def frames(script: Sequence[tuple[str | None, float]] = ONE_HAND, fps: float = 30.0, track: int = 1) -> list[Frame]:
    """The figure's motion as frames that carry one pose each."""
    sure = np.ones(V, np.float32)
    return [
        Frame(i, int(at), poses=(Pose(i, int(at), track, CORE_16, joints, sure),))
        for i, (at, joints) in enumerate(zip(*motion(script, fps), strict=True))
    ]


def lines(given: Sequence[Frame], layout: Layout = CORE_16) -> Iterator[bytes]:
    """The frames as pose messages, one a line, as `--source -` reads them."""
    clock = Clock.now()
    for seq, frame in enumerate(given):
        message = pose_message(
            frame.poses or (),
            frame=frame.index,
            captured_ns=frame.captured_ns,
            layout=layout,
            session="hands",
            seq=seq,
            source="figure",
            clock=clock,
        )
        yield encode(message) + b"\n"


def write_recording(path: Path, given: Sequence[Frame]) -> Path:
    """The frames as an MCAP recording."""
    with RecordingWriter(path) as writer:
        for line in lines(given):
            writer.write(decode(line))  # type: ignore[arg-type]
    return path


def start(
    *flags: object, stdin: object = subprocess.DEVNULL, before: object = None, first: Path = ROOT
) -> subprocess.Popen[bytes]:
    """The line as its own process; what it says comes through pipes. Modules in `first` stand in for others."""
    return subprocess.Popen(
        [sys.executable, "-m", "realtime.run", *map(str, flags)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{first}:{ROOT}"},
        stdin=stdin,  # type: ignore[arg-type]
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,  # type: ignore[arg-type]
    )


def ended(process: subprocess.Popen[bytes], given: bytes | None = None, timeout_s: float = 30) -> tuple[int, str]:
    """Waits for the line's end: its exit code and what it said on standard error; standard output must be empty."""
    try:
        out, said = process.communicate(given, timeout=timeout_s)
    finally:
        process.kill()
        process.wait()
    assert out == b""
    return process.returncode, said.decode()


def read_events(path: Path) -> list[ActionEvent]:
    """The validated events of an --events file, which must tell each occurrence from start to end."""
    raw = path.read_bytes()
    assert not raw or raw.endswith(b"\n")
    events = [decode(line) for line in raw.splitlines()]
    assert all(isinstance(event, ActionEvent) for event in events)
    check_story(events)  # type: ignore[arg-type]
    return events  # type: ignore[return-value]


def story(path: Path) -> list[tuple[str, str, str | None]]:
    """Phase, action and end reason of every start and end in an --events file."""
    return [(e.phase, e.action.id, e.end_reason) for e in read_events(path) if e.phase != "update"]


def check_story(events: Sequence[ActionEvent]) -> None:
    """Each id: one start, then updates, then exactly one end, on one track and of one action."""
    open_: dict[str, ActionEvent] = {}
    done: set[str] = set()
    for event in events:
        if event.phase == "start":
            assert event.id not in open_ and event.id not in done
            open_[event.id] = event
            continue
        first = open_[event.id]
        assert (event.action.id, event.track.id) == (first.action.id, first.track.id)
        if event.phase == "end":
            del open_[event.id]
            done.add(event.id)
    assert not open_, f"never ended: {[json.loads(encode(event)) for event in open_.values()]}"


def free_address() -> str:
    """A loopback address that nobody uses just now; nor the one after it, where replay is answered."""
    while True:
        with socket.socket() as probe, socket.socket() as next_one, suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            next_one.bind(("127.0.0.1", port + 1))
            return f"tcp://127.0.0.1:{port}"
