"""The network's body: runs any table, for one or both towers on a device.

The body is written once, for the towers that a device holds. It always runs inside
``jax.shard_map`` over a mesh ``('data', 'tower')``: on one device the tower axis has
size one and the device holds both towers; on two devices each holds one, and the
``all_gather`` and ``psum`` below are the only words they exchange. Channels are in
tower order, so a device's maps are simply its half of the channels.

A network of one tower may be hybrid (Krizhevsky, *One weird trick*, 2014): the devices
along 'data' each run the convolutions on their own images; for the fully connected
layers they put their images together, and each holds a part of the units.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from math import sqrt
from zlib import crc32

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from alexnet_jax.convolution import conv, shift
from alexnet_jax.dense import product
from alexnet_jax.locally_connected import local
from alexnet_jax.normalization import response_norm, spatial_norm
from alexnet_jax.pooling import avg_pool, max_pool
from alexnet_jax.portions import in_portions
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
    Row,
    SpatialNorm,
    Tanh,
    Traced,
    Weighted,
    trace,
)

Params = dict[str, dict[str, Array]]
"""Layer name -> ``{"kernel", "bias"}``; shapes as ``table.trace`` gives them."""


class AlexNet(nnx.Module):
    """A table with its parameters; float32, both towers, in tower order.

    Attributes:
        network: the table.
        classes: logits of the classifier.
        weights: ``{layer: {"kernel", "bias"}}``.
    """

    def __init__(self, network: Network, classes: int, key: Key[Array, ""]) -> None:
        """Draw the initial parameters, each layer's at the address of its name.

        So adding a row moves no other's.
        """
        self.network = network
        self.classes = classes
        weights = {}
        for traced in trace(network, classes):
            name = traced.row.name
            if traced.weights:
                layer = _draw(traced, jax.random.fold_in(key, crc32(name.encode())))
                weights[name] = nnx.Dict(jax.tree.map(nnx.Param, layer))
        self.weights = nnx.Dict(weights)

    def __call__(
        self,
        images: Float[Array, "batch side side colours"],
        masks: Mapping[str, Bool[Array, "batch ..."]] | None,
        *,
        dtype: DTypeLike,
        record: dict[str, Array] | None = None,
    ) -> Float[Array, "batch classes"]:
        """Run the local towers on the local images, inside ``shard_map``.

        Args:
            images: ``[B, S, S, C]``, mean already subtracted.
            masks: for each dropout row, the local units that speak; None when testing.
            dtype: of the arithmetic.
            record: if given, receives every row's output by name.

        Returns:
            Logits ``f32[B, classes]``, the same on every tower.
        """
        pair = self.network.towers == 2
        devices = lax.axis_size("tower")
        local_towers = self.network.towers // devices
        # Every device works on its own share of everything from here on. What was
        # the same on several devices is cast to varying over their axis, so that JAX
        # sums its gradient over that axis on the way back.
        xs = [lax.pcast(images.astype(dtype), "tower", to="varying")]
        # In tower order: one array with all local towers' channels, or, where each
        # tower has its own kernel, one a tower (joining them would cost a copy).
        split = False  # are channels divided between the towers yet?
        pooled = False  # hybrid: are these all images, and a part of the units?

        for row, *more in self._stretches(alone=record is not None):
            if more:
                rows = [row for row in (row, *more) if isinstance(row, Plain)]
                run = partial(in_portions, _passes(rows))
                xs = [_tower_by_tower(run, x, local_towers // len(xs)) for x in xs]
                continue
            with jax.named_scope(row.name):
                match row:
                    case Conv() | LocallyConnected() | Dense():
                        kernel, bias = self._local(row.name, dtype)
                        if split and row.reads == "own" and pair:
                            xs, kernels = _apart(xs, len(kernel)), list(kernel)
                        else:
                            xs, kernels = [_both(xs) if split else xs[0]], [kernel]
                        if self.network.hybrid and isinstance(row, Dense):
                            x = xs[0] if pooled else xs[0].reshape(len(xs[0]), -1)
                            # All images first, then all units of the layer before.
                            axis = 1 if pooled else 0
                            xs = [lax.all_gather(x, "data", axis=axis, tiled=True)]
                            pooled = True
                        biases = jnp.split(bias, len(kernels), axis=-1)
                        xs = [
                            _weigh(row, x, own, b)
                            for x, own, b in zip(xs, kernels, biases, strict=True)
                        ]
                        split = True
                    case Classifier():
                        # Each tower multiplies its half; the bias comes once. Maps
                        # are laid out tower by tower, as the kernel's rows are.
                        kernel, bias = self._local(row.name, dtype)
                        xs = _apart(xs, local_towers)
                        units = _join([x.reshape(x.shape[0], -1) for x in xs])
                        logits = product(units, kernel)
                        wide = jnp.promote_types(dtype, jnp.float32)
                        logits = lax.psum(logits.astype(wide), "tower")
                        if pooled:  # sum over the units, back to one's own images
                            logits = lax.psum_scatter(logits, "data", tiled=True)
                        xs = [logits + bias.astype(wide)]
                    case ResponseNorm() if pair and row.reads == "both":
                        xs = [_own_half(_plain(row, _both(xs)))]
                    case _ if isinstance(row, Plain):
                        run, towers = partial(_plain, row), local_towers // len(xs)
                        xs = [_tower_by_tower(run, x, towers) for x in xs]
                    case Dropout():
                        inverted = row.rule == "inverted"
                        if masks is not None:
                            scale = 1 / row.keep if inverted else 1.0
                            own_masks = jnp.split(masks[row.name], len(xs), axis=-1)
                            xs = [
                                jnp.where(mask, scale * x, 0)
                                for x, mask in zip(xs, own_masks, strict=True)
                            ]
                        elif not inverted:
                            xs = [row.keep * x for x in xs]
            if record is not None:
                record[row.name] = _join(xs)
        return _join(xs)

    def _stretches(self, *, alone: bool) -> Iterator[tuple[Row, ...]]:
        """Yield the rows in order; those that mix neither images nor towers together.

        Args:
            alone: yield every row by itself, for its output is wanted.
        """

        def plain(row: Row) -> bool:
            across = isinstance(row, ResponseNorm) and row.reads == "both"
            return isinstance(row, Plain) and not across

        for together, rows in groupby(self.network.rows, plain):
            if together and not alone:
                yield tuple(rows)
            else:
                yield from ((row,) for row in rows)

    def _local(self, name: str, dtype: DTypeLike) -> tuple[Array, Array]:
        """Return this device's kernel and bias of a layer, varying over 'data'.

        The kernel varies over 'tower' too, as the units that it weighs do.
        """
        kernel = self.weights[name]["kernel"][...].astype(dtype)
        bias = self.weights[name]["bias"][...].astype(dtype)
        return vary(vary(kernel), "tower"), vary(bias)


def vary(x: Array, axis: str = "data") -> Array:
    """Cast to varying over an axis: each device differentiates with respect to its own.

    What JAX takes for one array on all devices it sums the gradient of at once.
    """
    try:
        return lax.pcast(x, axis, to="varying")
    except ValueError:  # it varies already, and JAX knows no cast from that to that
        return x


def _draw(traced: Traced, key: Key[Array, ""]) -> dict[str, Array]:
    """Draw one layer's parameters, float32."""
    row, kernel, bias = traced.row, traced.weights["kernel"], traced.weights["bias"]
    assert isinstance(row, Weighted)
    if row.sigma is not None:
        return {
            "kernel": row.sigma * jax.random.normal(key, kernel, jnp.float32),
            "bias": jnp.full(bias, row.bias, jnp.float32),
        }
    bound = 1 / sqrt(traced.fan_in)
    keys = jax.random.split(key)
    return {
        "kernel": jax.random.uniform(keys[0], kernel, jnp.float32, -bound, bound),
        "bias": jax.random.uniform(keys[1], bias, jnp.float32, -bound, bound),
    }


def _join(xs: list[Array]) -> Array:
    """Return the local towers' channels as one array."""
    return xs[0] if len(xs) == 1 else jnp.concatenate(xs, axis=-1)


def _apart(xs: list[Array], towers: int) -> list[Array]:
    """Return the local towers' channels as an array a tower."""
    return xs if len(xs) == towers else jnp.split(_join(xs), towers, axis=-1)


def _both(xs: list[Array]) -> Array:
    """Return the channels of both towers, wherever they lie."""
    if lax.axis_size("tower") == 1:  # XLA would still lay the maps out anew
        return _join(xs)
    return lax.all_gather(_join(xs), "tower", axis=-1, tiled=True)


def _own_half(x: Array) -> Array:
    """Return the local towers' share of the channels of both."""
    width = x.shape[-1] // lax.axis_size("tower")
    start = lax.axis_index("tower") * width
    return lax.dynamic_slice_in_dim(x, start, width, axis=-1)


def _tower_by_tower(run: Callable[[Array], Array], x: Array, towers: int) -> Array:
    """Return what ``run`` makes of ``x``, towers having an axis of their own for it.

    So a norm's windows end where a tower does. Were channels of both on one axis, XLA's
    CPU backend would find every neighbour by a division.
    """
    if towers == 1:
        return run(x)
    y = run(x.reshape(*x.shape[:-1], towers, -1))
    return y.reshape(*y.shape[:-2], -1)


Plain = ResponseNorm | SpatialNorm | MaxPool | AvgPool | Relu | Tanh
"""Rows without parameters or chance: a function of one image's maps."""


def _plain(row: Plain, x: Array) -> Array:
    match row:
        case ResponseNorm():
            return response_norm(
                x, size=row.size, scale=row.scale, beta=row.beta, k=row.k
            )
        case SpatialNorm():
            return spatial_norm(
                x, size=row.size, scale=row.scale, beta=row.beta, k=row.k
            )
        case MaxPool():
            return max_pool(x, row.size, row.stride)
        case AvgPool():
            return avg_pool(x, row.size, row.stride)
        case Tanh():
            return jnp.tanh(x)
    return jax.nn.relu(x)  # no gradient at 0, as in the 2012 kernels


def _passes(rows: list[Plain]) -> tuple[Callable[[Array], Array], ...]:
    """Return a function a row; a ReLU goes with its neighbour, being next to free."""
    groups: list[list[Plain]] = []
    for row in rows:
        first_relu = len(groups) == 1 and all(isinstance(r, Relu) for r in groups[0])
        if groups and (isinstance(row, Relu) or first_relu):
            groups[-1].append(row)
        else:
            groups.append([row])

    def run(group: list[Plain], x: Array) -> Array:
        for row in group:
            with jax.named_scope(row.name):
                x = _plain(row, x)
        return x

    return tuple(partial(run, group) for group in groups)


def _weigh(
    row: Conv | LocallyConnected | Dense, x: Array, kernel: Array, bias: Array
) -> Array:
    match row:
        case Conv():
            x = conv(x, kernel, row.stride, row.pad, row.rounding)
            return shift(x, bias)
        case LocallyConnected():  # each place has a bias of its own
            return local(x, kernel, row.stride, row.pad) + bias
    return product(x.reshape(x.shape[0], -1), kernel) + bias


def graph(network: Network, classes: int) -> nnx.GraphDef:
    """Return the static half of the module; ``nnx.merge`` it with parameters."""
    module = nnx.eval_shape(lambda: AlexNet(network, classes, jax.random.key(0)))
    return nnx.split(module)[0]


def init(network: Network, classes: int, key: Key[Array, ""]) -> Params:
    """Draw the parameters as a plain nested dict; the same on any mesh."""
    module = AlexNet(network, classes, key)
    return nnx.to_pure_dict(nnx.state(module))["weights"]


def merge(graphdef: nnx.GraphDef, params: Params) -> AlexNet:
    """Return the module around ``params``, which may be a device's own shards."""
    state = nnx.State({"weights": jax.tree.map(nnx.Param, params)})
    return nnx.merge(graphdef, state)


def param_specs(network: Network, classes: int) -> dict[str, dict[str, P]]:
    """Say how each parameter lies on the mesh.

    A matrix a tower: sharded on the leading axis. A layer whose towers read the same
    tensor: column-parallel, on the last axis. The classifier: row-parallel, its bias
    on every device. A hybrid's fully connected layers lie likewise along 'data'.
    """
    specs = {}
    pooled = False
    for traced in trace(network, classes):
        if not traced.weights:
            continue
        rank, bias_rank = (len(traced.weights[key]) for key in ("kernel", "bias"))
        pooled |= network.hybrid and isinstance(traced.row, Dense)
        if pooled and isinstance(traced.row, Classifier):
            kernel, bias = P("data", None), P(None)
        elif pooled:
            kernel, bias = P(None, "data"), P("data")
        elif isinstance(traced.row, Classifier):
            kernel, bias = P("tower", None), P(None)
        elif traced.per_tower:
            kernel, bias = P("tower", *(None,) * (rank - 1)), _last(bias_rank)
        else:
            kernel, bias = _last(rank), _last(bias_rank)
        specs[traced.row.name] = {"kernel": kernel, "bias": bias}
    return specs


def _last(rank: int) -> P:
    """Return the spec of an array of ``rank`` axes whose last one is channels."""
    return P(*(None,) * (rank - 1), "tower")


def mask_specs(network: Network) -> dict[str, P]:
    """Say how each dropout row's mask lies on the mesh."""
    specs, pooled = {}, False
    for traced in trace(network):
        pooled |= network.hybrid and isinstance(traced.row, Dense)
        if isinstance(traced.row, Dropout):
            rank = len(traced.outputs)
            own = P("data", *(None,) * (rank - 1), "tower")
            specs[traced.row.name] = P(None, "data") if pooled else own
    return specs


def dropout_rows(network: Network) -> dict[str, tuple[tuple[int, ...], float]]:
    """Return each dropout row's shape for one image and its probability to keep."""
    return {
        traced.row.name: (traced.outputs, traced.row.keep)
        for traced in trace(network)
        if isinstance(traced.row, Dropout)
    }
