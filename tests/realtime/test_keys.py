"""Keys: files nobody else can read, a list that fails closed, and a command that says what to do next."""

from __future__ import annotations

import logging
import os
import stat
import threading
from pathlib import Path

import pytest
import zmq

from realtime.errors import UsageError
from realtime.keys import (
    Allowed,
    Keys,
    allow,
    is_key,
    load_client,
    load_server,
    make_client,
    make_server,
    read_authorized,
    revoke,
    run_keys,
)  # fmt: skip

KEY = zmq.curve_keypair()[0].decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_server(tmp_path / "keys")
    return tmp_path / "keys"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_secret_is_the_owners_alone_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        make_server(tmp_path / "keys")
        client = make_client(tmp_path / "keys", "wall")
    finally:
        os.umask(before)
    assert mode(tmp_path / "keys") == 0o700
    assert mode(tmp_path / "keys" / "server.secret") == mode(client) == 0o600
    secrets = [load_server(tmp_path / "keys").secret, load_client(client).secret]
    public = (tmp_path / "keys" / "server.public").read_text() + (tmp_path / "keys" / "authorized").read_text()
    assert not any(secret in public for secret in secrets)


def test_a_client_carries_one_file_and_it_fits_its_line(folder: Path):
    client = load_client(make_client(folder, "wall"))
    assert client.server == load_server(folder).public
    assert read_authorized(folder) == {"wall": client.public}
    assert zmq.curve_public(client.secret.encode()).decode() == client.public


def test_nothing_secret_is_in_a_repr(folder: Path):
    server, client = load_server(folder), load_client(make_client(folder, "wall"))
    assert server.secret not in repr(server) and client.secret not in repr(client)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_secret_that_others_can_read_is_refused_with_the_chmod_to_run(folder: Path, bits: int):
    client = make_client(folder, "wall")
    for path, load in ((folder / "server.secret", lambda: load_server(folder)), (client, lambda: load_client(client))):
        path.chmod(bits)
        with pytest.raises(UsageError, match=f"run: chmod 600 {path}"):
            load()


def test_a_folder_that_others_can_write_to_is_refused(folder: Path):
    folder.chmod(0o770)
    for load in (load_server, read_authorized):
        with pytest.raises(UsageError, match=f"run: chmod 700 {folder}"):
            load(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(folder: Path):
    os.chown(folder / "server.secret", 12345, -1)
    with pytest.raises(UsageError, match="belongs to another user"):
        load_server(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files count as handed over by systemd")
def test_a_credential_of_systemd_may_show_a_group_that_reads(folder: Path, monkeypatch: pytest.MonkeyPatch):
    client = make_client(folder, "wall")
    client.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert load_client(client).name == "wall"
    client.chmod(0o444)
    with pytest.raises(UsageError, match="others can read"):
        load_client(client)


def test_a_pipe_in_place_of_a_key_does_not_hang(folder: Path):
    (folder / "server.secret").unlink()
    os.mkfifo(folder / "server.secret", 0o600)
    with pytest.raises(UsageError, match="no plain file"):
        load_server(folder)


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-30], lambda text: text.replace("secret = ", "secret = x"), str.swapcase]
)
def test_a_damaged_key_is_refused(folder: Path, damage):
    path = folder / "server.secret"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UsageError, match="damaged or no file of keys"):
        load_server(folder)


def test_nothing_that_is_there_is_replaced(folder: Path):
    before = (folder / "server.secret").read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        make_server(folder)
    make_client(folder, "wall")
    with pytest.raises(UsageError, match="authorized already"):
        make_client(folder, "wall")
    assert (folder / "server.secret").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("text", "good"), [(KEY, True), (KEY[:-1], False), (KEY + "a", False), ("#" * 40, False), ('"' * 40, False)]
)
def test_a_key_is_forty_characters_of_z85_that_stand_for_32_bytes(text: str, good: bool):
    assert is_key(text) is good


@pytest.mark.parametrize("name", ["", "../up", "a b", "server", ".x", "#a", "x" * 65, "a\nb"])
def test_a_name_that_could_be_a_path_or_a_remark_is_refused(folder: Path, name: str):
    with pytest.raises(UsageError, match="a client's name is"):
        allow(folder, name, KEY)


def test_one_key_is_one_client(folder: Path):
    allow(folder, "wall", KEY)
    with pytest.raises(UsageError, match="already, as wall"):
        allow(folder, "door", KEY)


def test_remarks_stay_when_the_list_changes(folder: Path):
    (folder / "authorized").write_text(f"# by hand\n\nwall {KEY}\n")
    revoke(folder, "wall")
    assert (folder / "authorized").read_text() == "# by hand\n"


def test_many_who_change_the_list_at_once_lose_nothing(folder: Path):
    keys = [zmq.curve_keypair()[0].decode() for _ in range(8)]
    threads = [threading.Thread(target=allow, args=(folder, f"c{i}", key)) for i, key in enumerate(keys)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_authorized(folder).values()) == sorted(keys)


def test_a_list_is_read_again_when_it_changes(folder: Path):
    allowed = Allowed(folder)
    assert allowed.name_of(KEY) is None
    allow(folder, "wall", KEY)
    assert allowed.name_of(KEY) == "wall"
    revoke(folder, "wall")
    assert allowed.name_of(KEY) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text(f"wall {KEY}\nnonsense\n"),
        lambda path: path.write_text(f"wall {KEY}\nwall {KEY}\n"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.unlink(),
        lambda path: path.chmod(0o666),
        lambda path: path.parent.chmod(0o777),
    ],
    ids=["a broken line", "a name twice", "no text", "gone", "others can write it", "others can write the folder"],
)
def test_a_broken_list_lets_nobody_in_and_is_said_once(folder: Path, spoil, caplog: pytest.LogCaptureFixture):
    allow(folder, "wall", KEY)
    allowed = Allowed(folder)
    assert allowed.name_of(KEY) == "wall"
    with caplog.at_level(logging.ERROR):
        spoil(folder / "authorized")
        assert [allowed.name_of(KEY) for _ in range(5)] == [None] * 5
    assert len(caplog.records) == 1 and "nobody is let in" in caplog.text
    folder.chmod(0o700)
    (folder / "authorized").unlink(missing_ok=True)
    (folder / "authorized").write_text(f"wall {KEY}\n")
    (folder / "authorized").chmod(0o600)
    assert allowed.name_of(KEY) == "wall" and allowed.fault is None


def test_the_command_makes_lists_allows_and_revokes(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert run_keys(Keys(("make", "wall"), folder)) == 0
    assert "scp -p" in capsys.readouterr().out
    run_keys(Keys(("allow", KEY), folder, "door"))
    public = tmp_path / "gate.public"
    public.write_text(zmq.curve_keypair()[0].decode() + "\n")
    run_keys(Keys(("allow", str(public)), folder))
    run_keys(Keys(("revoke", "wall"), folder))
    capsys.readouterr()
    run_keys(Keys(("list",), folder))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["door", "gate"]
    assert not (folder / "wall.client").exists()


@pytest.mark.parametrize(
    "words", [(), ("lst",), ("make",), ("make", "a", "b"), ("allow", KEY), ("allow", "no/such/file")]
)
def test_a_command_that_cannot_be_is_refused(folder: Path, words: tuple[str, ...]):
    with pytest.raises(UsageError):
        run_keys(Keys(words, folder))
