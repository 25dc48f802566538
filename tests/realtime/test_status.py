"""What is said of the source's state, and what is said beside it."""

from __future__ import annotations

from typing import Any

import pytest

from realtime.bundle import Bundle, load_bundle
from realtime.feed import SourceInfo
from realtime.messages import AnyMessage, Heartbeat, Status
from realtime.meter import Meter
from realtime.report import Outputs, Reporter
from tests.realtime.hands import write_hands


class Remembering:
    """An outlet that keeps what it is given."""

    address = "nowhere"
    watched = False

    def __init__(self) -> None:
        self.told: list[AnyMessage] = []

    def publish(self, message: AnyMessage, *, to_bus: bool = True) -> bytes:
        self.told.append(message)
        return b""

    def tend(self) -> list[Any]:
        return []

    def troubles(self) -> list[str]:
        return []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return load_bundle(write_hands(tmp_path_factory.mktemp("status") / "hands"))


@pytest.fixture
def outlet() -> Remembering:
    return Remembering()


@pytest.fixture
def reporter(bundle: Bundle, outlet: Remembering) -> Reporter:
    info = SourceInfo("figure", "poses", layout="CORE_16")
    return Reporter(Outputs(), bundle, "onnxruntime/cpu", info, outlet=outlet)  # type: ignore[arg-type]


def test_a_remark_does_not_change_what_the_source_is_said_to_be(reporter, outlet):
    reporter.status("reconnecting", 1, "attempt 1")
    reporter.remark(2, "action wave disabled (control)")
    reporter.reset([1], 3, "the camera was lost")
    reporter.heartbeat(Meter().read(True), 0, 0, (), 0)
    statuses = [one for one in outlet.told if isinstance(one, Status)]
    assert [one.state for one in statuses] == ["reconnecting", "reconnecting", "window_reset"]
    assert [one.backend for one in statuses] == ["onnxruntime/cpu", "onnxruntime/cpu", None]
    assert [one.state for one in outlet.told if isinstance(one, Heartbeat)] == ["reconnecting"]


def test_a_reason_that_is_no_text_is_told_all_the_same(reporter, outlet):
    reporter.remark(1, "cannot write /x/\udcff")
    (status,) = outlet.told
    assert isinstance(status, Status) and status.reason == "cannot write /x/?"
