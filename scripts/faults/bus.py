"""Faults between line and reader: slow and absent readers, late ones, malformed and strange messages."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import zmq

from realtime.client import Subscriber
from realtime.gap import Joined
from realtime.messages import ActionEvent, MessageError, decode
from realtime.subscriber import EventSubscriber
from realtime.wire import topic
from scripts.faults.fault import Fault, Measured, expect
from scripts.faults.following import Following
from scripts.faults.line import ROOT, RunningLine, environment, memory_mb

GOLDEN = ROOT / "tests" / "realtime" / "golden"


def slow_reader(folder: Path) -> Measured:
    """A subscriber that stops for 9.5 s under a flood of events: the line's every event is had in the end."""
    address = f"ipc://{folder}/bus"
    with Following(address) as following:
        process = _flooding(address, 26_000)
        following.wait_session(20)
        following.pause(9.5)
        process.wait(timeout=60)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(following.numbers("action")) < 26_000:
            time.sleep(0.1)
        numbers, lost, recovered = following.numbers("action"), following.lost, following.recovered
    expect(numbers == sorted(numbers), "events out of order")
    missing = 26_000 - len(set(numbers))
    expect(missing == lost, f"{missing} are missing and {lost} were said to be")
    return Measured(missing, f"{recovered} recovered by asking again")


def _flooding(address: str, count: int) -> subprocess.Popen[bytes]:
    # A publisher of its own, because no real line has so many events.
    code = "import sys; from scripts.faults.flood import flood; flood(sys.argv[1], int(sys.argv[2]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, address, str(count)], cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL
    )


def nobody_listens(folder: Path) -> Measured:
    """Hours of frames at full speed with no subscriber at all."""
    with RunningLine(
        folder, str(ROOT / "realtime" / "assets" / "demo.mcap"), "--loop", "--fast", "--publish-poses", listen=False
    ) as line:
        time.sleep(8)
        before = memory_mb(line.pid())
        time.sleep(25)
        expect(line.process.poll() is None, f"the line ended: {line.tail()}")
        return Measured(memory_mb(line.pid()) - before, f"{before:.0f} MB after 8 s")


def late_joiner(folder: Path) -> Measured:
    """A subscriber that comes in the middle of an action learns of it at once."""
    with RunningLine(folder, "synthetic", "--seed", "3") as line:
        begun = time.monotonic()
        line.wait(lambda m: isinstance(m, ActionEvent) and m.phase == "start", "start", 60)
        opened = {e.id for e in line.events() if e.phase == "start"} - {e.id for e in line.events() if e.phase == "end"}
        begun = time.monotonic()
        with EventSubscriber(line.address) as late:
            while True:
                item = late.receive(5)
                if isinstance(item, Joined):
                    break
                expect(item is not None and time.monotonic() - begun < 5, "no word on joining")
            seconds = time.monotonic() - begun
            known = {event.id for event in item.events}
        still = opened - {e.id for e in line.events() if e.phase == "end"}
        expect(still <= known, f"open {still}, told {known}")
        expect(bool(item.statuses), "no status was told")
        return Measured(seconds, f"{len(known)} open events, {len(item.statuses)} status at once")


def malformed(folder: Path) -> Measured:
    """2000 messages of random and nearly right bytes to our subscriber, good ones between: none of these is lost."""
    rng, context = random.Random(7), zmq.Context()
    publisher = context.socket(zmq.XPUB)
    publisher.sndhwm = 0  # this one drops nothing
    publisher.bind(f"ipc://{folder}/bus")
    good = (GOLDEN / "status-1.json").read_bytes().strip()
    name = topic(decode(good)).encode()
    taken = refused = 0
    with Subscriber(f"ipc://{folder}/bus") as subscriber:
        publisher.recv()
        for k in range(2000):
            publisher.send_multipart(_spoilt(rng, good, name))
            if k % 20 == 0:
                publisher.send_multipart([name, good])
        while True:
            try:
                received = subscriber.receive(0.5)
            except MessageError:
                refused += 1
                continue
            if received is None:
                break
            taken += 1
    context.destroy(linger=0)
    expect(refused + taken >= 2000, f"only {refused + taken} messages were read")
    return Measured(max(0, 100 - taken), f"{refused} refused, {taken} read")


def _spoilt(rng: random.Random, good: bytes, name: bytes) -> list[bytes]:
    kind = rng.randrange(6)
    if kind == 0:
        return [rng.randbytes(rng.randrange(40)), rng.randbytes(rng.randrange(400))]
    if kind == 1:
        return [name, good[: rng.randrange(len(good))]]
    if kind == 2:
        body = bytearray(good)
        body[rng.randrange(len(body))] = rng.randrange(256)
        return [name, bytes(body) + b"}"]
    if kind == 3:
        return [name, b"[" * 100_000]
    if kind == 4:
        return [name]
    return [name, good.replace(b"status/1", b"status/9"), b"more"]


def skewed(folder: Path) -> Measured:
    """Messages of a newer line with fields that are not known, and of an older one that lacks the newest fields."""
    bad = []
    for path in sorted(GOLDEN.glob("*.json")):
        document = json.loads(path.read_text())
        newer = {**document, "from_the_future": {"deep": [1, 2]}}
        newest = ("state", "reconnects", "uptime_s", "memory_mb") if path.stem.startswith("heartbeat") else ()
        older = {name: value for name, value in document.items() if name not in newest}
        if "track" in older and isinstance(older["track"], dict):
            older["track"].pop("partner", None)
        for what, content in (("newer", newer), ("older", older)):
            try:
                decode(json.dumps(content))
            except MessageError as error:
                bad.append(f"{path.name} {what}: {error}")
    expect(not bad, "; ".join(bad))
    return Measured(len(bad), f"{len(list(GOLDEN.glob('*.json')))} kinds, newer and older")


def restarted_line(folder: Path) -> Measured:
    """The line is killed and started again: a follower is told of the new session and of what broke off."""
    address, journal = f"ipc://{folder}/bus", folder / "journal.jsonl"
    with Following(address) as following:
        for run in range(2):
            here = folder / f"{run}"
            here.mkdir()
            with RunningLine(here, "synthetic", "--seed", "3", "--journal", str(journal), address=address) as line:
                joined = following.wait_session(20, other_than=following.session if run else None)
                time.sleep(6)
                if not run:
                    line.process.kill()
                    line.process.wait()
                    killed = time.monotonic()
        sessions, lost = len(following.sessions), following.lost
    expect(sessions == 2, f"{sessions} sessions seen")
    expect(lost == 0, f"{lost} messages lost although there is a journal")
    return Measured(joined - killed, f"{sessions} sessions, nothing lost")


FAULTS = (
    Fault(
        "F16",
        "slow subscriber",
        "stops reading for 9.5 s while 26 000 events are told",
        "events lost",
        0,
        "events",
        slow_reader,
    ),
    Fault(
        "F17",
        "absent subscriber",
        "25 s at full speed with every pose published and nobody there",
        "memory of the line grows by",
        10,
        "MB",
        nobody_listens,
    ),
    Fault("F16b", "late subscriber", "comes in the middle of an action", "knows of it after", 2, "s", late_joiner),
    Fault(
        "F21",
        "malformed messages",
        "2000 messages of random, cut, deep and strange bytes among 100 good ones",
        "good ones lost",
        0,
        "messages",
        malformed,
    ),
    Fault(
        "F22",
        "other versions",
        "messages with fields of the future, and without the newest ones",
        "kinds not read",
        0,
        "kinds",
        skewed,
    ),
    Fault(
        "F16c",
        "line killed and started again",
        "`kill -9` in the middle, a journal, the same address",
        "the follower knows the new session after",
        10,
        "s",
        restarted_line,
    ),
)
