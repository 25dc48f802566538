"""The journal: whole lines only, turned over, read again, and never the end of a line."""

from __future__ import annotations

import json
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from realtime.bus import replay_address
from realtime.errors import UsageError
from realtime.journal import Journal, old_files, read_tail
from realtime.messages import encode
from tests.realtime.telling import action, opened, status


@contextmanager
def room(size: int):
    """A disk that is full when a file has this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def since(outlet, **request):
    """The answer of an outlet's replay socket: head, and messages."""
    context = zmq.Context()
    with context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(replay_address(outlet.address))
        client.send_json({"get": "since", **request})
        assert client.poll(10_000)
        head, *messages = client.recv_multipart()
    context.term()
    return json.loads(head), messages


def numbers(path: Path, **limits):
    return [seq for _, _, seq, _ in read_tail(path, **limits)]


def test_what_is_published_is_in_the_journal_one_line_each(tmp_path):
    path = tmp_path / "journal.jsonl"
    with opened(journal=path) as outlet:
        told = [outlet.publish(status(0)), outlet.publish(action(0)), outlet.publish(action(1, "end"))]
        assert path.read_bytes().splitlines() == told  # at once, not when it is closed
    assert [(family, session, seq) for family, session, seq, _ in read_tail(path)] == [
        ("status", "s", 0),
        ("action", "s", 0),
        ("action", "s", 1),
    ]


def test_it_is_turned_over_and_two_old_files_are_kept(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, largest=1000)
    for seq in range(30):
        journal.write(encode(status(seq)))
    journal.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, f"{path.name}.1", f"{path.name}.2"]
    assert all(file.stat().st_size <= 1000 for file in (path, *old_files(path)))
    kept = numbers(path)
    assert kept == list(range(kept[0], 30)) and len(kept) > 10
    assert numbers(path, most=400) == kept[-2:]  # whole lines of the end only


def test_lines_that_are_no_messages_are_left_out(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole = encode(status(3))
    path.write_bytes(whole + b"\nnonsense\n[1]\n{}\n" + b"[" * 100_000 + b"\n" + whole[:40])  # power failed
    journal = Journal(path)
    journal.write(encode(status(4)))
    journal.close()
    assert numbers(path) == [3, 4]


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine\n")
    for path, complaint in ((tmp_path / "notes.txt", "no journal"), (tmp_path, "not a file")):
        with pytest.raises(UsageError, match=complaint):
            Journal(path)
    assert (tmp_path / "notes.txt").read_text() == "mine\n"


def test_a_full_disk_turns_it_off_with_a_word_and_publishing_goes_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    with opened(journal=path) as outlet, room(1000):
        for seq in range(20):
            outlet.publish(status(seq))
        troubles = outlet.troubles()
        assert len(troubles) == 1 and troubles[0].startswith("journal off: file too large at ")
        assert outlet.troubles() == []
        head, _ = since(outlet, family="status")
        assert head["count"] == 20
    assert path.read_bytes().endswith(b"\n") and numbers(path) == list(range(len(numbers(path))))


def test_a_device_that_is_full_is_no_journal_and_says_so():
    if not os.path.exists("/dev/full"):
        pytest.skip("this machine has no /dev/full")
    with pytest.raises(UsageError, match="not a file"):
        Journal(Path("/dev/full"))


def test_an_earlier_session_is_answered_from_the_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    with opened(journal=path) as outlet:
        for seq in range(5):
            outlet.publish(action(seq, session="before"))
    with opened(journal=path) as outlet:
        outlet.publish(action(0, session="now"))
        head, messages = since(outlet, family="action", session="before", **{"from": 2})
        assert (head["answer"], head["next"], len(messages)) == ("since", 5, 3)
        assert messages[0] == encode(action(2, session="before"))
        assert since(outlet, family="action")[0]["session"] == "now"
        assert since(outlet, family="action", session="never")[0]["answer"] == "gone"
