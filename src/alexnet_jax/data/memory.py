"""Pixels of a whole split in memory, so that nothing is decoded twice."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from alexnet_jax.config import Resize
from alexnet_jax.data.decode import decode
from alexnet_jax.data.records import Record, Source
from alexnet_jax.errors import ImageError

# A split whose decoded pixels take at most this many bytes is kept in memory: CIFAR-10
# is 147 MiB; 5,461 pictures of 256x256 still fit.
MAX_BYTES = 2**30

T = TypeVar("T")

_CHUNK = 64  # images a work item: long enough to hide the cost of handing it over


@dataclass(frozen=True)
class ArraySource:
    """A split whose pixels are one array.

    Attributes:
        name: what the user asked for.
        classes: names of the classes, in label order.
        images: ``u8[N, S, S, C]``.
        labels: ``i32[N]``.
        ids: the N names of the pictures.
    """

    name: str
    classes: Sequence[str]
    images: np.ndarray
    labels: np.ndarray
    ids: Sequence[str]

    def __len__(self) -> int:
        """Count the records."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        """Return one record; its image is a view ``u8[S, S, C]``."""
        return Record(self.images[index], int(self.labels[index]), self.ids[index])


def in_memory(
    source: Source,
    image_size: int,
    channels: int,
    resize: Resize = "crop",
    threads: int | None = None,
) -> Source:
    """Decode a whole split once, if it fits.

    Args:
        source: the split.
        image_size: side of the pictures in pixels.
        channels: 1 or 3.
        resize: see `decode`.
        threads: that decode; as many as the process has cores when None.

    Returns:
        An `ArraySource` of the same records where their pixels take at most
        `MAX_BYTES`, else `source` itself.

    Raises:
        ImageError: a picture cannot be decoded; the message starts with its id.
    """
    shape = (len(source), image_size, image_size, channels)
    if isinstance(source, ArraySource) and source.images.shape == shape:
        return source
    if np.prod(shape, dtype=np.int64) > MAX_BYTES:
        return source
    images = np.empty(shape, np.uint8)
    labels = np.empty(len(source), np.int32)
    ids = [""] * len(source)

    def fill(indices: range) -> None:
        for index in indices:
            record = source[index]
            decode_record(record, image_size, channels, resize, images[index])
            labels[index] = record.label
            ids[index] = record.id

    in_threads(fill, len(source), threads)
    return ArraySource(source.name, source.classes, images, labels, ids)


def decode_record(
    record: Record,
    image_size: int,
    channels: int,
    resize: Resize = "crop",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Decode a record's picture; errors name the record.

    Args:
        record: one picture of a source.
        image_size: side of the result in pixels.
        channels: 1 or 3.
        resize: see `decode`.
        out: see `decode`.

    Returns:
        ``u8[image_size, image_size, channels]``.

    Raises:
        ImageError: it cannot be decoded; the message starts with the record's id.
    """
    try:
        return decode(record.image, image_size, channels, resize, out)
    except ImageError as error:
        raise ImageError(f"{record.id}: {error}") from None


def in_threads(
    work: Callable[[range], T], count: int, threads: int | None = None
) -> list[T]:
    """Run `work` in threads on ranges that together cover ``range(count)``.

    Args:
        work: called with each range of consecutive indices.
        count: of indices.
        threads: at work; as many as the process has cores when None.

    Returns:
        What `work` returned, in order; the first exception in order is raised, once
        the threads are done, and ranges not yet begun are dropped.
    """
    starts = range(0, count, _CHUNK)
    with ThreadPoolExecutor(threads or cores(), "alexnet-data") as pool:
        try:
            return list(
                pool.map(lambda i: work(range(i, min(i + _CHUNK, count))), starts)
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
