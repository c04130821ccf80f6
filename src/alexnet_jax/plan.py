"""What a mesh does and what it would cost, from a network's table alone.

No device is needed: which tensors cross between devices, and how large they are,
follows from the rows, as do the parameters that a device holds. A test compares these
messages with those of the compiled program.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from jax.sharding import Mesh

from alexnet_jax import model
from alexnet_jax.errors import ConfigError
from alexnet_jax.mesh import check_batch, hybrid
from alexnet_jax.table import Classifier, Dense, Network, Traced, trace

Operation = Literal["all-gather", "reduce-scatter", "all-reduce"]

SCORES = 6  # totals and counts of three metrics, at most, in the gradients' message
_STATE = 3 * 4  # bytes a parameter: itself, its velocity, its gradient; float32
_PASSES = 2  # a row's output is kept for the way back, where its gradient joins it


@dataclass(frozen=True)
class Place:
    """What one device does.

    Attributes:
        device: its number.
        kind: its model.
        process: that it belongs to.
        tower: 0 or 1; None where it holds all there is of the network.
        rows: of a global batch, the images that it sees.
    """

    device: int
    kind: str
    process: int
    tower: int | None
    rows: range


@dataclass(frozen=True)
class Message:
    """One collective of a training step.

    Attributes:
        operation: what JAX calls it.
        axis: ``data`` or ``tower``, along which devices take part.
        what: the row that needs it, or ``gradients``.
        size: bytes of the whole: of what is gathered, scattered or reduced.
    """

    operation: Operation
    axis: str
    what: str
    size: int

    def sent(self, devices: int) -> float:
        """Return the bytes that each of ``devices`` in a ring sends for it."""
        rounds = 2 if self.operation == "all-reduce" else 1
        return rounds * self.size * (devices - 1) / devices


@dataclass(frozen=True)
class Plan:
    """A layout's cost; bytes are those of one training step and one device.

    Attributes:
        layout: ``data``, ``towers`` or ``hybrid``.
        data, tower: devices along the two axes of the mesh.
        tower_bytes, data_bytes: sent along each axis.
        parameters: that a device holds.
        memory_bytes: parameters, velocities and gradients exactly; activations as
            twice each row's output; without the compiler's scratch.
        images_per_second: of all devices together.
        efficiency: computing time over the whole time of a step, 0 to 1; nothing is
            assumed to overlap.
    """

    layout: Literal["data", "towers", "hybrid"]
    data: int
    tower: int
    tower_bytes: float
    data_bytes: float
    parameters: int
    memory_bytes: int
    images_per_second: float
    efficiency: float


def places(network: Network, mesh: Mesh, batch_size: int) -> list[Place]:
    """Say what each device of a mesh does, in the order of the mesh.

    Raises:
        ConfigError: the batch does not divide over it.
    """
    check_batch(mesh, batch_size)
    data, towers = mesh.devices.shape
    share = batch_size // data
    return [
        Place(
            device=device.id,
            kind=device.device_kind,
            process=device.process_index,
            tower=tower if towers == 2 else None,
            rows=range(replica * share, (replica + 1) * share),
        )
        for replica, pair in enumerate(mesh.devices)
        for tower, device in enumerate(pair)
    ]


def messages(
    network: Network,
    *,
    data: int,
    tower: int,
    batch_size: int,
    classes: int | None = None,
    precision: str = "f32",
) -> Iterator[Message]:
    """Yield the collectives of one training step.

    Args:
        network: the table, hybrid or not.
        data: devices along that axis.
        tower: likewise.
        batch_size: images in one step, over all devices.
        classes: logits; the network's own number when None.
        precision: of what the layers hand on.
    """
    number = 4 if precision == "f32" else 2
    pooled = False
    for traced in trace(network, classes):
        row, images = traced.row, batch_size // data
        if tower == 2 and traced.reads == "both" and not isinstance(row, Classifier):
            size = images * prod(traced.inputs) * number
            yield Message("all-gather", "tower", row.name, size)
            yield Message("reduce-scatter", "tower", row.name, size)
        if tower == 2 and isinstance(row, Classifier):
            size = images * prod(traced.outputs) * 4
            yield Message("all-reduce", "tower", row.name, size)
        if network.hybrid and data > 1 and isinstance(row, Dense):
            pooled = True
            size = batch_size * prod(traced.inputs) * number
            yield Message("all-gather", "data", row.name, size)
            yield Message("reduce-scatter", "data", row.name, size)
        if pooled and isinstance(row, Classifier):
            size = batch_size * prod(traced.outputs) * 4
            yield Message("reduce-scatter", "data", row.name, size)
            yield Message("all-gather", "data", row.name, size)
    if data > 1:
        shared = sum(
            count
            for key, count in _held(network, classes, data, tower).items()
            if not key.divided
        )
        yield Message("all-reduce", "data", "gradients", 4 * (shared + SCORES))


@dataclass(frozen=True)
class _Leaf:
    layer: str
    name: str
    divided: bool  # over 'data'


def _held(
    network: Network, classes: int | None, data: int, tower: int
) -> dict[_Leaf, int]:
    """Return how many numbers of each parameter a device holds."""
    classes = network.classes if classes is None else classes
    axes = {"data": data, "tower": tower}
    specs: dict[str, dict[str, Any]] = model.param_specs(network, classes)
    held = {}
    for traced in trace(network, classes):
        for name, shape in traced.weights.items():
            spec = specs[traced.row.name][name]
            over = [axis for axis in spec if axis is not None]
            leaf = _Leaf(traced.row.name, name, "data" in over)
            held[leaf] = prod(shape) // prod(axes[axis] for axis in over)
    return held


def _activations(
    traced: Traced, network: Network, data: int, tower: int, batch_size: int
) -> int:
    """Return the numbers that a row puts out on one device."""
    whole = network.hybrid and isinstance(traced.row, Dense)
    if isinstance(traced.row, Classifier):
        tower = 1
    if whole:  # all images, a part of the units
        return batch_size * prod(traced.outputs) // data
    return batch_size // data * prod(traced.outputs) // tower


def estimate(
    network: Network,
    *,
    data: int,
    tower: int,
    batch_size: int,
    rate: float,
    link: float,
    precision: str = "f32",
) -> Plan:
    """Estimate a layout.

    Args:
        network: the table, hybrid or not.
        data: devices along that axis.
        tower: likewise.
        batch_size: images in one step, over all devices.
        rate: images a second that one device trains alone.
        link: bytes a second that a device sends.
        precision: of what the layers hand on.
    """
    axes = {"data": data, "tower": tower}
    sent = {"data": 0.0, "tower": 0.0}
    for message in messages(
        network, data=data, tower=tower, batch_size=batch_size, precision=precision
    ):
        sent[message.axis] += message.sent(axes[message.axis])
    parameters = sum(_held(network, None, data, tower).values())
    number = 4 if precision == "f32" else 2
    activations = sum(
        _activations(traced, network, data, tower, batch_size)
        for traced in trace(network)
    )
    images = batch_size // data * network.input_size**2 * network.channels
    computing = batch_size / (data * tower * rate)
    whole = computing + sum(sent.values()) / link
    layout = "hybrid" if network.hybrid else "towers" if tower == 2 else "data"
    return Plan(
        layout=layout,
        data=data,
        tower=tower,
        tower_bytes=sent["tower"],
        data_bytes=sent["data"],
        parameters=parameters,
        memory_bytes=_STATE * parameters
        + number * (_PASSES * activations + images)
        + images,
        images_per_second=batch_size / whole,
        efficiency=computing / whole,
    )


def compare(
    network: Network,
    devices: int,
    *,
    batch_size: int,
    rate: float,
    link: float,
    precision: str = "f32",
) -> list[Plan]:
    """Estimate every layout of a network on so many devices, which need not exist.

    Pure data parallelism comes first. See ``estimate`` for the arguments.

    Raises:
        ConfigError: the batch divides over none of them.
    """
    shapes = [(network, devices, 1)]
    if network.towers == 2 and devices % 2 == 0:
        shapes.append((network, devices // 2, 2))
    if network.towers == 1 and devices > 1 and _divides(network, devices):
        shapes.append((hybrid(network, devices), devices, 1))
    found = [
        estimate(
            table,
            data=data,
            tower=tower,
            batch_size=batch_size,
            rate=rate,
            link=link,
            precision=precision,
        )
        for table, data, tower in shapes
        if batch_size % data == 0
    ]
    if not found:
        raise ConfigError(
            f"batch_size {batch_size} does not divide over {devices} devices; "
            f"use {-(-batch_size // devices) * devices}"
        )
    return found


def _divides(network: Network, devices: int) -> bool:
    dense = [row.features for row in network.rows if isinstance(row, Dense)]
    return bool(dense) and all(units % devices == 0 for units in dense)
