"""The four methods: what each adds to the loss, what it leaves out, and the joints of GAP's parts."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from realtime.skeleton import KINECT_V1_20, KINECT_V2_25, LAYOUTS
from tests.train.tiny_texts import tiny_encoder
from train import compose, loss, prompts
from train.methods import Gap, SkeletonLanguage, part_joints
from train.settings import Config
from train.texts import class_text

CONFIG = Config(out=Path("nowhere"), widths=(8, 16), groups=2, dropout=0.0, attention_dropout=0.0, contexts=4)
CLASSES = ("sit", "stand", "throw")
TEXTS = [
    prompts.ClassText(name, synonyms, f"a person is {name}", {part: f"{part} {name}" for part in prompts.PARTS})
    for name, synonyms in (
        ("sitting down", ("taking a seat", "being seated")),
        ("standing up", ("rising",)),
        ("throwing", ("hurling", "tossing", "pitching")),
    )
]
WEIGHTS = ("contrast", "rank_before", "rank_after", "post", "distil")
X = torch.randn(6, 3, 16, 20, 1, generator=torch.Generator().manual_seed(0))
TARGET = torch.eye(3)[[0, 1, 2, 2, 1, 1]]


def made(method, **changes):
    """A method on a small network of 20 joints, with the same weights at each call."""
    config = dataclasses.replace(CONFIG, method=method, **changes)
    torch.manual_seed(0)
    encoder = None if method == "ce" else tiny_encoder()
    network = compose.recogniser({
        "layout": "KINECT_V1_20", "backbone": "graphnet", "channels": 3, "bodies": 1, "classes": CLASSES,
        "widths": config.widths, "groups": config.groups, "dropout": config.dropout,
        "text_width": encoder and encoder.width,
    })  # fmt: skip
    return compose.method(config, network, TEXTS, encoder, KINECT_V1_20, compose.places_of(network, 3, 16, 20, 1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_classification_alone(smoothing):
    method = made("ce", smoothing=smoothing)
    found = method(X, TARGET)
    assert found.parts == {} and found.logits.shape == (6, 3)
    torch.testing.assert_close(found.total, loss.classification(found.logits, TARGET, smoothing))
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"recogniser"}


@pytest.mark.parametrize("method", ["gap", "pcke", "pcle"])
@pytest.mark.parametrize("target", [TARGET, 0.7 * TARGET + 0.3 * torch.eye(3)[0]], ids=["plain", "soft"])
def test_the_loss_is_the_weighted_sum_of_its_parts_and_reaches_all_parameters(method, target):
    made_of = made(method, contrast=0.8, rank_before=0.4, rank_after=0.3, post=0.2, distil=0.1)
    found = made_of(X, target)
    weights = {
        "classification": 1.0,
        "contrast": 0.8,
        "rank_before": 0.4,
        "rank_after": 0.3,
        "post": 0.2,
        "distil": 0.1,
    }
    names = ["classification", "contrast"] if method == "gap" else list(weights)
    assert list(found.parts) == names
    assert found.total.item() == pytest.approx(sum(weights[n] * found.parts[n].item() for n in names), abs=1e-5)
    for name, part in found.parts.items():
        assert math.isfinite(part.item()) and part.item() >= 0, name
    found.total.backward()
    for name, parameter in made_of.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert made_of.recogniser.backbone.input_norm.weight.grad.abs().sum() > 0
    assert made_of.recogniser.project.weight.grad.abs().sum() > 0
    if method == "pcle":
        assert made_of.texts.context.grad.abs().sum() > 0


@pytest.mark.parametrize("method", ["pcke", "pcle"])
@pytest.mark.parametrize("absent", WEIGHTS)
def test_a_weight_of_0_leaves_its_part_out(method, absent):
    weights = dict.fromkeys(WEIGHTS, 0.5) | {absent: 0.0}
    parts = made(method, **weights)(X, TARGET).parts
    assert set(parts) == {"classification", *WEIGHTS} - {absent}


def test_all_weights_0_leave_the_classification():
    torch.manual_seed(1)
    found = made("pcle", **dict.fromkeys(WEIGHTS, 0.0))(X, TARGET)
    assert list(found.parts) == ["classification"]
    assert torch.equal(found.total, found.parts["classification"])


@pytest.mark.parametrize("method", ["pcke", "pcle"])
def test_without_interaction_there_is_none_of_its_parameters_and_no_after(method):
    without = made(method, interaction=False, distil=0.5)
    assert not [n for n, _ in without.named_parameters() if n.startswith(("interaction", "after"))]
    assert set(without(X, TARGET).parts) == {"classification", "contrast", "rank_before"}
    assert [n for n, _ in made(method).named_parameters() if n.startswith("interaction")]


@torch.no_grad()
def test_the_parts_of_the_loss_are_of_the_scores_before_and_after():
    method = made("pcke", distil=0.5)
    found = method(X, TARGET)
    text = class_text(*method.texts())
    feature_map = method.recogniser.feature_map(X)  # training mode: the batch's own statistics, as in `found`
    logits, skeleton = method.recogniser.heads(feature_map.mean(dim=(2, 3)))
    before = torch.stack([torch.stack([(z * t).sum() for t in text]) for z in skeleton])
    after = method.interaction(feature_map, method.recogniser.project, text)
    torch.testing.assert_close(found.parts["rank_before"], loss.ranking(before, TARGET, 0.2, 5))
    torch.testing.assert_close(found.parts["rank_after"], loss.ranking(after, TARGET, 0.2, 5))
    torch.testing.assert_close(found.parts["post"], loss.classification(after / 0.07, TARGET))
    torch.testing.assert_close(found.parts["distil"], loss.distillation(logits, after / 0.07))
    torch.testing.assert_close(found.logits, logits)


@torch.no_grad()
def test_the_label_does_not_enter_the_fused_scores():
    method = made("pcle").eval()
    text = class_text(*method.texts())
    fused = method.fused(X, text)
    assert fused.shape == (6, 3)
    for i in range(6):
        torch.testing.assert_close(method.fused(X[i : i + 1], text)[0], fused[i], rtol=1e-4, atol=1e-4)
    # With other labels the classification after the interaction is that of the very same scores.
    for target in (TARGET, TARGET.roll(1, dims=1)):
        torch.testing.assert_close(method(X, target).parts["post"], loss.classification(fused, target))


@torch.no_grad()
def test_gap_draws_whole_and_parts_each_to_its_own_text():
    method = made("gap")
    torch.manual_seed(3)
    found = method(X, TARGET)
    torch.manual_seed(3)  # the same synonyms are drawn
    feature_map, recogniser = method.recogniser.feature_map(X), method.recogniser
    label, aligned = TARGET.argmax(dim=1), []
    for i, name in enumerate(["whole", *prompts.PARTS]):
        group = list(range(20)) if i == 0 else part_joints(KINECT_V1_20)[i - 1]
        head = recogniser.project if i == 0 else method.parts[i - 1]
        unit = torch.nn.functional.normalize(head(feature_map[..., group].mean(dim=(2, 3))), dim=1)
        features, mask = method.texts[i]()
        if i == 0:
            text = features[label, torch.multinomial(mask[label].float(), 1, replacement=True)[:, 0]]
        else:
            said = [f"{one.name}: {one.parts[name]}" for one in TEXTS]
            text = torch.nn.functional.normalize(tiny_encoder().encode(said), dim=1)[label]
        scale = torch.tensor(math.log(1 / 0.07))
        aligned.append(loss.contrastive(unit, text, TARGET, TARGET, scale, 10.0))
    torch.testing.assert_close(found.parts["contrast"], sum(aligned) / 5)


@torch.no_grad()
def test_gaps_scale_is_used_as_it_is_or_as_an_exponential():
    raw, exp, even = (made("gap", **changes) for changes in ({}, {"gap_scale": "exp"}, {"gap_sharpness": 0.0}))
    for method in (raw, exp, even):
        torch.testing.assert_close(method.log_scale, torch.full((5,), 2.6593), rtol=0, atol=1e-4)

    def contrast(method):
        torch.manual_seed(3)
        return method(X, TARGET).parts["contrast"]

    assert contrast(exp) > contrast(raw)  # far sharper, on a network that knows nothing yet
    exp.log_scale.fill_(math.log(math.log(1 / 0.07)))  # now its exponential is what raw uses as it is
    torch.testing.assert_close(contrast(exp), contrast(raw))
    assert contrast(even) != contrast(raw)


def test_gaps_parts_are_the_published_groups():
    legs = list(range(12, 20))
    ntu = [[2, 3, 20], [*range(4, 12), 21, 22, 23, 24], [0, 1, 2, 12, 16], legs]
    assert part_joints(KINECT_V2_25) == ntu
    assert part_joints(KINECT_V1_20) == [[2, 3], list(range(4, 12)), [0, 1, 12, 16], legs]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_every_layout_has_joints_for_each_of_gaps_parts(layout):
    assert all(part_joints(layout))


def test_methods_are_what_they_are_called():
    assert isinstance(made("gap"), Gap)
    pcke, pcle = made("pcke"), made("pcle", parallel_contexts=2)
    assert isinstance(pcke, SkeletonLanguage) and isinstance(pcle, SkeletonLanguage)
    assert pcke.texts.mask.sum(dim=1).tolist() == [4, 3, 5]  # name, synonyms, sentence
    assert not list(pcke.texts.parameters())
    assert pcle.texts.context.shape == (2, 1, 4, 8)
