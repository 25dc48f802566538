"""What the doctor's rows are made of: a finding, and a line of Python tried in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["ok", "note", "missing"]
PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Check:
    """One row: what was looked for, what was found, and what to do about it ("" where nothing)."""

    group: str
    name: str
    state: State
    found: str
    advice: str = ""


Probe = Callable[[str, str], tuple[bool, str]]


def probe(code: str, argument: str = "") -> tuple[bool, str]:
    """Runs a line of Python in a child process: (it worked, what it printed or why it did not)."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(":")}
    command = [sys.executable, "-c", code, *([argument] if argument else [])]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer in {PROBE_TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        return True, (done.stdout.strip().splitlines() or ["ok"])[-1]
    if done.returncode < 0:
        return False, f"the process died of signal {-done.returncode}"
    return False, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
