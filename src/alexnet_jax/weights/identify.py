"""Which network a file of weights is, and which tensor is which layer's.

A file of ours says so itself. Caffe and ONNX files describe their layers, which must be
those of the table, constants included; files of tensors alone are told by names and
shapes. Every refusal names the first tensor or layer that does not fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose

from alexnet_jax.errors import WeightsError
from alexnet_jax.networks import NETWORKS
from alexnet_jax.table import (
    Classifier,
    Conv,
    Dense,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
    Row,
    Tanh,
)
from alexnet_jax.weights.layout import Slot, slots
from alexnet_jax.weights.tensors import Layer, Tensor, WeightFile, times

TORCHVISION = {
    **{"conv1": "features.0", "conv2": "features.3", "conv3": "features.6"},
    **{"conv4": "features.8", "conv5": "features.10"},
    **{"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"},
}
"""Names in torchvision's alexnet of the layers of ``owt``."""

_LISTED = 3


@dataclass(frozen=True)
class Found:
    """A layer's tensors in a file.

    Attributes:
        slot: the layer.
        weight, bias: its tensors.
        name: of the weight in the file.
        native: whether the weight is laid out as ours.
    """

    slot: Slot
    weight: Tensor
    bias: Tensor
    name: str
    native: bool


@dataclass(frozen=True)
class Misfit:
    """Why a file is not a network.

    Attributes:
        fitting: layers and tensors that fitted before.
        why: a clause.
    """

    fitting: int
    why: str


def identify(file: WeightFile, name: str | None) -> tuple[Network, list[Found]]:
    """Find the network that a file of weights is.

    Args:
        file: see ``tensors.WeightFile``.
        name: of the network, if it is known.

    Returns:
        Its table, and every layer's tensors, of the right shapes.

    Raises:
        WeightsError: none fits, or several do; the message names what does not.
    """
    if name is not None:
        candidates = [NETWORKS[name]]
    elif _torchvision(file):
        candidates = [NETWORKS["owt"]]
    else:
        candidates = list(NETWORKS.values())
    tried = {table.name: _fit(file, table) for table in candidates}
    fits = {name: fit for name, fit in tried.items() if not isinstance(fit, Misfit)}
    if len(fits) == 1:
        ((name, fit),) = fits.items()
        return NETWORKS[name], fit
    if fits:
        raise WeightsError(
            f"{file.path} fits {', '.join(fits)} alike and does not say which it is; "
            "name it with --network"
        )
    misfits = {n: fit for n, fit in tried.items() if isinstance(fit, Misfit)}
    nearest = max(misfits, key=lambda name: misfits[name].fitting)
    which = f"is no {nearest} network:"
    if len(candidates) > 1:
        which = f"is no network known here; the nearest is {nearest}, but"
    raise WeightsError(f"{file.path} {which} {misfits[nearest].why}")


def _torchvision(file: WeightFile) -> bool:
    return any(name.startswith("features.") for name in file.tensors)


def _fit(file: WeightFile, table: Network) -> list[Found] | Misfit:
    fitting = 0
    if file.layers and file.described is None:
        differs = _compare_layers(file.layers, table)
        if isinstance(differs, Misfit):
            return differs
        fitting = differs
        described = [layer for layer in file.layers if layer.kind in ("conv", "dense")]
        names = [
            [tuple(layer.weights) or (f"{layer.name}.weight", f"{layer.name}.bias")]
            for layer in described
        ]
    else:
        names = [_names(file, slot) for slot in slots(table, table.classes)]
    return _match(file, table, names, fitting)


def _names(file: WeightFile, slot: Slot) -> list[tuple[str, ...]]:
    """List the names that a layer's tensors may have in a file without layers."""
    if _torchvision(file) and slot.name in TORCHVISION:
        base = TORCHVISION[slot.name]
        return [(f"{base}.weight", f"{base}.bias")]
    parts = ("weight", "kernel") if slot.weight else ("kernel",)
    return [
        (f"{slot.name}{dot}{part}", f"{slot.name}{dot}bias")
        for part in parts
        for dot in "./"
    ]


def _match(
    file: WeightFile,
    table: Network,
    names: Sequence[Sequence[tuple[str, ...]]],
    fitting: int,
) -> list[Found] | Misfit:
    """Find every layer's tensors and check their shapes."""
    chosen = [
        next((pair for pair in choice if pair[0] in file.tensors), choice[0])
        for choice in names
    ]
    last = chosen[-1]
    classes = table.classes
    if len(last) == 2 and last[1] in file.tensors:
        classes = file.tensors[last[1]].shape[0]
    found: list[Found] = []
    for slot, pair in zip(slots(table, classes), chosen, strict=True):
        if len(pair) != 2:
            return Misfit(
                fitting, f"its layer {pair[0]} has {len(pair)} tensors, not 2"
            )
        native = pair[0].endswith("kernel") or not slot.weight
        wanted = (slot.kernel if native else slot.weight, slot.bias)
        for name, shape in zip(pair, wanted, strict=True):
            if name not in file.tensors:
                return Misfit(fitting, f"it has no tensor {name}; {_holds(file)}")
            if file.tensors[name].shape != shape:
                return Misfit(
                    fitting,
                    f"{name} is {times(file.tensors[name].shape)}, not {times(shape)}",
                )
            fitting += 1
        tensors = [file.tensors[name] for name in pair]
        found.append(Found(slot, tensors[0], tensors[1], pair[0], native))
    used = {name for pair in chosen for name in pair}
    more = [name for name in file.tensors if name not in used]
    if more and file.described is None:
        return Misfit(fitting, f"it has tensors of other layers, {_list(file, more)}")
    return found


def _holds(file: WeightFile) -> str:
    return f"it holds {_list(file, list(file.tensors))}"


def _list(file: WeightFile, names: Sequence[str]) -> str:
    shown = [f"{name} ({times(file.tensors[name].shape)})" for name in names[:_LISTED]]
    if len(names) > _LISTED:
        shown.append(f"{len(names) - _LISTED} more")
    return ", ".join(shown) or "no tensors"


def _compare_layers(layers: Sequence[Layer], table: Network) -> int | Misfit:
    """Count the layers, all alike in a file and a table, or say where they part."""
    wanted = [layer for row in table.rows if (layer := as_layer(row, table))]
    for place, layer in enumerate(wanted):
        if place == len(layers):
            return Misfit(place, f"it ends before {layer.name}")
        given = layers[place]
        if given.kind != layer.kind:
            return Misfit(
                place,
                f"its layer {given.name} is a {given.kind} where {table.name} has "
                f"{layer.name}, a {layer.kind}",
            )
        for constant, value in given.constants.items():
            own = layer.constants.get(constant, 0)
            if not isclose(value, own, rel_tol=1e-5):
                return Misfit(
                    place,
                    f"its layer {given.name} has {constant} {value:g}, "
                    f"{table.name} {own:g}",
                )
    if len(layers) > len(wanted):
        return Misfit(len(wanted), f"its layer {layers[len(wanted)].name} is one more")
    return len(wanted)


def as_layer(row: Row, table: Network) -> Layer | None:
    """Describe a row as Caffe and ONNX do; None for what makes no layer there.

    A row that they have no layer for is of its own kind, which no file's layer is.
    """
    match row:
        case Conv():
            groups = 2 if row.reads == "own" and table.towers == 2 else 1
            constants = {"pad": row.pad, "stride": row.stride, "groups": groups}
            return Layer(row.name, "conv", constants)
        case Dense(reads="both") | Classifier():
            return Layer(row.name, "dense")
        case ResponseNorm() if table.towers == 1 or row.reads == "both":
            alpha = row.scale * row.size
            constants = {"size": row.size, "alpha": alpha, "beta": row.beta, "k": row.k}
            return Layer(row.name, "norm", constants)
        case MaxPool():
            return Layer(row.name, "pool", {"size": row.size, "stride": row.stride})
        case Relu():
            return Layer(row.name, "relu")
        case Tanh():
            return Layer(row.name, "tanh")
    return None if type(row).__name__ == "Dropout" else Layer(row.name, "other")
