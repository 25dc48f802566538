"""Graphs that several test files look at: exporting the larger networks takes seconds, so each is exported once."""

from __future__ import annotations

from functools import cache

from torch import nn

from export.graph import to_onnx
from export.wrapper import deployed
from realtime.skeleton import CORE_16
from tests.export.trained_like import CHANNELS, WINDOW, trained_like
from train.compose import Trained

SHAPE = (CHANNELS, WINDOW, len(CORE_16))


@cache
def trained(backbone: str) -> Trained:
    """A checkpoint of this backbone in its own size."""
    return trained_like(backbone)


@cache
def network(backbone: str, head: str) -> nn.Module:
    """What of it is deployed."""
    return deployed(trained(backbone), head)


@cache
def exported(backbone: str, head: str) -> bytes:
    """Its graph, bare of a contract."""
    return to_onnx(network(backbone, head), SHAPE)
