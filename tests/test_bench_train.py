"""The benchmark of training: one tiny row, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from realtime.errors import UsageError
from scripts.bench_train import Config, bench

TINY = ("--device", "cpu", "--backbone", "ctrgcn-edge", "--layout", "CORE_16", "--batch", "2", "--frames", "8")


def test_a_tiny_run_measures_both_networks(tmp_path: Path):
    command = [sys.executable, "-m", "scripts.bench_train", *TINY, "--seconds", "0", "--threads", "1"]
    command += ["--precision", "fp32", "bf16", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "bf16"]
    for row in rows:
        assert row["pairs"] == 3 and row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert f"{row['ratio']:.2f}" in done.stdout


@pytest.mark.parametrize(
    ("config", "complaint"),
    [(Config(layout="HAND_21"), "KINECT_V2_25.*HAND_21"), (Config(batch=1), "--batch must be at least 2, got 1")],
)
def test_what_cannot_be_is_refused(config: Config, complaint: str):
    with pytest.raises(UsageError, match=complaint):
        bench(config, Console())
