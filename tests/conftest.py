"""Shared by all tests: eight virtual CPU devices, a compile cache, one trained run.

Nothing of alexnet_jax is imported at module level: the type-checking import hook of
``--jaxtyping-packages`` has to come first.
"""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).resolve().parents[1] / ".cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import pytest


@pytest.fixture(scope="module")
def quick_compile() -> Iterator[None]:
    """Compile in half the time, without most of XLA's optimisations."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of the digits recipe after 60 steps, saved every 20."""
    from alexnet_jax import recipes
    from alexnet_jax.train import fit

    run = tmp_path_factory.mktemp("runs") / "digits-1"
    recipe = recipes.load(
        "digits", {"run.steps": 60, "run.save_every": 20 / (1437 / 32)}
    )
    for _ in fit(recipe, run, devices=1):
        pass
    return run
