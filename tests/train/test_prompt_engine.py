"""The knowledge engine's seam: real round trips to a small server on this machine, and answers that are kept."""

import json
import logging
import re
import socket

import pytest

from realtime.errors import SourceError, UsageError
from tests.train.chat_server import chat, serving
from train.prompts.engine import ANSWER_BYTES, TEMPERATURE, Endpoint, Remembered
from train.prompts.questions import AnswerError

KEY = "sk-secret-0123456789"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("PCLE_API_KEY", raising=False)
    with serving() as made:
        yield made


def endpoint(server, waits=None, **more):
    return Endpoint(server.url, "tiny", sleep=(waits if waits is not None else []).append, **more)


def test_a_question_goes_to_chat_completions_and_its_text_comes_back(server):
    assert endpoint(server).ask("say 'waving' in one sentence").startswith("The person doing waving")
    ((path, headers, content),) = server.asked
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert content["model"] == "tiny" and content["temperature"] == TEMPERATURE == 0.1
    assert content["messages"] == [{"role": "user", "content": "say 'waving' in one sentence"}]


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_may_be_the_server_its_v1_or_the_whole(server, ending):
    Endpoint(server.url.removesuffix("/v1") + ending, "tiny").ask("say 'waving' in one sentence")
    assert server.asked[0][0] == "/v1/chat/completions"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host/v1", "file:///etc/passwd", "http://", "http://h:99999", "http://h/a b"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UsageError, match="endpoint must be such as"):
        Endpoint(url, "tiny")


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="without user or password") as refused:
        Endpoint("http://me:hunter2@host/v1", "tiny")
    assert "hunter2" not in str(refused.value)


def test_the_key_is_sent_from_the_environment_and_told_nobody(server, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("MY_KEY", KEY)
    server.answers = [(429, {}, {"error": f"slow down, {KEY}"}), chat("fine")]
    caplog.set_level(logging.DEBUG)
    kept = Remembered(endpoint(server, key_env="MY_KEY"), tmp_path / "kept")
    assert kept.ask("anything") == "fine"
    assert [headers["Authorization"] for _, headers, _ in server.asked] == [f"Bearer {KEY}"] * 2
    server.answers = [(401, {}, {"error": f"wrong key {KEY}"})]
    with pytest.raises(UsageError, match="refuses the key in MY_KEY") as refused:
        kept.ask("another")
    server.answers = [(200, {}, f"no JSON, but {KEY}".encode())]
    with pytest.raises(UsageError, match="not answer in JSON") as broken:
        kept.ask("another")
    assert "busy" in caplog.text and "<key>" in caplog.text and "<key>" in str(refused.value)
    told = caplog.text + str(refused.value) + str(broken.value) + "".join(f.read_text() for f in kept.folder.iterdir())
    assert KEY not in told


def test_a_key_that_would_break_the_header_is_refused_without_saying_it(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-one\nX-Other: two")
    with pytest.raises(UsageError, match="characters that no key has") as refused:
        Endpoint("http://127.0.0.1:1/v1", "tiny", key_env="MY_KEY")
    assert "sk-one" not in str(refused.value)


def test_a_key_sent_in_the_clear_to_another_machine_is_warned_of(monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    Endpoint("http://127.0.0.1:1/v1", "tiny", key_env="MY_KEY")
    Endpoint("https://far.example/v1", "tiny", key_env="MY_KEY")
    assert not caplog.records
    Endpoint("http://far.example/v1", "tiny", key_env="MY_KEY")
    assert "unencrypted" in caplog.text and KEY not in caplog.text


def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    elsewhere = server.url + "/elsewhere"
    server.answers = [(302, {"Location": elsewhere}, b"")]
    with pytest.raises(UsageError, match=r"sends elsewhere \(302\): to .*/elsewhere; give that address"):
        endpoint(server, key_env="MY_KEY").ask("anything")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again_with_longer_and_longer_waits(server, status):
    waits = []
    server.answers = [(status, {}, {"error": "busy"})] * 3 + [chat("at last")]
    assert endpoint(server, waits).ask("anything") == "at last"
    assert waits == [1.0, 2.0, 4.0]


def test_a_server_says_how_long_to_wait_within_reason(server):
    waits = []
    names = ("7", "100000", "Wed, 21 Oct 2015 07:28:00 GMT", "-1")
    server.answers = [(429, {"Retry-After": name}, b"") for name in names] + [chat("at last")]
    assert endpoint(server, waits).ask("anything") == "at last"
    assert waits == [7.0, 60.0, 4.0, 8.0]


def test_a_server_that_stays_busy_is_given_up(server):
    waits = []
    server.answers = [(429, {}, {"error": "no credit"})]
    with pytest.raises(SourceError, match=r"busy .*429.*no credit.* 3 times; give the same command later"):
        endpoint(server, waits, tries=3).ask("anything")
    assert waits == [1.0, 2.0] and len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((401, {}, b"who?"), "wants a key .401.* put it into the environment as PCLE_API_KEY"),
        ((403, {}, b""), "wants a key .403"),
        ((404, {}, b'{"error": "no model"}'), "no such address or no model 'tiny' .404.*no model"),
        ((400, {}, b"bad temperature"), "refuses the question .400 Bad Request: bad temperature"),
        ((200, {}, b"<html>hello</html>"), "does not answer in JSON but '<html>hello"),
        ((200, {}, b"\xff\xfe"), "does not answer in JSON"),
        ((200, {}, {"error": "quota"}), "not as chat completions do: .*quota"),
        ((200, {}, {"choices": []}), "not as chat completions"),
        ((200, {}, {"choices": ["text"]}), "not as chat completions"),
        ((200, {}, [1]), "not as chat completions"),
        ((200, {}, b" " * (ANSWER_BYTES + 1)), "more than 1048576 bytes"),
    ],
)
def test_what_asking_again_would_not_mend_ends_at_once_with_its_name(server, answer, complaint):
    server.answers = [answer]
    with pytest.raises(UsageError, match=complaint):
        endpoint(server).ask("anything")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(chat("half a", finish_reason="length"), "too long"), (chat("  \n"), "empty"), (chat(None), "empty")],
)
def test_an_answer_cut_or_empty_is_no_answer(server, answer, complaint):
    server.answers = [answer]
    with pytest.raises(AnswerError, match=complaint):
        endpoint(server).ask("anything")


def test_a_server_that_is_not_there_and_one_that_is_silent_are_told_apart():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(SourceError, match=r"cannot be reached .*refused.* 2 times"):
            Endpoint(url, "tiny", tries=2, sleep=[].append).ask("anything")
        listening.listen()
        with pytest.raises(SourceError, match=r"did not answer within 0\.1 s, 1 times"):
            Endpoint(url, "tiny", tries=1, timeout_s=0.1).ask("anything")


def test_a_server_that_hangs_up_is_asked_again(server):
    waits = []
    server.answers = [(200, {"Content-Length": "999", "Connection": "close"}, b'{"cho'), chat("whole")]
    assert endpoint(server, waits).ask("anything") == "whole"
    assert waits == [1.0]


def test_this_machine_is_asked_past_any_proxy(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert endpoint(server, tries=1).ask("say 'waving' in one sentence")


def test_an_answer_is_asked_once_and_kept_by_model_and_question(server, tmp_path):
    first = Remembered(endpoint(server), tmp_path / "a" / "kept")
    answer = first.ask("say 'waving' in one sentence")
    again = Remembered(endpoint(server), tmp_path / "a" / "kept")
    assert again.ask("say 'waving' in one sentence") == answer and (again.asked, again.known) == (0, 1)
    again.ask("say 'pushing' in one sentence")
    Remembered(Endpoint(server.url, "other"), tmp_path / "a" / "kept").ask("say 'waving' in one sentence")
    assert len(server.asked) == 3 == len(list(first.folder.iterdir()))
    content = json.loads(first.file("say 'waving' in one sentence").read_text())
    assert content["answer"] == answer and re.fullmatch("[0-9a-f]{64}", first.file("x").stem)


@pytest.mark.parametrize("broken", ["", '{"schema": "answer/1"', "[]", '{"schema": "answer/1", "model": "other"}'])
def test_a_broken_kept_answer_is_said_and_asked_again(server, tmp_path, caplog, broken):
    kept = Remembered(endpoint(server), tmp_path)
    kept.file("say 'waving' in one sentence").write_text(broken)
    assert kept.ask("say 'waving' in one sentence").startswith("The person")
    assert "is no kept answer" in caplog.text and kept.asked == 1
    assert Remembered(endpoint(server), tmp_path).ask("say 'waving' in one sentence") and len(server.asked) == 1
