"""Which run is meant where the user names none, and where its pictures go."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_cli import view

if TYPE_CHECKING:
    from alexnet_jax.checkpoint import Meta
    from alexnet_jax.config import Recipe

RUNS = Path("runs")


def newest() -> Path:
    """Return the newest run in ``./runs`` that has a checkpoint, and say which.

    Raises:
        CheckpointError: there is none.
    """
    from alexnet_jax import checkpoint, rundir
    from alexnet_jax.errors import CheckpointError

    for run in reversed(rundir.runs(RUNS)):
        if checkpoint.steps_in(run):
            view.note(f"using the newest run, {run}")
            return run
    raise CheckpointError(
        "no run with a checkpoint in ./runs; train one with alexnet train, or name "
        "one that lies elsewhere"
    )


def home(checkpoint: Path) -> Path:
    """Return the run that a checkpoint is of; imported weights are their own."""
    inside = checkpoint.parent.name == "checkpoints"
    return checkpoint.parents[1] if inside else checkpoint


def title(checkpoint: Path, meta: "Meta") -> str:
    """Say in a picture which checkpoint it is of."""
    name = home(checkpoint.absolute()).name
    return f"{name}, step {meta.step:,}" if meta.step else name


def picture(out: Path | None, checkpoint: Path, name: str) -> Path:
    """Return the path of a picture: the user's, or one in the run's own figures.

    Raises:
        ConfigError: it cannot be written.
    """
    from alexnet_jax import figures

    if out is None:
        out = home(checkpoint) / "figures" / name
        out.parent.mkdir(exist_ok=True)
    return figures.check_picture(out)


def recipe(
    name: str, flags: Mapping[str, Any], assignments: tuple[str, ...]
) -> "Recipe":
    """Return a recipe with what the user gave.

    Args:
        name: of it, or a path to a ``.toml`` file.
        flags: by dotted key; None where the user gave nothing.
        assignments: of ``--set``.

    Raises:
        ConfigError: an unknown name or key, or values that do not fit.
    """
    from alexnet_jax import recipes

    given = {key: value for key, value in flags.items() if value is not None}
    base = recipes.load(name)
    if given.get("data.spec", base.data.spec) != base.data.spec:
        # The recipe's splits are those of its own data set.
        given = {"data.train_split": None, "data.eval_split": None, **given}
    return recipes.load(name, given, assignments)


def new(recipe: "Recipe") -> Path:
    """Return the name of the next run of a recipe."""
    from alexnet_jax import rundir

    return rundir.next_name(RUNS, recipe.name)


def agreed(choose: Callable[[], Path | None]) -> Path | None:
    """Return the path that process 0 chooses; all processes of a run call it."""
    from alexnet_jax import hosts

    if hosts.count() == 1:
        return choose()
    chosen = hosts.first(lambda: str(((path := choose()) and path.absolute()) or ""))
    return Path(chosen) if chosen else None


def to_resume(recipe: str | None, run_dir: Path | None) -> Path | None:
    """Return the run that ``--resume`` continues, and say which; None for a new one.

    Args:
        recipe: that the user named, if any.
        run_dir: likewise.
    """
    from alexnet_jax import recipes, rundir

    if run_dir is not None:
        run_dir = run_dir.expanduser()
        if rundir.is_run(run_dir):
            return run_dir
        view.note(f"nothing to resume in {run_dir}: starting at step 0")
        return None
    found = rundir.runs(RUNS)
    if recipe is not None:
        name = re.escape(recipes.load(recipe).name)
        found = [run for run in found if re.fullmatch(rf"{name}-\d+", run.name)]
    if not found:
        view.note("nothing to resume in ./runs: starting at step 0")
        return None
    view.note(f"continuing the newest run, {found[-1]}")
    return found[-1]
