"""C²VL's objective: targets, partition, teacher, and that two processes compute what one does."""

import dataclasses
import math
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from realtime.skeleton import KINECT_V1_20
from tests.train.test_distributed import free_port
from train.c2vl import (
    C2VL,
    Encoders,
    alpha_of,
    cross_consistency,
    divided,
    self_similarity,
    soft_cross_entropy,
)
from train.distributed import Ranks, ranks
from train.graphnet import GraphNet
from train.pretrain import Config

CONFIG = Config(out=Path("nowhere"), dim=8, epochs=5)
N, T = 6, 16
WIDTHS = {"language": 12, "vision": 10}
X = torch.randn(N, 3, T, 20, 1, generator=torch.Generator().manual_seed(0))
CASES = {
    "default": {},
    "ema": {"teacher": "ema", "ema": 0.5},
    "self": {"teacher": "self"},
    "fixed temperature": {"learn_temperature": False, "intra_temperature": 1.0},
}


def unit(*shape, seed=0):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


KNOWLEDGE = {name: unit(N, width, seed=width) for name, width in WIDTHS.items()}


def made(**changes):
    """The objective on a small network, with the same weights at each call."""
    config = dataclasses.replace(CONFIG, **changes)
    torch.manual_seed(0)
    backbone = GraphNet(KINECT_V1_20, 3, 1, (8, 16), 2)
    return C2VL(Encoders(backbone, WIDTHS, config.dim, config.learn_temperature), config)


def still(module):
    """Norms keep their statistics, so that a row's feature is its own."""
    for one in module.modules():
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d):
            one.eval()
    return module


@pytest.mark.parametrize("inter", ["pairs", "swapped", "sums"])
def test_the_rows_of_every_target_sum_to_one_and_none_is_negative(inter):
    own, other = unit(N, 8), unit(N, 8, seed=1)
    for target in (self_similarity(own, 0.2, 14.0), cross_consistency(own, other, 14.0, 5.0, inter)):
        torch.testing.assert_close(target.sum(dim=1), torch.ones(N))
        assert (target >= 0).all()


def test_intra_modal_targets_are_a_softmax_of_a_modality_with_itself_mixed_with_one_hot():
    own = unit(N, 8)
    for i in range(N):
        wanted = torch.tensor([math.exp(9.0 * float(own[i] @ own[j])) for j in range(N)])
        wanted = 0.2 * wanted / wanted.sum() + 0.8 * torch.eye(N)[i]
        torch.testing.assert_close(self_similarity(own, 0.2, 9.0)[i], wanted)
    assert torch.equal(self_similarity(own, 0.0, 9.0), torch.eye(N))


@pytest.mark.parametrize("inter", ["pairs", "swapped", "sums"])
def test_inter_modal_targets_are_what_the_equations_say_and_the_term_of_a_row_cancels(inter):
    own, other = unit(N, 8), unit(N, 8, seed=1)
    found = cross_consistency(own, other, 9.0, 4.0, inter)
    for i in range(N):
        logits = torch.tensor([9.0 * float(other[i] @ own[j]) for j in range(N)])
        if inter == "pairs":
            logits += torch.tensor([4.0 * float(own[j] @ other[j]) for j in range(N)])
        if inter == "sums":
            logits += torch.tensor([4.0 * sum(float(other[k] @ own[j]) for k in range(N)) for j in range(N)])
        torch.testing.assert_close(found[i], torch.softmax(logits, dim=0))  # no term of the row is in it


def test_a_clip_whose_own_pair_does_not_agree_is_wanted_less():
    own = unit(N, 8)
    other = own.clone()
    other[2] = -own[2]  # a faulty pair: what is said of clip 2 is the opposite
    plain, weighed = (cross_consistency(own, other, 5.0, 5.0, inter) for inter in ("swapped", "pairs"))
    rest = [0, 1, 3, 4, 5]
    assert (weighed[rest, 2] < plain[rest, 2]).all()


def test_a_part_of_the_rows_has_the_mean_of_their_own_entropies():
    target, logits = torch.softmax(unit(N, N), dim=1), unit(N, N, seed=3)
    each = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1)
    torch.testing.assert_close(soft_cross_entropy(target, logits, slice(1, 4)), each[1:4].mean())
    assert soft_cross_entropy(target, logits, slice(0, 0)) == 0


def test_alpha_falls_from_its_first_to_its_last_value_along_a_cosine():
    config = dataclasses.replace(CONFIG, epochs=150)
    assert alpha_of(config, 0) == pytest.approx(0.9) and alpha_of(config, 149) == pytest.approx(0.1)
    assert alpha_of(dataclasses.replace(CONFIG, epochs=5), 2) == pytest.approx(0.5)
    for epoch in range(150):
        wanted = 0.1 + 0.4 * (1 + math.cos(math.pi * epoch / 149))
        assert alpha_of(config, epoch) == pytest.approx(wanted)
    assert alpha_of(dataclasses.replace(CONFIG, epochs=1), 0) == pytest.approx(0.9)


@pytest.mark.parametrize(("batch", "alpha", "first"), [(400, 0.9, 360), (100, 0.29, 29), (6, 0.1, 0), (6, 1.0, 6)])
def test_the_first_rows_take_intra_modal_targets_and_the_others_inter_modal_ones(batch, alpha, first):
    rows = torch.arange(batch)
    intra, inter = divided(batch, alpha)
    assert rows[intra].tolist() == list(range(first)) and rows[inter].tolist() == list(range(first, batch))
    assert [len(rows[part]) for part in divided(batch, alpha, partition=False)] == [batch, batch]


def test_without_similarity_and_with_alpha_one_it_is_info_nce_both_ways():
    method = still(made(beta=0.0, alpha_first=1.0, alpha_last=1.0).train())
    method.begin(3)
    found = method(X, KNOWLEDGE)
    views = method.encoders(X, KNOWLEDGE)
    wanted = torch.zeros(())
    for rows in views.knowledge.values():
        logits = views.skeleton @ rows.T / 0.07
        wanted = wanted + functional.cross_entropy(logits, torch.arange(N))
        wanted = wanted + functional.cross_entropy(logits.T, torch.arange(N))
    torch.testing.assert_close(found.total, wanted, rtol=1e-4, atol=1e-5)
    assert set(found.parts) == {"language", "vision"}


@pytest.mark.parametrize(("partition", "share"), [(True, 1.0), (False, 1.0), (True, 0.4)])
def test_the_loss_weighs_both_kinds_of_targets_over_their_rows(partition, share):
    method = still(made(partition=partition, inter_share=share).train())
    method.begin(1)
    views, taught = method.encoders(X, KNOWLEDGE), method.teacher(X, KNOWLEDGE)
    alpha, t = method.alpha, 1 / 0.07
    first = math.floor(alpha * N)
    a, b = (range(first), range(first, N)) if partition else (range(N), range(N))
    assert len(a) and len(b)
    s, v, s1, v1 = views.skeleton, views.knowledge["vision"], taught.skeleton, taught.knowledge["vision"]
    wanted = torch.zeros(())
    for x, y, x1, y1 in ((s, v, s1, v1), (v, s, v1, s1)):  # rows x among columns y
        logs = torch.log_softmax(t * x @ y.T, dim=1)
        intra = 0.2 * torch.softmax(t * x1 @ x1.T, dim=1) + 0.8 * torch.eye(N)
        inter = torch.softmax(t * (y1 @ x1.T + (x1 * y1).sum(dim=1)), dim=1)
        inter = share * inter + (1 - share) * torch.eye(N)
        wanted = wanted - alpha * sum(intra[i] @ logs[i] for i in a) / len(a)
        wanted = wanted - (1 - alpha) * sum(inter[i] @ logs[i] for i in b) / len(b)
    torch.testing.assert_close(method(X, KNOWLEDGE).parts["vision"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_no_gradient_reaches_the_teacher_and_all_that_learns_has_one(case):
    method = made(**CASES[case]).train()
    method.begin(2)
    method(X, KNOWLEDGE).total.backward()
    for name, parameter in method.named_parameters():
        taught = name.startswith("teacher.") or (case == "fixed temperature" and "temperature" in name)
        assert parameter.requires_grad is not taught and (parameter.grad is None) is taught, name
    assert (method.teacher is None) is (case == "self")


def test_targets_pass_no_gradient_where_the_student_teaches_itself():
    method = still(made(teacher="self", alpha_first=0.0, alpha_last=0.0, inter="swapped").train())
    method.begin(0)
    method(X, KNOWLEDGE).total.backward()
    found = method.encoders.project.weight.grad.clone()
    copied = still(made(alpha_first=0.0, alpha_last=0.0, inter="swapped").train())  # the same weights, as a teacher
    copied.begin(0)
    copied(X, KNOWLEDGE).total.backward()
    torch.testing.assert_close(found, copied.encoders.project.weight.grad, rtol=1e-3, atol=1e-6)


def step(method, optimiser):
    optimiser.zero_grad()
    method(X, KNOWLEDGE).total.backward()
    optimiser.step()
    (method.module if isinstance(method, DistributedDataParallel) else method).stepped()


@pytest.mark.parametrize("teacher", ["previous", "ema"])
def test_the_teacher_is_of_the_epoch_before_or_an_average_and_stays_in_eval_mode(teacher):
    method = made(teacher=teacher, ema=0.75).train()
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    start = method.encoders.project.weight.detach().clone()
    method.begin(0)
    step(method, optimiser)
    now = method.encoders.project.weight.detach()
    expected = start if teacher == "previous" else 0.75 * start + 0.25 * now
    torch.testing.assert_close(method.teacher.project.weight, expected)
    assert not any(one.training for one in method.teacher.modules()) and method.encoders.training
    method.begin(1)
    expected = now if teacher == "previous" else expected
    torch.testing.assert_close(method.teacher.project.weight, expected)


def two_steps(case, here):
    """Weights and gradients after two steps on this rank's rows, norms with frozen statistics."""
    method = made(**CASES[case]).train()
    whole = DistributedDataParallel(method) if here.world > 1 else method
    still(method)
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    rows = here.part(N)
    for number in range(2):
        method.begin(number + 1)
        optimiser.zero_grad()
        losses = whole(X.roll(number, dims=0)[rows], {k: v.roll(number, dims=0)[rows] for k, v in KNOWLEDGE.items()})
        losses.total.backward()
        optimiser.step()
        method.stepped()
    found = {name: tensor.detach() for name, tensor in method.state_dict().items()} | {"loss": losses.total.detach()}
    return found | {f"grad {n}": p.grad for n, p in method.named_parameters() if p.grad is not None}


def worker(rank, port, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    with ranks(torch.device("cpu")) as here:
        found = {case: two_steps(case, here) for case in CASES}
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(worker, (free_port(), folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns_on_the_whole_batch(both, case):
    expected = two_steps(case, Ranks())
    for found in both:
        assert found[case].keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[case][name], tensor, rtol=1e-4, atol=1e-5, msg=f"{case}: {name}")
    assert any(tensor.abs().sum() > 0 for name, tensor in expected.items() if name.startswith("grad "))
