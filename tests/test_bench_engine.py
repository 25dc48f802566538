"""The benchmark of exported graphs: one short row, what is counted, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from rich.console import Console

from export.graph import to_onnx
from export.precision import to_int8
from export.wrapper import deployed
from realtime.errors import UsageError
from realtime.skeleton import CORE_16, KINECT_V2_25
from scripts.bench_engine import Config, Row, bench, peak_ms, published
from scripts.engine_cost import macs
from tests.export.trained_like import clips, small_graphnet, trained_like
from train import backbones


@pytest.mark.slow
def test_a_short_run_measures_every_form_in_turns(tmp_path: Path):
    command = [sys.executable, "-m", "scripts.bench_engine", "--backbone", "stgcn-edge", "--batch", "1"]
    command += ["--seconds", "0", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["fp32_gmacs_per_s"] > 1 and document["int8_gmacs_per_s"] > 1 and document["gpu"] == []
    rows = {row["form"]: row for row in document["rows"]}
    assert list(rows) == ["published", "trained", "folded", "folded, fast", "int8"]
    for row in rows.values():
        assert row["turns"] >= 7 and row["low_ms"] <= row["ms"] <= row["high_ms"] and row["peak_ms"] > 0
        assert f"{row['ms']:.2f}" in done.stdout
    assert rows["folded, fast"]["macs"] < 0.6 * rows["folded"]["macs"]


@pytest.mark.parametrize("name", ["stgcn-edge", "ctrgcn-edge"])
@pytest.mark.parametrize("bodies", [1, 2])
@torch.no_grad()
def test_the_published_form_has_the_same_function(name: str, bodies: int):
    trained = trained_like(name, bodies=bodies, layout=KINECT_V2_25)
    plain = published(trained.network)
    x = torch.randn(2, 9, 20, 25, bodies)
    for found, expected in zip(plain(x), trained.network(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    next(plain.backbone.blocks[3].parameters()).mul_(1.1)
    assert (plain(x)[0] - trained.network(x)[0]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["stgcn-edge", "graphnet"])
def test_a_graphs_multiply_adds_are_the_networks(name: str):
    trained = trained_like(name)
    graph = to_onnx(deployed(trained), (9, 64, len(CORE_16)))
    for batch in (1, 8):
        expected = backbones.macs(trained.network, torch.zeros(batch, 9, 64, len(CORE_16)))
        assert sum(macs(graph, batch)) == pytest.approx(expected, rel=0.03)  # strided branches leave frames out


def test_each_kind_of_multiply_add_is_counted_and_priced_by_itself():
    graph = to_onnx(deployed(small_graphnet()), (9, 64, len(CORE_16)))
    plain, mixed = macs(graph, 2), macs(to_int8(graph, clips(8).numpy()), 2)
    assert plain.int8 == 0 and sum(mixed) == sum(plain)
    assert 0 < mixed.fp32 < mixed.int8  # the first convolution and the head stay float
    row = Row("graphnet", 2, "int8", "ONNX Runtime", 7, 1.0, 1.0, 1.0, {}, 3_000_000, 2_000_000)
    assert peak_ms(row, SimpleNamespace(fp32=1e9, int8=4e9)) == pytest.approx(1.5)


def test_multiply_adds_of_unknown_shapes_are_no_zero():
    model = onnx.load_from_string(to_onnx(deployed(small_graphnet()), (9, 64, len(CORE_16))))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "T"
    with pytest.raises(ValueError, match=r"Conv .* has an unknown shape"):
        macs(model.SerializeToString(), 1)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [(Config(backbone=("sgn",)), "stgcn.*got 'sgn'"), (Config(batch=(0,)), "--batch must be at least 1, got 0")],
)
def test_what_cannot_be_is_refused(config: Config, complaint: str):
    with pytest.raises(UsageError, match=complaint):
        bench(config, Console())
