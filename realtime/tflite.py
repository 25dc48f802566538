"""A .tflite network without the outputs that nobody reads, cut in memory.

The landmark network also draws the body's silhouette; LiteRT computes every operator in the file, wanted or not, and
that branch costs a quarter of its time. A .tflite file is a FlatBuffer: lists of offsets, which are made shorter in
place. No weight is touched, and the other outputs stay the same to the bit.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

_MODEL_SUBGRAPHS = 2
_GRAPH_OUTPUTS, _GRAPH_OPERATORS = 2, 3
_OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 1, 2


def without_outputs(network: bytes, unwanted: Collection[int]) -> bytes:
    """The network without these outputs, counted as its file lists them, and without what only they need.

    network: a whole, trusted .tflite file with one graph. Raises ValueError where it has no such outputs.
    """
    data = bytearray(network)
    (graph,) = _offsets(data, _field(data, _u32(data, 0), _MODEL_SUBGRAPHS))
    outputs_at, operators_at = _field(data, graph, _GRAPH_OUTPUTS), _field(data, graph, _GRAPH_OPERATORS)
    outputs = _numbers(data, outputs_at)
    if not set(unwanted) <= set(range(len(outputs))):
        raise ValueError(f"unwanted outputs must be in [0, {len(outputs) - 1}], got {sorted(unwanted)}")
    wanted = [tensor for index, tensor in enumerate(outputs) if index not in unwanted]
    operators = _offsets(data, operators_at)
    kept = [operators[index] for index in _needed(data, operators, wanted)]
    struct.pack_into(f"<I{len(wanted)}i", data, outputs_at, len(wanted), *wanted)
    places = range(operators_at + 4, operators_at + 4 + 4 * len(kept), 4)
    struct.pack_into("<I", data, operators_at, len(kept))
    for place, operator in zip(places, kept, strict=True):
        struct.pack_into("<I", data, place, operator - place)
    return bytes(data)


def _needed(data: bytearray, operators: list[int], wanted: list[int]) -> list[int]:
    """Which operators the wanted tensors come from, in the file's order."""
    tensors, needed = set(wanted), []
    for index in reversed(range(len(operators))):  # a file lists an operator before those that read it
        if tensors.intersection(_numbers(data, _field(data, operators[index], _OPERATOR_OUTPUTS))):
            tensors.update(_numbers(data, _field(data, operators[index], _OPERATOR_INPUTS)))
            needed.append(index)
    return needed[::-1]


def _field(data: bytearray, table: int, number: int) -> int:
    """Where the vector in a table's field begins."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    place = struct.unpack_from("<H", data, layout + 4 + 2 * number)[0]
    return table + place + _u32(data, table + place)


def _offsets(data: bytearray, vector: int) -> list[int]:
    """Where the tables of a vector begin."""
    places = range(vector + 4, vector + 4 + 4 * _u32(data, vector), 4)
    return [place + _u32(data, place) for place in places]


def _numbers(data: bytearray, vector: int) -> list[int]:
    return list(struct.unpack_from(f"<{_u32(data, vector)}i", data, vector + 4))


def _u32(data: bytearray, place: int) -> int:
    return struct.unpack_from("<I", data, place)[0]
