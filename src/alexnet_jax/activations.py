"""What the layers say: every row for one picture, or one row for many."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float

from alexnet_jax import steps
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.errors import ConfigError, ImageError
from alexnet_jax.mesh import BATCH
from alexnet_jax.networks import network as find_network
from alexnet_jax.predict import BATCH_SIZE, Picture, compute, named, pixels


@dataclass(frozen=True)
class Feature:
    """What a layer says of one picture.

    Attributes:
        image: the path, or ``<bytes>`` or ``<array>``.
        values: ``f32[H, W, C]`` or ``f32[units]``; None if there is an error.
        error: why there are none.
    """

    image: str
    values: np.ndarray | None = None
    error: str | None = None


def activations(
    loaded: Loaded, picture: Picture, mesh: Mesh
) -> dict[str, Float[np.ndarray, "1 ..."]]:
    """Run one picture's centre view and keep every layer.

    Args:
        loaded: see ``checkpoint.load``.
        picture: a path, an encoded file or pixels.
        mesh: the one that ``loaded`` lies on.

    Returns:
        What each row of the table gives, by its name, ``f32[1, H, W, C]`` or
        ``f32[1, units]``, both towers in tower order; ``input`` is what the first row
        sees, ``logits`` what the last one gives.

    Raises:
        ImageError: the picture cannot be read.
    """
    meta, table = loaded.meta, find_network(loaded.meta.network)
    names = steps.row_names(table)
    run = steps.layers(
        table, len(meta.classes), mesh, names=names, precision=meta.precision
    )
    # The devices that 'data' is divided over compute the same picture.
    try:
        seen = pixels(loaded, picture)
    except ImageError as error:
        name = named(picture)
        raise ImageError(
            f"{error}" if name in str(error) else f"{name}: {error}"
        ) from None
    images = np.stack([seen] * mesh.shape["data"])
    where = NamedSharding(mesh, BATCH)
    found = run(loaded.params, loaded.preprocess, jax.device_put(images, where))
    return {name: np.asarray(found[name][:1]) for name in names}


def features(
    loaded: Loaded,
    pictures: Iterable[Picture],
    mesh: Mesh,
    layer: str,
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Feature]:
    """Say what one layer gives for the centre view of pictures.

    Args:
        loaded: see ``checkpoint.load``.
        pictures: any number of them; see ``predict.predict``.
        mesh: the one that ``loaded`` lies on.
        layer: a row of the table, ``input`` or ``logits``.
        batch_size: pictures computed at once, over all devices.

    Yields:
        One feature a picture, in order; an unreadable picture's holds the error.

    Raises:
        ConfigError: the network has no such layer.
    """
    table = find_network(loaded.meta.network)
    run = steps.layers(
        table,
        len(loaded.meta.classes),
        mesh,
        names=(check_layer(loaded.meta.network, layer),),
        precision=loaded.meta.precision,
    )
    found = compute(
        loaded,
        pictures,
        mesh,
        lambda *arguments: run(*arguments)[layer],
        batch_size=batch_size,
    )
    for name, values in found:
        if isinstance(values, str):
            yield Feature(name, error=values)
        else:
            yield Feature(name, values)


def check_layer(network: str, layer: str) -> str:
    """Return the name of a layer.

    Args:
        network: the table's name.
        layer: a row of it, ``input`` or ``logits``.

    Raises:
        ConfigError: there is no such row; the message lists them.
    """
    names = steps.row_names(find_network(network))
    if layer not in names:
        raise ConfigError(
            f"--layer {layer}: {network} has no such layer; it has {', '.join(names)}"
        )
    return layer


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an ``.npz``, whole or not at all.

    Args:
        path: see ``check_out``.
        arrays: by name.
    """
    with _beside(path) as folder:
        # allow_pickle is named for the type checker, which takes an array for it.
        np.savez(folder / "whole.npz", allow_pickle=False, **arrays)
        os.replace(folder / "whole.npz", path)


def save_features(
    path: Path, layer: str, found: Iterable[Feature]
) -> Iterator[Feature]:
    """Write features to an ``.npz`` as they come, in the memory of one batch.

    The file has ``features``, ``f32[N, H, W, C]`` or ``f32[N, units]``, of the pictures
    that could be read, ``images``, their names, and ``layer``. It appears at the end,
    whole, if there was one; until then the values lie in a file beside it, so for a
    moment they need twice their space on the disk.

    Args:
        path: see ``check_out``.
        layer: its name.
        found: see ``features``.

    Yields:
        Each feature, once it is written.
    """
    names: list[str] = []
    shape: tuple[int, ...] = ()
    with _beside(path) as folder:
        rows = folder / "rows"
        with rows.open("wb") as file:
            for feature in found:
                if feature.values is not None:
                    shape = feature.values.shape
                    file.write(np.ascontiguousarray(feature.values, np.float32).data)
                    names.append(feature.image)
                yield feature
        if not names:
            return
        arrays = {
            "features": np.memmap(rows, np.float32, "r", shape=(len(names), *shape)),
            "images": np.array(names),
            "layer": np.array(layer),
        }
        np.savez(folder / "whole.npz", allow_pickle=False, **arrays)
        os.replace(folder / "whole.npz", path)


def check_out(path: Path) -> Path:
    """Return the path of a file that can be written.

    Args:
        path: of the file.

    Raises:
        ConfigError: it cannot; better known before the work than after it.
    """
    path = path.expanduser()
    if path.is_dir():
        raise ConfigError(f"--out {path} is a folder; name a file, such as x.npz")
    if not path.parent.is_dir():
        raise ConfigError(
            f"--out {path}: the folder {path.parent} does not exist; make it first"
        )
    return path


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a folder on the disk that a file goes to, for as long as it is written."""
    prefix = f".{path.name}-"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder:
        yield Path(folder)
