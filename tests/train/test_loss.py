"""The losses against slow loops written from their equations."""

import math

import pytest
import torch

from train import loss

K, D = 4, 6
HARD = torch.eye(K)[[0, 2, 0, 1, 2, 0]]
SOFT = torch.tensor([[0.7, 0.3, 0, 0], [0, 1, 0, 0], [0, 0.4, 0.6, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0]])


def unit(n, seed):
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1).requires_grad_()


def cosines(n, seed, classes=K):
    return torch.rand(n, classes, generator=torch.Generator().manual_seed(seed)).mul(2).sub(1).requires_grad_()


def is_loss(value, *inputs):
    """Finite, not negative, and with finite gradients."""
    assert math.isfinite(value.item()) and value.item() >= -1e-6
    for grad in torch.autograd.grad(value, inputs):
        assert torch.isfinite(grad).all()


def shares(rows, columns, sharpness):
    """q of the docstring, entry by entry; a row without positives is zeros."""
    match = [[sum(float(a) * float(b) for a, b in zip(r, c, strict=True)) for c in columns] for r in rows]
    if sharpness is not None:
        raised = [[math.exp(sharpness * m) for m in row] for row in match]
        return [[e / sum(row) for e in row] for row in raised]
    return [[m / sum(row) if sum(row) else 0.0 for m in row] for row in match]


def one_way(wanted, logits):
    """Mean KL(wanted || softmax(logits)) of the rows that want something."""
    each = []
    for q, row in zip(wanted, logits, strict=True):
        if sum(q):
            log_z = math.log(sum(math.exp(x) for x in row))
            each.append(sum(p * (math.log(p) - (x - log_z)) for p, x in zip(q, row, strict=True) if p))
    return sum(each) / len(each)


def slow_contrastive(skeleton, text, target, text_target, scale, sharpness):
    logits = [[scale * sum(float(a) * float(b) for a, b in zip(z, t, strict=True)) for t in text] for z in skeleton]
    there = one_way(shares(target, text_target, sharpness), logits)
    back = one_way(shares(text_target, target, sharpness), [list(column) for column in zip(*logits, strict=True)])
    return 0.5 * (there + back)


@pytest.mark.parametrize("sharpness", [None, 10.0, 0.5])
@pytest.mark.parametrize(
    ("target", "text_target"),
    [
        (HARD, HARD),
        (SOFT, SOFT),
        (HARD, HARD.repeat_interleave(2, dim=0)),
        (HARD, torch.eye(K)[[0, 0, 1, 3]]),  # nobody finds the last text, the class 2 finds none
        (HARD[:1], HARD),
    ],
    ids=["repeated labels", "soft", "two texts each", "some without", "one row"],
)
def test_contrastive_is_its_equation(target, text_target, sharpness):
    skeleton, text, scale = unit(len(target), 0), unit(len(text_target), 1), torch.tensor(9.0, requires_grad=True)
    found = loss.contrastive(skeleton, text, target, text_target, scale, sharpness)
    expected = slow_contrastive(skeleton.tolist(), text.tolist(), target, text_target, 9.0, sharpness)
    assert found.item() == pytest.approx(expected, abs=1e-5)
    is_loss(found, skeleton, text, scale)


def test_contrastive_of_plain_labels_gives_each_positive_the_same_share():
    wanted = loss.positives(HARD, HARD)
    torch.testing.assert_close(wanted[0], torch.tensor([1, 0, 1, 0, 0, 1]) / 3)
    torch.testing.assert_close(wanted[3], torch.tensor([0, 0, 0, 1.0, 0, 0]))


def test_contrastive_without_any_pair_is_zero():
    skeleton, text = unit(2, 0), unit(2, 1)
    found = loss.contrastive(skeleton, text, torch.eye(K)[[0, 1]], torch.eye(K)[[2, 3]], torch.tensor(5.0))
    assert found.item() == 0
    is_loss(found, skeleton, text)


def test_contrastive_is_zero_where_all_positives_are_found_alike():
    skeleton = torch.eye(K)[[0, 1, 1]]
    assert loss.contrastive(skeleton, skeleton, skeleton, skeleton, torch.tensor(100.0)).item() < 1e-6


def test_contrastive_is_reckoned_in_full_precision_whatever_the_network_runs_in():
    skeleton, text = unit(len(HARD), 0), unit(len(HARD), 1)
    expected = loss.contrastive(skeleton, text, HARD, HARD, torch.tensor(100.0))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss.contrastive(skeleton, text, HARD, HARD, torch.tensor(100.0))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def slow_ranking(scores, target, margin, hardest):
    pairs = [(row, t.tolist()) for row, t in zip(scores.tolist(), target, strict=True) if max(t) >= loss.SURE]
    rows, labels = [row for row, _ in pairs], [t.index(max(t)) for _, t in pairs]
    to_text = 0.0
    for row, y in zip(rows, labels, strict=True):
        others = sorted((s for c, s in enumerate(row) if c != y), reverse=True)[:hardest]
        to_text += sum(max(margin - row[y] + s, 0) for s in others) / len(others) / len(rows)
    to_skeleton = 0.0
    for c in set(labels):
        own = [row[c] for row, y in zip(rows, labels, strict=True) if y == c]
        others = sorted((row[c] for row, y in zip(rows, labels, strict=True) if y != c), reverse=True)[:hardest]
        for s in own:
            to_skeleton += sum(max(margin - s + q, 0) for q in others) / max(len(others), 1) / len(own)
    return to_text + to_skeleton / len(set(labels))


@pytest.mark.parametrize("hardest", [1, 2, 3, 5, 50])
@pytest.mark.parametrize(
    "target",
    [HARD, SOFT, HARD[:3], torch.eye(K)[[1, 1, 1]], torch.eye(K)[[3]], torch.eye(2)[[0, 1, 1, 0]]],
    ids=["hard", "shared targets out", "two classes", "one class", "one clip", "two classes in all"],
)
def test_ranking_is_its_equation(target, hardest):
    scores = cosines(len(target), 3, target.shape[1])
    found = loss.ranking(scores, target, 0.2, hardest)
    assert found.item() == pytest.approx(slow_ranking(scores, target, 0.2, hardest), abs=1e-6)
    assert found.item() > 0
    is_loss(found, scores)


def test_ranking_is_zero_once_the_margin_is_kept_and_not_before():
    scores = HARD.clone()
    assert loss.ranking(scores * 0.201, HARD, 0.2).item() == 0
    assert loss.ranking(scores * 0.199, HARD, 0.2).item() > 0


def test_ranking_of_shared_targets_only_is_zero_and_still_has_a_gradient():
    scores = cosines(2, 0)
    found = loss.ranking(scores, torch.tensor([[0.5, 0.5, 0, 0], [0, 0.3, 0, 0.7]]))
    assert found.item() == 0
    is_loss(found, scores)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_is_its_equation_and_spares_the_teacher(temperature):
    student, teacher = cosines(5, 1), cosines(5, 2)
    found = loss.distillation(student * 4, teacher * 4, temperature)
    expected = 0.0
    for s, t in zip((student * 4 / temperature).tolist(), (teacher * 4 / temperature).tolist(), strict=True):
        p, q = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (t, s))
        expected += temperature**2 / 5 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert found.item() == pytest.approx(expected, abs=1e-6)
    is_loss(found, student)
    assert torch.autograd.grad(loss.distillation(student, teacher), teacher, allow_unused=True) == (None,)
    assert loss.distillation(student, student).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("target", [HARD, SOFT])
def test_classification_is_its_equation(target, smoothing):
    logits = cosines(len(target), 5)
    expected = 0.0
    for row, y in zip(logits.tolist(), target.tolist(), strict=True):
        log_z = math.log(sum(map(math.exp, row)))
        wanted = [(1 - smoothing) * share + smoothing / K for share in y]
        expected -= sum(w * (x - log_z) for w, x in zip(wanted, row, strict=True)) / len(target)
    found = loss.classification(logits, target, smoothing)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    is_loss(found, logits)
