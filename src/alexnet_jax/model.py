"""The network's body: runs any table, for one or both towers on a device.

The body is written once, for the towers that a device holds. It always runs inside
``jax.shard_map`` over a mesh ``('data', 'tower')``: on one device the tower axis has
size one and the device holds both towers; on two devices each holds one, and the
``all_gather`` and ``psum`` below are the only words they exchange. Channels are in
tower order, so a device's maps are simply its half of the channels.
"""

from collections.abc import Mapping
from zlib import crc32

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from alexnet_jax.convolution import conv
from alexnet_jax.normalization import response_norm, spatial_norm
from alexnet_jax.pooling import avg_pool, max_pool
from alexnet_jax.table import (
    AvgPool,
    Classifier,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
    SpatialNorm,
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
        """Draw the initial parameters: normal weights, constant biases.

        Each layer's address is its name, so adding a row moves no other's.
        """
        self.network = network
        self.classes = classes
        weights = {}
        for traced in trace(network, classes):
            row = traced.row
            if not isinstance(row, Conv | Dense | Classifier):
                continue
            own_key = jax.random.fold_in(key, crc32(row.name.encode()))
            draw = jax.random.normal(own_key, traced.weights["kernel"], jnp.float32)
            weights[row.name] = nnx.Dict(
                kernel=nnx.Param(row.sigma * draw),
                bias=nnx.Param(jnp.full(traced.weights["bias"], row.bias, jnp.float32)),
            )
        self.weights = nnx.Dict(weights)

    def __call__(
        self,
        images: Float[Array, "batch side side colours"],
        masks: Mapping[str, Bool[Array, "batch units"]] | None,
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
        devices = lax.axis_size("tower")
        local_towers = self.network.towers // devices
        # Every device works on its own share of everything from here on. What was
        # the same on several devices is cast to varying over their axis, so that JAX
        # sums its gradient over that axis on the way back.
        xs = [lax.pcast(images.astype(dtype), "tower", to="varying")]
        # In tower order: one array with all local towers' channels, or, where each
        # tower has its own kernel, one a tower (joining them would cost a copy).
        split = False  # are channels divided between the towers yet?

        for row in self.network.rows:
            with jax.named_scope(row.name):
                match row:
                    case Conv() | Dense():
                        kernel, bias = self._local(row.name, dtype)
                        if split and row.reads == "own" and self.network.towers == 2:
                            xs = (
                                xs if len(xs) > 1 else jnp.split(xs[0], len(kernel), -1)
                            )
                            kernels = list(kernel)
                        else:
                            x = _join(xs)
                            if split and devices > 1:
                                x = lax.all_gather(x, "tower", axis=-1, tiled=True)
                            xs, kernels = [x], [kernel]
                        biases = jnp.split(bias, len(kernels))
                        xs = [
                            _weigh(row, x, own) + b
                            for x, own, b in zip(xs, kernels, biases, strict=True)
                        ]
                        split = True
                    case Classifier():
                        # Each tower multiplies its half; the bias comes once. Maps
                        # are laid out tower by tower, as the kernel's rows are.
                        kernel, bias = self._local(row.name, dtype)
                        xs = xs if len(xs) > 1 else jnp.split(xs[0], local_towers, -1)
                        units = _join([x.reshape(len(x), -1) for x in xs])
                        logits = units @ kernel
                        logits = lax.psum(logits.astype(jnp.float32), "tower")
                        xs = [logits + bias.astype(jnp.float32)]
                    case ResponseNorm():
                        xs = [
                            response_norm(
                                x,
                                towers=local_towers // len(xs),
                                size=row.size,
                                alpha=row.alpha,
                                beta=row.beta,
                                k=row.k,
                            )
                            for x in xs
                        ]
                    case SpatialNorm():
                        xs = [
                            spatial_norm(
                                x,
                                size=row.size,
                                alpha=row.alpha,
                                beta=row.beta,
                                k=row.k,
                            )
                            for x in xs
                        ]
                    case MaxPool():
                        xs = [max_pool(x, row.size, row.stride) for x in xs]
                    case AvgPool():
                        xs = [avg_pool(x, row.size, row.stride) for x in xs]
                    case Relu():
                        # No gradient at 0, as in the 2012 kernels.
                        xs = [jax.nn.relu(x) for x in xs]
                    case Dropout():
                        if masks is None:  # testing: the 2012 rule
                            xs = [x * row.keep for x in xs]
                        else:
                            own_masks = jnp.split(masks[row.name], len(xs), axis=-1)
                            xs = [
                                jnp.where(mask, x, 0)
                                for x, mask in zip(xs, own_masks, strict=True)
                            ]
            if record is not None:
                record[row.name] = _join(xs)
        return _join(xs)

    def _local(self, name: str, dtype: DTypeLike) -> tuple[Array, Array]:
        """Return this device's kernel, varying over 'data', and bias of a layer."""
        kernel = self.weights[name]["kernel"][...].astype(dtype)
        bias = self.weights[name]["bias"][...].astype(dtype)
        return lax.pcast(kernel, "data", to="varying"), bias


def _join(xs: list[Array]) -> Array:
    return xs[0] if len(xs) == 1 else jnp.concatenate(xs, axis=-1)


def _weigh(row: Conv | Dense, x: Array, kernel: Array) -> Array:
    if isinstance(row, Conv):
        return conv(x, kernel, row.stride, row.pad)
    return x.reshape(len(x), -1) @ kernel


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
    on every device.
    """
    specs = {}
    for traced in trace(network, classes):
        if not traced.weights:
            continue
        rank = len(traced.weights["kernel"])
        if isinstance(traced.row, Classifier):
            kernel, bias = P("tower", None), P(None)
        elif rank in (3, 5):
            kernel, bias = P("tower", *(None,) * (rank - 1)), P("tower")
        else:
            kernel, bias = P(*(None,) * (rank - 1), "tower"), P("tower")
        specs[traced.row.name] = {"kernel": kernel, "bias": bias}
    return specs


def dropout_rows(network: Network) -> dict[str, tuple[int, float]]:
    """Return each dropout row's units (both towers) and probability to keep one."""
    return {
        traced.row.name: (traced.outputs[0], traced.row.keep)
        for traced in trace(network)
        if isinstance(traced.row, Dropout)
    }
