"""What is told of the steps: sums that span a stop, advice, and when it is over."""

import dataclasses
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import data, networks, recipes
from alexnet_jax.errors import TrainingError
from alexnet_jax.job import Job
from alexnet_jax.mesh import make_mesh
from alexnet_jax.meter import Meter
from alexnet_jax.metrics import Scores

TOTAL = 90


@pytest.fixture(scope="module")
def job():
    """45 steps an epoch would be the digits; the meter needs only the numbers."""
    recipe = recipes.load("digits", {"schedule.drops": [0.5]})
    table = networks.network("digits")
    dataset = data.open_dataset(recipe.data)
    return Job(recipe, table, make_mesh(table, devices=1), dataset, TOTAL)


def scores(loss=1.0, top1=0.5, top5=0.25, count=32):
    def mean(metric, value):
        return dataclasses.replace(
            metric, total=np.float32(value * count), count=np.float32(count)
        )

    empty = Scores.empty()
    return dataclasses.replace(
        empty,
        top1_error=mean(empty.top1_error, top1),
        top5_error=mean(empty.top5_error, top5),
        log_prob=mean(empty.log_prob, -loss),
    )


def feed(meter, first, losses):
    """Report steps from ``first`` on; return what was told, without waiting."""
    told = []
    for step, loss in enumerate(losses, first):
        told += meter.started(step, scores(loss))
    return [*told, *meter.drain()]


def rows(told):
    return [(done.step, pytest.approx(done.loss)) for done in told if done.row]


def test_a_row_is_the_mean_over_its_steps(job):
    told = feed(Meter(job, 0), 1, range(1, TOTAL + 1))
    mean = {20: 10.5, 40: 30.5, 60: 50.5, 80: 70.5, 90: 85.5}
    assert [(done.step, done.loss) for done in told if done.row] == [
        (step, pytest.approx(loss)) for step, loss in mean.items()
    ]
    row = next(done for done in told if done.row)
    assert (row.top1_error, row.top5_error) == (0.5, 0.25)
    assert row.epoch == pytest.approx(20 * 32 / 1437)


def test_a_rate_is_that_of_the_update_that_was_made(job):
    told = feed(Meter(job, 39), 40, [1.0] * 51)  # the 46th update is the first lower
    rates = {done.step: done.learning_rate for done in told if done.row}
    assert rates == {
        40: pytest.approx(0.01),
        60: pytest.approx(0.001),
        80: pytest.approx(0.001),
        90: pytest.approx(0.001),
    }
    at_the_drop = Meter(dataclasses.replace(job, total_steps=80), 20)
    told = feed(at_the_drop, 21, [1.0] * 40)
    rates = {done.step: done.learning_rate for done in told if done.row}
    assert rates == {40: pytest.approx(0.01), 60: pytest.approx(0.001)}


@pytest.mark.parametrize("stop", [1, 19, 20, 21, 33])
def test_rows_are_the_same_after_a_stop(job, stop):
    losses = np.random.default_rng(0).uniform(1, 3, TOTAL).tolist()
    whole = feed(Meter(job, 0), 1, losses)
    first = Meter(job, 0)
    told = feed(first, 1, losses[:stop])
    told += feed(Meter(job, stop, first.since_row()), stop + 1, losses[stop:])
    found, wanted = (
        [(d.step, d.loss, d.top1_error, d.top5_error) for d in events if d.row]
        for events in (told, whole)
    )
    assert found == wanted  # to the last bit


def test_an_early_ends_row_is_one_more(job):
    recipe = job.recipe.model_copy(
        update={"run": job.recipe.run.model_copy(update={"steps": 25})}
    )
    meter = Meter(dataclasses.replace(job, recipe=recipe), 0)
    told = feed(meter, 1, range(1, 26))
    assert rows(told) == [(20, 10.5), (25, 23.0)]
    told = feed(Meter(job, 25, meter.since_row()), 26, range(26, 41))
    assert rows(told) == [(40, 30.5)]  # the mean of 21 to 40, as without the end


def test_numbers_come_a_little_behind_the_devices(job):
    """The loop must not wait for the step that it has just started."""
    meter = Meter(job, 0)
    assert list(meter.started(1, scores())) == []
    assert list(meter.started(2, scores())) == []
    (first,) = meter.started(3, scores())
    assert first.step == 1


def test_the_share_of_waiting_and_the_time_left(job):
    """With a clock of its own, which ticks a second a look."""
    ticks = iter(range(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alexnet_jax.meter.time.monotonic", lambda: float(next(ticks)))
        meter = Meter(job, 0)
        told = []
        for step in range(1, 21):
            meter.waited(0.5)
            told += meter.started(step, scores())
        told += meter.drain()
    *_, row = told
    assert row.row
    assert 0 < row.input_stall <= 1
    # Whatever a second is here: speed, time and what is left agree with each other.
    seconds = 20 * 32 / row.images_per_second
    assert row.seconds_left == pytest.approx(seconds / 20 * (TOTAL - 20))
    assert row.input_stall == pytest.approx(20 * 0.5 / seconds)


def test_a_pause_is_not_counted(job):
    now = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alexnet_jax.meter.time.monotonic", lambda: now[0])
        meter = Meter(job, 0)
        told = []
        for step in range(1, 21):
            told += meter.started(step, scores())
            now[0] += 1
            if step == 10:
                told += meter.drain()
                meter.pause()
                now[0] += 1000  # a test, a save
        told += meter.drain()
    (row,) = (done for done in told if done.row)
    assert row.images_per_second == pytest.approx(20 * 32 / 19, rel=0.06)


# Advice and the end.

FLAT = math.log(10)


def advice(job, losses):
    meter, found = Meter(job, 0), []
    for step, loss in enumerate(losses, 1):
        list(meter.started(step, scores(loss)))
        found.append(meter.flat())
    return [text for text in found if text]


def test_a_loss_that_stays_flat_is_told_once(job):
    (text,) = advice(job, [FLAT + 0.005] * TOTAL)
    assert text == (
        "the loss has stayed at ln(10) = 2.303 for 45 steps: the network has not begun "
        "to learn; early in a long run that can pass, else try another seed, a higher "
        "optimizer.learning_rate, or look whether the labels are right"
    )


def test_a_loss_that_leaves_the_level_begins_anew(job):
    assert advice(job, [FLAT - 0.02] * TOTAL) == []
    assert advice(job, ([FLAT] * 40 + [2.0]) * 2) == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("saved", [None, Path("runs/a/checkpoints/7")])
def test_a_loss_that_is_not_finite(job, loss, saved):
    meter = Meter(job, 7)
    meter.saved = saved
    with pytest.raises(TrainingError) as raised:
        feed(meter, 8, [2.0, loss, 2.0])
    last = (
        "no checkpoint was saved"
        if saved is None
        else "the last checkpoint, runs/a/checkpoints/7, is finite"
    )
    assert str(raised.value) == (
        f"the loss is {loss} at step 9; {last}; start a new run with a lower "
        "optimizer.learning_rate"
    )


def test_weights_that_are_not_finite_though_every_loss_was(job):
    run = job.recipe.run.model_copy(update={"precision": "bf16"})
    recipe = job.recipe.model_copy(update={"run": run})
    meter = Meter(dataclasses.replace(job, recipe=recipe), 0)
    feed(meter, 1, [2.0, 2.0])
    good = {"conv1": {"kernel": jnp.ones(3), "bias": jnp.zeros(3)}}
    meter.check_finite(good)
    for bad in (math.nan, math.inf, -math.inf):
        spoilt = {"conv1": {**good["conv1"], "bias": jnp.array([0, bad, 0])}}
        with pytest.raises(TrainingError) as raised:
            meter.check_finite(spoilt)
        assert str(raised.value) == (
            "a weight is not finite after step 2; no checkpoint was saved; start a new "
            "run with a lower optimizer.learning_rate or --precision f32"
        )
