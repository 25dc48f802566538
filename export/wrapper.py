"""A trained checkpoint as the network that is deployed: folded, one head, class texts as constants.

N windows, C channels, T frames, V joints, M bodies, F backbone width, K classes, D text width, L tokens, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.fold import folded
from export.fold_fused import Fused, linear
from export.fold_parts import unit
from realtime.errors import BundleError, UsageError
from realtime.skeleton import LAYOUTS
from train.compose import Trained

HEADS = ("skeleton", "text", "both", "fused")  # inference modes M0, M1, the mean of their logits, M2


class Pooled(nn.Module):
    """Windows to tokens (N, F, L) and the pooled feature (N, F); tokens are T' means over joints and V over frames.

    absent: the map (1, F, V, T') of a body that is not there, where one body stands for the two of the training.
    Means are linear, so the bodies' mean may come after them.
    """

    joints: Tensor
    frames: Tensor
    feature: Tensor

    def __init__(self, backbone: nn.Module, bodies: int, absent: Tensor | None, tokens: bool) -> None:
        super().__init__()
        self.backbone, self.bodies, self.tokens, self.alone = backbone, bodies, tokens, absent is None
        if absent is not None:
            self.register_buffer("joints", absent.mean(dim=3))  # (1, F, V)
            self.register_buffer("frames", absent.mean(dim=2))  # (1, F, T')
            self.register_buffer("feature", absent.mean(dim=(2, 3)))  # (1, F)

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        maps = self.backbone(x)  # (N*M, F, V, T')
        if not self.tokens:
            feature = self._mean(maps.mean(dim=(2, 3)))
            return None, feature if self.alone else 0.5 * (feature + self.feature)
        joints, frames = self._mean(maps.mean(dim=3)), self._mean(maps.mean(dim=2))
        if not self.alone:
            joints, frames = 0.5 * (joints + self.joints), 0.5 * (frames + self.frames)
        return torch.cat([frames, joints], dim=2), joints.mean(dim=2)

    def _mean(self, x: Tensor) -> Tensor:
        return x if self.bodies == 1 else x.reshape(-1, self.bodies, *x.shape[1:]).mean(dim=1)


class Deployed(nn.Module):
    """Windows (N, C, T, V) of one body, or (N, C, T, V, M), to logits (N, K) of one head and a unit embedding (N, D).

    text: cosines of the embedding with the class texts over the trained temperature, with the norm kept so that
    probabilities mean something. both: the mean of that and the classifier. fused: after the interaction.
    """

    text: Tensor

    def __init__(self, pooled: Pooled, trained: Trained, head: str) -> None:
        super().__init__()
        self.pooled, self.head = pooled, head
        share = 0.5 if head == "both" else 1.0  # of the mean
        classify, project = trained.network.head, trained.network.project
        self.classify = linear(share * classify.weight, share * classify.bias)
        self.project = project and linear(project.weight, project.bias)
        if head in ("text", "both"):
            assert trained.text is not None
            self.register_buffer("text", (share * trained.text_scale * trained.text).T.contiguous())  # (D, K)
        self.fused = Fused(trained) if head == "fused" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens, feature = self.pooled(x)
        embedding = unit(feature if self.project is None else self.project(feature))
        if self.head == "skeleton":
            return self.classify(feature), embedding
        if self.head == "text":
            return embedding @ self.text, embedding
        if self.fused is None:
            return self.classify(feature) + embedding @ self.text, embedding
        return self.fused(tokens), embedding


@torch.no_grad()
def deployed(trained: Trained, head: str = "skeleton", bodies: int = 1, fast: bool = False) -> nn.Module:
    """The network of a checkpoint as it runs on a device: in eval mode, folded, without gradients.

    skeleton (N, C, T, V) for one body, (N, C, T, V, M) for more, to (logits (N, K), embedding (N, D) at unit length).
    A network of two bodies that is deployed for one takes the second as absent: bodies do not touch each other before
    they are averaged, so what an absent one gives is a constant. fast: the form with fewest multiplications, for fp32
    on a CPU; the plain one is for int8, for fp16 and for GPUs. UsageError for an unknown head or number of bodies,
    BundleError where the checkpoint lacks what the head needs.
    """
    model = trained.content["model"]
    if head not in HEADS:
        raise UsageError(f"--head must be one of {', '.join(HEADS)}, got {head!r}")
    if head != "skeleton" and trained.text is None:
        raise BundleError(f"--head {head} needs a run that was trained with texts (--method gap, pcke or pcle)")
    if head == "fused" and trained.interaction is None:
        raise BundleError("--head fused needs a run of --method pcke or pcle with --interaction; take --head text")
    whole = model["bodies"]
    if bodies not in (1, whole):
        takes = "1" if whole == 1 else f"1 or {whole}"
        raise UsageError(f"a network that was trained with bodies = {whole} takes {takes}, got {bodies}")
    channels, backbone = model["channels"], trained.network.backbone.eval()
    absent = None
    if bodies < whole:
        empty = torch.zeros(1, channels, model["window"], len(LAYOUTS[model["layout"]]), whole)
        absent = backbone(empty)[:, 1].transpose(2, 3)  # (1, F, V, T')
    frames = model["window"] if fast else None
    pooled = Pooled(folded(backbone, channels, whole, bodies, frames), bodies, absent, head == "fused")
    return Deployed(pooled, trained, head).eval().requires_grad_(False)


class Mean(nn.Module):
    """Several networks as one: the mean of their logits, their embeddings side by side at unit length."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, T, V)
        logits, embeddings = zip(*(network(x) for network in self.networks), strict=True)
        return torch.stack(logits).mean(dim=0), unit(torch.cat(embeddings, dim=1))


class Shifted(nn.Module):
    """A network with one class's logit lowered by a constant."""

    def __init__(self, network: nn.Module, column: int, classes: int, by: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("shift", by * nn.functional.one_hot(torch.tensor(column), classes).float())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, T, V)
        logits, embedding = self.network(x)
        return logits - self.shift, embedding
