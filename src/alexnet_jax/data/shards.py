"""One shard of a prepared store: its records, and a note of what went into it.

A shard is the unit of work and of restarting. It is written under a temporary name in
the store's work folder, moved to its own name when it is whole, and only then does its
note appear: a shard with a note is done, one without is made again. What is in a shard
depends on the source and the settings alone, so any restart ends in the same bytes.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from alexnet_jax.data.decode import same_size_jpeg
from alexnet_jax.data.memory import decode_record
from alexnet_jax.data.prepared import NAME
from alexnet_jax.data.records import Source
from alexnet_jax.data.statistics import Accumulator
from alexnet_jax.errors import DataError, ImageError

WORK = ".work"  # the folder inside an unfinished store

# At most this many files a split, for reading at random keeps all of them open, and at
# least this many images a file, so that small sets still spread over the workers.
_MAX_SHARDS = 256
_MIN_IMAGES = 128


@dataclass(frozen=True)
class Shard:
    """Which records of a split go to one file.

    Attributes:
        split: ``train``, ``validation`` or ``test``.
        number: of the shard in its split, from 0.
        of: how many shards the split has.
        start: index of the first record in the source.
        stop: index after the last one.
    """

    split: str
    number: int
    of: int
    start: int
    stop: int

    @property
    def file_name(self) -> str:
        """Return the name that tfds gives such a file."""
        return f"{NAME}-{self.split}.array_record-{self.number:05}-of-{self.of:05}"


@dataclass(frozen=True)
class Note:
    """What is in a finished shard.

    Attributes:
        images: records written.
        bytes: of these records.
        corrupt: id and reason of each picture left out, in the source's order.
        sums: over the stored pictures, of a shard of the training split.
    """

    images: int
    bytes: int
    corrupt: list[tuple[str, str]]
    sums: Accumulator | None


def plan(splits: Mapping[str, int]) -> list[Shard]:
    """Divide splits into shards, in the source's order.

    Args:
        splits: number of records by name of split.
    """
    shards = []
    for split, count in splits.items():
        of = min(_MAX_SHARDS, -(-count // _MIN_IMAGES))
        cuts = [count * number // of for number in range(of + 1)]
        shards += [
            Shard(split, number, of, cuts[number], cuts[number + 1])
            for number in range(of)
        ]
    return shards


def write(
    shard: Shard,
    source: Source,
    out: Path,
    image_size: int,
    quality: int,
    report: Callable[[int, list[tuple[str, str]]], None],
) -> None:
    """Make one shard and its note.

    Args:
        shard: which records.
        source: the whole split.
        out: the store.
        image_size: side of the stored pictures, in pixels.
        quality: of the JPEGs, 1 to 100.
        report: called now and then with the records done since the last call and the
            id and reason of those left out; what it raises stops the work.

    Raises:
        DataError: the disk is full, cannot be written, or the source breaks.
    """
    from array_record.python import array_record_module  # pyright: ignore

    partial = out / WORK / shard.file_name
    sums = Accumulator(image_size, 3) if shard.split == "train" else None
    images, size, done = 0, 0, 0
    corrupt: list[tuple[str, str]] = []
    news: list[tuple[str, str]] = []
    with writing(partial):
        # group_size:1 lets a record be read alone; JPEGs do not compress further.
        writer = array_record_module.ArrayRecordWriter(
            os.fspath(partial), "group_size:1,uncompressed"
        )
    try:
        for index in range(shard.start, shard.stop):
            try:
                example, pixels = _example(source, index, image_size, quality)
            except ImageError as error:
                name, _, reason = str(error).partition(": ")
                news.append((name, reason))
            else:
                if sums is not None:
                    sums.add(pixels)
                with writing(partial):
                    writer.write(example)
                images, size = images + 1, size + len(example)
            done += 1
            if done == 16:
                report(done, news)
                corrupt, news, done = corrupt + news, [], 0
    finally:
        with writing(partial):
            writer.close()
    with writing(partial):
        _check(partial, images)
        _sync(partial)
        os.replace(partial, out / shard.file_name)
        _write_note(_note_path(shard, out), Note(images, size, corrupt + news, sums))
    report(done, news)


def read_note(shard: Shard, out: Path, with_sums: bool) -> Note | None:
    """Read the note of a shard.

    Args:
        shard: which.
        out: the store.
        with_sums: read the sums too, 1.5 MiB at 256 pixels.

    Returns:
        The note, or None if the shard is not finished or the note is not whole.
    """
    path = _note_path(shard, out)
    if not path.exists() or not (out / shard.file_name).exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            facts = json.loads(str(arrays["facts"]))
            sums = None
            if with_sums and "sums" in arrays:
                shape = arrays["sums"].shape
                sums = Accumulator(shape[0], shape[2])
                sums.sums, sums.moments = arrays["sums"], arrays["moments"]
                sums.images = facts["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # torn by a power failure: the shard is made again
    corrupt = [(name, reason) for name, reason in facts["corrupt"]]
    return Note(facts["images"], facts["bytes"], corrupt, sums)


def count_records(path: Path) -> int:
    """Count the records of a finished file, from its own index."""
    from array_record.python import array_record_module  # pyright: ignore

    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    try:
        return reader.num_records()
    finally:
        reader.close()


def _example(
    source: Source, index: int, image_size: int, quality: int
) -> tuple[bytes, np.ndarray]:
    """Make a stored record.

    Returns:
        A serialized ``tf.train.Example`` with ``image``, ``label`` and ``file_name``,
        and the pixels ``u8[S, S, 3]`` that its JPEG decodes to.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    record = source[index]
    jpeg, pixels = record.image, None
    if isinstance(jpeg, bytes):
        pixels = same_size_jpeg(jpeg, image_size, 3)  # stored as it is
    if pixels is None:
        square = np.ascontiguousarray(decode_record(record, image_size, 3))
        jpeg = simplejpeg.encode_jpeg(square, quality, colorsubsampling="420")
        pixels = simplejpeg.decode_jpeg(jpeg)
    proto: Any = tf_example_pb2  # generated: its classes appear only at run time
    example = proto.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(jpeg)
    feature["label"].int64_list.value.append(record.label)
    feature["file_name"].bytes_list.value.append(record.id.encode(errors="replace"))
    return example.SerializeToString(deterministic=True), pixels


def _note_path(shard: Shard, out: Path) -> Path:
    return out / WORK / f"{shard.split}-{shard.number:05}.npz"


def _write_note(path: Path, note: Note) -> None:
    facts = {"images": note.images, "bytes": note.bytes, "corrupt": note.corrupt}
    arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts))}
    if note.sums is not None:
        arrays |= {"sums": note.sums.sums, "moments": note.sums.moments}
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def _check(path: Path, images: int) -> None:
    """Make sure that the writer's last words reached the disk."""
    found = count_records(path)
    if found != images:
        raise OSError(f"it holds {found} records of {images}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while writing into a DataError with the remedy."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
        cause = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(
            f"cannot write {path}: {cause}; make room or rights, then give the same "
            "command again: what is finished is kept"
        ) from None
