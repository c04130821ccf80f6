"""The store that ``prepare`` writes, and how it is read (``prepared:PATH``).

PATH is a data set in tfds's own layout, so that tfds reads it too, with three files
more: ``prepare.json`` (how it was made), ``statistics.npz`` (mean image and covariance
of the training split, as the stored JPEGs decode) and ``complete.json``, written last.
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.config import DataConfig
from alexnet_jax.data.records import Source, Statistics
from alexnet_jax.data.splits import (
    Role,
    check_known,
    default_eval_split,
    role_of,
    take,
)
from alexnet_jax.errors import DataError

# Of the layout; a store of another one is refused rather than misread.
FORMAT = 1

SETTINGS, STATISTICS, COMPLETE = "prepare.json", "statistics.npz", "complete.json"
CORRUPT = "corrupt.txt"
NAME = "prepared"  # what tfds calls the set


def open_splits(spec: str, splits: Sequence[str | None]) -> list[tuple[Source, Role]]:
    """Open splits of ``prepared:PATH``.

    Args:
        spec: with the path; ``~`` is the home folder.
        splits: their names; None for the one to evaluate on.

    Returns:
        Each split, and what results on it may be used for.

    Raises:
        DataError: PATH is no store, is not complete or has no such split.
    """
    from tensorflow_datasets.core import read_only_builder

    from alexnet_jax.data.tfds_source import TfdsSplit

    path = _path(spec)
    settings = _checked(path)
    names = list(settings["splits"])
    try:
        builder = read_only_builder.builder_from_directory(path)
    except Exception as error:  # json and protobuf errors among others
        cause = " ".join(str(error).split())[:200]
        raise DataError(
            f"the store {path} is damaged: {cause}; make it again"
        ) from None
    chosen = [split or default_eval_split(spec, names) for split in splits]
    for split in chosen:
        check_known(spec, split, names)
    sources: dict[str, Source] = {}
    for name in names:
        sources[name] = TfdsSplit(builder, spec, name, settings["classes"])
    return [(take(spec, sources, split), role_of(split)) for split in chosen]


def statistics(config: DataConfig) -> Statistics | None:
    """Read what preparing measured on the training split.

    Args:
        config: of a store.

    Returns:
        The statistics in RGB, or None where the run wants another image size or only
        a part of the training split.

    Raises:
        DataError: the store is not complete or its file is damaged.
    """
    path = _path(config.spec)
    settings = _checked(path)
    if config.image_size != settings["image_size"]:
        return None
    if config.train_split not in (None, "train"):
        return None
    try:
        with open(path / STATISTICS, "rb") as file, np.load(file) as arrays:
            return Statistics(
                mean=arrays["mean"],
                covariance=arrays["covariance"],
                images=int(arrays["images"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path / STATISTICS} is damaged: {error}") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, or None where there is no such file.

    Raises:
        DataError: the file is there and is no JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} cannot be read: it holds no JSON object")
    return value


def _path(spec: str) -> Path:
    return Path(spec.removeprefix("prepared:")).expanduser()


def _checked(path: Path) -> dict[str, Any]:
    """Return the settings of a complete store."""
    if not path.is_dir():
        raise DataError(
            f"there is no store at {path}; make it: alexnet prepare SOURCE --out {path}"
        )
    settings = read_json(path / SETTINGS)
    if settings is None:
        raise DataError(
            f"{path} is not a prepared store (it has no {SETTINGS}); make one: "
            f"alexnet prepare SOURCE --out DIR"
        )
    if settings.get("format") != FORMAT:
        raise DataError(
            f"{path} is a store of format {settings.get('format')}, this version reads "
            f"{FORMAT}; make it again"
        )
    if not (path / COMPLETE).exists():
        raise DataError(
            f"the store {path} is not complete; continue: alexnet prepare "
            f"{settings['source']} --out {path}"
        )
    return settings
