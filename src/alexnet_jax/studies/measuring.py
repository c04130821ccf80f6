"""What a study wants to know of a run: its errors, and what it took."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from alexnet_jax import checkpoint, data, rundir
from alexnet_jax import evaluate as evaluation
from alexnet_jax.config import Recipe
from alexnet_jax.data.records import Source
from alexnet_jax.data.splits import evenly
from alexnet_jax.evaluate import Result
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network as find_network


def errors(recipe: Recipe, run_dir: Path) -> dict[str, Any]:
    """Test the last checkpoint of a run, on pictures it knows and on others.

    Args:
        recipe: of the run.
        run_dir: where it is.

    Returns:
        ``test``: the evaluation split with the recipe's views, as ``Result``'s values.
        ``centre``: the same with the centre view. ``train``: as many pictures of the
        training split, evenly spaced, centre view, without noise or dropout.
        ``parameters``: of the network. ``steps``: updates. ``seconds``: spent training,
        saves and tests not counted. ``device``: on what.
    """
    path = checkpoint.steps_in(run_dir)[-1]
    mesh = make_mesh(find_network(recipe.network), devices=1, towers=1)
    loaded = checkpoint.load(path, mesh)
    pictures = data.open_dataset(recipe.data)
    views = recipe.eval.views[0]

    def tested(source: Source, views: int) -> dict[str, Any]:
        *_, found = evaluation.evaluate(
            loaded, source, mesh, views=views, batch_size=recipe.eval.batch_size
        )
        return dataclasses.asdict(found)

    measured = loaded.meta.evaluated  # when the run ended, centre view
    centre = measured or tested(pictures.eval, 1)
    return {
        "test": centre if views == 1 else tested(pictures.eval, views),
        "centre": dataclasses.asdict(Result(**centre)),
        "train": tested(evenly(pictures.train, len(pictures.eval)), 1),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(loaded.params)),
        "steps": loaded.meta.step,
        "seconds": seconds(recipe, run_dir),
        "device": f"{jax.devices()[0].device_kind}, {data.cores()} cores",
    }


def seconds(recipe: Recipe, run_dir: Path) -> float:
    """Return the seconds that a run's steps took, interruptions not counted."""
    rows = rundir.read_metrics(run_dir)
    return rundir.step_seconds(rows, recipe.optimizer.batch_size)
