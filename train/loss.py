"""The losses of skeleton-language training, each a function with its equation.

PCLE's paper is known to us by its project page only: that it adds a skeleton-text contrastive loss and a ranking
objective before and after the interaction is stated there; their exact forms below are our reconstruction.
N skeletons, K classes, D text width. Targets are rows of class shares (N, K) that sum to 1; a plain label is one-hot.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SURE = 0.99  # a target that gives its first class less than this ranks nothing


def classification(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy -1/N sum_n sum_c y_nc log softmax(logits_n)_c, with label smoothing. logits, target (N, K)."""
    return nn.functional.cross_entropy(logits.float(), target, label_smoothing=smoothing)


def positives(rows: Tensor, columns: Tensor, sharpness: float | None = None) -> Tensor:
    """Which columns each row should find: q (N, N'), rows summing to 1, from class shares (N, K) and (N', K).

    q_ij = <y_i, y_j> / sum_j' <y_i, y_j'>, which for plain labels is 1 / #positives (ActionCLIP, arXiv 2109.08472).
    sharpness: instead softmax_j(sharpness * <y_i, y_j>), as GAP's code has it with 10; not quite uniform.
    A row without a positive among the columns is all zeros (and counts as no row).
    """
    match = rows @ columns.T
    if sharpness is not None:
        return torch.softmax(sharpness * match, dim=1)
    total = match.sum(dim=1, keepdim=True)
    return torch.where(total > 0, match / total.clamp_min(1e-12), 0.0)


def contrastive(
    skeleton: Tensor, text: Tensor, target: Tensor, text_target: Tensor, scale: Tensor, sharpness: float | None = None
) -> Tensor:
    """Skeletons find their texts and texts their skeletons, all positives at once.

    L = 1/2 [ 1/N sum_i KL(q_i || softmax_j(scale <z_i, t_j>)) + 1/N' sum_j KL(q'_j || softmax_i(scale <t_j, z_i>)) ]
    (ActionCLIP; GAP eq. 4 and 5). skeleton (N, D) and text (N', D) at unit length, target (N, K) and text_target
    (N', K) their class shares, scale the inverse temperature.
    """
    logits = scale * cosines(skeleton, text)
    with torch.autocast(skeleton.device.type, enabled=False):
        there = _divergence(positives(target, text_target, sharpness), logits)
        back = _divergence(positives(text_target, target, sharpness), logits.T)
    return 0.5 * (there + back)


def cosines(skeleton: Tensor, text: Tensor) -> Tensor:
    """Products (N, N') of unit features (N, D) and (N', D) in full precision: in bf16 a cosine errs by 0.002."""
    with torch.autocast(skeleton.device.type, enabled=False):
        return skeleton.float() @ text.float().T


def _divergence(wanted: Tensor, logits: Tensor) -> Tensor:
    """Mean over the rows that want something of KL(wanted || softmax(logits))."""
    rows = wanted.sum(dim=1) > 0
    each = (torch.xlogy(wanted, wanted) - wanted * torch.log_softmax(logits, dim=1)).sum(dim=1)
    return torch.where(rows, each, 0.0).sum() / rows.sum().clamp_min(1)


def ranking(scores: Tensor, target: Tensor, margin: float = 0.2, hardest: int = 5) -> Tensor:
    """The true class before the hardest others by a margin, and a class's own skeletons before the hardest others.

    skeleton to text: 1/N sum_n 1/h sum_{c in top-h, c != y_n} [margin - s(n, y_n) + s(n, c)]+
    text to skeleton: 1/C sum_c 1/|P_c| sum_{p in P_c} 1/h_c sum_{q in top-h, y_q != c} [margin - s(p, c) + s(q, c)]+
    with C the classes present, P_c their skeletons, h at most the number of others there are. scores (N, K) cosines.
    Skeletons whose target is shared between classes take no part.
    """
    share, label = target.max(dim=1)
    sure = share >= SURE
    if not bool(sure.any()):
        return scores.sum() * 0.0
    scores, label = scores[sure].float(), label[sure]
    own = scores.gather(1, label[:, None])  # (N, 1)
    mine = nn.functional.one_hot(label, scores.shape[1]).bool()
    others = scores.masked_fill(mine, -torch.inf).topk(min(hardest, scores.shape[1] - 1), dim=1).values
    to_text = (margin - own + others).clamp_min(0).mean()

    best = scores.T.masked_fill(mine.T, -torch.inf).topk(min(hardest, len(scores)), dim=1).values  # (K, h)
    count = (best > -torch.inf).sum(dim=1)  # others of each class, up to h
    gaps = (margin - own + best[label]).clamp_min(0)  # (N, h); an absent other gives max(-inf, 0) = 0
    each = gaps.sum(dim=1) / count[label].clamp_min(1)
    sizes = mine.sum(dim=0)
    to_skeleton = (each / sizes[label]).sum() / (sizes > 0).sum()
    return to_text + to_skeleton


def distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 / N sum_n KL(softmax(teacher_n / T) || softmax(student_n / T)) (Hinton et al., arXiv 1503.02531).

    Logits (N, K); no gradient reaches the teacher.
    """
    wanted = torch.log_softmax(teacher.detach().float() / temperature, dim=1)
    got = torch.log_softmax(student.float() / temperature, dim=1)
    return temperature**2 * nn.functional.kl_div(got, wanted, log_target=True, reduction="batchmean")
