"""Batches from records: a fixed order, read and decoded in threads by Grain.

Position p of a run is record ``epoch_order(seed, p // n, n)[p % n]``: batches run on
across the end of an epoch, every epoch has a fresh permutation, and a run resumes by
starting at a later step. Nothing depends on the number of threads.

A work item is a slice of a batch, decoded straight into the batch's own arrays: the
Python cost of handing over single records would cap a process far below 16 cores. The
memory of a batch's pictures is filled again once nobody holds that batch, and JAX,
which may read it long after it was given a batch, is somebody.
"""

import threading
from collections.abc import Callable, Generator

import numpy as np

from alexnet_jax.config import Resize
from alexnet_jax.data.memory import ArraySource, cores, decode_record
from alexnet_jax.data.order import epoch_order
from alexnet_jax.data.records import Batch, Source
from alexnet_jax.errors import ConfigError, DataError

Batches = Generator[Batch, None, None]  # a generator, for it can be closed

# Images in a work item, at most. Prepared JPEGs take about 0.3 ms each, so that the
# cost of an item (about 0.1 ms) is small beside its work.
_SLICE = 64


def train_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    channels: int,
    resize: Resize = "crop",
    seed: int,
    num_steps: int,
    start_step: int = 0,
    rows: range | None = None,
    threads: int | None = None,
) -> Batches:
    """Give the batches of a run, from `start_step` to its end.

    Args:
        source: the training split.
        batch_size: images in a batch.
        image_size: side of the pictures in pixels.
        channels: 1 or 3.
        resize: see `decode`.
        seed: of the run; it decides the order.
        num_steps: steps of the whole run; the last batch is that of step
            ``num_steps - 1``.
        start_step: the first step wanted, 0 for a run from the beginning.
        rows: the part of each batch that this process needs; the others are neither
            read nor given. All when None.
        threads: that read and decode; as many as the process has cores when None.

    Returns:
        An iterator of full batches: images ``u8[B, S, S, C]``, labels ``i32[B]``, mask
        all True. Close it (or use it up) to stop its threads.

    Raises:
        DataError: the split is empty.
        ImageError: while iterating, a picture cannot be decoded; the message starts
            with its id.
    """
    count = len(source)
    _check(source, batch_size)
    latest: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def indices(step: int) -> np.ndarray:
        nonlocal latest
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        chosen = np.empty(batch_size, np.int64)
        for epoch in range(positions[0] // count, positions[-1] // count + 1):
            if latest[0] != epoch:
                latest = epoch, epoch_order(seed, epoch, count)
            here = positions // count == epoch
            chosen[here] = latest[1][positions[here] % count]
        return chosen[own.start : own.stop]

    own = range(batch_size) if rows is None else rows
    steps = range(start_step, num_steps)
    square = (image_size, image_size, channels)
    return _batches(source, indices, steps, len(own), square, resize, threads)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    channels: int,
    resize: Resize = "crop",
    rows: range | None = None,
    threads: int | None = None,
) -> Batches:
    """Give every record of a split once, in its own order.

    Args:
        source: the split.
        batch_size: images in a batch.
        image_size: side of the pictures in pixels.
        channels: 1 or 3.
        resize: see `decode`.
        rows: the part of each batch that this process needs; all when None.
        threads: that read and decode; as many as the process has cores when None.

    Returns:
        An iterator of batches as `train_batches` gives; the last one is padded with
        zeros where its mask is False.

    Raises:
        DataError: the split is empty.
        ImageError: while iterating, a picture cannot be decoded; the message starts
            with its id.
    """
    count = len(source)
    _check(source, batch_size)

    def indices(step: int) -> np.ndarray:
        start = step * batch_size
        return np.arange(start + own.start, min(start + own.stop, count))

    own = range(batch_size) if rows is None else rows
    steps = range(-(-count // batch_size))
    square = (image_size, image_size, channels)
    return _batches(source, indices, steps, len(own), square, resize, threads)


def _check(source: Source, batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}; give at least 1")
    if not len(source):
        raise DataError(f"{source.name} has no images")


def _batches(
    source: Source,
    indices: Callable[[int], np.ndarray],
    steps: range,
    batch_size: int,
    square: tuple[int, int, int],
    resize: Resize,
    threads: int | None,
) -> Batches:
    """Choose the way: a take from an array, or threads that decode."""
    if isinstance(source, ArraySource) and source.images.shape[1:] == square:
        return _from_array(source, indices, steps, batch_size)
    empty = _Empty(indices, batch_size, square)
    return _from_threads(source, empty, steps, resize, threads or cores())


def _from_array(
    source: ArraySource,
    indices: Callable[[int], np.ndarray],
    steps: range,
    batch_size: int,
) -> Batches:
    for step in steps:
        chosen = indices(step)
        images, labels = source.images[chosen], source.labels[chosen]
        missing = batch_size - len(chosen)
        if missing:
            images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
            labels = np.pad(labels, (0, missing))
        yield Batch(images, labels, np.arange(batch_size) < len(chosen))


class _Lease:
    """Memory that goes back where it came from with the last array that shows it."""

    def __init__(self, memory: np.ndarray, free: list[np.ndarray]):
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._free = memory, free

    def __del__(self) -> None:
        self._free.append(self._memory)


class _Empty:
    """The batches that are being filled, by step.

    Attributes:
        batch_size: images in a batch.
        square: shape of a picture.
    """

    def __init__(
        self,
        indices: Callable[[int], np.ndarray],
        batch_size: int,
        square: tuple[int, int, int],
    ):
        self.batch_size = batch_size
        self.square = square
        self._indices = indices
        self._open: dict[int, tuple[Batch, np.ndarray]] = {}
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()

    def get(self, step: int) -> tuple[Batch, np.ndarray]:
        """Return the batch of a step, made at the first call, and its indices."""
        with self._lock:
            if step not in self._open:
                chosen = self._indices(step)
                # New memory costs more than it seems: the system clears each page.
                memory = self._free.pop() if self._free else self._new()
                batch = Batch(
                    images=np.asarray(_Lease(memory, self._free)),
                    labels=np.zeros(self.batch_size, np.int32),
                    mask=np.arange(self.batch_size) < len(chosen),
                )
                batch.images[len(chosen) :] = 0
                self._open[step] = batch, chosen
            return self._open[step]

    def _new(self) -> np.ndarray:
        # Empty, not zeros: NumPy asks for huge pages then.
        return np.empty((self.batch_size, *self.square), np.uint8)

    def pop(self, step: int) -> Batch:
        """Hand over a batch that is full."""
        with self._lock:
            return self._open.pop(step)[0]


def _from_threads(
    source: Source, empty: _Empty, steps: range, resize: Resize, threads: int
) -> Batches:
    import grain  # takes over a second; only sources that must be decoded pay it

    rows = min(_SLICE, -(-empty.batch_size // threads))
    parts = -(-empty.batch_size // rows)
    image_size, _, channels = empty.square

    def fill(item: int) -> int:
        step, part = steps[item // parts], item % parts
        batch, chosen = empty.get(step)
        for row in range(part * rows, min((part + 1) * rows, len(chosen))):
            record = source[int(chosen[row])]
            decode_record(record, image_size, channels, resize, batch.images[row])
            batch.labels[row] = record.label
        return item

    # Two batches ahead, and work for every thread: at most that much memory is used.
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(2 * parts, 2 * threads)
    )
    items = iter(
        grain.MapDataset.range(len(steps) * parts)
        .map(fill)
        .to_iter_dataset(read_options=options)
    )
    try:
        for step in steps:
            for _ in range(parts):
                next(items)
            yield empty.pop(step)
    finally:
        items.close()
