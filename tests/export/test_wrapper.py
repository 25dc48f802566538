"""What is deployed answers as what was trained: every backbone, head and number of bodies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from export.wrapper import HEADS, Mean, Shifted, deployed
from realtime.errors import BundleError, UsageError
from realtime.skeleton import CORE_16, KINECT_V2_25
from tests.export.trained_like import CLASSES, WIDTH, clips, small_graphnet, trained_like
from train.backbones import BACKBONES
from train.compose import Trained


def trained_answers(trained: Trained, x: Tensor, head: str) -> tuple[Tensor, Tensor]:
    """The trained network's own logits and embedding, as its method computes them."""
    network = trained.network
    feature_map = network.feature_map(x)
    logits, embedding = network.heads(feature_map.mean(dim=(2, 3)))
    if head == "skeleton":
        return logits, embedding
    texts = trained.text_scale * embedding @ trained.text.T
    if head == "fused":
        return trained.fused_scale * trained.interaction(feature_map, network.project, trained.text), embedding
    return {"text": texts, "both": 0.5 * (logits + texts)}[head], embedding


def close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], relative: float = 1e-4) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < relative


@pytest.fixture(scope="module", params=BACKBONES)
def trained(request) -> Trained:
    return trained_like(request.param)


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_every_head_answers_as_trained(trained: Trained, head: str):
    x = clips(3, seed=1)
    close(deployed(trained, head)(x), trained_answers(trained, x, head))


@pytest.mark.parametrize("frames", [64, 52, 20])  # 20: fewer than a tile at the end
@pytest.mark.parametrize(("layout", "bodies"), [(CORE_16, 1), (KINECT_V2_25, 2)])
@torch.no_grad()
def test_the_fast_form_answers_as_trained_whatever_the_window(layout, bodies: int, frames: int):
    trained = trained_like("stgcn-edge", bodies=bodies, layout=layout, frames=frames)
    x = clips(3, layout, bodies if bodies > 1 else None, frames=frames, seed=1)
    for head in ("skeleton", "fused"):
        fast = deployed(trained, head, bodies, fast=True)
        close(fast(x), trained_answers(trained, x, head), 1e-3)  # its sums and differences round more
        assert not any(isinstance(module, torch.nn.Conv2d) for module in fast.modules())


@torch.no_grad()
def test_heads_differ_and_windows_do_not_mix():
    trained, x = small_graphnet(), clips(3, seed=1)
    found = [deployed(trained, head)(x) for head in HEADS]
    for number, (logits, embedding) in enumerate(found):
        assert logits.shape == (3, CLASSES) and embedding.shape == (3, WIDTH)
        torch.testing.assert_close(embedding, found[0][1])
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
        assert all((logits - other).abs().max() > 0.05 for other, _ in found[:number])
    for head, (logits, _) in zip(HEADS, found, strict=True):
        torch.testing.assert_close(deployed(trained, head)(x[1:2])[0], logits[1:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["stgcn-edge", "ctrgcn-edge", "graphnet"])
@torch.no_grad()
def test_two_bodies_answer_as_trained_and_one_as_two_of_which_one_is_absent(name: str, head: str):
    trained = trained_like(name, bodies=2, layout=KINECT_V2_25)
    x = clips(3, KINECT_V2_25, 2, seed=1)
    close(deployed(trained, head, bodies=2)(x), trained_answers(trained, x, head))
    nobody = torch.cat([x[..., :1], torch.zeros_like(x[..., :1])], dim=4)
    expected = trained_answers(trained, nobody, head)
    one = deployed(trained, head)(x[..., 0])
    close(one, expected)
    assert (deployed(trained, head, bodies=2)(x.flip(4))[0] - expected[0]).abs().max() > 1e-3


@torch.no_grad()
def test_a_wrong_weight_is_noticed(trained: Trained):
    x = clips(2, seed=1)
    expected = trained_answers(trained, x, "skeleton")
    wrong = deployed(trained)
    weight = max((p for p in wrong.pooled.parameters() if p.ndim == 4), key=lambda p: p.numel())
    weight[0] += 0.1
    with pytest.raises(AssertionError):
        close(wrong(x), expected)


def test_the_trained_network_stays_as_it_was(trained: Trained):
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    made = deployed(trained, "both")
    assert not any(p.requires_grad for p in made.parameters()) and not made.training
    assert all(torch.equal(value, before[name]) for name, value in trained.network.state_dict().items())
    assert all(p.requires_grad for p in trained.network.parameters())


@torch.no_grad()
def test_a_network_without_texts_embeds_by_its_pooled_feature():
    trained = trained_like("graphnet", texts=False)
    x = clips(2)
    expected = normalize(trained.network.feature_map(x).mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(deployed(trained)(x)[1], expected)


@pytest.mark.parametrize(
    ("head", "bodies", "error", "says"),
    [
        ("argmax", 1, UsageError, "skeleton, text, both, fused, got 'argmax'"),
        ("text", 1, BundleError, "--head text needs a run that was trained with texts"),
        ("skeleton", 3, UsageError, "bodies = 1 takes 1, got 3"),
    ],
)
def test_what_a_checkpoint_does_not_have_is_refused(head, bodies, error, says):
    with pytest.raises(error, match=says):
        deployed(trained_like("graphnet", texts=False), head, bodies)


def test_fused_needs_an_interaction():
    whole = small_graphnet()
    without = Trained(whole.network, whole.content, whole.text, whole.text_scale)
    with pytest.raises(BundleError, match="--head fused needs a run of --method pcke or pcle"):
        deployed(without, "fused")


@torch.no_grad()
def test_a_mean_of_networks_averages_logits():
    a, b = deployed(small_graphnet(seed=0)), deployed(small_graphnet(seed=1))
    x = clips(2)
    logits, embedding = Mean([a, b]).eval()(x)
    torch.testing.assert_close(logits, (a(x)[0] + b(x)[0]) / 2)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


@torch.no_grad()
def test_one_logit_can_be_lowered():
    network, x = deployed(small_graphnet()), clips(2)
    lowered = network(x)[0] - Shifted(network, 2, CLASSES, 1.5).eval()(x)[0]
    torch.testing.assert_close(lowered, torch.tensor([0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0]).expand(2, CLASSES))
