"""CURVE keys: who may read and steer a line from another machine. `python -m realtime.keys` makes and lists them.

A folder on the line's machine holds
    server.secret    the line's own pair, for nobody else's eyes (0600)
    server.public    what a client must know to be sure that it talks to this line
    NAME.client      all that the client NAME needs, one file to carry over (0600); it can be deleted here afterwards
    authorized       who is let in: a name and a public key a line, # for remarks
A key is 40 characters of Z85. Exit codes of the command: 0 ok, 2 usage.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
import zmq
from zmq.utils import z85

from realtime.command import gather, run_command
from realtime.errors import UsageError
from realtime.private import check_folder, make_folder, read_guarded, read_secret, replace_file, write_new

AUTHORIZED, SERVER_SECRET, SERVER_PUBLIC = "authorized", "server.secret", "server.public"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_Z85 = re.compile(r"[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}", re.ASCII)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerKeys:
    """A line's own pair, Z85."""

    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class ClientKeys:
    """A client's own pair and the public key of its line, Z85."""

    name: str
    public: str
    secret: str = field(repr=False)
    server: str


def default_folder() -> Path:
    """Where keys are kept unless --keys says otherwise."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pcle-live" / "keys"


def is_key(text: str) -> bool:
    """Whether this is a CURVE key: 40 characters of Z85 that stand for 32 bytes."""
    try:
        return bool(_Z85.fullmatch(text)) and len(z85.decode(text.encode())) == 32
    except struct.error:  # five characters beyond 2**32
        return False


def make_server(folder: Path) -> ServerKeys:
    """Makes the line's pair, and the folder and an empty list where there are none; UsageError where there is one."""
    make_folder(folder)
    public, secret = _new_pair()
    text = f"# pcle-live: the line's secret key. Keep it here.\npublic = {public}\nsecret = {secret}\n"
    write_new(folder / SERVER_SECRET, text)
    replace_file(folder / SERVER_PUBLIC, f"{public}\n", 0o644)
    with contextlib.suppress(UsageError):  # a list that is there stays
        write_new(folder / AUTHORIZED, "# who is let in: NAME KEY\n")
    return ServerKeys(public, secret)


def make_client(folder: Path, name: str) -> Path:
    """Makes a client's pair, lists it as authorized, and returns the one file that the client needs."""
    _check_name(name)
    server = load_server(folder)
    if name in read_authorized(folder):
        raise UsageError(f"{name} is authorized already; run: python -m realtime.keys revoke {name}")
    public, secret = _new_pair()
    path = folder / f"{name}.client"
    write_new(
        path,
        f"# pcle-live: the key of {name}. Whoever has this file gets in. Use: --keys {path.name}\n"
        f"name = {name}\npublic = {public}\nsecret = {secret}\nserver = {server.public}\n",
    )
    allow(folder, name, public)
    return path


def allow(folder: Path, name: str, key: str) -> None:
    """Lets a client in from now on; UsageError where the name or the key is taken, or is none."""
    _check_name(name)
    if not is_key(key):
        raise UsageError(f"a key is 40 characters of Z85, got {len(key)}: {key[:8]!r}…; copy it whole")
    with _changing(folder) as listed:
        if name in listed:
            raise UsageError(f"{name} is authorized already; run: python -m realtime.keys revoke {name}")
        for other, same in listed.items():
            if same == key:
                raise UsageError(f"this key is authorized already, as {other}; each client has its own")
        listed[name] = key


def revoke(folder: Path, name: str) -> None:
    """Lets a client in no more; a running line drops it within a second. UsageError where there is none of the name."""
    with _changing(folder) as listed:
        if name not in listed:
            known = ", ".join(listed) or "nobody"
            raise UsageError(f"{name!r} is not authorized; these are: {known}")
        del listed[name]
    (folder / f"{name}.client").unlink(missing_ok=True)


def load_server(folder: Path) -> ServerKeys:
    """The line's pair; UsageError where there is none, or where others could read or change it."""
    check_folder(folder)
    path = folder / SERVER_SECRET
    if not path.exists():
        raise UsageError(f"no {SERVER_SECRET} in {folder}; run: python -m realtime.keys --keys {folder} make server")
    values = _values(path, ("public", "secret"))
    return ServerKeys(values["public"], values["secret"])


def load_client(path: Path) -> ClientKeys:
    """What `make NAME` wrote; UsageError where it is not that, or where others could read it."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a client's --keys is its one file, NAME.client")
    values = _values(path, ("name", "public", "secret", "server"))
    return ClientKeys(values["name"], values["public"], values["secret"], values["server"])


def read_authorized(folder: Path) -> dict[str, str]:
    """Who is let in: name -> key. UsageError where the list is missing, or a line of it is wrong."""
    check_folder(folder)
    path = folder / AUTHORIZED
    text = read_guarded(path)
    listed: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not NAME.fullmatch(words[0]) or not is_key(words[1]) or words[0] in listed:
            raise UsageError(f"{path}, line {number}: must be NAME KEY, each name once; mend or delete this line")
        listed[words[0]] = words[1]
    return listed


class Allowed:
    """Who is let in, read again whenever the list changes. A list that cannot be read lets nobody in.

    changed() and name_of() look at the file; it is read only where its time, size or inode is another one.
    """

    def __init__(self, folder: Path) -> None:
        self.fault: str | None = None  # why nobody is let in
        self._folder = folder
        self._names: dict[str, str] = {}  # key -> name
        self._seen: tuple[object, ...] | None = None
        self._look()

    def name_of(self, key: str) -> str | None:
        """The name under which a key is listed, None where it is not."""
        self._look()
        return self._names.get(key)

    def keys(self) -> frozenset[str]:
        """Every key that is let in now."""
        self._look()
        return frozenset(self._names)

    def _look(self) -> None:
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen, before = seen, self.fault
        try:
            self._names = {key: name for name, key in read_authorized(self._folder).items()}
            self.fault = None
        except UsageError as error:
            self._names, self.fault = {}, str(error)
        if self.fault is not None and self.fault != before:  # once, not at every look
            log.error("nobody is let in: %s", self.fault)

    def _signature(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (self._folder, self._folder / AUTHORIZED):
            try:
                state = path.stat()
            except OSError as error:
                found.append(error.errno)
                continue
            found += [state.st_ino, state.st_mode, state.st_uid, state.st_ctime_ns]
            found += [state.st_mtime_ns, state.st_size]
        return tuple(found)


def _values(path: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The `name = value` lines of a file of keys, which must fit together."""
    pairs = (line.partition(" = ") for line in read_secret(path).splitlines() if line and not line.startswith("# "))
    values = {name.strip(): value.strip() for name, _, value in pairs}
    wrong = [name for name in names if name not in values or (name != "name" and not is_key(values[name]))]
    if wrong or zmq.curve_public(values["secret"].encode()).decode() != values["public"]:
        raise UsageError(
            f"{path} is damaged or no file of keys ({', '.join(wrong) or 'public does not fit secret'}); "
            "make or copy it again"
        )
    return values


def _new_pair() -> tuple[str, str]:
    """Public and secret key; the public one begins with a letter or digit, so that it is never taken for a flag."""
    while True:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        if public[0].isalnum():
            return public, secret


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or name in ("server", AUTHORIZED):
        raise UsageError(
            f"a client's name is 1 to 64 letters, digits, - _ or . and neither server nor authorized, got {name!r}"
        )


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[dict[str, str]]:
    """The list of who is let in, to be changed; written back whole, one program at a time. Remarks stay on top."""
    check_folder(folder)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        listed = read_authorized(folder)
        remarks = [line for line in (folder / AUTHORIZED).read_text().splitlines() if line.startswith("#")]
        yield listed
        lines = [*remarks, *(f"{name} {key}" for name, key in listed.items())]
        replace_file(folder / AUTHORIZED, "".join(f"{line}\n" for line in lines), 0o600)
    finally:
        os.close(lock)


EXAMPLES = """examples:
  python -m realtime.keys make server                 once on the machine of the line; then: realtime.run --keys DIR
  python -m realtime.keys make wall                   let the client "wall" in; prints the one file to carry over
  scp -p ~/.config/pcle-live/keys/wall.client HOST:   carry it, never by mail or chat; then on that machine:
  python -m realtime.tail tcp://LINE:5556 --keys wall.client
  python -m realtime.keys allow 'KEY' --name wall     let in a key that the client made itself
  python -m realtime.keys list                        who is let in
  python -m realtime.keys revoke wall                 no more, and a running line drops it at once

A running line reads the list again when it changes. docs/security.md says what the keys protect from.
"""


@dataclass(frozen=True)
class Keys:
    """Make, list, allow and revoke the keys of a line: who may read its events from another machine."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="COMMAND …")]
    """make server | make NAME | list | allow KEY-OR-FILE | revoke NAME"""
    keys: Path = field(default_factory=default_folder)
    """Folder of the keys."""
    name: str | None = None
    """Of the client whose key is allowed; without it a file's own name."""


def run_keys(options: Keys) -> int:
    """Does what the words say and prints to standard output what to do next; returns the exit code."""
    folder = options.keys
    commands: dict[str, tuple[int, Callable[..., str]]] = {
        "make": (1, lambda name: _make(folder, name)),
        "list": (0, lambda: _list(folder)),
        "allow": (1, lambda given: _allow(folder, given, options.name)),
        "revoke": (1, lambda name: _revoke(folder, name)),
    }
    verb, *rest = options.words or ("",)
    if verb not in commands or len(rest) != commands[verb][0]:
        raise UsageError(
            f"need make server, make NAME, list, allow KEY or revoke NAME, got {' '.join(options.words)!r}"
        )
    print(commands[verb][1](*rest))
    return 0


def _make(folder: Path, name: str) -> str:
    if name == "server":
        make_server(folder)
        return f"made {folder / SERVER_SECRET}; now run: python -m realtime.keys --keys {folder} make NAME"
    path = make_client(folder, name)
    return f"made {path}, {name} is let in; carry it over (scp -p {path} HOST:) and use it there: --keys {path.name}"


def _list(folder: Path) -> str:
    listed = read_authorized(folder)
    return "\n".join(f"{name}  {key}" for name, key in listed.items()) or f"nobody is let in by {folder / AUTHORIZED}"


def _allow(folder: Path, given: str, name: str | None) -> str:
    path = Path(given)
    if is_key(given):
        if name is None:
            raise UsageError("a bare key needs a name; add --name NAME")
    elif given.endswith(".client") and path.is_file():
        client = load_client(path)
        given, name = client.public, name or client.name
    elif path.is_file():
        given, name = read_guarded(path).strip(), name or path.stem
    else:
        raise UsageError(f"{given!r} is neither a key (40 characters of Z85) nor a file with one")
    allow(folder, name, given)
    return f"{name} is let in"


def _revoke(folder: Path, name: str) -> str:
    revoke(folder, name)
    return f"{name} is let in no more; a running line drops it at once"


def main() -> int:
    """Command line; returns the exit code."""
    sys.argv[1:] = gather(sys.argv[1:])
    return run_command(Keys, "realtime.keys", EXAMPLES, lambda options, _: run_keys(options))


if __name__ == "__main__":
    sys.exit(main())
