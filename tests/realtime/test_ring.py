"""What is kept for those who missed it: bounded, by number, and what is gone is said to be."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.history import History, read_history
from realtime.outlet_wire import (
    FAMILIES,
    KEEP,
    LARGEST_BODY,
    MESSAGE,
    NEWEST,
    OVER,
    PUBLISH,
    FrameError,
    Parcel,
    Reader,
    frame,
    heard,
    say,
)
from realtime.replay import BYTES_AT_MOST, COUNT_AT_MOST, reply
from realtime.ring import Ring


def parcel(seq, family="action", session="s", does=PUBLISH | KEEP, key="", size=10):
    return Parcel(does, family, session, seq, f"{family}.cam0", key, b"%010d" % seq + b"x" * (size - 10))


def ask(ring, **request):
    head, *messages = reply(json.dumps(request).encode(), ring)
    return json.loads(head), messages


def filled(count, **limits):
    ring = Ring(**limits)
    for seq in range(count):
        ring.add(parcel(seq))
    return ring


parcels = st.builds(
    Parcel,
    does=st.integers(0, 15),
    family=st.sampled_from(FAMILIES),
    session=st.text(max_size=20),
    seq=st.integers(0, 2**64 - 1),
    topic=st.text(max_size=20),
    key=st.text(max_size=20),
    payload=st.binary(max_size=200),
)


@given(st.lists(parcels, max_size=8), st.integers(1, 50))
def test_frames_come_out_as_they_went_in_whatever_the_pieces(sent, step):
    stream = b"".join(frame(MESSAGE, one.body()) for one in sent)
    reader = Reader()
    pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
    assert [(kind, Parcel.of(body)) for piece in pieces for kind, body in reader.feed(piece)] == [
        (MESSAGE, one) for one in sent
    ]


@given(st.binary(max_size=300))
def test_bytes_that_are_no_frames_are_a_frame_error_or_wait_for_more(data):
    for read in (lambda: list(Reader().feed(data)), lambda: Parcel.of(data), lambda: heard(data)):
        with suppress(FrameError):
            read()


def test_a_frame_that_is_too_large_is_refused_at_both_ends():
    with pytest.raises(FrameError, match="at most"):
        frame(MESSAGE, b"x" * (LARGEST_BODY + 1))
    with pytest.raises(FrameError, match="no frame of kind 2"):
        list(Reader().feed(b"\xff\xff\xff\xff\x02"))
    assert heard(say(MESSAGE, a=1)[5:]) == {"a": 1}


def test_what_was_missed_is_had_again_by_number():
    head, messages = ask(filled(10), get="since", family="action", session="s", to=6, **{"from": 4})
    assert messages == [b"%010d" % seq for seq in (4, 5, 6)]
    assert (head["answer"], head["oldest"], head["next"], head["count"]) == ("since", 0, 10, 3)


def test_the_oldest_goes_and_is_said_to_be_gone():
    ring = filled(100, messages=10)
    assert len(ring) == 10
    head, messages = ask(ring, get="since", family="action", session="s", **{"from": 50})
    assert (head["answer"], head["oldest"], head["next"], messages) == ("gone", 90, 100, [])
    head, messages = ask(ring, get="since", family="action", **{"from": 90})
    assert head["answer"] == "since" and len(messages) == 10


def test_bytes_are_bounded_in_all_and_the_largest_family_pays():
    ring = Ring(size=10_000)
    ring.add(parcel(0, "status"))
    for seq in range(1000):
        ring.add(parcel(seq, size=100))
        assert ring.size <= 10_000
    assert ring.since("s", "status", 0, 9, 9, 999).oldest == 0
    assert ring.since("s", "action", 0, 999, 1000, 10**6).oldest == 901


def test_an_answer_is_bounded_and_its_end_can_be_asked_for():
    ring, seen = filled(1000), []
    while len(seen) < 1000:
        head, messages = ask(ring, get="since", family="action", **{"from": len(seen)})
        assert head["count"] == len(messages) <= COUNT_AT_MOST and sum(map(len, messages)) <= BYTES_AT_MOST
        seen += messages
    assert seen == [b"%010d" % seq for seq in range(1000)]


def test_an_unknown_session_is_gone_and_nothing_yet_is_nothing():
    ring = filled(3)
    head, _ = ask(ring, get="since", family="action", session="old")
    assert (head["answer"], head["oldest"], head["next"]) == ("gone", None, None)
    assert ask(ring, get="since", family="status")[0]["answer"] == "since"
    assert ask(ring, get="since", family="action", **{"from": 3})[0]["count"] == 0
    assert ask(Ring(), get="last")[0] == {
        "answer": "last", "session": None, "next_seq": {"action": 0, "status": 0}, "count": 0,
    }  # fmt: skip


def test_who_comes_late_gets_each_sources_status_and_what_is_open():
    ring = Ring()
    ring.add(parcel(0, "status", does=KEEP | NEWEST, key="status.cam0"))
    ring.add(parcel(1, "status", does=KEEP | NEWEST, key="status.cam0"))
    for seq, (key, does) in enumerate([("a", NEWEST), ("b", NEWEST), ("a", NEWEST), ("b", OVER)]):
        ring.add(parcel(seq, does=KEEP | does, key=key))
    head, messages = ask(ring, get="last", id="mine")
    assert messages == [b"%010d" % 1, b"%010d" % 2]
    assert head == {
        "answer": "last", "session": "s", "next_seq": {"status": 2, "action": 4}, "count": 2, "id": "mine",
    }  # fmt: skip
    ring.add(parcel(0, "status", session="t", does=KEEP | NEWEST, key="status.cam0"))
    assert ask(ring, get="last")[1] == [b"%010d" % 0]  # events of an earlier session do not go on
    assert ask(ring, get="since", family="action", session="s")[0]["count"] == 4  # but can be had


def test_the_sessions_of_years_do_not_pile_up():
    ring = Ring(messages=10)
    for number in range(1000):
        ring.add(parcel(0, session=f"s{number}"))
    assert len(ring) == 10 and len(ring._spans) <= 11


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (b"", "not JSON"),
        (b"[" * 65_000, "not JSON"),
        (b"[1]", "JSON object"),
        (b'{"get":"all"}', "since"),
        (b'{"get":"since","family":"x"}', "family must be one of action"),
        (b'{"get":"since","family":"action","from":-1}', "from must be a number from 0"),
        (b'{"get":"since","family":"action","from":true}', "from must be a number from 0"),
        (b'{"get":"since","family":"action","from":2,"to":1}', "must not be below"),
        (b'{"get":"since","family":"action","session":3}', "session must be a text"),
        (b'{"get":"last","id":[]}', "id must be"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(request_, complaint):
    head = json.loads(reply(request_, filled(3))[0])
    assert head["answer"] == "error" and complaint in head["reason"]


@given(st.binary(max_size=100) | st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists).map(
    lambda value: json.dumps({"get": "since", "family": "action", "from": value, "to": value, "id": value}).encode()
))  # fmt: skip
@settings(max_examples=200)
def test_no_request_breaks_the_one_who_answers(request_):
    assert json.loads(reply(request_, filled(3))[0])["answer"] in ("error", "gone", "since")


def test_a_history_gives_a_new_child_what_the_old_one_had():
    history, before, after = History(size=20_000), Ring(), Ring()
    history.add(parcel(0, "status", does=PUBLISH | KEEP | NEWEST, key="status.cam0"))
    for seq in range(2000):
        history.add(parcel(seq))
        before.add(parcel(seq))
    assert sum(size for _, size in history.files()) <= 20_100
    kept = list(read_history(history.files()))
    for one in kept:
        after.add(one)
    after.started(history.session, history.following)
    assert not any(one.does & PUBLISH for one in kept)  # they were published once
    assert after.newest()[0].topic == "status.cam0"  # told long before anything that is left
    assert after.following() == {"action": 2000, "status": 1}
    found = after.since("s", "action", 1900, 1999, 100, 10**6)
    assert found == before.since("s", "action", 1900, 1999, 100, 10**6).__class__(
        found.oldest, 2000, before.since("s", "action", 1900, 1999, 100, 10**6).messages
    )
    assert 0 < found.oldest < 1900
    history.close()
    assert history.files() == []


def test_a_window_that_begins_anew_does_not_make_the_last_status_forgotten():
    history, ring = History(size=20_000), Ring()
    history.add(parcel(0, "status", does=PUBLISH | KEEP | NEWEST, key="status.cam0"))
    history.add(parcel(1, "status", key="status.cam0"))
    for seq in range(2000):  # the files turn over more than once
        history.add(parcel(seq))
    for one in read_history(history.files()):
        ring.add(one)
    assert [one.seq for one in ring.newest()] == [0]
    history.close()
