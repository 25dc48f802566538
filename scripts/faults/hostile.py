"""Faults that subscribers and strangers bring: floods, giants, garbage, wrong keys, stopped and slow readers."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import zmq

from realtime.messages import Heartbeat
from scripts.faults.fault import Fault, Measured, expect
from scripts.faults.line import ROOT, RunningLine, environment, memory_mb

READER = (
    "import sys, zmq; s = zmq.Context().socket(zmq.SUB); s.connect(sys.argv[1]); s.subscribe(b'');"
    "[s.recv_multipart() for _ in iter(int, 1)]"
)
FLOOD = (
    "import os, sys, time, zmq; s = zmq.Context().socket(zmq.SUB); s.sndhwm = 0; s.connect(sys.argv[1]);"
    "[s.subscribe(os.urandom(100)) for _ in range(200_000)]; time.sleep(15)"
)


def free_port() -> int:
    """A TCP port with a free one after it, for the replay."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def watched(folder: Path, *flags: str) -> Iterator[RunningLine]:
    """A line on TCP that sends much: every pose and score of a person that moves."""
    address = f"tcp://127.0.0.1:{free_port()}"
    flags = ("--seed", "3", "--publish-poses", "--publish-scores", *flags)
    with RunningLine(folder, "synthetic", *flags, address=address) as line:
        line.wait_beat(fps=20)
        time.sleep(6)
        yield line


def delay_ms(line: RunningLine, since: float) -> tuple[float, str]:
    """By how much telling took longer from `since` on than before: of the heartbeats' 95th percentiles of a second.

    The worst second after it less the median before; what telling costs by itself, and other work on this machine,
    is in both.
    """
    before = [b.stage_ms["bus"].p95 for at, b in line.seen if isinstance(b, Heartbeat) and at < since and b.stage_ms]
    after = [b.stage_ms["bus"].p95 for b in line.of(Heartbeat, since) if b.stage_ms]
    usual = statistics.median(before[1:] or [0.0])
    return max(0.0, max(after, default=0.0) - usual), f"{usual:.2f} ms before, {max(after, default=0.0):.2f} at worst"


def _unhurt(attack: Callable[[RunningLine], None], lasts_s: float, back_s: float = 12.0) -> Callable[[Path], Measured]:
    """Runs an attack beside a line: telling stays quick, its memory too, and a good subscriber is served again."""

    def run(folder: Path) -> Measured:
        with watched(folder) as line:
            before, begun = memory_mb(line.pid()), time.monotonic()
            attack(line)
            time.sleep(max(0.0, lasts_s - (time.monotonic() - begun)))
            calm = time.monotonic()
            line.wait_beat(since=calm, fps=20, timeout_s=back_s)
            grown = memory_mb(line.pid()) - before
            expect(grown <= 64, f"the line's memory grew by {grown:.0f} MB")
            expect(line.process.poll() is None, "the line ended")
            reset = [s for s in line.states(begun) if s not in ("online",)]
            expect(not reset, f"states {reset}")
            worst, figures = delay_ms(line, begun)
        return Measured(worst, f"{figures}; line {grown:+.1f} MB; a good subscriber is served again")

    return run


def _port(line: RunningLine) -> tuple[str, int]:
    host, _, port = line.address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def stopped_subscribers(line: RunningLine) -> None:
    """Three subscribers that stop reading for good."""
    readers = [subprocess.Popen([sys.executable, "-c", READER, line.address]) for _ in range(3)]
    try:
        time.sleep(2)
        for reader in readers:
            reader.send_signal(signal.SIGSTOP)
        time.sleep(15)
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def flood(line: RunningLine) -> None:
    """200 000 subscriptions of 100 random bytes each."""
    flooding = subprocess.Popen([sys.executable, "-c", FLOOD, line.address])
    try:
        with suppress(subprocess.TimeoutExpired):
            flooding.wait(timeout=20)
    finally:
        flooding.kill()
        flooding.wait()


def giant(line: RunningLine) -> None:
    """A frame that says it is 2 GB long, after ZeroMQ's greeting."""
    with socket.create_connection(_port(line), timeout=5) as peer:
        greeting = b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + b"\0" * 31
        peer.sendall(greeting)
        peer.recv(64)
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
        peer.sendall(b"\x04" + bytes([len(ready)]) + ready)
        peer.sendall(b"\x02" + struct.pack(">Q", 2 << 30))
        with suppress(OSError):
            for _ in range(200):
                peer.sendall(b"x" * 65536)


def crowd_of_connections(line: RunningLine) -> None:
    """600 connections that say nothing, and 300 that say nonsense."""
    peers = []
    try:
        for k in range(900):
            with suppress(OSError):
                peer = socket.create_connection(_port(line), timeout=2)
                peers.append(peer)
                if k >= 600:
                    peer.sendall(os.urandom(512))
        time.sleep(3)
    finally:
        for peer in peers:
            peer.close()


def stopped_page(folder: Path) -> Measured:
    """A browser that asks for the stream of the page and never reads it, and 100 that never finish their question."""
    port = free_port()
    with watched(folder, "--http", f"127.0.0.1:{port}") as line:
        before, begun = memory_mb(line.pid()), time.monotonic()
        peers = []
        for k in range(120):
            with suppress(OSError):
                peer = socket.create_connection(("127.0.0.1", port), timeout=2)
                question = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n" + (b"\r\n" if k < 20 else b"X: ")
                peer.sendall(question.replace(b"127.0.0.1\r", f"127.0.0.1:{port}\r".encode()))
                peers.append(peer)
        time.sleep(12)
        for peer in peers:
            peer.close()
        calm = time.monotonic()
        line.wait_beat(since=calm, fps=20, timeout_s=8)
        grown = memory_mb(line.pid()) - before
        expect(grown <= 64, f"the line's memory grew by {grown:.0f} MB")
        worst, figures = delay_ms(line, begun)
        return Measured(worst, f"{figures}; line {grown:+.1f} MB")


def uninvited(folder: Path) -> Measured:
    """No key, an unknown key, a revoked key, a listed key; and a revoked peer that was connected."""
    keys = folder / "keys"
    for arguments in (("make", "server"), ("make", "friend"), ("make", "former")):
        _keys(keys, *arguments)
    former = folder / "former.client"
    former.write_bytes((keys / "former.client").read_bytes())
    former.chmod(0o600)
    _keys(keys, "revoke", "former")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    friend = keys / "friend.client"
    with RunningLine(folder, "synthetic", "--keys", str(keys), address=address, keys=friend) as line:
        line.wait_beat(fps=20)
        stranger = folder / "other"
        for arguments in (("make", "server"), ("make", "stranger")):
            _keys(stranger, *arguments)
        heard = {
            "no key": _hears(address, None, None),
            "unknown key": _hears(address, stranger / "stranger.client", keys),
            "revoked key": _hears(address, former, keys),
        }
        _keys(keys, "revoke", "friend")
        time.sleep(3)
        after = time.monotonic()
        time.sleep(4)
        heard["revoked while connected"] = len([at for at, _ in line.seen if at > after])
    return Measured(sum(heard.values()), ", ".join(f"{name}: {count}" for name, count in heard.items()))


def _keys(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "realtime.keys", *arguments, "--keys", str(folder)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        check=False,
    )
    expect(done.returncode == 0, f"realtime.keys {' '.join(arguments)}: {done.stderr.decode()[-200:]}")


def _hears(address: str, client: Path | None, server: Path | None) -> int:
    """How many messages such a subscriber gets in 4 s."""
    from realtime.keys import load_client, load_server
    from realtime.zap import secure_client

    context = zmq.Context()
    peer = context.socket(zmq.SUB)
    peer.linger = 0
    if client is not None and server is not None:
        secure_client(peer, load_client(client), load_server(server).public)
    peer.connect(address)
    peer.subscribe(b"")
    count, deadline = 0, time.monotonic() + 4
    while time.monotonic() < deadline:
        if peer.poll(200):
            peer.recv_multipart()
            count += 1
    context.destroy(linger=0)
    return count


FAULTS = (
    Fault(
        "F18",
        "stopped subscribers",
        "three subscribers SIGSTOPped for 15 s",
        "delay of telling, worst second's p95",
        5,
        "ms",
        _unhurt(stopped_subscribers, 17),
    ),
    Fault(
        "F19a",
        "subscription flood",
        "200 000 subscriptions of 100 random bytes",
        "delay of telling, worst second's p95",
        5,
        "ms",
        _unhurt(flood, 20, 20),
    ),
    Fault(
        "F19b",
        "giant frame",
        "a subscriber announces a frame of 2 GB",
        "delay of telling, worst second's p95",
        5,
        "ms",
        _unhurt(giant, 5),
    ),
    Fault(
        "F19c",
        "900 connections",
        "600 that say nothing, 300 that say nonsense",
        "delay of telling, worst second's p95",
        5,
        "ms",
        _unhurt(crowd_of_connections, 6),
    ),
    Fault(
        "F19d",
        "page never read",
        "20 stopped readers of the page's stream, 100 questions never ended",
        "delay of telling, worst second's p95",
        5,
        "ms",
        stopped_page,
    ),
    Fault(
        "F20",
        "uninvited subscribers",
        "no key, unknown key, revoked key, revoked while connected",
        "messages they get",
        0,
        "messages",
        uninvited,
    ),
)
