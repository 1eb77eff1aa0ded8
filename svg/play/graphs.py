"""Graphs of a model as a page holds them: the weights of both once, in a block beside them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runs.graphs import halve

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

LOCATION = "weights"
"""The name by which the graphs ask for the block."""
LEAST_SHARED = 512
"""Bytes from which on a tensor goes into the block."""


@dataclass(frozen=True)
class PackedGraphs:
    """Two graphs without their weights, the weights, and ``model.json``, which says how to call them."""

    observe: bytes
    step: bytes
    weights: bytes
    about: dict[str, Any]


def pack_graphs(folder: Path, half: bool) -> PackedGraphs:
    """Return the float32 ONNX graphs that `write_graphs` has written into `folder`.

    With `half` their weights are stored in float16. What both graphs hold is stored once.
    """
    import onnx

    block = bytearray()
    offsets: dict[bytes, int] = {}
    packed = []
    for part in ("observe", "step"):
        graph = onnx.load(folder / f"{part}.onnx")
        if half:
            halve(graph)
        _move_weights(graph, block, offsets)
        packed.append(graph.SerializeToString())
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return PackedGraphs(*packed, bytes(block), about)


def _move_weights(graph: "ModelProto", block: bytearray, offsets: dict[bytes, int]) -> None:
    """Move the tensors of a graph to the end of `block`, unless `offsets` says where the same bytes are."""
    from onnx import numpy_helper

    for tensor in graph.graph.initializer:
        data = np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes()
        if len(data) < LEAST_SHARED:
            continue
        if data not in offsets:
            offsets[data] = len(block)
            block += data
        _point(tensor, offsets[data], len(data))


def _point(tensor: "TensorProto", offset: int, length: int) -> None:
    """Replace the numbers of a tensor by their place in the block."""
    import onnx

    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": LOCATION, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
