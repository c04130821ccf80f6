"""Pictures of a run: what it learned and how."""

from alexnet_jax.figures.answers import Predicted, Shown, neighbors, predictions
from alexnet_jax.figures.canvas import check_picture
from alexnet_jax.figures.curves import learning_curves
from alexnet_jax.figures.kernels import Chroma, chroma, filters
from alexnet_jax.figures.patches import Unit, units
from alexnet_jax.figures.samples import write_samples

__all__ = [
    "Chroma",
    "Predicted",
    "Shown",
    "Unit",
    "check_picture",
    "chroma",
    "filters",
    "learning_curves",
    "neighbors",
    "predictions",
    "units",
    "write_samples",
]
