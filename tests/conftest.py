"""Shared by all tests: eight virtual CPU devices, quick compiles, one trained run.

Nothing of alexnet_jax is imported at module level: the type-checking import hook of
``--jaxtyping-packages`` has to come first.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).resolve().parents[1] / ".cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Compiles in half the time, without most of XLA's optimisations. Only the processes
# that test_cli_train.py interrupts and kills are compiled as a user's are.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")

import pytest


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of the digits recipe after 60 steps, saved every 20.

    Trained by the first process that asks for it; nobody may write into it.
    """
    from alexnet_jax import recipes
    from alexnet_jax.train import fit

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each has its own inside a shared one
        root = root.parent
    run = root / "digits-1"
    with open(root / "digits-1.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (run / "samples").exists():
            recipe = recipes.load(
                "digits", {"run.steps": 60, "run.save_every": 20 / (1437 / 32)}
            )
            for _ in fit(recipe, run, devices=1):
                pass
    return run


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``alexnet train`` only name its page: making it takes as long as a run."""
    from alexnet_cli import report, train

    monkeypatch.setattr(train, "_report", lambda done, *_: done.run_dir / report.NAME)


@pytest.fixture(scope="module")
def compile_once() -> Iterator[None]:
    """Compile alike runs once in a module.

    What is compiled is a function of the recipe and the mesh, less what only says when
    to stop, to test and to save.
    """
    import jax

    from alexnet_jax import job, recipes, steps, train
    from alexnet_jax.config import RunConfig

    free = {"steps": None, "eval_every": 1.0, "save_every": 1.0, "keep": 1}

    def once(make: Any, address: Any) -> Any:
        made = {}

        def remembered(*arguments: Any, **options: Any) -> Any:
            key = address(*arguments, **options)
            if key not in made:
                made[key] = make(*arguments, **options)
            return made[key]

        return remembered

    def of_job(job: Any) -> Any:
        same = job.recipe.run.model_copy(update=free)
        plain = job.recipe.model_copy(update={"run": same})
        return recipes.dump(plain), job.mesh

    def of_state(recipe: Any, table: Any, classes: int, mesh: Any) -> Any:
        return recipes.dump(recipe.model_copy(update={"run": RunConfig()})), mesh

    def create(recipe: Any, table: Any, classes: int, mesh: Any) -> Any:
        where = steps.abstract_state(recipe, table, classes, mesh)
        return jax.tree.map(
            lambda array, leaf: jax.device_put(array.copy(), leaf.sharding),
            drawn(recipe, table, classes, mesh),
            where,
        )

    draw = steps.create_state
    drawn = once(
        lambda *arguments: jax.device_get(draw(*arguments)),
        lambda *arguments: (*of_state(*arguments), arguments[0].run.seed),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compile_step", once(job.compile_step, of_job))
        patch.setattr(steps, "abstract_state", once(steps.abstract_state, of_state))
        patch.setattr(steps, "create_state", create)
        patch.setattr(
            steps,
            "eval_step",
            once(steps.eval_step, lambda *fixed, **options: (*fixed, *options.items())),
        )
        yield
