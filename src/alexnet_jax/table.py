"""The rows that a network is written in, and what follows from them.

A network is a tuple of rows in the order of the paper. From the rows alone follow
every shape, every parameter count, every multiply-add and what each unit sees of the
picture; ``trace`` derives them, ``model.py`` runs the rows, ``alexnet describe``
prints them.

Sizes are cuda-convnet's: outputs are counted with the ceiling, so a last window may
hang over the right and the bottom edge (224 pixels, 11 x 11 kernels, stride 4: 55).
Caffe and PyTorch count convolutions with the floor; a row can say so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import prod
from typing import Literal

Reads = Literal["own", "both"]
Rounding = Literal["ceil", "floor"]


@dataclass(frozen=True)
class Conv:
    """A convolution with one bias a filter.

    Attributes:
        features: filters of one tower.
        kernel, stride, pad: pixels.
        reads: ``both`` if it sees the other tower's maps too.
        sigma: standard deviation of the initial weights; None is PyTorch's default,
            weights and biases uniform within ``1 / sqrt(fan-in)`` of 0.
        bias: initial bias, unless ``sigma`` is None.
        rounding: ``floor`` drops a last window that would hang over.
    """

    name: str
    features: int
    kernel: int
    stride: int = 1
    pad: int = 0
    reads: Reads = "own"
    sigma: float | None = 0.01
    bias: float = 0.0
    rounding: Rounding = "ceil"


@dataclass(frozen=True)
class LocallyConnected:
    """A convolution whose kernel and bias differ from place to place (``local``).

    Attributes: as of ``Conv``.
    """

    name: str
    features: int
    kernel: int
    stride: int = 1
    pad: int = 0
    reads: Reads = "own"
    sigma: float | None = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class ResponseNorm:
    """Response normalisation over neighbouring maps (section 3.3).

    ``x / (k + alpha / size * sum of squares)^beta`` over ``size`` neighbouring maps.

    Attributes:
        size: maps in a window.
        alpha, beta, k: see above; ``k`` is ``minDiv`` in the 2012 code.
        divide: divide alpha by the size, as all code does; the paper's text does not.
        reads: ``own`` if windows end at a tower's last map, ``both`` if they run on
            into the other tower, as in Caffe.
    """

    name: str
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    divide: bool = True
    reads: Reads = "own"

    @property
    def scale(self) -> float:
        """What the sum of squares is multiplied by."""
        return self.alpha / self.size if self.divide else self.alpha


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

    @property
    def scale(self) -> float:
        """What the sum of squares is multiplied by."""
        return self.alpha / self.size**2


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
class Tanh:
    """``tanh(x)``, what units did before ReLUs (section 3.1, Figure 1)."""

    name: str


@dataclass(frozen=True)
class Dense:
    """A fully connected layer of ``features`` units in one tower."""

    name: str
    features: int
    reads: Reads = "both"
    sigma: float | None = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class Dropout:
    """Silence units at random in training (section 4.2).

    Attributes:
        keep: probability that a unit speaks.
        rule: ``2012`` multiplies by a mask in training and by ``keep`` in testing;
            ``inverted``, of Caffe and PyTorch, divides by ``keep`` in training and
            does nothing in testing.
    """

    name: str
    keep: float = 0.5
    rule: Literal["2012", "inverted"] = "2012"


@dataclass(frozen=True)
class Classifier:
    """The last layer: one logit a class, summed over both towers, then a bias."""

    name: str
    sigma: float | None = 0.01
    bias: float = 0.0


Weighted = Conv | LocallyConnected | Dense | Classifier
"""The rows that have parameters."""

Row = (
    Conv
    | LocallyConnected
    | ResponseNorm
    | SpatialNorm
    | MaxPool
    | AvgPool
    | Relu
    | Tanh
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
        hybrid: not published, but how it lies on several devices: the fully connected
            layers of one tower divided over the devices that share the batch, see
            ``model.py``.
    """

    name: str
    source: str
    towers: int
    input_size: int
    channels: int
    classes: int
    rows: tuple[Row, ...]
    hybrid: bool = False


@dataclass(frozen=True)
class Field:
    """The square of input pixels that a unit sees (its receptive field).

    Of the unit in line ``y`` and column ``x`` it begins ``first + stride * y`` pixels
    below the input's upper edge and ``first + stride * x`` right of its left one. It
    hangs over an edge where padding or the ceiling rule lets a window do so; there is
    nothing to be seen out there.

    Attributes:
        size: its side, pixels.
        stride: from a unit's to its neighbour's, pixels; 0 where every unit sees the
            same.
        first: where the first unit's begins, pixels; negative outside the input.
    """

    size: int = 1
    stride: int = 1
    first: int = 0

    def through(self, size: int, stride: int = 1, pad: int = 0) -> "Field":
        """Return what a window of such units sees; all three in units."""
        return Field(
            self.size + (size - 1) * self.stride,
            self.stride * stride,
            self.first - pad * self.stride,
        )

    def all_of(self, side: int) -> "Field":
        """Return what a unit sees that reads ``side`` x ``side`` such units."""
        return Field(self.size + (side - 1) * self.stride, 0, self.first)


@dataclass(frozen=True)
class Traced:
    """What a row does to the shapes.

    Attributes:
        row: the row.
        reads: ``image``, ``own``, ``both`` or an empty string if there is one tower.
        inputs, outputs: ``(height, width, channels)`` or ``(units,)`` of one image,
            both towers together.
        weights: shape of each parameter, by name; the kernel has a leading axis of
            two where each tower has one of its own.
        per_tower: it has.
        fan_in: inputs of one unit.
        macs: multiply-adds of the forward pass for one image.
        field: what one of its units sees of the input.
    """

    row: Row
    reads: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: dict[str, tuple[int, ...]]
    per_tower: bool
    fan_in: int
    macs: int
    field: Field

    @property
    def parameters(self) -> int:
        """Count of weights and biases, both towers."""
        return sum(prod(shape) for shape in self.weights.values())


def conv_size(
    size: int, kernel: int, stride: int, pad: int, rounding: Rounding = "ceil"
) -> int:
    """Return the side of a convolution's output (cuda-convnet's ceiling rule)."""
    spare = 2 * pad + size - kernel
    return 1 + (-(-spare // stride) if rounding == "ceil" else spare // stride)


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
    field = Field()
    for row in network.rows:
        inputs, weights, reads, fan_in, macs = shape, {}, "", 0, 0
        own = towers == 2 and split and getattr(row, "reads", "both") == "own"
        # Two towers that each read only their own half: a kernel a tower.
        per_tower = own and isinstance(row, Weighted)
        lead, share = ((2,), 2) if per_tower else ((), 1)
        if isinstance(row, Conv | LocallyConnected | Dense):
            reads = "image" if not split else row.reads
        match row:
            case Conv() | LocallyConnected():
                shared = isinstance(row, Conv)
                rounding = row.rounding if shared else "ceil"
                side = conv_size(shape[0], row.kernel, row.stride, row.pad, rounding)
                filters = row.features * towers
                places = () if shared else (side, side)
                window = (row.kernel, row.kernel, shape[-1] // share)
                weights = {
                    "kernel": (*lead, *places, *window, filters // share),
                    "bias": (*places, filters),
                }
                shape, fan_in = (side, side, filters), prod(window)
                macs = side**2 * fan_in * filters
                field = field.through(row.kernel, row.stride, row.pad)
                split = True
            case MaxPool() | AvgPool():
                side = pool_size(shape[0], row.size, row.stride)
                shape = (side, side, shape[-1])
                field = field.through(row.size, row.stride)
            case SpatialNorm():
                field = field.through(row.size, pad=row.size // 2)
            case ResponseNorm() if towers == 2 and row.reads == "both":
                reads = "both"
            case Dense():
                field = field.all_of(shape[0])
                units, fan_in = row.features * towers, prod(shape) // share
                weights = {"kernel": (*lead, fan_in, units // share), "bias": (units,)}
                shape, macs = (units,), fan_in * units
                split = True
            case Classifier():
                field = field.all_of(shape[0])
                reads, fan_in = "both", prod(shape)
                weights = {"kernel": (fan_in, classes), "bias": (classes,)}
                shape, macs = (classes,), fan_in * classes
        yield Traced(
            row,
            reads if towers == 2 else "",
            inputs,
            shape,
            weights,
            per_tower,
            fan_in,
            macs,
            field,
        )


def differences(
    one: Network, other: Network
) -> Iterator[tuple[Row | None, Row | None]]:
    """Align two tables by the names of their rows and yield the rows that differ.

    Yields:
        A row of each, in order; None where a table has no such row there. A row that
        stands elsewhere in the other table comes twice, once alone on each side.
    """
    names = [[row.name for row in table.rows] for table in (one, other)]
    matcher = SequenceMatcher(None, *names, autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        ours, theirs = one.rows[start:end], other.rows[other_start:other_end]
        if kind == "equal":
            pairs = zip(ours, theirs, strict=True)
            yield from ((row, twin) for row, twin in pairs if row != twin)
        else:
            yield from ((row, None) for row in ours)
            yield from ((None, row) for row in theirs)
