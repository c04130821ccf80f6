"""What is compiled: the training step and the forward pass, over a mesh.

Each is a pure function under ``jax.jit``. The body runs inside ``jax.shard_map``;
random draws are made outside it, in global shapes, addressed by (seed, purpose,
step), so that one seed gives one run on any mesh and after any resume.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
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
from alexnet_jax.table import Classifier, Network, trace

DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}

# Who predicts twice with one network, from Python, compiles once.
_compiled_once = lru_cache(maxsize=32)

INPUT, LOGITS = "input", "logits"
"""What the network sees and what it says, among the names of its rows."""


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
    """Draw the initial state, each parameter made where it lies; does not wait."""
    where = jax.tree.map(
        lambda leaf: leaf.sharding, abstract_state(recipe, network, classes, mesh)
    )
    make = jax.jit(
        lambda: init_state(recipe, network, classes),
        out_shardings=where,
        compiler_options=compiler_options(mesh, runs_once=True),
    )
    return make()


def own_rows(mesh: Mesh, batch_size: int) -> range:
    """Return the rows of a global batch that this process's devices hold."""
    where = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,))
    rows = {rows.indices(batch_size)[:2] for (rows,) in where.values()}  # type: ignore[union-attr, misc]
    return range(min(start for start, _ in rows), max(stop for _, stop in rows))


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Start moving a host batch, this process's rows of it, to the devices."""
    where = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return Batch(*jax.device_put(tuple(batch), where))
    return Batch(*(jax.make_array_from_process_local_data(where, x) for x in batch))


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

    def loss(params, batch, draws, masks, preprocess):
        """Return some images' share of the batch's mean loss, and their scores."""
        x = augment.training_view(batch.images, draws, preprocess, network.input_size)
        logits = model.merge(graphdef, params)(x, masks, dtype=dtype)
        log_probs = jax.nn.log_softmax(logits)
        scores = metrics.score(log_probs, batch.labels, batch.mask)
        # Counts travel as float32 (exact up to 16 million) in the gradients' message.
        scores = jax.tree.map(lambda total: total.astype(logits.dtype), scores)
        return -scores.log_prob.total / batch_size, scores

    def body(params, batch, draws, masks, preprocess):
        """Return the gradients of the whole batch's loss, and its scores."""
        own = jax.tree.map(model.vary, params)

        def differentiate(batch, draws, masks):
            return jax.grad(loss, has_aux=True)(own, batch, draws, masks, preprocess)

        parts = recipe.run.accumulate
        if parts == 1:
            gradients, scores = differentiate(batch, draws, masks)
        else:
            wide = jnp.promote_types(dtype, jnp.float32)
            zero = jnp.zeros_like(batch.labels[0], wide)
            nothing = (
                jax.tree.map(jnp.zeros_like, own),
                jax.tree.map(lambda _: zero, Scores.empty()),
            )
            gradients, scores = _in_parts(
                differentiate, parts, nothing, batch, draws, masks
            )
        return _add_up(gradients, scores, specs)

    draws_spec = augment.Draws(corner=BATCH, flip=BATCH, noise=BATCH, scale=SHARED)
    masks_spec = model.mask_specs(network)
    specs = model.param_specs(network, classes)
    differentiate_all = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(
            specs,
            Batch(BATCH, BATCH, BATCH),
            draws_spec,
            masks_spec,
            SHARED,
        ),
        out_specs=(specs, SHARED),
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
        gradients, scores = differentiate_all(
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


def _in_parts(
    work: Callable[[Batch, augment.Draws, dict[str, Array]], Any],
    parts: int,
    nothing: Any,
    batch: Batch,
    draws: augment.Draws,
    masks: dict[str, Array],
) -> Any:
    """Sum ``work`` over parts of a device's images, one after the other."""
    own = len(batch.labels)

    def divide(x: Array) -> Array:
        # A hybrid's masks have the rows of all devices: of each the same part.
        devices, rest = len(x) // own, x.shape[1:]
        x = x.reshape(devices, parts, own // parts, *rest)
        return jnp.moveaxis(x, 1, 0).reshape(parts, devices * own // parts, *rest)

    def of_part(part: Any) -> Any:
        batch, (corner, flip, noise), masks = part
        return work(batch, augment.Draws(corner, flip, noise, draws.scale), masks)

    def add(sums: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, of_part(part)), None

    return lax.scan(add, nothing, jax.tree.map(divide, (batch, draws[:-1], masks)))[0]


def _add_up(
    gradients: model.Params, scores: Scores, specs: dict[str, dict[str, P]]
) -> tuple[model.Params, Scores]:
    """Sum over 'data', in one message, all but what is a device's own."""
    leaves, tree = jax.tree.flatten(gradients)
    own = ["data" in spec for spec in tree.flatten_up_to(specs)]
    shared = [leaf for leaf, kept in zip(leaves, own, strict=True) if not kept]
    shared, scores = lax.psum((shared, scores), "data")
    rest = iter(shared)
    added = [
        leaf if kept else next(rest) for leaf, kept in zip(leaves, own, strict=True)
    ]
    return jax.tree.unflatten(tree, added), scores


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


@_compiled_once
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


@_compiled_once
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


@_compiled_once
def layers(
    network: Network,
    classes: int,
    mesh: Mesh,
    *,
    names: tuple[str, ...],
    precision: str,
) -> Callable[[model.Params, Preprocess, Array], dict[str, Float[Array, "batch ..."]]]:
    """Compile the outputs of some rows for the centre view.

    Args:
        network: the table.
        classes: logits of the classifier.
        mesh: the devices.
        names: of the rows; ``INPUT`` for what the first one sees, ``LOGITS`` for the
            classifier's.
        precision: ``f32`` or ``bf16``.

    Returns:
        A function of parameters, preprocessing and ``u8[B, S, S, C]`` that gives
        ``f32[B, H, W, C]`` or ``f32[B, units]`` of each, both towers in tower order.
    """
    graphdef = model.graph(network, classes)
    dtype = DTYPES[precision]
    specs = {INPUT: BATCH}
    for traced in trace(network, classes):
        if isinstance(traced.row, Classifier):
            specs[LOGITS] = BATCH  # the same on both towers
        else:
            inner = (None,) * (len(traced.outputs) - 1)
            specs[traced.row.name] = P("data", *inner, "tower")

    def body(params, preprocess, images):
        module = model.merge(graphdef, params)
        (seen,) = augment.evaluation_views(images, preprocess, network.input_size, 1)
        found: dict[str, Array] = {INPUT: seen}
        logits = module(seen, None, dtype=dtype, record=found)
        found[LOGITS] = logits
        return {name: found[name].astype(jnp.float32) for name in names}

    run = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(model.param_specs(network, classes), SHARED, BATCH),
        out_specs={name: specs[name] for name in names},
    )
    return jax.jit(run, compiler_options=compiler_options(mesh))


def row_names(network: Network) -> tuple[str, ...]:
    """Return what ``layers`` has names for, in the order of the rows."""
    rows = (LOGITS if isinstance(row, Classifier) else row.name for row in network.rows)
    return (INPUT, *rows)
