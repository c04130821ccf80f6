"""The study of Figure 1: its arithmetic by hand, and a small one carried out.

The small study learns digits with two networks that compile in a second.
"""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import pytest

from alexnet_cli.main import main
from alexnet_jax import figures, networks, recipes
from alexnet_jax.errors import ConfigError, TrainingError
from alexnet_jax.events import Started, StepDone
from alexnet_jax.figures import canvas
from alexnet_jax.studies import figure1, figure1_page, runs
from alexnet_jax.studies.figure1 import (
    Activation,
    Curve,
    Figure1,
    epoch_errors,
    epochs_to,
)
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
SMALL_TANH = dataclasses.replace(
    SMALL, name="figure1-tanh", rows=(SMALL.rows[0], Tanh("tanh1"), *SMALL.rows[2:])
)
# 10 steps an epoch; rows of metrics after 20, 40, 60, ...
VALUES = {
    "data.spec": "digits",
    "data.train_split": "train[:160]",
    "data.eval_split": "test[:32]",
    "optimizer.batch_size": 16,
    "optimizer.learning_rate": 0.001,
    "optimizer.bias_learning_rate": 0.002,
    "schedule.epochs": 24,
    "run.eval_every": 24,
    "run.save_every": 24,
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

    chosen: dict[Activation, tuple[Curve, ...]] = {
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
    assert rows[1][2:] == ("20.00", "> 2", "-")
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
        begin = Started(run_dir, 0, 80, 80, 10.0, "one", "some", 160, 32, 10, 99)
        yield runs.Going(trial, begin)
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
    monkeypatch.setattr(figure1, "TARGET", 0.8)  # sooner than 25%
    monkeypatch.setattr(figure1, "next_rung", lambda tried: None if tried else 0)
    recipe = recipes.load("figure1", {**VALUES, "optimizer.learning_rate": 0.0003})
    *_, straight = figure1.reproduce(recipe, tmp_path / "straight", seeds=2)
    assert isinstance(straight, Figure1)
    for activation in ("relu", "tanh"):
        one, other = straight.chosen[activation]
        assert (one.seed, other.seed) == (0, 1)
        assert straight.grid[activation] == (one,)
        assert one.errors != other.errors
        assert max(len(one.errors), len(other.errors)) < 24  # they ended when there
    assert straight.ratio is not None

    turns, last = 0, None
    while not isinstance(last, Figure1):
        turns, asked = turns + 1, itertools.count()
        *_, last = figure1.reproduce(
            recipe,
            tmp_path / "stopped",
            seeds=2,
            stop=lambda asked=asked: next(asked) > 90,
        )
        assert turns < 10
    assert turns > 1
    for activation, curves in straight.chosen.items():
        again = last.chosen[activation]
        assert [curve.errors for curve in again] == [curve.errors for curve in curves]

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    told = list(figure1.reproduce(recipe, tmp_path / "stopped", seeds=2))
    assert told[-1] == last
    assert all(isinstance(each, Curve) for each in told[:-1])  # nothing was run
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}

    other = recipes.override(recipe.model_dump(), {"optimizer.momentum": 0.5})
    wanted = f"{tmp_path}/stopped/relu-0.0003-seed-0 is a run of other values: "
    with pytest.raises(ConfigError, match=re.escape(wanted) + r"optimizer\.momentum"):
        list(figure1.reproduce(other, tmp_path / "stopped"))


# The page, the picture and the command.


def test_the_page_and_its_numbers(tmp_path):
    recipe = recipes.load("figure1")
    result = found([5, 4, 6], [20, 28, 27])
    command = "alexnet reproduce figure1 --seeds 3"
    record = figure1_page.write(result, tmp_path, recipe, command)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored == json.loads(json.dumps(record))
    assert (stored["ratio"], stored["ratios"]) == (5, [4, 7, 4.5])
    spread = [stored[f"ratio_{which}"] for which in ("min", "median", "max")]
    assert spread == [4, 4.5, 7]
    assert [curve["epochs"] for curve in stored["chosen"]["tanh"]] == [20, 28, 27]
    assert stored["seconds"] == 12  # each of six trials once, of two seconds
    page = (tmp_path / "RESULT.md").read_text()
    assert figure1_page.summary(result) in page
    assert "| tanh | 0.001 | 20.00 | 28.00 | 27.00 | 25.00 |" in page
    assert f"| command | `{command}` |" in page
    assert "| training steps | 12 s in all |" in page
    assert (tmp_path / "figure1.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_has_a_line_a_run_and_the_error_asked_for(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(canvas.Page, "save", lambda page, out: drawn.append(page))
    figure1_page.draw(found([2, 3], [4, 5]), tmp_path / "a.png")
    ((axes,),) = [page._figure.axes for page in drawn]
    level, *lines = axes.get_lines()
    assert list(level.get_ydata()) == [25, 25]
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--", "--"]
    assert [list(line.get_xdata()) for line in lines] == [
        list(range(1, n + 1)) for n in (2, 3, 4, 5)
    ]
    assert list(lines[0].get_ydata()) == [50, 25]
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["ReLU, rate 0.001", "tanh, rate 0.001"]


def test_the_command(tmp_path, monkeypatch, capsys):
    pretend(monkeypatch, TOLD)
    monkeypatch.chdir(tmp_path)
    values = [f"--set={key}={value}" for key, value in VALUES.items()]

    def run(*words):
        with pytest.raises(SystemExit) as ending:
            main(["reproduce", "figure1", "--seeds", "1", *words, *values])
        return ending.value.code, capsys.readouterr()

    code, told = run("--out", "study")
    assert code == 0, told.err
    assert "tanhs take 1.80 times as many epochs as ReLUs" in " ".join(told.out.split())
    assert "ReLU, rate 0.003, seed 0: 25% after 2.50 of 3 epochs" in told.err
    assert "relu-0.01-seed-0: not a number" in told.err
    assert (tmp_path / "study/figure1.png").exists()
    code, told = run("--out", "study", "--json")
    assert code == 0
    assert json.loads(told.out) == json.loads(Path("study/results.json").read_text())
    code, told = run("--out", "study", "--set", "optimizer.momentum=0.5")
    assert code == 1
    assert "study/relu-0.001-seed-0 is a run of other values" in told.err


def test_a_figure_that_is_not_there(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["reproduce", "figure9"])
    assert ending.value.code == 2
    assert "'figure9' is not one of 'figure1'" in capsys.readouterr().err
