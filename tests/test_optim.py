"""The update rule against ten lines of NumPy; schedules against the lab notebook."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax import optim, recipes
from alexnet_jax.config import OptimizerConfig, PlateauSchedule, StepsSchedule
from alexnet_jax.optim import Plateau

TOTAL = 40


def config(**values):
    defaults = {
        "batch_size": 4,
        "learning_rate": 0.01,
        "bias_learning_rate": 0.02,
        "momentum": 0.9,
        "weight_decay": 0.0005,
    }
    return OptimizerConfig(**{**defaults, **values})


def steps(**values):
    return StepsSchedule(kind="steps", epochs=1, **values)


def plateau(**values):
    return PlateauSchedule(kind="plateau", epochs=9, **{"patience": 2, **values})


def traced_rates(
    schedule, step, drops=0, layers=("a", "b"), optimizer=None, total=TOTAL
):
    return optim.rates(
        optimizer or config(),
        schedule,
        layers,
        step=step,
        total_steps=total,
        drops=jnp.asarray(drops, jnp.int32),
    )


def rates(schedule, steps=(999,), drops=(0,), **options):
    """Return the rates of many steps, or of many counts of drops, at once."""

    @jax.jit
    def at(step, drops):
        return traced_rates(schedule, step, drops, **options)

    return jax.vmap(at)(*np.broadcast_arrays(np.array(steps), np.array(drops)))


def weight_rates(schedule, layer="a"):
    return rates(schedule, range(TOTAL)).weights[layer]


def problem(seed=0):
    rng = np.random.default_rng(seed)
    params = {
        layer: {
            "kernel": rng.normal(size=(3, 2)).astype("f4"),
            "bias": rng.normal(size=2).astype("f4"),
        }
        for layer in ("a", "b")
    }
    gradients = [
        {
            layer: {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
            for layer in params
        }
        for _ in range(TOTAL)
    ]
    return params, gradients


@pytest.mark.parametrize(
    ("kind", "factor", "words"),
    [
        ("none", 1, "0.01 (biases 0.02), chosen for batch 128, not scaled to 512"),
        ("linear", 4, "0.04 (biases 0.08), linear from batch 128 to 512"),
        ("sqrt", 2, "0.02 (biases 0.04), sqrt from batch 128 to 512"),
    ],
)
def test_rates_follow_the_batch_as_told(kind, factor, words):
    optimizer = config(batch_size=512, reference_batch=128, scale_rate=kind)
    found = rates(steps(drops=[0.5]), [0, TOTAL], optimizer=optimizer)
    np.testing.assert_allclose(found.weights["a"], factor * np.array([0.01, 0.001]))
    np.testing.assert_allclose(found.biases["a"], factor * np.array([0.02, 0.02]))
    assert optim.describe(optimizer) == words


def test_rates_rise_in_the_warm_up():
    # A quarter of the one epoch: ten of forty steps, the first at a tenth.
    optimizer = config(warmup_epochs=0.25)
    found = rates(steps(), range(12), optimizer=optimizer)
    wanted = np.minimum(np.arange(1, 13) / 10, 1)
    np.testing.assert_allclose(found.weights["a"], 0.01 * wanted, rtol=1e-6)
    np.testing.assert_allclose(found.biases["b"], 0.02 * wanted, rtol=1e-6)
    assert optim.describe(optimizer) == "0.01 (biases 0.02), risen to in 0.25 epochs"
    assert optim.describe(config()) == "0.01 (biases 0.02)"


def run(optimizer, schedule, params, gradients):
    """Follow our rule; return parameters and velocities after each step."""
    rule = optim.update_rule(optimizer)
    params = jax.tree.map(jnp.asarray, params)

    @jax.jit
    def update(gradient, state, params, step):
        now = traced_rates(schedule, step, optimizer=optimizer)
        updates, state = rule.update(gradient, state, params, rates=now)
        return updates, state, optax.apply_updates(params, updates)

    state, history = rule.init(params), []
    for step, gradient in enumerate(gradients):
        gradient = jax.tree.map(np.float32, gradient)
        updates, state, params = update(gradient, state, params, jnp.int32(step))
        history.append(jax.device_get((params, optim.velocity(state), updates)))
    return history


def loop(params, gradients, rate_of, decay=0.0005):
    """The rule of net 145's weights.cu, written out in NumPy."""
    params = {k: {n: x.astype("f8") for n, x in v.items()} for k, v in params.items()}
    speed = {k: {n: 0 * x for n, x in v.items()} for k, v in params.items()}
    for step, gradient in enumerate(gradients):
        for layer in params:
            for name, w in params[layer].items():
                rate = rate_of(layer, name, step)
                c = decay if name == "kernel" else 0
                v = 0.9 * speed[layer][name] - rate * (gradient[layer][name] + c * w)
                speed[layer][name], params[layer][name] = v, w + v
    return params


def close(found, wanted, **tolerance):
    for layer in wanted:
        for name in wanted[layer]:
            np.testing.assert_allclose(
                found[layer][name], wanted[layer][name], **tolerance
            )


# The rule.


def test_the_rule_is_ten_lines_of_numpy_over_a_drop():
    params, gradients = problem()
    found = run(config(), steps(drops=(0.5,)), params, gradients)[-1][0]

    def rate_of(layer, name, step):
        if name == "bias":
            return 0.02  # a rate of its own, which is not divided
        return 0.01 if step < 20 else 0.001

    close(found, loop(params, gradients, rate_of), rtol=1e-5, atol=1e-6)


def test_the_rate_is_inside_the_velocity_unlike_in_optax_sgd():
    params, gradients = problem()
    ours = run(config(weight_decay=0), steps(drops=(0.5,)), params, gradients)
    sgd = optax.sgd(optax.piecewise_constant_schedule(0.01, {20: 0.1}), momentum=0.9)
    weights = params["a"]["kernel"]
    state, theirs = sgd.init(weights), []
    update = jax.jit(sgd.update)
    for gradient in gradients:
        updates, state = update(gradient["a"]["kernel"].astype("f4"), state)
        weights = weights + updates
        theirs.append(weights)
    apart = [
        float(np.abs(mine[0]["a"]["kernel"] - other).max())
        for mine, other in zip(ours, theirs, strict=True)
    ]
    assert max(apart[:20]) < 1e-6  # the same until the drop
    assert apart[20] > 1e-3  # ours still carries the old velocity, at the old rate


def test_biases_have_no_decay_and_layers_may_have_their_own():
    params, gradients = problem()
    still = [jax.tree.map(np.zeros_like, gradients[0])]
    optimizer = config(weight_decay=0.5, layer_weight_decay={"b": 0.25})
    after = run(optimizer, steps(), params, still)[0][0]
    for layer, decay in (("a", 0.5), ("b", 0.25)):
        np.testing.assert_allclose(
            after[layer]["kernel"],
            params[layer]["kernel"] * np.float32(1 - 0.01 * decay),
            rtol=1e-6,
        )
        np.testing.assert_array_equal(after[layer]["bias"], params[layer]["bias"])


def test_a_frozen_layer_keeps_its_weights_and_its_velocity_bit_for_bit():
    params, gradients = problem()
    history = run(config(), steps(freeze={"a": 0.25}), params, gradients)
    free = run(config(), steps(), params, gradients)
    at_freeze = history[9]  # ten of forty steps were made
    for now, speed, update in history[10:]:
        for name in ("kernel", "bias"):
            assert not np.asarray(update["a"][name]).any()
            np.testing.assert_array_equal(now["a"][name], at_freeze[0]["a"][name])
            np.testing.assert_array_equal(speed["a"][name], at_freeze[1]["a"][name])
    assert np.asarray(at_freeze[1]["a"]["kernel"]).all()  # held, not cleared
    for name in ("kernel", "bias"):  # the other layer takes no notice
        np.testing.assert_array_equal(history[-1][0]["b"][name], free[-1][0]["b"][name])


# `steps`.


def test_drops_come_at_their_fraction_of_the_run():
    found = weight_rates(steps(drops=(0.25, 0.5, 0.9)))
    wanted = [1e-2] * 10 + [1e-3] * 10 + [1e-4] * 16 + [1e-5] * 4
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_layers_own_drops_replace_the_others():
    schedule = steps(drops=(0.5,), layer_drops={"b": (0.1, 0.2)})
    np.testing.assert_allclose(
        weight_rates(schedule), [1e-2] * 20 + [1e-3] * 20, rtol=1e-6
    )
    np.testing.assert_allclose(
        weight_rates(schedule, "b"), [1e-2] * 4 + [1e-3] * 4 + [1e-4] * 32, rtol=1e-6
    )


def test_biases_are_divided_only_on_request():
    for drop_biases, wanted in ((False, 0.02), (True, 0.0002)):
        now = rates(steps(drops=(0.1, 0.2), drop_biases=drop_biases), [30])
        assert now.biases["a"].tolist() == pytest.approx([wanted])


def test_freezing_and_colour_noise_change_at_their_step():
    schedule = steps(freeze={"b": 0.75}, colour_noise_off=0.5)
    found = rates(schedule, range(TOTAL))
    assert found.frozen["b"].tolist() == [False] * 30 + [True] * 10
    assert found.frozen["a"].tolist() == [False] * 40
    assert found.colour_noise.tolist() == [True] * 20 + [False] * 20


def test_the_imagenet_recipe_follows_the_notebook_of_net_145():
    def passes(*counts):  # as fractions written with four digits
        return pytest.approx([count / 91 for count in counts], abs=0.5e-4)

    schedule = recipes.load("imagenet").schedule
    assert isinstance(schedule, StepsSchedule)
    assert list(schedule.drops) == passes(25, 51, 79)
    assert list(schedule.layer_drops) == ["conv1"]
    assert list(schedule.layer_drops["conv1"]) == passes(25, 51, 67)
    assert list(schedule.freeze) == ["conv1"]
    assert [schedule.freeze["conv1"]] == passes(72)
    assert [schedule.colour_noise_off] == passes(67)


def test_the_rates_of_net_145_cycle_by_cycle():
    table = [  # cycle, conv1, others, noise, frozen
        (24, 1e-2, 1e-2, True, False),
        (26, 1e-3, 1e-3, True, False),
        (50, 1e-3, 1e-3, True, False),
        (52, 1e-4, 1e-4, True, False),
        (66, 1e-4, 1e-4, True, False),
        (68, 1e-5, 1e-4, False, False),
        (71, 1e-5, 1e-4, False, False),
        (73, 1e-5, 1e-4, False, True),
        (78, 1e-5, 1e-4, False, True),
        (80, 1e-5, 1e-5, False, True),
        (90, 1e-5, 1e-5, False, True),
    ]
    cycles, conv1, others, noise, frozen = (
        list(column) for column in zip(*table, strict=True)
    )
    recipe = recipes.load("imagenet")
    found = rates(
        recipe.schedule,
        [cycle * 1000 for cycle in cycles],
        optimizer=recipe.optimizer,
        layers=("conv1", "conv2", "fc8"),
        total=91 * 1000,
    )
    assert found.weights["conv1"].tolist() == pytest.approx(conv1)
    assert found.weights["conv2"].tolist() == pytest.approx(others)
    assert found.weights["fc8"].tolist() == pytest.approx(others)
    for biases in found.biases.values():  # "not divided with the weights"
        assert biases.tolist() == pytest.approx([0.02] * len(cycles))
    assert found.colour_noise.tolist() == noise
    assert found.frozen["conv1"].tolist() == frozen
    assert not found.frozen["conv2"].any()
    assert not found.frozen["fc8"].any()


# `plateau`.


def test_the_count_of_drops_decides_the_rates():
    schedule = plateau(freeze={"b": 2}, colour_noise_off=3, drop_biases=True)
    found = rates(schedule, drops=[0, 1, 2, 3])
    assert found.weights["a"].tolist() == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])
    assert found.biases["a"].tolist() == pytest.approx([2e-2, 2e-3, 2e-4, 2e-5])
    assert found.frozen["b"].tolist() == [False, False, True, True]
    assert found.colour_noise.tolist() == [True, True, True, False]
    assert rates(plateau(), drops=[0, 3]).colour_noise.all()


def follow(schedule, counts):
    memory, seen = Plateau(), []
    for count in counts:
        memory = memory.after(schedule, float(count))
        seen.append((memory.best, memory.waited, memory.drops, memory.ended))
    return seen


def test_improving_and_waiting():
    assert follow(plateau(patience=3), [90, 80, 85, 80, 79, 79]) == [
        (90, 0, 0, False),
        (80, 0, 0, False),
        (80, 1, 0, False),
        (80, 2, 0, False),  # as good is not better
        (79, 0, 0, False),  # just in time
        (79, 1, 0, False),
    ]


def test_a_drop_begins_a_new_wait_but_not_a_new_best():
    assert follow(plateau(patience=2), [50, 60, 60, 55, 49, 70, 70]) == [
        (50, 0, 0, False),
        (50, 1, 0, False),
        (50, 0, 1, False),
        (50, 1, 1, False),  # better than the last, not than the best
        (49, 0, 1, False),
        (49, 1, 1, False),
        (49, 0, 2, False),
    ]


def test_after_the_last_drop_another_patience_ends_the_run():
    seen = follow(plateau(patience=2), [10] * 9)
    assert [drops for _, _, drops, _ in seen] == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert [ended for *_, ended in seen] == [False] * 8 + [True]


def test_a_better_count_after_the_last_drop_goes_on():
    seen = follow(plateau(patience=1, max_drops=1), [10, 11, 9, 9])
    assert seen[1] == (10, 0, 1, False)
    assert seen[2] == (9, 0, 1, False)
    assert seen[3][3]  # patience 1: the next evaluation without a better count


def test_a_patience_of_one_drops_at_once():
    assert [drops for _, _, drops, _ in follow(plateau(patience=1), [5, 5, 5])] == [
        0,
        1,
        2,
    ]
