"""The doctor: a healthy machine can run the line, and each thing that is missing is named with what to do."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from realtime import checks, limits
from realtime.accelerator import _CACHED, _LIBRARY, accelerator
from realtime.bundle import write_bundle
from realtime.doctor import as_json, show

ROOT = Path(__file__).resolve().parents[2]


def healthy(code: str, argument: str) -> tuple[bool, str]:
    return True, "fine"


def broken(code: str, argument: str) -> tuple[bool, str]:
    return False, "ImportError: libGL.so.1"


@pytest.fixture
def bundle(tmp_path, bundle_spec, bundle_files) -> Path:
    write_bundle(tmp_path / "bundle", bundle_spec, bundle_files)
    return tmp_path / "bundle"


def rows(found) -> dict[str, checks.Check]:
    return {check.name: check for check in found}


def test_a_machine_with_everything_can_run_the_line(bundle):
    found = checks.examine(bundle, port=0, ask=healthy)
    assert checks.can_run(found), [check for check in found if check.state == "missing"]
    assert rows(found)["bundle"].found == "tiny, 2 actions, 16 rows at 20 fps, files whole"
    groups = [check.group for check in found]
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)  # each group in one piece


def test_what_does_not_load_is_missing_and_comes_with_advice(bundle):
    found = checks.examine(bundle, port=0, ask=broken)
    assert not checks.can_run(found)
    for name in ("OpenCV loads", "MediaPipe", "engine", "ONNX Runtime providers"):
        row = rows(found)[name]
        assert (row.state, row.found) == ("missing", "ImportError: libGL.so.1")
        assert row.advice


def test_without_a_gpu_nothing_of_nvidia_is_imported_and_nothing_is_missing(bundle):
    asked: list[str] = []

    def no_driver(code: str, argument: str) -> tuple[bool, str]:
        asked.append(code)
        return False, "no NVIDIA driver is installed"

    found = rows(accelerator(no_driver, bundle, {"tensorrt-rtx": "1.7.1"}.get))
    assert len(asked) == 1 and "driver_problem" in asked[0]
    assert {check.state for check in found.values()} <= {"ok", "note"}
    assert found["NVIDIA driver, GPU"].found == "no NVIDIA driver is installed"
    assert found["TensorRT-RTX"].found == "1.7.1" and "no GPU" in found["TensorRT-RTX"].advice
    assert found["TensorRT"].found == "none"


def test_with_a_gpu_libraries_are_tried_and_an_engine_is_looked_for(bundle):
    def with_driver(code: str, argument: str) -> tuple[bool, str]:
        if "devices" in code:
            return True, "Orin, compute capability 8.7, 8 GB"
        if "library" in code:
            return argument == "tensorrt", "10.3.0" if argument == "tensorrt" else "TensorRT-RTX cannot be imported"
        return True, "none"

    found = rows(accelerator(with_driver, bundle, lambda name: None))
    assert found["NVIDIA driver, GPU"].found == "Orin, compute capability 8.7, 8 GB"
    assert (found["TensorRT"].state, found["TensorRT"].found) == ("ok", "10.3.0")
    assert "pip install tensorrt-rtx" in found["TensorRT-RTX"].advice
    assert found["engine of this bundle"].advice == f"build one: python -m export.trt {bundle}"


def test_the_probes_of_the_accelerator_are_valid_python(bundle):
    found = rows(accelerator(checks.probe, bundle, lambda name: None))
    assert "Error" not in found["NVIDIA driver, GPU"].found
    for code, argument in ((_LIBRARY, "tensorrt"), (_CACHED, str(bundle))):
        good, said = checks.probe(code, argument)
        assert "Traceback" not in said and "Error" not in said, said
        assert good or "backend trt was demanded but" in said


def test_a_damaged_bundle_is_missing_and_named(bundle):
    (bundle / "model.onnx").write_bytes(b"a modem")
    row = rows(checks.examine(bundle, port=0, ask=healthy))["bundle"]
    assert row.state == "missing"
    assert "model.onnx" in row.found


@pytest.mark.parametrize(
    ("version", "state"),
    [(None, "missing"), ("2.1.0", "missing"), ("1.25.9", "missing"), ("1.26.4", "ok"), ("1.26", "ok")],
)
def test_packages_are_judged_by_their_version(version, state):
    fine = {name: least for name, least, _ in checks.PACKAGES}
    found = rows(checks._packages(lambda name: version if name == "numpy" else fine.get(name)))
    assert found["numpy"].state == state
    assert found["onnxruntime"].state == "ok"
    assert "a second OpenCV" not in found


def test_a_second_opencv_is_noted():
    fine = {name: least for name, least, _ in checks.PACKAGES} | {"opencv-python": "4.12.0.88"}
    row = rows(checks._packages(fine.get))["a second OpenCV"]
    assert (row.state, row.found) == ("note", "opencv-python 4.12.0.88")


def test_a_strange_model_folder_here_is_named(tmp_path, monkeypatch):
    (tmp_path / "mediapipe" / "modules").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert rows(checks._models())["this folder"].state == "missing"


def test_a_port_in_use_is_noted_and_stops_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        row = next(limits.ports(taken))
        assert row.state == "note"
        assert "--pub" in row.advice
        replays = list(limits.ports(taken - 1))[1]
        assert (replays.name, replays.state) == (f"port {taken} (replays)", "note")
    assert {row.state for row in limits.ports(70000)} == {"note"}
    assert [row.state for row in limits.ports(65535)][1] == "note"


def test_without_litert_one_person_can_still_be_followed(bundle):
    def without(code: str, argument: str) -> tuple[bool, str]:
        return ("litert" not in code, "ModuleNotFoundError: No module named 'ai_edge_litert'")

    found = checks.examine(bundle, port=0, ask=without)
    assert checks.can_run(found)
    assert rows(found)["LiteRT"].state == "note" and "one person" in rows(found)["LiteRT"].advice


def test_the_probe_of_litert_is_valid_python():
    assert limits.litert(checks.probe).found in ("loads", "ModuleNotFoundError: No module named 'ai_edge_litert'")


def test_few_open_files_are_noted(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda which: (64, 4096))
    assert limits.files().state == "note" and "ulimit -n" in limits.files().advice
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 4096))
    assert (limits.files().state, limits.files().found) == ("ok", "1024")


@pytest.mark.parametrize(("known", "state"), [(True, "ok"), (False, "note"), (None, "ok")])
def test_a_clock_that_is_not_kept_right_is_noted(known, state):
    row = limits.clock(lambda: known)
    assert row.state == state and "UTC" in row.found
    assert limits._synchronised() in (True, False, None)


def test_telemetry_is_none_here_and_told_where_there_is_some(monkeypatch):
    assert limits.telemetry({"mediapipe": "0.10.21"}.get).found == "none"
    assert "mediapipe 0.10.35 sends" in limits.telemetry({"mediapipe": "0.10.35"}.get).found
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    assert limits.telemetry(lambda name: None).state == "note"


def test_little_memory_is_noted(tmp_path):
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:  4000000 kB\nMemAvailable:  500000 kB\n")
    assert checks._memory(told).state == "note"
    assert checks._memory(tmp_path / "absent").found == "unknown"


def test_a_probe_tells_success_failure_and_death():
    assert checks.probe("import sys; print('noise'); print(sys.argv[1])", "word") == (True, "word")
    assert checks.probe("raise ImportError('no such thing')") == (False, "ImportError: no such thing")
    assert checks.probe("import os; os.kill(os.getpid(), 9)") == (False, "the process died of signal 9")


def test_what_is_printed_is_valid_json_and_plain_rows(bundle, capsys):
    found = [checks.Check("camera", "/dev/video0", "note", "a [red]camera[/]", "no permission")]
    document = json.loads(as_json(found, True))
    assert document["schema"] == "doctor/1"
    assert document["can_run"] is True
    assert document["checks"][0]["found"] == "a [red]camera[/]"
    show(found)
    printed = capsys.readouterr().out
    assert "a [red]camera[/]" in printed
    assert "-> no permission" in printed
    assert "can run" in printed


def test_the_command_line_tells_a_wrong_flag_with_code_2():
    command = [sys.executable, "-m", "realtime.doctor", "--port", "many"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--port" in done.stderr + done.stdout
