"""Bridger and cross-modality attention: shared keys, a start near identity, no label, any order of classes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, normalize

from train.interaction import Attention, Bridger, CrossModalityAttention, Interaction

N, L, K, D, F, T, V = 5, 7, 4, 16, 12, 3, 4


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def interaction():
    """An interaction as if trained: no gate or place is small."""
    made = Interaction(T, V, D, heads=4).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return made


@pytest.fixture
def given():
    """Feature maps (N, F, T, V), the projection, class texts (K, D)."""
    return torch.randn(N, F, T, V), nn.Linear(F, D), normalize(torch.randn(K, D), dim=1)


def by_hand(attention, query, source):
    """Multi-head attention of queries (L, D) on keys (K, D), head by head."""
    q, (k, v) = attention.query(query), attention.key_value(source).chunk(2, dim=-1)
    heads, width = [], D // attention.heads
    for h in range(attention.heads):
        part = slice(h * width, (h + 1) * width)
        share = torch.softmax(q[:, part] @ k[:, part].T / width**0.5, dim=1)
        heads.append(share @ v[:, part])
    return attention.out(torch.cat(heads, dim=1))


def test_attention_is_its_equation_whichever_side_has_a_batch():
    attention = Attention(D, 4)
    many, texts = torch.randn(N, L, D), torch.randn(K, D)
    close(attention(many, texts), torch.stack([by_hand(attention, one, texts) for one in many]))
    close(attention(texts, many), torch.stack([by_hand(attention, texts, one) for one in many]))
    others = torch.randn(N, 3, D)
    close(attention(many, others), torch.stack([by_hand(attention, a, b) for a, b in zip(many, others, strict=True)]))


def test_keys_that_all_share_equal_keys_repeated_for_each():
    attention, query, texts = Attention(D, 4), torch.randn(N, L, D), torch.randn(K, D)
    close(attention(query, texts), attention(query, texts.expand(N, K, D)))
    close(attention(texts, query), attention(texts.expand(N, K, D), query))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="width 16 is no multiple of 3 heads"):
        Attention(D, 3)


def test_bridger_is_its_equation():
    bridger, tokens, text = Bridger(D, 4).eval(), torch.randn(N, L, D), torch.randn(K, D)
    with torch.no_grad():
        bridger.pool.normal_()
        bridger.inner_gate.fill_(0.7)
    aware, feature = bridger(tokens, text)
    for n in range(N):
        r = tokens[n] + bridger.attention_gate * by_hand(
            bridger.attention, bridger.token_norm(tokens[n]), bridger.text_norm(text)
        )
        r = r + bridger.inner_gate * bridger.inner(bridger.inner_norm(r))
        close(aware[n], r)
        share = torch.softmax(torch.stack([row @ bridger.pool for row in r]), dim=0)
        close(feature[n], sum(w * row for w, row in zip(share, r, strict=True)))


def test_cross_modality_attention_is_its_equation_from_the_same_inputs():
    both = CrossModalityAttention(D, 4).eval()
    aware, feature, text = torch.randn(N, L, D), torch.randn(N, D), torch.randn(K, D)
    skeleton, texts = both(aware, feature, text)
    assert texts.shape == (N, K, D)
    for n in range(N):
        r, t = both.feature_norm(feature[n : n + 1]), both.text_norm(text)
        h = feature[n] + both.skeleton_gate * by_hand(both.to_text, r, t)[0] + both.inner_gate * both.inner(r)[0]
        close(skeleton[n], h)
        close(texts[n], text + both.text_gate * by_hand(both.to_tokens, t, both.token_norm(aware[n])))


def before(feature_map, project, text):
    """Scores before the interaction (N, K)."""
    return cosine_similarity(project(feature_map.mean(dim=(2, 3)))[:, None], text, dim=2)


def test_scores_begin_near_those_before_the_interaction(given):
    fresh = Interaction(T, V, D, heads=4).eval()
    assert (fresh(*given) - before(*given)).abs().max() < 0.05
    assert (fresh(*given) - before(*given)).abs().max() > 0


def test_without_gates_the_scores_are_those_before_the_interaction(given):
    fresh = Interaction(T, V, D, heads=4).eval()
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if name.endswith("_gate"):
                parameter.zero_()
    close(fresh(*given), before(*given))


def test_scores_of_a_clip_do_not_depend_on_its_batch(interaction, given):
    maps, project, text = given
    alone = torch.cat([interaction(one[None], project, text) for one in maps])
    close(alone, interaction(maps, project, text))


def test_classes_in_another_order_have_their_scores_in_that_order(interaction, given):
    maps, project, text = given
    order = torch.tensor([2, 0, 3, 1])
    close(interaction(maps, project, text[order]), interaction(maps, project, text)[:, order])


def test_every_text_takes_part_in_every_score(interaction, given):
    maps, project, text = given
    text.requires_grad_()
    for c in range(K):  # the gradient of one class's score reaches all texts
        (grad,) = torch.autograd.grad(interaction(maps, project, text)[0, c], text)
        assert (grad.norm(dim=1) > 1e-6).all()


def test_scores_are_cosines_and_gradients_reach_all_parameters(interaction, given):
    scores = interaction(*given)
    assert scores.shape == (N, K) and scores.abs().max() <= 1 + 1e-6
    scores[:, 0].sum().backward()
    for name, parameter in interaction.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_texts_baked_into_keys_and_values_give_the_same_scores(interaction, given):
    """Inference mode M2: what the texts alone decide is computed once."""
    maps, project, text = given
    bridger, both = interaction.bridger, interaction.attention
    kv_bridge, kv_text = (
        bridger.attention.key_value(bridger.text_norm(text)),
        both.to_text.key_value(both.text_norm(text)),
    )
    queries = both.to_tokens.query(both.text_norm(text))
    tokens = torch.cat([maps.mean(dim=3), maps.mean(dim=2)], dim=2).transpose(1, 2)
    aware = project(tokens) + interaction.place

    def mix(attention, q, kv):
        k, v = kv.chunk(2, dim=-1)
        return attention.out(attention._mix(q, k, v))

    aware = aware + bridger.attention_gate * mix(
        bridger.attention, bridger.attention.query(bridger.token_norm(aware)), kv_bridge.expand(N, K, 2 * D)
    )
    aware = aware + bridger.inner_gate * bridger.inner(bridger.inner_norm(aware))
    feature = (torch.softmax(aware @ bridger.pool, dim=1)[..., None] * aware).sum(dim=1)
    normed = both.feature_norm(feature)
    mixed = mix(both.to_text, both.to_text.query(normed[:, None]), kv_text.expand(N, K, 2 * D)).squeeze(1)
    skeleton = feature + both.skeleton_gate * mixed + both.inner_gate * both.inner(normed)
    seen = both.to_tokens.key_value(both.token_norm(aware))
    texts = text + both.text_gate * mix(both.to_tokens, queries.expand(N, K, D), seen)
    close(cosine_similarity(skeleton[:, None], texts, dim=2), interaction(maps, project, text))
