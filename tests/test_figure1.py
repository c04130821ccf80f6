"""The study of Figure 1: its arithmetic by hand, and a small one carried out.

The small study learns digits with two networks that compile in a second.
"""

import itertools
import json
import re

import pytest

from alexnet_jax import figures, networks, recipes
from alexnet_jax.errors import ConfigError, TrainingError
from alexnet_jax.events import StepDone
from alexnet_jax.studies import figure1, figure1_page, runs
from alexnet_jax.studies.figure1 import Curve, Figure1, epoch_errors, epochs_to
from alexnet_jax.table import Classifier, Conv, MaxPool, Network, Relu, Tanh

pytestmark = pytest.mark.usefixtures("compile_once")

SMALL = Network(
    name="figure1-relu",
    source="these tests",
    towers=1,
    input_size=28,
    channels=1,
    classes=10,
    rows=(
        Conv("conv1", 8, kernel=5, stride=4, sigma=0.002),
        Relu("relu1"),
        MaxPool("pool1"),
        Classifier("fc2", sigma=0.05),
    ),
)
SMALL_TANH = Network(
    **{**vars(SMALL), "name": "figure1-tanh"}
    | {"rows": (SMALL.rows[0], Tanh("tanh1"), *SMALL.rows[2:])}
)
# 10 steps an epoch; rows of metrics after 20, 40, 60, ...
VALUES = {
    "data.spec": "digits",
    "data.train_split": "train[:160]",
    "data.eval_split": "test[:32]",
    "optimizer.batch_size": 16,
    "optimizer.learning_rate": 0.001,
    "optimizer.bias_learning_rate": 0.002,
    "schedule.epochs": 16,
    "run.eval_every": 16,
    "run.save_every": 16,
    "eval.batch_size": 32,
}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    for table in (SMALL, SMALL_TANH):
        monkeypatch.setitem(networks.NETWORKS, table.name, table)
    monkeypatch.setattr(figures, "learning_curves", lambda *_, **__: None)
    monkeypatch.setattr(figures, "filters", lambda *_, **__: None)


def row(epoch, error, **more):
    return {"loss": 1.0, "epoch": epoch, "top1_error": error, **more}


# By hand.


def test_an_epochs_error_is_the_mean_of_its_steps():
    # Rows of .4 epochs. The third lies half in the first epoch and half in the second.
    rows = [row(0.4, 0.9), row(0.8, 0.7), row(1.2, 0.5), row(1.6, 0.3), row(2.0, 0.2)]
    first = 0.4 * 0.9 + 0.4 * 0.7 + 0.2 * 0.5
    second = 0.2 * 0.5 + 0.4 * 0.3 + 0.4 * 0.2
    assert epoch_errors(rows) == pytest.approx((first, second))
    assert epoch_errors(rows[:4]) == pytest.approx((first,))  # the second is not whole
    assert epoch_errors([]) == ()


def test_a_row_may_hold_several_epochs_and_tests_are_no_rows():
    tested = {"split": "eval", "epoch": 1.0, "top1_error": 0.0}
    assert epoch_errors([tested, row(2.5, 0.6), row(3.0, 0.2)]) == pytest.approx(
        (0.6, 0.6, 0.5 * 0.6 + 0.5 * 0.2)
    )


def test_epochs_to_an_error_lie_on_the_line_between_two_epochs():
    assert epochs_to(0.25, [0.5, 0.35, 0.15]) == pytest.approx(2.5)
    assert epochs_to(0.25, [0.5, 0.25]) == 2  # met exactly
    assert epochs_to(0.25, [0.5, 0.27, 0.23, 0.3, 0.1]) == pytest.approx(2.5)
    assert epochs_to(0.25, [0.2, 0.1]) == 1  # nothing is known of the time before
    assert epochs_to(0.25, [0.5, 0.3]) is None
    assert epochs_to(0.25, []) is None


def search(errors):
    """Return the rungs in the order in which they are tried."""
    tried = {}
    while (rung := figure1.next_rung(tried)) is not None:
        each = errors.get(rung, ())
        tried[rung] = Curve("relu", 0.001, 0, each, 1.0, diverged=not each).rank
    return list(tried)


def test_rates_are_tried_until_the_best_has_a_worse_one_on_either_side():
    two, three, four = (0.5, 0.2), (0.5, 0.4, 0.2), (0.5, 0.4, 0.3, 0.2)
    assert search({0: three, 1: two, 2: three}) == [0, 1, 2]
    assert search({0: three, -1: four}) == [0, 1, -1]  # 1 diverges
    assert search({0: three, 1: four, -1: two, -2: (0.5, 0.4)}) == [0, 1, -1, -2]
    # Where none comes there, it is looked for where the last error is low.
    assert search({0: (0.5,), 1: (0.4,), 2: (0.3,), 3: (0.6,)}) == [0, 1, 2, 3]
    assert search({}) == [0, 1, -1]


@pytest.mark.parametrize("own", [0.003, 0.0028])
def test_rungs_are_half_a_decade_apart(own):
    recipe = recipes.load("figure1", {"optimizer.learning_rate": own})
    rates = [figure1.ladder(recipe, rung) for rung in range(-3, 3)]
    assert rates == [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03]


def test_the_search_begins_at_the_recipes_own_rate():
    recipe = recipes.load("figure1")
    assert figure1.ladder(recipe, 0) == recipe.optimizer.learning_rate


def curves(activation, *errors):
    return tuple(Curve(activation, 0.001, s, e, 2.0) for s, e in enumerate(errors))


def found(relu, tanh):
    """Return a result of so many epochs, at whose end 25% is met exactly."""

    def errors(epochs):
        return (0.5,) * (epochs - 1) + (0.25,) if epochs else (0.5, 0.4)

    chosen = {
        "relu": curves("relu", *map(errors, relu)),
        "tanh": curves("tanh", *map(errors, tanh)),
    }
    return Figure1({name: each[:1] for name, each in chosen.items()}, chosen)


def test_the_ratio_is_of_means_and_its_spread_of_each_seeds_pair():
    result = found([5, 4, 6], [20, 28, 27])
    assert result.epochs == {"relu": 5, "tanh": 25}
    assert result.ratio == 5
    assert result.ratios == (4, 7, 4.5)
    assert result.spread == (4, 4.5, 7)
    assert figure1_page.summary(result) == (
        "To 25% training error tanhs take 5.00 times as many epochs as ReLUs (by seed "
        "4.00 to 7.00, median 4.50, n = 3; the paper: about 6)."
    )
    assert figure1_page.chosen(result) == (
        ("epochs to 25%", "rate", "seed 0", "seed 1", "seed 2", "mean"),
        [
            ("ReLU", "0.001", "5.00", "4.00", "6.00", "5.00"),
            ("tanh", "0.001", "20.00", "28.00", "27.00", "25.00"),
            ("tanh / ReLU", "", "4.00", "7.00", "4.50", "5.00"),
        ],
    )


def test_a_seed_that_does_not_come_there_leaves_no_ratio():
    result = found([5, 4], [20, None])
    assert (result.ratio, result.spread) == (None, None)
    assert result.ratios == (4, None)
    assert figure1_page.summary(result) == (
        "Not every one of the 2 seeds came to 25% training error, so there is no ratio "
        "(the paper: about 6)."
    )
    _, rows = figure1_page.chosen(result)
    assert rows[1][2:] == ("20.00", "not reached", "not reached")
    assert rows[2][2:] == ("4.00", "-", "-")


NUMBERS = (1.0, 0.5, 0.1, 0.001, 160.0, 0.0, 60.0)  # in an event; nobody looks at them


# The stopping rule, with runs that are only written down.


class Pretended:
    """Stands in for ``runs.carry_out``: trials whose epochs have known errors."""

    def __init__(self, errors):
        self.errors, self.ran = errors, {}

    def __call__(self, trials, folder, measure, *, devices, stop):
        (trial,) = trials
        name, run_dir = trial.name, folder / trial.name
        if stop():
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "recipe.toml").write_text(recipes.dump(trial.recipe))
        lines, errors = "", self.errors[name.removesuffix("-seed-0")]
        for epoch, error in enumerate(errors, start=1):
            if error is None:
                yield runs.Failed(trial, "not a number")
                return
            told = row(float(epoch), error, step=10 * epoch, images_per_second=160)
            lines += json.dumps(told) + "\n"
            (run_dir / "metrics.jsonl").write_text(lines)
            self.ran[name] = epoch
            event = StepDone(10 * epoch, float(epoch), *NUMBERS, row=True)
            yield runs.Going(trial, event)
            if stop():
                yield runs.Stopped(trial)
                return
        yield runs.Done(trial, run_dir, measure(trial.recipe, run_dir))


def pretend(monkeypatch, errors):
    stage = Pretended(errors)
    monkeypatch.setattr(runs, "carry_out", stage)
    return stage


def falling(epochs, most=8):
    """Errors that come to 25% in the middle of epoch ``epochs``, and stay there."""
    return [0.5] * (epochs - 2) + [0.3] + [0.2] * (most - epochs + 1)


TOLD = {
    "relu-0.001": falling(4),
    "relu-0.003": falling(3),
    "relu-0.01": [0.9, None],
    "tanh-0.001": falling(5),
    "tanh-0.003": falling(7),
    "tanh-0.0003": falling(8),
}


def test_a_trial_ends_when_it_is_there_or_cannot_be_the_best(monkeypatch, tmp_path):
    stage = pretend(monkeypatch, TOLD)
    recipe = recipes.load("figure1", VALUES)
    *_, result = figure1.reproduce(recipe, tmp_path, seeds=1)
    assert isinstance(result, Figure1)
    assert stage.ran == {
        "relu-0.001-seed-0": 4,  # at 25% after 3.5
        "relu-0.003-seed-0": 3,  # after 2.5
        "relu-0.01-seed-0": 1,
        "tanh-0.001-seed-0": 5,  # after 4.5
        "tanh-0.003-seed-0": 5,  # can no longer be sooner than that
        "tanh-0.0003-seed-0": 5,
    }
    assert [curve.rate for curve in result.grid["relu"]] == [0.001, 0.003, 0.01]
    assert [curve.rate for curve in result.grid["tanh"]] == [0.0003, 0.001, 0.003]
    assert [curve.diverged for curve in result.grid["relu"]] == [False, False, True]
    assert result.epochs == pytest.approx({"relu": 2.5, "tanh": 4.5})
    assert result.grid["tanh"][1].seconds == 5  # 50 steps of 16 pictures, 160 a second
    # Once more: only what diverged has left nothing that could be known of it.
    stage.ran.clear()
    *_, again = figure1.reproduce(recipe, tmp_path, seeds=1)
    assert again == result
    assert stage.ran == {"relu-0.01-seed-0": 1}


def test_a_network_that_never_comes_there_is_an_error(monkeypatch, tmp_path):
    never = {"relu-0.001": [0.9, 0.7], "relu-0.003": [0.9, 0.8], "relu-0.0003": [0.9]}
    pretend(monkeypatch, never)
    recipe = recipes.load("figure1", {**VALUES, "schedule.epochs": 2})
    with pytest.raises(TrainingError) as raised:
        list(figure1.reproduce(recipe, tmp_path))
    assert str(raised.value) == (
        "relu does not come to 25% training error within 2 epochs at any of the rates "
        "0.001, 0.003, 0.0003; with another --out, --set schedule.epochs=N gives it "
        "more and --set optimizer.learning_rate=R begins elsewhere"
    )


# A small study, carried out.


def test_a_study_that_was_stopped_goes_on_to_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr(figure1, "TARGET", 0.6)  # sooner than 25%
    recipe = recipes.load("figure1", {**VALUES, "optimizer.learning_rate": 0.0003})
    *_, straight = figure1.reproduce(recipe, tmp_path / "straight", seeds=2)
    assert isinstance(straight, Figure1)
    for activation in ("relu", "tanh"):
        assert [curve.seed for curve in straight.chosen[activation]] == [0, 1]
        assert straight.chosen[activation][0] in straight.grid[activation]
        assert len({curve.rate for curve in straight.chosen[activation]}) == 1
        soonest = min(c.epochs for c in straight.grid[activation] if c.epochs)
        assert straight.chosen[activation][0].epochs == soonest
    assert straight.ratio is not None
    assert straight.ratio > 0

    turns, last = 0, None
    while not isinstance(last, Figure1):
        turns, asked = turns + 1, itertools.count()
        *_, last = figure1.reproduce(
            recipe,
            tmp_path / "stopped",
            seeds=2,
            stop=lambda asked=asked: next(asked) > 333,
        )
        assert turns < 10
    assert turns > 2
    for kind in ("grid", "chosen"):
        for activation, each in getattr(straight, kind).items():
            others = getattr(last, kind)[activation]
            assert [c.errors for c in others] == [c.errors for c in each]
            assert [c.rate for c in others] == [c.rate for c in each]

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    told = list(figure1.reproduce(recipe, tmp_path / "stopped", seeds=2))
    assert told[-1] == last
    assert all(isinstance(each, Curve) for each in told[:-1])  # nothing was run
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}

    other = recipes.override(recipe.model_dump(), {"optimizer.momentum": 0.5})
    wanted = f"{tmp_path}/stopped/relu-0.0003-seed-0 is a run of other values: "
    with pytest.raises(ConfigError, match=re.escape(wanted) + r"optimizer\.momentum"):
        list(figure1.reproduce(other, tmp_path / "stopped"))
