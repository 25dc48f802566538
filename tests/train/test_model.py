"""What goes to the device: text head folded exactly, one body at half the cost with the same answer."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from realtime.skeleton import KINECT_V2_25, Layout
from train.backbones import build
from train.graphnet import GraphNet
from train.model import OneBody, Recogniser, TextHead

CHANNELS, FRAMES, V, K, D = 3, 16, 25, 7, 12


def trained_like(backbone_name, bodies, layout=KINECT_V2_25, text_width=D):
    """A network whose norms have seen something: means, variances, gains and offsets of their own."""
    torch.manual_seed(0)
    if backbone_name == "graphnet":
        backbone = GraphNet(layout, CHANNELS, bodies, (8, 16), 4)
    else:
        backbone = build(backbone_name, layout, CHANNELS, bodies)
    network = Recogniser(backbone, K, text_width)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        for name, parameter in network.named_parameters():
            if name.endswith("strength"):  # of CTR-GCN's refinement, which starts at 0
                parameter.fill_(0.5)
        for _ in range(3):
            network.train()(torch.randn(4, CHANNELS, FRAMES, V, bodies) * 0.5 + 0.2)
    return network.eval()


@pytest.fixture(scope="module", params=["ctrgcn-edge", "stgcn-edge", "graphnet"])
def two_bodies(request):
    return trained_like(request.param, 2)


@pytest.fixture(scope="module")
def one_body():
    return trained_like("graphnet", 1)


@torch.no_grad()
def test_the_network_gives_logits_and_a_unit_embedding_and_windows_do_not_mix(one_body):
    x = torch.randn(3, CHANNELS, FRAMES, V)
    logits, embedding = one_body(x)
    assert logits.shape == (3, K) and embedding.shape == (3, D)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(one_body(x[1:2])[0], logits[1:2])
    torch.testing.assert_close(one_body(x.unsqueeze(-1))[0], logits)


@torch.no_grad()
def test_a_network_without_texts_embeds_by_its_pooled_feature():
    network = trained_like("graphnet", 1, text_width=None)
    x = torch.randn(2, CHANNELS, FRAMES, V)
    expected = normalize(network.feature_map(x).mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(network(x)[1], expected)
    with pytest.raises(ValueError, match="without texts"):
        TextHead(network, torch.randn(K, D))


@torch.no_grad()
def test_the_feature_map_is_the_mean_of_the_bodies(two_bodies):
    x = torch.randn(2, CHANNELS, FRAMES, V, 2)
    maps = two_bodies.backbone(x)
    torch.testing.assert_close(two_bodies.feature_map(x), 0.5 * (maps[:, 0] + maps[:, 1]))


@torch.no_grad()
def test_the_folded_text_head_answers_as_the_explicit_one_on_500_windows(one_body):
    text = torch.randn(K, D) * torch.rand(K, 1) * 5  # of any length: directions are what counts
    head = TextHead(one_body, text).eval()
    x = torch.randn(500, CHANNELS, FRAMES, V) * torch.rand(500, 1, 1, 1) * 2
    folded, embedding = head(x)
    cosines = embedding @ normalize(text, dim=1).T
    assert torch.equal(embedding, one_body(x)[1])
    assert torch.equal(folded.argmax(dim=1), cosines.argmax(dim=1))
    assert len(folded.argmax(dim=1).unique()) > 1
    length = one_body.project(one_body.feature_map(x).mean(dim=(2, 3))).norm(dim=1, keepdim=True)
    torch.testing.assert_close(folded, cosines * length, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_body_at_half_the_cost_answers_as_two_of_which_one_is_absent(two_bodies):
    one = OneBody(two_bodies, CHANNELS, FRAMES, V).eval()
    person = torch.randn(5, CHANNELS, FRAMES, V, 1)
    with_nobody = torch.cat([person, torch.zeros_like(person)], dim=-1)
    for found, expected in zip(one(person), two_bodies(with_nobody), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one(person[..., 0])[0], one(person)[0])
    twice = torch.cat([person, person], dim=-1)
    assert (one(person)[0] - two_bodies(twice)[0]).abs().max() > 1e-3  # the absent body does have its say


@torch.no_grad()
def test_one_body_leaves_the_network_that_it_was_made_from_as_it_was(two_bodies):
    x = torch.randn(2, CHANNELS, FRAMES, V, 2)
    before = two_bodies(x)[0]
    OneBody(two_bodies, CHANNELS, FRAMES, V)
    assert torch.equal(two_bodies(x)[0], before)


def shuffled(layout, order):
    """The layout with its joints in another order."""
    place = np.argsort(order)
    parents = tuple(int(place[layout.parents[i]]) for i in order)
    return Layout("SHUFFLED", tuple(layout.joints[i] for i in order), parents)


@pytest.mark.parametrize("name", ["ctrgcn-edge", "stgcn-edge"])
@torch.no_grad()
def test_joints_in_another_order_give_the_same_answer_in_the_layout_of_that_order(name):
    order = np.random.default_rng(2).permutation(V)
    network = trained_like(name, 1)
    other = Recogniser(build(name, shuffled(KINECT_V2_25, order), CHANNELS, 1), K, D).eval()
    weights = {}
    for key, tensor in network.state_dict().items():
        if key.startswith("backbone.input.norm.") and tensor.ndim:
            tensor = tensor.reshape(V, CHANNELS)[order].flatten()
        elif tensor.shape[-2:] == (V, V):  # a learned adjacency or its edge weights
            tensor = tensor[..., order, :][..., order]
        weights[key] = tensor
    other.load_state_dict(weights)
    x = torch.randn(3, CHANNELS, FRAMES, V)
    torch.testing.assert_close(other(x[..., order])[0], network(x)[0], rtol=1e-4, atol=1e-5)
