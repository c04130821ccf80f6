"""Starting a run from the weights of another, perhaps with other classes.

Everything but the classifier is taken over, and the classifier too where the classes
are the same. The pictures are prepared as the weights expect it: the checkpoint's mean
image and scale, not the new data's. The velocities start at zero.
"""

from pathlib import Path
from typing import Any

import jax

from alexnet_jax import checkpoint, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.checkpoint import Meta
from alexnet_jax.config import Recipe
from alexnet_jax.errors import ConfigError
from alexnet_jax.job import Job
from alexnet_jax.steps import TrainState


def asked_for(path: str | Path) -> dict[str, Any]:
    """Return the values by dotted key that weights ask of a recipe.

    Args:
        path: see ``checkpoint.resolve``.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    meta = checkpoint.read_meta(checkpoint.resolve(path))
    return {
        "network": meta.network,
        "data.image_size": meta.image_size,
        "data.resize": meta.resize,
        "eval.views": meta.views,
    }


def check(recipe: Recipe) -> None:
    """Check that the weights that a recipe starts from fit it.

    Raises:
        CheckpointError: there are none, or they are damaged.
        ConfigError: another network or other pictures; names both and the remedy.
    """
    if recipe.run.init_from is None:
        return
    wanted = asked_for(recipe.run.init_from)
    given = {
        "network": recipe.network,
        "data.image_size": recipe.data.image_size,
        "data.resize": recipe.data.resize,
    }
    for key, value in given.items():
        if value != wanted[key]:
            raise ConfigError(
                f"--init-from {recipe.run.init_from}: its {key} is {wanted[key]}, the "
                f"recipe's {value}; use --set {key}={wanted[key]}, or leave RECIPE out"
            )


def start(
    job: Job, state: TrainState, preprocess: Preprocess
) -> tuple[TrainState, Preprocess, str]:
    """Put the weights that a run starts from in the place of those that were drawn.

    Args:
        job: its recipe names a checkpoint.
        state: as ``steps.create_state`` draws it.
        preprocess: of the new data; its colour components are kept.

    Returns:
        The state, the preprocessing, and what was done in one line.
    """
    path = job.recipe.run.init_from
    assert path is not None
    loaded = checkpoint.load(path, job.mesh)
    *_, classifier = steps.layer_names(job.network)
    params, what = loaded.params, f"weights from {_said(loaded.path, loaded.meta)}"
    if loaded.meta.classes != list(job.dataset.train.classes):
        params = params | {classifier: state.params[classifier]}
        what += (
            f"; {classifier} is drawn anew: {len(loaded.meta.classes):,} classes "
            f"there, {job.classes:,} or others here"
        )
    expected = jax.device_get(loaded.preprocess)
    kept = expected._replace(components=preprocess.components)
    return state._replace(params=params), kept, what


def _said(path: Path, meta: Meta) -> str:
    step = f", step {meta.step:,}" if meta.step else ""
    return f"{path} ({meta.network}{step})"
