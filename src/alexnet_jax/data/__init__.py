"""Labelled pictures, from where they lie to batches for the devices.

``records`` says what a source, a data set and a batch are. Sources are ``digits``,
``imagenet2012``, ``tfds:NAME``, ``folder:PATH`` and ``prepared:PATH``. ``decode`` turns
a picture into pixels, ``loader`` makes batches, ``statistics`` measures a training set
and ``prepare`` writes the store of small squares that a fast run reads.

Importing this package loads neither jax nor tfds, grain or scikit-learn.
"""

from collections.abc import Sequence

from alexnet_jax.config import DataConfig
from alexnet_jax.data.decode import decode, read_image_file
from alexnet_jax.data.loader import eval_batches, train_batches
from alexnet_jax.data.memory import ArraySource, cores, in_memory
from alexnet_jax.data.order import epoch_order
from alexnet_jax.data.records import Batch, Dataset, Record, Source, Statistics
from alexnet_jax.data.splits import Role, overlap, role_of, take
from alexnet_jax.data.statistics import Accumulator, compute, measure_part
from alexnet_jax.errors import ConfigError

__all__ = [
    "Accumulator",
    "ArraySource",
    "Batch",
    "Dataset",
    "Record",
    "Role",
    "Source",
    "Statistics",
    "compute",
    "cores",
    "decode",
    "epoch_order",
    "eval_batches",
    "in_memory",
    "known_spec",
    "measure_part",
    "open_dataset",
    "open_split",
    "read_image_file",
    "train_batches",
]

SPECS = ("digits", "imagenet2012", "tfds:NAME", "folder:PATH", "prepared:PATH")

# What is opened: a split and what results on it may be used for.
Opened = tuple[Source, Role]


def known_spec(spec: str) -> str:
    """Check the form of a data specification, before any data is looked for.

    Args:
        spec: such as ``digits`` or ``tfds:cifar10``.

    Returns:
        `spec`.

    Raises:
        ConfigError: it has none of the known forms; the message lists them.
    """
    kind, colon, rest = spec.partition(":")
    bare = [known for known in SPECS if ":" not in known]
    with_name = [known.partition(":")[0] for known in SPECS if ":" in known]
    if (kind in bare and not colon) or (kind in with_name and rest.strip()):
        return spec
    raise ConfigError(f"data {spec!r} is not known; give one of {', '.join(SPECS)}")


def open_dataset(config: DataConfig) -> Dataset:
    """Open a training split and the split it is evaluated on.

    Args:
        config: which data, where, which splits.

    Returns:
        Both splits; the statistics where a prepared store carries them for
        ``config.image_size``, else None.

    Raises:
        ConfigError: the specification is not known, or the two splits overlap.
        DataError: the data is missing or cannot be used; the message says what to do.
    """
    splits = (config.train_split or "train", config.eval_split)
    (train, _), (evaluated, role) = _open(config.spec, config.dir, splits)
    shared = overlap(train, evaluated)
    if shared and config.train_split != config.eval_split:
        raise ConfigError(
            f"eval split {evaluated.name!r} shares {shared} images with the training "
            f"split {train.name!r}; choose apart, such as --train-split train[:90%] "
            "--eval-split train[90%:]"
        )
    if tuple(train.classes) != tuple(evaluated.classes):
        raise ConfigError(
            f"{train.name} has {len(train.classes)} classes, {evaluated.name} has "
            f"{len(evaluated.classes)} or others; choose splits of the same classes"
        )
    statistics = None
    if config.spec.startswith("prepared:"):
        from alexnet_jax.data import prepared

        statistics = prepared.statistics(config)
    return Dataset(config.spec, train, evaluated, role, statistics)


def open_split(
    spec: str, split: str | None = None, *, directory: str | None = None
) -> Opened:
    """Open one split.

    Args:
        spec: such as ``tfds:cifar10``.
        split: its name, or None for the one that the set is evaluated on by default.
        directory: that tfds's sets lie in; None for tfds's default.

    Returns:
        The split, and what results on it may be used for.

    Raises:
        ConfigError: the specification is not known.
        DataError: the data is missing or cannot be used; the message says what to do.
    """
    (opened,) = _open(spec, directory, (split,))
    return opened


def _open(
    spec: str, directory: str | None, splits: Sequence[str | None]
) -> list[Opened]:
    known_spec(spec)
    if spec == "digits":
        from alexnet_jax.data import digits

        names = [split or "test" for split in splits]
        return [(take(spec, digits.load(), name), role_of(name)) for name in names]
    if spec == "imagenet2012":
        from alexnet_jax.data import imagenet

        return imagenet.open_splits(directory, splits)
    if spec.startswith("folder:"):
        from alexnet_jax.data import folder

        return folder.open_splits(spec, splits)
    if spec.startswith("prepared:"):
        from alexnet_jax.data import prepared

        return prepared.open_splits(spec, splits)
    from alexnet_jax.data import tfds_source

    return tfds_source.open_splits(spec, directory, splits)
