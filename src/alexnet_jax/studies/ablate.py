"""Ablations: a recipe trained without each of its parts, beside what the paper found.

A row is the recipe with one thing taken away: from its network (``norm``, ``overlap``,
``towers``, ``dropout``, ``layer:conv3``) or from how it is trained (``colour``,
``crops``, ``decay``). Each is trained from the same seeds, with the same data, schedule
and number of updates as the whole recipe, and tested as it ended: nothing is chosen by
a result.
"""

import dataclasses
import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from alexnet_jax import figures, recipes
from alexnet_jax.config import Recipe
from alexnet_jax.errors import ConfigError
from alexnet_jax.studies import ablation_page, measuring, runs
from alexnet_jax.studies.rows import Plan
from alexnet_jax.studies.runs import Done, Failed, Told
from alexnet_jax.studies.tabulating import Table, tabulate

STUDY = "study.toml"


def ablate(
    plan: Plan,
    folder: Path,
    *,
    command: str,
    devices: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Told | Table, None, None]:
    """Train a study's rows, and tabulate them.

    Args:
        plan: see ``rows.plan``.
        folder: of the study; runs in it that are done are kept. ``RESULT.md``,
            ``results.json`` and ``differences.png`` in it say what was found so far.
        command: that repeats the study, for ``RESULT.md``.
        devices: see ``runs.carry_out``.
        stop: likewise.

    Yields:
        What ``runs.carry_out`` yields; after each run that is done the table so far.

    Raises:
        AlexNetError: the folder is of another study, or a run cannot start or go on.
    """
    folder = folder.expanduser()
    _open(folder, plan)
    done: list[Done] = []
    failed: list[Failed] = []
    stale = False
    told = runs.carry_out(
        plan.trials, folder, measuring.errors, devices=devices, stop=stop
    )
    for each in told:
        yield each
        if isinstance(each, Done):
            done.append(each)
        elif isinstance(each, Failed):
            failed.append(each)
        else:
            continue
        stale = isinstance(each, Done) and each.kept
        if not stale:
            yield _written(plan, done, failed, folder, command)
    if stale:
        yield _written(plan, done, failed, folder, command)


def is_of(folder: Path, recipe: Recipe) -> bool:
    """Tell whether a folder is an ablation study of a recipe."""
    path = folder / STUDY
    try:
        return path.is_file() and not _apart(path, recipe)
    except ConfigError:  # damaged, or of another version
        return False


def _open(folder: Path, plan: Plan) -> None:
    """Make a study's folder.

    Raises:
        ConfigError: it is of another recipe.
    """
    path = folder / STUDY
    if path.is_file():
        if apart := _apart(path, plan.recipe):
            raise ConfigError(
                f"{folder} is a study of other values: {'; '.join(apart)}; give the "
                "same, or choose another --out"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "# The recipe that is taken apart here; do it again with\n"
            "#   alexnet ablate THIS_FILE\n" + recipes.dump(plan.recipe)
        )
    except OSError as error:
        raise ConfigError(
            f"cannot write to {folder}: {error.strerror}; choose another --out"
        ) from error


def _apart(path: Path, recipe: Recipe) -> list[str]:
    stored = recipes.load(str(path))
    return runs.differences(stored, recipe)


def _written(
    plan: Plan,
    done: Sequence[Done],
    failed: Sequence[Failed],
    folder: Path,
    command: str,
) -> Table:
    table = tabulate(plan, done, failed)
    write(table, folder, command)
    return table


def write(table: Table, folder: Path, command: str) -> None:
    """Write what a table says into the study's folder."""
    (folder / "RESULT.md").write_text(ablation_page.text(table, command))
    values = json.dumps(record(table), indent=1)
    (folder / "results.json").write_text(values + "\n")
    figures.differences(
        ablation_page.bars(table),
        folder / "differences.png",
        title=f"{table.plan.recipe.name} without each of its parts",
    )


def record(table: Table) -> dict[str, Any]:
    """Return a table as plain JSON; errors are fractions, the paper's percentages."""
    return {
        "recipe": table.plan.recipe.model_dump(mode="json"),
        "seeds": table.plan.seeds,
        "left": table.left,
        "device": table.device,
        "left_out": [dataclasses.asdict(each) for each in table.plan.left_out],
        "failed": {each.trial.name: each.reason for each in table.failed},
        "rows": [dataclasses.asdict(row) for row in table.rows],
    }
