"""Runs: they learn, go on exactly where they stopped, and say why when they cannot.

The runs are real, of a network small enough to compile in a second: two towers, a
norm, dropout, so that every draw and every layout of a large one is in it.
"""

import itertools
import math
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import pytest

from alexnet_jax import (
    checkpoint,
    data,
    figures,
    job,
    networks,
    recipes,
    rundir,
    steps,
)
from alexnet_jax import evaluate as evaluation
from alexnet_jax.checkpoint import Checkpoints
from alexnet_jax.errors import CheckpointError, ConfigError, TrainingError
from alexnet_jax.events import (
    Advice,
    Dropped,
    Evaluated,
    Finished,
    Preparing,
    Saved,
    Started,
    StepDone,
)
from alexnet_jax.mesh import make_mesh
from alexnet_jax.table import (
    Classifier,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
)
from alexnet_jax.train import fit

E = TypeVar("E")

TINY = Network(
    name="tiny",
    source="these tests",
    towers=2,
    input_size=28,
    channels=1,
    classes=10,
    rows=(
        Conv("conv1", 8, kernel=5, stride=4, reads="both", sigma=0.002),
        ResponseNorm("norm1"),
        MaxPool("pool1"),
        Relu("relu1"),
        Dense("fc2", 24, reads="both", sigma=0.1, bias=0.1),
        Relu("relu2"),
        Dropout("drop2", keep=0.75),
        Classifier("fc3", sigma=0.05),
    ),
)

# 8 steps an epoch, 48 in all. Tests after 10, 20, 30, 40, 48; saves after 24, 48; rows
# after 20, 40, 48.
BASE = {
    "network": "tiny",
    "data.train_split": "train[:128]",
    "data.eval_split": "test[:96]",
    "optimizer.batch_size": 16,
    "optimizer.learning_rate": 0.003,
    "optimizer.bias_learning_rate": 0.006,
    "schedule.epochs": 6,
    "run.eval_every": 1.25,
    "run.save_every": 3,
    "eval.batch_size": 64,
}
STEPS = {**BASE, "schedule.drops": [0.4, 0.7], "schedule.freeze.conv1": 0.5}
PLATEAU = {
    **BASE,
    "data.eval_split": "train[128:224]",  # a validation split: the best is kept too
    "schedule": {
        "kind": "plateau",
        "epochs": 6,
        "patience": 1,
        "max_drops": 1,
        "freeze": {"conv1": 1},
    },
    # Wild enough that some tests are worse than the one before.
    "optimizer.learning_rate": 0.005,
    "optimizer.bias_learning_rate": 0.01,
}


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "tiny", TINY)
        yield


@pytest.fixture(scope="module", autouse=True)
def quick(compile_once):
    """Make figures only in the one test that looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "learning_curves", lambda *_, **__: None)
        patch.setattr(figures, "filters", lambda *_, **__: None)
        yield


def recipe(overrides=STEPS, **more):
    values = {key.replace("__", "."): value for key, value in more.items()}
    schedule = {k: v for k, v in overrides.items() if k == "schedule"}
    rest = {k: v for k, v in overrides.items() if not k.startswith("schedule")}
    if not schedule:
        rest = overrides
    return recipes.load("digits", {**schedule, **rest, **values})


def run(chosen, path, *, calls=None, **options: Any):
    """Carry out a run; ``calls`` is how many times it may go on before a stop."""
    asked = itertools.count()
    options.setdefault("devices", 1)
    if calls is not None:
        options["stop"] = lambda: next(asked) >= calls
    return list(fit(chosen, path, **options))


def of(kind: type[E], events: list) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def finish(chosen, path, **options) -> Finished:
    (finished,) = of(Finished, run(chosen, path, **options))
    return finished


def failure(kind, chosen, path, **options):
    with pytest.raises(kind) as raised:
        run(chosen, path, **options)
    return str(raised.value)


def saved_steps(path):
    return [int(step.name) for step in checkpoint.steps_in(path)]


def state_of(chosen, path, step, **devices):
    mesh = make_mesh(TINY, **(devices or {"devices": 1}))
    checkpoints = Checkpoints(path, 9)
    try:
        return jax.device_get(
            checkpoints.restore(steps.abstract_state(chosen, TINY, 10, mesh), step)
        )
    finally:
        checkpoints.close()


TIMES = {"images_per_second", "input_stall"}


def rows_of(path, extra=()):
    """Return the rows, without times and without those that early ends added."""
    return [
        {key: value for key, value in row.items() if key not in TIMES}
        for row in rundir.read_metrics(path)
        if row["step"] not in extra
    ]


def check_same_run(chosen, one, other, extra=()):
    last = saved_steps(one)[-1]
    assert saved_steps(other)[-1] == last
    jax.tree.map(
        np.testing.assert_array_equal,
        state_of(chosen, other, last),
        state_of(chosen, one, last),
    )
    metas = [
        checkpoint.read_meta(path / "checkpoints" / str(last)) for path in (one, other)
    ]
    assert metas[0].plateau == metas[1].plateau
    assert metas[0].evaluated == metas[1].evaluated
    assert metas[0].since_row == metas[1].since_row
    assert rows_of(other, extra) == rows_of(one, extra)
    assert checkpoint.resolve(other).name == checkpoint.resolve(one).name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs, by name of their schedule, and their events."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        name: (folder / name, run(recipe(overrides), folder / name))
        for name, overrides in (("steps", STEPS), ("plateau", PLATEAU))
    }


SCHEDULES = {"steps": STEPS, "plateau": PLATEAU}


# What a run does.


def test_a_short_run_learns_its_pictures_by_heart(tmp_path):
    chosen = recipe(
        {
            **BASE,
            "data.train_split": "train[:64]",
            "data.eval_split": "train[:64]",
            "schedule.epochs": 80,
            "schedule.drops": [0.8],
            "run.eval_every": 80,
            "run.save_every": 80,
            "optimizer.learning_rate": 0.001,
            "optimizer.bias_learning_rate": 0.002,
        }
    )
    events = run(chosen, tmp_path / "run")
    losses = [
        row["loss"] for row in rundir.read_metrics(tmp_path / "run") if "loss" in row
    ]
    assert losses[0] > 2  # ln(10) is 2.3
    assert losses[-1] < 0.9  # with dropout on
    (test,) = of(Evaluated, events)
    assert test.result.images == 64
    assert test.result.top1_error <= 3 / 64  # the rest depends on the rounding
    assert test.result.log_prob > -0.25


def test_the_order_of_events(whole):
    _, events = whole["steps"]
    kinds = [type(event) for event in events]
    assert kinds[:3] == [Preparing, Preparing, Started]
    assert kinds[-1] is Finished
    assert len(of(Started, events)) == len(of(Finished, events)) == 1
    assert [test.step for test in of(Evaluated, events)] == [10, 20, 30, 40, 48]
    assert [save.step for save in of(Saved, events)] == [24, 48]
    assert [done.step for done in of(StepDone, events) if done.row] == [20, 40, 48]
    # What was done after a step is told after the step, a test before its save.
    order = [
        (event.step, [StepDone, Evaluated, Saved].index(type(event)))
        for event in events
        if isinstance(event, StepDone | Evaluated | Saved)
    ]
    assert order == sorted(order)


def test_a_new_best_of_a_validation_split_is_saved_whenever_it_comes(whole):
    path, events = whole["plateau"]
    bests = new_bests(of(Evaluated, events))
    scheduled = {step for step in (24,) if step < events[-1].step}
    saves = [save.step for save in of(Saved, events)]
    assert set(saves) == {test.step for test in bests} | scheduled | {events[-1].step}
    assert saved_steps(path) == sorted({*saves[-3:], bests[-1].step})
    assert checkpoint.resolve(path).name == str(bests[-1].step)


def new_bests(tests):
    lowest, found = math.inf, []
    for test in tests:
        if test.result.top1_error < lowest:
            lowest, found = test.result.top1_error, [*found, test]
    return found


def test_what_is_told_at_the_start_and_at_the_end(whole):
    path, events = whole["steps"]
    (started,) = of(Started, events)
    assert (started.step, started.total_steps, started.end_step) == (0, 48, 48)
    assert started.steps_per_epoch == 8
    assert (started.train_images, started.eval_images, started.classes) == (128, 96, 10)
    conv1 = 5 * 5 * 16 + 16
    fc2 = 3 * 3 * 16 * 48 + 48  # 28 -> 7 by ceil((28 - 5) / 4) + 1, pooled to 3
    assert started.parameters == conv1 + fc2 + 48 * 10 + 10
    (finished,) = of(Finished, events)
    assert (finished.run_dir, finished.step) == (path, 48)
    assert finished.result == of(Evaluated, events)[-1].result
    assert not finished.interrupted
    assert not finished.already


def test_rows_say_what_was_done(whole):
    path, events = whole["steps"]
    rows = list(rundir.read_metrics(path))
    assert [row["step"] for row in rows if "loss" in row] == [20, 40, 48]
    assert [row["step"] for row in rows if row["split"] == "eval"] == [
        10,
        20,
        30,
        40,
        48,
    ]
    # The rate of the row's own update: it drops at 0.4 and 0.7 of 48 steps.
    rates = [row["learning_rate"] for row in rows if "loss" in row]
    assert rates == pytest.approx([3e-4, 3e-5, 3e-5])
    frozen = [row["update_ratios"]["conv1"] for row in rows if "update_ratios" in row]
    assert all(ratio > 0 for ratio in frozen)  # a frozen velocity is held
    tests = {test.step: test.result for test in of(Evaluated, events)}
    for row in rows:
        if row["split"] == "eval":
            assert row["top1_error"] == tests[row["step"]].top1_error
            assert row["images"] == 96


def test_the_velocity_over_the_weight_is_the_update_ratio(whole):
    path, events = whole["steps"]
    state = state_of(recipe(), path, 48)
    velocity = state.opt_state[-1].trace
    for layer, ratio in of(Evaluated, events)[-1].update_ratios.items():
        weights = np.abs(state.params[layer]["kernel"]).mean()
        assert ratio == pytest.approx(
            np.abs(velocity[layer]["kernel"]).mean() / weights, rel=1e-5
        )


def test_a_runs_own_test_is_what_evaluate_finds(whole):
    path, events = whole["steps"]
    mesh = make_mesh(TINY, devices=1)
    source, _ = data.open_split("digits", "test[:96]")
    for test in of(Evaluated, events):
        if test.step not in saved_steps(path):
            continue
        loaded = checkpoint.load(path / str(test.step), mesh)
        *_, found = evaluation.evaluate(loaded, source, mesh, batch_size=64)
        assert found == test.result
    assert 48 in saved_steps(path)  # at least the last was compared


def test_a_run_ends_with_pictures(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        from alexnet_jax.figures.curves import learning_curves
        from alexnet_jax.figures.kernels import filters

        patch.setattr(figures, "learning_curves", learning_curves)
        patch.setattr(figures, "filters", filters)
        finished = finish(recipe(run__steps=2), tmp_path / "run")
    assert [picture.name for picture in finished.pictures] == [
        "learning-curves.png",
        "filters.png",
    ]
    assert all(picture.read_bytes()[:4] == b"\x89PNG" for picture in finished.pictures)
    assert len(finished.samples) == 10


# Seeds and meshes.


def test_one_seed_is_one_run_on_any_mesh(tmp_path):
    """Dropout, crops and the order of pictures come from the seed, not the devices."""
    one, four = tmp_path / "one", tmp_path / "four"
    chosen = recipe(run__steps=6)
    run(chosen, one)
    run(chosen, four, devices=4, towers=2)
    run(recipe(run__steps=12), one, resume=True, devices=4, towers=2)
    run(recipe(run__steps=12), four, resume=True)  # each goes on where the other was
    for step in (6, 12):
        assert far_apart(chosen, step, one, four) < 1e-4


def test_another_seed_is_another_network():
    mesh = make_mesh(TINY, devices=1)
    one, same, other = (
        steps.create_state(recipe(run__seed=seed), TINY, 10, mesh).params
        for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, one, same)
    for layer in one:
        assert np.all(one[layer]["kernel"] != other[layer]["kernel"])


def far_apart(chosen, step, one, other):
    """Return the largest difference of two runs' weights, by their layer's largest."""
    first, second = (state_of(chosen, path, step).params for path in (one, other))
    return max(
        np.abs(first[layer][name] - second[layer][name]).max() / np.abs(array).max()
        for layer, arrays in first.items()
        for name, array in arrays.items()
    )


# Stopping and going on.


@pytest.mark.parametrize(
    ("schedule", "stops"),
    [
        ("steps", [0, 1]),  # before the first step, and after it
        ("steps", [10]),  # on a test, which is put off
        ("steps", [24, 0, 9]),  # on a save, again at once, between two rows
        ("steps", [48]),  # after the very last step
        ("plateau", [20]),  # on a test and a row
        ("plateau", [17, 13]),  # between two, and on the test that ends it
    ],
    ids=str,
)
def test_a_run_that_is_stopped_ends_as_one_that_never_was(
    schedule, stops, whole, tmp_path
):
    path, chosen = tmp_path / "run", recipe(SCHEDULES[schedule])
    baseline, events = whole[schedule]
    at = 0
    for resume, calls in enumerate(stops):
        finished = finish(chosen, path, calls=calls, resume=bool(resume))
        at += calls
        assert finished.interrupted
        assert finished.step == at
        assert saved_steps(path)[-1:] == ([at] if at else [])
    finished = finish(chosen, path, resume=True)
    assert not finished.interrupted
    assert not finished.already
    assert finished.result == of(Finished, events)[0].result
    check_same_run(chosen, baseline, path)


def test_a_plateau_drops_on_the_way(whole):
    """What the test above compares is worth comparing."""
    _, events = whole["plateau"]
    drops = of(Dropped, events)
    assert [(drop.drops, drop.ended) for drop in drops] == [(1, False), (1, True)]
    assert drops[-1].step < 48  # it ends by itself
    errors = [round(t.result.top1_error * 96) for t in of(Evaluated, events)]
    best, wanted = math.inf, []
    for test, count in zip(of(Evaluated, events), errors, strict=True):
        if count >= best:  # patience 1
            wanted.append(test.step)
        best = min(best, count)
    assert [drop.step for drop in drops] == wanted[: len(drops)]


def test_a_kill_between_two_events_changes_nothing(whole, tmp_path):
    """Stands in for a kill: the run is closed at an event, saving nothing more."""
    path, chosen = tmp_path / "run", recipe()
    for resume, step in enumerate([22, 20, 41]):
        going = fit(chosen, path, resume=bool(resume), devices=1)
        for event in going:
            if isinstance(event, StepDone | Evaluated | Saved) and event.step >= step:
                break
        going.close()
    run(chosen, path, resume=True)
    check_same_run(chosen, whole["steps"][0], path)


def test_a_test_that_is_made_up_for_leaves_one_row(whole, tmp_path):
    path, chosen = tmp_path / "run", recipe()
    run(chosen, path, calls=30)
    for _ in range(2):  # made up for, then killed before the next save, twice
        going = fit(chosen, path, resume=True, devices=1)
        for event in going:
            if isinstance(event, Evaluated):
                break
        next(going)  # its rows are written
        going.close()
    run(chosen, path, resume=True)
    check_same_run(chosen, whole["steps"][0], path)


def test_steps_only_stop_earlier(whole, tmp_path):
    """The schedule is that of the whole run; what an early end adds is one more row."""
    path = tmp_path / "run"
    finished = finish(recipe(run__steps=25), path)
    assert (finished.step, finished.interrupted) == (25, False)
    assert finished.result is not None  # tested at its end
    assert finish(recipe(run__steps=33), path, resume=True).step == 33
    run(recipe(), path, resume=True)
    assert {25, 33} <= {row["step"] for row in rundir.read_metrics(path)}
    baseline = whole["steps"][0]
    assert rows_of(path, extra=(25, 33)) == rows_of(baseline)
    jax.tree.map(
        np.testing.assert_array_equal,
        state_of(recipe(), path, 48),
        state_of(recipe(), baseline, 48),
    )


def test_a_test_at_an_early_end_does_not_count_for_the_plateau(whole, tmp_path):
    path, chosen = tmp_path / "run", recipe(PLATEAU)
    run(recipe(PLATEAU, run__steps=13), path)
    run(chosen, path, resume=True)
    baseline = whole["plateau"][0]
    assert rows_of(path, extra=(13,)) == rows_of(baseline)
    last = saved_steps(baseline)[-1]
    jax.tree.map(
        np.testing.assert_array_equal,
        state_of(chosen, path, last),
        state_of(chosen, baseline, last),
    )


def test_a_damaged_last_checkpoint_is_passed_over(whole, tmp_path):
    path, chosen = tmp_path / "run", recipe()
    shutil.copytree(whole["steps"][0], path)
    *_, before, last = saved_steps(path)
    spoil(path / "checkpoints" / str(last))
    events = run(chosen, path, resume=True)
    assert [advice.what for advice in of(Advice, events)] == [
        f"checkpoint {last} is damaged; continuing from an earlier one"
    ]
    (started,) = of(Started, events)
    assert started.step == before
    check_same_run(chosen, whole["steps"][0], path)


def spoil(path: Path):
    for file in (path / "training").rglob("*"):
        if file.is_file() and file.stat().st_size > 100:
            file.write_bytes(file.read_bytes()[:50])


def test_when_every_checkpoint_is_damaged(whole, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(whole["steps"][0], path)
    steps_there = saved_steps(path)
    for step in steps_there:
        spoil(path / "checkpoints" / str(step))
    assert failure(CheckpointError, recipe(), path, resume=True) == (
        f"every checkpoint in {path / 'checkpoints'} is damaged (steps "
        f"{', '.join(map(str, steps_there))}); start again with a new --run-dir"
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_finished_run_says_so(schedule, whole):
    path, events = whole[schedule]
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*.*")}
    (finished,) = run(recipe(SCHEDULES[schedule]), path, resume=True)
    (ended,) = of(Finished, events)
    assert isinstance(finished, Finished)
    assert finished.already
    assert (finished.step, finished.result) == (ended.step, ended.result)
    rows = path / "metrics.jsonl"
    after = {file: file.stat().st_mtime_ns for file in path.rglob("*.*")}
    assert {k: v for k, v in after.items() if k not in (rows, path / ".lock")} == {
        k: v for k, v in before.items() if k not in (rows, path / ".lock")
    }


def test_going_on_as_another_run_is_refused(whole):
    path, _ = whole["steps"]
    assert failure(ConfigError, recipe(run__seed=7), path, resume=True) == (
        "--resume with other values than the run's: run.seed: 0 -> 7; "
        "leave them out, or start a new run"
    )


def test_a_run_that_is_there_is_not_overwritten(whole):
    path, _ = whole["steps"]
    assert "exists and is not overwritten" in failure(CheckpointError, recipe(), path)


def test_of_a_test_split_no_best_is_kept(whole):
    path, _ = whole["steps"]
    assert saved_steps(path) == [24, 48]
    assert checkpoint.resolve(path).name == "48"


# Failures.


def finite(path, chosen, step):
    leaves = jax.tree.leaves(state_of(chosen, path, step).params)
    return all(np.isfinite(leaf).all() for leaf in leaves)


WILD = {"optimizer__learning_rate": 1e9, "optimizer__bias_learning_rate": 1e9}


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    path = tmp_path / "run"
    chosen = recipe(**WILD, run__save_every=0.125, run__eval_every=0.125)
    message = failure(TrainingError, chosen, path)
    # Saved after each step: only those before the fall are there, and the last of
    # them is named.
    there = saved_steps(path)
    assert all(finite(path, chosen, step) for step in there)
    last = "no checkpoint was saved"
    if there:
        last = (
            f"the last checkpoint, {path / 'checkpoints' / str(there[-1])}, is finite"
        )
    assert message.endswith(
        f" step {max(there, default=0) + 1}; {last}; start a new run with a lower "
        "optimizer.learning_rate"
    )
    for row in rundir.read_metrics(path):
        assert all(
            math.isfinite(value) for value in row.values() if isinstance(value, float)
        )


def test_a_loss_that_falls_apart_between_saves(tmp_path):
    path, chosen = tmp_path / "run", recipe(**WILD)
    message = failure(TrainingError, chosen, path)
    assert message.startswith(("the loss is nan at step ", "the loss is inf at step "))
    assert message.endswith(
        "; no checkpoint was saved; start a new run with a lower "
        "optimizer.learning_rate"
    )
    assert saved_steps(path) == []


def test_a_run_that_learns_gets_no_advice(whole):
    assert of(Advice, whole["steps"][1]) == []


def test_a_plateau_needs_a_validation_split(tmp_path):
    chosen = recipe({**PLATEAU, "data.eval_split": "test"})
    assert failure(ConfigError, chosen, tmp_path / "run") == (
        "schedule.kind plateau needs a validation split, but digits test is a test "
        "split; use --eval-split with a part of the training split, or schedule.kind "
        "steps"
    )
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide(tmp_path):
    assert failure(ConfigError, recipe(), tmp_path / "run", devices=3) == (
        "batch_size 16 does not divide over 3 devices; use 15 or 18, or other --devices"
    )
    assert not (tmp_path / "run").exists()


# Before and beside a run.


def test_a_dry_run_tells_the_truth_and_leaves_no_trace(whole, tmp_path):
    _, events = whole["steps"]
    planned = job.dry_run(recipe(), tmp_path / "not" / "there", devices=1)
    assert list(tmp_path.iterdir()) == []
    (started,) = of(Started, events)
    for name in (
        "mesh",
        "parameters",
        "total_steps",
        "steps_per_epoch",
        "train_images",
        "eval_images",
        "classes",
    ):
        assert getattr(planned, name) == getattr(started, name)
    assert planned.first_batch == (16, 32, 32, 1)
    assert planned.kept == 3  # and the best, had it a validation split
    # The state is there twice at most (it is donated), and a batch with its scratch.
    assert planned.device_bytes > planned.checkpoint_bytes
    assert planned.free_bytes == pytest.approx(rundir.free_bytes(tmp_path), rel=0.05)


def test_a_profile_is_written_also_after_one_that_a_failure_ended(tmp_path):
    def fail(calls=itertools.count()):  # noqa: B008 (one count for the function)
        if next(calls) == 5:
            raise RuntimeError("in the middle of the trace")
        return False

    chosen = recipe(run__steps=10)
    with pytest.raises(RuntimeError, match="in the middle"):
        run(chosen, tmp_path / "one", profile=True, stop=fail)
    run(chosen, tmp_path / "two", profile=True)  # one at a time, or it would refuse
    (trace,) = (tmp_path / "two" / "profile").rglob("*.xplane.pb")
    assert b"jit_step" in trace.read_bytes()
