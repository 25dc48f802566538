"""What training leaves for the device: logits, a unit embedding, and no joint that its order decides."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from realtime.skeleton import KINECT_V2_25, Layout
from train.backbones import build
from train.graphnet import GraphNet
from train.model import Recogniser

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


@torch.no_grad()
def test_the_feature_map_is_the_mean_of_the_bodies(two_bodies):
    x = torch.randn(2, CHANNELS, FRAMES, V, 2)
    maps = two_bodies.backbone(x)
    torch.testing.assert_close(two_bodies.feature_map(x), 0.5 * (maps[:, 0] + maps[:, 1]))


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
