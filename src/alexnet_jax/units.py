"""From edges to parts: the patches of a split that excite a layer's units most."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8

from alexnet_jax import data, steps
from alexnet_jax.activations import check_layer
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.data.memory import decode_record
from alexnet_jax.data.records import Source
from alexnet_jax.errors import ConfigError
from alexnet_jax.evaluate import padded
from alexnet_jax.networks import network as find_network
from alexnet_jax.table import (
    Classifier,
    Conv,
    Field,
    LocallyConnected,
    Network,
    Traced,
    trace,
)

PATCHES = 9
CHOSEN = 12
OUTSIDE = 236  # grey of what lies outside the picture: nearly the page's white


@dataclass(frozen=True)
class Best:
    """What excites some units of a layer most, each picture once, best first.

    Attributes:
        units: their numbers among the layer's maps.
        values: what they say, -inf where there is no picture.
        images: which picture of the split says so.
        places: line and column of the unit in its map.
    """

    units: tuple[int, ...]
    values: Float[np.ndarray, "units patches"]
    images: Int[np.ndarray, "units patches"]
    places: Int[np.ndarray, "units patches 2"]


@dataclass(frozen=True)
class Patch:
    """What a unit saw of one picture.

    Attributes:
        pixels: see ``cut``.
        image: name of the picture.
        index: its place in the split.
        label: its true class, by the split's number.
        value: what the unit says.
        top, left: of the unit's field in the picture; may lie outside.
    """

    pixels: UInt8[np.ndarray, "height width colours"]
    image: str
    index: int
    label: int
    value: float
    top: int
    left: int


@dataclass(frozen=True)
class Seen:
    """The best so far.

    Attributes:
        images: how many were looked at.
        layers: by name.
    """

    images: int
    layers: dict[str, Best]


def layers(network: Network) -> tuple[str, ...]:
    """Return the names of a network's convolutions, locally connected ones too."""
    return tuple(
        row.name for row in network.rows if isinstance(row, Conv | LocallyConnected)
    )


def traced(network: Network, layer: str) -> Traced:
    """Return a layer as the table traces it.

    Args:
        network: the table.
        layer: a row of it, or ``logits``.

    Raises:
        ConfigError: there is no such layer, or it is the input.
    """
    if layer == steps.INPUT:
        raise ConfigError(f"--layer {layer}: it has no units; choose a row after it")
    check_layer(network.name, layer)
    for record in trace(network):
        last = isinstance(record.row, Classifier)
        if layer == (steps.LOGITS if last else record.row.name):
            return record
    raise AssertionError(layer)


def choose(
    network: Network,
    layer: str,
    classes: int,
    units: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """Return the units of a layer that are looked at.

    Args:
        network: the table.
        layer: see ``traced``.
        classes: logits of the classifier.
        units: those wanted; a dozen when None, evenly spaced, half from each tower, so
            that nobody chose them by what they show.

    Raises:
        ConfigError: the layer has no such unit.
    """
    record = traced(network, layer)
    last = isinstance(record.row, Classifier)
    count = classes if last else record.outputs[-1]
    if units is None:
        towers = 1 if last else network.towers
        own = count // towers
        shown = min(CHOSEN // towers, own)
        return tuple(
            tower * own + place * own // shown
            for tower in range(towers)
            for place in range(shown)
        )
    for unit in units:
        if not 0 <= unit < count:
            raise ConfigError(f"--units {unit}: {layer} has units 0 to {count - 1}")
    return tuple(units)


def excite(
    loaded: Loaded,
    source: Source,
    mesh: Mesh,
    chosen: Mapping[str, Sequence[int]],
    *,
    batch_size: int = 128,
) -> Iterator[Seen]:
    """Look through a split for what excites units most, with the centre view.

    Args:
        loaded: see ``checkpoint.load``.
        source: the split; its labels play no part.
        mesh: the one that ``loaded`` lies on.
        chosen: of each layer, the units; see ``choose``.
        batch_size: pictures computed at once, over all devices.

    Yields:
        The best after each batch; the last one has seen every picture.

    Raises:
        DataError: a picture that cannot be read.
    """
    meta, table = loaded.meta, find_network(loaded.meta.network)
    run = steps.layers(
        table, len(meta.classes), mesh, names=tuple(chosen), precision=meta.precision
    )

    @jax.jit  # a program of its own: steps.layers compiles its own, with options
    def look(maps):
        """Return the units' largest values, and at which place of their maps."""
        found = {}
        for name, values in maps.items():
            own = values[..., np.array(chosen[name])]
            flat = own.reshape(len(own), -1, own.shape[-1])
            found[name] = flat.max(1).T, flat.argmax(1).T
        return found

    sides = {
        name: 1 if len(record.outputs) == 1 else record.outputs[0]
        for name in chosen
        for record in [traced(table, name)]
    }
    best = {
        name: Best(
            units=tuple(units),
            values=np.full((len(units), PATCHES), -np.inf, np.float32),
            images=np.full((len(units), PATCHES), -1),
            places=np.zeros((len(units), PATCHES, 2), int),
        )
        for name, units in chosen.items()
    }
    batches = data.eval_batches(
        source,
        batch_size=padded(batch_size, mesh),
        image_size=meta.image_size,
        channels=table.channels,
        resize=meta.resize,
    )
    done = 0
    for batch in batches:
        images = jnp.asarray(steps.put_batch(batch, mesh).images)
        found = jax.device_get(look(run(loaded.params, loaded.preprocess, images)))
        new = int(batch.mask.sum())
        numbers = np.arange(done, done + new)
        done += new
        for name, (values, flat) in found.items():
            places = np.stack(np.divmod(flat[:, :new], sides[name]), axis=-1)
            best[name] = _merged(best[name], values[:, :new], numbers, places)
        yield Seen(done, dict(best))


def _merged(
    best: Best, values: np.ndarray, images: np.ndarray, places: np.ndarray
) -> Best:
    """Put a batch beside the best so far and keep the best; earlier ones win ties."""
    all_values = np.concatenate([best.values, values], axis=1)
    all_images = np.concatenate(
        [best.images, np.broadcast_to(images, values.shape)], axis=1
    )
    all_places = np.concatenate([best.places, places], axis=1)
    order = np.argsort(-all_values, axis=1, kind="stable")[:, :PATCHES]
    return Best(
        best.units,
        np.take_along_axis(all_values, order, axis=1),
        np.take_along_axis(all_images, order, axis=1),
        np.take_along_axis(all_places, order[..., None], axis=1),
    )


def patches(
    loaded: Loaded, source: Source, layer: str, best: Best
) -> list[list[Patch]]:
    """Cut out what excites units, the best first.

    Args:
        loaded: see ``checkpoint.load``.
        source: the split that was looked through.
        layer: of the units.
        best: what was found.

    Returns:
        Of each unit at most ``PATCHES``, fewer where the split has fewer pictures.

    Raises:
        ImageError: a picture cannot be read.
    """
    field = traced(find_network(loaded.meta.network), layer).field
    found = []
    for row in range(len(best.units)):
        found.append([])
        for value, index, place in zip(
            best.values[row], best.images[row], best.places[row], strict=True
        ):
            if index < 0:
                continue
            record = source[int(index)]
            line, column = map(int, place)
            found[-1].append(
                Patch(
                    cut(view(loaded, source, int(index)), field, line, column),
                    record.id,
                    int(index),
                    record.label,
                    float(value),
                    field.first + field.stride * line,
                    field.first + field.stride * column,
                )
            )
    return found


def cut(
    view: UInt8[np.ndarray, "side side colours"], field: Field, line: int, column: int
) -> UInt8[np.ndarray, "height width colours"]:
    """Cut out what a unit sees of a picture.

    Args:
        view: what the network sees, see ``view``.
        field: of the unit's layer.
        line: of the unit in its map.
        column: likewise.

    Returns:
        The field, grey where it lies outside the picture; where the field is larger,
        the picture, grey where the unit does not see it.
    """
    side = len(view)
    top, left = (field.first + field.stride * place for place in (line, column))
    rows = slice(max(top, 0), min(top + field.size, side))
    columns = slice(max(left, 0), min(left + field.size, side))
    if field.size >= side:
        top = left = 0
    size = min(field.size, side)
    patch = np.full((size, size, view.shape[-1]), OUTSIDE, np.uint8)
    patch[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ] = view[rows, columns]
    return patch


def view(
    loaded: Loaded, source: Source, index: int
) -> UInt8[np.ndarray, "side side colours"]:
    """Return a picture of a split as the network sees it: its centre.

    Raises:
        ImageError: it cannot be read.
    """
    return centre(loaded, stored(loaded, source, index))


def stored(
    loaded: Loaded, source: Source, index: int
) -> UInt8[np.ndarray, "stored stored colours"]:
    """Return a picture of a split as a checkpoint wants it.

    Raises:
        ImageError: it cannot be read.
    """
    meta, table = loaded.meta, find_network(loaded.meta.network)
    return decode_record(source[index], meta.image_size, table.channels, meta.resize)


def centre(
    loaded: Loaded, pixels: UInt8[np.ndarray, "stored stored colours"]
) -> UInt8[np.ndarray, "side side colours"]:
    """Return what a network sees of a picture that is as its checkpoint wants it."""
    side = find_network(loaded.meta.network).input_size
    start = (len(pixels) - side) // 2
    return pixels[start : start + side, start : start + side]
