"""/metrics: what it says, and that it is Prometheus' text format to the letter."""

from __future__ import annotations

import json
import math
import re
import urllib.request
from collections import defaultdict

import pytest

from realtime.metrics import MOST_SERIES, Histogram, Metrics, number, render
from realtime.web import WebServer
from tests.realtime.watched_line import WatchedLine

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
VALUE = re.compile(r"[+-]?Inf|NaN|-?\d+(\.\d+)?(e[+-]?\d+)?")


def read(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample; asserts each rule of the format: HELP and TYPE once and first, families whole, no sample twice."""
    assert text.endswith(b"\n") and b"\r" not in text
    samples: dict = {}
    kinds: dict[str, str] = {}
    family = ""
    for line in text.decode("utf-8").splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in kinds, f"{family} comes in two pieces"
            kinds[family] = ""
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family and kind in ("counter", "gauge", "histogram")
            assert (kind == "counter") == name.endswith("_total"), name
            kinds[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            name, inner, value = found[1], found[2] or "", found[3]
            suffix = name.removeprefix(family)
            assert suffix in (("_bucket", "_sum", "_count") if kinds[family] == "histogram" else ("",)), line
            labels = tuple((label, _plain(text)) for label, text in LABEL.findall(inner))
            assert "".join(part.group(0) for part in LABEL.finditer(inner)) == inner, line
            assert len({label for label, _ in labels}) == len(labels)
            assert VALUE.fullmatch(value), line
            assert (name, labels) not in samples, f"twice: {line}"
            samples[name, labels] = float(value.replace("Inf", "inf"))
    assert all(kinds.values())
    _check_histograms(samples, [name for name, kind in kinds.items() if kind == "histogram"])
    return samples


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def _check_histograms(samples: dict, names: list[str]) -> None:
    for name in names:
        buckets = defaultdict(list)
        for (sample, labels), value in samples.items():
            if sample == f"{name}_bucket":
                assert labels[-1][0] == "le"
                buckets[labels[:-1]].append((float(labels[-1][1].replace("Inf", "inf")), value))
        for labels, pairs in buckets.items():
            assert pairs == sorted(pairs) and [count for _, count in pairs] == sorted(count for _, count in pairs)
            assert math.isinf(pairs[-1][0]) and pairs[-1][1] == samples[f"{name}_count", labels]
            assert (f"{name}_sum", labels) in samples


def told(act, now_ns: int = 1) -> dict:
    """What the metrics of a line say after it did that; labels without the source."""
    metrics = Metrics()
    line = WatchedLine(lambda topic, payload: metrics.take(topic.split(".")[0], "cam0", json.loads(payload), 1))
    act(line)
    found = read(metrics.text(now_ns))
    return {(name, *(value for label, value in labels if label != "source")): v for (name, labels), v in found.items()}


def test_a_heartbeat_becomes_gauges_and_counters_in_base_units():
    found = told(lambda line: line.heartbeat(fps=29.8, age_ms=40.0, drops=7))
    assert found["pcle_line_up",] == 1
    assert found["pcle_frames_per_second",] == 29.8
    assert found["pcle_frame_age_seconds", "0.95"] == 0.04
    assert found["pcle_stage_seconds", "pose", "0.5"] == 0.0121
    assert found["pcle_memory_bytes",] == 382.4e6
    assert found["pcle_persons",] == 2
    assert (found["pcle_frames_dropped_total",], found["pcle_refused_total",], found["pcle_reconnects_total",]) == (
        7,
        1,
        0,
    )
    assert found["pcle_frame_age_p95_seconds_bucket", "0.025"] == 0
    assert found["pcle_frame_age_p95_seconds_bucket", "0.05"] == 1
    assert found["pcle_frame_age_p95_seconds_sum",] == 0.04


def test_events_are_counted_by_action_and_phase_and_their_delay_is_a_histogram():
    def act(line: WatchedLine) -> None:
        for count in range(3):
            line.start(f"w{count}", 1, "wave")
        line.end("w0", "track_lost")
        line.start("c", 2, "clap")
        line.heartbeat()

    found = told(act)
    assert (found["pcle_events_total", "wave", "start"], found["pcle_events_total", "wave", "end"]) == (3, 1)
    assert found["pcle_events_total", "clap", "start"] == 1
    assert found["pcle_event_ends_total", "track_lost"] == 1
    assert found["pcle_open_events",] == 3
    assert found["pcle_capture_to_publish_seconds_count",] == 5
    assert found["pcle_capture_to_publish_seconds_bucket", "0.05"] == 5


def test_the_state_is_one_of_an_enumeration():
    found = told(lambda line: [line.status("online"), line.status("reconnecting", "no answer")])
    states = {state: value for (name, *rest), value in found.items() if name == "pcle_source_state" for state in rest}
    assert [state for state, value in states.items() if value] == ["reconnecting"]
    assert len(states) == 8 and "window_reset" not in states


def test_a_silent_line_is_down_and_tells_nothing_of_the_present():
    found = told(lambda line: line.heartbeat(), now_ns=4 * 10**9)
    assert found["pcle_line_up",] == 0
    assert found["pcle_heartbeat_age_seconds",] == pytest.approx(4.0)
    assert not [name for name, *_ in found if name in ("pcle_frames_per_second", "pcle_persons", "pcle_stage_seconds")]
    assert found["pcle_frames_dropped_total",] == 3  # counted, not measured


def test_names_that_would_break_the_format_are_escaped():
    nasty = 'a"b\\c\nd # HELP x\ue000\ud800'
    metrics = Metrics()
    event = {"phase": "start", "action": {"id": nasty}}
    metrics.take("action", nasty, event, 1)
    metrics.take("heartbeat", nasty, {"fps": 1, "stage_ms": {nasty: {"p50": 1, "p95": 2}}}, 1)
    found = read(metrics.text(1))
    labels = {text for _, pairs in found for _, text in pairs}
    assert nasty.replace("\ud800", "?") in labels


def test_what_is_no_number_is_left_out():
    metrics = Metrics()
    wrong = {"fps": "fast", "persons": True, "memory_mb": -1, "drops": float("nan"), "uptime_s": float("inf")}
    metrics.take("heartbeat", "cam0", wrong | {"stage_ms": [], "frame_age_ms": {"p95": {}}, "open_events": 3}, 1)
    metrics.take("action", "cam0", {"phase": "start", "action": 3, "latency_ms": {"capture_to_publish": "x"}}, 1)
    metrics.take("status", "cam0", {"state": ["online"]}, 1)
    names = {name for name, _ in read(metrics.text(1))}
    assert "pcle_line_up" in names
    assert not names & {"pcle_frames_per_second", "pcle_persons", "pcle_memory_bytes", "pcle_frames_dropped_total"}


def test_thousands_of_actions_become_one_other():
    metrics = Metrics()
    for index in range(MOST_SERIES + 500):
        metrics.take("action", "cam0", {"phase": "start", "action": {"id": f"a{index}"}}, 1)
    found = read(metrics.text(1))
    series = [dict(labels) for name, labels in found if name == "pcle_events_total"]
    assert len(series) == MOST_SERIES + 1
    assert found["pcle_events_total", (("source", "cam0"), ("action", "other"), ("phase", "start"))] == 500


def test_a_histogram_counts_a_value_at_its_bound_as_below_it():
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 9.0):
        histogram.add(value)
    assert [value for _, _, value in histogram.samples(())] == [1, 2, 3, 11.5, 3]


@pytest.mark.parametrize(
    ("value", "written"),
    [(3.0, "3"), (0.1, "0.1"), (1e300, "1e+300"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (0.0, "0")],
)
def test_numbers_are_written_as_prometheus_reads_them(value, written):
    assert number(value) == written and VALUE.fullmatch(written)


def test_a_family_without_samples_is_not_there():
    assert render("x", "gauge", "nothing", []) == []
    assert render("x", "gauge", "not a number", [("", (), math.nan)]) == []


def test_the_page_serves_them_with_its_own_figures():
    with WebServer("127.0.0.1:*") as server:
        WatchedLine(server.feed).heartbeat()
        server.note(subscribers=2, outlet_restarts=1)
        server.note(outlet_memory_bytes=3e7, handshakes_refused=4)
        with urllib.request.urlopen(f"{server.url}metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            found = read(answer.read())
        with pytest.raises(ValueError, match="known: subscribers, outlet_restarts, outlet_memory_bytes, hand"):
            server.note(moods=1)
    assert (found["pcle_subscribers", ()], found["pcle_outlet_restarts_total", ()]) == (2, 1)
    assert (found["pcle_outlet_memory_bytes", ()], found["pcle_handshakes_refused_total", ()]) == (3e7, 4)
    assert found["pcle_web_requests_total", ()] == 1
    assert found["process_resident_memory_bytes", ()] > 1e6 and found["process_open_fds", ()] > 3


def test_prometheus_own_parser_reads_the_same():
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    metrics = Metrics()
    line = WatchedLine(lambda topic, payload: metrics.take(topic.split(".")[0], 'c"\\\n', json.loads(payload), 1))
    line.heartbeat()
    line.start("e", 1, "wave")
    text = metrics.text(1)
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert theirs == {(name, tuple(sorted(labels))): value for (name, labels), value in read(text).items()}
