"""Real servers on loopback that misbehave: what is told and how soon, and that no bogus picture reaches the line.

Every picture says its number, or when it was made, in its pixels.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from realtime.backoff import Backoff
from realtime.errors import SourceError
from realtime.live import Live
from realtime.schema import Frame
from realtime.slot import Change
from realtime.source import open_source
from scripts import rtsp_server
from scripts.mjpeg_server import MjpegServer, stamp_of, stamped
from scripts.pipe_sender import PipeSender
from scripts.rtsp_server import RtspServer, age_ms

pytestmark = pytest.mark.faults
SLACK_S = 0.7  # for a machine that does much else
rtsp = pytest.mark.skipif(rtsp_server.missing() is not None, reason=str(rtsp_server.missing()))


@pytest.fixture(autouse=True)
def quick_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost is tried again soon; the waits themselves are tested elsewhere."""
    monkeypatch.setattr("realtime.live.Backoff", functools.partial(Backoff, high_s=0.4))


class Seen:
    """What came of a source: changes with the second at which they came, and pictures."""

    def __init__(self, source: Live) -> None:
        self.source, self.begun_s = source, time.monotonic()
        self.changes: list[tuple[float, Change]] = []
        self.stamps: list[int | None] = []
        self.came_s: list[float] = []
        self.ages_ms: list[float] = []
        self.waits_s: list[float] = []

    def until(
        self, done: Callable[[], bool], at_most_s: float = 12.0, age: Callable[[int], float] | None = None
    ) -> None:
        end_s = asked_s = time.monotonic()
        for item in self.source:
            now_s = time.monotonic()
            self.waits_s.append(now_s - asked_s)
            if isinstance(item, Frame):
                self.stamps.append(stamp_of(item.image))
                self.came_s.append(now_s - self.begun_s)
                if age is not None and self.stamps[-1] is not None:
                    self.ages_ms.append(age(self.stamps[-1]))
            elif item is not None:
                self.changes.append((now_s - self.begun_s, item))
            if done():
                return
            assert now_s - end_s < at_most_s, self.told()
            asked_s = time.monotonic()

    def told(self) -> list[str]:
        return [change.state for _, change in self.changes]

    def first(self, state: str) -> tuple[float, Change]:
        return next((at, change) for at, change in self.changes if change.state == state)

    def more(self, pictures: int) -> Callable[[], bool]:
        """Whether so many pictures came from now on."""
        had = len(self.stamps)
        return lambda: len(self.stamps) >= had + pictures

    def has(self, *states: str) -> Callable[[], bool]:
        """Whether these came, one after the other."""

        def done() -> bool:
            rest = iter(self.told())
            return all(state in rest for state in states)

        return done


@pytest.fixture
def camera():
    with MjpegServer() as server:
        yield server


def played(server: MjpegServer, mode: str, **query: float) -> Seen:
    return Seen(open_source(server.url(mode, **query), fast=False))  # type: ignore[arg-type]


def check_numbers(seen: Seen) -> None:
    """Whole pictures only, each newer than the one before it."""
    assert None not in seen.stamps
    assert all(a < b for a, b in itertools.pairwise(seen.stamps))  # type: ignore[operator]


@pytest.mark.slow
def test_a_good_stream_is_young_at_any_pace_of_the_consumer(camera):
    for pause_s in (0.0, 1 / 7):
        seen = played(camera, "normal")
        end_s = time.monotonic() + 2.5

        def done(pause_s=pause_s, end_s=end_s) -> bool:
            time.sleep(pause_s)
            return time.monotonic() > end_s

        seen.until(done, age=lambda number: (time.monotonic_ns() - camera.sent[number]) / 1e6)
        seen.source.close()
        check_numbers(seen)
        assert seen.told() == [] and len(seen.stamps) > 10
        assert np.percentile(seen.ages_ms, 75) < 100  # 95 % on a machine that does nothing else


@pytest.mark.parametrize("mode", ["stall", "slowloris"])
def test_a_silent_stream_is_told_in_three_seconds_and_comes_back(camera, mode):
    seen = played(camera, mode, after=15)
    seen.until(seen.has("stalled", "reconnecting", "online"))
    seen.until(lambda: seen.came_s[-1] > seen.changes[-1][0])
    seen.source.close()
    check_numbers(seen)
    stalled_at, stalled = seen.first("stalled")
    last = max(at for at in seen.came_s if at < stalled_at)
    assert stalled_at - last < 3 and stalled.reset
    assert seen.first("reconnecting")[0] - last < 3 + SLACK_S
    online_at, online = seen.changes[-1]
    assert online.reset.startswith("the stream was lost for 3.") and seen.source.reconnects == 1
    assert min(at for at in seen.came_s if at > online_at) - online_at < 0.2
    assert max(seen.waits_s) < 0.2 + SLACK_S


@pytest.mark.parametrize("mode", ["truncated", "corrupt"])
def test_damaged_pictures_are_counted_and_the_stream_goes_on(camera, mode):
    seen = played(camera, mode, after=5)
    seen.until(lambda: seen.source.corrupt >= 6)
    seen.source.close()
    check_numbers(seen)
    assert len(seen.stamps) >= 15 and seen.told() == [] and camera.connections == 1


def test_a_stream_of_damaged_pictures_alone_is_opened_again(camera):
    seen = played(camera, "allcorrupt", after=15)
    seen.until(seen.has("stalled", "reconnecting", "online"))
    seen.source.close()
    check_numbers(seen)
    stalled_at, stalled = seen.first("stalled")
    assert stalled_at - max(at for at in seen.came_s if at < stalled_at) < 3
    assert "nothing but damaged pictures came" in stalled.reason and camera.connections == 2


@pytest.mark.parametrize(("mode", "size"), [("resize", (480, 640)), ("rotate", (320, 240))])
def test_a_picture_of_another_size_comes_as_it_is_after_a_reset(camera, mode, size):
    source = open_source(camera.url(mode, after=15), fast=False)
    sizes, reset_at = [], None
    for item in source:
        if isinstance(item, Change):
            reset_at = len(sizes)
            assert item.state == "online" and "size changed from 320x240" in str(item.reset)
        elif item is not None:
            sizes.append(item.image.shape[:2])
        if len(sizes) > 30:
            break
    source.close()
    assert reset_at is not None and set(sizes[:reset_at]) == {(240, 320)} and set(sizes[reset_at:]) == {size}


@pytest.mark.parametrize(("mode", "state", "at_s"), [("frozen", "frozen", 2.0), ("black", "dark", 1.0)])
def test_a_picture_that_shows_nothing_new_is_withheld(camera, mode, state, at_s):
    seen = played(camera, mode, after=30)
    seen.until(seen.has(state))
    told_at, change = seen.changes[0]
    assert change.reset and told_at - 1.0 < at_s + 0.4 + SLACK_S < 3 + 1.0
    frames = len(seen.stamps)
    end_s = time.monotonic() + 1.0
    seen.until(lambda: time.monotonic() > end_s)
    seen.source.close()
    assert len(seen.stamps) == frames and max(seen.waits_s) < 0.2 + SLACK_S  # and the line goes on beating


@pytest.mark.slow
def test_a_slow_stream_is_degraded_in_three_seconds_and_still_seen(camera):
    seen = played(camera, "slow", after=30)
    seen.until(seen.has("degraded"))
    seen.source.close()
    check_numbers(seen)
    assert seen.first("degraded")[0] - 1.0 < 3.0 + SLACK_S


def test_a_flapping_camera_costs_no_file_no_thread_and_few_lines(camera, caplog):
    caplog.set_level(logging.INFO)
    process = psutil.Process()
    seen = played(camera, "close", after=8)
    seen.until(lambda: seen.source.reconnects >= 3)
    camera.stop()
    time.sleep(0.1)
    before = process.num_fds(), threading.active_count()
    for _ in range(5):
        camera.start()
        had = seen.source.reconnects
        seen.until(lambda had=had: seen.source.reconnects > had)
        camera.stop()
        seen.until(lambda: seen.told()[-1] == "reconnecting")
        time.sleep(0.1)
        assert process.num_fds() <= before[0] + 1 and threading.active_count() <= before[1] + 1
    seen.source.close()
    check_numbers(seen)
    assert len(seen.changes) < 12 * seen.source.reconnects and not caplog.records


def test_a_redirect_to_itself_and_a_page_are_refused_at_once(camera):
    for mode in ("redirect", "text"):
        begun = time.monotonic()
        with pytest.raises(SourceError):
            open_source(camera.url(mode), fast=False)
        assert time.monotonic() - begun < 6.5


def test_a_wrong_password_is_said_and_never_shown():
    with MjpegServer(user="u", password="s3cret") as server:
        with pytest.raises(SourceError, match="refused") as caught:
            open_source(server.url("normal", user="u:wr0ng"), fast=False)
        assert "wr0ng" not in str(caught.value)
        source = open_source(server.url("normal", user="u:s3cret"), fast=False)
        assert any(isinstance(item, Frame) for item in itertools.islice(source, 20))
        source.close()


def of_now(stamp: int) -> float:
    return age_ms(stamp, time.monotonic_ns())


@rtsp
def test_an_rtsp_camera_whose_power_is_cut_comes_back():
    with RtspServer(user="u", password="s3cret") as server:
        with pytest.raises(SourceError, match="user or password refused"):
            open_source(server.url_of("u:wrong"), fast=False)
        seen = Seen(open_source(server.url, fast=False))  # type: ignore[arg-type]
        seen.until(lambda: len(seen.stamps) > 30, age=of_now)
        server.kill()
        killed_s = time.monotonic() - seen.begun_s
        seen.until(seen.has("reconnecting"), age=of_now)
        assert seen.changes[0][0] - killed_s < 3
        server.start()
        seen.until(seen.has("reconnecting", "online"), age=of_now)
        seen.until(seen.more(20), age=of_now)
        seen.source.close()
    assert None not in seen.stamps
    assert "s3cret" not in str(seen.changes) and seen.source.reconnects == 1
    assert np.percentile(seen.ages_ms, 75) < 133 and max(seen.ages_ms) < 1000  # one period of it is the parser's


@pytest.mark.slow
@rtsp
def test_an_rtsp_camera_whose_cable_is_pulled_gives_no_old_picture():
    with RtspServer() as server:
        seen = Seen(open_source(server.url, fast=False))  # type: ignore[arg-type]
        seen.until(lambda: len(seen.stamps) > 30, age=of_now)
        server.pause()
        seen.until(seen.has("stalled", "reconnecting"), age=of_now)
        stalled_at, _ = seen.first("stalled")
        assert stalled_at - seen.came_s[-1] < 3
        time.sleep(0.5)
        server.resume()
        seen.until(seen.has("reconnecting", "online"), age=of_now)
        seen.until(seen.more(20), age=of_now)
        seen.source.close()
    assert None not in seen.stamps and max(seen.ages_ms) < 1000


@pytest.mark.slow
def test_a_named_pipe_whose_writer_goes_is_waited_for(tmp_path: Path):
    pipe = tmp_path / "camera.ts"
    os.mkfifo(pipe)
    with PipeSender(pipe) as sender:
        seen = Seen(open_source(str(pipe), fast=False))  # type: ignore[arg-type]
        seen.until(lambda: len(seen.stamps) > 20, age=of_now)
        sender.silent.set()
        seen.until(seen.has("stalled"), age=of_now)
        assert seen.first("stalled")[0] - seen.came_s[-1] < 3
    seen.until(seen.has("stalled", "reconnecting"), age=of_now)
    with PipeSender(pipe):
        seen.until(seen.has("reconnecting", "online"), age=of_now)
        seen.until(seen.more(10), age=of_now)
        seen.source.close()
    assert None not in seen.stamps and max(seen.ages_ms) < 2000


def test_a_pipe_that_nobody_writes_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("realtime.camera.FIRST_BYTES_S", 0.3)
    os.mkfifo(tmp_path / "pipe.ts")
    with pytest.raises(SourceError, match="no answer"):
        open_source(str(tmp_path / "pipe.ts"), fast=False)


def test_a_file_that_loops_goes_on_in_time_and_resets_at_the_seam(tmp_path: Path):
    with av.open(str(tmp_path / "walk.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(1, 11):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stamped(number), format="bgr24")))
        container.mux(stream.encode())
    fds = psutil.Process().num_fds()
    for fast in (True, False):
        source = open_source(str(tmp_path / "walk.mp4"), fast=fast, loop=True)
        got = list(itertools.islice((item for item in source if item is not None), 31))
        source.close()
        frames = [item for item in got if isinstance(item, Frame)]
        seams = [got[index + 1] for index, item in enumerate(got[:-1]) if isinstance(item, Change)]
        assert [item.reset for item in got if isinstance(item, Change)][:2] == ["the file began again"] * 2
        steps = np.diff([frame.captured_ns for frame in frames])
        assert (steps > 0).all() and all(a.index < b.index for a, b in itertools.pairwise(frames))
        if fast:
            np.testing.assert_allclose(steps, 1e9 / 30, atol=3)
            assert [stamp_of(frame.image) for frame in frames] == [n % 10 + 1 for n in range(len(frames))]
            assert [stamp_of(frame.image) for frame in seams] == [1] * len(seams)
    assert psutil.Process().num_fds() <= fds


def test_a_usb_camera_whose_driver_gives_no_picture_is_lost_by_its_reader(monkeypatch: pytest.MonkeyPatch):
    from realtime import camera
    from realtime.feed import Tally

    class Driver:
        def read(self) -> tuple[bool, None]:
            return False, None

    monkeypatch.setattr("realtime.camera.SILENCE_S", 0.1)
    with pytest.raises(SourceError, match="gives no good picture"):
        next(camera._camera_frames(Driver(), "/dev/null", False, Tally()))
    with pytest.raises(SourceError, match="has gone; plug it in again"):
        next(camera._camera_frames(Driver(), "/dev/video63", False, Tally()))
