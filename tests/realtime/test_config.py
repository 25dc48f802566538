"""Configuration files: what wins, where each value comes from, and how a fault is told."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.config import GROUPS, HINTS, Settings, as_toml, read_cameras, read_command_line, resolve
from realtime.configfile import NONE, is_optional, read
from realtime.errors import UsageError
from realtime.settings import Config, InputFlags, OutputFlags, ProgramFlags, RecognitionFlags


def load(*args: object) -> Config:
    return read_command_line(Config, "realtime.run", "", [str(one) for one in args])


@pytest.fixture
def write(tmp_path: Path):
    def made(text: str | bytes, name: str = "c.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return made


TWO = """persons = 3
fps = 10
http = "127.0.0.1:8080"
record = "out/{name}.mcap"

[camera.door]
source = "0"
[camera.hall]
source = "rtsp://10.0.0.3/x"
mirror = true
persons = 1
http = "none"
"""


def test_the_command_line_wins_over_the_camera_that_over_the_file_that_over_the_default(write):
    path = write(TWO)
    hall = load("--config", path, "--name", "hall")
    assert (hall.recognition.persons, hall.input.fps, hall.recognition.threads) == (1, 10.0, 1)
    assert hall.output.http is None and hall.input.mirror and hall.output.record == Path("out/hall.mcap")
    said = load("--config", path, "--name", "hall", "--persons", 7, "--no-mirror", "--threads", 1, "--fps", "None")
    assert (said.recognition.persons, said.input.mirror, said.input.fps) == (7, False, None)
    assert load("--config", path, "--name", "door").recognition.persons == 3


def test_a_flag_that_says_the_default_is_still_said(write):
    path = write('persons = 3\npub = "tcp://127.0.0.1:6000"\nbackend = "ort"\nquiet = true\n')
    pub, backend = OutputFlags().pub, RecognitionFlags().backend
    told = load("--config", path, "--pub", pub, "--backend", backend, "--no-quiet")
    assert (told.output.pub, told.recognition.backend, told.output.quiet) == (pub, backend, False)
    assert told.recognition.persons == 3


def test_hyphens_and_underscores_are_one(write):
    told = load("--config", write('publish-poses = true\nwait_subscriber = 5\nsource = "x.mp4"\n'))
    assert told.output.publish_poses and told.output.wait_subscriber == 5.0 and told.input.source == "x.mp4"


def test_a_camera_s_own_source_beats_a_file_of_sources(write):
    text = 'source-from = "/run/s"\n[camera.a]\n[camera.b]\nsource = "1"\n'
    path = write(text)
    assert load("--config", path, "--name", "a").input.source_from == Path("/run/s")
    assert load("--config", path, "--name", "b").input.source_from is None
    assert load("--config", path, "--name", "a", "--camera", "2").input.source_from is None


def test_cameras_without_addresses_of_their_own_count_up(write):
    text = 'http = "127.0.0.1:8080"\n' + "".join(f'[camera.c{n}]\nsource = "{n}"\n' for n in range(3))
    told = [one.config.output for one in read_cameras(write(text))]
    assert [one.pub for one in told] == [f"tcp://127.0.0.1:{port}" for port in (5556, 5558, 5560)]
    assert [one.http for one in told] == [f"127.0.0.1:{port}" for port in (8080, 8081, 8082)]
    base = 'pub = "tcp://[::1]:6000"\n' + text.partition("\n")[2]
    assert [one.config.output.pub for one in read_cameras(write(base))][2] == "tcp://[::1]:6004"


def test_one_camera_of_several_must_be_named(write):
    with pytest.raises(UsageError, match=r"has 2 cameras \(door, hall\): name one with --name door"):
        load("--config", write(TWO))
    with pytest.raises(UsageError, match=r"no table \[camera.hal\]; did you mean hall"):
        load("--config", write(TWO), "--name", "hal")
    only = load("--config", write('[camera.only]\nsource = "1"\n'))
    assert (only.input.name, only.input.source) == ("only", "1")


FAULTS = [
    ('sorce = "0"', ":1: unknown key 'sorce'; did you mean 'source'?"),
    ('\n[camera.a]\nsource = "0"\nperson = 2', r":4: unknown key 'person' in [camera.a]; did you mean 'persons'?"),
    ("zzzzqq = 1", ":1: unknown key 'zzzzqq'; keys are the flags"),
    ("source = 0", ":1: source must be text in quotes, got this (a whole number)"),
    ("fast = 1", ":1: fast must be true or false, got 1 (a whole number)"),
    ("persons = true", ':1: persons must be a whole number, or "none", got true (true or false)'),
    ('\n\nfps = "30"', ":3: fps must be a number, or \"none\", got '30' (text)"),
    ('backend = "cuda"', ':1: backend must be one of "auto", "trt", "rtx", "ort-cuda", "ort", got'),
    ("bundle = 1979-05-27", ':1: bundle must be a path in quotes, or "none", got'),
    ("events = ['a']", ":1: events must be a path in quotes"),
    ('bundle = ""', ":1: bundle must be a path"),
    ("fps = 1\nfps = 2", ":2: fps = ... is there twice"),
    ("publish-poses = true\npublish_poses = false", ":2: 'publish_poses' is there twice, also in line 1"),
    ('[camera.a]\nsource = "0"\n[camera.b]\nsource = "1"\n[camera.a]\n', ":5: [camera.a] is there twice"),
    ("[input]\nfast = true", ":1: unknown table [input]; keys stand at the top"),
    ('[[camera]]\nsource = "0"', ":1: camera names the tables [camera.NAME]"),
    ('camera = "0"', ":1: camera names the tables [camera.NAME]; for one camera write source"),
    ('[camera."a b"]\nsource = "0"', ":1: camera name 'a b': 1 to 40 letters"),
    ('[camera.a]\nname = "b"', ":2: name: the camera of [camera.a] is called a"),
    ("[camera.a]\ncamera = 0", ":2: unknown key 'camera' in [camera.a]; did you mean 'source'?"),
    ("camera.a = 3", ":1: a is not a camera"),
    ("source = camera0", ":1: source = ...: not TOML, invalid value; text stands in quotes"),
    ("source = 'rtsp://u:secret@h", ":1: source = ...: not TOML"),
    ('source = """\n0"""', ":1: source = ...: a value stands on one line"),
    ("config = 'x'", ":1: unknown key 'config'"),
    ("", " is empty; write at least source"),
    ("# nothing\n\n", " is empty"),
    (b"\xef\xbb\xbffps = 1", " begins with a byte order mark"),
    ("fps = 1".encode("utf-16"), " is UTF-16; save it as UTF-8"),
    (b"fps = 1\nsource = '\xff'", ":2: byte 0xff is not UTF-8"),
    (b"# " + b"x" * 10_000_000, " has more than 1 MB, so it is no configuration"),
    ("fps = " + "[" * 5000, "c.toml"),
]


@pytest.mark.parametrize(("text", "complaint"), FAULTS, ids=[said[:40] for _, said in FAULTS])
def test_a_fault_is_told_by_file_line_and_key_and_what_to_do(write, text, complaint):
    with pytest.raises(UsageError) as error:
        load("--config", write(text), "--name", "a")
    assert error.value.exit_code == 2
    assert f"c.toml{complaint}".replace("c.tomlc.toml", "c.toml") in str(error.value)
    assert "secret" not in str(error.value)


NASTY = ["pa#ssword", "pa=ssword", "pa'ssword", 'pa"ssword', "pa]ssword", "[pa] ssword", "pa ss word", "ssword # no"]


@pytest.mark.parametrize("password", NASTY)
@pytest.mark.parametrize(
    "text",
    [
        'source = "rtsp://u:{}@h/"\nsource = "rtsp://u:{}@h/"',
        "source = 'rtsp://u:{}@h/",
        "source = rtsp://u:{}@h/",
        "source: rtsp://u:{}@h/",
        "source rtsp://u:{}=@h/",
        "rtsp://u:{}@h/",
        "{}=1=2",
        'source = """rtsp://u:\\\n{}@h/"""\n',
        'source = """rtsp://u:\n{}@h/',
        "source-from = ['rtsp://u:{}@h/']",
        "threads = 'u:{}@h'",
    ],
)
def test_no_fault_shows_a_part_of_a_password(write, text, password):
    with pytest.raises(UsageError) as error:
        load("--config", write(text.replace("{}", password)))
    assert "word" not in str(error.value)


@pytest.mark.parametrize("path", ["/nowhere/c.toml", "/"])
def test_a_file_that_cannot_be_read_is_told(path):
    with pytest.raises(UsageError, match="check its path and permissions"):
        load("--config", path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '[camera.a]\nsource = "0"\n[camera.b]\nsource = "/dev/video0"',
            "cameras a and b have the same source /dev/video0",
        ),
        (
            '[camera.a]\nsource = "rtsp://u:pw@h/x"\n[camera.b]\nsource = "rtsp://u:pw@h/x"',
            r"the same source rtsp://\*\*\*@h/x; change it in \[camera.b\]",
        ),
        (
            '[camera.a]\npub = "tcp://127.0.0.1:6000"\n[camera.b]\nsource = "1"\npub = "tcp://127.0.0.1:6001"',
            "the same port 6001",
        ),
        ('[camera.a]\nhttp = "127.0.0.1:5558"\n[camera.b]\nsource = "1"', "the same port 5558"),
        ('pub = "ipc:///tmp/x"\n[camera.a]\n[camera.b]\nsource = "1"', "the same address ipc:///tmp/x"),
        ('events = "e"\n[camera.a]\n[camera.b]\nsource = "1"', "the same file"),
        ('pub = "tcp://127.0.0.1:65534"\n[camera.a]\n[camera.b]\nsource = "1"', "port 65536; ports end at 65535"),
    ],
)  # fmt: skip
def test_cameras_that_collide_are_refused(write, text, complaint):
    with pytest.raises(UsageError, match=complaint) as error:
        read_cameras(write(text))
    assert "pw" not in str(error.value)


def test_every_setting_is_printed_with_its_origin(write, capsys):
    path = write(TWO)
    with pytest.raises(SystemExit) as end:
        load("--config", path, "--name", "hall", "--threads", 2, "--print-config")
    printed = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    rows = [line for line in printed if not line.startswith("#")]
    assert len(rows) == len(HINTS)
    assert f"persons = 1  # {path}:11" in rows
    assert f"fps = 10.0  # {path}:2" in rows
    assert "threads = 2  # command line" in rows
    assert "fast = false  # default" in rows
    assert 'pub = "tcp://127.0.0.1:5558"  # default, counted up for camera 2' in rows
    assert f'name = "hall"  # {path}:8' in rows


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        ("rtsp://user:p@s/s:w0rd?#@10.0.0.2/x", "rtsp://***@10.0.0.2/x"),
        ("http://h/x?token=abc", "http://h/x?***"),
        ("rtsp://${USER}:${PASSWORD}@h/x?key=${KEY}", "rtsp://${USER}:${PASSWORD}@h/x?key=${KEY}"),
        ("rtsp://admin:${PASSWORD}x@h/x", "rtsp://***@h/x"),
        ("rtsp://admin:${PASSWORD}@h/x", "rtsp://***@h/x"),
        ("rtsp://h/x", "rtsp://h/x"),
        (
            "rtsp://10.0.0.7/user=admin_password=s3cretpw_channel=1_stream=0.sdp",
            "rtsp://10.0.0.7/user=admin_password=***_channel=1_stream=0.sdp",
        ),
        (
            "rtsp://10.0.0.7/user=${U}_password=${P}_channel=1_stream=0.sdp",
            "rtsp://10.0.0.7/user=${U}_password=${P}_channel=1_stream=0.sdp",
        ),
        ("rtsp://10.0.0.7/user=a_password=${P}x_channel=1", "rtsp://10.0.0.7/user=a_password=***_channel=1"),
        ("http://h/x?c2VjcmV0=", "http://h/x?***"),
        ("http://h/x?key=${KEY}&token=abc", "http://h/x?***"),
        ("rtsp://${USER}:${PASSWORD}@more:secret@h/x", "rtsp://***@h/x"),
        ("rtsp://${USER}:${PASSWORD}@h/x#secret", "rtsp://***@h/x#***"),
        ("admin:s3cret@10.0.0.7/x", "***@10.0.0.7/x"),
        ("${ADDRESS}", "${ADDRESS}"),
    ],
)
def test_no_secret_is_printed(source, printed, capsys):
    with pytest.raises(SystemExit):
        load("--source", source, "--print-config")
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("source = "))
    assert row.startswith(f'source = "{printed}"')
    assert ("secrets" in row) == (source != printed)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    if is_optional(hint):
        inner = next(one for one in get_args(hint) if one is not type(None))
        return st.none() | values_of(inner).filter(lambda value: str(value) != NONE)
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    return {
        bool: st.booleans(),
        int: st.integers(-(10**20), 10**20),
        float: st.floats(allow_nan=False),
        str: TEXT,
        Path: TEXT.filter(lambda text: not text.startswith("~")).map(Path),
    }[hint]


CONFIGS = st.fixed_dictionaries({name: values_of(hint) for name, hint in HINTS.items()})


@given(CONFIGS.map(lambda values: values | {"source": "plain " + values["source"].replace("://", "")}))
def test_what_is_printed_gives_the_same_settings_again(tmp_path_factory, values):
    groups = {"input": InputFlags, "recognition": RecognitionFlags, "output": OutputFlags}
    config = Config(
        **{g: groups[g](**{n: values[n] for n in names}) for g, names in GROUPS.items()},  # type: ignore[arg-type]
        program=ProgramFlags(),
    )
    path = tmp_path_factory.mktemp("round") / "c.toml"
    path.write_text(as_toml(Settings(config, dict.fromkeys(HINTS, "a\nb#"))), encoding="utf-8")
    file = read(path, HINTS)
    blank = Config(InputFlags(), RecognitionFlags(), OutputFlags(), ProgramFlags())
    again = resolve(blank, set(), file)
    assert again.config == config
    assert {given.line for given in file.top.values()} <= set(range(1, 60)) and len(file.top) == len(HINTS)
    assert not any(isinstance(v, float) and math.isnan(v) for v in again.values.values())


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("any") / "c.toml"
    path.write_bytes(raw)
    try:
        read(path, HINTS)
    except UsageError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("flag", ["--pub", "--control", "--http", "--events", "--record", "--bundle"])
def test_none_on_the_command_line_is_none(flag):
    told = load(flag, "none")
    name = flag[2:]
    group = next(group for group, names in GROUPS.items() if name in names)
    assert getattr(getattr(told, group), name) == ("none" if name == "pub" else None)


def test_a_wrong_flag_is_told_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as end:
        load("--sorce", "0")
    assert end.value.code == 2
    assert "--source" in capsys.readouterr().err


def test_help_names_a_switch_once_and_its_opposite_is_taken(capsys):
    with pytest.raises(SystemExit):
        load("--help")
    said = capsys.readouterr().out
    assert "--mirror" in said and "--no-mirror" not in said and "--config" in said
    assert load("--no-mirror").input.mirror is False


def test_version_tells_what_decides_the_results(capsys):
    with pytest.raises(SystemExit) as end:
        load("--version")
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert lines[0].startswith("pcle-live 0.") and lines[1].startswith(f"Python {sys.version.split()[0]}")
    assert {line.split()[0] for line in lines[2:]} >= {"numpy", "onnxruntime", "mediapipe"}


def test_every_setting_can_stand_in_a_file():
    flags = {f.name for group in (InputFlags, RecognitionFlags, OutputFlags) for f in dataclasses.fields(group)}
    assert set(HINTS) == flags
