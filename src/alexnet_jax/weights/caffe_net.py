"""A caffemodel written from a network's table."""

from collections.abc import Iterator

import numpy as np

from alexnet_jax.errors import ConfigError
from alexnet_jax.table import (
    AvgPool,
    Classifier,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
    SpatialNorm,
    Tanh,
    Traced,
    conv_size,
    trace,
)
from alexnet_jax.weights import caffe
from alexnet_jax.weights.wire import block, integer, real, varint


def build(
    table: Network,
    classes: int,
    tensors: dict[str, np.ndarray],
    *,
    mean: np.ndarray,
    scale: np.ndarray,
    described: str,
) -> Iterator[bytes]:
    """Write a net with its weights.

    Args:
        table: the network.
        classes: logits.
        tensors: ``LAYER.weight`` and ``LAYER.bias``, colours in BGR order.
        mean: ``f32[S, S, C]``, or ``f32[C]``; RGB.
        scale: ``f32[C]``, RGB.
        described: see ``description``.

    Yields:
        The bytes of the file, in parts.

    Raises:
        ConfigError: Caffe has no layer for a row.
    """
    rows = list(trace(table, classes))
    for traced in rows:
        problem = _problem(table, traced)
        if problem is not None:
            raise ConfigError(
                f"{table.name} has {traced.row.name}, {problem}: Caffe has no such "
                "layer; export it as safetensors"
            )
    yield block(1, table.name)
    yield from _input(table, mean, scale)
    bottom = "data"
    for traced in rows:
        row = traced.row
        top = row.name
        if isinstance(row, Relu | Tanh | Dropout):  # in place, as in Caffe's own nets
            top = bottom
        weights = [
            tensors[f"{row.name}.{part}"]
            for part in ("weight", "bias")
            if f"{row.name}.{part}" in tensors
        ]
        kind, constants = _layer(table, traced)
        yield from caffe.layer(row.name, kind, bottom, top, constants, weights)
        bottom = top
    yield from caffe.described(described, mean if mean.ndim == 3 else None)


def _problem(table: Network, traced: Traced) -> str | None:
    """Say why Caffe cannot have a row, if so."""
    row = traced.row
    match row:
        case Conv():
            sides = [
                conv_size(traced.inputs[0], row.kernel, row.stride, row.pad, rounding)
                for rounding in ("ceil", row.rounding, "floor")
            ]
            if sides[1] != sides[2]:
                return "whose last windows hang over the picture"
        case ResponseNorm() if table.towers == 2 and row.reads == "own":
            return "a norm within each tower"
        case SpatialNorm() if row.k != 1:
            return f"a norm over a square with k {row.k:g}"
        case Dropout(rule="2012"):
            return "a dropout that halves the units in testing"
        case Dense() if traced.per_tower:
            return "a dense layer within each tower"
        case Conv() | ResponseNorm() | SpatialNorm() | MaxPool() | AvgPool():
            return None
        case Relu() | Tanh() | Dense() | Dropout() | Classifier():
            return None
        case _:
            return "whose kernels differ from place to place"
    return None


def _layer(table: Network, traced: Traced) -> tuple[str, bytes]:
    """Return a row's type in Caffe, and its constants."""
    row = traced.row
    match row:
        case Conv():
            fields = block(106, integer(1, traced.outputs[-1]), integer(4, row.kernel))
            more = caffe.parameter(
                "conv",
                pad=row.pad,
                stride=row.stride,
                groups=2 if traced.per_tower else 1,
            )
            return "Convolution", fields + more  # one message in two parts: they merge
        case ResponseNorm():
            return "LRN", caffe.parameter(
                "norm",
                size=row.size,
                alpha=row.scale * row.size,
                beta=row.beta,
                k=row.k,
            )
        case SpatialNorm():
            return "LRN", caffe.parameter(
                "norm", size=row.size, alpha=row.alpha, beta=row.beta, within=1
            )
        case MaxPool() | AvgPool():
            return "Pooling", caffe.parameter(
                "pool",
                average=int(isinstance(row, AvgPool)),
                size=row.size,
                stride=row.stride,
            )
        case Dropout():
            return "Dropout", block(108, real(1, 1 - row.keep))
        case Relu():
            return "ReLU", b""
        case Tanh():
            return "TanH", b""
    return "InnerProduct", block(117, integer(1, traced.outputs[-1]))


def _input(table: Network, mean: np.ndarray, scale: np.ndarray) -> Iterator[bytes]:
    """Write the input, with as much of the preprocessing as Caffe has words for."""
    shape = (1, table.channels, table.input_size, table.input_size)
    dims = block(1, b"".join(map(varint, shape)))
    transform = integer(3, table.input_size)
    if (scale == scale[0]).all():
        transform += real(1, float(scale[0]))
    if mean.ndim == 1:
        transform += b"".join(real(5, float(value)) for value in mean[::-1])
    constants = block(100, transform) + block(143, block(1, dims))
    yield from caffe.layer("data", "Input", "", "data", constants)
