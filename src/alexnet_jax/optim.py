"""The 2012 update rule and its schedules (paper section 5; net 145's weights.cu).

Decay, then the learning rate, then the momentum buffer: the rate is inside the
velocity. Biases have a rate of their own and no decay. A frozen layer is skipped: no
update, no decay, and its velocity is held (a rate of zero would let it coast).
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from alexnet_jax.config import (
    OptimizerConfig,
    PlateauSchedule,
    StepsSchedule,
)

Schedule = StepsSchedule | PlateauSchedule

Layers = dict[str, dict[str, Array]]
"""Weights, gradients or velocities: ``{layer: {"kernel", "bias"}}``."""


class Rates(NamedTuple):
    """What the schedule says of one step.

    Attributes:
        weights: learning rate of each layer's weights, by name.
        biases: learning rate of each layer's bias, by name.
        frozen: whether a layer is skipped, by name.
        colour_noise: whether colour noise is on.
    """

    weights: dict[str, Float[Array, ""]]
    biases: dict[str, Float[Array, ""]]
    frozen: dict[str, Bool[Array, ""]]
    colour_noise: Bool[Array, ""]


def describe(config: OptimizerConfig) -> str:
    """Say in one line what the learning rates are, and what the batch size did."""
    factor = config.rate_factor
    text = (
        f"{config.learning_rate * factor:g} (biases "
        f"{config.bias_learning_rate * factor:g})"
    )
    batch, reference = config.batch_size, config.reference_batch
    if reference not in (None, batch):
        if config.scale_rate == "none":
            text += f", chosen for batch {reference}, not scaled to {batch}"
        else:
            text += f", {config.scale_rate} from batch {reference} to {batch}"
    if config.warmup_epochs:
        text += f", risen to in {config.warmup_epochs:g} epochs"
    return text


def step_of(fraction: float, total_steps: int) -> int:
    """Return the step at which a fraction of the run has passed."""
    return round(fraction * total_steps)


def _dropped(rate: float, drops: Int[Array, ""], most: int) -> Float[Array, ""]:
    """Return ``rate`` divided by ten ``drops`` times; exact for each count."""
    return jnp.asarray([rate / 10**n for n in range(most + 1)], jnp.float32)[drops]


def rates(
    optimizer: OptimizerConfig,
    schedule: Schedule,
    layers: tuple[str, ...],
    *,
    step: Int[Array, ""],
    total_steps: int,
    drops: Int[Array, ""],
) -> Rates:
    """Evaluate the schedule; may be traced.

    Args:
        optimizer: the rates before any drop, and the batch that they are scaled to.
        schedule: when they drop.
        layers: names of the layers that have weights.
        step: updates made so far.
        total_steps: of the whole schedule.
        drops: drops so far; only ``plateau`` reads it.
    """

    def passed(fraction: float) -> Bool[Array, ""]:
        return step >= step_of(fraction, total_steps)

    def count(fractions: tuple[float, ...]) -> Int[Array, ""]:
        return sum((passed(f).astype(jnp.int32) for f in fractions), jnp.int32(0))

    factor = jnp.float32(optimizer.rate_factor)
    warm = step_of(optimizer.warmup_epochs / schedule.epochs, total_steps)
    if warm:
        factor = factor * jnp.minimum((step + 1) / warm, 1.0)
    weights, biases, frozen = {}, {}, {}
    for layer in layers:
        if isinstance(schedule, StepsSchedule):
            fractions = schedule.layer_drops.get(layer, schedule.drops)
            n, most = count(fractions), len(fractions)
            off = passed(schedule.freeze[layer]) if layer in schedule.freeze else False
        else:
            n, most = drops, schedule.max_drops
            off = drops >= schedule.freeze[layer] if layer in schedule.freeze else False
        weights[layer] = factor * _dropped(optimizer.learning_rate, n, most)
        biases[layer] = factor * (
            _dropped(optimizer.bias_learning_rate, n, most)
            if schedule.drop_biases
            else jnp.float32(optimizer.bias_learning_rate)
        )
        frozen[layer] = jnp.asarray(off)
    if isinstance(schedule, StepsSchedule):
        noise = ~passed(schedule.colour_noise_off)
    elif schedule.colour_noise_off is None:
        noise = jnp.asarray(True)
    else:
        noise = drops < schedule.colour_noise_off
    return Rates(weights, biases, frozen, jnp.asarray(noise))


def _scale_by_rates() -> optax.GradientTransformationExtraArgs:
    """Multiply each descent direction by its layer's learning rate."""

    def init(params: optax.Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(updates, state, params=None, **extra: Any):
        del params
        rates: Rates = extra["rates"]
        scaled = {
            layer: {
                "kernel": -rates.weights[layer] * leaves["kernel"],
                "bias": -rates.biases[layer] * leaves["bias"],
            }
            for layer, leaves in updates.items()
        }
        return scaled, state

    return optax.GradientTransformationExtraArgs(init, update)


def _skip_frozen(
    inner: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Give frozen layers a zero update and leave their velocity as it was."""

    def update(updates, state, params=None, **extra: Any):
        rates: Rates = extra["rates"]
        new_updates, new_state = inner.update(updates, state, params, **extra)
        new_updates = cast(Layers, new_updates)

        def hold(new: Layers, old: Layers) -> Layers:
            return {
                layer: jax.tree.map(
                    lambda n, o, off=rates.frozen[layer]: jnp.where(off, o, n),
                    new[layer],
                    old[layer],
                )
                for layer in new
            }

        new_updates = hold(new_updates, jax.tree.map(jnp.zeros_like, new_updates))
        *rest, last = cast(tuple[Any, ...], new_state)
        held = last._replace(trace=hold(velocity(new_state), velocity(state)))
        return new_updates, (*rest, held)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def update_rule(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Build the rule; its ``update`` takes the keyword ``rates``.

    Parameters are ``{layer: {"kernel", "bias"}}``. As in 2012::

        velocity = momentum * velocity - rate * (gradient + decay * weight)
        weight = weight + velocity
    """

    def decay_of(layer: str) -> float:
        return config.layer_weight_decay.get(layer, config.weight_decay)

    def add_decay(updates: Any, params: Any) -> Layers:
        return {
            layer: {
                "kernel": leaves["kernel"] + decay_of(layer) * params[layer]["kernel"],
                "bias": leaves["bias"],
            }
            for layer, leaves in updates.items()
        }

    return _skip_frozen(
        optax.chain(
            optax.stateless(add_decay),
            _scale_by_rates(),
            optax.trace(config.momentum),
        )
    )


def velocity(opt_state: optax.OptState) -> Layers:
    """Return the velocities in the state of ``update_rule``."""
    return cast(tuple[Any, ...], opt_state)[-1].trace


class Plateau(NamedTuple):
    """The host's memory of the ``plateau`` schedule.

    Attributes:
        best: lowest count of validation errors so far; None before the first.
        waited: evaluations since then (or since the last drop).
        drops: times the rates were divided by ten.
        ended: the run is over.
    """

    best: float | None = None
    waited: int = 0
    drops: int = 0
    ended: bool = False

    def after(self, schedule: PlateauSchedule, errors: float) -> "Plateau":
        """Return the memory after an evaluation, centre view, with ``errors`` wrong."""
        if self.best is None or errors < self.best:
            return self._replace(best=errors, waited=0)
        if self.waited + 1 < schedule.patience:
            return self._replace(waited=self.waited + 1)
        if self.drops == schedule.max_drops:
            return self._replace(waited=self.waited + 1, ended=True)
        return self._replace(waited=0, drops=self.drops + 1)
