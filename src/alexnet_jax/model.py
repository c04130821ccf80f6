"""The network's body: runs any table, for one or both towers on a device.

The body is written once, for the towers that a device holds. It always runs inside
``jax.shard_map`` over a mesh ``('data', 'tower')``: on one device the tower axis has
size one and the device holds both towers; on two devices each holds one, and the
``all_gather`` and ``psum`` below are the only words they exchange. Channels are in
tower order, so a device's maps are simply its half of the channels.
"""

from collections.abc import Mapping

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

        Each layer draws from its own address, so adding a row moves no other's.
        """
        self.network = network
        self.classes = classes
        weights = {}
        for index, traced in enumerate(trace(network, classes)):
            row = traced.row
            if not isinstance(row, Conv | Dense | Classifier):
                continue
            draw = jax.random.normal(
                jax.random.fold_in(key, index), traced.weights["kernel"], jnp.float32
            )
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
        local_towers = self.network.towers // lax.axis_size("tower")
        # Every device works on its own share of everything from here on. What was
        # the same on several devices is cast to varying over their axis, so that JAX
        # sums its gradient over that axis on the way back.
        x = lax.pcast(images.astype(dtype), "tower", to="varying")
        split = False  # are the channels of x divided between the towers?
        for row in self.network.rows:
            with jax.named_scope(row.name):
                match row:
                    case Conv():
                        kernel, bias = self._weights_of(row, dtype)
                        if split and row.reads == "both":
                            x = lax.all_gather(x, "tower", axis=-1, tiled=True)
                        if kernel.ndim == 5:  # a kernel a tower, on its own maps
                            x = jnp.concatenate(
                                [
                                    conv(maps, own, row.stride, row.pad)
                                    for maps, own in zip(
                                        jnp.split(x, len(kernel), -1),
                                        kernel,
                                        strict=True,
                                    )
                                ],
                                axis=-1,
                            )
                        else:
                            x = conv(x, kernel, row.stride, row.pad)
                        x = x + bias
                        split = True
                    case Dense():
                        kernel, bias = self._weights_of(row, dtype)
                        if split and row.reads == "both":
                            x = lax.all_gather(x, "tower", axis=-1, tiled=True)
                        if kernel.ndim == 3:
                            x = jnp.concatenate(
                                [
                                    units.reshape(len(x), -1) @ own
                                    for units, own in zip(
                                        jnp.split(x, len(kernel), -1),
                                        kernel,
                                        strict=True,
                                    )
                                ],
                                axis=-1,
                            )
                        else:
                            x = x.reshape(len(x), -1) @ kernel
                        x = x + bias
                        split = True
                    case Classifier():
                        kernel, bias = self._weights_of(row, dtype)
                        # Each tower multiplies its half; the bias comes once.
                        x = x.reshape(len(x), -1) @ kernel
                        x = lax.psum(x.astype(jnp.float32), "tower")
                        x = x + bias.astype(jnp.float32)
                    case ResponseNorm():
                        x = response_norm(
                            x,
                            towers=local_towers,
                            size=row.size,
                            alpha=row.alpha,
                            beta=row.beta,
                            k=row.k,
                        )
                    case SpatialNorm():
                        x = spatial_norm(
                            x, size=row.size, alpha=row.alpha, beta=row.beta, k=row.k
                        )
                    case MaxPool():
                        x = max_pool(x, row.size, row.stride)
                    case AvgPool():
                        x = avg_pool(x, row.size, row.stride)
                    case Relu():
                        x = jnp.maximum(x, 0)
                    case Dropout():
                        mask = None if masks is None else masks[row.name]
                        x = x * row.keep if mask is None else jnp.where(mask, x, 0)
            if record is not None:
                record[row.name] = x
        return x

    def _weights_of(
        self, row: Conv | Dense | Classifier, dtype: DTypeLike
    ) -> tuple[Array, Array]:
        """Return a row's local kernel and bias; the kernel varies over 'data'."""
        weights = self.weights[row.name]
        kernel = lax.pcast(weights["kernel"][...].astype(dtype), "data", to="varying")
        return kernel, weights["bias"][...].astype(dtype)


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
