"""Figure 4 of the paper, right: the pictures of a set that a layer finds most alike.

The index is what one layer says of every picture of a split, in half precision, in a
file that is mapped rather than read: ImageNet's 1.28 million rows of 4,096 are 10.5 GB.
A search goes through it in pieces. Its name is a fingerprint of the weights, the layer
and the split (of that its name, its length and a few pictures), so that another one is
not taken for it; it is written row after row and goes on where it was interrupted.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from alexnet_jax import steps
from alexnet_jax.activations import check_layer
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.data.memory import cores
from alexnet_jax.data.records import Source
from alexnet_jax.errors import ConfigError, DataError
from alexnet_jax.networks import network as find_network
from alexnet_jax.predict import compute
from alexnet_jax.table import Classifier, Dropout, Network, trace

BATCH_SIZE = 128
_PROBES = 16  # pictures of the split that its fingerprint looks at
_SAVE = 8192  # rows from one mark to the next
_CHUNK = 2**24  # numbers that a thread searches at once: 64 MiB in float32
_SPARE = 16  # rows looked at again, exactly, beyond those wanted


@dataclass(frozen=True)
class Neighbor:
    """A picture of the set.

    Attributes:
        index: its place in the split.
        distance: Euclidean, between the layer's values for it and for the query.
        label: its true class, by the split's number.
        id: its name.
    """

    index: int
    distance: float
    label: int
    id: str


@dataclass(frozen=True)
class Index:
    """What a layer says of every picture of a split.

    Attributes:
        path: the folder it lies in.
        features: ``f16[N, units]``, mapped from the disk.
        squares: ``f32[N]``, the sums of each row's squares.
        labels: ``i32[N]``.
        ids: N names.
    """

    path: Path
    features: np.ndarray
    squares: np.ndarray
    labels: np.ndarray
    ids: list[str]


def last_hidden(network: Network) -> str:
    """Return the layer that the classifier reads, before its dropout."""
    *_, last = (
        row.name for row in network.rows if not isinstance(row, Classifier | Dropout)
    )
    return last


def fingerprint(loaded: Loaded, source: Source, layer: str) -> str:
    """Return a name for what an index holds: weights, split and layer.

    All of the weights count, and of the split its name, its length and a few pictures.
    """
    digest = hashlib.blake2b(digest_size=8)
    meta = loaded.meta
    said = (meta.network, meta.image_size, meta.resize, meta.precision, layer)
    digest.update(repr((said, source.name, len(source))).encode())
    for leaf in jax.tree.leaves((loaded.params, loaded.preprocess)):
        digest.update(np.ascontiguousarray(jax.device_get(leaf)).data)
    for probe in range(min(_PROBES, len(source))):
        record = source[probe * len(source) // min(_PROBES, len(source))]
        image = record.image
        digest.update(f"{record.id} {record.label}".encode())
        digest.update(
            image if isinstance(image, bytes) else np.ascontiguousarray(image).data
        )
    return digest.hexdigest()


def place(folder: Path, loaded: Loaded, source: Source, layer: str) -> Path:
    """Return the folder of an index among others.

    Raises:
        ConfigError: there is no such layer.
        DataError: the split is empty.
    """
    check_layer(loaded.meta.network, layer)
    if not len(source):
        raise DataError(f"{source.name} has no images")
    return folder / f"{layer}-{fingerprint(loaded, source, layer)}"


def write(
    path: Path,
    loaded: Loaded,
    source: Source,
    mesh: Mesh,
    layer: str,
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[int]:
    """Write what there is not yet of an index.

    Args:
        path: see ``place``; made if need be.
        loaded: see ``checkpoint.load``.
        source: the split.
        mesh: the one that ``loaded`` lies on.
        layer: a row of the table, ``input`` or ``logits``.
        batch_size: pictures computed at once, over all devices.

    Yields:
        How many rows there are, after each batch; nothing if it was whole.

    Raises:
        ConfigError: too little space on the disk.
        DataError: a picture cannot be read.
    """
    table = find_network(loaded.meta.network)
    width = _width(table, len(loaded.meta.classes), layer)
    if _rows_in(path, width) == len(source):
        return
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "w") as lock:
        # Who asks meanwhile waits, and finds it written.
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = _rows_in(path, width)
        if done < len(source):
            _check_space(path, 2 * len(source) * width)
            yield from _write(path, done, loaded, source, mesh, layer, batch_size)


def read(path: Path) -> Index:
    """Open an index that is written; its rows stay on the disk until they are needed.

    Args:
        path: see ``place``.
    """
    mark = json.loads((path / "mark.json").read_text())
    count, width = mark["rows"], mark["width"]
    names = (path / "ids").read_bytes()[: mark["ids"]].rstrip(b",\n")
    return Index(
        path,
        np.memmap(path / "features", np.float16, "r", shape=(count, width)),
        np.fromfile(path / "squares", np.float32, count),
        np.fromfile(path / "labels", np.int32, count),
        json.loads(b"[" + names + b"]"),
    )


def _width(table: Network, classes: int, layer: str) -> int:
    if layer == steps.INPUT:
        return table.input_size**2 * table.channels
    for traced in trace(table, classes):
        last = isinstance(traced.row, Classifier)
        if layer == (steps.LOGITS if last else traced.row.name):
            return int(np.prod(traced.outputs))
    raise AssertionError(layer)


def _rows_in(path: Path, width: int) -> int:
    """Return how many rows of an index can be relied on."""
    try:
        mark = json.loads((path / "mark.json").read_text())
        rows, ids = int(mark["rows"]), int(mark["ids"])
        sizes = {name: (path / name).stat().st_size for name in ("ids", *_widths(1))}
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # none, or one that was damaged: it is written anew
    whole = all(sizes[name] >= rows * each for name, each in _widths(width).items())
    return rows if whole and sizes["ids"] >= ids else 0


def _widths(width: int) -> dict[str, int]:
    """Return the bytes a row of each file."""
    return {"features": 2 * width, "squares": 4, "labels": 4}


def _write(
    path: Path,
    done: int,
    loaded: Loaded,
    source: Source,
    mesh: Mesh,
    layer: str,
    batch_size: int,
) -> Iterator[int]:
    """Write the rows from ``done`` on; yield how many there are."""
    meta, table = loaded.meta, find_network(loaded.meta.network)
    width = _width(table, len(meta.classes), layer)
    run = steps.layers(
        table, len(meta.classes), mesh, names=(layer,), precision=meta.precision
    )
    mark = json.loads((path / "mark.json").read_text()) if done else {"ids": 0}
    ends = {name: done * each for name, each in _widths(width).items()}
    ends["ids"] = mark["ids"]
    for name, end in ends.items():  # what lies beyond the mark may be half a row
        with open(path / name, "ab"):
            os.truncate(path / name, end)
    read: list[tuple[int, str]] = []  # labels and names of the records under way

    def pictures() -> Iterator[bytes | np.ndarray]:
        for index in range(done, len(source)):
            record = source[index]
            read.append((record.label, record.id))
            yield record.image

    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(path / name, "ab")) for name in ends}
        found = compute(
            loaded,
            pictures(),
            mesh,
            lambda *arguments: run(*arguments)[layer],
            batch_size=batch_size,
        )
        for rows, (_, values) in enumerate(found, start=done + 1):
            label, name = read.pop(0)
            if isinstance(values, str):
                raise DataError(f"{name}: {values}")
            row, square = _halved(values.ravel())
            if not np.isfinite(square):
                raise DataError(
                    f"{name}: {layer} says more than half precision can hold; choose "
                    "another --layer"
                )
            files["features"].write(row.data)
            files["squares"].write(square.tobytes())
            files["labels"].write(np.int32(label).tobytes())
            files["ids"].write((json.dumps(name) + ",\n").encode())
            if rows % _SAVE == 0 or rows == len(source):
                for file in files.values():
                    file.flush()
                mark = {"rows": rows, "width": width, "ids": files["ids"].tell()}
                _mark(path, mark)
            if rows % batch_size == 0 or rows == len(source):
                yield rows


def _halved(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a row in half precision, and the sum of its squares."""
    with np.errstate(over="ignore"):  # infinity, which is looked for
        row = values.astype(np.float16)
    wide = row.astype(np.float32)
    return row, np.asarray(wide @ wide)


def _mark(path: Path, mark: dict[str, int]) -> None:
    """Say, whole or not at all, how far the files can be relied on."""
    new = path / "mark.json.new"
    new.write_text(json.dumps(mark))
    os.replace(new, path / "mark.json")


def _check_space(path: Path, needed: int) -> None:
    there = path / "features"
    needed -= there.stat().st_size if there.exists() else 0
    free = shutil.disk_usage(path).free
    if needed > free:
        raise ConfigError(
            f"the index takes {needed / 1e9:.1f} GB more in {path}, which has "
            f"{free / 1e9:.1f} GB free; make room, or choose a smaller split or layer"
        )


def search(
    index: Index, query: Float[np.ndarray, " units"], count: int
) -> list[Neighbor]:
    """Find the rows nearest to a query.

    Args:
        index: see ``read``.
        query: what the layer says of a picture, flat.
        count: of neighbours wanted, at most as many as there are rows.

    Returns:
        Them, nearest first. Distances are exact for the rows as they are stored.
    """
    total, width = index.features.shape
    kept = min(count + _SPARE, total)
    step = max(1, _CHUNK // width)

    def nearest(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = index.features[start : start + step].astype(np.float32)
        # Less the query's own square, which is the same for all.
        found = index.squares[start : start + step] - 2 * (rows @ query)
        best = np.argpartition(found, min(kept, len(found)) - 1)[:kept]
        return start + best, found[best]

    query = query.astype(np.float16).astype(np.float32)
    with ThreadPoolExecutor(cores()) as pool:
        parts = list(pool.map(nearest, range(0, total, step)))
    places = np.concatenate([places for places, _ in parts])
    rough = np.concatenate([found for _, found in parts])
    # The product above loses digits where rows are alike: the best are done again.
    places = np.sort(places[np.argsort(rough, kind="stable")[:kept]])
    apart = index.features[places].astype(np.float64) - query
    distances = np.sqrt(np.square(apart).sum(1))
    return [
        Neighbor(
            int(place), float(distance), int(index.labels[place]), index.ids[place]
        )
        for distance, place in sorted(zip(distances, places, strict=True))[:count]
    ]
