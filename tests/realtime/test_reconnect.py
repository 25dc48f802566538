"""A live source that is lost, silent or hung: opened again for ever, and the line never waits for it. Fake readers."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from realtime.backoff import Backoff
from realtime.errors import SourceError, UsageError
from realtime.feed import Opened, SourceInfo, Tally
from realtime.live import HANGING_MOST, Limits, Live
from realtime.pipe import Pipe
from realtime.schema import Frame
from realtime.slot import MOST, Change, Slot
from realtime.source import open_source

PICTURES = itertools.count(1)
QUICK = Limits(stalled_s=0.3, hung_s=0.6, opening_s=0.6)


def frames(count: int, every_s: float = 0.01) -> Iterator[Frame]:
    """So many pictures, none like the one before."""
    for index in range(count):
        time.sleep(every_s)
        yield Frame(index, time.monotonic_ns(), np.full((8, 8, 3), 60 + next(PICTURES) % 100, np.uint8))


def opened(given: Iterator[Frame], released: list | None = None) -> Opened:
    record = released if released is not None else []
    return Opened(SourceInfo("cam0", "camera", live=True), given, lambda: record.append(1), Tally())


def live(first: Iterator[Frame], *later: object, **options) -> Live:
    """A camera whose attempts to be opened again give these, frames or errors, and the last one for ever."""
    attempts = itertools.chain(later, itertools.repeat(later[-1] if later else SourceError("it is not there")))

    def reopen() -> Opened:
        given = next(attempts)
        if isinstance(given, Exception):
            raise given
        return opened(given() if callable(given) else given)

    options.setdefault("backoff", Backoff(low_s=0.02, high_s=0.05))
    return Live(opened(first), reopen, limits=QUICK, **options)


def taken(source: Live, until: Callable[[list], bool], at_most_s: float = 10.0) -> list:
    """What comes, without the Nones, until that is enough; the longest wait of the line is checked."""
    got: list = []
    end = asked = time.monotonic() + 0.0
    end += at_most_s
    for item in source:
        assert time.monotonic() - asked < 1.0  # the line never waits for a camera
        if item is not None:
            got.append(item)
        if until(got) or time.monotonic() > end:
            break
        asked = time.monotonic()
    source.close()
    return got


def states(got: list) -> list[str]:
    return [item.state for item in got if isinstance(item, Change)]


def counted(number: int) -> Callable[[list], bool]:
    return lambda got: sum(isinstance(item, Frame) for item in got) >= number


def test_waits_grow_with_full_jitter_up_to_their_most_and_health_begins_anew():
    most = Backoff(chance=lambda: 1.0)
    assert [most.wait_s() for _ in range(9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    most.was_healthy(59.0)
    assert most.wait_s() == 30.0
    most.was_healthy(60.0)
    assert most.wait_s() == 0.2
    waits = [Backoff().wait_s() for _ in range(300)]
    assert min(waits) < 0.02 and max(waits) > 0.18 and 0.07 < np.mean(waits) < 0.13
    tireless = Backoff(chance=lambda: 1.0)
    assert [tireless.wait_s() for _ in range(3000)][-1] == 30.0


def test_a_lost_camera_is_opened_again_and_says_so_before_its_first_frame():
    away = SourceError("camera cam0 has gone")
    got = taken(live(frames(10), away, away, frames(10)), counted(12))
    told = [item for item in got if isinstance(item, Change)]
    assert [change.state for change in told] == ["reconnecting"] * 3 + ["online"]
    assert told[0].reset == "the camera was lost"  # what was open ends now, not when it is back
    assert "attempt 1" in told[1].reason and "attempt 2" in told[2].reason
    assert told[-1].reset.startswith("the camera was lost for 0.") and "attempt 3" in told[-1].reason
    after = got[got.index(told[-1]) + 1 :]
    assert after and all(isinstance(item, Frame) for item in after)
    given = [item for item in got if isinstance(item, Frame)]
    assert all(a.index < b.index and a.captured_ns < b.captured_ns for a, b in itertools.pairwise(given))


def test_a_thousand_failed_attempts_are_a_dozen_lines():
    source = live(frames(3), SourceError("connection refused"), backoff=Backoff(low_s=0.001, high_s=0.001))
    got = taken(source, lambda got: len(states(got)) >= 10)
    numbers = [item.reason.split("attempt ")[1].split(",")[0] for item in got if "attempt" in str(item)]
    assert numbers == [str(2**power) for power in range(9)]


def test_what_opens_but_gives_nothing_counts_as_an_attempt_as_well():
    got = taken(live(frames(3), lambda: iter(()), backoff=Backoff(0.001, 0.001)), lambda got: len(states(got)) >= 6)
    assert [item.reason.partition("attempt ")[2][:2] for item in got if isinstance(item, Change)][1:4] == [
        "1,", "2,", "4,",
    ]  # fmt: skip


def test_a_silence_is_told_and_ends_with_a_reset():
    def pauses():
        yield from frames(5)
        time.sleep(0.5)
        yield from frames(50)

    source = live(pauses())
    got = taken(source, counted(8))
    assert states(got)[:2] == ["stalled", "online"]
    stalled, online = [item for item in got if isinstance(item, Change)][:2]
    assert stalled.reset and online.reset.startswith("no frame came for 0.") and source.reconnects == 0


def test_a_read_that_hangs_is_left_behind_and_what_it_gives_later_is_not_taken():
    go, released = threading.Event(), []

    def hangs():
        yield from frames(3)
        go.wait(20)
        yield Frame(0, time.monotonic_ns(), np.full((8, 8, 3), 255, np.uint8))

    source = Live(opened(hangs(), released), lambda: opened(frames(2000)), limits=QUICK, backoff=Backoff(0.02, 0.05))
    got = []
    for item in source:
        got += [] if item is None else [item]
        if len(got) > 10:
            go.set()
        if len(got) > 40:
            break
    assert states(got)[:3] == ["stalled", "reconnecting", "online"] and source.reconnects == 1
    assert "a read hangs for 0." in next(item.reason for item in got if getattr(item, "state", "") == "reconnecting")
    assert not any(isinstance(item, Frame) and item.image[0, 0, 0] == 255 for item in got)
    source.close()
    assert released  # by the thread itself, when its read came back


def test_no_more_than_a_few_threads_are_ever_left_behind():
    go = threading.Event()

    def hangs():
        go.wait(30)
        yield from frames(1)

    before = threading.active_count()
    source = live(hangs(), hangs, backoff=Backoff(0.001, 0.001))
    got = taken(source, lambda got: "unplug" in str(got[-1:]), 15)
    assert f"{HANGING_MOST + 1} reads hang in the driver" in got[-1].reason
    assert threading.active_count() - before <= HANGING_MOST + 1
    go.set()
    time.sleep(0.3)
    assert threading.active_count() == before


def test_a_device_that_is_plugged_in_again_ends_the_wait():
    there = [True]
    never = Backoff(low_s=60, high_s=60, chance=lambda: 1.0)
    source = live(frames(3), frames(500), backoff=never, there=lambda: there[0])
    threading.Timer(0.2, there.__setitem__, (0, False)).start()
    there[0] = False
    threading.Timer(0.8, there.__setitem__, (0, True)).start()
    begun = time.monotonic()
    got = taken(source, counted(6))
    assert "online" in states(got) and time.monotonic() - begun < 3


def test_a_fault_of_our_own_in_a_reader_is_not_taken_for_a_lost_camera():
    def faulty():
        yield from frames(2)
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        taken(live(faulty()), lambda got: False)


def test_sleep_of_the_machine_is_one_reset():
    class Slept:
        answers = iter([0.0, 0.0, 3600.0])

        def slept_s(self) -> float:
            return next(self.answers, 0.0)

    got = taken(live(frames(30), sleep=Slept()), counted(12))
    assert [item.reset for item in got if isinstance(item, Change)] == ["the machine slept for 3600 s"]


def test_a_line_that_takes_nothing_keeps_the_newest_frame_and_every_reset():
    slot = Slot()
    lost = sum(slot.put(Frame(index, index)) for index in range(5))
    for number in range(20):
        lost += slot.put(Change("stalled", number, reset="lost" if number == 0 else None))
        lost += slot.put(Change("online", number))
        lost += slot.put(Frame(100 + number, number))
    got = list(iter(lambda: slot.take(0.0), None))
    assert len(got) <= MOST + 2
    assert got[-1].index == 119 and [item.reset for item in got if isinstance(item, Change) and item.reset]
    assert lost + sum(isinstance(item, Frame) for item in got) == 25


def test_loop_is_for_what_has_an_end(tmp_path):
    for spec in ("-", "0", "/dev/video9"):
        with pytest.raises(UsageError, match="--loop is for files"):
            open_source(spec, fast=True, loop=True)
    source = open_source("synthetic", fast=True, loop=True)  # has none, and goes on anyway
    assert isinstance(next(iter(source)), Frame)
    source.close()


def test_a_pipe_is_waited_for_and_not_for_ever(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    pipe = Pipe(tmp_path / "pipe", silence_s=0.2, first_s=0.4)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        pipe.read(10)
    assert 0.3 < time.monotonic() - begun < 1.0
    with (tmp_path / "pipe").open("wb", buffering=0) as sender:
        sender.write(b"hello")
        assert pipe.read(3) == b"hel" and pipe.read(10) == b"lo"
        with pytest.raises(TimeoutError):
            pipe.read(10)
    assert pipe.read(10) == b""  # the sender has gone
    pipe.close()
    pipe.close()
