"""The files of a store around its shards: settings, lock, description, statistics.

``prepare`` calls these in order: `known_settings`, `locked`, `settle`, then it makes
the shards, then `finish`. Each file appears whole or not at all.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data import prepared, shards
from alexnet_jax.data.records import Source
from alexnet_jax.data.statistics import Accumulator
from alexnet_jax.errors import DataError

Skips = list[tuple[str, str, str]]  # split, id and reason of pictures left out


def known_settings(out: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of the store at `out`, None where there is nothing yet.

    Raises:
        DataError: something else is there.
    """
    with shards.writing(out):
        if not out.exists():
            return None
        if not out.is_dir():
            raise DataError(f"{out} is a file; give a new folder as --out")
        inside = sorted(entry.name for entry in out.iterdir())
    settings = prepared.read_json(out / prepared.SETTINGS)
    if settings is None:
        if inside and inside != [shards.WORK]:
            raise DataError(
                f"{out} holds other files ({', '.join(inside[:3])}); nothing is "
                "overwritten: give a new folder as --out"
            )
        return None
    for key, wanted in request.items():
        if settings.get(key) != wanted:
            raise DataError(
                f"{out} holds a store made with {key}={settings.get(key)!r}, not "
                f"{wanted!r}; nothing is overwritten: give a new folder as --out"
            )
    return settings


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the work folder and keep other processes out of it."""
    work = out / shards.WORK
    with shards.writing(out):
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / "lock", "w")  # noqa: SIM115 (held until the end)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"another process is preparing {out}; wait for it or end it"
            ) from None
        yield


def settle(
    out: Path,
    settings: dict[str, Any] | None,
    request: Mapping[str, Any],
    sources: Mapping[str, Source],
) -> None:
    """Write the settings, or compare what is known of the source with them."""
    found = {
        "splits": {split: len(source) for split, source in sources.items()},
        "classes": list(sources["train"].classes),
    }
    if settings is None:
        _write_json(out / prepared.SETTINGS, {**request, **found})
        return
    for key, value in found.items():
        if settings.get(key) != value:
            raise DataError(
                f"the {key} of {request['source']} have changed since {out} was begun; "
                "give a new folder as --out"
            )


def finish(
    out: Path, spec: str, sources: Mapping[str, Source], image_size: int
) -> dict[str, Any]:
    """Check the counts and write what makes the shards a data set.

    Args:
        out: the store, all of whose shards are done.
        spec: of the source.
        sources: by name of split.
        image_size: side of the stored pictures in pixels.

    Returns:
        ``images`` by split, ``corrupt`` and ``bytes``, as in `prepare.Finished`.

    Raises:
        DataError: a count is wrong, or the disk is full or cannot be written.
    """
    plan = shards.plan({split: len(source) for split, source in sources.items()})
    total = Accumulator(image_size, 3)
    skipped: Skips = []
    lengths: dict[str, list[int]] = {split: [] for split in sources}
    sizes = dict.fromkeys(sources, 0)
    for shard in plan:
        note = shards.read_note(shard, out, with_sums=True)
        stored = shards.count_records(out / shard.file_name)
        if note is None or stored + len(note.corrupt) != shard.stop - shard.start:
            raise DataError(
                f"{out / shard.file_name} does not hold the pictures it should; remove "
                f"{out / shards.WORK} and give the same command again"
            )
        if note.sums is not None:
            total.merge(note.sums)
        skipped += [(shard.split, name, reason) for name, reason in note.corrupt]
        lengths[shard.split].append(stored)
        sizes[shard.split] += note.bytes
    images = {split: sum(counts) for split, counts in lengths.items()}
    with shards.writing(out):
        write_corrupt(out, skipped)
        statistics = total.statistics()
        np.savez(
            out / prepared.STATISTICS,
            mean=statistics.mean,
            covariance=statistics.covariance,
            images=statistics.images,
        )
        classes = sources["train"].classes
        _write_tfds_files(out, spec, classes, lengths, sizes, image_size)
        summary = {
            "images": images,
            "corrupt": len(skipped),
            "bytes": sum(sizes.values()),
        }
        _write_json(out / prepared.COMPLETE, summary)
        shutil.rmtree(out / shards.WORK)
    return summary


def _write_tfds_files(
    out: Path,
    spec: str,
    classes: Sequence[str],
    lengths: Mapping[str, list[int]],
    sizes: Mapping[str, int],
    image_size: int,
) -> None:
    """Describe the shards as tfds does, so that ``builder_from_directory`` reads them.

    Args:
        out: the store.
        spec: of the source.
        classes: names of the classes, in label order.
        lengths: records in each shard, by split.
        sizes: bytes of the records, by split.
        image_size: side of the pictures in pixels.
    """
    import tensorflow_datasets as tfds

    tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=(image_size, image_size, 3), encoding_format="jpeg"
            ),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "file_name": tfds.features.Text(),
        }
    ).save_config(os.fspath(out))
    info = {
        "name": prepared.NAME,
        "version": "1.0.0",
        "description": f"{spec} as {image_size}x{image_size} JPEGs",
        "fileFormat": "array_record",
        "supervisedKeys": {
            "tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}
        },
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(sizes[split]),
                "shardLengths": [str(length) for length in counts],
            }
            for split, counts in lengths.items()
        ],
    }
    _write_json(out / "dataset_info.json", info)


def write_corrupt(out: Path, skipped: Skips) -> None:
    """Write the list of pictures left out, one a line, fields apart by tabs."""
    with shards.writing(out / prepared.CORRUPT):
        # Names come from a disk: they may hold anything, line ends and bad UTF-8 too.
        lines = ["\t".join(" ".join(f.split()) for f in fields) for fields in skipped]
        text = "".join(line + "\n" for line in lines)
        (out / prepared.CORRUPT).write_bytes(text.encode(errors="surrogateescape"))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write all of a file or nothing."""
    with shards.writing(path):
        partial = path.parent / shards.WORK / f"{path.name}.partial"
        partial.write_text(json.dumps(value, indent=2) + "\n")
        os.replace(partial, path)
