"""What is compiled: the training step and the forward pass, over a mesh.

Each is a pure function under ``jax.jit``. The body runs inside ``jax.shard_map``;
random draws are made outside it, in global shapes, addressed by (seed, purpose,
step), so that one seed gives one run on any mesh and after any resume.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from alexnet_jax import augment, metrics, model, optim
from alexnet_jax.augment import Preprocess
from alexnet_jax.config import Recipe
from alexnet_jax.data.records import Batch
from alexnet_jax.mesh import BATCH, SHARED, compiler_options, shardings
from alexnet_jax.metrics import Scores
from alexnet_jax.table import Network, trace

DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}


class Purpose(IntEnum):
    """The second part of a draw's address."""

    INIT = 0
    AUGMENT = 1
    DROPOUT = 2


class TrainState(NamedTuple):
    """All that changes from step to step.

    Attributes:
        params: see ``model.Params``; float32.
        opt_state: of ``optim.update_rule``: the velocities.
        step: updates made so far, ``i32[]``.
        drops: of the ``plateau`` schedule, ``i32[]``; set by the host.
    """

    params: model.Params
    opt_state: optax.OptState
    step: Int[Array, ""]
    drops: Int[Array, ""]


def address(seed: int, purpose: Purpose, step: int | Int[Array, ""] = 0) -> Array:
    """Return the key of a draw."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), step)


def layer_names(network: Network) -> tuple[str, ...]:
    """Return the names of the rows that have weights."""
    return tuple(traced.row.name for traced in trace(network) if traced.weights)


def init_state(recipe: Recipe, network: Network, classes: int) -> TrainState:
    """Draw the initial state; may be traced."""
    params = model.init(network, classes, address(recipe.run.seed, Purpose.INIT))
    opt_state = optim.update_rule(recipe.optimizer).init(params)
    return TrainState(params, opt_state, jnp.int32(0), jnp.int32(0))


def abstract_state(
    recipe: Recipe, network: Network, classes: int, mesh: Mesh
) -> TrainState:
    """Return the state's shapes, dtypes and shardings on ``mesh``."""
    shapes = jax.eval_shape(lambda: init_state(recipe, network, classes))
    param_specs: Any = model.param_specs(network, classes)
    specs = TrainState(
        params=param_specs,
        opt_state=optax.tree.map_params(  # velocities lie where their weights do
            optim.update_rule(recipe.optimizer),
            lambda _, spec: spec,
            shapes.opt_state,
            param_specs,
            transform_non_params=lambda _: SHARED,
        ),
        step=SHARED,
        drops=SHARED,
    )
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(
            shape.shape, shape.dtype, sharding=sharding
        ),
        shapes,
        shardings(mesh, specs),
    )


def create_state(
    recipe: Recipe, network: Network, classes: int, mesh: Mesh
) -> TrainState:
    """Draw the initial state, each parameter made where it lies."""
    where = jax.tree.map(
        lambda leaf: leaf.sharding, abstract_state(recipe, network, classes, mesh)
    )
    make = jax.jit(lambda: init_state(recipe, network, classes), out_shardings=where)
    return make()


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Start moving a host batch to the devices of ``mesh``."""
    return Batch(*jax.device_put(tuple(batch), NamedSharding(mesh, BATCH)))


def train_step(
    recipe: Recipe,
    network: Network,
    classes: int,
    mesh: Mesh,
    total_steps: int,
) -> Callable[[TrainState, Batch, Preprocess], tuple[TrainState, Scores]]:
    """Compile one update.

    Args:
        recipe: the run.
        network: its table.
        classes: logits of the classifier.
        mesh: the devices.
        total_steps: of the whole schedule.

    Returns:
        A function of the state (donated), a batch on the devices and the
        preprocessing. It returns the next state and the batch's scores, both
        without waiting for the devices.
    """
    graphdef = model.graph(network, classes)
    rule = optim.update_rule(recipe.optimizer)
    dropouts = model.dropout_rows(network)
    dtype = DTYPES[recipe.run.precision]
    names = layer_names(network)
    batch_size, seed = recipe.optimizer.batch_size, recipe.run.seed
    border = recipe.data.image_size - network.input_size

    def body(params, batch, draws, masks, preprocess):
        x = augment.training_view(batch.images, draws, preprocess, network.input_size)
        logits = model.merge(graphdef, params)(x, masks, dtype=dtype)
        log_probs = jax.nn.log_softmax(logits)
        scores = metrics.score(log_probs, batch.labels, batch.mask)
        # Counts travel as float32 (exact up to 16 million) in the gradients' message.
        scores = jax.tree.map(
            lambda total: lax.psum(total.astype(jnp.float32), "data"), scores
        )
        return -scores.log_prob.total / batch_size, scores

    draws_spec = augment.Draws(corner=BATCH, flip=BATCH, noise=BATCH, scale=SHARED)
    masks_spec = {
        name: P("data", *(None,) * (len(shape) - 1), "tower")
        for name, (shape, _) in dropouts.items()
    }
    loss = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(
            model.param_specs(network, classes),
            Batch(BATCH, BATCH, BATCH),
            draws_spec,
            masks_spec,
            SHARED,
        ),
        out_specs=(SHARED, SHARED),
    )

    def step(
        state: TrainState, batch: Batch, preprocess: Preprocess
    ) -> tuple[TrainState, Scores]:
        now = optim.rates(
            recipe.optimizer,
            recipe.schedule,
            names,
            step=state.step,
            total_steps=total_steps,
            drops=state.drops,
        )
        draws = augment.draw(
            address(seed, Purpose.AUGMENT, state.step),
            recipe.augment,
            batch=batch_size,
            border=border,
            components=jnp.asarray(preprocess.components),
            noise_on=now.colour_noise,
        )
        masks = draw_masks(
            address(seed, Purpose.DROPOUT, state.step), dropouts, batch_size
        )
        draws = lax.with_sharding_constraint(draws, shardings(mesh, draws_spec))
        masks = lax.with_sharding_constraint(masks, shardings(mesh, masks_spec))
        gradients, scores = jax.grad(loss, has_aux=True)(
            state.params, batch, draws, masks, preprocess
        )
        updates, opt_state = rule.update(
            gradients, state.opt_state, state.params, rates=now
        )
        params = cast(model.Params, optax.apply_updates(state.params, updates))
        return TrainState(params, opt_state, state.step + 1, state.drops), scores

    where = jax.tree.map(
        lambda leaf: leaf.sharding, abstract_state(recipe, network, classes, mesh)
    )
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(where, NamedSharding(mesh, SHARED)),
        compiler_options=compiler_options(mesh),
    )


def draw_masks(
    key: Array, dropouts: dict[str, tuple[tuple[int, ...], float]], batch_size: int
) -> dict[str, Array]:
    """Draw every dropout row's mask, ``bool[B, *units of both towers]``."""
    return {
        name: jax.random.bernoulli(
            jax.random.fold_in(key, index), keep, (batch_size, *shape)
        )
        for index, (name, (shape, keep)) in enumerate(dropouts.items())
    }


def forward(
    network: Network, classes: int, mesh: Mesh, *, views: int, precision: str
) -> Callable[[model.Params, Preprocess, Array], Float[Array, "batch classes"]]:
    """Compile the prediction of a batch: the logarithm of the views' mean softmax.

    Args:
        network: the table.
        classes: logits of the classifier.
        mesh: the devices.
        views: 1 (centre) or 10 (section 4.1).
        precision: ``f32`` or ``bf16``.

    Returns:
        A function of parameters, preprocessing and ``u8[B, S, S, C]`` that gives
        ``f32[B, classes]``, divided over 'data' like the images.
    """
    run = _prediction(network, classes, mesh, views, precision)
    return jax.jit(run, compiler_options=compiler_options(mesh))


def _prediction(
    network: Network, classes: int, mesh: Mesh, views: int, precision: str
) -> Callable[[model.Params, Preprocess, Array], Float[Array, "batch classes"]]:
    graphdef = model.graph(network, classes)
    dtype = DTYPES[precision]

    def body(params, preprocess, images):
        module = model.merge(graphdef, params)
        seen = augment.evaluation_views(images, preprocess, network.input_size, views)
        flat = seen.reshape(-1, *seen.shape[2:])
        log_probs = jax.nn.log_softmax(module(flat, None, dtype=dtype))
        log_probs = log_probs.reshape(views, len(images), classes)
        if views == 1:
            return log_probs[0]
        return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(jnp.float32(views))

    return jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(model.param_specs(network, classes), SHARED, BATCH),
        out_specs=BATCH,
    )


def eval_step(
    network: Network, classes: int, mesh: Mesh, *, views: int, precision: str
) -> Callable[[model.Params, Preprocess, Batch], Scores]:
    """Compile the scoring of a batch; see ``forward`` for the arguments."""
    predict = _prediction(network, classes, mesh, views, precision)

    def step(params: model.Params, preprocess: Preprocess, batch: Batch) -> Scores:
        images, labels, mask = map(jnp.asarray, batch)
        return metrics.score(predict(params, preprocess, images), labels, mask)

    return jax.jit(
        step,
        out_shardings=NamedSharding(mesh, SHARED),
        compiler_options=compiler_options(mesh),
    )
