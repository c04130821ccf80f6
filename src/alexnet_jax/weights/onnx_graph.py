"""An ONNX model written from a network's table, with its preprocessing inside.

Input ``image``, ``f32[N, C, S, S]``: RGB, 0 to 255, the network's own side. Output
``logits``, ``f32[N, classes]``. Windows that hang over, norms within a tower and the
2012 dropout have no operator of their own; each is written as a few that are exact.
"""

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from alexnet_jax.errors import ConfigError
from alexnet_jax.table import (
    AvgPool,
    Classifier,
    Conv,
    Dense,
    Dropout,
    LocallyConnected,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
    SpatialNorm,
    Tanh,
    Traced,
    pool_size,
    trace,
)
from alexnet_jax.weights.onnx import DESCRIBED
from alexnet_jax.weights.tensors import MEAN
from alexnet_jax.weights.wire import block, head, integer, real

IR_VERSION, OPSET = 8, 17  # of ONNX 1.12, of 2022: any runtime of today reads them

_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_A_FLOAT, _AN_INT, _INTS = 1, 2, 7  # AttributeProto.AttributeType


class Graph:
    """Nodes and initialisers, in the order in which they are added."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.nodes: list[bytes] = []
        self.initializers: dict[str, np.ndarray] = {}
        self._numbers = count(1)

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        name: str = "",
        outputs: int = 1,
        **attributes: int | float | Sequence[int],
    ) -> str:
        """Add an operation; return the name of its (first) output.

        Args:
            kind: of the operation.
            inputs: names.
            name: of the node and its output; a number when empty.
            outputs: how many, named ``name``, ``name.1`` and so on.
            attributes: as the operator has them.
        """
        name = name or f"{kind.lower()}.{next(self._numbers)}"
        made = [name if i == 0 else f"{name}.{i}" for i in range(outputs)]
        fields = [block(1, given) for given in inputs]
        fields += [block(2, output) for output in made]
        fields += [block(3, name), block(4, kind)]
        fields += [_attribute(*entry) for entry in attributes.items()]
        self.nodes.append(block(1, *fields))
        return name

    def constant(self, name: str, values: object, dtype: str = "f4") -> str:
        """Add an initialiser; return its name."""
        self.initializers[name] = np.asarray(values, dtype, order="C")
        return name

    def halves(self, x: str) -> tuple[str, str]:
        """Split the channels into the towers' own."""
        name = self.node("Split", [x], outputs=2, axis=1)
        return name, f"{name}.1"


def _attribute(name: str, value: int | float | Sequence[int]) -> bytes:
    if isinstance(value, float):
        fields = real(2, value) + integer(20, _A_FLOAT)
    elif isinstance(value, int):
        fields = integer(3, value) + integer(20, _AN_INT)
    else:
        ints = b"".join(integer(8, number) for number in value)
        fields = ints + integer(20, _INTS)
    return block(5, block(1, name), fields)


def build(
    table: Network,
    classes: int,
    tensors: dict[str, np.ndarray],
    *,
    mean: np.ndarray,
    scale: np.ndarray,
    described: str,
) -> Iterator[bytes]:
    """Write a model.

    Args:
        table: the network.
        classes: logits.
        tensors: ``LAYER.weight`` (or ``.kernel``) and ``LAYER.bias``.
        mean: ``f32[S, S, C]``, or ``f32[C]``.
        scale: ``f32[C]``.
        described: see ``description``.

    Yields:
        The bytes of the file, in parts.

    Raises:
        ConfigError: a row has no exact counterpart in ONNX.
    """
    graph = Graph()
    for name, array in tensors.items():
        graph.constant(name, array)
    x = _preprocess(graph, table.input_size, mean, scale)
    *_, last = rows = list(trace(table, classes))
    for traced in rows:
        x = _row(graph, table, traced, x, "logits" if traced is last else "")
    side = table.input_size
    inputs = block(11, _value("image", ("N", table.channels, side, side)))
    outputs = block(12, _value("logits", ("N", classes)))
    start = [block(2, table.name), *graph.nodes]
    weights = [
        part for entry in graph.initializers.items() for part in _initializer(*entry)
    ]
    body: list[bytes] = [*start, *weights, inputs, outputs]
    yield integer(1, IR_VERSION) + block(2, "alexnet-jax")
    yield head(7, sum(map(len, body)))
    yield from body
    yield block(8, block(1, ""), integer(2, OPSET))
    yield block(14, block(1, DESCRIBED), block(2, described))


def _preprocess(graph: Graph, side: int, mean: np.ndarray, scale: np.ndarray) -> str:
    x = "image"
    if mean.ndim == 1:
        mean_name = graph.constant("mean", mean.reshape(-1, 1, 1))
    else:
        start = (len(mean) - side) // 2
        whole = graph.node("Transpose", [graph.constant(MEAN, mean)], perm=(2, 0, 1))
        ends = {
            "start": [start, start],
            "end": [start + side, start + side],
            "axes": [1, 2],
        }
        names = [graph.constant(f"crop.{k}", v, "i8") for k, v in ends.items()]
        mean_name = graph.node("Slice", [whole, *names])
    x = graph.node("Sub", [x, mean_name])
    if (scale != 1).any():
        factor = graph.constant("scale", scale.reshape(-1, 1, 1))
        x = graph.node("Mul", [x, factor])
    return x


def _row(graph: Graph, table: Network, traced: Traced, x: str, name: str) -> str:
    """Add the nodes of a row; return the name of what it makes."""
    row = traced.row
    name = name or row.name
    match row:
        case Conv():
            out = traced.outputs[0]
            reach = (out - 1) * row.stride + row.kernel - traced.inputs[0] - row.pad
            high = max(0, reach)
            return graph.node(
                "Conv",
                [x, f"{row.name}.weight", f"{row.name}.bias"],
                name,
                kernel_shape=(row.kernel, row.kernel),
                strides=(row.stride, row.stride),
                pads=(row.pad, row.pad, high, high),
                group=2 if traced.per_tower else 1,
            )
        case Relu():
            return graph.node("Relu", [x], name)
        case Tanh():
            return graph.node("Tanh", [x], name)
        case MaxPool():
            return _pool(graph, "MaxPool", row, traced, x, name)
        case AvgPool():
            return _pool(graph, "AveragePool", row, traced, x, name)
        case ResponseNorm():
            own = table.towers == 2 and row.reads == "own"
            parts = graph.halves(x) if own else (x,)
            made = [
                graph.node(
                    "LRN",
                    [part],
                    f"{name}.{i}" if own else name,
                    alpha=float(row.scale * row.size),  # ONNX divides by the size
                    beta=float(row.beta),
                    bias=float(row.k),
                    size=row.size,
                )
                for i, part in enumerate(parts)
            ]
            return graph.node("Concat", made, name, axis=1) if own else made[0]
        case SpatialNorm():
            return _spatial_norm(graph, row, x, name)
        case Dropout():
            if row.rule == "inverted":
                return x
            return graph.node(
                "Mul", [x, graph.constant(f"{row.name}.keep", row.keep)], name
            )
        case Dense() if traced.per_tower:
            return _dense_per_tower(graph, traced, x, name)
        case Dense() | Classifier():
            if len(traced.inputs) == 3:
                x = graph.node("Flatten", [x])
            weights = [f"{row.name}.weight", f"{row.name}.bias"]
            return graph.node("Gemm", [x, *weights], name, transB=1)
        case LocallyConnected():
            raise ConfigError(
                f"{table.name} has {row.name}, whose kernels differ from place to "
                "place: ONNX has no such operator; export it as safetensors or "
                "stablehlo"
            )


def _pool(
    graph: Graph,
    kind: str,
    row: MaxPool | AvgPool,
    traced: Traced,
    x: str,
    name: str,
) -> str:
    """Add a pool; what hangs over is padding, which neither kind counts."""
    side = traced.inputs[0]
    out = pool_size(side, row.size, row.stride)
    high = max(0, (out - 1) * row.stride + row.size - side)
    return graph.node(
        kind,
        [x],
        name,
        kernel_shape=(row.size, row.size),
        strides=(row.stride, row.stride),
        pads=(0, 0, high, high),
    )


def _spatial_norm(graph: Graph, row: SpatialNorm, x: str, name: str) -> str:
    def number(what: str, value: float) -> str:
        return graph.constant(f"{row.name}.{what}", value)

    half = row.size // 2
    square = graph.node("Mul", [x, x])
    mean = graph.node(
        "AveragePool",
        [square],
        count_include_pad=1,
        kernel_shape=(row.size, row.size),
        pads=(half, half, half, half),
    )
    # The mean is over all places of the square, so it stands for the sum.
    scaled = graph.node("Mul", [mean, number("alpha", row.scale * row.size**2)])
    below = graph.node("Add", [scaled, number("k", row.k)])
    power = graph.node("Pow", [below, number("beta", row.beta)])
    return graph.node("Div", [x, power], name)


def _dense_per_tower(graph: Graph, traced: Traced, x: str, name: str) -> str:
    row = traced.row
    made = []
    for tower, part in enumerate(graph.halves(x)):
        if len(traced.inputs) == 3:  # our rows are in (y, x, channel) order
            part = graph.node("Transpose", [part], perm=(0, 2, 3, 1))
            part = graph.node("Flatten", [part])
        which = graph.constant(f"tower.{tower}", tower, "i8")
        kernel = graph.node("Gather", [f"{row.name}.kernel", which])
        made.append(graph.node("MatMul", [part, kernel]))
    units = graph.node("Concat", made, axis=1)
    return graph.node("Add", [units, f"{row.name}.bias"], name)


def _initializer(name: str, array: np.ndarray) -> Iterator[bytes]:
    kind = _INT64 if array.dtype.kind == "i" else _FLOAT
    fields = b"".join(integer(1, size) for size in array.shape)
    fields += integer(2, kind) + block(8, name) + head(9, array.nbytes)
    yield head(5, len(fields) + array.nbytes) + fields
    yield array.tobytes()


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    """Write a ValueInfoProto of floats."""
    dims = [
        block(1, block(2, size) if isinstance(size, str) else integer(1, size))
        for size in shape
    ]
    tensor = block(1, integer(1, _FLOAT), block(2, *dims))
    return block(1, name) + block(2, tensor)
