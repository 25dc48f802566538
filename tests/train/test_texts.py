"""The text side: fixed and learned texts, their class features, and what is drawn of them."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from realtime.errors import UsageError
from tests.train.tiny_texts import tiny_encoder
from train.text import open_encoder
from train.texts import FixedTexts, LearnedTexts, class_text, draw_texts

NAMES = ["sitting down", "standing up", "throwing"]
TEXTS = [["sitting down", "taking a seat"], ["standing up"], ["throwing", "hurling", "a ball is thrown away"]]


def unit_norms(features):
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(features.shape[:-1]))


@pytest.fixture(params=["tiny", "all-MiniLM-L6-v2"])
def encoder(request):
    if request.param == "tiny":
        return tiny_encoder()
    try:
        return open_encoder(request.param)
    except UsageError as error:
        pytest.skip(str(error))


def test_fixed_texts_are_the_encoders_features_at_unit_length(encoder):
    features, mask = FixedTexts(encoder, TEXTS)()
    assert mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    for k, of_class in enumerate(TEXTS):
        for s, text in enumerate(of_class):
            torch.testing.assert_close(features[k, s], normalize(encoder.encode([text]), dim=1)[0], rtol=0, atol=1e-5)
    unit_norms(features[mask])
    assert not features[~mask].any()


def test_class_text_is_the_normalised_mean_of_the_texts_that_are_there():
    features, mask = FixedTexts(tiny_encoder(), TEXTS)()
    found = class_text(features, mask)
    unit_norms(found)
    for k, of_class in enumerate(TEXTS):
        mean = sum(features[k, s] for s in range(len(of_class))) / len(of_class)
        torch.testing.assert_close(found[k], mean / mean.norm())


def test_texts_are_drawn_evenly_of_the_own_class_and_only_such_as_are_there():
    features = torch.arange(12.0).reshape(3, 4, 1)  # text s of class k is 4 k + s
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()
    label = torch.tensor([2, 0, 1]).repeat(2000)
    torch.manual_seed(0)
    drawn = draw_texts(features, mask, label, 2)
    assert drawn.shape == (12_000, 1)
    drawn = drawn.reshape(2, 6000)  # draw by draw
    assert not torch.equal(drawn[0], drawn[1])
    for row in drawn:
        assert ((row // 4) == label).all()
        for k, count in ((0, 2), (1, 1), (2, 4)):
            counts = torch.bincount(row[label == k].long() - 4 * k)
            assert len(counts) == count and (counts - 2000 / count).abs().max() < 150


def test_single_texts_are_taken_as_they_are():
    features = torch.randn(3, 1, 5)
    label = torch.tensor([2, 2, 0])
    assert torch.equal(draw_texts(features, torch.ones(3, 1).bool(), label, 2), features[label, 0])


def test_learned_texts_are_the_encoders_of_context_and_name():
    encoder = tiny_encoder()
    texts = LearnedTexts(encoder, NAMES, contexts=4, parallel=2)
    features, mask = texts()
    assert features.shape == (3, 2, encoder.width) and mask.all()
    unit_norms(features)
    for s in range(2):
        expected = encoder(encoder.slots(NAMES, 4), texts.context[s, 0])
        torch.testing.assert_close(features[:, s], normalize(expected, dim=1))
    assert not torch.allclose(features[:, 0], features[:, 1])


def test_contexts_may_start_near_words():
    encoder = tiny_encoder()
    torch.manual_seed(0)
    texts = LearnedTexts(encoder, NAMES, contexts=4, parallel=2, start="a skeleton moves")
    words = encoder.word_vectors("a skeleton moves")
    assert len(words) == 3
    noise = texts.context.detach()[:, 0] - torch.cat([words, torch.zeros(1, 8)])
    assert 0 < noise.abs().max() < 0.1 and not torch.equal(noise[0], noise[1])
    short = LearnedTexts(encoder, NAMES, contexts=2, start="a skeleton moves")
    assert (short.context.detach()[0, 0] - words[:2]).abs().max() < 0.1


def test_contexts_of_each_class_reach_their_class_alone():
    texts = LearnedTexts(tiny_encoder(), NAMES, contexts=4, per_class=True)
    assert texts.context.shape == (1, 3, 4, 8)
    texts()[0][1].sum().backward()
    moved = texts.context.grad.abs().sum(dim=(0, 2, 3))
    assert moved[1] > 0 and moved[0] == moved[2] == 0


def test_a_frozen_tower_is_not_saved_and_gets_no_gradient():
    encoder = tiny_encoder()
    texts = LearnedTexts(encoder, NAMES, contexts=4)
    assert list(texts.state_dict()) == ["context"]
    texts()[0].square().mul(torch.arange(16)).sum().backward()
    assert texts.context.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_tuned_tower_is_saved_averaged_and_learns_in_its_last_blocks():
    encoder = tiny_encoder()
    texts = LearnedTexts(encoder, NAMES, contexts=4, tune=1)
    assert {"context", "encoder.tower.blocks.1.weight"} <= set(texts.state_dict())
    texts()[0].mul(torch.arange(16)).sum().backward()
    grown = {name for name, parameter in texts.named_parameters() if parameter.grad is not None}
    assert grown == {
        "context", "encoder.tower.blocks.1.weight", "encoder.tower.blocks.1.bias",
        "encoder.tower.out.weight", "encoder.tower.out.bias",
    }  # fmt: skip
    other = copy.deepcopy(texts)
    with torch.no_grad():
        other.encoder.tower.out.bias += 1
    assert not torch.allclose(other()[0], texts()[0])
    assert torch.equal(encoder.tower.out.bias + 1, other.encoder.tower.out.bias)


def counted(texts, monkeypatch):
    """The list that grows by one with each pass of the tower."""
    passes, tower = [], texts._tower[0]
    whole = tower.forward
    monkeypatch.setattr(tower, "forward", lambda *given: passes.append(1) or whole(*given))
    return passes


def test_between_two_refreshes_the_tower_rests_and_its_last_features_are_used(monkeypatch):
    texts = LearnedTexts(tiny_encoder(), NAMES, contexts=4, refresh=3).train()
    passes = counted(texts, monkeypatch)
    found = []
    for _ in range(7):
        features, mask = texts()
        found.append(features)
        assert mask.all() and mask.shape == (3, 1)
        if features.requires_grad:
            features.mul(torch.arange(16)).sum().backward()
            with torch.no_grad():
                texts.context -= texts.context.grad
                texts.context.grad = None
    assert len(passes) == 3
    assert [features.requires_grad for features in found] == [True, False, False, True, False, False, True]
    assert torch.equal(found[0], found[2]) and torch.equal(found[3], found[5])
    assert not torch.allclose(found[0], found[3])


def test_testing_sees_the_present_contexts_and_does_not_count_as_a_step(monkeypatch):
    texts = LearnedTexts(tiny_encoder(), NAMES, contexts=4, refresh=4).train()
    first = texts()[0].detach()
    with torch.no_grad():
        texts.context += 1
    assert not torch.allclose(texts.eval()()[0], first)
    assert torch.equal(texts.train()()[0], first)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_what_lies_between_two_refreshes_can_be_saved_and_taken_up(steps):
    texts = LearnedTexts(tiny_encoder(), NAMES, contexts=4, refresh=3).train()
    for _ in range(steps):
        texts()
    other = LearnedTexts(tiny_encoder(), NAMES, contexts=4, refresh=3).train()
    other.load_state_dict(texts.state_dict())
    other.resume(texts.between())
    for _ in range(5):
        (a, _), (b, _) = texts(), other()
        assert torch.equal(a, b) and a.requires_grad == b.requires_grad
        with torch.no_grad():
            for one in (texts, other):
                one.context.mul_(1.5)
