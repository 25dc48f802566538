import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export import parity
from export.graph import to_onnx
from export.parity import judge, prove, require
from export.precision import to_fp16, to_int8
from export.windows import LabelledClip, Windows
from export.wrapper import deployed
from realtime.bundle import Reference
from realtime.errors import ParityError, UsageError
from realtime.graphs import GATE_KEYS
from tests.export.trained_like import clips, small_graphnet

SHAPE = (9, 64, 16)


@pytest.fixture(scope="module")
def network():
    return deployed(small_graphnet(), "skeleton")


@pytest.fixture(scope="module")
def graph(network):
    return to_onnx(network, SHAPE)


@pytest.fixture(scope="module")
def windows(graph):
    every = clips(2500, seed=1).numpy()
    logits = parity.Session(graph).logits(every)
    best, next_best = np.sort(logits, axis=1)[:, :-3:-1].T
    clear = np.argsort(next_best - best)[:1000]  # a network that was never trained is unsure of most
    gate, truths = every[clear], logits[clear[:40]].argmax(axis=1)
    labelled = tuple(LabelledClip(window[None], int(truth)) for window, truth in zip(gate, truths, strict=False))
    return Windows(clips(64).numpy(), gate, "windows of a test", labelled)


@pytest.fixture(scope="module")
def reference(network):
    skeleton = clips(4, seed=2)
    with torch.inference_mode():
        return Reference(skeleton.numpy(), *(output.numpy() for output in network(skeleton)))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(parity, "TIMED_S", 0.0)


def changed(graph, name, change):
    """The graph with one weight changed."""
    model = onnx.load_from_string(graph)
    tensor = next(tensor for tensor in model.graph.initializer if name in tensor.name)
    value = numpy_helper.to_array(tensor).copy()
    change(value)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model.SerializeToString()


def one_weight(value):
    value.flat[0] += 0.5


def other_head(value):
    value[:] = value[::-1].copy()


def test_a_graph_is_proven_against_its_network(network, graph):
    assert prove(network, graph, SHAPE) < 1e-5


@pytest.mark.parametrize("name", ["spread", "classify.bias"])
def test_one_wrong_weight_is_no_proof(network, graph, name):
    with pytest.raises(ParityError, match=r"differ from the network's by .*export it anew") as caught:
        prove(network, changed(graph, name, one_weight), SHAPE)
    assert caught.value.exit_code == 7


def test_a_graph_of_another_seed_is_no_proof(graph):
    with pytest.raises(ParityError, match="not of these weights"):
        prove(deployed(small_graphnet(seed=1), "skeleton"), graph, SHAPE)


@pytest.mark.parametrize(("precision", "make"), [("fp16", lambda g, w: to_fp16(g)), ("int8", to_int8)])
def test_a_good_graph_passes(graph, windows, reference, precision, make):
    told = []
    made = make(graph, windows.calibration)
    gate = judge(precision, graph, made, windows, reference, told.append)
    assert gate.passed and gate.agreement >= gate.needed == parity.NEEDED[precision]
    assert gate.windows == 1000 and gate.source == "windows of a test"
    assert 0 < gate.worst_logits < 3 and all(0 < value < 3 for value in gate.reference.values())
    assert gate.accuracy["clips"] == 40 and gate.accuracy["fp32"] == 1.0 and gate.accuracy["this"] > 0.9
    assert (gate.bytes, gate.fp32_bytes) == (len(made), len(graph))
    assert min(*gate.latency_ms.values(), *gate.fp32_latency_ms.values()) > 0
    assert told == sorted(told) and told[-1] == 1.0
    assert require(gate, allow_drop=False) is gate
    assert require(gate, allow_drop=True) is gate  # nothing to overrule
    assert sorted(gate.to_json()) == sorted(GATE_KEYS)


def test_a_graph_that_disagrees_is_refused_with_figures(graph, windows, reference):
    gate = judge("int8", graph, changed(graph, "classify.bias", other_head), windows, reference)
    assert not gate.passed and not gate.allowed
    with pytest.raises(
        ParityError, match=r"int8 gives fp32's answer in .*% of 1000 windows of windows of a test"
    ) as caught:
        require(gate, allow_drop=False)
    for part in ("and 99.0% are needed", "accuracy 100.0% -> ", "nothing was written", "--allow-drop"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 7
    allowed = require(gate, allow_drop=True)
    assert allowed.to_json()["allowed"] and not allowed.to_json()["passed"]


def test_an_engines_form_that_disagrees_fails_too(graph, windows, reference):
    """A range that calibration saw too small: ONNX Runtime's unsigned tensors have room above, TensorRT's none."""
    made = to_int8(graph, (0.2 * windows.calibration).astype(np.float32))
    alone = parity.Session(made).logits(windows.gate)
    wanted = parity.Session(graph).logits(windows.gate)
    gate = judge("int8", graph, made, windows, reference)
    assert gate.worst_logits > np.abs(alone - wanted).max()
    assert gate.agreement < (alone.argmax(axis=1) == wanted.argmax(axis=1)).mean()
    assert len(set(wanted.argmax(axis=1))) > 2


def test_what_is_not_a_number_fails_and_can_be_written_down(graph, windows, reference):
    def spoil(value):
        value[:] = np.nan

    gate = judge("fp16", graph, changed(graph, "classify.bias", spoil), windows, reference)
    assert not gate.passed and gate.worst_logits == parity.MOST_DIFFERENCE == gate.reference["logits"]


def test_what_is_not_a_number_fails_even_where_the_first_class_is_always_right(graph, windows, reference):
    def first(value):
        value[0] = 1000.0

    def spoil(value):
        value[:] = np.nan  # of which argmax says 0

    always = changed(graph, "classify.bias", first)
    gate = judge("fp16", always, changed(always, "classify.bias", spoil), windows, reference)
    assert gate.agreement == 1.0 and not gate.passed
    assert gate.source == "windows of a test, all of one class to fp32"


def test_too_few_windows_are_no_gate(graph, windows, reference):
    with pytest.raises(UsageError, match="at least 1000 windows, got 999"):
        judge("int8", graph, graph, replace(windows, gate=windows.gate[:999]), reference)
    with pytest.raises(UsageError, match="one of fp16, int8, got 'fp32'"):
        judge("fp32", graph, graph, windows, reference)


def test_a_clip_is_answered_by_the_action_that_rises_highest(graph, windows):
    session = parity.Session(graph)
    whole = copy.copy(windows.clips[0])
    nothing = 1 - whole.truth if whole.truth in (0, 1) else 0
    assert parity.share_right(session, [whole], nothing) == 1.0
    assert parity.share_right(session, [LabelledClip(whole.windows[:0], nothing), whole], nothing) == 1.0
    assert parity.share_right(session, [LabelledClip(whole.windows[:0], 2), whole], None) == 0.5
    with pytest.raises(UsageError, match="at least one labelled clip"):
        parity.share_right(session, [], nothing)
