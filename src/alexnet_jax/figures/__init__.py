"""Pictures of a run: what it learned and how."""

from alexnet_jax.figures.curves import learning_curves
from alexnet_jax.figures.kernels import filters
from alexnet_jax.figures.samples import write_samples

__all__ = ["filters", "learning_curves", "write_samples"]
