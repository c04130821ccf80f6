"""One pass over a split: what is taken for what, and which mistakes are the surest."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8

from alexnet_jax import classes, data, evaluate, metrics, steps, units
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.data.records import Source
from alexnet_jax.data.splits import evenly
from alexnet_jax.evaluate import Result
from alexnet_jax.networks import network as find_network

TOP = 5  # guesses kept of a picture


@dataclass(frozen=True)
class Shown:
    """A picture and what it is taken for.

    Attributes:
        image: name of the picture.
        pixels: what the network sees.
        truth: name of its class.
        guesses: names and probabilities, the best first.
    """

    image: str
    pixels: UInt8[np.ndarray, "side side colours"]
    truth: str
    guesses: Sequence[tuple[str, float]]

    @property
    def right(self) -> bool:
        """Whether the best guess is the truth."""
        return self.guesses[0][0] == self.truth


@dataclass(frozen=True)
class Pair:
    """A class that is taken for another.

    Attributes:
        truth, guess: their names.
        count: pictures.
        share: of the pictures of ``truth``.
    """

    truth: str
    guess: str
    count: int
    share: float


@dataclass(frozen=True)
class Answers:
    """What a network says of a split.

    Attributes:
        split: its name.
        available: pictures in it.
        result: over those that were looked at, which are fewer where there are many.
        classes: readable names.
        counts: pictures by true class and best guess.
        pairs: the classes most often confused, the first the most.
        mistakes: wrong answers, the surest first.
        samples: evenly spaced pictures.
    """

    split: str
    available: int
    result: Result
    classes: Sequence[str]
    counts: Int[np.ndarray, "classes classes"]
    pairs: Sequence[Pair]
    mistakes: Sequence[Shown]
    samples: Sequence[Shown]


def answer(
    loaded: Loaded,
    source: Source,
    mesh: Mesh,
    *,
    limit: int,
    batch_size: int,
    pairs: int,
    mistakes: int,
    samples: int,
) -> Answers:
    """Ask a network about a split, with the number of views that its recipe names.

    Args:
        loaded: see ``checkpoint.load``.
        source: a split whose classes are among the checkpoint's.
        mesh: the one that ``loaded`` lies on.
        limit: pictures looked at, at most.
        batch_size: pictures computed at once, over all devices.
        pairs: of classes that are named, at most.
        mistakes: that are shown, at most.
        samples: likewise.

    Raises:
        DataError: classes that the checkpoint does not know, or a picture that cannot
            be read.
    """
    available, source = len(source), evenly(source, limit)
    meta = loaded.meta
    names = classes.readable(meta.classes)
    labels, best, shares, result = _run(loaded, source, mesh, batch_size)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels, best[:, 0]), 1)

    def show(index: int) -> Shown:
        return Shown(
            source[index].id,
            units.view(loaded, source, index),
            names[labels[index]],
            [
                (names[guess], float(share))
                for guess, share in zip(best[index], shares[index], strict=True)
            ],
        )

    wrong = np.flatnonzero(best[:, 0] != labels)
    surest = wrong[np.argsort(-shares[wrong, 0], kind="stable")][:mistakes]
    some = (
        np.arange(min(samples, len(source))) * len(source) // min(samples, len(source))
    )
    return Answers(
        split=source.name,
        available=available,
        result=result,
        classes=names,
        counts=counts,
        pairs=_pairs(counts, names, pairs),
        mistakes=[show(int(index)) for index in surest],
        samples=[show(int(index)) for index in some],
    )


def _run(
    loaded: Loaded, source: Source, mesh: Mesh, batch_size: int
) -> tuple[
    Int[np.ndarray, " images"],
    Int[np.ndarray, "images top"],
    Float[np.ndarray, "images top"],
    Result,
]:
    """Return labels, the best guesses with their probabilities, and the result."""
    meta, table = loaded.meta, find_network(loaded.meta.network)
    count, views = len(meta.classes), meta.views[0]
    places = evaluate.class_places(loaded, source)
    run = steps.forward(table, count, mesh, views=views, precision=meta.precision)
    score = jax.jit(metrics.score)
    batches = data.eval_batches(
        source,
        batch_size=evaluate.padded(batch_size, mesh),
        image_size=meta.image_size,
        channels=table.channels,
        resize=meta.resize,
    )
    labels, best, shares, scores = [], [], [], None
    for batch in evaluate.relabelled(batches, places):
        images = jax.numpy.asarray(steps.put_batch(batch, mesh).images)
        found = jax.device_get(run(loaded.params, loaded.preprocess, images))
        part = jax.device_get(score(found, batch.labels, batch.mask))
        scores = part if scores is None else scores.merge(part)
        # A stable order: of classes that tie, the first is named.
        order = np.argsort(-found, axis=1, kind="stable")[:, :TOP]
        labels.append(batch.labels[batch.mask])
        best.append(order[batch.mask])
        shares.append(np.exp(np.take_along_axis(found, order, axis=1))[batch.mask])
    assert scores is not None  # an empty split is refused
    return (
        np.concatenate(labels),
        np.concatenate(best),
        np.concatenate(shares),
        evaluate.result(scores, views),
    )


def _pairs(counts: np.ndarray, names: Sequence[str], limit: int) -> list[Pair]:
    """Return the classes most often taken for another."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    found = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:limit]:
        truth, guess = divmod(int(place), len(names))
        many = int(wrong[truth, guess])
        if many:
            share = many / int(counts[truth].sum())
            found.append(Pair(names[truth], names[guess], many, share))
    return found
