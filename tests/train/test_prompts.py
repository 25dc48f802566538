"""Texts of the classes: every file that ships keeps the rules, and each rule is seen to be broken by something."""

import json
import subprocess
import sys

import pytest

from realtime.errors import UsageError
from train import prompts as module
from train.prompts import PARTS, SETS, ClassText, Prompts, load
from train.prompts.__main__ import main
from train.prompts.filters import PART_WORDS, SENTENCE_WORDS, SIMILAR, SYNONYMS, by_kind, fold, homonym, problems, sift
from train.prompts.labels import LABELS, labels_of
from train.prompts.traps import TRAPS

PART = "moves up and down once more"
SENTENCE = "The person lifts one arm beside the head and moves the open hand from side to side."


def text(name="waving", synonyms=(), sentence=SENTENCE, **parts):
    own = [f"{name} the {number} hand" for number in ("left", "right", "open", "raised", "flat", "free")]
    return ClassText(name, tuple(synonyms or own), sentence, dict.fromkeys(PARTS, PART) | parts)


def of(**texts):
    return Prompts("mine", "nobody", texts)


@pytest.mark.parametrize("data", SETS)
def test_the_texts_that_ship_keep_the_rules(data):
    prompts = load(data)
    assert prompts.data == data and sorted(prompts.classes) == sorted(LABELS[data])
    assert problems(prompts, labels_of(data)) == []
    for one in prompts.texts.values():  # said again without the code under test
        assert 1 <= len(one.name.split()) <= 6 and tuple(one.parts) == PARTS
        assert SYNONYMS[0] <= len(one.synonyms) <= SYNONYMS[1] and max(len(s.split()) for s in one.synonyms) <= 12
        assert len({s.lower() for s in one.synonyms}) == len(one.synonyms)
        assert SENTENCE_WORDS[0] <= len(one.sentence.split()) <= SENTENCE_WORDS[1]
        assert all(PART_WORDS[0] <= len(phrase.split()) <= PART_WORDS[1] for phrase in one.parts.values())


def test_labels_are_those_of_the_sets():
    assert set(LABELS) == set(SETS)
    assert [len(LABELS[data]) for data in SETS] == [120, 51, 10, 27, 10, 20, 12, 8, 45]
    assert labels_of("ntu120")[::119] == ("A001", "A120") and labels_of("pku_mmd")[::50] == ("1", "51")
    assert labels_of("mine") is None


def test_texts_are_picked_in_the_order_asked_and_a_class_without_any_is_named():
    prompts = load("nw_ucla")
    assert [one.name for one in prompts.pick(["throw", "carry", "throw"])] == [
        prompts.texts[label].name for label in ("throw", "carry", "throw")
    ]
    with pytest.raises(UsageError, match=r"nw_ucla have no text for class 'fly', 'swim'.*train\.prompts write"):
        prompts.pick(["throw", "fly", "swim"])


def test_sets_with_the_same_labels_share_their_texts():
    assert load("ntu60") == load("ntu120") and load("pku_mmd2") == load("pku_mmd")
    with pytest.raises(UsageError, match="no prompts for 'ntu7'; there are ntu120"):
        load("ntu7")


def test_what_is_written_is_read_back(tmp_path):
    prompts = load("sbu")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(prompts.to_json()), encoding="utf-8")
    assert load(path) == load(str(path)) == prompts


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (("schema",), "prompts/2", "schema 'prompts/1' with exactly author, classes, data, schema"),
        (("more",), 1, "with exactly"),
        (("classes",), {}, "at least one class"),
        (("classes", "throw"), {"name": "throwing"}, "class 'throw' must have exactly name, parts, sentence, synonyms"),
        (("classes", "throw", "synonyms"), [], "synonyms must be a list with at least one"),
        (("classes", "throw", "synonyms"), ["tossing", 3], "synonym 2 must be text"),
        (("classes", "throw", "name"), " throwing", "name must be text, with single spaces"),
        (("classes", "throw", "sentence"), "", "sentence must be text"),
        (("classes", "throw", "parts", "tail"), "wags", "parts must have exactly head, arms, torso, legs"),
        (("classes", "throw", "parts", "head"), None, "head must be text"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(tmp_path, place, value, complaint):
    content = load("nw_ucla").to_json()
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UsageError, match=r"bad\.json") as refused:
        load(path)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"schema": ', "are not JSON"),
        (b"\xff\xfe", "are not JSON in UTF-8"),
        (b'{"schema": "prompts/1", "schema": "x"}', "'schema' given twice"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_json_is_refused(tmp_path, content, complaint):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        load(path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Raise hand", "raise hand."),
        ("raise the hands!", "raise hand"),
        ("picking up boxes", "picking up a box"),
        ("toss a ball", "toss  the ball,"),
    ],
)
def test_case_punctuation_articles_and_plurals_make_no_difference(one, other):
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("raise hand", "raise head"), ("cross arms", "cros arms"), ("a", "b c")])
def test_other_words_do(one, other):
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dropping", "raining"),
        ("drop", "a light drizzle"),
        ("dropping trash", "taking showers"),
        ("waving", "surfing the ocean"),
        ("standing up", "doing stand-up comedy"),
        ("punch", "a fruity drink"),
        ("bowing", "drawing an arrow"),
        ("clapping hands", "rolls of thunder"),
        ("checking the time", "paying by cheque"),
    ],
)
def test_another_sense_of_the_word_is_found(name, said):
    assert homonym(name, said)
    assert sift("x", name, [said])[1][0].reason.startswith("homonym: ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("throw", "hurling an object away"),
        ("drinking punch", "sipping a drink"),  # what the name says itself is no other sense
        ("bowling", "drawing an arrow"),  # bowling is no form of bow
        ("dropping", "letting an object go"),
    ],
)
def test_the_same_sense_is_not(name, said):
    assert homonym(name, said) == ""


def test_each_trap_catches_its_own_words():
    for name, betrayers in TRAPS.items():
        for word in betrayers.split():
            assert homonym(name, f"some {word}") or word in name.split(), (name, word)


def test_each_refused_synonym_has_its_reason():
    said = [
        "tossing",
        "Tossing.",
        "throws",
        "hurling",
        "...",
        "one two " * 7,
        "<b>lob</b>",
        "a blanket",
        "Sure! lobbing",
    ]
    good, refused = sift("throw", "throw", said, kept=["hurling"])
    assert good == ["tossing"]
    assert [one.reason.partition(":")[0] for one in refused] == [
        *("duplicate", "duplicate", "duplicate", "empty", "long", "form", "homonym", "form")
    ]
    assert {one.label for one in refused} == {"throw"} and refused[4].reason == "long: 14 words, at most 12"
    assert by_kind(refused) == {"duplicate": 3, "form": 2, "empty": 1, "long": 1, "homonym": 1}


def test_a_similarity_refuses_what_is_far_from_a_person_doing_it():
    asked = []

    def similarity(name, said):
        asked.append(name)
        return {"tossing": SIMILAR, "tiling": SIMILAR - 0.01, "odd": float("nan")}[said]

    good, refused = sift("t", "throwing", ["tossing", "tiling", "odd"], similarity=similarity)
    assert good == ["tossing"] and [one.text for one in refused] == ["tiling", "odd"]
    assert set(asked) == {"a person throwing"} and "is 0.17, at least" in refused[0].reason


def test_texts_that_break_no_rule():
    assert problems(of(wave=text(), push=text("pushing", sentence=SENTENCE.replace("open", "flat")))) == []


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (text("one two three four five six seven"), "name: 7 words, must be 1 to 6"),
        (text(synonyms=["a wave", "hello"]), "synonyms: 2 texts, must be 6 to 10"),
        (text(synonyms=["greeting", "Greeting."]), "synonym 'Greeting.': duplicate"),
        (text(synonyms=["Waving"]), "synonym 'Waving': duplicate"),
        (text(synonyms=["surfing"]), "synonym 'surfing': homonym"),
        (text(sentence="Too short."), "sentence: 2 words, must be 15 to 30"),
        (text(sentence=f"Waving. {SENTENCE}"), "sentence: one sentence"),
        (text(sentence=SENTENCE[:-1]), "sentence: one sentence"),
        (text(head="nods"), "head: 1 words, must be 6 to 16"),
    ],
)
def test_each_broken_rule_is_named(broken, complaint):
    assert any(line.startswith(f"class 'wave': {complaint}") for line in problems(of(wave=broken)))


def test_labels_without_a_text_and_texts_without_a_label_are_named():
    found = problems(of(wave=text(), fly=text("flying", sentence=SENTENCE.replace("open", "flat"))), ["wave", "push"])
    assert found == ["class 'push': no text", "class 'fly': no such class in mine"]


def test_what_two_classes_say_is_named():
    other = text("greeting", synonyms=[*text("greeting").synonyms[:5], "Waving the left hand"])
    found = problems(of(wave=text(), greet=other))
    assert "classes 'wave', 'greet': all say 'waving left hand'" in found
    assert f"classes 'wave', 'greet': all say {fold(SENTENCE)!r}" in found and len(found) == 2


def command(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["prompts", *args])
    return main()


def test_show_prints_every_text_of_a_class(monkeypatch, capsys):
    assert command(monkeypatch, "show", "nw_ucla", "throw") == 0
    said = capsys.readouterr().out
    (throw,) = load("nw_ucla").pick(["throw"])
    assert all(one in said for one in (throw.name, throw.sentence, *throw.synonyms, *throw.parts.values()))
    assert load("nw_ucla").texts["carry"].sentence not in said
    assert command(monkeypatch, "show", "nw_ucla") == 0
    assert load("nw_ucla").texts["carry"].sentence in capsys.readouterr().out
    assert command(monkeypatch, "show", "nw_ucla", "fly") == 2


def test_check_prints_what_is_broken_and_ends_with_2(monkeypatch, capsys, tmp_path):
    assert command(monkeypatch, "check", "sbu") == 0
    assert "8 classes" in capsys.readouterr().out
    content = load("sbu").to_json()
    del content["classes"]["hugging"]
    content["classes"]["kicking"]["parts"]["head"] = "nods"
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    assert command(monkeypatch, "check", str(path)) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "class 'hugging': no text",
        "class 'kicking': head: 1 words, must be 6 to 16",
    ]
    assert "breaks 2 rules" in said.err


def test_the_store_loads_nothing_heavy():
    code = "import sys, train.prompts as p; p.load('sbu'); print({'torch', 'numpy', 'scipy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=module.FOLDER.parents[1]
    )
    assert done.stdout.strip() == "set()"
