"""What deploy/ and docs/operations.md promise: files that parse, and flags, paths and settings that exist."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from realtime.config import HINTS, read_cameras, read_command_line
from realtime.doctor import Doctor
from realtime.errors import UsageError
from realtime.fleet import FleetFlags
from realtime.logs import LINES_A_MINUTE
from realtime.process import Pace
from realtime.settings import Config, ProgramFlags
from scripts import make_settings

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
UNITS = ("pcle-live.service", "pcle-live-fleet.service")
INSTALLED = "/opt/pcle-live/"  # where the units and images have the checkout


class Unit(configparser.RawConfigParser):
    """A systemd unit; a key that stands several times keeps all its values, one a line."""

    def __init__(self, path: Path) -> None:
        class Several(dict):
            def __setitem__(self, key: object, value: object) -> None:
                if isinstance(value, list) and key in self:
                    value = [*self[key], *value]
                super().__setitem__(key, value)

        super().__init__(strict=False, dict_type=Several, interpolation=None)
        self.optionxform = str  # type: ignore[assignment]
        self.read_string(path.read_text(encoding="utf-8"))


@pytest.fixture(params=UNITS)
def unit(request) -> Unit:
    return Unit(DEPLOY / request.param)


def flags_of(*classes: type) -> set[str]:
    return {f"--{field.name.replace('_', '-')}" for one in classes for field in fields(one)}


RUN = {f"--{name.replace('_', '-')}" for name in HINTS} | flags_of(ProgramFlags) | {"--camera", "--help"}
FLEET = flags_of(FleetFlags) | {"--help"}
# Flags of other programs in these files.
OTHERS = {"--rm", "--network", "--device", "--build", "--detach", "--now", "--runtime", "--entrypoint"}


def test_a_unit_runs_what_there_is_with_flags_that_there_are(unit):
    command = shlex.split(unit["Service"]["ExecStart"])
    assert command[:2] == [f"{INSTALLED}.venv/bin/python", "-m"]
    assert (ROOT / f"{command[2].replace('.', '/')}.py").is_file()
    known = RUN if command[2] == "realtime.run" else FLEET
    assert {word for word in command if word.startswith("--")} <= known


def test_a_unit_is_watched_bounded_and_shut_in(unit):
    service = unit["Service"]
    assert service["Type"] == "notify" and float(service["WatchdogSec"]) <= 10
    assert service["Restart"] == "always" and service["RestartPreventExitStatus"] == "2 3"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert float(service["TimeoutStopSec"]) > Pace().drain_s
    wanted = {
        "DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
        "PrivateTmp": "yes", "DevicePolicy": "closed", "IPAddressDeny": "any", "KillMode": "mixed", "LimitCORE": "0",
        "CapabilityBoundingSet": "",
    }  # fmt: skip
    assert {key: service[key] for key in wanted} == wanted
    assert {"MemoryMax", "TasksMax", "DeviceAllow", "StateDirectory"} <= set(service)
    assert service["IPAddressAllow"].split("\n") == ["localhost", "192.0.2.10"]  # an address for documents
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_no_fault_in_a_unit(name, tmp_path):
    text = (DEPLOY / name).read_text().replace(f"{INSTALLED}.venv/bin/python", sys.executable)
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["camera.toml", "cameras.toml"])
def test_the_example_files_load(name):
    path = DEPLOY / name
    if name == "camera.toml":
        told = read_command_line(Config, "realtime.run", "", ["--config", str(path)])
        assert (told.input.name, told.output.http) == ("door", "127.0.0.1:8080")
        return
    cameras = read_cameras(path)
    assert [one.config.input.name for one in cameras] == ["door", "hall", "test"]
    assert [one.config.output.pub for one in cameras] == [f"tcp://127.0.0.1:{port}" for port in (5556, 5558, 5560)]
    for one in cameras:  # the comment above each table tells its addresses
        name, pub = one.config.input.name, one.config.output.pub
        above = path.read_text().split(f"[camera.{name}]")[0].rstrip().splitlines()
        said = " ".join(line for line in above[-2:] if line.startswith("#"))
        assert pub in said and f"http://{one.config.output.http}" in said


def test_examples_in_the_page_load_or_fail_as_it_says(tmp_path):
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        if "[camera." in block:
            assert len(read_cameras(path)) == 2
        else:
            assert read_command_line(Config, "realtime.run", "", ["--config", str(path)]).recognition.persons == 3
    faults = re.findall(r"error: cameras\.toml:(\d+): (.*)", PAGE)
    assert len(faults) == 2
    broken = {"sorce": '[camera.door]\nsorce = "0"\n', "persons": 'persons = "two"\n'}
    for line, text in faults:
        key = next(one for one in broken if one in text)
        given = broken[key]
        path = tmp_path / "cameras.toml"
        path.write_text("\n" * (int(line) - given.count("\n")) + given)
        with pytest.raises(UsageError) as error:
            read_cameras(path)
        assert str(error.value) == f"{path}:{line}: {text}"
    log_line = re.search(r"```json\n(.*)\n```", PAGE)
    assert log_line and set(json.loads(log_line[1])) == {"time", "level", "module", "message", "source"}


def test_the_page_has_every_setting_as_it_is():
    assert make_settings.page(PAGE) == PAGE, "run: python -m scripts.make_settings"
    assert all(f"| `{name.replace('_', '-')}` |" in PAGE for name in HINTS)


def test_every_flag_in_these_files_exists():
    known = RUN | FLEET | flags_of(Doctor) | OTHERS
    for path in (ROOT / "docs" / "operations.md", DEPLOY / "compose.yaml", *DEPLOY.glob("*.service")):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text()))
        assert named - {"--no-mirror"} <= known, path.name
    for path in DEPLOY.glob("Dockerfile*"):
        text = path.read_text()
        run = re.findall(r"(?:realtime\.run|pcle-live(?:-jetson)?(?= --)|CMD \[\"--)(.*)", text)
        named = {flag for line in run for flag in re.findall(r"(?<![\w-])--[a-z-]+", line)}
        assert named <= known and "--source" in named, path.name


def test_every_file_named_in_these_files_exists():
    for path in (ROOT / "docs" / "operations.md", *DEPLOY.iterdir()):
        text = path.read_text()
        for named in re.findall(r"(?<![\w/.])(?:deploy|docs|realtime/assets)/[\w./-]*[\w]", text):
            if named not in ("deploy/source", "deploy/passwords"):  # yours to write, and in no image
                assert (ROOT / named).exists(), f"{path.name}: {named}"
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
        for module in re.findall(r"-m ((?:realtime|export|scripts)\.\w+)", text):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{path.name}: {module}"


def test_figures_in_the_page_are_those_of_the_code():
    pace = Pace()
    assert f"does not turn for {pace.silence_s:g} s" in PAGE and f"not ready {pace.ready_s:g} s" in PAGE
    assert f"up to 0 to {pace.longest_s:g} s" in PAGE and f"waits 0 to {pace.shortest_s:g} s" in PAGE
    assert f"after {pace.drain_s:g} s is killed" in " ".join(PAGE.split())
    assert f"at most {LINES_A_MINUTE}" in PAGE


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.jetson"])
def test_an_image_is_made_as_the_makefile_does_and_runs_without_rights(name):
    text = (DEPLOY / name).read_text()
    assert "make install" in text
    assert text.index("make install") < text.index("USER pcle") < text.index("ENTRYPOINT")
    assert "/healthz" in text and "HEALTHCHECK" in text
    assert not re.search(r"(?i)password=|token=", text)


def test_the_compose_file_parses_and_is_healthy_by_the_page_it_serves():
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["pcle-live"]
    http = service["command"][service["command"].index("--http") + 1]
    assert f"http://{http}/healthz" in service["healthcheck"]["test"][-1]
    assert f"http://{http}/healthz" in (DEPLOY / "Dockerfile").read_text()
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["mem_limit"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_no_image_takes_secrets_along_and_each_takes_what_it_installs_from():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"deploy/source", "**/*.key_secret", ".git", ".venv"} <= set(ignored)
    assert not {"README.md", "LICENSE", "Makefile", "constraints.txt", "realtime", "train", "export", "calib"} & set(
        ignored
    )
