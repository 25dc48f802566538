"""A language model in this process: a tiny real one, taught on the spot and written to a folder."""

import sys

import pytest
import torch

from realtime.errors import UsageError
from train.prompts import questions
from train.prompts.local import LocalModel
from train.prompts.questions import AnswerError

pytestmark = pytest.mark.slow  # transformers takes seconds to import

ANSWER = "1. waving one hand 2. greeting"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a language model of one thing: a tiny network taught on the spot to answer one question."""
    pytest.importorskip("transformers", reason="transformers is not installed; pip install transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["<unk>", "<end>", "say", "it", *dict.fromkeys(ANSWER.split())]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    config = GPT2Config(vocab_size=len(words), n_positions=64, n_embd=32, n_layer=1, n_head=2, **ends)
    network = GPT2LMHeadModel(config)
    ids = torch.tensor([fast.encode(f"say it {ANSWER} <end>")])
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        network(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("weights")
    network.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_a_model_in_this_process_answers_the_same_each_time(weights):
    model = LocalModel(str(weights))
    state = torch.random.get_rng_state()
    assert model.ask("say it") == model.ask("say it") == ANSWER
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's random numbers go on as they were
    assert questions.synonyms(model.ask("say it").replace(" 2.", "\n2.")) == ["waving one hand", "greeting"]


def test_a_model_is_asked_through_its_chat_template(weights):
    (weights / "chat_template.jinja").write_text("{% for turn in messages %}say {{ turn['content'] }}{% endfor %}")
    try:
        assert LocalModel(str(weights)).ask("it") == ANSWER
    finally:
        (weights / "chat_template.jinja").unlink()


def test_an_answer_that_the_model_does_not_end_is_no_answer(weights):
    with pytest.raises(AnswerError, match="too long"):
        LocalModel(str(weights), new_tokens=4).ask("say it")


def test_missing_weights_say_what_to_fetch(weights, tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        LocalModel("/nowhere/model")
    with pytest.raises(UsageError, match="fetch it with `hf download nobody/nothing-at-all`"):
        LocalModel("nobody/nothing-at-all")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((weights / file).read_bytes())
    with pytest.raises(UsageError, match="not whole"):
        LocalModel(str(tmp_path))


def test_without_transformers_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"needs transformers .* ask a server with --endpoint"):
        LocalModel("x")
