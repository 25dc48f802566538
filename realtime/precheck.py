"""`--check`: everything that a line opens is tried once, and what was found is said, a line for each thing.

Nothing is published or recorded. The first fault does not hide the next; the exit code is that of the first.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from realtime.addresses import check_bind
from realtime.backends import open_engine
from realtime.bundle import default_bundle, load_bundle
from realtime.errors import AddressError, LineError, SourceError, UsageError
from realtime.recording import partial_of
from realtime.schema import Frame
from realtime.settings import Config, check
from realtime.slot import Change
from realtime.source import Source
from realtime.web.address import split

Look = Callable[[], str]  # says what was found; LineError where the line could not use it
WITHIN_S = 12.0  # for a first frame: a camera may take ten seconds to wake


def precheck(config: Config, open_: Callable[[], Source], tell: Callable[[str], None]) -> int:
    """Looks at everything and returns the exit code: 0 the line can run, else that of the first thing that fails.

    open_: opens the source as the line would. tell: takes each line.
    """
    code = 0
    for what, look in _looks(config, open_):
        try:
            tell(f"ok     {what:12} {look()}")
        except LineError as error:
            tell(f"error  {what:12} {error}")
            code = code or error.exit_code
    return code


def _looks(config: Config, open_: Callable[[], Source]) -> Iterator[tuple[str, Look]]:
    chosen, told = config.recognition, config.output
    yield "settings", lambda: _settings(config)
    yield "bundle", lambda: _bundle(chosen.bundle or default_bundle())
    if chosen.interactions is not None:
        second = chosen.interactions
        yield "interactions", lambda: _bundle(second)
    yield "engine", lambda: _engine(config)
    yield "source", lambda: first_frame(open_)
    yield from _addresses(config)
    for name, path in (("events", told.events), ("journal", told.journal), ("record", told.record)):
        if path is not None:
            yield name, lambda path=path, new=name == "record": writable(path, new)  # type: ignore[misc]


def _addresses(config: Config) -> Iterator[tuple[str, Look]]:
    told = config.output

    def bus(address: str, flag: str, ports: int) -> str:
        check_bind(address, told.keys, flag)
        return free(address, ports)

    def page(address: str) -> str:
        split(address)
        return free(address)

    if told.pub != "none":
        yield "pub", lambda: bus(told.pub, "--pub", 2)
    if told.control is not None:
        control = told.control
        yield "control", lambda: bus(control, "--control", 1)
    if told.http is not None:
        http = told.http
        yield "http", lambda: page(http)


def _settings(config: Config) -> str:
    check(config)
    return f"of {config.program.config}" if config.program.config else "of the command line"


def _bundle(folder: Path) -> str:
    bundle = load_bundle(folder)
    return f"{bundle.name}, {len(bundle.actions)} actions, {len(bundle.files)} files with the right SHA-256"


def _engine(config: Config) -> str:
    chosen = config.recognition
    bundle = load_bundle(chosen.bundle or default_bundle())
    engine = open_engine(bundle, chosen.backend, chosen.threads, chosen.precision, chosen.engine, chosen.trust)
    with closing(engine):
        return f"{engine.backend}, {engine.precision}, gives the reference results"


def first_frame(open_: Callable[[], Source], within_s: float = WITHIN_S) -> str:
    """Opens a source and waits for its first frame; SourceError where none comes."""
    begun_s, why = time.monotonic(), "check its cable, power and network"
    with closing(open_()) as source:
        for item in source:
            passed_s = time.monotonic() - begun_s
            if isinstance(item, Frame):
                info = source.info
                size = f" {info.width}x{info.height}" if info.width else ""
                return f"{info.id} ({info.kind}{size}), first frame after {passed_s:.1f} s"
            if isinstance(item, Change) and item.reason:
                why = item.reason
            if passed_s > within_s:
                break
        raise SourceError(
            f"{source.info.kind} {source.info.id}: no frame within {time.monotonic() - begun_s:.1f} s; {why}"
        )


def free(address: str, ports: int = 1) -> str:
    """Whether an address can be bound, with as many ports as its sockets need. AddressError where it is taken."""
    if address.startswith("ipc://"):
        return _free_path(Path(address[6:]))
    found = re.fullmatch(r"(?:tcp://)?(\[[^\]]*\]|[^:/]*):(\d+|\*)", address)
    if found is None:
        raise UsageError(f"{address!r} is no address; write tcp://127.0.0.1:PORT, ipc://PATH or, for --http, HOST:PORT")
    host, port = found[1].strip("[]").replace("*", ""), found[2]
    if port == "*":
        return f"{address}, any free port"
    wanted = [int(port) + step for step in range(ports if int(port) else 1)]
    for one in wanted:
        _bind(address, host, one)
    return f"{address} is free" + (f", and so is port {wanted[1]} for replays" if len(wanted) > 1 else "")


def _bind(address: str, host: str, port: int) -> None:
    if port > 65535:
        raise UsageError(f"{address}: port {port}: ports end at 65535")
    try:
        (family, kind, *_, where), *_ = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(1)
    except OSError as error:
        raise AddressError(
            f"{address}: port {port}: {error.strerror}; a line may run already: stop it or name another port"
        ) from error


def _free_path(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"ipc://{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"ipc://{path}: no permission to make a socket in {folder}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(str(path))
        except OSError:
            return f"ipc://{path} is free"
    raise AddressError(f"ipc://{path} is in use; a line may run already: stop it or name another path")


def writable(path: Path, new: bool = False) -> str:
    """Whether a file can be written. new: it must not be there yet. UsageError where not; nothing is left behind."""
    taken = [one for one in (path, partial_of(path)) if new and os.path.lexists(one)]
    if taken:
        raise UsageError(f"{taken[0]} is there and would be lost; move it or name another file")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    there = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name a file that can be written") from error
    if not there:
        path.unlink()
    return f"{path} can be written"
