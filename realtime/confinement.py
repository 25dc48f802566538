"""What keeps the child of a line in its bounds: memory, rights, and the life of its parent. Linux only."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

FILES_AT_MOST = 4096
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def confine(parent: int, memory_mb: int) -> None:
    """Dies with the parent, gains no rights, takes no more memory than that, leaves no core file.

    Signals of the terminal and of a service manager go to the whole group; the parent decides what they mean.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if prctl(option, ctypes.c_ulong(value), 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before we asked
        sys.exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _limit(resource.RLIMIT_DATA, memory_mb << 20)  # RLIMIT_AS would count what threads reserve and never use
    _limit(resource.RLIMIT_CORE, 0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = FILES_AT_MOST if hard == resource.RLIM_INFINITY else min(hard, FILES_AT_MOST)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))
