"""``.onnx`` files: the weights in an ONNX graph, and its layers in order.

Field numbers are those of ONNX's ``onnx.proto``. Only what leads from a picture to
logits is looked at: convolutions, norms, pools, ReLUs, tanhs and Gemms; weights are
OIHW and ``[out, in]`` (``transB``), as in Caffe and PyTorch.
"""

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from alexnet_jax.errors import WeightsError
from alexnet_jax.weights import wire
from alexnet_jax.weights.tensors import Layer, Tensor, WeightFile, stored
from alexnet_jax.weights.wire import Field, Malformed, Span, Wire

DESCRIBED = "alexnet_jax"
"""Our key among a model's ``metadata_props``."""

_KINDS = {
    "Conv": "conv",
    "Gemm": "dense",
    "LRN": "norm",
    "MaxPool": "pool",
    "Relu": "relu",
    "Tanh": "tanh",
}
# kind -> constant -> (attribute, default); of a list the first number counts.
_CONSTANTS: dict[str, dict[str, tuple[str, int | float]]] = {
    "conv": {"pad": ("pads", 0), "stride": ("strides", 1), "groups": ("group", 1)},
    "norm": {
        "size": ("size", 0),
        "alpha": ("alpha", 1e-4),
        "beta": ("beta", 0.75),
        "k": ("bias", 1.0),
    },
    "pool": {
        "size": ("kernel_shape", 0),
        "stride": ("strides", 1),
        "pad": ("pads", 0),
    },
}
_DTYPES: dict[int, Any] = {1: "<f4", 10: "<f2", 11: "<f8", 16: ml_dtypes.bfloat16}
_TYPED_DATA = {4: "<f4", 10: "<f8"}  # float_data and double_data


def looks_like(path: Path) -> bool:
    """Tell whether a file begins as a ModelProto does: with its version."""
    with Wire(path) as file:
        try:
            first = next(file.fields(file.whole))
        except Malformed:
            return False
        return first.number == 1 and first.kind == wire.VARINT and first.value < 100


def read(path: Path) -> WeightFile:
    """Read the layers of an ONNX file, and where its numbers lie.

    Raises:
        WeightsError: it is damaged, or keeps its numbers in other files.
    """
    with Wire(path) as file:
        try:
            return _read(file)
        except Malformed as error:
            raise wire.damaged(path, "an ONNX model", error) from None


def _of(fields: Iterable[Field], number: int) -> list[Field]:
    return [found for found in fields if found.number == number]


def _read(file: Wire) -> WeightFile:
    model = list(file.fields(file.whole))
    described = None
    for entry in _of(model, 14):
        key, value = (_of(file.fields(entry.span), number) for number in (1, 2))
        if key and value and file.bytes(key[0].span) == DESCRIBED.encode():
            described = file.bytes(value[0].span)
    graphs = _of(model, 7)
    if not graphs:
        raise Malformed("no graph")
    graph = list(file.fields(graphs[0].span))
    tensors: dict[str, Tensor] = {}
    for found in _of(graph, 5):
        tensors |= _initializer(file, found.span)
    layers = [
        layer
        for found in _of(graph, 1)
        if (layer := _layer(file, found.span, tensors)) is not None
    ]
    used = {name for layer in layers for name in layer.weights}
    if described is None:
        tensors = {name: found for name, found in tensors.items() if name in used}
    return WeightFile(file.path, "onnx", tensors, tuple(layers), described)


def _initializer(file: Wire, span: Span) -> dict[str, Tensor]:
    """Find the numbers of a TensorProto, by its name; nothing for one of integers."""
    fields = list(file.fields(span))
    name = "".join(file.text(found.span) for found in _of(fields, 8))
    shape = tuple(file.integers(_of(fields, 1)))
    kind = ([found.value for found in _of(fields, 2)] or [0])[-1]
    if kind not in _DTYPES or not shape:
        return {}
    if _of(fields, 13):
        raise WeightsError(
            f"{file.path} keeps the numbers of {name} in another file; save it anew "
            "as one file (external_data=False)"
        )
    dtype = np.dtype(_DTYPES[kind])
    data = [found for found in fields if found.number in (9, *_TYPED_DATA)]
    if len(data) != 1 or min(shape) < 1:
        raise Malformed(f"{name} of shape {shape} in {len(data)} runs of numbers")
    if data[0].number != 9:
        dtype = np.dtype(_TYPED_DATA[data[0].number])
    where = data[0].span
    if where.size != prod(shape) * dtype.itemsize:
        raise Malformed(f"{name} of shape {shape} in {where.size:,} bytes")
    return {name: stored(file.path, where.start, shape, dtype)}


def _layer(file: Wire, span: Span, tensors: dict[str, Tensor]) -> Layer | None:
    fields = list(file.fields(span))
    kind = _KINDS.get("".join(file.text(found.span) for found in _of(fields, 4)))
    if kind is None:
        return None
    inputs = [file.text(found.span) for found in _of(fields, 1)]
    name = "".join(file.text(found.span) for found in _of(fields, 3)) or kind
    given = dict(_attribute(file, found.span) for found in _of(fields, 5))
    constants = {
        constant: given.get(attribute, default)
        for constant, (attribute, default) in _CONSTANTS.get(kind, {}).items()
    }
    weights = tuple(found for found in inputs[1:] if found in tensors)
    if kind == "dense" and weights and not given.get("transB", 0):
        tensors[weights[0]] = _transposed(tensors[weights[0]])
    return Layer(name, kind, constants, weights)


def _attribute(file: Wire, span: Span) -> tuple[str, int | float]:
    fields = list(file.fields(span))
    name = "".join(file.text(found.span) for found in _of(fields, 1))
    numbers: list[int | float] = [*file.floats(_of(fields, 2))]
    numbers += file.integers(_of(fields, 3)) + file.integers(_of(fields, 8))
    return name, numbers[0] if numbers else 0


def _transposed(tensor: Tensor) -> Tensor:
    def rows(start: int, stop: int) -> np.ndarray:
        return tensor.rows(0, tensor.shape[0]).T[start:stop]

    return Tensor(tensor.shape[::-1], tensor.dtype, rows)
