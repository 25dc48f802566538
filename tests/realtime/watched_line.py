"""A made-up line for the tests of the page: two generated people who wave, clap and walk, told as a line tells them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from realtime.bus import Numbers
from realtime.clock import Clock
from realtime.generator import perform
from realtime.messages import (
    Action,
    ActionEvent,
    AnyMessage,
    Heartbeat,
    Latency,
    Model,
    OpenEvent,
    Percentiles,
    Source,
    Status,
    Track,
    encode,
)
from realtime.schema import SECOND_NS, Event, Pose
from realtime.skeleton import KINECT_V2_25, LAYOUTS, convert
from realtime.wire import action_event, moment, pose_message, topic

Feed = Callable[[str, bytes], None]
MODEL = Model(name="demo", sha256="ab", backend="onnxruntime-1.31.1/cpu", window=64, stride=4)
NAMES = {"wave": "waving", "clap": "clapping", "walk": "walking", "throw": "throwing", "hug": "hugging"}
FPS = 30.0


def people(seed: int = 3, aside_m: float = 0.62) -> list[np.ndarray]:
    """Two people's joints (T, 25, 3), side by side."""
    scripts = (
        [("nothing", 1.0), ("wave:right", 4.0), ("nothing", 1.0), ("clap", 4.0)],
        [("walk:place", 6.0), ("nothing", 1.0), ("throw:right", 3.0)],
    )
    made = []
    for number, script in enumerate(scripts):
        joints = perform(script, seed=seed + number, fps=FPS).joints.copy()
        joints[..., 0] += aside_m if number else -aside_m
        made.append(joints)
    return made


class WatchedLine:
    """Tells what a line would tell, at the pace of whoever calls it."""

    def __init__(
        self, feed: Feed, source: str = "cam0", layout: str = "KINECT_V2_25", in_picture: bool = False
    ) -> None:
        self.feed, self.source = feed, source
        self.layout, self.in_picture = LAYOUTS[layout], in_picture
        self.numbers, self.clock = Numbers(), Clock.now()
        self.state, self.reconnects, self.persons = "online", 0, 2
        self.open: dict[str, tuple[int, str, int]] = {}
        self.begun_ns = time.monotonic_ns()
        self._people = people()

    def tell(self, message: AnyMessage) -> None:
        self.feed(topic(message), encode(message))

    def status(self, state: str, reason: str | None = None) -> None:
        self.state = state
        self.tell(
            Status(
                session=self.numbers.session, seq=self.numbers.take("status"), source=self.source,
                time=moment(time.monotonic_ns(), self.clock), state=state, reason=reason,
            )
        )  # fmt: skip

    def heartbeat(self, fps: float = 29.8, age_ms: float = 38.0, drops: int = 3) -> None:
        now = time.monotonic_ns()
        self.tell(
            Heartbeat(
                session=self.numbers.session, seq=self.numbers.take("heartbeat"), source=self.source,
                time=moment(now, self.clock), fps=fps, frame_age_ms=Percentiles(p50=age_ms * 0.7, p95=age_ms),
                drops=drops, refused=1, stage_ms={"pose": Percentiles(p50=12.1, p95=15.5)},
                open_events=tuple(OpenEvent(id=name, track=t, action=a) for name, (t, a, _) in self.open.items()),
                persons=self.persons, next_seq=self.numbers.next, state=self.state, reconnects=self.reconnects,
                uptime_s=(now - self.begun_ns) / SECOND_NS + 4000, memory_mb=382.4,
            )
        )  # fmt: skip

    def poses(self, index: int) -> None:
        now = time.monotonic_ns()
        shown = [
            self._pose(joints[index % len(joints)], track + 1, now, index) for track, joints in enumerate(self._people)
        ]
        self.tell(
            pose_message(
                shown[: self.persons], frame=index, captured_ns=now, layout=self.layout, session=self.numbers.session,
                seq=self.numbers.take("pose"), source=self.source, clock=self.clock,
            )
        )  # fmt: skip

    def _pose(self, joints: np.ndarray, track: int, now: int, index: int) -> Pose:
        sure = np.ones(25, np.float32)
        joints, sure = (
            convert(joints, sure, KINECT_V2_25, self.layout) if self.layout != KINECT_V2_25 else (joints, sure)
        )
        image = None
        if self.in_picture:
            z = np.maximum(joints[:, 2], 0.5)  # joints that the layout cannot have lie at the origin
            image = np.stack([0.5 - 0.6 * joints[:, 0] / z, 0.5 - 0.6 * 16 / 9 * joints[:, 1] / z], -1).astype(
                np.float32
            )
        return Pose(index, now, track, self.layout, joints.astype(np.float32), sure.astype(np.float32), image)

    def start(self, event_id: str, track: int, action: str, ago_s: float = 0.8, **more: object) -> None:
        onset = time.monotonic_ns() - round(ago_s * SECOND_NS)
        self.open[event_id] = (track, action, onset)
        self.tell(self._event(event_id, "start", track, action, onset, **more))

    def end(self, event_id: str, reason: str = "score") -> None:
        track, action, onset = self.open.pop(event_id)
        offset = time.monotonic_ns()
        self.tell(self._event(event_id, "end", track, action, onset, offset_ns=offset, end_reason=reason))

    def past(self, event_id: str, track: int, action: str, ago_s: float, lasted_s: float) -> None:
        """A whole occurrence that ended a while ago."""
        now = time.monotonic_ns()
        onset = now - round(ago_s * SECOND_NS)
        decided, offset = onset + round(0.9 * SECOND_NS), onset + round(lasted_s * SECOND_NS)
        self.tell(self._event(event_id, "start", track, action, onset, decided_ns=decided))
        self.tell(
            self._event(event_id, "end", track, action, onset, decided_ns=offset, offset_ns=offset, end_reason="score")
        )

    def _event(
        self, event_id: str, phase: str, track: int, action: str, onset: int, *, name: str | None = None, **more: object
    ) -> ActionEvent:
        values = {"value": 0.91, "raw": 0.95, "peak": 0.96, "on": 0.6, "off": 0.4, "margin": 0.7}
        more.setdefault("decided_ns", time.monotonic_ns())
        event = Event(event_id, phase, track, action, **values, onset_ns=onset, **more)
        return action_event(
            event, session=self.numbers.session, seq=self.numbers.take("action"),
            source=Source(id=self.source, kind="camera", width=1280, height=720, fps=FPS),
            action=Action(id=action, name=name or NAMES.get(action, action)), model=MODEL, clock=self.clock,
            track=Track(id=track, partner=event.partner),
            latency=Latency(capture_to_publish=41.5, pose=12.0, model=1.2, queue=3.0),
        )  # fmt: skip


@contextmanager
def running(line: WatchedLine) -> Iterator[WatchedLine]:
    """Poses at 30 fps and a heartbeat a second, from a thread, until the end of the block."""
    over = threading.Event()

    def play() -> None:
        begun = time.monotonic()
        for index in itertools.count():
            if index % 30 == 0:
                line.heartbeat(fps=29.4 + 0.8 * float(np.sin(index / 47)))
            line.poses(index)
            if over.wait(max(0.0, begun + (index + 1) / FPS - time.monotonic())):
                return

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        over.set()
        thread.join(timeout=5)
