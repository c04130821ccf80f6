"""The classes of a recipe: frozen, strict, and no number that is none."""

import math

import pytest
from pydantic import ValidationError

from alexnet_jax.config import (
    EvalConfig,
    OptimizerConfig,
    PlateauSchedule,
    RunConfig,
    StepsSchedule,
)
from alexnet_jax.recipes import load


def refused(make, **values):
    with pytest.raises(ValidationError) as failure:
        make(**values)
    return sorted({error["loc"][0] for error in failure.value.errors()})


OPTIMIZER = {
    "batch_size": 8,
    "learning_rate": 0.1,
    "bias_learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0,
}


@pytest.mark.parametrize("section", ["data", "augment", "optimizer", "schedule", "run"])
def test_nothing_can_be_changed(section):
    recipe = load("digits")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(recipe, section, None)
    part = getattr(recipe, section)
    for field in type(part).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, field, getattr(part, field))


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("batch_size", 0),
        ("batch_size", 8.0),
        ("batch_size", "8"),
        ("batch_size", True),
        ("learning_rate", 0),
        ("learning_rate", -0.1),
        ("learning_rate", math.inf),
        ("bias_learning_rate", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("layer_weight_decay", {"conv1": -1.0}),
        ("reference_batch", 0),
        ("scale_rate", "cubic"),
        ("warmup_epochs", -1.0),
        ("momentun", 0.9),
    ],
)
def test_the_optimizer_refuses(field, bad):
    assert refused(OptimizerConfig, **{**OPTIMIZER, field: bad}) == [field]


def test_whole_numbers_are_numbers():
    assert OptimizerConfig(**{**OPTIMIZER, "learning_rate": 1}).learning_rate == 1


@pytest.mark.parametrize(
    ("make", "field", "bad"),
    [
        (RunConfig, "seed", -1),
        (RunConfig, "seed", 2**31),
        (RunConfig, "precision", "f16"),
        (RunConfig, "steps", 0),
        (RunConfig, "keep", 0),
        (RunConfig, "eval_every", 0.0),
        (EvalConfig, "views", (5,)),
        (EvalConfig, "views", ()),
        (EvalConfig, "batch_size", 0),
    ],
)
def test_a_run_and_its_tests_refuse(make, field, bad):
    assert refused(make, **{field: bad}) == [field]


def test_fractions_of_a_run_lie_in_it_and_rise():
    def steps(**values):
        return StepsSchedule(kind="steps", epochs=1, **values)

    assert steps(drops=(0.0, 0.5, 0.5, 1.0)).drops == (0.0, 0.5, 0.5, 1.0)
    assert refused(steps, drops=(1.5,)) == ["drops"]
    assert refused(steps, freeze={"conv1": -0.1}) == ["freeze"]
    for wrong in ({"drops": (0.5, 0.4)}, {"layer_drops": {"conv1": (0.5, 0.4)}}):
        with pytest.raises(ValidationError, match=r"drops \[0.5, 0.4\] must rise"):
            steps(**wrong)


def test_a_plateau_counts_whole_evaluations_and_drops():
    def plateau(**values):
        return PlateauSchedule(kind="plateau", epochs=1, **{"patience": 1, **values})

    assert plateau().max_drops == 3  # "reduced three times prior to termination"
    for field, bad in (("patience", 0), ("max_drops", 0), ("colour_noise_off", 0.5)):
        assert refused(plateau, **{field: bad}) == [field]
