"""How others lay weights out, and how our parameters follow from that.

| | Caffe, PyTorch, ONNX | here |
|---|---|---|
| convolution | ``[out, in / groups, y, x]`` | ``[y, x, in, out]`` |
| groups | one after the other in ``out`` | an axis of two in front: the towers |
| dense | ``[out, in]`` | ``[in, out]`` |
| a dense layer's inputs from maps | (channel, y, x) | (y, x, channel) |
| the classifier's, from two towers' maps | (channel, y, x) | (tower, y, x, channel) |
| colours | Caffe: blue, green, red | red, green, blue |

What they have no layout for (kernels that differ from place to place, dense layers
of a tower's own) travels as we hold it, under the name ``LAYER.kernel``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Array

from alexnet_jax.errors import WeightsError
from alexnet_jax.table import Classifier, Conv, Network, trace
from alexnet_jax.weights.tensors import Tensor

STRIP_BYTES = 8 << 20
"""Read at a time from a dense layer, so that it costs its own memory only once."""


@dataclass(frozen=True)
class Slot:
    """A layer that has weights.

    Attributes:
        name: of the row.
        kernel, bias: shapes of our parameters.
        weight: shape of the foreign kernel; empty if there is none.
        groups: towers with a kernel of their own.
        order: for each of our inputs of a dense layer its place in theirs; None if
            it is the same.
        reads_colours: whether its inputs are red, green and blue.
    """

    name: str
    kernel: tuple[int, ...]
    bias: tuple[int, ...]
    weight: tuple[int, ...]
    groups: int
    order: np.ndarray | None
    reads_colours: bool

    @property
    def part(self) -> str:
        """Name of the kernel in files of ours, after the layer's."""
        return "weight" if self.weight else "kernel"


def slots(network: Network, classes: int) -> list[Slot]:
    """List a network's layers that have weights, in order."""
    found = []
    for traced in trace(network, classes):
        if not traced.weights:
            continue
        row, kernel, bias = traced.row, traced.weights["kernel"], traced.weights["bias"]
        groups = 2 if traced.per_tower else 1
        order, weight = None, ()
        if isinstance(row, Conv):
            high, wide, inputs, outputs = kernel[-4:]
            weight = (outputs * groups, inputs, high, wide)
        elif len(kernel) == 2:
            weight = kernel[::-1]
            if len(traced.inputs) == 3:
                apart = isinstance(row, Classifier) and network.towers == 2
                order = _order(traced.inputs, 2 if apart else 1)
        colours = not found and traced.inputs[-1] == 3
        found.append(Slot(row.name, kernel, bias, weight, groups, order, colours))
    return found


def _order(maps: tuple[int, ...], towers: int) -> np.ndarray:
    high, wide, channels = maps
    places = np.arange(prod(maps)).reshape(channels, high, wide)
    return np.concatenate(
        [half.transpose(1, 2, 0).ravel() for half in np.split(places, towers)]
    )


def read_kernel(slot: Slot, name: str, tensor: Tensor, *, bgr: bool) -> np.ndarray:
    """Read a foreign kernel into ours.

    Args:
        slot: the layer.
        name: of the tensor, for errors.
        tensor: of shape ``slot.weight``.
        bgr: whether the file has blue first.

    Raises:
        WeightsError: a number is infinite or none at all.
    """
    if len(slot.weight) == 4:
        weight = finite(name, tensor.load())
        if bgr and slot.reads_colours:
            weight = weight[:, ::-1]
        parts = [half.transpose(2, 3, 1, 0) for half in np.split(weight, slot.groups)]
        return np.ascontiguousarray(parts if slot.groups > 1 else parts[0])
    kernel = np.empty(slot.kernel, np.float32)
    outputs, inputs = slot.weight
    step = max(1, STRIP_BYTES // (4 * inputs))
    for start in range(0, outputs, step):
        stop = min(start + step, outputs)
        strip = finite(name, tensor.rows(start, stop).astype(np.float32, copy=False))
        kernel[:, start:stop] = (
            strip if slot.order is None else strip[:, slot.order]
        ).T
    return kernel


def finite(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of which every number is finite.

    Raises:
        WeightsError: one is not.
    """
    if not np.isfinite(array).all():
        raise WeightsError(f"{name} holds a number that is not finite; get it again")
    return array


def write_weight(slot: Slot, kernel: np.ndarray, *, bgr: bool = False) -> np.ndarray:
    """Return our kernel as others lay it out; the inverse of ``read_kernel``."""
    if not slot.weight:
        return kernel
    if len(slot.weight) == 4:
        halves = kernel if slot.groups > 1 else kernel[None]
        weight = np.concatenate([half.transpose(3, 2, 0, 1) for half in halves])
        if bgr and slot.reads_colours:
            weight = weight[:, ::-1]
        return np.ascontiguousarray(weight)
    weight = np.empty(slot.weight, np.float32)
    if slot.order is None:
        weight[:] = kernel.T
    else:
        weight[:, slot.order] = kernel.T
    return weight


def weights(
    network: Network,
    params: Mapping[str, Mapping[str, Array | np.ndarray]],
    *,
    bgr: bool = False,
) -> Iterator[tuple[Slot, np.ndarray, np.ndarray]]:
    """Yield every layer with its kernel and bias as others lay them out."""
    classes = len(params[slots(network, network.classes)[-1].name]["bias"])
    for slot in slots(network, classes):
        kernel = np.asarray(params[slot.name]["kernel"])
        bias = np.asarray(params[slot.name]["bias"])
        yield slot, write_weight(slot, kernel, bgr=bgr), bias
