"""Which addresses a line may bind: this machine's own, and others only where keys decide who comes in.

The bus and the control socket: tcp:// or ipc://. Off this machine they need CURVE keys (realtime/keys.py).
The page to watch (realtime/web/address.py) is on the loopback, always: it has no keys, so no flag opens it further.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path

from realtime.errors import AddressError, UsageError

DEFAULT_ADDRESS = "tcp://127.0.0.1:5556"
# What realtime.control asks where no address is named; far above --pub, which counts up by two for a fleet's cameras.
DEFAULT_CONTROL = "tcp://127.0.0.1:5656"
LONGEST_IPC_PATH = 107  # bytes, of sockaddr_un


def check_bind(address: str, keys: Path | None, flag: str = "--pub") -> None:
    """UsageError unless the address is well formed, and this machine's own or guarded by keys.

    keys: the folder of --keys, None without. AddressError where a live socket of another program is at an ipc path.
    """
    example = DEFAULT_CONTROL if flag == "--control" else DEFAULT_ADDRESS
    transport, mark, rest = address.partition("://")
    if not mark or transport not in ("tcp", "ipc") or not rest:
        raise UsageError(f"{flag} must be tcp://127.0.0.1:PORT or ipc://PATH, got {address!r}; try {example}")
    if transport == "ipc":
        _check_ipc(address, rest, flag, example)
        return
    host, _, port = rest.rpartition(":")
    if port != "*" and not _is_port(port):
        raise UsageError(f"the port must be 1 to 65535, or * for any free one, got {address!r}; try {flag} {example}")
    if not host or host.count("]") != host.count("[") or ";" in rest:
        raise UsageError(f"{flag} must name a host, as tcp://127.0.0.1:PORT does, got {address!r}; try {example}")
    if keys is None and not is_local(address):
        raise UsageError(
            f"{flag} {address} can be reached from the network, so it needs keys; run: python -m realtime.keys make "
            f"server, then add --keys ~/.config/pcle-live/keys; or stay on this machine: {flag} tcp://127.0.0.1:{port}"
        )


def is_local(address: str) -> bool:
    """Whether a bus address is one that this machine alone can reach."""
    transport, _, rest = address.partition("://")
    host = rest.rpartition(":")[0]
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return transport == "ipc" or (transport == "tcp" and is_loopback(bare))


def is_loopback(host: str) -> bool:
    """Whether a host, without brackets, is certainly this machine alone: localhost or an address of the loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # *, a name, an interface: any of them may be the network's
        return False


def is_live(path: str) -> bool:
    """Whether somebody listens on the socket at this path; also where we may not ask, or too many wait already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)  # a full queue is told at once, not waited for
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65_536


def _check_ipc(address: str, path: str, flag: str, example: str) -> None:
    """zmq would unlink whatever lies at an ipc path: a file of the user's, or a live publisher's socket."""
    if path.startswith("@"):  # Linux: a name in no folder
        return
    if len(os.fsencode(path)) > LONGEST_IPC_PATH:
        raise UsageError(f"an ipc path has at most {LONGEST_IPC_PATH} bytes, got {len(os.fsencode(path))} in {address}")
    if not Path(path).parent.is_dir():
        raise UsageError(f"no folder {Path(path).parent} for {address}; make it, or try {flag} {example}")
    if not Path(path).exists():
        return
    if not stat.S_ISSOCK(Path(path).stat().st_mode):
        raise UsageError(f"{path} is there and is not a socket; choose another path for {address}")
    if is_live(path):
        raise AddressError(f"{address} is in use by another program; try {flag} ipc://{path}2")
