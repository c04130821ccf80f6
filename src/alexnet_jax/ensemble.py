"""Several checkpoints as one: the weighted mean of their probabilities.

Each has its own network, preprocessing and picture size. Weights can be searched for
on a split as the released 2012 code does (avg-valid.py).
"""

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from alexnet_jax import data, steps
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.data.memory import in_threads
from alexnet_jax.data.records import Batch, Source
from alexnet_jax.errors import ConfigError
from alexnet_jax.evaluate import (
    Result,
    choose_views,
    class_places,
    padded,
    relabelled,
    result,
)
from alexnet_jax.metrics import Scores, score
from alexnet_jax.networks import network as find_network

STEP = 0.05
PASSES = 5
_CHUNK = 2048  # images scored at once from the table of log-probabilities


class Member(NamedTuple):
    """A checkpoint of an ensemble, on its devices.

    Attributes:
        loaded: see ``checkpoint.load``.
        mesh: the one that ``loaded`` lies on.
    """

    loaded: Loaded
    mesh: Mesh


@dataclass(frozen=True)
class Weighed:
    """What an ensemble found.

    Attributes:
        result: over the images so far.
        weights: of the checkpoints, as they were given or found.
        searching: whether all images have been seen and weights are being tried.
    """

    result: Result
    weights: tuple[float, ...]
    searching: bool = False


def check_weights(
    weights: Sequence[float] | Literal["search"] | None, count: int
) -> tuple[float, ...]:
    """Return a weight for each checkpoint: those given, or equal ones.

    Args:
        weights: None for equal ones; ``search`` begins with them.
        count: of checkpoints.

    Raises:
        ConfigError: there are too few or too many, or they cannot weigh anything.
    """
    if weights is None or weights == "search":
        return (1.0,) * count
    shown = ",".join(f"{weight:g}" for weight in weights)
    if len(weights) != count:
        raise ConfigError(
            f"--weights {shown}: {len(weights)} given for {count} checkpoints; give "
            "one each, in order"
        )
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise ConfigError(
            f"--weights {shown}: give numbers from 0 up, at least one above 0"
        )
    return tuple(map(float, weights))


def check_members(members: Sequence[tuple[Path, Sequence[str]]]) -> None:
    """Check that checkpoints can be averaged: that they have the same classes.

    Args:
        members: path and names of the classes of each.

    Raises:
        ConfigError: they have not; the message names the first difference.
    """
    (first_path, first), *others = members
    for path, classes in others:
        if len(classes) != len(first):
            raise ConfigError(
                f"{path} has {len(classes)} classes, {first_path} has {len(first)}; "
                "an ensemble needs the same ones, in the same order"
            )
        for place, (one, other) in enumerate(zip(first, classes, strict=True)):
            if one != other:
                raise ConfigError(
                    f"class {place} is {other!r} in {path} but {one!r} in {first_path};"
                    " an ensemble needs the same ones, in the same order"
                )


def evaluate(
    members: Sequence[Member],
    source: Source,
    *,
    weights: Sequence[float] | Literal["search"] | None = None,
    views: int | None = None,
    batch_size: int = 128,
) -> Iterator[Weighed]:
    """Test an ensemble on a split, every image once.

    All members are held on the devices at once; pictures that two want alike are
    decoded once. A search keeps the log-probabilities of the whole split in a temporary
    file, four bytes a class, image and member.

    Args:
        members: the checkpoints; their classes must be the same.
        source: a split whose classes are among theirs.
        weights: of the members; None for the plain mean; ``search`` for those with
            the lowest top-5 error on this very split, see ``search``.
        views: 1 or 10; the checkpoints' default when None.
        batch_size: images in one step over all devices.

    Yields:
        The result so far; the last one counts every image once and, after a search,
        has the weights found.

    Raises:
        ConfigError: classes, weights or views that do not fit each other, or too
            little space for a search.
        DataError: classes that the checkpoints do not know, or an image that cannot be
            read.
    """
    check_members([(m.loaded.path, m.loaded.meta.classes) for m in members])
    chosen = check_weights(weights, len(members))
    views = common_views([m.loaded.meta.views for m in members], views)
    batches = _log_probs(members, source, views, batch_size)
    if weights != "search":
        total = None
        for batch, log_probs in batches:
            scores = _score(log_probs, batch.labels, batch.mask, chosen)
            total = scores if total is None else total.merge(scores)
            yield Weighed(result(total, views), chosen)
        return
    shape = (len(members), len(source), len(members[0].loaded.meta.classes))
    with tempfile.TemporaryDirectory(prefix="alexnet-") as folder:
        _check_space(Path(folder), shape)
        table = np.memmap(Path(folder) / "log_probs", np.float32, "w+", shape=shape)
        labels = np.empty(len(source), np.int32)
        total, done = None, 0
        for batch, log_probs in batches:
            scores = _score(log_probs, batch.labels, batch.mask, chosen)
            total = scores if total is None else total.merge(scores)
            end = done + int(batch.mask.sum())
            table[:, done:end] = log_probs[:, : end - done]
            labels[done:end] = batch.labels[: end - done]
            done = end
            yield Weighed(result(total, views), chosen)
        latest = None
        for chosen in search(table, labels):
            if chosen == latest:
                continue
            latest, total = chosen, None
            for start in range(0, done, _CHUNK):
                end = min(start + _CHUNK, done)
                mask = np.ones(end - start, bool)
                scores = _score(table[:, start:end], labels[start:end], mask, chosen)
                total = scores if total is None else total.merge(scores)
            assert total is not None
            yield Weighed(result(total, views), chosen, searching=True)
        del table


def common_views(allowed: Sequence[list[int]], views: int | None) -> int:
    """Return the number of views that all members use.

    Args:
        allowed: of each member, its default first.
        views: what was asked for; their default when None.

    Raises:
        ConfigError: one does not allow it, or their defaults differ.
    """
    chosen = [choose_views(own, views) for own in allowed]
    if len(set(chosen)) > 1:
        raise ConfigError(
            "some of the checkpoints are tested with 1 view, others with 10; say which "
            "with --views"
        )
    return chosen[0]


def search(
    log_probs: Float[np.ndarray, "members images classes"],
    labels: Int[np.ndarray, " images"],
) -> Iterator[tuple[float, ...]]:
    """Search the weights with the lowest top-5 error, as the 2012 code does.

    Coordinate descent: beginning with .5 for all, the members' weights are tried in
    turn from 0 to 1 in steps of .05, and the first of the best is kept if it is better.
    It ends when a round changes nothing, or after five.

    Args:
        log_probs: of each member; may lie in a file.
        labels: the true classes.

    Yields:
        The best weights after each member's turn; the last ones are the result.
    """
    members = len(log_probs)
    candidates = [round(STEP * step, 2) for step in range(1 + round(1 / STEP))]
    weights = [0.5] * members
    best = _top5_errors(log_probs, labels, weights, 0, [weights[0]])[0]
    unchanged = 0
    for turn in range(PASSES * members):
        member = turn % members
        errors = _top5_errors(log_probs, labels, weights, member, candidates)
        place = int(np.argmin(errors))
        if errors[place] < best:
            best, weights[member], unchanged = errors[place], candidates[place], 0
        else:
            unchanged += 1
        yield tuple(weights)
        if unchanged >= members:
            return


def _top5_errors(
    log_probs: np.ndarray,
    labels: np.ndarray,
    weights: Sequence[float],
    member: int,
    candidates: Sequence[float],
) -> np.ndarray:
    """Count the top-5 errors with each candidate in the place of a member's weight."""

    def of(images: range) -> np.ndarray:
        chosen = slice(images.start, images.stop)
        true = labels[chosen, None]
        # How far each class is above the true one, of which only the sign counts.
        shares = [np.exp(one[chosen]) for one in log_probs]
        leads = [own - np.take_along_axis(own, true, axis=1) for own in shares]
        own, fixed = leads.pop(member), [*weights[:member], *weights[member + 1 :]]
        rest = np.zeros_like(own)
        for weight, lead in zip(fixed, leads, strict=True):
            rest += np.float32(weight) * lead
        errors = np.empty(len(candidates))
        for place, weight in enumerate(candidates):
            lead = rest + np.float32(weight) * own
            better = np.count_nonzero(lead > 0, axis=1)
            ties = np.count_nonzero(lead == 0, axis=1)  # the true class is one
            right = np.clip((5 - better) / np.maximum(ties, 1), 0, 1)
            errors[place] = np.sum(1 - right)
        return errors

    return np.sum(in_threads(of, len(labels)), axis=0)


def _log_probs(
    members: Sequence[Member], source: Source, views: int, batch_size: int
) -> Iterator[tuple[Batch, Float[np.ndarray, "members batch classes"]]]:
    """Yield each batch with what every member says, one batch behind the devices."""
    size = math.lcm(*(padded(1, member.mesh) for member in members))
    size *= -(-batch_size // size)
    places = class_places(members[0].loaded, source)
    runs, wanted = [], []
    streams: dict[tuple[int, int, str], Iterator[Batch]] = {}
    for loaded, mesh in members:
        meta, table = loaded.meta, find_network(loaded.meta.network)
        runs.append(
            steps.forward(
                table, len(meta.classes), mesh, views=views, precision=meta.precision
            )
        )
        wanted.append((meta.image_size, table.channels, meta.resize))
        if wanted[-1] not in streams:
            streams[wanted[-1]] = data.eval_batches(
                source,
                batch_size=size,
                image_size=meta.image_size,
                channels=table.channels,
                resize=meta.resize,
            )
    pending = None
    for alike in zip(*streams.values(), strict=True):
        batches = dict(zip(streams, alike, strict=True))
        started = []
        for (loaded, mesh), run, which in zip(members, runs, wanted, strict=True):
            images = steps.put_batch(batches[which], mesh).images
            started.append(run(loaded.params, loaded.preprocess, images))
        if pending is not None:
            yield pending[0], np.stack(jax.device_get(pending[1]))
        (batch,) = relabelled(iter(alike[:1]), places)
        pending = batch, started
    if pending is not None:
        yield pending[0], np.stack(jax.device_get(pending[1]))


@jax.jit
def _mean_scores(log_probs, labels, mask, log_weights) -> Scores:
    """Score the weighted mean; in logarithms, where no small share is lost."""
    mean = jax.nn.logsumexp(log_probs + log_weights[:, None, None], axis=0)
    return score(mean, labels, mask)


def _score(
    log_probs: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    weights: Sequence[float],
) -> Scores:
    """Score a batch on the host's side: sums as host numbers."""
    with np.errstate(divide="ignore"):  # a weight of 0 leaves a member out
        logs = np.log(np.array(weights, np.float32) / np.sum(weights, dtype=np.float32))
    return jax.device_get(_mean_scores(log_probs, labels, mask, logs))


def _check_space(folder: Path, shape: tuple[int, ...]) -> None:
    needed, free = math.prod(shape) * 4, shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"the search keeps {needed / 1e9:.1f} GB of probabilities in "
            f"{folder.parent}, which has {free / 1e9:.1f} GB free; set TMPDIR to a "
            "larger disk or choose a smaller --eval-split"
        )
