"""``.caffemodel`` files: a NetParameter, with today's ``layer`` or the old ``layers``.

Field numbers are those of Caffe's ``src/caffe/proto/caffe.proto``; ``layout`` says how
the numbers lie.
"""

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.errors import WeightsError
from alexnet_jax.weights import wire
from alexnet_jax.weights.tensors import MEAN, Layer, Tensor, WeightFile, stored
from alexnet_jax.weights.wire import Field, Malformed, Span, Wire

_KINDS = {
    **{"Convolution": "conv", "InnerProduct": "dense", "LRN": "norm"},
    **{"Pooling": "pool", "ReLU": "relu", "TanH": "tanh"},
    # V1's numbers
    **{4: "conv", 14: "dense", 15: "norm", 17: "pool", 18: "relu", 23: "tanh"},
}

# Of a layer's message: (modern, V1) field numbers.
_NAME, _TYPE, _BLOBS = (1, 4), (2, 5), (7, 6)
_PARAMETERS = {
    "conv": (106, 10),
    "norm": (118, 18),
    "pool": (121, 19),
}
_TRANSFORM = (100, 36)

# kind -> name of the constant -> (field number, whether a float, default)
_CONSTANTS = {
    "conv": {"pad": (3, False, 0), "stride": (6, False, 1), "groups": (5, False, 1)},
    "norm": {
        "size": (1, False, 5),
        "alpha": (2, True, 1.0),
        "beta": (3, True, 0.75),
        "within": (4, False, 0),
        "k": (5, True, 1.0),
    },
    "pool": {
        "average": (1, False, 0),
        "size": (2, False, 0),
        "stride": (3, False, 1),
        "pad": (4, False, 0),
    },
}

# NetParameter's numbers that a program without our schema passes over.
_DESCRIBED, _MEAN = 5000, 5001


def looks_like(path: Path) -> bool:
    """Tell whether a file begins as a NetParameter does."""
    with Wire(path) as file:
        try:
            for found in file.fields(file.whole):
                if found.number in (2, 100) and found.kind == wire.BYTES:
                    return True
                if found.number not in (1, 3, 4, 5, 6, 8):
                    return False
        except Malformed:
            pass
    return False


def read(path: Path) -> WeightFile:
    """Read the layers of a caffemodel, and where its numbers lie.

    Raises:
        WeightsError: it is damaged, or of the first version, of 2013.
    """
    with Wire(path) as file:
        try:
            return _read(file)
        except Malformed as error:
            raise wire.damaged(path, "a caffemodel", error) from None


def _read(file: Wire) -> WeightFile:
    tensors: dict[str, Tensor] = {}
    layers: list[Layer] = []
    more: dict[str, Any] = {}
    for found in file.fields(file.whole):
        if found.number == _DESCRIBED:
            more["described"] = file.bytes(found.span)
        elif found.number == _MEAN:
            tensors[MEAN] = _blob(file, found.span, 3)
        elif found.number in (2, 100) and found.kind == wire.BYTES:
            v1 = found.number == 2
            fields = list(file.fields(found.span))
            if v1 and _of(fields, 1):
                raise WeightsError(
                    f"{file.path} is of Caffe's first format, of 2013; bring it up "
                    "to date with Caffe's upgrade_net_proto_binary"
                )
            for transform in _of(fields, _TRANSFORM[v1]):
                more |= _transform(file, transform.span)
            layer = _layer(file, fields, v1, tensors)
            if layer is not None:
                layers.append(layer)
    return WeightFile(file.path, "caffemodel", tensors, tuple(layers), **more)


def _of(fields: Iterable[Field], number: int) -> list[Field]:
    return [found for found in fields if found.number == number]


def _layer(
    file: Wire, fields: list[Field], v1: bool, tensors: dict[str, Tensor]
) -> Layer | None:
    """Read a layer, add its blobs to ``tensors``; None for one without a kind."""
    name = "".join(file.text(found.span) for found in _of(fields, _NAME[v1]))
    types = [
        found.value if v1 else file.text(found.span) for found in _of(fields, _TYPE[v1])
    ]
    kind = _KINDS.get(types[0]) if types else None
    names = []
    for place, found in enumerate(_of(fields, _BLOBS[v1])):
        part = ("weight", "bias")[place] if place < 2 else f"blob{place}"
        axes = 1 if part == "bias" else 2 if kind == "dense" else 4
        names.append(f"{name}.{part}")
        tensors[names[-1]] = _blob(file, found.span, axes)
    if kind is None:
        return None
    return Layer(name, kind, _constants(file, fields, kind, v1), tuple(names))


def _constants(
    file: Wire, fields: list[Field], kind: str, v1: bool
) -> dict[str, int | float]:
    wanted = _CONSTANTS.get(kind, {})
    found: dict[str, int | float] = {name: entry[2] for name, entry in wanted.items()}
    for parameter in _of(fields, _PARAMETERS[kind][v1]) if wanted else ():
        inner = list(file.fields(parameter.span))
        for name, (number, is_float, _) in wanted.items():
            read_numbers = file.floats if is_float else file.integers
            for value in read_numbers(_of(inner, number))[:1]:
                found[name] = value
    for flag in ("average", "within"):  # another kind of pool or norm
        if found.pop(flag, 0):
            found[flag] = 1
    return found


def _transform(file: Wire, span: Span) -> dict[str, Any]:
    fields = list(file.fields(span))
    scale, mean = file.floats(_of(fields, 1)), file.floats(_of(fields, 5))
    found: dict[str, Any] = {}
    if scale:
        found["scale"] = scale[0]
    if mean:
        found["mean"] = tuple(mean)
    crop = file.integers(_of(fields, 3))
    if crop:
        found["crop"] = crop[0]
    return found


def _blob(file: Wire, span: Span, axes: int) -> Tensor:
    """Find the numbers of a BlobProto, of so many axes if those before are one long.

    The old format has four axes always: a bias is ``[1, 1, 1, out]``.
    """
    fields = list(file.fields(span))
    shape = [
        size
        for found in _of(fields, 7)
        for size in file.integers(_of(file.fields(found.span), 1))
    ]
    if not shape:  # num, channels, height, width, as before 2014
        legacy = [file.integers(_of(fields, number)) for number in (1, 2, 3, 4)]
        shape = [sizes[0] if sizes else 1 for sizes in legacy]
    while len(shape) > axes and shape[0] == 1:
        del shape[0]
    data = [found for found in fields if found.number in (5, 8)]
    if len(data) != 1 or min(shape) < 1:
        raise Malformed(f"a blob of shape {shape} with {len(data)} runs of numbers")
    dtype = np.dtype("<f4" if data[0].number == 5 else "<f8")
    where = data[0].span
    if where.size != prod(shape) * dtype.itemsize:
        raise Malformed(
            f"a blob of shape {shape} with {where.size // dtype.itemsize:,} numbers"
        )
    return stored(file.path, where.start, tuple(shape), dtype)


def read_mean(path: Path) -> np.ndarray | None:
    """Read a ``.binaryproto`` mean image, ``f32[C, H, W]``; None if it is none."""
    with Wire(path) as file:
        try:
            return _blob(file, file.whole, 3).load()
        except Malformed:
            return None


def blob(number: int, array: np.ndarray) -> Iterator[bytes]:
    """Write an array as a BlobProto in the field ``number``."""
    dims = b"".join(map(wire.varint, array.shape))
    shape = wire.block(7, wire.block(1, dims))
    start = wire.head(5, array.nbytes)
    yield wire.head(number, len(shape) + len(start) + array.nbytes) + shape + start
    yield array.astype("<f4", copy=False).tobytes()


def layer(
    name: str,
    kind: str,
    bottom: str,
    top: str,
    constants: bytes = b"",
    weights: Iterable[np.ndarray] = (),
) -> Iterator[bytes]:
    """Write a layer of a NetParameter.

    Args:
        name: of the layer.
        kind: Caffe's type, such as ``Convolution``.
        bottom: name of what it reads; none for the input.
        top: name of what it makes.
        constants: its parameter's field.
        weights: its blobs.
    """
    parts = [wire.block(1, name), wire.block(2, kind)]
    parts += [wire.block(3, bottom)] if bottom else []
    parts += [wire.block(4, top)]
    for array in weights:
        parts += blob(7, array)
    parts.append(constants)
    yield wire.head(100, sum(map(len, parts)))
    yield from parts


def parameter(kind: str, **values: int | float) -> bytes:
    """Write the constants of a convolution, norm or pool."""
    fields = b""
    for name, value in values.items():
        number, is_float, _ = _CONSTANTS[kind][name]
        write = wire.real if is_float else wire.integer
        fields += write(number, value)  # type: ignore[arg-type]
    return wire.block(_PARAMETERS[kind][0], fields)


def described(record: str, mean: np.ndarray | None) -> Iterator[bytes]:
    """Write what Caffe has no field for, where it does not look."""
    yield wire.block(_DESCRIBED, record)
    if mean is not None:
        yield from blob(_MEAN, mean)
