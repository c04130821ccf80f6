"""A StableHLO program of the forward pass, weights and preprocessing inside.

``jax.export.deserialize(FILE).call(images)`` runs it on one device, without this
project: ``f32[N, S, S, C]``, RGB, 0 to 255, the network's own side, to
``f32[N, classes]`` logits.
"""

import jax
import jax.numpy as jnp
from jax import export
from jax.sharding import Mesh
from jaxtyping import Array, Float

from alexnet_jax import augment, model
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.mesh import BATCH
from alexnet_jax.networks import network as find_network
from alexnet_jax.steps import DTYPES

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def serialize(loaded: Loaded, mesh: Mesh) -> bytes:
    """Return the program, for any batch size and any of ``PLATFORMS``.

    Args:
        loaded: a checkpoint.
        mesh: that it lies on, of one device.
    """
    meta, table = loaded.meta, find_network(loaded.meta.network)
    graphdef = model.graph(table, len(meta.classes))
    prepare = loaded.preprocess

    def body(
        images: Float[Array, "batch side side colours"], params: model.Params
    ) -> Float[Array, "batch classes"]:
        mean = augment.centre(jnp.asarray(prepare.mean), table.input_size)
        x = (images - mean) * prepare.scale
        return model.merge(graphdef, params)(x, None, dtype=DTYPES[meta.precision])

    specs = (BATCH, model.param_specs(table, len(meta.classes)))
    run = jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=BATCH)
    side = table.input_size
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, side, side, table.channels), jnp.float32)
    program = jax.jit(lambda images: run(images, loaded.params))
    return bytes(export.export(program, platforms=PLATFORMS)(images).serialize())
