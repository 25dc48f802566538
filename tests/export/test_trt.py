"""The command from a run, a bundle or a folder of graphs to engines: what it writes, says, and refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from export import bundle as bundles
from export import engines, gates, plain
from export.build import target_of
from export.engines import Wish, build_engine, choose_backend
from export.progress import Steps
from export.trt import kind_of, main, name_of
from realtime.bundle import load_bundle, load_reference
from realtime.cuda import driver_problem
from realtime.engine import OrtEngine
from realtime.errors import BundleError, GpuError
from realtime.sidecar import Expected, Sidecar, contract_id, contract_of, graph_sha256, read_engine
from tests.export.runs_by_hand import gathered, live_run, published_run
from tests.export.test_bundle import quiet, turned_round

without_gpu = pytest.mark.skipif(driver_problem() is None, reason="this machine has a driver")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Windows are gathered once, and the user's own cache stays as it is."""
    monkeypatch.setattr(bundles, "gather", lambda *_: gathered())
    monkeypatch.setattr(engines, "gather", lambda *_: gathered())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install -e '.[trt,rtx]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return live_run(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture(scope="module")
def bundle_folder(run, tmp_path_factory):
    """A bundle with fp32 alone."""
    return bundles.make_bundle(bundles.Config(runs=(run,), out=tmp_path_factory.mktemp("bundles") / "mine"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return published_run(tmp_path_factory.mktemp("published"))


@pytest.fixture
def trt(monkeypatch, capsys):
    """The command: flags to exit code and what it said."""

    def call(*flags) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["trt", *map(str, flags)])
        return main(), capsys.readouterr().err

    return call


@without_gpu
def test_a_run_becomes_a_bundle_and_the_next_command_is_said(trt, run, tmp_path):
    code, said = trt(run, "-o", tmp_path / "bundle", "--allow-drop")
    assert code == 0 and f"on the device: python -m export.trt {tmp_path / 'bundle'}" in said
    assert list(load_bundle(tmp_path / "bundle").graphs) == ["fp32", "fp16", "int8"]
    assert "generated people" in said and "as trained" in said and "agreement" in said
    code, said = trt(run, "-o", tmp_path / "bundle")
    assert code == 2 and "--replace" in said
    assert trt(run, "-o", tmp_path / "bundle", "--replace", "--precision", "fp32", "--onnx-only")[0] == 0
    assert list(load_bundle(tmp_path / "bundle").graphs) == ["fp32"]


@without_gpu
def test_a_bundle_becomes_an_engine_without_a_gpu_marked_unverified(rtx, trt, bundle_folder, tmp_path):
    flags = (bundle_folder, "--backend", "rtx", "--precision", "fp16", "-o", tmp_path / "out")
    code, said = trt(*flags)
    assert code == 0 and "unverified" in said and "one is made of its fp32 graph" in said
    (file,) = (tmp_path / "out").glob("*.engine")
    assert file.name == f"model.fp16.sm80+.rtx{rtx.__version__}.engine" and file.stat().st_mode & 0o777 == 0o600
    sidecar, bundle = Sidecar.from_json(file.with_name(file.name + ".json").read_text()), load_bundle(bundle_folder)
    assert sidecar.verified is None and sidecar.build.gpu is None and sidecar.build.profile.max == 8
    assert sidecar.contract == json.loads(json.dumps(contract_of(bundle)))
    assert contract_id(sidecar.contract).encode() in file.read_bytes()
    assert sidecar.source.onnx_sha256 == graph_sha256(bundle, "fp16") and sidecar.source.gate["passed"]
    code, said = trt(*flags)
    assert code == 2 and "exists; add --replace" in said
    assert trt(*flags, "--replace", "--max-batch", "4")[0] == 0
    assert Sidecar.from_json(file.with_name(file.name + ".json").read_text()).build.profile.max == 4


@without_gpu
def test_an_engine_of_a_graph_that_was_left_out_is_not_built(rtx, trt, run, tmp_path, monkeypatch):
    monkeypatch.setattr(gates, "to_fp16", turned_round)
    code, said = trt(run, "-o", tmp_path / "bundle", "--backend", "rtx")
    assert code == 0 and "fp16 is left out" in said and "no engine was built: its fp16 graph failed its gate" in said
    assert "fp16" not in load_bundle(tmp_path / "bundle").graphs and not list(tmp_path.rglob("*.engine"))


@pytest.mark.parametrize("flag", [("--head", "text"), ("--data", "utkinect:DIR"), ("--held-out", "utkinect:6")])
def test_a_flag_that_nothing_would_heed_is_refused(rtx, trt, bundle_folder, published, tmp_path, flag):
    code, said = trt(bundle_folder, "--backend", "rtx", "--precision", "fp32", "-o", tmp_path / "out", *flag)
    assert code == 2 and f"leave {flag[0]} out" in said and not (tmp_path / "out").exists()
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "graphs.json").write_text("{}")
    code, said = trt(tmp_path / "graphs", *flag)
    assert code == 2 and f"leave {flag[0]} out" in said
    if flag[0] == "--held-out":
        code, said = trt(published, "-o", tmp_path / "out", *flag)
        assert code == 2 and "leave --held-out out" in said


def test_a_folder_of_graphs_that_was_damaged_is_refused(rtx, trt, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x\n")  # an empty graph to the parser
    content = {
        "contract": {}, "graphs": {"fp32": {"file": "model.onnx"}},
        "sha256": {"model.onnx": hashlib.sha256(b"x\n").hexdigest()},
    }  # fmt: skip
    for more, says in (({}, "cannot be read ('name')"), ({"name": "mine"}, "0 inputs")):
        (tmp_path / "graphs.json").write_text(json.dumps({**content, **more}))
        code, said = trt(tmp_path, "--backend", "rtx", "--precision", "fp32", "-o", tmp_path / "out")
        assert code == 3 and says in said and not (tmp_path / "out").exists()


@without_gpu
def test_a_precision_or_gpu_that_is_named_twice_is_built_once(rtx, trt, bundle_folder, tmp_path):
    flags = ("--backend", "rtx", "--precision", "fp32", "fp32", "--compute-capability", "8.6", "8.6")
    assert trt(bundle_folder, *flags, "-o", tmp_path / "out")[0] == 0
    (file,) = (tmp_path / "out").glob("*.engine")
    assert ".sm86.rtx" in file.name


@without_gpu
def test_without_out_the_engine_goes_to_the_users_own_cache(rtx, trt, bundle_folder, tmp_path):
    assert trt(bundle_folder, "--backend", "rtx", "--precision", "fp32")[0] == 0
    (file,) = (tmp_path / "cache").rglob("*.engine")
    assert file.parent.stat().st_mode & 0o777 == 0o700


NO_TORCH = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "train"):
            raise ModuleNotFoundError(f"{name} is not here")
sys.meta_path.insert(0, Nothing())
from export.trt import main
sys.exit(main())
"""


def test_a_bundle_needs_no_torch(rtx, bundle_folder, tmp_path):
    flags = ("--backend", "rtx", "--precision", "fp16", "int8", "--allow-drop", "-o", tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", NO_TORCH, bundle_folder, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.engine"))) == 2
    refused = subprocess.run([sys.executable, "-c", NO_TORCH, tmp_path, *flags], capture_output=True, text=True)
    assert refused.returncode == 3 and "neither a bundle nor a run" in refused.stderr


@without_gpu
def test_what_is_demanded_and_not_there_is_said_before_any_work(trt, bundle_folder, run, tmp_path):
    for source in (bundle_folder, run):
        code, said = trt(source, "--backend", "trt", "-o", tmp_path / "out")
        assert code == 6 and "no NVIDIA driver" in said and "--backend rtx" in said
    code, said = trt(bundle_folder)
    assert code == 0 and "no engine was built: no NVIDIA driver" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", ["nothing", "empty", "a file"])
def test_a_source_that_is_none_is_refused(trt, tmp_path, there):
    source = tmp_path / "source"
    if there == "empty":
        source.mkdir()
    elif there == "a file":
        source.write_text("x")
    code, said = trt(source)
    assert code == 3 and "bundle.json" in said


def test_a_run_that_is_damaged_is_refused(trt, tmp_path):
    (tmp_path / "last.safetensors").write_bytes(b"no checkpoint")
    assert trt(tmp_path)[0] == 3


def test_runs_have_names_of_their_own(run, bundle_folder):
    assert name_of(run) == name_of(run / "last.safetensors") == "mine"
    assert name_of(run / "best.safetensors") == "best"
    assert (kind_of(run), kind_of(run / "last.safetensors"), kind_of(bundle_folder)) == ("run", "run", "bundle")


def expected(bundle, precision, version):
    return Expected.of(bundle, "tensorrt_rtx", precision, version, "8.6", "made up")


def built(bundle, out, precision="fp32"):
    return build_engine(bundle, precision, Wish("rtx", out), Steps(quiet())).path


def test_an_engine_of_a_bundle_that_was_exported_again_is_refused(rtx, run, bundle_folder, tmp_path):
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    path = built(bundle, tmp_path / "out")
    assert read_engine(path, expected(bundle, "fp32", rtx.__version__), trust=True).sidecar.verified is None
    again = bundles.Config(runs=(run,), out=tmp_path / "bundle", nothing_shift=1.0, replace=True)
    after = expected(load_bundle(bundles.make_bundle(again)), "fp32", rtx.__version__)
    with pytest.raises(BundleError, match=r"the bundle was exported again since; build it here: python -m export\.trt"):
        read_engine(path, after, trust=True)


def test_a_plan_that_was_replaced_is_refused(rtx, bundle_folder, tmp_path):
    bundle = load_bundle(bundle_folder)
    path, other = built(bundle, tmp_path / "out"), built(bundle, tmp_path / "other", "fp16")
    path.write_bytes(other.read_bytes())
    with pytest.raises(BundleError, match=r"python -m export\.trt .* --precision fp32 -o"):
        read_engine(path, expected(bundle, "fp32", rtx.__version__), trust=True)


def test_a_graph_that_fails_its_gate_makes_no_engine(rtx, trt, bundle_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(gates, "to_fp16", turned_round)
    flags = (bundle_folder, "--backend", "rtx", "-o", tmp_path / "out")
    code, said = trt(*flags)
    assert code == 7 and "--allow-drop" in said and not (tmp_path / "out").exists()
    assert trt(*flags, "--allow-drop")[0] == 0
    (sidecar,) = (tmp_path / "out").glob("*.json")
    gate = Sidecar.from_json(sidecar.read_text()).source.gate
    assert gate["allowed"] and not gate["passed"]


class MadeUpEngine:
    """What would run the plan on a GPU: ONNX Runtime, its logits off by `wrong`."""

    wrong = 0.0
    closed = 0

    def __init__(self, bundle, path, kind, precision, trust):
        assert trust and path.is_file() and (kind, precision) == ("tensorrt_rtx", "fp32")
        self._inner = OrtEngine(bundle)
        self.backend, self.precision, self.graph = "made-up", precision, bundle.graphs[precision]

    def infer(self, skeleton):
        logits, embedding = self._inner.infer(skeleton)
        return logits + np.float32(self.wrong), embedding

    def close(self):
        type(self).closed += 1


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is made up: engines are built for it, and run elsewhere."""
    monkeypatch.setattr(engines, "target_of", lambda *args: target_of(*args)._replace(gpu="made up"))
    monkeypatch.setattr(engines, "TrtEngine", MadeUpEngine)
    monkeypatch.setattr(MadeUpEngine, "wrong", 0.0)
    return MadeUpEngine


def test_with_a_gpu_the_engine_is_proven_before_it_is_kept(rtx, gpu, trt, bundle_folder, tmp_path):
    code, said = trt(bundle_folder, "--backend", "rtx", "--precision", "fp32", "-o", tmp_path / "out")
    assert code == 0 and "proven" in said and "next: python -m realtime.run --bundle" in said
    (file,) = (tmp_path / "out").glob("*.json")
    assert f"--backend rtx --engine {file.with_suffix('')} --trust" in said  # the line refuses it without
    proof = Sidecar.from_json(file.read_text()).verified
    assert proof.max_logits < 1e-3 and proof.top1_agree == 1.0
    assert proof.windows == len(load_reference(load_bundle(bundle_folder)).logits)


def test_an_engine_that_is_there_is_taken_only_for_as_many_people(rtx, gpu, trt, bundle_folder, tmp_path, monkeypatch):
    flags = (bundle_folder, "--backend", "rtx", "--precision", "fp32")
    assert trt(*flags)[0] == 0
    monkeypatch.setattr(engines, "driver_problem", lambda: None)
    monkeypatch.setattr(
        engines, "expected_here", lambda bundle, kind, precision: expected(bundle, precision, rtx.__version__)
    )
    code, said = trt(*flags)
    assert code == 0 and "is there and fits" in said
    for other in (("--max-batch", "2"), ("--compute-capability", "8.6")):
        code, said = trt(*flags, *other)
        assert code == 0 and "is there and fits" not in said and "building" in said
    assert len(list((tmp_path / "cache").rglob("*.engine"))) == 3


def test_an_engine_that_fails_its_proof_is_not_kept(rtx, gpu, trt, bundle_folder, tmp_path):
    gpu.wrong, before = 0.1, gpu.closed
    code, said = trt(bundle_folder, "--backend", "rtx", "--precision", "fp32", "-o", tmp_path / "out")
    assert code == 7 and "fails its proof and was not kept" in said
    assert not (tmp_path / "out").exists() and gpu.closed == before + 1


def test_auto_takes_what_is_there_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(engines, "driver_problem", lambda: None)

    class Library:
        __version__ = "1.7.1.116"

    def library(kind, building=False):
        if kind == "tensorrt":
            raise GpuError("no TensorRT")
        return Library

    monkeypatch.setattr(engines, "library", library)
    assert choose_backend("auto") == ("rtx", "a GPU and TensorRT-RTX 1.7.1.116 are here")
    monkeypatch.setattr(engines, "KINDS", {"trt": "tensorrt"})
    assert choose_backend("auto") == (None, "no TensorRT")


def test_a_builder_that_cannot_serve_this_gpu_takes_no_bundle_away(trt, run, published, tmp_path, monkeypatch):
    def cannot(*_, **__):
        raise BundleError("no such GPU")

    monkeypatch.setattr("export.trt.choose_backend", lambda asked: ("rtx", asked))
    monkeypatch.setattr("export.trt.build_engine", cannot)
    monkeypatch.setattr(plain, "build_folders_engine", cannot)
    for source, file in ((run, "bundle.json"), (published, "graphs.json")):
        out = tmp_path / file / "out"
        code, said = trt(source, "-o", out, "--precision", "fp32")
        assert code == 0 and "no engine was built: no such GPU" in said and (out / file).is_file()
        assert trt(source, "-o", out, "--replace", "--precision", "fp32", "--backend", "rtx")[0] == 3


def test_an_interrupted_build_ends_with_130_and_leaves_nothing(rtx, trt, bundle_folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "build_plan", interrupted)
    assert trt(bundle_folder, "--backend", "rtx", "--precision", "fp32", "-o", tmp_path / "out")[0] == 130
    assert not (tmp_path / "out").exists()


@without_gpu
def test_a_run_of_a_published_protocol_becomes_a_folder_of_graphs_and_engines(rtx, trt, published, tmp_path):
    out = tmp_path / "out"
    code, said = trt(published, "-o", out, "--precision", "fp16", "--backend", "rtx", "--allow-drop")
    assert code == 0 and "published protocol" in said and "unverified" in said
    assert {file.suffix for file in out.iterdir()} == {".onnx", ".npz", ".json", ".engine"}
    content = json.loads((out / "graphs.json").read_text())
    assert content["contract"]["layout"] == "KINECT_V1_20" and content["graphs"]["fp16"]["gate"]["windows"] >= 1000
    assert content["graphs"]["fp16"]["gate"]["accuracy"]["clips"] == 20
    code, said = trt(published, "-o", out, "--precision", "fp16")
    assert code == 2 and "--replace" in said
    for file in (*out.glob("*.engine"), *out.glob("*.engine.json")):
        file.unlink()
    assert trt(out, "--backend", "rtx", "--precision", "fp32")[0] == 0  # on the device
    assert len(list(out.glob("*.engine"))) == 1
    code, said = trt(out)
    assert code == 0 and "no engine was built" in said
    (out / "model.fp16.onnx").write_bytes(b"another")
    code, said = trt(out, "--backend", "rtx", "--precision", "fp16")
    assert code == 3 and "is not what was written" in said


def test_a_published_runs_prepared_set_must_be_there(trt, published, tmp_path, monkeypatch):
    code, said = trt(published, "-o", tmp_path / "out", "--data", f"utd_mhad:{tmp_path}")
    assert code == 2 and "--data nw_ucla:DIR" in said
    assert plain.is_live(published) is False
    assert not (tmp_path / "out").exists()


def test_of_many_test_clips_some_are_compared_on(published, monkeypatch):
    clips = plain.prepared_clips(plain.load_runs([published], bodies=None), ())
    whole = plain.windows_of(clips)
    assert len(whole.clips) == len(clips.test) == 20 and whole.source == "the test clips of nw_ucla"
    monkeypatch.setattr(plain, "MOST_GATE", 6)
    monkeypatch.setattr(plain, "LEAST_GATE", 10)
    some = plain.windows_of(clips)
    assert len(some.clips) == 6 and some.source == "6 of the 20 test clips of nw_ucla" and len(some.gate) == 12
