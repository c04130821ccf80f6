"""Testing: every image once, on any batch size and any mesh."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax import classes, data, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.data.records import Batch, Source
from alexnet_jax.errors import ConfigError, DataError
from alexnet_jax.metrics import Scores
from alexnet_jax.model import Params
from alexnet_jax.networks import network as find_network

STRANGERS = 10  # classes that a message lists at most

EvalStep = Callable[[Params, Preprocess, Batch], Scores]


@dataclass(frozen=True)
class Result:
    """What an evaluation found; errors are fractions between 0 and 1.

    Attributes:
        images: how many were counted.
        top1_error: share whose true class is not the best guess.
        top5_error: share whose true class is not among the five best.
        log_prob: mean natural logarithm of the true class's probability.
        views: 1 (centre) or 10, whose softmax outputs are averaged.
    """

    images: int
    top1_error: float
    top5_error: float
    log_prob: float
    views: int


def score_batches(
    step: EvalStep,
    params: Params,
    preprocess: Preprocess,
    batches: Iterator[Batch],
    mesh: Mesh,
) -> Iterator[Scores]:
    """Yield the scores so far, after each batch, as host numbers.

    One batch is on its way to the devices while another is being computed.
    """

    def one_ahead() -> Iterator[Scores]:
        pending: Scores | None = None
        for batch in batches:
            scores = step(params, preprocess, steps.put_batch(batch, mesh))
            if pending is not None:
                yield jax.device_get(pending)
            pending = scores
        if pending is not None:
            yield jax.device_get(pending)

    total = None
    for scores in one_ahead():
        total = scores if total is None else total.merge(scores)
        yield total


def padded(batch_size: int, mesh: Mesh) -> int:
    """Round a batch size up to one that ``mesh`` divides; masks keep padding out."""
    shares = mesh.shape["data"]
    return -(-batch_size // shares) * shares


def result(scores: Scores, views: int) -> Result:
    """Turn sums into means."""
    means = {name: float(value) for name, value in scores.compute().items()}
    return Result(images=int(scores.top1_error.count), views=views, **means)


def class_places(loaded: Loaded, source: Source) -> np.ndarray:
    """Find a data set's classes among those that a checkpoint knows.

    Args:
        loaded: the checkpoint.
        source: a split; its classes may be some of the checkpoint's, in any order.

    Returns:
        ``i32[classes of the split]``: the checkpoint's number of each; see
        ``classes.match``.

    Raises:
        DataError: the checkpoint does not know some; the message lists them.
    """
    places, strangers = classes.match(source.classes, loaded.meta.classes)
    if strangers:
        shown = ", ".join(strangers[:STRANGERS])
        more = len(strangers) - STRANGERS
        known = classes.readable(loaded.meta.classes)
        raise DataError(
            f"{source.name} has {len(strangers)} class{'es' * (len(strangers) > 1)} "
            f"that the checkpoint {loaded.path} does not know: {shown}"
            f"{f' and {more} more' if more > 0 else ''}; it knows {len(known)}, such "
            f"as {', '.join(known[:3])}: name them as it does, or evaluate on the data "
            "it was trained for"
        )
    return np.array(places, np.int32)


def relabelled(batches: Iterator[Batch], places: np.ndarray) -> Iterator[Batch]:
    """Give the batches the labels that a checkpoint has for their classes.

    Args:
        batches: of a split.
        places: see ``class_places``.
    """
    for batch in batches:
        yield batch._replace(labels=places[batch.labels])


def choose_views(allowed: list[int], views: int | None) -> int:
    """Return the number of views: what was asked for, or the default.

    Raises:
        ConfigError: the recipe's data does not allow it.
    """
    if views is None:
        return allowed[0]
    if views not in allowed:
        reason = (
            "ten views need a border to crop from and pictures that may be mirrored"
            if views == 10
            else "choose 1 or 10"
        )
        raise ConfigError(
            f"--views {views}: this checkpoint allows "
            f"{' or '.join(map(str, allowed))}; {reason}"
        )
    return views


def evaluate(
    loaded: Loaded,
    source: Source,
    mesh: Mesh,
    *,
    views: int | None = None,
    batch_size: int = 128,
    precision: str | None = None,
) -> Iterator[Result]:
    """Test a checkpoint on a split.

    Args:
        loaded: see ``checkpoint.load``.
        source: a split whose classes are among the checkpoint's; pictures are scored
            among all of the checkpoint's classes.
        mesh: the one that ``loaded`` lies on.
        views: 1 or 10; the checkpoint's default when None.
        batch_size: images in one step over all devices; rounded up to a number that
            the mesh divides.
        precision: ``f32`` or ``bf16``; as trained when None.

    Yields:
        The result over the images so far; the last one counts every image once.

    Raises:
        ConfigError: views that cannot be.
        DataError: classes that the checkpoint does not know, or an image that cannot
            be read.
    """
    places = class_places(loaded, source)
    meta, table = loaded.meta, find_network(loaded.meta.network)
    views = choose_views(meta.views, views)
    step = steps.eval_step(
        table,
        len(meta.classes),
        mesh,
        views=views,
        precision=precision or meta.precision,
    )
    batches = data.eval_batches(
        source,
        batch_size=padded(batch_size, mesh),
        image_size=meta.image_size,
        channels=table.channels,
        resize=meta.resize,
    )
    batches = relabelled(batches, places)
    for scores in score_batches(step, loaded.params, loaded.preprocess, batches, mesh):
        yield result(scores, views)
