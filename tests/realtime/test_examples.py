"""The subscribers in docs/examples, in C++ and JavaScript, against an outlet."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from realtime.messages import encode
from realtime.outlet import Outlet
from tests.realtime.telling import action, heartbeat, opened, status, unheard

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
ZEROMQ = "zeromq@6.5.0"


@contextmanager
def running(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        yield program
    finally:
        program.kill()
        program.communicate()


@pytest.fixture
def outlet() -> Iterator[Outlet]:
    with opened() as made:
        yield made


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not shutil.which("g++"):
        pytest.skip("no g++ here (apt-get install g++ libzmq3-dev)")
    program = str(tmp_path_factory.mktemp("cpp") / "subscriber")
    header = subprocess.run(["g++", "-E", "-x", "c++", "-"], input="#include <zmq.h>", capture_output=True, text=True)
    if header.returncode:
        pytest.skip("no zmq.h here (apt-get install libzmq3-dev)")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["g++", *flags, str(EXAMPLES / "subscriber.cpp"), "-o", program, "-lzmq"], check=True)
    return program


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example and the package it needs; the package is kept for the next time."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("no node and npm here")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcle-live" / f"node-{ZEROMQ}"
    if not (cache / "node_modules" / "zeromq" / "package.json").exists():
        folder = tmp_path_factory.mktemp("npm")
        flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]  # the binary lies inside the package
        made = subprocess.run(
            ["npm", "install", *flags, ZEROMQ], cwd=folder, capture_output=True, text=True, timeout=180
        )
        if made.returncode:
            pytest.skip(f"npm could not install {ZEROMQ}: {made.stderr.strip()[-200:]}")
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "node_modules", cache / "node_modules", dirs_exist_ok=True)
    shutil.copy(EXAMPLES / "subscriber.mjs", cache)
    return cache


def test_the_cpp_example_prints_events_and_counts_gaps(outlet, cpp):
    with running([cpp, outlet.address, "action.", "3"]) as program:
        assert outlet.wait_for_subscriber(20)
        for seq in (0, 1, 4):
            outlet.publish(status(seq))
            outlet.publish(action(seq))
        out, errors = program.communicate(timeout=20)
    assert out.splitlines() == [f"action.cam0.start.wave {encode(action(seq)).decode()}" for seq in (0, 1, 4)]
    assert errors == "gap: 2 messages were missed\n"


@pytest.mark.slow
def test_the_javascript_example_prints_events_and_gets_those_it_missed(outlet, node):
    outlet.publish(action(0))
    with running(["node", str(node / "subscriber.mjs"), outlet.address, "4"], cwd=node) as program:
        assert outlet.wait_for_subscriber(30)
        outlet.publish(heartbeat(0, {"action": 1}))
        outlet.publish(action(1))
        unheard(outlet, action(2))
        outlet.publish(action(3))
        unheard(outlet, action(4, "end"))
        begun = time.monotonic()
        while program.poll() is None and time.monotonic() - begun < 20:
            outlet.publish(heartbeat(1, {"action": 5}))
            outlet.tend()
            time.sleep(0.2)
        out, errors = program.communicate(timeout=5)
    assert [line.split(" seq ")[1] for line in out.splitlines()] == ["1", "2", "3", "4"], errors
    assert out.startswith("1970-01-01T00:00:00.000Z start wave 0.9 seq 1")
