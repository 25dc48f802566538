"""How much memory this process has in RAM. Linux only."""

from __future__ import annotations

import os


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the system does not tell, or there is no file to spare."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
