"""Preparing: what it writes, going on after kill -9 and Ctrl-C, broken files, and arrays that were changed."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from realtime.command import parse
from realtime.errors import UsageError
from realtime.skeleton import KINECT_V1_20, KINECT_V2_25
from train import prepare
from train.data import read
from train.data.jobs import SETS
from train.data.prepared import load
from train.data.splits import split

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = ("joints.npy", "index.npz", "prepared.json")


def write_ucla(folder, count, rng=None):
    """`count` sequences of NW-UCLA with 1 to 4 frames."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = rng or np.random.default_rng(0)
    for number in range(count):
        name = f"a{number % 12 + 1:02d}_s{number % 10 + 1:02d}_e{number // 30:02d}_v{number % 3 + 1:02d}"
        joints = rng.normal(0, 1, (1 + number % 4, 20, 3)).round(4).tolist()
        content = {"file_name": name, "skeletons": joints, "label": number % 10 + 1}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return sorted(folder.glob("*.json"))


def write_ntu(folder, name, frames=1, bodies=1):
    """One file of NTU RGB+D; every joint of body b lies at x = b + 1 in frame 0, y its index."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [str(frames)]
    for frame in range(frames):
        lines.append(str(bodies))
        for body in range(bodies):
            lines += [f"7205759403793110{body} 0 1 1 1 1 0 0.1 0.1 2", "25"]
            lines += [f"{body + 1 + frame * 0.01} {joint} 3 1 1 1 1 0 0 0 0 2" for joint in range(25)]
    (folder / f"{name}.skeleton").write_text("\n".join(lines))


def run(*arguments):
    """The command in this process: its exit code."""
    flags = parse(prepare.Config, "train.prepare", "", [str(part) for part in arguments])
    return prepare.run(flags, Console(quiet=True))


def start(*arguments):
    """The command as a process of its own, which begins a group."""
    command = [sys.executable, "-m", "train.prepare", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def contents(folder):
    return [(folder / name).read_bytes() for name in WRITTEN]


def test_what_is_written_is_what_the_reader_gives(tmp_path):
    write_ucla(tmp_path / "src", 23)
    assert run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1) == 0
    found, clips = load(tmp_path / "dst"), list(read("nw_ucla", tmp_path / "src"))
    assert len(found) == 23 and found.layout is KINECT_V1_20 and found.fps == SETS["nw_ucla"].fps
    for number, clip in enumerate(clips):
        np.testing.assert_array_equal(found.clip(number), clip.joints)
        assert (found.name[number], found.subject[number]) == (clip.name, clip.subject)
        assert found.classes[found.label[number]] == clip.label
        assert found.camera[number] == int(clip.name[-1]) and found.setup[number] == 0
    assert found.joints.dtype == np.float32 and not found.joints.flags.writeable
    assert [found.start.dtype, found.frames.dtype, found.label.dtype] == [np.int64, np.int32, np.int16]
    assert sorted(path.name for path in (tmp_path / "dst").iterdir()) == sorted(WRITTEN)


def test_several_processes_and_parts_write_the_same_bytes_as_one(tmp_path, monkeypatch):
    write_ucla(tmp_path / "src", 30)
    assert run("nw_ucla", tmp_path / "src", tmp_path / "one", "--workers", 1) == 0
    monkeypatch.setattr(prepare, "FILES_A_PART", 7)
    assert run("nw_ucla", tmp_path / "src", tmp_path / "two", "--workers", 2) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_ntu_has_two_bodies_a_camera_and_a_setup_and_skips_what_the_list_names(tmp_path):
    write_ntu(tmp_path / "src", "S002C003P004R001A060", frames=13, bodies=2)
    write_ntu(tmp_path / "src", "S002C003P008R001A001", frames=2)
    write_ntu(tmp_path / "src", "S002C003P008R002A001", frames=2, bodies=0)
    (tmp_path / "list.txt").write_text("S002C003P008R002A001\nS017C001P001R001A001\n")
    assert run("ntu60", tmp_path / "src", tmp_path / "dst", "--missing", tmp_path / "list.txt", "--workers", 1) == 0
    found = load(tmp_path / "dst")
    assert found.layout is KINECT_V2_25 and found.joints.shape == (15, 2, 25, 3) and len(found.classes) == 60
    assert found.name.tolist() == ["S002C003P004R001A060", "S002C003P008R001A001"]
    assert [found.label.tolist(), found.subject.tolist()] == [[59, 0], [4, 8]]
    assert [found.camera.tolist(), found.setup.tolist()] == [[3, 3], [2, 2]]
    assert found.clip(0)[0, :, 24].tolist() == [[1.0, 24.0, 3.0], [2.0, 24.0, 3.0]]  # camera space, as published
    assert not found.clip(1)[:, 1].any()
    skipped = json.loads((tmp_path / "dst" / "prepared.json").read_text())["skipped"]
    assert list(skipped) == ["S002C003P008R002A001"] and "missing" in skipped["S002C003P008R002A001"]


def test_an_ntu_file_without_anybody_is_refused_without_the_list(tmp_path):
    write_ntu(tmp_path / "src", "S002C003P008R002A001", frames=2, bodies=0)
    with pytest.raises(UsageError, match=r"S002C003P008R002A001\.skeleton: no frame.*--missing"):
        run("ntu60", tmp_path / "src", tmp_path / "dst")


def test_pku_mmd_is_cut_and_keeps_its_lists(tmp_path):
    row = " ".join(["1.5"] * 75 + ["0"] * 75)
    for name, labels in {"A01N01-L": "4,1,3,1\n51,2,9,1\n", "A01N02-R": "1,0,4,1\n2,4,9,1\n"}.items():
        for kind, text in (("skeleton", f"{row}\n" * 4), ("label", labels)):
            (tmp_path / "src" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "src" / kind / f"{name}.txt").write_text(text)
    (tmp_path / "src" / "skeleton" / "A01N03-M.txt").write_text(f"{row}\n")
    (tmp_path / "src" / "cross_subject_v2.txt").write_text("Training videos:\nA01N01-L\nTesting videos:\nA01N02-R\n")
    assert run("pku_mmd2", tmp_path / "src", tmp_path / "dst", "--workers", 1) == 0
    found = load(tmp_path / "dst")
    assert found.name.tolist() == ["A01N01-L_000", "A01N01-L_001", "A01N02-R_000"]
    assert [found.frames.tolist(), found.label.tolist()] == [[2, 2, 4], [3, 50, 0]]
    assert [found.subject.tolist(), found.camera.tolist()] == [[1, 1, 2], [1, 1, 3]]
    assert [mask.tolist() for mask in split(found, "xsub")] == [[True, True, False], [False, False, True]]
    with pytest.raises(UsageError, match="cross_view_v2"):
        split(found, "xview")
    skipped = json.loads((tmp_path / "dst" / "prepared.json").read_text())["skipped"]
    assert sorted(skipped) == ["A01N02-R_001", "A01N03-M"] and skipped["A01N03-M"] == "it has no label file"


def test_recordings_are_cut_into_their_labelled_pieces(tmp_path):
    (tmp_path / "src").mkdir()
    rows = "".join(f"{number} " + "1.5 " * 60 + "\n" for number in range(100, 120, 2))
    (tmp_path / "src" / "joints_s01_e02.txt").write_text(rows)
    (tmp_path / "src" / "actionLabel.txt").write_text("s01_e02\nwalk: 100 106\npush: 200 210\nsitDown: 106 112\n")
    assert run("utkinect", tmp_path / "src", tmp_path / "dst", "--workers", 1) == 0
    found = load(tmp_path / "dst")
    assert [found.classes[label] for label in found.label] == ["walk", "sit_down"] and found.frames.tolist() == [4, 4]
    skipped = json.loads((tmp_path / "dst" / "prepared.json").read_text())["skipped"]
    assert skipped == {"s01_e02_002": "nobody is seen during push"}


def test_frames_that_show_nobody_are_dropped_and_a_clip_of_nobody_is_skipped(tmp_path):
    files = write_ucla(tmp_path / "src", 2)
    content = json.loads(files[1].read_text())
    shown = content["skeletons"]
    files[1].write_text(json.dumps({**content, "skeletons": [np.zeros((20, 3)).tolist(), *shown]}))
    files[0].write_text(json.dumps({**json.loads(files[0].read_text()), "skeletons": [np.zeros((20, 3)).tolist()] * 3}))
    assert run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1) == 0
    found = load(tmp_path / "dst")
    assert found.name.tolist() == [files[1].stem]
    np.testing.assert_array_equal(found.clip(0)[:, 0], np.float32(shown))
    assert "nobody" in json.loads((tmp_path / "dst" / "prepared.json").read_text())["skipped"][files[0].stem]


def test_a_broken_file_is_named_and_what_was_read_before_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "FILES_A_PART", 5)
    files = write_ucla(tmp_path / "src", 20)
    good = files[12].read_text()
    files[12].write_text("{")
    with pytest.raises(UsageError, match=rf"{files[12].name} line 1: not JSON"):
        run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1)
    kept = {part.name: part.stat().st_mtime_ns for part in (tmp_path / "dst" / ".parts").iterdir()}
    assert sorted(kept) == ["00000.npz", "00001.npz"]
    with pytest.raises(UsageError, match="was begun and can go on"):
        load(tmp_path / "dst")
    files[12].write_text(good)
    reads = []
    monkeypatch.setattr(prepare, "read_task", lambda task, read=prepare.read_task: reads.append(task) or read(task))
    assert run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1) == 0
    assert [task.path.name for task in reads] == ["00002.npz", "00003.npz"]  # the others were not read again
    write_ucla(tmp_path / "again", 20)
    assert run("nw_ucla", tmp_path / "again", tmp_path / "whole", "--workers", 1) == 0
    assert contents(tmp_path / "dst") == contents(tmp_path / "whole")


def test_keep_going_names_all_broken_files_up_to_20(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "FILES_A_PART", 10)
    files = write_ucla(tmp_path / "src", 40)
    for file in files[5:30]:
        file.write_text("[]")
    with pytest.raises(UsageError) as refused:
        run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1, "--keep-going")
    told = str(refused.value)
    assert told.startswith("25 files are broken") and "and 5 more" in told and refused.value.exit_code == 2
    assert all(file.name in told for file in files[5:25])
    assert [part.name for part in (tmp_path / "dst" / ".parts").iterdir()] == ["00003.npz"]


def test_a_part_of_files_that_changed_since_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "FILES_A_PART", 5)
    files = write_ucla(tmp_path / "src", 10)
    broken = files[9].read_text()
    files[9].write_text("{")
    with pytest.raises(UsageError):
        run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1)
    files[9].write_text(broken)
    content = json.loads(files[0].read_text())
    files[0].write_text(json.dumps({**content, "skeletons": [np.full((20, 3), 7.0).tolist()]}))
    assert run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1) == 0
    assert (load(tmp_path / "dst").clip(0) == 7).all()


def test_a_part_that_is_damaged_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "FILES_A_PART", 5)
    files = write_ucla(tmp_path / "src", 10)
    good = files[9].read_text()
    files[9].write_text("{")
    with pytest.raises(UsageError):
        run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1)
    files[9].write_text(good)
    part = tmp_path / "dst" / ".parts" / "00000.npz"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0xFF
    part.write_bytes(content)
    with pytest.raises(UsageError, match=r"00000\.npz is damaged .*delete it"):
        run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1)
    part.unlink()
    assert run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1) == 0


def test_two_files_of_one_clip_are_refused(tmp_path):
    write_ucla(tmp_path / "src" / "a", 3)
    write_ucla(tmp_path / "src" / "b", 3)
    with pytest.raises(UsageError, match="two files give clip a01_s01_e00_v01"):
        run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("nw_ucla", "--workers", "0"), "--workers must be 1 or more"),
        (("ntu",), "no data set 'ntu'; there are nw_ucla"),
        (("nw_ucla", "--missing", "x.txt"), "--missing is the list of ntu60 and ntu120"),
        (("nw_ucla", "--split-file", "x.txt"), "--split-file is for pku_mmd1 and pku_mmd2"),
        (("utd_mhad",), "holds no files such as a1_s1_t1_skeleton.mat"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, flags, told):
    write_ucla(tmp_path / "src", 1)
    with pytest.raises(UsageError, match=told):
        run(flags[0], tmp_path / "src", tmp_path / "dst", *flags[1:])


@pytest.fixture
def written(tmp_path):
    write_ucla(tmp_path / "src", 6)
    assert run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 1) == 0
    return tmp_path / "dst"


@pytest.mark.parametrize("name", ["joints.npy", "index.npz"])
def test_an_array_of_which_a_byte_changed_is_refused(written, name):
    content = bytearray((written / name).read_bytes())
    content[-200] ^= 1
    (written / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name} is not what was written.*train\.prepare nw_ucla SRC"):
        load(written)


@pytest.mark.parametrize("name", ["joints.npy", "index.npz"])
def test_an_array_that_is_missing_or_cut_off_is_refused(written, name):
    content = (written / name).read_bytes()
    (written / name).write_bytes(content[:-100])
    with pytest.raises(UsageError, match="cannot be read"):
        load(written, verify=False)
    (written / name).unlink()
    with pytest.raises(UsageError, match=f"{name} is missing"):
        load(written)


def test_an_index_of_other_joints_is_refused(written):
    np.save(written / "joints.npy", np.zeros((3, 1, 20, 3), np.float32))
    with pytest.raises(UsageError, match=r"shape \(3, 1, 20, 3\)"):
        load(written, verify=False)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "prepared/1"}'])
def test_a_prepared_json_that_is_none_is_refused(written, content):
    (written / "prepared.json").write_text(content)
    with pytest.raises(UsageError, match=r"prepared\.json cannot be read.*train\.prepare"):
        load(written)


def test_another_schema_is_refused(written):
    content = json.loads((written / "prepared.json").read_text())
    (written / "prepared.json").write_text(json.dumps({**content, "schema": "prepared/2"}))
    with pytest.raises(UsageError, match="it says schema 'prepared/2'"):
        load(written)


def test_a_folder_without_prepared_data_says_how_to_make_it(tmp_path):
    with pytest.raises(UsageError, match=r"holds no prepared data; make it: python -m train\.prepare NAME SRC"):
        load(tmp_path)


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    return [int(child) for child in (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()]


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Files for many parts, and what preparing them uninterrupted gives."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(1200):
        name = f"S{number // 400 + 1:03d}C{number % 3 + 1:03d}P{number % 40 + 1:03d}R001A{number // 40 % 60 + 1:03d}"
        write_ntu(folder / "src", name, frames=4)
    assert run("ntu60", folder / "src", folder / "whole", "--workers", 1) == 0
    return folder


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_half_way_it_goes_on_to_the_same_bytes_and_leaves_no_process(many, tmp_path, stop):
    parts = tmp_path / "dst" / ".parts"
    process = start("ntu60", many / "src", tmp_path / "dst", "--workers", 2)
    until(lambda: len(list(parts.glob("*.npz"))) >= 3 or process.poll() is not None)
    readers = children(process.pid)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # as a terminal does
    else:
        process.kill()
    told = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL)
    assert readers
    until(lambda: not any(alive(pid) for pid in readers))
    if stop == signal.SIGINT:
        command = f"go on with: python -m train.prepare ntu60 {many / 'src'} {tmp_path / 'dst'} --workers 2"
        assert command in told and "Traceback" not in told
    done = sorted(part.name for part in parts.glob("*.npz"))
    assert 3 <= len(done) < 12 and not (tmp_path / "dst" / "prepared.json").exists()
    again = start("ntu60", many / "src", tmp_path / "dst", "--workers", 2)
    told = again.communicate(timeout=120)[1]
    assert again.returncode == 0 and f"{len(done)} of 12 parts were read before and are kept" in told
    assert contents(tmp_path / "dst") == contents(many / "whole") and not parts.exists()


@pytest.mark.slow
def test_the_command_ends_with_code_2_and_names_the_file(tmp_path):
    files = write_ucla(tmp_path / "src", 3)
    files[1].write_text("{")
    process = start("nw_ucla", tmp_path / "src", tmp_path / "dst")
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and files[1].name in told and "Traceback" not in told


@pytest.mark.slow
def test_real_nw_ucla_makes_its_round_trip_and_has_its_published_split(shared, tmp_path):
    archive = shared / "data" / "nw_ucla_all_sqe.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "src", filter="data")
    assert run("nw_ucla", tmp_path / "src", tmp_path / "dst", "--workers", 2) == 0
    found = load(tmp_path / "dst")
    train, test = split(found, "xview")
    assert (len(found), train.sum(), test.sum()) == (1484, 1020, 464)
    clips = list(read("nw_ucla", tmp_path / "src"))
    np.testing.assert_array_equal(found.joints, np.concatenate([clip.joints for clip in clips]))
    assert found.name.tolist() == [clip.name for clip in clips]
    assert [found.classes[label] for label in found.label] == [clip.label for clip in clips]
