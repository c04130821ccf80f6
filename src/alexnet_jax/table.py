"""The rows that a network is written in, and what follows from them.

A network is a tuple of rows in the order of the paper. From the rows alone follow
every shape, every parameter count and every multiply-add; ``trace`` derives them,
``model.py`` runs the rows, ``alexnet describe`` prints them.

Sizes are cuda-convnet's: outputs are counted with the ceiling, so a last window may
hang over the right and the bottom edge (224 pixels, 11 x 11 kernels, stride 4: 55).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

Reads = Literal["own", "both"]


@dataclass(frozen=True)
class Conv:
    """A convolution with one bias a filter.

    Attributes:
        features: filters of one tower.
        kernel, stride, pad: pixels.
        reads: ``both`` if it sees the other tower's maps too.
        sigma: standard deviation of the initial weights.
        bias: initial bias.
    """

    name: str
    features: int
    kernel: int
    stride: int = 1
    pad: int = 0
    reads: Reads = "own"
    sigma: float = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class ResponseNorm:
    """Response normalisation over neighbouring maps (section 3.3).

    ``x / (k + alpha / size * sum of squares)^beta`` over ``size`` maps of the own
    tower. The released code divides alpha by the size; the paper's text does not.
    """

    name: str
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0


@dataclass(frozen=True)
class SpatialNorm:
    """Response normalisation over a square of the same map (net 145's cnorm2).

    ``x / (k + alpha / size^2 * sum of squares)^beta`` over ``size`` x ``size`` pixels.
    """

    name: str
    size: int = 5
    alpha: float = 1e-3
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class MaxPool:
    """The largest value of each window; overlapping when stride < size (3.4)."""

    name: str
    size: int = 3
    stride: int = 2


@dataclass(frozen=True)
class AvgPool:
    """The mean of each window, over the pixels that lie inside the picture."""

    name: str
    size: int = 3
    stride: int = 2


@dataclass(frozen=True)
class Relu:
    """``max(x, 0)`` (section 3.1)."""

    name: str


@dataclass(frozen=True)
class Dense:
    """A fully connected layer of ``features`` units in one tower."""

    name: str
    features: int
    reads: Reads = "both"
    sigma: float = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class Dropout:
    """Silence units at random in training (section 4.2).

    The 2012 rule: multiply by a mask in training, by ``keep`` in testing.
    """

    name: str
    keep: float = 0.5


@dataclass(frozen=True)
class Classifier:
    """The last layer: one logit a class, summed over both towers, then a bias."""

    name: str
    sigma: float = 0.01
    bias: float = 0.0


Row = (
    Conv
    | ResponseNorm
    | SpatialNorm
    | MaxPool
    | AvgPool
    | Relu
    | Dense
    | Dropout
    | Classifier
)


@dataclass(frozen=True)
class Network:
    """A published network.

    Attributes:
        name: what the user calls it.
        source: where its constants come from.
        towers: 1, or 2 for the paper's split over two devices.
        input_size: side of the input in pixels.
        channels: 3 for RGB, 1 for grey.
        classes: logits, unless the data says otherwise.
        rows: the layers, first to last.
    """

    name: str
    source: str
    towers: int
    input_size: int
    channels: int
    classes: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Traced:
    """What a row does to the shapes.

    Attributes:
        row: the row.
        reads: ``image``, ``own``, ``both`` or an empty string if there is one tower.
        inputs, outputs: ``(height, width, channels)`` or ``(units,)`` of one image,
            both towers together.
        weights: shape of each parameter, by name; a leading axis of two where each
            tower has a matrix of its own.
        fan_in: inputs of one unit.
        macs: multiply-adds of the forward pass for one image.
    """

    row: Row
    reads: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: dict[str, tuple[int, ...]]
    fan_in: int
    macs: int

    @property
    def parameters(self) -> int:
        """Count of weights and biases, both towers."""
        return sum(prod(shape) for shape in self.weights.values())


def conv_size(size: int, kernel: int, stride: int, pad: int) -> int:
    """Return the side of a convolution's output (cuda-convnet's ceiling rule)."""
    return 1 + -(-(2 * pad + size - kernel) // stride)


def pool_size(size: int, window: int, stride: int) -> int:
    """Return the side of a pool's output (cuda-convnet's ceiling rule)."""
    return 1 + -(-(size - window) // stride)


def trace(network: Network, classes: int | None = None) -> Iterator[Traced]:
    """Follow one image's shape through the rows.

    Args:
        network: the table.
        classes: logits of the classifier; the network's own number when None.

    Yields:
        One record a row, in order.
    """
    classes = network.classes if classes is None else classes
    shape: tuple[int, ...] = (network.input_size, network.input_size, network.channels)
    towers, split = network.towers, False  # the image itself is read by both
    for row in network.rows:
        inputs, weights, reads, fan_in, macs = shape, {}, "", 0, 0
        # Two towers that each read only their own half: a matrix a tower.
        pair = towers == 2 and split and getattr(row, "reads", "both") == "own"
        lead, share = ((2,), 2) if pair else ((), 1)
        if isinstance(row, Conv | Dense):
            reads = "image" if not split else row.reads
        if isinstance(row, Conv):
            side = conv_size(shape[0], row.kernel, row.stride, row.pad)
            filters = row.features * towers
            fan_in = row.kernel**2 * shape[-1] // share
            weights = {
                "kernel": (
                    *lead,
                    row.kernel,
                    row.kernel,
                    shape[-1] // share,
                    filters // share,
                ),
                "bias": (filters,),
            }
            shape = (side, side, filters)
            macs = side**2 * fan_in * filters
            split = True
        elif isinstance(row, MaxPool | AvgPool):
            side = pool_size(shape[0], row.size, row.stride)
            shape = (side, side, shape[-1])
        elif isinstance(row, Dense):
            units = row.features * towers
            fan_in = prod(shape) // share
            weights = {
                "kernel": (*lead, fan_in, units // share),
                "bias": (units,),
            }
            shape = (units,)
            macs = fan_in * units
            split = True
        elif isinstance(row, Classifier):
            reads = "both"
            fan_in = prod(shape)
            weights = {"kernel": (fan_in, classes), "bias": (classes,)}
            shape = (classes,)
            macs = fan_in * classes
        yield Traced(
            row, reads if towers == 2 else "", inputs, shape, weights, fan_in, macs
        )
