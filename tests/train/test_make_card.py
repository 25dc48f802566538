import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from export.parity import Gate
from export.precision import to_int8
from realtime.bundle import default_bundle, load_bundle, load_reference, write_bundle
from scripts import make_card as module
from train.data import read


@pytest.fixture
def flags(tmp_path):
    """Flags of a run on a folder of NW-UCLA's form with subjects 1, 9 and 10."""
    folder = tmp_path / "ucla"
    folder.mkdir()
    for subject in (1, 9, 10):
        content = {"file_name": "", "skeletons": [[[0.1 * j, 0.5, 2.0] for j in range(20)]] * 3, "label": 10}
        (folder / f"a12_s{subject:02d}_e04_v02.json").write_text(json.dumps(content))
    (tmp_path / "notes.md").write_text("## Data and terms\n")
    return {
        "--bundle": default_bundle(), "--data": f"nw_ucla:{folder}", "--held-out": "nw_ucla:10,09",
        "--notes": tmp_path / "notes.md", "--out": tmp_path / "card.md",
    }  # fmt: skip


def make_card(monkeypatch, flags):
    """The exit code of `python -m scripts.make_card`, with scoring replaced by a count of clips."""
    report = {"accuracy": 0.5, "mean_class_accuracy": 0.5, "coverage": 1.0, "per_class": {}, "confused": []}
    events = {
        "truths": 2, "f1": 0.5, "precision": 0.5, "recall": 0.5, "onset_delay_s_median": None, "false_per_hour": 60.0
    }  # fmt: skip
    monkeypatch.setattr(module, "evaluate", lambda _, __, items: {**report, "clips": len(items), "events": events})
    monkeypatch.setattr("sys.argv", ["make_card", *(str(word) for pair in flags.items() for word in pair)])
    return module.main()


def test_the_card_says_who_was_held_out_and_how_to_read_events(flags, monkeypatch):
    assert make_card(monkeypatch, flags) == 0
    text = flags["--out"].read_text()
    assert "| nw_ucla | 9, 10 | 2 | 50.0%" in text
    assert "| nw_ucla | 0.0 | 2 | 0.50 | 0.50 | 0.50 | - | 1.00 |\n\nUTKinect labels" in text
    assert "delays would double and rates halve" in text and text.endswith("\n\n## Data and terms\n")


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--held-out", "utkinect:6", "names a set that --data does not"),
        ("--held-out", "nw_ucla:7", "nothing of subject 7; it has 1 9 10"),
        ("--held-out", "nw_ucla", "NAME:S1,S2"),
        ("--notes", "no/notes.md", "cannot be read"),
        ("--out", "no/card.md", "cannot be written"),
    ],
)
def test_slips_are_said_before_scoring(flags, monkeypatch, capsys, flag, value, said):
    assert make_card(monkeypatch, {**flags, flag: value}) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_set_without_held_out_subjects_is_refused(flags, tmp_path):
    config = SimpleNamespace(data=(flags["--data"],), held_out=(), against=None)
    with pytest.raises(module.UsageError, match="add --held-out nw_ucla"):
        module.reports(config, None, None)


def test_two_bundles_are_compared_clip_by_clip():
    found = {
        "a": {"right": [True, True, True, False], "against": [True, False, False, True]},
        "b": {"right": [True] * 6, "against": [False] * 6},
    }
    lines = module.comparison(found, SimpleNamespace(name="before"))
    assert "| a | 4 | 50.0% | 75.0% | 1 | 2 | 1.00 |" in lines
    assert "| b | 6 | 0.0% | 100.0% | 0 | 6 | 0.03 |" in lines
    assert "| all together | 10 | 20.0% | 90.0% | 1 | 8 | 0.04 |" in lines


def test_each_graph_of_a_bundle_is_scored_on_the_same_clips(tmp_path, flags):
    bundle = load_bundle(with_int8(tmp_path))
    items = list(read("nw_ucla", Path(flags["--data"].partition(":")[2])))
    found = module.of_graphs(bundle, items)
    assert list(found) == ["fp32", "int8"]
    assert found["fp32"]["clips"] == 3 and found["fp32"]["agree"] == found["fp32"]["windows"] > 0
    assert found["int8"]["windows"] == found["fp32"]["windows"] >= found["int8"]["agree"]


def with_int8(folder):
    """The shipped bundle with an int8 graph of its own."""
    shipped = load_bundle(default_bundle())
    spec = json.loads((shipped.path / "bundle.json").read_text())
    graph = to_int8(shipped.read("model.onnx"), load_reference(shipped).skeleton)
    gate = Gate(
        "int8", 1000, "a test", 0.995, 0.99, True, False, 1.0, {"logits": 1.0, "embedding": 0.1}, None, len(graph), 1,
        {"1": 1.0, "8": 1.0}, {"1": 1.0, "8": 1.0},
    )  # fmt: skip
    files = {name: shipped.read(name) for name in shipped.files} | {"model.int8.onnx": graph}
    spec["graphs"] = {
        "fp32": {"file": "model.onnx", "gate": None},
        "int8": {"file": "model.int8.onnx", "gate": gate.to_json()},
    }
    return write_bundle(folder / "bundle", spec, files)


def test_the_card_shows_each_graphs_accuracy():
    table = {
        "fp32": {"clips": 4, "right": 3, "windows": 10, "agree": 10},
        "int8": {"clips": 4, "right": 2, "windows": 10, "agree": 9},
    }
    lines = module._graph_table({"a": {"graphs": table}, "b": {"graphs": table}})
    assert "| set | clips | windows | fp32 | int8 | int8 as fp32 |" in lines
    assert "| a | 4 | 10 | 75.0% | 50.0% | 90.00% |" in lines
    assert "| all together | 8 | 20 | 75.0% | 50.0% | 90.00% |" in lines
    assert module._graph_table({"a": {}}) == []
