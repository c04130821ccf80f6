"""What every reader of a file of weights returns: tensors that are not yet read.

A file may be larger than the memory it should cost, so a tensor is a shape, a type and
a way to read some of its rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.errors import WeightsError

MEAN = "preprocess.mean"
"""The name of a mean image, ``f32[S, S, C]``, among the tensors that we write."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
        shape: as in the file.
        dtype: of its numbers in the file.
        rows: reads ``[start:stop]`` of its first axis, in the file's type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    rows: Callable[[int, int], np.ndarray]

    def load(self) -> np.ndarray:
        """Read all of it as float32."""
        return self.rows(0, self.shape[0]).astype(np.float32, copy=False)


def stored(path: Path, offset: int, shape: tuple[int, ...], dtype: Any) -> Tensor:
    """Return the tensor that lies at ``offset`` bytes of a file, in C order."""
    dtype = np.dtype(dtype)
    width = prod(shape[1:])

    def rows(start: int, stop: int) -> np.ndarray:
        count = (stop - start) * width
        at = offset + start * width * dtype.itemsize
        flat = np.fromfile(path, dtype, count, offset=at)
        if len(flat) != count:
            raise WeightsError(f"{path} ends early: it is truncated; get it again")
        return flat.reshape(stop - start, *shape[1:])

    return Tensor(shape, dtype, rows)


def in_memory(array: np.ndarray) -> Tensor:
    """Return a tensor that is read already."""
    return Tensor(array.shape, array.dtype, lambda start, stop: array[start:stop])


@dataclass(frozen=True)
class Layer:
    """A layer as a file describes it.

    Attributes:
        name: in the file.
        kind: ``conv``, ``dense``, ``norm``, ``pool``, ``relu`` or ``tanh``.
        constants: its numbers, such as ``size`` and ``stride``; only those stated.
        weights: names of its weight and its bias in ``WeightFile.tensors``.
    """

    name: str
    kind: str
    constants: Mapping[str, int | float] = field(default_factory=dict)
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        path: of the file.
        format: ``caffemodel``, ``torch``, ``onnx``, ``safetensors`` or ``npz``.
        tensors: by name, in the file's order.
        layers: in order, where the file describes them; else empty.
        described: what this project wrote into the file when it made it (see
            ``description``), else None.
        crop: side of the crop that Caffe's data layer took, pixels; 0 if not said.
        scale: what Caffe's data layer multiplied pictures by.
        mean: its mean value a channel, in the file's order; empty if not said.
    """

    path: Path
    format: str
    tensors: dict[str, Tensor]
    layers: tuple[Layer, ...] = ()
    described: bytes | None = None
    crop: int = 0
    scale: float = 1.0
    mean: tuple[float, ...] = ()


def times(shape: tuple[int, ...]) -> str:
    """Write a shape as ``96×3×11×11``."""
    return "×".join(map(str, shape)) or "a single number"
