"""Prediction: pictures in, the likeliest classes out, one answer for every input."""

import glob
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import UInt8

from alexnet_jax import classes, data, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.classes import wordnet_id
from alexnet_jax.data.memory import cores
from alexnet_jax.errors import ConfigError, ImageError
from alexnet_jax.evaluate import choose_views
from alexnet_jax.mesh import BATCH
from alexnet_jax.model import Params
from alexnet_jax.networks import network as find_network

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png"),
        *("pnm", "ppm", "tga", "tif", "tiff", "webp", "avif", "ico"),
    )
)
BATCH_SIZE = 32

Picture = str | Path | bytes | np.ndarray
"""A path, an encoded file, or pixels ``u8[H, W]`` or ``u8[H, W, C]``."""


@dataclass(frozen=True)
class Guess:
    """One class that a picture may show.

    Attributes:
        label: readable name of the class.
        index: its number.
        probability: softmax output, the mean of the views.
        wordnet_id: of a class that is called by one, as ImageNet's are.
    """

    label: str
    index: int
    probability: float
    wordnet_id: str | None = None


@dataclass(frozen=True)
class Answer:
    """What became of one input.

    Attributes:
        image: the path, or ``<bytes>`` or ``<array>``.
        guesses: best first; empty if there is an error.
        error: why there is no answer, None if there is one.
    """

    image: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None


def expand(inputs: Iterable[str]) -> list[str]:
    """Turn files, folders and patterns into files, in the order given.

    A folder stands for the pictures in it and below it, by name. What leads nowhere
    stays as it is, so that it gets an answer (an error) of its own.
    """
    files = []
    for name in inputs:
        try:
            files += _files(name)
        except (OSError, RuntimeError):
            # A name too long, a folder closed to us, ~nobody: predict says which.
            files.append(name)
    return files


def _files(name: str) -> list[str]:
    path = Path(name).expanduser()
    if path.is_dir() and path.suffix.lower() not in SUFFIXES:
        found = sorted(
            str(p)
            for p in path.rglob("*")
            if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
        )
        return found or [name]
    if not path.exists() and not path.is_symlink() and glob.has_magic(name):
        return sorted(glob.glob(str(path), recursive=True)) or [name]
    return [str(path)]


def predict(
    loaded: Loaded,
    pictures: Iterable[Picture],
    mesh: Mesh,
    *,
    top: int = 5,
    views: int | None = None,
    labels: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Answer]:
    """Name what pictures show; decoding goes on while the devices compute.

    Args:
        loaded: see ``checkpoint.load``.
        pictures: any number of them, in any Pillow-readable format.
        mesh: the one that ``loaded`` lies on.
        top: how many classes an answer has, at most as many as there are.
        views: 1 or 10; the checkpoint's default when None.
        labels: other names for the classes, in order; when None the checkpoint's own,
            ImageNet's in readable words.
        batch_size: pictures computed at once, over all devices.

    Yields:
        One answer a picture, in order; an unreadable picture's holds the error.

    Raises:
        ConfigError: ``top``, ``views`` or ``labels`` cannot be.
    """
    meta, table = loaded.meta, find_network(loaded.meta.network)
    names = list(classes.readable(meta.classes) if labels is None else labels)
    if len(names) != len(meta.classes):
        raise ConfigError(
            f"{len(names)} labels given, but the checkpoint {loaded.path} has "
            f"{len(meta.classes)} classes; give one a line, in order"
        )
    if top < 1:
        raise ConfigError(f"--top {top}: ask for at least 1 class")
    run = steps.forward(
        table,
        len(names),
        mesh,
        views=choose_views(meta.views, views),
        precision=meta.precision,
    )
    for name, found in compute(loaded, pictures, mesh, run, batch_size=batch_size):
        if isinstance(found, str):
            yield Answer(name, error=found)
            continue
        shares = np.exp(found)
        best = np.argsort(-shares, kind="stable")[:top]
        yield Answer(
            name,
            tuple(
                Guess(names[i], int(i), float(shares[i]), wordnet_id(meta.classes[i]))
                for i in best
            ),
        )


def named(picture: Picture) -> str:
    """Return a picture's path, or ``<bytes>`` or ``<array>``."""
    if isinstance(picture, bytes):
        return "<bytes>"
    return "<array>" if isinstance(picture, np.ndarray) else str(picture)


def pixels(loaded: Loaded, picture: Picture) -> UInt8[np.ndarray, "side side colours"]:
    """Read one picture as a checkpoint wants to see it.

    Args:
        loaded: the checkpoint.
        picture: a path, an encoded file or pixels.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(picture, str | Path):
        picture = data.read_image_file(Path(picture))
    meta, table = loaded.meta, find_network(loaded.meta.network)
    return data.decode(picture, meta.image_size, table.channels, meta.resize)


def compute(
    loaded: Loaded,
    pictures: Iterable[Picture],
    mesh: Mesh,
    run: Callable[[Params, Preprocess, jax.Array], jax.Array],
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[str, np.ndarray | str]]:
    """Run a compiled function on pictures, decoding ahead while the devices compute.

    Args:
        loaded: see ``checkpoint.load``.
        pictures: any number of them.
        mesh: the one that ``loaded`` lies on.
        run: a function of ``steps``, of parameters, preprocessing and a batch.
        batch_size: pictures computed at once, over all devices.

    Yields:
        Each picture's name, and its row of the result or why it cannot be read.
    """
    where = NamedSharding(mesh, BATCH)

    def decode(picture: Picture) -> np.ndarray | str:
        try:
            return pixels(loaded, picture)
        except ImageError as error:
            return str(error)

    def start(chunk: list[tuple[str, Future]]) -> tuple[list, jax.Array | None]:
        decoded = [(name, future.result()) for name, future in chunk]
        good = [pixels for _, pixels in decoded if not isinstance(pixels, str)]
        if not good:
            return decoded, None
        # One shape, one compilation: a last batch that is short is padded.
        images = np.zeros((size, *good[0].shape), np.uint8)
        images[: len(good)] = good
        found = run(loaded.params, loaded.preprocess, jax.device_put(images, where))
        return decoded, found

    pictures = iter(pictures)
    first = list(itertools.islice(pictures, batch_size))
    shares = mesh.shape["data"]
    size = -(-max(1, len(first)) // shares) * shares
    pictures = itertools.chain(first, pictures)
    with ThreadPoolExecutor(cores()) as pool:
        under_way = None
        coming = _read_ahead(pool, decode, pictures, size)
        while chunk := list(itertools.islice(coming, size)):
            started = start(chunk)
            if under_way:
                yield from _rows(*under_way)
            under_way = started
        if under_way:
            yield from _rows(*under_way)


def _read_ahead(pool, decode, pictures, size) -> Iterator[tuple[str, Future]]:
    """Yield names and futures, with two batches being decoded ahead."""
    queue = []
    for picture in pictures:
        queue.append((named(picture), pool.submit(decode, picture)))
        if len(queue) > 2 * size:
            yield queue.pop(0)
    yield from queue


def _rows(
    decoded: list[tuple[str, np.ndarray | str]], found: jax.Array | None
) -> Iterator[tuple[str, np.ndarray | str]]:
    rows = iter(() if found is None else jax.device_get(found))
    for name, pixels in decoded:
        yield name, pixels if isinstance(pixels, str) else next(rows)
