"""The listening sockets of a line, bound in its own process and handed to the child that serves them.

The address is taken at once, or refused at once; and it stays taken while the child is started anew: whoever
connects meanwhile waits in the kernel's queue.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

from realtime.addresses import DEFAULT_ADDRESS, LONGEST_IPC_PATH, check_bind, is_live
from realtime.bus import replay_address
from realtime.errors import AddressError, LineError, UsageError

_WAITING = 128  # connections that the kernel keeps until the child takes them
_TRIES = 64  # how often a free pair of ports is looked for


class Listener(AbstractContextManager["Listener"]):
    """One bound and listening socket. address: as bound, `*` replaced by the port."""

    def __init__(self, address: str, flag: str = "--pub") -> None:
        """flag: what the user types, for the errors. Errors: AddressError (in use), UsageError (cannot be bound)."""
        transport, _, rest = address.partition("://")
        try:
            self._socket = _listening_path(rest) if transport == "ipc" else listening_port(rest)
        except OSError as error:
            raise _refusal(address, flag, error) from error
        self._socket.setblocking(False)  # the child's thread must not wait for a connection that is gone again
        self.address = address
        if transport == "tcp":
            self.address = f"tcp://{rest.rpartition(':')[0]}:{self._socket.getsockname()[1]}"
        self._file = _socket_file(self.address)

    def fileno(self) -> int:
        """The descriptor that a child inherits."""
        return self._socket.fileno()

    def close(self) -> None:
        """Frees the address; a socket's file goes with it unless another took the path since."""
        self._socket.close()
        if self._file is not None and _socket_file(self.address) == self._file:
            Path(self._file[0]).unlink(missing_ok=True)
        self._file = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def listen_pair(address: str, keys: Path | None = None) -> tuple[Listener, Listener]:
    """The sockets of a bus: where messages are published, and where replay is answered, on the next port.

    keys: the folder of --keys. Errors: UsageError (malformed, or open to the network without keys), AddressError (in
    use).
    """
    _check_pair(address, keys)
    if not address.endswith(":*"):
        first = Listener(address)
        try:
            return first, Listener(replay_address(first.address))
        except LineError as error:
            first.close()
            raise type(error)(f"replay of {address} is answered one address further on: {error}") from error
    for _ in range(_TRIES):  # any free port whose neighbour is free as well
        first = Listener(address)
        with suppress(LineError, OverflowError):
            return first, Listener(replay_address(first.address))
        first.close()
    raise AddressError(f"found no two free ports side by side for {address}; try --pub {DEFAULT_ADDRESS}")


def _check_pair(address: str, keys: Path | None) -> None:
    """UsageError unless the address and the one after it can be bound in principle."""
    check_bind(address, keys)
    transport, _, rest = address.partition("://")
    if transport == "tcp":
        if rest.endswith(":65535"):
            raise UsageError(f"the port must be below 65535, as replay is answered on the next one, got {address!r}")
        return
    replay = rest + ".replay"
    if len(os.fsencode(replay)) > LONGEST_IPC_PATH:
        raise UsageError(
            f"an ipc path has at most {LONGEST_IPC_PATH - len('.replay')} bytes, as replay is answered at it with "
            f".replay, got {len(os.fsencode(rest))} in {address}"
        )
    if not rest.startswith("@"):
        check_bind(f"ipc://{replay}", keys)


def listening_port(rest: str) -> socket.socket:
    """A TCP socket that listens at HOST:PORT, * for any of either. OSError where it cannot."""
    host, _, port = rest.rpartition(":")
    name = {"*": "0.0.0.0"}.get(host, host).strip("[]")
    number = 0 if port == "*" else int(port)
    family, kind, _, _, place = socket.getaddrinfo(name, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not kept out by connections that are ending
        made.bind(place)
        made.listen(_WAITING)  # here, as another that was bound at the same moment is told now only
    except OSError:
        made.close()
        raise
    return made


def _listening_path(path: str) -> socket.socket:
    name = f"\0{path[1:]}" if path.startswith("@") else path
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if name == path and Path(path).is_socket():
            if is_live(path):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            Path(path).unlink(missing_ok=True)  # what a dead publisher left behind
        made.bind(name)
        if name == path:
            os.chmod(path, 0o600)  # before it listens: other users of this machine are not asked in
        made.listen(_WAITING)
    except OSError:
        made.close()
        raise
    return made


def _refusal(address: str, flag: str, error: OSError) -> UsageError | AddressError:
    if error.errno != errno.EADDRINUSE:
        return UsageError(f"cannot listen on {address!r} ({flag}): {error}; try {flag} {DEFAULT_ADDRESS}")
    stem, _, port = address.rpartition(":")
    other = f"{stem}:{int(port) % 65_532 + 2}" if port.isdigit() else f"{address}2"
    return AddressError(f"{address} is in use, perhaps by another copy of this program; try {flag} {other}")


def _socket_file(address: str) -> tuple[str, int, int] | None:
    """Path, device and inode of an ipc address's socket. None where there is no file."""
    transport, _, path = address.partition("://")
    if transport != "ipc" or path.startswith("@"):
        return None
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return path, found.st_dev, found.st_ino
