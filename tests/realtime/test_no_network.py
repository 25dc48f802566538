"""The line needs no network and opens none: it runs where there is none, and holds no socket but those asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

from realtime.messages import decode
from tests.realtime.hands import ROOT, free_address, read_events, start

INTERNET = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
pytestmark = pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="sockets are read from Linux's /proc")


def without_network() -> list[str]:
    """What to put before a command so that it has no network, not even the loopback."""
    for prefix in (["unshare", "-n"], ["unshare", "-r", "-n"]):
        if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    pytest.skip("this machine lets nobody here make a namespace without network (unshare -n)")


def test_the_line_runs_fully_where_there_is_no_network(tmp_path: Path):
    prefix = without_network()
    address, heard, over = f"ipc://{tmp_path}/bus", [], threading.Event()

    def listen() -> None:  # a path in the file system leads out of the namespace
        with zmq.Context() as context, context.socket(zmq.SUB) as reader:
            reader.setsockopt(zmq.LINGER, 0)
            reader.subscribe("")
            reader.connect(address)
            while not over.is_set():
                if reader.poll(50):
                    heard.append(decode(reader.recv_multipart()[1]))

    listener = threading.Thread(target=listen)
    listener.start()
    flags = [
        "--pub",
        address,
        "--events",
        str(tmp_path / "e.jsonl"),
        "--record",
        str(tmp_path / "r.mcap"),
        "--seed",
        "1",
    ]
    command = [sys.executable, "-m", "realtime.run", "--source", "synthetic", "--duration", "3", *flags]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        ran = subprocess.run([*prefix, *command], cwd=ROOT, env=environ, capture_output=True, timeout=60)
    finally:
        time.sleep(0.2)
        over.set()
        listener.join()
    assert ran.returncode == 0, ran.stderr.decode()
    read_events(tmp_path / "e.jsonl")
    assert (tmp_path / "r.mcap").stat().st_size > 10_000
    assert {"online", "ended"} <= {one.state for one in heard if hasattr(one, "state")}


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += [one for child in (thread / "children").read_text().split() for one in family(int(child))]
    return found


def internet_sockets(pid: int) -> dict[str, str]:
    """Every internet socket that a process holds: inode -> protocol and local address, in the kernel's hexadecimal."""
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            held.add(target[8:-1])
    found = {}
    for protocol in INTERNET:
        table = Path(f"/proc/{pid}/net/{protocol}")
        for row in table.read_text().splitlines()[1:] if table.exists() else []:
            fields = row.split()
            if fields[9] in held:
                found[fields[9]] = f"{protocol} {fields[1]} {fields[3]}"
    return found


def sampled(*flags: object) -> list[str]:
    """Protocol, local address and state of every internet socket that a line and its children ever held."""
    process = start("--source", "synthetic", "--duration", 4, *flags)
    seen: set[str] = set()
    samples = 0
    try:
        while process.poll() is None:
            try:
                for pid in family(process.pid):
                    seen |= set(internet_sockets(pid).values())
            except OSError:
                continue  # one ended meanwhile
            samples += 1
            time.sleep(0.02)
    finally:
        process.kill()
        said = process.communicate()[1]
    assert process.returncode == 0 and samples > 20, said.decode()
    return sorted(seen)


@pytest.mark.parametrize("pub", ["none", "ipc"])
def test_no_internet_socket_is_ever_open_unless_asked_for(pub: str, tmp_path: Path):
    address = f"ipc://{tmp_path}/bus" if pub == "ipc" else "none"
    assert sampled("--pub", address, "--record", tmp_path / "r.mcap") == []


def test_with_a_loopback_address_only_listeners_on_it_are_open():
    address = free_address()
    port = int(address.rpartition(":")[2])
    listening = "0A"
    allowed = {f"tcp 0100007F:{number:04X} {listening}" for number in (port, port + 1)}  # the bus, and its replay
    seen = sampled("--pub", address)
    assert seen and set(seen) <= allowed
    assert f"tcp 0100007F:{port:04X} {listening}" in seen
