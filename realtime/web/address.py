"""Where the page is served: on this machine's loopback, always."""

from __future__ import annotations

import errno
import socket

from realtime.addresses import is_loopback
from realtime.errors import AddressError, UsageError
from realtime.web.stats import DEFAULT_ADDRESS

_BACKLOG = 64


def listen(address: str) -> socket.socket:
    """A listening socket, non-blocking, at HOST:PORT. Port 0 or * is any free one.

    Errors: UsageError (malformed, open to the network, not allowed), AddressError (in use).
    """
    host, port = split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"cannot serve on {address}: {error.strerror}; try --http {DEFAULT_ADDRESS}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            other = f"{address.rpartition(':')[0]}:{port % 65_535 + 1}"
            raise AddressError(f"{address} is in use, perhaps by another line's page; try --http {other}") from error
        raise UsageError(f"cannot serve on {address}: {error.strerror}; try --http {DEFAULT_ADDRESS}") from error
    return listener


def split(address: str) -> tuple[str, int]:
    """Host (an IP address) and port of HOST:PORT; UsageError where it is malformed or can be reached from elsewhere."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in address:
        raise UsageError(f"the page's address is HOST:PORT, got {address!r}; try --http {DEFAULT_ADDRESS}")
    if port != "*" and not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise UsageError(f"the port must be 1 to 65535, or * for any free one, got {address!r}; try {DEFAULT_ADDRESS}")
    number = 0 if port == "*" else int(port)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if bare == "localhost":
        return "127.0.0.1", number
    if not is_loopback(bare) or (":" in bare) != (bare != host):
        raise UsageError(
            f"{address} can be reached from the network, and the page asks for no password; serve it on this machine, "
            f"--http 127.0.0.1:{port}, and forward it: ssh -L {port}:127.0.0.1:{port} HOST"
        )
    return bare, number


def bound(listener: socket.socket) -> str:
    """HOST:PORT as it was bound."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
