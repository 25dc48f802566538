"""`EventSubscriber`: every event once and in order, or an explicit word about what is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime.gap import Gap, GapError, Joined, Refused, Silence
from realtime.messages import ActionEvent, MessageError, Status, decode, encode
from realtime.subscriber import EventSubscriber, Item, Subscriber
from tests.realtime.telling import action, heartbeat, opened, status, unheard

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def following(outlet, **options):
    """A subscriber that has joined."""
    with EventSubscriber(outlet.address, **options) as subscriber:
        while not isinstance(subscriber.receive(10), Joined):
            pass
        assert outlet.wait_for_subscriber(10)
        yield subscriber


def collect(subscriber, enough: Callable[[list[Item]], bool], within_s: float = 20.0, outlet=None) -> list[Item]:
    items: list[Item] = []
    begun = time.monotonic()
    while not enough(items):
        assert time.monotonic() - begun < within_s, f"not in time, got {items[-5:]}"
        item = subscriber.receive(0.05)
        items += [item] if item is not None else []
        if outlet is not None:
            outlet.tend()
    return items


def has(count: int, kind: type = ActionEvent) -> Callable[[list[Item]], bool]:
    seen = looked = 0

    def enough(items: list[Item]) -> bool:
        nonlocal seen, looked
        seen, looked = seen + sum(isinstance(item, kind) for item in items[looked:]), len(items)
        return seen >= count

    return enough


def seqs(items: list[Item]) -> list[int]:
    return [item.seq for item in items if isinstance(item, ActionEvent)]


def test_who_comes_late_is_told_what_is_going_on():
    with opened() as outlet:
        outlet.publish(status(0))
        outlet.publish(action(0, name="over"))
        outlet.publish(action(1, "end", name="over"))
        outlet.publish(action(2, name="open"))
        outlet.publish(action(3, "update", name="open"))
        with EventSubscriber(outlet.address) as subscriber:
            joined = subscriber.receive(10)
            assert joined == Joined("s", None, (status(0),), (action(3, "update", name="open"),))
            assert subscriber.alive
            outlet.wait_for_subscriber(10)
            outlet.publish(action(4, "end", name="open"))
            assert subscriber.receive(10) == action(4, "end", name="open")


def test_what_was_missed_is_had_again_in_order():
    with opened() as outlet, following(outlet) as subscriber:
        outlet.publish(action(0))
        unheard(outlet, action(1), action(2))
        outlet.publish(action(3))
        items = collect(subscriber, has(4))
        assert seqs(items) == [0, 1, 2, 3]
        assert [item for item in items if isinstance(item, Gap)] == [Gap("s", "action", 1, 2, 0, 2)]
        assert (subscriber.recovered, subscriber.lost) == (2, 0)


def test_a_heartbeat_shows_a_lost_last_message_and_it_is_had_again():
    with opened() as outlet, following(outlet) as subscriber:
        unheard(outlet, action(0, "end"))
        outlet.publish(heartbeat(0, {"action": 1}))
        assert collect(subscriber, has(1))[0] == action(0, "end")


@pytest.mark.parametrize("on_gap", ["skip", "raise"])
def test_a_gap_can_be_skipped_or_raised(on_gap):
    with opened() as outlet, following(outlet, on_gap=on_gap) as subscriber:
        unheard(outlet, action(0), action(1))
        outlet.publish(action(2))
        if on_gap == "raise":
            with pytest.raises(GapError, match="action messages 0 to 1 of session s were missed"):
                subscriber.receive(10)
        else:
            assert subscriber.receive(10) == Gap("s", "action", 0, 1, 2, 0)
        assert subscriber.receive(10) == action(2)
        assert subscriber.lost == 2


def test_what_the_ring_no_longer_has_is_said_to_be_gone():
    """A ring of 32 MB is overrun while this subscriber hears nothing."""
    with opened() as outlet, following(outlet) as subscriber:
        outlet.publish(status(0))
        large = "x" * 30_000
        unheard(outlet, *(status(seq, reason=large) for seq in range(1, 1500)))
        outlet.publish(status(1500))
        items = collect(subscriber, lambda items: bool(items) and getattr(items[-1], "seq", 0) == 1500, 60, outlet)
        told = [item.seq for item in items if isinstance(item, Status)]
        gone, had = [item for item in items if isinstance(item, Gap)]
        assert gone.lost > 100 and gone.recovered == 0 and gone.reason == "no longer kept"
        assert told == [0, *range(gone.last + 1, 1501)] and had.recovered == 1500 - gone.last - 1
        assert gone.first == 1 and subscriber.lost == gone.lost


@pytest.mark.slow
def test_a_reader_that_stalled_for_five_seconds_under_20000_messages_gets_them_all(monkeypatch):
    monkeypatch.setattr("realtime.client.HIGH_WATER", 1000)  # as of a reader without this package
    with opened() as outlet, following(outlet) as subscriber:
        begun = time.monotonic()
        for seq in range(20_000):
            outlet.publish(action(seq))
            if seq % 100 == 0:
                outlet.tend()
                time.sleep(max(0.0, seq / 4000 - (time.monotonic() - begun)))
        begun, number, read = time.monotonic(), 0, has(20_000)

        def enough(items: list[Item]) -> bool:
            nonlocal number
            if time.monotonic() - begun > number:  # as a line does, once a second
                outlet.publish(heartbeat(number, {"action": 20_000}))
                number += 1
            return read(items)

        items = collect(subscriber, enough, 60, outlet)
        took = time.monotonic() - begun
        assert seqs(items) == list(range(20_000))
        assert subscriber.lost == 0 and subscriber.recovered > 1000
        print(f"{subscriber.recovered} of 20000 were recovered; all were read in {took:.1f} s")


def test_a_line_that_is_started_anew_is_a_new_session_told_from_its_first_message():
    with opened() as first:
        address = first.address
        subscriber = EventSubscriber(address)
        collect(subscriber, has(1, Joined))
        first.wait_for_subscriber(10)
        first.publish(action(0))
        collect(subscriber, has(1))
    with subscriber, opened(address) as second:
        second.publish(status(0, "t"))  # nobody is connected again yet
        second.publish(action(0, session="t"))
        items, number = [], 0
        while not has(1)(items):
            second.publish(heartbeat(number, {"action": 1, "status": 1}, session="t"))
            second.tend()
            items += [item for item in (subscriber.receive(0.2),) if item is not None]
            number += 1
            assert number < 100
        told = [item for item in items if not isinstance(item, Silence)]
        gaps = [item for item in told if isinstance(item, Gap) and item.session == "s"]
        assert {(gap.first, gap.last, gap.lost) for gap in gaps} == {(1, None, None), (0, None, None)}
        told = told[len(gaps) :]
        assert told[0] == Joined("t", "s")
        assert action(0, session="t") in told[1:]


def test_a_session_that_broke_off_unkept_is_told_as_a_gap_of_unknown_size():
    with opened() as outlet, following(outlet) as subscriber:
        outlet.publish(action(0))
        outlet.publish(status(0, "t"))
        items = collect(subscriber, lambda items: any(getattr(item, "session", "") == "t" for item in items))
        assert action(0) in items and Joined("t", "s") in items


def test_the_end_of_an_earlier_session_comes_from_the_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    with opened(journal=path) as first:
        address = first.address
        subscriber = EventSubscriber(address)
        collect(subscriber, has(1, Joined))
        first.wait_for_subscriber(10)
        first.publish(action(0))
        collect(subscriber, has(1))
        unheard(first, action(1), action(2, "end"))
    with subscriber, opened(address, journal=path) as second:
        number, items = 0, []
        while not any(isinstance(item, Joined) for item in items):
            second.publish(heartbeat(number, {}, session="t"))
            second.tend()
            number += 1
            item = subscriber.receive(0.2)
            items += [item] if item is not None else []
            assert number < 100
        assert seqs(items) == [1, 2]
        assert items[-1] == Joined("t", "s") and subscriber.lost == 0


def test_silence_is_told_once_and_a_voice_again():
    with opened() as outlet, following(outlet, silence_s=0.3) as subscriber:
        silence = subscriber.receive(5)
        assert isinstance(silence, Silence) and silence.seconds >= 0.3 and not subscriber.alive
        assert subscriber.receive(0.5) is None
        outlet.publish(action(0))
        assert subscriber.receive(5) == action(0) and subscriber.alive


def test_iterating_ends_when_nothing_came_for_so_long():
    with opened() as outlet, following(outlet, timeout_s=0.3, silence_s=60) as subscriber:
        outlet.publish(action(0))
        outlet.publish(status(0))
        assert list(subscriber) == [action(0), status(0)]


def test_a_reader_that_is_too_far_behind_skips_to_now():
    with opened() as outlet, following(outlet, max_lag_s=0.5) as subscriber:
        outlet.publish(heartbeat(0, mono_ns=time.monotonic_ns()))
        assert subscriber.receive(0.5) is None
        outlet.publish(heartbeat(1, mono_ns=time.monotonic_ns()))
        for seq in range(100):
            outlet.publish(action(seq))
        time.sleep(1.0)
        item = subscriber.receive(5)
        assert isinstance(item, Gap) and (item.first, item.last, item.lost) == (0, 99, 100)
        assert item.reason == "skipped: too far behind"
        outlet.publish(action(100))
        assert subscriber.receive(5) == action(100)


@contextmanager
def bare(**options):
    """A subscriber, and sockets of a publisher that can say anything: publishing, and replay."""
    context = zmq.Context()
    publisher, replay = context.socket(zmq.XPUB), context.socket(zmq.ROUTER)
    while True:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        try:
            replay.bind(f"tcp://127.0.0.1:{port + 1}")
            break
        except zmq.ZMQError:
            publisher.unbind(f"tcp://127.0.0.1:{port}")
    with EventSubscriber(f"tcp://127.0.0.1:{port}", **options) as subscriber:
        for _ in range(3):
            assert publisher.poll(5000)
            publisher.recv()
        yield subscriber, publisher, replay
    context.destroy(linger=0)


def test_a_publisher_without_replay_is_read_all_the_same():
    with bare() as (subscriber, publisher, _):
        publisher.send_multipart((b"action.cam0.start.wave", encode(action(7))))
        assert subscriber.receive(10) == Joined(None, snapshot=False)
        assert subscriber.receive(10) == action(7)


DEEP = b"[" * 200_000
whole = st.sampled_from(
    [encode(action(0)), encode(status(0)), encode(heartbeat(0)), b'{"schema":"action-event/1","x":' + DEEP]
)
broken = st.one_of(
    st.binary(max_size=200),
    st.just(DEEP),
    st.tuples(whole, st.integers(0, 400), st.binary(max_size=4)).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :]),
    st.tuples(
        st.sampled_from(["session", "seq", "next_seq", "id", "schema"]), st.none() | st.integers() | st.text()
    ).map(lambda t: json.dumps({**json.loads(encode(heartbeat(0))), t[0]: t[1]}).encode()),
)


@given(broken)
@settings(max_examples=300, suppress_health_check=[HealthCheck.large_base_example, HealthCheck.data_too_large])
def test_malformed_bytes_are_a_message_error_and_nothing_else(payload):
    with suppress(MessageError):
        decode(payload)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"action.cam0.start.wave", b"status.cam0", b"heartbeat.cam0"]), broken), max_size=5
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_publisher_says_reading_goes_on(sent):
    with bare(on_gap="skip", silence_s=60) as (subscriber, publisher, _):
        for frames in sent:
            publisher.send_multipart(frames)
        publisher.send_multipart((b"status.cam0", encode(status(2**40, "good"))))
        items = collect(
            subscriber,
            lambda items: any(getattr(item, "session", "") == "good" and isinstance(item, Status) for item in items),
        )
        assert all(isinstance(item, Item) for item in items)


@pytest.mark.parametrize("answer", [b"", DEEP, b"[]", b'{"answer":"since"}', b'{"answer":"gone","oldest":"x"}'])
def test_answers_that_are_none_end_in_a_gap(answer, monkeypatch):
    monkeypatch.setattr("realtime.subscriber.ANSWER_S", 0.1)
    monkeypatch.setattr("realtime.subscriber.TRIES", 2)
    with bare() as (subscriber, publisher, replay):

        def serve(items: list[Item]) -> bool:
            while replay.poll(0):
                name, request = replay.recv_multipart()
                asked = json.loads(request)
                last = {"answer": "last", "session": "s", "next_seq": {}, "id": asked["id"]}
                if asked["get"] == "since" and answer.startswith(b"{"):
                    replay.send_multipart((name, json.dumps({**json.loads(answer), "id": asked["id"]}).encode(), DEEP))
                else:
                    replay.send_multipart((name, answer if asked["get"] == "since" else json.dumps(last).encode()))
            if any(isinstance(item, Joined) for item in items) and not serve.sent:
                publisher.send_multipart((b"action.cam0.start.wave", encode(action(3))))
                serve.sent = True
            return has(1)(items)

        serve.sent = False
        items = collect(subscriber, serve)
        assert items[-1] == action(3)
        gap = next(item for item in items if isinstance(item, Gap))
        assert (gap.first, gap.last, gap.lost, gap.recovered) == (0, 2, 3, 0)


def test_a_plain_subscriber_refuses_what_is_nested_too_deeply():
    with bare() as (_, publisher, __):
        address = publisher.getsockopt_string(zmq.LAST_ENDPOINT)
        with Subscriber(address) as plain:
            assert publisher.poll(5000)
            publisher.send_multipart((b"status.cam0", DEEP))
            with pytest.raises(MessageError):
                plain.receive(5)
            assert plain.refused == 1
    assert isinstance(Refused("x"), Item)


def test_the_follower_in_the_docs_runs_as_it_stands():
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    program = text.split("```python\n")[2].split("```")[0]
    with opened() as outlet:
        outlet.publish(action(0))
        program = program.replace("tcp://127.0.0.1:5556", outlet.address)
        reader = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert outlet.wait_for_subscriber(20)
            assert reader.stdout.readline() == "joined; open: ['wave']\n"
            unheard(outlet, action(1, "update"))
            outlet.publish(action(2, "end"))
            told = [reader.stdout.readline() for _ in range(3)]
        finally:
            reader.kill()
            reader.communicate()
    assert told == ["update wave 0.9\n", "missed, and had again: 1 lost for good: 0\n", "end wave 0.9\n"]
