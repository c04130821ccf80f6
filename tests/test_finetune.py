"""A run from another's weights: what is taken over, what is drawn, what is refused."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import checkpoint, finetune, recipes, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.errors import ConfigError
from alexnet_jax.job import count, measure, plan_job
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import DIGITS
from alexnet_jax.train import fit

LAYERS = ("conv1", "conv2", "conv3", "fc4", "fc5")


def recipe(run, **overrides):
    return recipes.load("digits", {"run.init_from": str(run), **overrides})


def planned(run):
    job = plan_job(recipe(run), 1, None)
    state = steps.create_state(job.recipe, job.network, job.classes, job.mesh)
    return job, state


def loaded(run):
    return checkpoint.load(run, make_mesh(DIGITS, devices=1))


def same(one, other):
    one, other = jax.device_get((one, other))
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


SOME = Preprocess(
    np.zeros((32, 32, 1), "f4"), np.array([[3.0]], "f4"), np.array([9.0], "f4")
)


def test_of_the_same_classes_everything_is_taken_over(digits_run):
    job, drawn = planned(digits_run)
    state, preprocess, what = finetune.start(job, drawn, SOME)
    weights = loaded(digits_run)
    assert not same(drawn.params["fc5"], weights.params["fc5"])
    assert same(state.params, weights.params)
    assert same(state.opt_state, drawn.opt_state)  # at rest
    assert int(state.step) == 0
    # Pictures are prepared as the weights are used to; noise is the new data's.
    assert same(preprocess.mean, weights.preprocess.mean)
    assert same(preprocess.scale, weights.preprocess.scale)
    assert same(preprocess.components, SOME.components)
    last = digits_run / "checkpoints" / "60"
    assert what == f"weights from {last} (digits, step 60)"


def test_of_other_classes_the_classifier_is_drawn_anew(digits_run):
    job, drawn = planned(digits_run)
    train: Any = job.dataset.train
    renamed = dataclasses.replace(train, classes=[f"letter {n}" for n in range(10)])
    dataset = dataclasses.replace(job.dataset, train=renamed)
    job = dataclasses.replace(job, dataset=dataset)
    state, _, what = finetune.start(job, drawn, SOME)
    weights = loaded(digits_run)
    for layer in LAYERS[:-1]:
        assert same(state.params[layer], weights.params[layer])
    assert same(state.params["fc5"], drawn.params["fc5"])
    assert what.endswith("; fc5 is drawn anew: 10 classes there, 10 or others here")


@pytest.mark.slow
def test_frozen_layers_stay_and_the_others_learn(digits_run, tmp_path):
    frozen = {f"schedule.freeze.{layer}": 0 for layer in LAYERS[:-1]}
    run = tmp_path / "run"
    events = list(fit(recipe(digits_run, **frozen, **{"run.steps": 2}), run, devices=1))
    assert any("weights from" in getattr(event, "what", "") for event in events)
    before, after = loaded(digits_run), loaded(run)
    for layer in LAYERS[:-1]:
        assert same(after.params[layer], before.params[layer])
    for key in ("kernel", "bias"):
        assert not same(after.params["fc5"][key], before.params["fc5"][key])
    assert same(after.preprocess.mean, before.preprocess.mean)


def test_the_first_scores_are_those_of_the_weights(digits_run):
    # At rate 1e-30 nothing moves in float32: what is tested is what was loaded.
    job, drawn = planned(digits_run)
    state, preprocess, _ = finetune.start(job, drawn, measure(job, count(job)))
    weights = loaded(digits_run)
    predict = steps.forward(DIGITS, 10, job.mesh, views=1, precision="f32")
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.integers(0, 256, (4, 32, 32, 1), np.uint8))
    ours = predict(state.params, jax.device_put(preprocess), images)
    theirs = predict(weights.params, weights.preprocess, images)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("key", "value", "theirs"),
    [("network", "cifar-80sec", "digits"), ("data.image_size", 40, 32)],
)
def test_weights_of_another_shape_are_refused(digits_run, key, value, theirs):
    other = recipe(digits_run, **{key: value, "data.spec": "tfds:cifar10"})
    message = (
        f"--init-from {digits_run}: its {key} is {theirs}, the recipe's {value}; "
        f"use --set {key}={theirs}, or leave RECIPE out"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        finetune.check(other)


def test_nothing_is_made_where_the_weights_do_not_fit(digits_run, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="image_size"):
        next(fit(recipe(digits_run, **{"data.image_size": 40}), run, devices=1))
    assert not run.exists()


def test_weights_ask_for_their_network_and_their_pictures(digits_run):
    assert finetune.asked_for(digits_run) == {
        "network": "digits",
        "data.image_size": 32,
        "data.resize": "crop",
        "eval.views": [1],
    }


def test_a_run_in_which_nothing_learns_is_refused():
    frozen = {f"schedule.freeze.{layer}": 0 for layer in LAYERS}
    message = "schedule.freeze: every layer is frozen from the start"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        recipes.load("digits", frozen)
