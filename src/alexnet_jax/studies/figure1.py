"""The paper's Figure 1: the epochs to 25% training error, with ReLUs and with tanhs.

"A four-layer convolutional neural network with ReLUs (solid line) reaches a 25%
training error rate on CIFAR-10 six times faster than an equivalent network with tanh
neurons (dashed line). The learning rates for each network were chosen independently to
make training as fast as possible."

Each network's rate is looked for with one seed: from the recipe's own up and down a
ladder (.001, .003, .01 and so on), until the best has a worse one on either side. A
trial that can no longer be the best is given up, and any ends when it is known how long
it took. The best rate of each then runs with the other seeds.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, get_args

from alexnet_jax import recipes, rundir
from alexnet_jax.config import Recipe
from alexnet_jax.errors import TrainingError
from alexnet_jax.events import StepDone
from alexnet_jax.studies import measuring, runs
from alexnet_jax.studies.runs import Trial

TARGET = 0.25
"""The training error that is asked for."""

RECIPE = "figure1"
Activation = Literal["relu", "tanh"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


@dataclass(frozen=True)
class Curve:
    """How a network learned in one trial.

    Attributes:
        activation: of its units.
        rate: learning rate of its weights.
        seed: of every random draw.
        errors: training error of each whole epoch.
        seconds: of its training steps.
        diverged: whether its loss was no longer a number.
    """

    activation: Activation
    rate: float
    seed: int
    errors: tuple[float, ...]
    seconds: float
    diverged: bool = False

    @property
    def epochs(self) -> float | None:
        """Epochs to ``TARGET``; None where the trial ended before."""
        return epochs_to(TARGET, self.errors)

    @property
    def rank(self) -> tuple[float, float]:
        """What is lower for a better rate: its epochs, or else its last error."""
        last = math.inf if self.diverged or not self.errors else self.errors[-1]
        return math.inf if self.epochs is None else self.epochs, last


@dataclass(frozen=True)
class Figure1:
    """What the study found.

    Attributes:
        grid: the trials in which the rates were chosen, slowest rate first, by
            activation; all of the first seed.
        chosen: the trials at the best rate, one a seed, by activation.
    """

    grid: Mapping[Activation, tuple[Curve, ...]]
    chosen: Mapping[Activation, tuple[Curve, ...]]

    @property
    def epochs(self) -> dict[Activation, float | None]:
        """Mean epochs to ``TARGET``; None where not every seed came there."""
        found = {}
        for activation, curves in self.chosen.items():
            each = [curve.epochs for curve in curves]
            come = [epochs for epochs in each if epochs is not None]
            found[activation] = fmean(come) if len(come) == len(each) else None
        return found

    @property
    def ratio(self) -> float | None:
        """How many times as many mean epochs tanhs take (the paper: six)."""
        relu, tanh = self.epochs["relu"], self.epochs["tanh"]
        return None if relu is None or tanh is None else tanh / relu

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """The same of each seed's two trials."""
        pairs = zip(self.chosen["relu"], self.chosen["tanh"], strict=True)
        return tuple(
            None
            if relu.epochs is None or tanh.epochs is None
            else tanh.epochs / relu.epochs
            for relu, tanh in pairs
        )

    @property
    def spread(self) -> tuple[float, float, float] | None:
        """Lowest, median and highest of ``ratios``; None where one is missing."""
        known = [ratio for ratio in self.ratios if ratio is not None]
        if len(known) < len(self.ratios):
            return None
        return min(known), median(known), max(known)


def reproduce(
    recipe: Recipe,
    folder: Path,
    *,
    seeds: int = 3,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[runs.Told | Curve | Figure1, None, None]:
    """Carry out the study, or what is left of it.

    Args:
        recipe: of every trial but for its network, rate and seed. Its own rate and
            seed come first, its epochs are the most that a trial may take.
        folder: the study's; a trial that is done in it is not done again.
        seeds: trials at each best rate.
        stop: asked after each step; True saves the trial under way and ends.

    Yields:
        What ``runs`` tells, each trial's ``Curve`` once it is known, ``Figure1`` last;
        nothing more once ``stop`` was True.

    Raises:
        ConfigError: there are trials of another recipe in ``folder``.
        TrainingError: no rate of a network brings it to ``TARGET``.
    """
    folder = folder.expanduser()
    grids: dict[Activation, tuple[Curve, ...]] = {}
    chosen: dict[Activation, tuple[Curve, ...]] = {}
    first = recipe.run.seed
    for activation in ACTIVATIONS:
        grid: dict[int, Curve] = {}
        while (rung := next_rung({r: c.rank for r, c in grid.items()})) is not None:
            most = min((c.epochs for c in grid.values() if c.epochs), default=None)
            trial = _trial(recipe, activation, ladder(recipe, rung), first)
            curve = yield from _curve(trial, activation, folder, most, stop)
            if curve is None:
                return
            grid[rung] = curve
        best = min(grid.values(), key=lambda curve: curve.rank)
        if best.epochs is None:
            rates = ", ".join(f"{curve.rate:g}" for curve in grid.values())
            raise TrainingError(
                f"{activation} does not come to {TARGET:.0%} training error within "
                f"{recipe.schedule.epochs:g} epochs at any of the rates {rates}; with "
                "another --out, --set schedule.epochs=N gives it more and --set "
                "optimizer.learning_rate=R begins elsewhere"
            )
        curves = [best]
        for seed in range(first + 1, first + seeds):
            trial = _trial(recipe, activation, best.rate, seed)
            curve = yield from _curve(trial, activation, folder, None, stop)
            if curve is None:
                return
            curves.append(curve)
        grids[activation] = tuple(grid[rung] for rung in sorted(grid))
        chosen[activation] = tuple(curves)
    yield Figure1(grids, chosen)


def ladder(recipe: Recipe, rung: int) -> float:
    """Return a rate: 1 or 3 times a power of ten, rung 0 being nearest the recipe's."""
    half_decades = round(2 * math.log10(recipe.optimizer.learning_rate)) + rung
    return float(f"{(1, 3)[half_decades % 2]}e{half_decades // 2}")


def next_rung(tried: Mapping[int, tuple[float, float]]) -> int | None:
    """Return the rung to try next; None if the best has a worse one on either side.

    Args:
        tried: each rung's ``Curve.rank``.
    """
    if not tried:
        return 0
    best = min(tried, key=tried.__getitem__)
    return next((rung for rung in (best + 1, best - 1) if rung not in tried), None)


def epoch_errors(rows: Iterable[dict[str, Any]]) -> tuple[float, ...]:
    """Return the mean training error of each whole epoch.

    Args:
        rows: of ``metrics.jsonl``. One is the mean over the steps since the one before;
            where an epoch ends among these it counts for both, each by its share.
    """
    errors: list[float] = []
    total = before = 0.0  # of the epoch under way, and where it has come to
    for row in rows:
        if "loss" not in row:
            continue
        while (end := len(errors) + 1.0) <= row["epoch"]:
            errors.append(total + (end - before) * row["top1_error"])
            total, before = 0.0, end
        total += (row["epoch"] - before) * row["top1_error"]
        before = row["epoch"]
    return tuple(errors)


def epochs_to(target: float, errors: Iterable[float]) -> float | None:
    """Return the epochs until an error is met; None if it is not.

    An epoch's mean stands at its end, as the 2012 program printed it; between two ends
    a straight line is drawn. 1 where the first epoch's is low enough.
    """
    before = None
    for epoch, error in enumerate(errors, start=1):
        if error <= target:
            if before is None:
                return 1.0
            return epoch - (target - error) / (before - error)
        before = error
    return None


def measure(recipe: Recipe, run_dir: Path) -> dict[str, Any]:
    """Return the training errors of a run, and the seconds of its steps."""
    errors = epoch_errors(rundir.read_metrics(run_dir))
    return {"errors": errors, "seconds": measuring.seconds(recipe, run_dir)}


def _trial(recipe: Recipe, activation: Activation, rate: float, seed: int) -> Trial:
    ratio = recipe.optimizer.bias_learning_rate / recipe.optimizer.learning_rate
    own = recipes.override(
        recipe.model_dump(mode="json"),
        {
            "network": f"figure1-{activation}",
            "optimizer.learning_rate": rate,
            "optimizer.bias_learning_rate": ratio * rate,
            "run.seed": seed,
        },
    )
    return Trial(f"{activation}-{rate:g}-seed-{seed}", own)


def _curve(
    trial: Trial,
    activation: Activation,
    folder: Path,
    most: float | None,
    stop: Callable[[], bool],
) -> Generator[runs.Told | Curve, None, Curve | None]:
    """Carry out a trial until it is known how it ends.

    Args:
        trial: the trial.
        activation: of its network.
        folder: the study's.
        most: epochs in which another came to ``TARGET``; one that takes longer is
            given up.
        stop: see ``reproduce``.

    Returns:
        Its curve, which was yielded as well; None if it was stopped before.
    """
    run_dir = folder / trial.name

    def known() -> bool:
        errors = epoch_errors(rundir.read_metrics(run_dir))
        late = most is not None and len(errors) >= most
        return late or epochs_to(TARGET, errors) is not None

    def curve(*, diverged: bool = False) -> Curve:
        optimizer, seed = trial.recipe.optimizer, trial.recipe.run.seed
        found = measure(trial.recipe, run_dir)
        return Curve(
            activation,
            optimizer.learning_rate,
            seed,
            tuple(found["errors"]),
            found["seconds"],
            diverged,
        )

    if rundir.is_run(run_dir):
        runs.check_same(trial, run_dir)
    over, diverged = known(), False

    def enough() -> bool:
        return over or stop()

    if not over:
        for told in runs.carry_out([trial], folder, measure, devices=1, stop=enough):
            match told:
                case runs.Going(event=StepDone(row=True)):
                    over = known()
                case runs.Done():
                    over = True
                case runs.Failed():
                    over = diverged = True
            if not (isinstance(told, runs.Stopped) and over):
                yield told
    if not over:
        return None
    found = curve(diverged=diverged)
    yield found
    return found
