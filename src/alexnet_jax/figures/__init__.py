"""Pictures of a run: what it learned and how."""

from alexnet_jax.figures.answers import Predicted, Shown, neighbors, predictions
from alexnet_jax.figures.canvas import check_picture
from alexnet_jax.figures.curves import learning_curves
from alexnet_jax.figures.differences import Bar, differences
from alexnet_jax.figures.epochs import Line, error_by_epoch
from alexnet_jax.figures.kernels import Chroma, chroma, filters
from alexnet_jax.figures.patches import Unit, units
from alexnet_jax.figures.samples import write_samples

__all__ = [
    "Bar",
    "Chroma",
    "Line",
    "Predicted",
    "Shown",
    "Unit",
    "check_picture",
    "chroma",
    "differences",
    "error_by_epoch",
    "filters",
    "learning_curves",
    "neighbors",
    "predictions",
    "units",
    "write_samples",
]
