"""Faults of cameras and streams: killed, cut off, frozen, black, damaged, resized, flapping; noticed and survived."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from realtime.messages import Status
from scripts.faults.fault import Fault, Measured, expect
from scripts.faults.line import RunningLine, descriptors, memory_mb, threads
from scripts.faults.played import Played
from scripts.mjpeg_server import MjpegServer

GONE = ("stalled", "reconnecting")
WELL_S = 2.5  # of good pictures before a camera misbehaves


def _noticed(mode: str, *states: str) -> Callable[[Path], Measured]:
    """Seconds from the first bad moment to the status; no bogus picture was delivered until then or after."""

    def run(folder: Path) -> Measured:
        with MjpegServer() as camera, Played(camera.url(mode, after=30 * WELL_S)) as played:
            first = played.wait_picture(10)
            told = played.wait_change(*states, timeout_s=WELL_S + 10)
            begun = first + WELL_S
            good = [p for p in played.pictures if p.number is not None]
            time.sleep(1.5)
            late = [p for p in played.pictures if p.at_s > told + 0.3]
            numbers = [p.number for p in played.pictures]
            twice = len(numbers) - len(set(numbers))
            if mode in ("frozen", "black"):  # the same picture may come a while before it is known to be the same
                expect(not late, f"{len(late)} pictures were delivered after it was told")
            else:
                expect(twice == 0, f"{twice} pictures were delivered twice")
            expect(
                all(p.number is not None for p in played.pictures) or mode == "black", "a damaged picture came through"
            )
            return Measured(told - begun, f"{len(good)} good pictures before; told {played.changes[-1][1].reason}")

    return run


def killed_mjpeg(folder: Path) -> Measured:
    """A camera is away for 4 s: from its return to the first delivered picture, back-off included."""
    with MjpegServer() as camera, Played(camera.url()) as played:
        played.wait_picture(10)
        time.sleep(1)
        begun = time.monotonic()
        camera.stop()
        told = played.wait_change(*GONE, timeout_s=6) - begun
        expect(told <= 3, f"noticed after {told:.1f} s only")
        time.sleep(4)
        camera.start()
        returned = time.monotonic()
        back = played.wait_picture(40, since=returned) - returned
        time.sleep(1)
        expect(played.bogus(begun + 0.5) == 0, f"{played.bogus(begun + 0.5)} bogus pictures")
        online = [c for at, c in played.changes if at >= returned and c.state == "online"]
        expect(bool(online) and bool(online[0].reset), "it came back without a word, or without new windows")
        return Measured(back, f"noticed after {told:.2f} s; {online[0].reset}")


def truncated(mode: str) -> Callable[[Path], Measured]:
    """One picture in five is damaged: none of those comes through, all others do, and the stream is not opened anew."""

    def run(folder: Path) -> Measured:
        with MjpegServer() as camera, Played(camera.url(mode, after=30)) as played:
            played.wait_picture(10)
            time.sleep(6)
            damaged = sum(p.number is None for p in played.pictures)
            rate = len(played.pictures) / (played.pictures[-1].at_s - played.pictures[0].at_s)
            expect(camera.connections == 1, f"the stream was opened {camera.connections} times")
            expect(rate >= 20, f"only {rate:.0f} pictures a second of some 24 good ones")
            return Measured(damaged, f"{rate:.1f} pictures a second; {played.source.corrupt} counted as corrupt")

    return run


def resized(mode: str) -> Callable[[Path], Measured]:
    """Another size in mid-stream: pictures have their real size, and the windows begin anew with a reason."""

    def run(folder: Path) -> Measured:
        with MjpegServer() as camera, Played(camera.url(mode, after=45)) as played:
            before = played.wait_picture(10)
            told = played.wait_change("online", timeout_s=8, since=before + 0.5)
            change = next(c for at, c in played.changes if at >= told)
            time.sleep(1)
            sizes = [p.size for p in played.pictures]
            expect(len(set(sizes)) == 2, f"sizes {set(sizes)}")
            expect(bool(change.reset), "no reason for new windows")
            turn = next(p.at_s for p in played.pictures if p.size != sizes[0])
            return Measured(abs(told - turn), f"{sizes[0]} to {sizes[-1]}: {change.reset}")

    return run


def changed_rate(folder: Path) -> Measured:
    """From 30 to 10 pictures a second: nothing breaks, the windows are resampled by time."""
    with MjpegServer() as camera, Played(camera.url("fps", after=60)) as played:
        played.wait_picture(10)
        time.sleep(6)
        expect(not [c for _, c in played.changes if c.reset], f"changes {[c for _, c in played.changes]}")
        return Measured(
            float(np.percentile([p.age_ms for p in played.pictures], 95)), f"{len(played.pictures)} pictures"
        )


def flapping(folder: Path) -> Measured:
    """A camera that comes and goes once a second for 40 s: nothing grows, little is said."""
    with MjpegServer() as camera, RunningLine(folder, camera.url()) as line:
        line.wait_beat(fps=15)
        time.sleep(3)
        before = (descriptors(line.pid()), threads(line.pid()), memory_mb(line.pid()))
        size = line.log.stat().st_size
        for _ in range(20):
            camera.stop()
            time.sleep(1)
            camera.start()
            time.sleep(1)
        line.wait_state("online", since=time.monotonic() - 3, timeout_s=45)
        line.wait_beat(fps=15, since=time.monotonic(), timeout_s=10)
        time.sleep(3)
        after = (descriptors(line.pid()), threads(line.pid()), memory_mb(line.pid()))
        said = line.log.read_text(errors="replace")[size:].count("\n")
        expect(after[0] <= before[0] + 2, f"descriptors {before[0]} to {after[0]}")
        expect(after[1] <= before[1] + 1, f"threads {before[1]} to {after[1]}")
        expect(said <= 60, f"{said} lines of log")
        return Measured(
            after[2] - before[2],
            f"descriptors {before[0]} to {after[0]}, threads {before[1]} to {after[1]}, {said} lines of log",
        )


def nobody(folder: Path) -> Measured:
    """A video without a person: no action."""
    from scripts.faults.line import ROOT

    video = ROOT.parent / "shared" / "videos" / "nobody_pool.mp4"
    expect(video.is_file(), f"{video} is not there")
    with RunningLine(folder, str(video)) as line:
        line.process.wait(timeout=60)
        return Measured(len(line.events()), f"{len(line.seen)} messages")


def named_pipe(folder: Path) -> Measured:
    """The program that writes video into a named pipe dies, and another one begins 3 s later."""
    import threading

    import av

    from scripts.mjpeg_server import stamped

    pipe = folder / "camera.ts"
    os.mkfifo(pipe)
    stop = threading.Event()

    def write(first: int) -> None:
        with pipe.open("wb", buffering=0) as file:
            try:
                with av.open(file, "w", format="mpegts") as container:
                    stream = container.add_stream("mpeg2video", rate=25)
                    stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
                    stream.options = {"g": "5"}
                    number = first
                    while not stop.is_set():
                        for packet in stream.encode(av.VideoFrame.from_ndarray(stamped(number), format="bgr24")):
                            container.mux(packet)
                        number += 1
                        time.sleep(0.04)
            except (BrokenPipeError, OSError, av.error.FFmpegError):
                return

    writer = threading.Thread(target=write, args=(1,), daemon=True)
    writer.start()
    with Played(str(pipe)) as played:
        played.wait_picture(15)
        time.sleep(2)
        stop.set()
        writer.join(timeout=3)
        begun = time.monotonic()
        told = played.wait_change(*GONE, timeout_s=8) - begun
        time.sleep(3)
        stop.clear()
        writer = threading.Thread(target=write, args=(5001,), daemon=True)
        returned = time.monotonic()
        writer.start()
        back = played.wait_picture(40, since=returned) - returned
        stop.set()
    return Measured(told, f"delivering again {back:.1f} s after the next writer began")


def rtsp_killed(folder: Path) -> Measured:
    """An RTSP server is killed and started again after 3 s; the line itself is watched."""
    from scripts.rtsp_server import RtspServer

    with RtspServer() as server, RunningLine(folder, server.url) as line:
        line.wait_beat(fps=10)
        time.sleep(2)
        server.kill()
        begun = time.monotonic()
        told = line.wait_state(*GONE, since=begun, timeout_s=8) - begun
        time.sleep(3)
        server.start()
        returned = time.monotonic()
        back = line.wait_state("online", since=returned, timeout_s=40) - returned
        resets = [s.reason for s in line.of(Status, begun) if s.state == "online"]
        return Measured(told, f"online again {back:.1f} s after its return: {resets[0]}")


def rtsp_cut(folder: Path) -> Measured:
    """An RTSP server falls silent (SIGSTOP), as when a cable is pulled: pictures delivered after it that are bogus."""
    from scripts.rtsp_server import RtspServer

    with RtspServer() as server, Played(server.url) as played:
        played.wait_picture(15)
        time.sleep(2)
        server.pause()
        begun = time.monotonic()
        told = played.wait_change(*GONE, timeout_s=8) - begun
        expect(told <= 3.5, f"noticed after {told:.1f} s only")
        time.sleep(5)
        late = [p for p in played.pictures if p.at_s > begun + 0.5]
        server.resume()
        returned = time.monotonic()
        back = played.wait_picture(40, since=returned) - returned
        time.sleep(1)
        old = [p.age_ms for p in played.pictures if p.at_s > returned]
        return Measured(
            len(late),
            f"noticed after {told:.2f} s; delivering again {back:.1f} s after it returned, "
            f"oldest picture then {max(old):.0f} ms",
        )


FAULTS = (
    Fault(
        "F04a",
        "camera gone and back",
        "an MJPEG server is stopped for some 4 s",
        "first picture after its return",
        8,
        "s",
        killed_mjpeg,
    ),
    Fault(
        "F04b",
        "RTSP server killed",
        "`kill -9` of a real RTSP server, started again after 3 s",
        "told after",
        3,
        "s",
        rtsp_killed,
    ),
    Fault(
        "F05", "cable pulled", "SIGSTOP of a real RTSP server", "pictures delivered after it", 0, "pictures", rtsp_cut
    ),
    Fault(
        "F06",
        "flapping camera",
        "20 times one second on, one second off",
        "memory of the line grows by",
        30,
        "MB",
        flapping,
    ),
    Fault("F07a", "stalled stream", "an MJPEG server says no more", "told after", 3.2, "s", _noticed("stall", *GONE)),
    Fault(
        "F07b",
        "slow loris",
        "an MJPEG server sends a byte every half second",
        "told after",
        3.2,
        "s",
        _noticed("slowloris", *GONE),
    ),
    Fault(
        "F08a",
        "truncated pictures",
        "one JPEG in five is cut in half",
        "damaged pictures delivered",
        0,
        "pictures",
        truncated("truncated"),
    ),
    Fault(
        "F08b",
        "corrupt pictures",
        "one JPEG in five has 200 wrong bytes",
        "damaged pictures delivered",
        0,
        "pictures",
        truncated("corrupt"),
    ),
    Fault(
        "F08c",
        "nothing but corrupt pictures",
        "every JPEG has 200 wrong bytes",
        "told after",
        4,
        "s",
        _noticed("allcorrupt", *GONE, "degraded"),
    ),
    Fault(
        "F09a",
        "resolution changes",
        "320x240 becomes 640x480 in mid-stream",
        "told within, of the first such picture",
        0.5,
        "s",
        resized("resize"),
    ),
    Fault(
        "F09b",
        "picture is turned",
        "320x240 becomes 240x320 in mid-stream",
        "told within, of the first such picture",
        0.5,
        "s",
        resized("rotate"),
    ),
    Fault(
        "F09c", "frame rate changes", "30 become 10 pictures a second", "age of pictures, p95", 100, "ms", changed_rate
    ),
    Fault(
        "F10", "frozen picture", "the same picture again and again", "told after", 3, "s", _noticed("frozen", "frozen")
    ),
    Fault("F11a", "black picture", "a covered camera", "told after", 3, "s", _noticed("black", "dark")),
    Fault("F11b", "nobody in view", "a video of a pool, 10 s", "actions told", 0, "events", nobody),
    Fault("F11c", "too slow", "2 pictures a second", "told after", 5, "s", _noticed("slow", "degraded")),
    Fault(
        "F04c",
        "named pipe breaks off",
        "the writer of a named pipe dies; another begins after 3 s",
        "told after",
        3.5,
        "s",
        named_pipe,
    ),
)
