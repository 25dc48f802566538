"""The bus: what is published arrives, what is lost is noticed, and bad addresses get one clear line."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from realtime.bus import HIGH_WATER, Numbers
from realtime.errors import AddressError, UsageError
from realtime.messages import MessageError, Status, encode
from realtime.outlet import Outlet, OutletSpec
from realtime.subscriber import Subscriber
from realtime.wire import moment
from tests.realtime.telling import ANY_PORT, CLOCK, action, heartbeat, opened, status

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def line():
    """A publisher and one subscriber to everything, joined."""
    with opened(ANY_PORT) as publisher, Subscriber(publisher.address) as subscriber:
        assert publisher.wait_for_subscriber(5)
        yield publisher, subscriber


def test_a_message_arrives_under_its_topic_as_it_was_sent(line):
    publisher, subscriber = line
    payload = publisher.publish(action())
    received = subscriber.receive(5)
    assert (received.topic, received.message, received.lost) == ("action.cam0.start.wave", action(), 0)
    assert received.payload == payload == encode(action())


def test_a_topic_prefix_picks_messages():
    with opened(ANY_PORT) as publisher, Subscriber(publisher.address, ["action.cam0.end."]) as subscriber:
        assert publisher.wait_for_subscriber(5)
        for message in (status(), action(0, "start"), action(1, "end")):
            publisher.publish(message)
        assert subscriber.receive(5).message.phase == "end"
        assert subscriber.lost == 0  # a narrow prefix skips numbers by design


def test_numbers_count_each_family_from_nought():
    numbers = Numbers()
    assert [numbers.take("action"), numbers.take("status"), numbers.take("action")] == [0, 0, 1]
    assert numbers.next == {"action": 2, "status": 1}
    assert numbers.session != Numbers().session


def test_a_jump_in_seq_is_a_loss(line):
    publisher, subscriber = line
    for seq in (5, 6, 9):
        publisher.publish(status(seq))
    assert [subscriber.receive(5).lost for _ in range(3)] == [0, 0, 2]
    assert subscriber.lost == 2


def test_a_heartbeat_shows_that_the_last_message_was_lost(line):
    publisher, subscriber = line
    publisher.publish(status(0))
    publisher.publish(heartbeat(0, {"status": 2, "heartbeat": 0}))
    publisher.publish(status(2))
    assert [subscriber.receive(5).lost for _ in range(3)] == [0, 1, 0]


def test_a_new_session_begins_again_at_nought(line):
    publisher, subscriber = line
    for message in (status(7, "one"), status(0, "two"), status(2, "three")):
        publisher.publish(message)
    assert [subscriber.receive(5).lost for _ in range(3)] == [0, 0, 2]


def test_a_publisher_that_comes_back_is_heard_again():
    with opened(ANY_PORT) as first:
        address = first.address
        subscriber = Subscriber(address)
        assert first.wait_for_subscriber(5)
    with subscriber, opened(address) as second:
        deadline = time.monotonic() + 10
        while not second.wait_for_subscriber(0.05) and time.monotonic() < deadline:
            assert subscriber.receive(0.05) is None  # a subscriber subscribes anew only while it reads
        second.publish(status(0, "two"))
        assert subscriber.receive(5).message.session == "two"


def test_a_message_that_breaks_its_schema_is_not_sent(line):
    publisher, subscriber = line
    with pytest.raises(MessageError, match="state"):
        publisher.publish(Status(session="s", seq=0, source="cam0", time=moment(0, CLOCK), state="fine"))
    with pytest.raises(MessageError, match="letters, digits"):
        publisher.publish(status(source="cam.0"))
    assert subscriber.receive(0.1) is None


@pytest.mark.parametrize(
    "frames", [(b"status.cam0",), (b"status.cam0", b"{}"), (b"status.cam1", encode(status())), (b"\xff", b"\xff")]
)
def test_a_message_that_breaks_its_schema_is_refused_and_reading_goes_on(frames):
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    with Subscriber(f"tcp://127.0.0.1:{port}") as subscriber:
        assert socket.poll(5000)
        socket.send_multipart(frames)
        socket.send_multipart((b"status.cam0", encode(status())))
        with pytest.raises(MessageError):
            subscriber.receive(5)
        assert subscriber.receive(5).message == status()
        assert subscriber.refused == 1
    context.destroy(linger=0)


def test_publishing_never_waits_for_a_stalled_subscriber(line):
    publisher, subscriber = line
    message = status(reason="x" * 500)
    slowest = 0.0
    for _ in range(HIGH_WATER * 3):
        before = time.monotonic()
        publisher.publish(message)
        slowest = max(slowest, time.monotonic() - before)
    assert slowest < 1.0  # a blocking socket would wait for ever
    assert subscriber.receive(5) is not None


def test_closing_lets_the_last_message_out():
    publisher = opened(ANY_PORT)
    with Subscriber(publisher.address) as subscriber:
        assert publisher.wait_for_subscriber(5)
        publisher.publish(action(0, "end"))
        publisher.close()
        assert subscriber.receive(5).message.phase == "end"


def test_nobody_subscribed():
    with opened(ANY_PORT) as publisher:
        publisher.publish(status())
        assert not publisher.wait_for_subscriber(0.05)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("tcp://0.0.0.0:5556", "reached from the network"),
        ("tcp://*:5556", "reached from the network"),
        ("tcp://192.0.2.7:5556", "this machine: --pub tcp://127.0.0.1:5556"),
        ("tcp://[::]:5556", "reached from the network"),
        ("tcp://127.0.0.1:99999", "the port must be 1 to 65535"),
        ("tcp://127.0.0.1", "the port must be"),
        ("udp://127.0.0.1:5556", "tcp://127.0.0.1:PORT or ipc://PATH"),
        ("5556", "try tcp://127.0.0.1:5556"),
        ("ipc:///no/such/folder/bus", "no folder /no/such/folder"),
        ("ipc://" + "/x" * 60, "at most 107 bytes"),
    ],
)
def test_an_address_that_cannot_be_is_refused_with_what_to_try(address, complaint):
    with pytest.raises(UsageError, match=re.escape(complaint)) as refusal:
        Outlet(OutletSpec(address))
    assert refusal.value.exit_code == 2
    assert "\n" not in str(refusal.value)


def test_an_address_in_use_names_another_to_try():
    with opened(ANY_PORT) as first:
        port = int(first.address.rpartition(":")[2])
        with pytest.raises(AddressError, match=rf"is in use.*--pub tcp://127\.0\.0\.1:{port % 65532 + 2}$") as refusal:
            Outlet(OutletSpec(first.address))
        assert refusal.value.exit_code == 5


def test_an_ipc_socket_goes_with_its_publisher_unless_another_took_the_path(tmp_path):
    path = tmp_path / "bus"
    publisher = opened(f"ipc://{path}")
    assert path.is_socket()
    publisher.close()
    publisher.close()
    assert not path.exists()
    publisher = opened(f"ipc://{path}")
    path.rename(tmp_path / "old")
    path.write_text("of another")
    publisher.close()
    assert path.read_text() == "of another"


def test_an_ipc_address_works_and_is_not_stolen(tmp_path):
    address = f"ipc://{tmp_path}/bus"
    with opened(address) as publisher, Subscriber(address) as subscriber:
        assert publisher.wait_for_subscriber(5)
        publisher.publish(status())
        assert subscriber.receive(5).message == status()
        with pytest.raises(AddressError, match="in use"):
            Outlet(OutletSpec(address))
    opened(address).close()  # what a dead publisher left behind is no hindrance


def test_a_file_is_never_replaced_by_a_socket(tmp_path):
    precious = tmp_path / "notes.txt"
    precious.write_text("mine")
    with pytest.raises(UsageError, match="not a socket"):
        Outlet(OutletSpec(f"ipc://{precious}"))
    assert precious.read_text() == "mine"


def test_a_subscriber_refuses_a_malformed_address():
    with pytest.raises(UsageError, match="nonsense"):
        Subscriber("nonsense")


def test_the_subscriber_in_the_docs_runs_as_it_stands():
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    program = text.split("```python\n")[1].split("```")[0]
    assert len([row for row in program.splitlines() if row]) <= 10
    with opened(ANY_PORT) as publisher:
        program = program.replace("tcp://127.0.0.1:5556", publisher.address)
        reader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        try:
            assert publisher.wait_for_subscriber(20)
            publisher.publish(action())
            assert reader.stdout.readline() == "1970-01-01T00:00:00.000Z start wave 0.9\n"
        finally:
            reader.kill()
            reader.communicate()
