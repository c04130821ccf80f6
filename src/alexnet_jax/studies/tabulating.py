"""The table of an ablation study: each row's errors against the whole recipe's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alexnet_jax.studies import claims
from alexnet_jax.studies.claims import Claim
from alexnet_jax.studies.comparing import (
    Difference,
    Spread,
    Verdict,
    difference,
    spread,
    verdict,
)
from alexnet_jax.studies.rows import FULL, Plan, trial_name
from alexnet_jax.studies.runs import Done, Failed

Measured = Mapping[str, Any]  # see measuring.errors


@dataclass(frozen=True)
class Row:
    """What was found of one row; errors and their differences are fractions.

    Attributes:
        part: that was taken away, or ``full``.
        claim: the paper's, None of the whole recipe.
        seeds: of the runs that are done.
        parameters: of the network.
        views: with which the evaluation split was tested.
        test, test5: top-1 and top-5 error on the evaluation split.
        train: top-1 error on training pictures.
        overfitting: ``test`` less ``train``, both with the centre view.
        seconds: of training, one run.
        top1, top5: differences of ``test`` and ``test5`` to the whole recipe.
        judged: the difference that the claim is about.
        verdict: on the claim.
    """

    part: str
    claim: Claim | None
    seeds: tuple[int, ...]
    parameters: int
    views: int
    test: Spread
    test5: Spread
    train: Spread
    overfitting: Spread
    seconds: Spread
    top1: Difference | None = None
    top5: Difference | None = None
    judged: Difference | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Table:
    """What was found so far.

    Attributes:
        plan: of the study.
        rows: those with at least one run done, ``full`` first.
        failed: runs that could not be trained.
        left: runs that are still to do.
        device: on what.
    """

    plan: Plan
    rows: tuple[Row, ...]
    failed: tuple[Failed, ...]
    left: int
    device: str


def tabulate(plan: Plan, done: Sequence[Done], failed: Sequence[Failed] = ()) -> Table:
    """Compare the rows of a study with the whole recipe, as far as they are done."""
    found = {each.trial.name: each.measured for each in done}

    def runs_of(part: str) -> dict[int, Measured]:
        names = {seed: trial_name(part, seed) for seed in plan.seeds}
        return {seed: found[name] for seed, name in names.items() if name in found}

    whole = list(runs_of(FULL).values())
    rows = []
    for part, recipe in plan.rows.items():
        if not (mine := runs_of(part)):
            continue
        # A row that cannot be tested with ten views is compared by the centre view.
        alike = recipe.eval.views[0] == plan.recipe.eval.views[0]
        errors = _errors(list(mine.values()), "test" if alike else "centre")
        row = Row(
            part=part,
            claim=None if part == FULL else claims.find(part, recipe.data.spec),
            seeds=tuple(mine),
            parameters=next(iter(mine.values()))["parameters"],
            views=recipe.eval.views[0],
            test=spread(errors["test"]),
            test5=spread(errors["test5"]),
            train=spread(errors["train"]),
            overfitting=spread(errors["overfitting"]),
            seconds=spread([run["seconds"] for run in mine.values()]),
        )
        if row.claim and whole:
            before = _errors(whole, "test" if alike else "centre")
            change = {name: difference(before[name], errors[name]) for name in errors}
            judged = change[row.claim.judged]
            row = replace(
                row,
                top1=change["test"],
                top5=change["test5"],
                judged=judged,
                verdict=verdict(judged),
            )
        rows.append(row)
    devices = sorted({str(values["device"]) for values in found.values()})
    left = len(plan.trials) - len(found) - len(failed)
    return Table(plan, tuple(rows), tuple(failed), left, "; ".join(devices))


def _errors(runs: Sequence[Measured], tested: str) -> dict[str, list[float]]:
    """Return the errors of some runs, by name; ``tested`` says with which views."""
    return {
        "test": [run[tested]["top1_error"] for run in runs],
        "test5": [run[tested]["top5_error"] for run in runs],
        "train": [run["train"]["top1_error"] for run in runs],
        "overfitting": [
            run["centre"]["top1_error"] - run["train"]["top1_error"] for run in runs
        ],
    }
