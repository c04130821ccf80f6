"""Bring a data set to small squares once, so that a run decodes little (paper sec. 2).

Every picture becomes a JPEG with its shorter side scaled to `image_size` and the centre
square kept; the mean image and the RGB covariance of the training split are measured
in the same pass. The work is spread over threads: decoding, scaling and encoding leave
Python's lock, and a thread needs no start-up and dies with the process. It can be
stopped at any moment, by kill -9 too, and continued by the same call.
"""

import itertools
import os
import queue
import shutil
import threading
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from alexnet_jax.config import DataConfig
from alexnet_jax.data import prepared, shards, store
from alexnet_jax.data.memory import cores
from alexnet_jax.data.records import Source
from alexnet_jax.errors import ConfigError, DataError

# The JPEG quality of the pictures that the 2012 network was trained on, as the names of
# its logs' batches say (jpg_valid_2010_85).
QUALITY = 85
IMAGE_SIZE = 256  # paper section 2
MAX_CORRUPT = 0.01


@dataclass(frozen=True)
class Started:
    """The source is open and the work begins.

    Attributes:
        total: pictures in all splits.
        done: those that an earlier call has finished, corrupt ones included.
        corrupt: how many of these were left out.
        splits: pictures by split.
    """

    total: int
    done: int
    corrupt: int
    splits: Mapping[str, int]


@dataclass(frozen=True)
class Progress:
    """Some more pictures are done.

    Attributes:
        done: pictures so far, corrupt ones included.
        total: pictures in all splits.
        corrupt: left out so far.
        split: that the last ones belong to.
    """

    done: int
    total: int
    corrupt: int
    split: str


@dataclass(frozen=True)
class Skipped:
    """A picture could not be decoded and is left out.

    Attributes:
        id: which one.
        reason: why, in one line.
        split: that it belongs to.
    """

    id: str
    reason: str
    split: str


@dataclass(frozen=True)
class Finished:
    """The store is complete.

    Attributes:
        out: its folder.
        images: stored pictures by split.
        corrupt: pictures left out; ``corrupt.txt`` lists them.
        bytes: size of the records.
        already: True if it was complete before this call, which then did nothing.
    """

    out: Path
    images: Mapping[str, int]
    corrupt: int
    bytes: int
    already: bool = False


Event = Started | Progress | Skipped | Finished


def prepare(
    spec: str,
    out: str | os.PathLike[str],
    *,
    data_dir: str | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    image_size: int = IMAGE_SIZE,
    quality: int = QUALITY,
    max_corrupt: float = MAX_CORRUPT,
    workers: int | None = None,
) -> Generator[Event, None, None]:
    """Write the store ``prepared:OUT``, or continue to.

    Args:
        spec: of the source, such as ``imagenet2012`` or ``folder:PATH``.
        out: folder of the store; it must not exist, be empty, or hold the same store,
            unfinished or finished.
        data_dir: that tfds's sets lie in; None for tfds's default.
        train_split: stored as ``train``; the source's default when None.
        eval_split: stored as ``validation`` or ``test``; likewise.
        image_size: side of the stored pictures in pixels.
        quality: of the JPEGs, 1 to 100.
        max_corrupt: the largest share of pictures that may be left out.
        workers: threads; as many as the process has cores when None.

    Yields:
        `Started`, then `Progress` and `Skipped` as the work goes on, then `Finished`.
        Closing the iterator stops the work; what is finished is kept.

    Raises:
        ConfigError: a value is out of range, or `spec` is not known.
        DataError: the source is missing; `out` holds something else; too many pictures
            are corrupt; the disk is full or cannot be written.
    """
    _check_ranges(image_size, quality, max_corrupt, workers)
    out = Path(out).expanduser()
    request = {
        "format": prepared.FORMAT,
        "source": _absolute(spec),
        "train_split": train_split,
        "eval_split": eval_split,
        "image_size": image_size,
        "quality": quality,
    }
    settings = store.known_settings(out, request)
    complete = prepared.read_json(out / prepared.COMPLETE) if settings else None
    if complete is not None:
        shutil.rmtree(out / shards.WORK, ignore_errors=True)
        yield Finished(out, **complete, already=True)
        return

    from alexnet_jax.data import open_dataset

    dataset = open_dataset(
        DataConfig(
            spec=spec,
            dir=data_dir,
            train_split=train_split,
            eval_split=eval_split,
            image_size=image_size,
        )
    )
    sources = {"train": dataset.train, dataset.eval_role: dataset.eval}
    with store.locked(out):
        store.settle(out, settings, request, sources)
        yield from _make_shards(
            out, sources, image_size, quality, max_corrupt, workers or cores()
        )
        yield Finished(out, **store.finish(out, spec, sources, image_size))


def _check_ranges(
    image_size: int, quality: int, max_corrupt: float, workers: int | None
) -> None:
    if not 1 <= image_size <= 4096:
        raise ConfigError(f"image_size={image_size}: give 1 to 4096 pixels")
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality={quality}: a JPEG's quality is 1 to 100")
    if not 0 <= max_corrupt <= 1:
        raise ConfigError(f"max_corrupt={max_corrupt}: give a share from 0 to 1")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}: give at least 1")


def _absolute(spec: str) -> str:
    kind, colon, path = spec.partition(":")
    if kind in ("folder", "prepared") and colon:
        return f"{kind}:{Path(path).expanduser().resolve()}"
    return spec


def _make_shards(
    out: Path,
    sources: Mapping[str, Source],
    image_size: int,
    quality: int,
    max_corrupt: float,
    workers: int,
) -> Generator[Event, None, None]:
    """Make the shards that have no note yet, in threads, and tell of it."""
    counts = {split: len(source) for split, source in sources.items()}
    total, done = sum(counts.values()), 0
    skipped: store.Skips = []
    missing = []
    for shard in shards.plan(counts):
        note = shards.read_note(shard, out, with_sums=False)
        if note is None:
            missing.append(shard)
        else:
            done += shard.stop - shard.start
            skipped += [(shard.split, *fields) for fields in note.corrupt]
    yield Started(total, done, len(skipped), counts)
    _check_corrupt(out, skipped, max_corrupt, total)

    # What the workers tell: pictures done and left out, a mistake, or None at the end.
    news: queue.SimpleQueue[_News | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def make(shard: shards.Shard) -> None:
        def report(count: int, corrupt: list[tuple[str, str]]) -> None:
            if stop.is_set():
                raise _Stopped
            news.put((shard.split, count, corrupt))

        try:
            source = sources[shard.split]
            shards.write(shard, source, out, image_size, quality, report)
        except BaseException as error:
            news.put(error)
        else:
            news.put(None)

    with ThreadPoolExecutor(workers, "alexnet-prepare") as pool:
        # No more shards are handed out than there are workers: should the iterator be
        # left unclosed, the process can end once these are done.
        running = min(workers, len(missing))
        waiting = iter(missing)
        for shard in itertools.islice(waiting, running):
            pool.submit(make, shard)
        try:
            while running:
                item = news.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    shard = next(waiting, None)
                    if shard is None:
                        running -= 1
                    else:
                        pool.submit(make, shard)
                    continue
                split, count, corrupt = item
                done += count
                for name, reason in corrupt:
                    skipped.append((split, name, reason))
                    yield Skipped(name, reason, split)
                _check_corrupt(out, skipped, max_corrupt, total)
                yield Progress(done, total, len(skipped), split)
        finally:
            stop.set()


_News = tuple[str, int, list[tuple[str, str]]]


class _Stopped(Exception):
    """End a worker: nobody waits for its shard any more."""


def _check_corrupt(
    out: Path, skipped: store.Skips, max_corrupt: float, total: int
) -> None:
    if len(skipped) > max_corrupt * total:
        store.write_corrupt(out, skipped)
        raise DataError(
            f"{len(skipped)} of {total} pictures are corrupt, more than "
            f"max_corrupt={max_corrupt:g}; {out / prepared.CORRUPT} lists them: mend "
            "them or allow more"
        )
