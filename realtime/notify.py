"""Tells the service manager how the line is: sd_notify's datagrams over NOTIFY_SOCKET, without a library.

systemd gives the socket to a unit of Type=notify, and realtime.fleet to each of its lines.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, MutableMapping

FLEET = "PCLE_LIVE_FLEET"  # in the environment of a fleet's line: the fleet's process id
DRAIN_S = 3.0  # how long a line whose fleet is gone may take to end
_PR_SET_PDEATHSIG = 1
_LONGEST = 400  # characters of a status

log = logging.getLogger(__name__)


class Notifier:
    """Datagrams to whoever watches this process; without one every call does nothing. Never blocks, never raises."""

    def __init__(
        self,
        address: str | None = None,
        watchdog_s: float | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """address: a path, or @ and an abstract name. watchdog_s: how long this process may be silent, None: for ever.

        A sign of life goes out twice within that time, at most, and only from `alive`.
        """
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._now_s, self._pinged_s = now_s, -1e9
        self._told_broken = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """As NOTIFY_SOCKET and WATCHDOG_USEC say; both are taken out, so that no child speaks for this process."""
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        meant = process in ("", str(os.getpid()))
        watchdog_s = int(microseconds) / 1e6 if meant and microseconds.isdecimal() and int(microseconds) else None
        if address and not address.startswith(("/", "@")):  # systemd also names vsock
            log.warning("NOTIFY_SOCKET %s is no unix socket; nobody is told how this line is", address)
            address = None
        return cls(address or None, watchdog_s)

    def ready(self, status: str = "") -> None:
        """The line is up: models are loaded, source and addresses are open."""
        self._send(f"READY=1\n{_status(status)}")
        self._pinged_s = self._now_s()

    def status(self, text: str) -> None:
        """One line for people, as `systemctl status` shows it."""
        self._send(_status(text))

    def alive(self, at_once: bool = False) -> None:
        """The line made progress. Call it as often as you like: it sends when half of the watchdog's time is over.

        at_once: send now, before something that may take a good part of that time.
        """
        if self._socket is None or self.watchdog_s is None:
            return
        now_s = self._now_s()
        if at_once or now_s - self._pinged_s >= self.watchdog_s / 2:
            self._pinged_s = now_s
            self._send("WATCHDOG=1")

    def stopping(self, status: str = "") -> None:
        """The line is ending by itself or was told to."""
        self._send(f"STOPPING=1\n{_status(status)}")

    def close(self) -> None:
        """Frees the socket; a second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None or self._address is None or not text:
            return
        try:
            self._socket.sendto(text.strip("\n").encode(), self._address)
        except OSError as error:  # full, or the manager is gone: the line goes on
            if not self._told_broken:
                log.warning("the service manager cannot be told how this line is: %s", error.strerror)
            self._told_broken = True


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())[:_LONGEST] if text else ""


def die_with_parent() -> None:
    """From now on this process gets SIGTERM when its parent dies, however that was. Linux only; for a new child.

    To be called between fork and exec, so it must not take locks.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: not after a fork


def follow_fleet(environment: MutableMapping[str, str] = os.environ, drain_s: float = DRAIN_S) -> None:
    """In a fleet's line: ends it for certain when the fleet is gone, also where the line no longer hears signals."""
    fleet = environment.pop(FLEET, "")
    if not fleet.isdecimal():
        return
    if os.getppid() != int(fleet):  # it died before this line could ask to be told
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=_follow, args=(int(fleet), drain_s), name="fleet", daemon=True).start()


def _follow(fleet: int, drain_s: float) -> None:
    while os.getppid() == fleet:
        time.sleep(0.2)
    time.sleep(drain_s)  # SIGTERM has come from the kernel
    os.kill(os.getpid(), signal.SIGKILL)
