"""Passwords: addresses as they may be seen, texts without secrets, and the command line wiped."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from realtime import secrets
from realtime.errors import UsageError
from realtime.secrets import MASK, Scrub, expand, keep_secret, redacted, scrub, secrets_of, sendable, source_of
from tests.realtime.hands import ROOT
from tests.realtime.leaks import NASTY, USER, forms


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test keeps secret is none of the next one's."""
    monkeypatch.setattr(secrets, "_forms", set())
    monkeypatch.setattr(secrets, "_pattern", None)
    monkeypatch.setattr(secrets, "_hidden", {})


# --- Addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("rtsp://u:p@cam.lan:554/live?k=1", "rtsp://***@cam.lan:554/live?***"),
        ("rtsp://u:p@s/s:w0rd?#@cam/x", "rtsp://***@cam/x"),
        ("RTSPS://u:a b%c@cam/x#part", "RTSPS://***@cam/x#***"),
        ("srt+x://token@cam:9/x", "srt+x://***@cam:9/x"),
        ("u:p@s@cam/x", "***@cam/x"),
        ("rtsp:/u:p@cam/x", "rtsp:/***@cam/x"),
        ("rtsp://cam/user=admin_password=tlJw_channel=1.sdp", "rtsp://cam/user=admin_password=***_channel=1.sdp"),
        ("http://cam/api_token=abcd/live", "http://cam/api_token=***/live"),
        ("http://cam/live", "http://cam/live"),
        ("walk.mp4", "walk.mp4"),
        ("me@home.mp4", "me@home.mp4"),
        ("/dev/video0", "/dev/video0"),
        ("-", "-"),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(given, seen):
    assert redacted(given) == seen
    assert redacted(seen) == seen


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("rtsp://u:pass@cam/x", {"u:pass", "pass"}),
        ("rtsp://u:p@s/s@cam/x", {"u:p", "p", "u:p@s/s", "p@s/s"}),
        ("http://cam/x?token=abc&n=1", {"abc"}),
        ("http://cam/user=admin_password=tlJw_channel=1.sdp", {"tlJw"}),
        ("rtsp://${USER}:${PASS}@cam/x", set()),
        ("rtsp://cam/x", set()),
        ("walk.mp4", set()),
        ("me@home.mp4", set()),
    ],
)
def test_the_secrets_of_an_address_are_found(given, found):
    assert set(secrets_of(given)) == found


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("rtsp://user:p@s/s:w0rd?#@127.0.0.1:5/x", "rtsp://user:p%40s%2Fs%3Aw0rd%3F%23@127.0.0.1:5/x"),
        ("rtsp://user:50% off@cam.lan/x", "rtsp://user:50%25%20off@cam.lan/x"),
        ("rtsp://user:a#b@cam/x", "rtsp://user:a%23b@cam/x"),
        ("rtsp://user:p%40ss@cam/x", "rtsp://user:p%40ss@cam/x"),
        ("rtsp://user:plain@cam/x", "rtsp://user:plain@cam/x"),
        ("http://10.0.0.7:80/x?mail=a@b", "http://10.0.0.7:80/x?mail=a@b"),
        ("http://user:pw@10.0.0.7/x?mail=a@b", "http://user:pw@10.0.0.7/x?mail=a@b"),
        ("rtsp://[fe80::1]:554/cam@1", "rtsp://[fe80::1]:554/cam@1"),
        ("rtsp://cam/x", "rtsp://cam/x"),
    ],
)
def test_a_password_as_typed_is_encoded_for_the_player_and_all_else_stays(given, sent):
    assert sendable(given) == sent


def test_names_are_filled_in_from_the_environment_and_a_password_needs_no_encoding_there():
    environ = {"WHO": "me", "PASS": "p@s/s", "HOST": "cam:554", "ALL": "rtsp://a:b@cam/x"}
    assert expand("rtsp://${WHO}:${PASS}@${HOST}/x", environ) == "rtsp://me:p%40s%2Fs@cam:554/x"
    assert expand("${ALL}", environ) == "rtsp://a:b@cam/x"
    assert expand("$HOME and {WHO}", environ) == "$HOME and {WHO}"
    with pytest.raises(UsageError, match="needs NONE from the environment"):
        expand("rtsp://${NONE}@cam/x", environ)


def test_what_the_environment_gave_is_a_secret_from_then_on():
    assert source_of("rtsp://me:${PASS}@cam/x", None, {"PASS": "p@s/s"}) == "rtsp://me:p%40s%2Fs@cam/x"
    assert scrub("a p@s/s and p%40s%2Fs and p%40s%2fs z") == "a *** and *** and *** z"


def test_a_source_from_a_file_is_its_first_line_and_the_file_must_be_the_owners_alone(tmp_path: Path):
    path = tmp_path / "cam"
    path.write_text("rtsp://u:${P}@cam/x\r\nsecond\n")
    path.chmod(0o640)
    with pytest.raises(UsageError, match=f"run: chmod 600 {path}"):
        source_of("0", path)
    path.chmod(0o600)
    assert source_of("0", path, {"P": "secret"}) == "rtsp://u:secret@cam/x"
    for bad in ("", "\nrtsp://cam/x", "a\x00b", "x" * 5000):
        path.write_text(bad)
        with pytest.raises(UsageError, match="the first line of"):
            source_of("0", path)


# --- Text that leaves the program -----------------------------------------------------------------------------------


@pytest.mark.parametrize("password", NASTY)
def test_a_kept_secret_is_found_in_all_its_forms(password):
    assert keep_secret(password) and keep_secret(f"{USER}:{password}")
    for form in forms(password):
        assert scrub(f"before {form.decode()} after") == f"before {MASK} after"
    assert scrub(f"rtsp://{USER}:{password}@cam/x refused") == f"rtsp://{MASK}@cam/x refused"


def test_a_password_of_two_letters_masks_no_other_word():
    assert not keep_secret("ab")
    assert keep_secret("user:ab")
    assert scrub("about user:ab and user%3Aab") == "about *** and ***"


def test_an_address_nobody_registered_is_scrubbed_too():
    assert scrub("cannot open 'rtsp://a:b@cam/x': no") == "cannot open 'rtsp://***@cam/x': no"


def test_a_log_record_is_without_secrets_on_every_handler_its_traceback_too():
    keep_secret("hunter22")
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    logger = logging.Logger("own")
    handler = Lines()
    handler.addFilter(Scrub())
    logger.addHandler(handler)
    try:
        raise ValueError("no hunter22")
    except ValueError:
        logger.exception("password %s", "hunter22")
    logger.warning("%s", {"password": "hunter22"})
    logger.error("wrong %d", "hunter22")
    assert "ValueError: no ***" in lines[0] and "'password': '***'" in lines[1] and lines[2] == "wrong %d ('***',)"
    assert "hunter22" not in "".join(line for text in lines for line in text.splitlines() if "raise" not in line)


def test_records_of_handlers_without_the_filter_and_uncaught_errors_of_threads_are_scrubbed():
    program = """
import logging, sys, threading
from realtime.secrets import keep_secret, scrub_everything
keep_secret("hunter" + "22")
logging.basicConfig(level=0)
scrub_everything()
logging.getLogger().addHandler(logging.StreamHandler())
logging.getLogger("x").error("now %s", "hunter" + "22")
def fail():
    try:
        raise KeyError("hunter" + "22")
    except KeyError as error:
        raise ValueError("then " + "hunter" + "22") from error
thread = threading.Thread(target=fail)
thread.start(); thread.join()
class Late:
    def __del__(self): fail()
Late()
fail()
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=30)
    assert ran.returncode == 1 and b"hunter22" not in ran.stderr + ran.stdout
    assert ran.stderr.count(b"now ***") == 2 and ran.stderr.count(b"ValueError: then ***") == 3


# --- The command line ------------------------------------------------------------------------------------------------


def test_the_command_line_keeps_its_length_and_its_other_arguments():
    program = "from realtime.secrets import hide_arguments; import sys; hide_arguments();"
    program += "sys.stdout.write(repr((sys.argv, open('/proc/self/cmdline', 'rb').read())))"
    given = ["-x", "--source=rtsp://user:p@ss@cam/x", "a://b@c", "ünï", ""]
    ran = subprocess.run(
        [sys.executable, "-c", program, *given], cwd=ROOT, capture_output=True, timeout=30, check=True, text=True
    )
    arguments, told = eval(ran.stdout)  # our own program's repr
    before = b"".join(os.fsencode(one) + b"\0" for one in [sys.executable, "-c", program, *given])
    assert len(told) == len(before)
    assert [piece.rstrip() for piece in told.split(b"\0")[3:]] == [
        b"-x", b"--source=rtsp://***@cam/x", b"a://***", "ünï".encode(), b"", b"",
    ]  # fmt: skip
    assert arguments[1:] == ["-x", "--source=rtsp://***@cam/x", "a://***@c", "ünï", ""]


def test_where_the_memory_cannot_be_written_one_line_says_what_to_do(monkeypatch, capsys):
    def refuse(shown: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(secrets, "_overwrite", refuse)
    monkeypatch.setattr(sys, "argv", ["run", "--source", "rtsp://u:pass@cam/x"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "run", "--source", "rtsp://u:pass@cam/x"])
    secrets.hide_arguments()
    said = capsys.readouterr().err
    assert "use --source-from" in said and said.count("\n") == 1 and "pass@" not in said
    assert sys.argv[2] == sys.orig_argv[3] == "rtsp://***@cam/x"
    assert source_of(sys.argv[2], None) == "rtsp://u:pass@cam/x"


def test_arguments_without_a_password_are_left_alone(monkeypatch):
    monkeypatch.setattr(secrets, "_overwrite", lambda shown: pytest.fail("written"))
    monkeypatch.setattr(sys, "argv", ["run", "--source", "rtsp://cam/x", "--events", "me@home.jsonl"])
    secrets.hide_arguments()
    assert sys.argv[2] == "rtsp://cam/x"


@pytest.mark.parametrize("stat", [b"1 (x) R", b"1 (a) b) R " + b"0 " * 50])
def test_a_kernel_that_does_not_tell_where_arguments_are_changes_nothing(monkeypatch, stat):
    import builtins
    import io

    real = builtins.open
    monkeypatch.setattr(
        "builtins.open", lambda path, *a, **k: io.BytesIO(stat) if path == "/proc/self/stat" else real(path, *a, **k)
    )
    with pytest.raises(ValueError):
        secrets._overwrite({b"x": b"y"})
