"""Two processes on halves of a batch learn what one learns on the whole of it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.train import test_methods as small
from tests.train.tiny_runs import flags, prepared_set, settings
from train.distributed import Ranks, gather, ranks

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "ce": {},
    "gap": {},
    "pcle": {"distil": 0.5},
    "pcle without after": {"interaction": False},
}
TARGETS = torch.eye(3)[[0, 1, 2, 2, 1, 1]]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def two_steps(case, here):
    """Weights and gradients after two steps on this rank's rows; norms keep their statistics, no text is drawn."""
    several, small.TEXTS = small.TEXTS, [type(t)(t.name, (), t.sentence, t.parts) for t in small.TEXTS]
    method = small.made(case.split()[0], hardest=2, **CASES[case])
    small.TEXTS = several
    whole = DistributedDataParallel(method) if here.world > 1 else method
    for module in method.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    optimiser = torch.optim.SGD(method.parameters(), lr=0.5)
    for step in range(2):
        optimiser.zero_grad()
        rows = here.part(len(TARGETS))
        target = (TARGETS.roll(step, dims=0) * 0.8 + 0.2 * torch.eye(3)[0]) if step else TARGETS
        whole(small.X.roll(step, dims=0)[rows], target[rows]).total.backward()
        optimiser.step()
    found = {name: parameter.detach() for name, parameter in method.named_parameters()}
    return found | {f"grad {name}": parameter.grad for name, parameter in method.named_parameters()}


def worker(rank, port, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    with ranks(torch.device("cpu")) as here:
        own = torch.full((2, 3), 1.0 + rank, requires_grad=True)
        every = gather(own)
        (every * torch.arange(12.0).reshape(4, 3)).sum().backward()
        found = {"every": every.detach(), "grad": own.grad, "here": (here.rank, here.world, here.first)}
        found |= {case: two_steps(case, here) for case in CASES}
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes of one group found."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(worker, (free_port(), folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_rows_are_gathered_in_order_of_rank_and_gradients_go_back_to_their_own(both):
    for rank, found in enumerate(both):
        assert found["here"] == (rank, 2, rank == 0)
        assert found["every"].tolist() == [[1.0] * 3, [1.0] * 3, [2.0] * 3, [2.0] * 3]
        # Both ranks reckon the same sum, so that it comes back twice; the mean over ranks makes it once.
        torch.testing.assert_close(found["grad"], 2 * torch.arange(12.0).reshape(4, 3)[2 * rank : 2 * rank + 2])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns_on_the_whole_batch(both, case):
    expected = two_steps(case, Ranks())
    for found in both:
        assert found[case].keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[case][name], tensor, rtol=1e-4, atol=1e-5, msg=f"{case}: {name}")
    assert any(tensor.abs().sum() > 0 for name, tensor in expected.items() if name.startswith("grad "))


def test_alone_rows_are_all_there_are_and_parts_cover_the_batch():
    rows = torch.randn(4, 2)
    assert gather(rows) is rows
    parts = [Ranks(rank, 3).part(12) for rank in range(3)]
    assert [list(range(12))[part] for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert Ranks().first and not Ranks(1, 2).first


def test_without_a_launcher_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with ranks(torch.device("cpu")) as here:
        assert here == Ranks(0, 1, 0)
    assert not torch.distributed.is_initialized()


def torchrun(*words):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    return subprocess.run(
        [*command, str(free_port()), "-m", "tests.train.tiny_runs", *words], cwd=ROOT, capture_output=True, text=True,
        timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_torchrun_trains_with_one_writer_also_where_settings_leave_parameters_unused(tmp_path):
    folder = prepared_set(tmp_path / "set")
    config = settings(tmp_path / "run", method="pcle", prepared=folder, window=16, post=0.0, contrast=0.0,
                      rank_after=0.0, validation=0.2)  # fmt: skip
    done = torchrun(*flags(config))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert json.loads((config.out / "environment.json").read_text())["world"] == 2
    assert len(list(config.out.glob("events.out.*"))) == 1 and not list(config.out.glob("*.partial"))
    assert done.stderr.count("clips to train on") == 1
    assert json.loads((config.out / "result.json").read_text())["test"]["clips"] == 20


@pytest.mark.slow
def test_a_batch_that_does_not_divide_among_the_processes_is_refused(tmp_path):
    done = torchrun(*flags(settings(tmp_path / "run", batch=15)))
    assert done.returncode != 0
    assert "--batch 15 does not divide among 2 processes" in done.stderr
    assert not (tmp_path / "run").exists()
