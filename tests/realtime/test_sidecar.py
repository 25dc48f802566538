"""An engine is loaded only where it fits bundle, library and machine; refusals end in the command that mends it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime import cache
from realtime import sidecar as sidecars
from realtime.bundle import Bundle, load_bundle, write_bundle
from realtime.cache import cache_folder
from realtime.errors import BundleError
from realtime.sidecar import (
    Expected,
    Sidecar,
    Source,
    contract_from,
    contract_id,
    contract_of,
    fits_capability,
    plan_version,
    read_engine,
    rebuild_command,
    same_version,
    write_engine,
)
from tests.realtime.engines import KEY, NAME, PLAN, expected, put, sidecar


@pytest.fixture
def bundle(tmp_path, bundle_spec, bundle_files, monkeypatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return load_bundle(write_bundle(tmp_path / "tiny", bundle_spec, bundle_files))


def refusal(path: Path, wanted: Expected, trust: bool = False) -> str:
    with pytest.raises(BundleError) as caught:
        read_engine(path, wanted, trust)
    text = str(caught.value)
    assert caught.value.exit_code == 3 and "\n" not in text and str(path) in text
    return text


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the sidecar's JSON in place."""
    file = path.with_name(path.name + ".json")
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def damage(path: Path, name: str) -> Any:
    """The ways an engine's files go wrong, by name."""
    file = path.with_name(path.name + ".json")
    ways: dict[str, Callable[[], Any]] = {
        "no engine": path.unlink,
        "no sidecar": file.unlink,
        "not JSON": lambda: file.write_text("{"),
        "not finite": lambda: file.write_text('{"schema": NaN}'),
        "deep": lambda: file.write_text("[" * 100_000),
        "not text": lambda: file.write_bytes(b"\xff\xfe\x00"),
        "a list": lambda: file.write_text("[]"),
        "huge": lambda: file.write_text(" " * 1_000_001),
        "schema": lambda: edit(path, lambda d: d.update(schema="engine/2")),
        "lacks a key": lambda: edit(path, lambda d: d.pop("build")),
        "unknown key": lambda: edit(path, lambda d: d["build"].update(color="red")),
        "wrong type": lambda: edit(path, lambda d: d["build"].update(tensorrt=10.3)),
        "true is no number": lambda: edit(path, lambda d: d["build"]["profile"].update(max=True)),
        "two lines": lambda: edit(path, lambda d: d["build"].update(gpu="Orin\nerror: none")),
        "unknown kind": lambda: edit(path, lambda d: d.update(kind="openvino")),
        "truncated": lambda: path.write_bytes(PLAN[:-1]),
        "longer": lambda: path.write_bytes(PLAN + b"x"),
        "replaced": lambda: path.write_bytes(PLAN[:-1] + b"x"),
        "a pipe": lambda: (file.unlink(), os.mkfifo(file)),
        "a folder": lambda: (path.unlink(), path.mkdir()),
        "other contract": lambda: edit(path, lambda d: d["contract"].update(window=32)),
        "other joints": lambda: edit(path, lambda d: d["contract"]["joints"].reverse()),
        "other classes": lambda: edit(path, lambda d: d["contract"]["classes"].reverse()),
        "other fps": lambda: edit(path, lambda d: d["contract"].update(fps=30.0)),
        "contract has more": lambda: edit(path, lambda d: d["contract"].update(bodies=2)),
        "other graph": lambda: edit(path, lambda d: d["source"].update(onnx_sha256="b" * 64)),
    }
    ways[name]()


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("no engine", "no such file"),
        ("no sidecar", f"no sidecar {NAME}.json"),
        ("not JSON", "sidecar is not valid (Expecting"),
        ("not finite", "sidecar is not valid (NaN is not a number"),
        ("deep", "sidecar is not valid (maximum recursion"),
        ("not text", "sidecar is not valid ("),
        ("a list", "it must be an object with the keys kind,"),
        ("huge", "has 1000001 bytes, at most 1000000"),
        ("schema", "schema must be 'engine/1', got 'engine/2'"),
        ("lacks a key", "it must be an object with the keys kind,"),
        ("unknown key", "build must be an object with the keys precision,"),
        ("wrong type", "build.tensorrt must be str, got 10.3"),
        ("true is no number", "build.profile.max must be int, got True"),
        ("two lines", "build.gpu must be a line of 1 to 200 characters"),
        ("unknown kind", "kind must be one of tensorrt, tensorrt_rtx, got 'openvino'"),
        ("truncated", "it has 44 bytes where its sidecar says 45"),
        ("longer", "it has 46 bytes where its sidecar says 45"),
        ("replaced", "one of the two was replaced"),
        ("a pipe", f"{NAME}.json is not a plain file"),
        ("a folder", "where its sidecar says 45"),
        ("other contract", "its window is not this bundle's: 32, not 16"),
        ("other joints", "its joints are not this bundle's: entry 0 is 'right_ankle', not 'hip_center'"),
        ("other classes", "its classes are not this bundle's: entry 0 is 'sit_down', not 'nothing'"),
        ("other fps", "its fps is not this bundle's: 30.0, not 20.0"),
        ("contract has more", "its bodies is not this bundle's: 2, not None"),
        ("other graph", "the bundle was exported again since"),
    ],
)
def test_an_engine_whose_files_are_wrong_is_refused_with_the_command_that_mends_it(bundle, way, said):
    path = put(bundle)
    damage(path, way)
    text = refusal(path, expected(bundle))
    assert said in text, text
    assert text.endswith(f": python -m export.trt {bundle.path} --backend trt --precision fp16")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"version": "10.16.2"}, "it was built with TensorRT 10.3.0, this machine has 10.16.2"),
        ({"version": "10.3.1"}, "it was built with TensorRT 10.3.0, this machine has 10.3.1"),
        ({"capability": "8.6", "gpu": "RTX"}, "for compute capability 8.7 (Orin), this machine has 8.6 (RTX)"),
        ({"os": "windows"}, "it was built on "),
        ({"machine": "riscv64"}, "this is linux riscv64"),
        ({"kind": "tensorrt_rtx"}, "it is of backend trt, not rtx"),
        ({"precision": "int8"}, "it is of precision fp16, not int8"),
    ],
)
def test_an_engine_for_another_machine_is_refused(bundle, other, said):
    wanted = expected(bundle, **other)
    text = refusal(put(bundle), wanted)
    assert said in text, text
    assert text.endswith(rebuild_command(bundle.path, wanted.kind, wanted.precision))


def test_an_engine_that_fits_is_read_byte_for_byte(bundle):
    read = read_engine(put(bundle), expected(bundle))
    assert read.plan == PLAN and read.warnings == () and read.sidecar == sidecar(bundle)


def test_an_engine_built_without_a_gpu_is_unverified_and_read_all_the_same(bundle):
    made = replace(sidecar(bundle, gpu=None), verified=None)
    path = write_engine(cache_folder() / KEY, NAME, PLAN, made)
    read = read_engine(path, expected(bundle))
    assert read.sidecar.verified is None and read.warnings == ()


def test_a_gpu_of_another_name_is_a_warning(bundle):
    warnings = read_engine(put(bundle), expected(bundle, gpu="Orin Nano")).warnings
    assert len(warnings) == 1 and "built on Orin and runs on Orin Nano" in warnings[0]


def test_the_version_in_the_bytes_counts_more_than_the_sidecars(bundle):
    plan = PLAN[:24] + bytes([10, 13, 2, 6]) + PLAN[28:]
    text = refusal(put(bundle, plan), expected(bundle))
    assert "it was built with TensorRT 10.13.2.6 whatever its sidecar says, this machine has 10.3.0" in text


@pytest.mark.parametrize("plan", [b"short", PLAN[:24] + bytes(4) + PLAN[28:], PLAN[:24] + b"\xff\xff\xff\xff"])
def test_version_bytes_that_cannot_be_read_are_a_warning(bundle, plan):
    assert "cannot be read" in read_engine(put(bundle, plan), expected(bundle)).warnings[0]


def test_a_foreign_engine_needs_trust_and_trust_skips_no_other_check(bundle, tmp_path):
    path = put(bundle, folder=tmp_path / "elsewhere")
    text = refusal(path, expected(bundle))
    assert "does not lie in your own cache" in text and "--trust" in text
    assert text.endswith(rebuild_command(bundle.path, "tensorrt", "fp16"))
    assert read_engine(path, expected(bundle), trust=True).plan == PLAN
    path.write_bytes(b"x" * len(PLAN))
    text = refusal(path, expected(bundle), trust=True)
    assert "replaced" in text and text.endswith(f"--precision fp16 -o {path.parent} --replace")


@pytest.mark.parametrize("what", ["folder", "engine", "sidecar", "cache"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_an_engine_that_others_may_write_is_foreign(bundle, what, mode):
    path = put(bundle)
    file = path.with_name(path.name + ".json")
    place = {"folder": path.parent, "engine": path, "sidecar": file, "cache": cache_folder()}[what]
    place.chmod(place.stat().st_mode | mode)
    assert f"others may write to {place}" in refusal(path, expected(bundle))
    assert read_engine(path, expected(bundle), trust=True).plan == PLAN


def test_what_was_looked_at_is_what_is_read_though_a_link_is_changed_meanwhile(bundle, tmp_path, monkeypatch):
    """Who owns the folder of a link could point it elsewhere once the owner of its target is known."""
    real, evil = put(bundle), tmp_path / "evil.engine"
    evil.write_bytes(b"x" * len(PLAN))
    link = tmp_path / NAME
    link.symlink_to(real)
    link.with_name(f"{NAME}.json").symlink_to(f"{real}.json")
    looked = sidecars.foreign

    def change_the_link(path: Path) -> str | None:
        found = looked(path)
        link.unlink(missing_ok=True)
        link.symlink_to(evil)
        return found

    monkeypatch.setattr(sidecars, "foreign", change_the_link)
    assert read_engine(link, expected(bundle)).plan == PLAN


def test_a_path_that_cannot_be_looked_at_is_refused_in_one_line(bundle, tmp_path):
    text = refusal(tmp_path / ("a" * 300), expected(bundle), trust=True)
    assert "File name too long" in text and "python -m export.trt" in text


def test_a_folder_above_the_cache_that_anybody_may_rename_makes_it_foreign(bundle, tmp_path):
    path = put(bundle)
    (tmp_path / "cache").chmod(0o777)
    assert "anybody may rename what is in" in refusal(path, expected(bundle))
    (tmp_path / "cache").chmod(0o1777)  # sticky, as /tmp is
    assert read_engine(path, expected(bundle)).plan == PLAN


def test_an_engine_of_another_user_is_foreign(bundle, monkeypatch):
    path, me = put(bundle), os.geteuid()
    monkeypatch.setattr(cache.os, "geteuid", lambda: me + 1)
    assert f"belongs to user {me}, not to you ({me + 1})" in refusal(path, expected(bundle))


@pytest.mark.parametrize("which", ["engine", "sidecar", "folder"])
def test_a_link_that_leaves_the_cache_is_foreign(bundle, tmp_path, which):
    away = put(bundle, folder=tmp_path / "elsewhere")
    folder = cache_folder() / KEY
    if which == "folder":
        cache_folder().mkdir(parents=True)
        folder.symlink_to(away.parent)
    else:
        path = put(bundle)
        file = path if which == "engine" else path.with_name(path.name + ".json")
        file.unlink()
        file.symlink_to(away.parent / file.name)
    assert "does not lie in your own cache" in refusal(folder / NAME, expected(bundle))


def test_a_loop_of_links_is_refused(bundle):
    path = put(bundle)
    path.unlink()
    path.symlink_to(path)
    refusal(path, expected(bundle))


def test_the_contract_id_changes_with_the_contract_and_not_with_its_order(bundle):
    contract = contract_of(bundle)
    assert contract_id(contract) == contract_id(dict(reversed(contract.items())))
    assert contract_id(contract).startswith("pcle1:") and len(contract_id(contract)) == 22
    assert contract_id({**contract, "window": 32}) != contract_id(contract)


def test_a_contract_is_the_same_before_and_after_the_bundle_is_written(bundle, bundle_spec):
    assert contract_from(bundle_spec) == contract_of(bundle)


def test_a_sidecar_survives_its_own_text(bundle):
    made = replace(sidecar(bundle), source=Source("a" * 64, "tiny", "0.1.0", {"passed": True}))
    assert Sidecar.from_json(made.to_json()) == made and asdict(made)["schema"] == "engine/1"


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [
        ("8.7", "8.7", True),
        ("8.7", "8.6", False),
        ("8.0+", "8.0", True),
        ("8.0+", "12.0", True),
        ("8.0+", "7.5", False),
        ("8.6+8.9", "8.9", True),
        ("8.6+8.9", "12.0", False),
        ("any", "8.7", False),
        ("+", "8.7", False),
    ],
)
def test_compute_capabilities_fit(built, here, fits):
    assert fits_capability(built, here) is fits


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.3.0", "10.3.0.30", True),
        ("10.3.0", "10.3.1", False),
        ("1.7.1.116", "1.7.1.117", False),
        ("10.3", "10.3", False),
        ("none", "10.3.0", False),
    ],
)
def test_versions_are_compared_as_far_as_both_go(one, other, same):
    assert same_version(one, other) is same


def test_a_command_can_be_pasted_whatever_the_folder_is_called():
    command = rebuild_command(Path("my models/a"), "tensorrt_rtx", "fp32", Path("out dir"))
    assert command == "python -m export.trt 'my models/a' --backend rtx --precision fp32 -o 'out dir' --replace"


def test_the_version_of_a_true_plan_is_read():
    trt = pytest.importorskip("tensorrt_rtx", reason="the library that builds plans without a GPU is not installed")
    onnx = pytest.importorskip("onnx", reason="the graph is made with the onnx package, which is not installed")
    plan = tiny_plan(trt, onnx)
    wanted = tuple(int(part) for part in trt.__version__.split("."))
    assert plan_version(plan, "tensorrt_rtx") == wanted
    assert plan_version(plan, "tensorrt") is None  # 1.7 can be no version of TensorRT


def tiny_plan(trt: Any, onnx: Any) -> bytes:
    """An engine that multiplies by two; builds without a driver."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", kind, [1, 4])],
        [helper.make_tensor_value_info("y", kind, [1, 4])],
        [onnx.numpy_helper.from_array(np.float32(2), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    assert trt.OnnxParser(network, logger).parse(model.SerializeToString())
    return bytes(builder.build_serialized_network(network, builder.create_builder_config()))
