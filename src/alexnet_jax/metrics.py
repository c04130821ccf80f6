"""What is counted: loss, errors and log-probability, as sums with masks.

Sums, never means of means: they add up over devices, batches and hosts, and a mask
keeps padding out, so every image counts once whatever the batch size.
"""

import jax.numpy as jnp
from clu import metrics as clu_metrics
from flax import struct
from jaxtyping import Array, Bool, Float, Int


@struct.dataclass
class Scores(clu_metrics.Collection):
    """Sums over images; ``compute()`` gives the means.

    ``merge`` adds two; ``top1_error.count`` is the number of images.
    """

    # A call as annotation is how clu names its sources; pyright knows no such thing.
    top1_error: clu_metrics.Average.from_output("top1_error")  # pyright: ignore[reportInvalidTypeForm]
    top5_error: clu_metrics.Average.from_output("top5_error")  # pyright: ignore[reportInvalidTypeForm]
    log_prob: clu_metrics.Average.from_output("log_prob")  # pyright: ignore[reportInvalidTypeForm]


def error(
    log_probs: Float[Array, "batch classes"], labels: Int[Array, " batch"], top: int
) -> Float[Array, " batch"]:
    """Return each image's error among the ``top`` best classes, 0 to 1.

    Ties share: a true class that ties with n others for the last place is right
    with the probability that a fair draw would choose it (the 2012 code's rule for
    top-1), so a network that gives all classes the same score gains nothing by it.
    Not-a-number is wrong.

    Args:
        log_probs: any scores that rank the classes, ``f32[B, C]``.
        labels: ``i32[B]``.
        top: 1 or 5.
    """
    true = jnp.take_along_axis(log_probs, labels[:, None], axis=1)
    better = jnp.sum(log_probs > true, axis=1)
    ties = jnp.maximum(jnp.sum(log_probs == true, axis=1), 1)
    right = jnp.clip((top - better) / ties, 0, 1)
    return jnp.where(jnp.isnan(true[:, 0]), 1.0, 1 - right)


def score(
    log_probs: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    mask: Bool[Array, " batch"],
) -> Scores:
    """Score a batch.

    Args:
        log_probs: natural logarithms of probabilities, ``f32[B, C]``.
        labels: ``i32[B]``.
        mask: False for padding.
    """
    true = jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
    return Scores.single_from_model_output(
        top1_error=error(log_probs, labels, 1),
        top5_error=error(log_probs, labels, 5),
        log_prob=true,
        mask=mask,
    )
