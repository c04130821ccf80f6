"""Names of splits with slices, such as ``train[:90%]``, for the sources of our own.

tfds sets have tfds's own syntax, of which this is the subset for one split.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alexnet_jax.data.order import permutation
from alexnet_jax.data.records import Record, Source
from alexnet_jax.errors import DataError

Role = Literal["validation", "test"]

_SPLIT = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


@dataclass(frozen=True)
class Subset:
    """Some records of another source.

    Attributes:
        name: what the user asked for.
        source: that the records are in.
        indices: ``i64[N]``, of the records in `source`.
    """

    name: str
    source: Source
    indices: np.ndarray

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in label order."""
        return self.source.classes

    def __len__(self) -> int:
        """Count the records."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        """Return one record."""
        return self.source[int(self.indices[index])]


def evenly(source: Source, limit: int) -> Source:
    """Return at most ``limit`` records of a source, evenly spaced."""
    count = len(source)
    if count <= limit:
        return source
    places = np.arange(limit, dtype=np.int64) * count // limit
    return Subset(f"{limit:,} of {source.name}", source, places)


def base(split: str) -> str:
    """Return the name of a split without its slice."""
    return split.partition("[")[0]


def role_of(split: str) -> Role:
    """Say what results on a split may be used for.

    Args:
        split: in tfds's syntax; several joined by ``+``.

    Returns:
        ``validation`` for validation splits and slices of the training split, else
        ``test``: a split of unknown purpose must not choose a checkpoint.
    """
    names = {base(part.strip()) for part in split.split("+")}
    return "validation" if names <= {"train", "validation", "val"} else "test"


def default_eval_split(spec: str, names: Sequence[str]) -> str:
    """Choose the split to evaluate on.

    Args:
        spec: of the data set, for messages.
        names: of its splits.

    Raises:
        DataError: there is neither a validation nor a test split.
    """
    for name in ("validation", "val", "test"):
        if name in names:
            return name
    listed = ", ".join(names) or "none"
    raise DataError(
        f"{spec} has no validation or test split (its splits: {listed}); slice one, "
        "such as --train-split train[:90%] --eval-split train[90%:]"
    )


def check_known(spec: str, split: str, names: Sequence[str]) -> None:
    """Raise a DataError that lists the splits unless `split` names one of them."""
    if base(split) not in names:
        raise DataError(
            f"{spec} has no split {split!r}; it has {', '.join(names)} "
            "(slices such as train[:90%] work too)"
        )


def take(spec: str, splits: Mapping[str, Source], split: str) -> Source:
    """Return a split or a slice of it.

    A slice takes from a fixed shuffle of the split, so that ``train[:90%]`` of a set
    that is sorted by class has all its classes.

    Args:
        spec: of the data set, for messages.
        splits: by name.
        split: such as ``train``, ``train[:45000]`` or ``train[90%:]``.

    Returns:
        The source.

    Raises:
        DataError: there is no such split, or the slice is empty or not understood.
    """
    match = _SPLIT.fullmatch(split)
    check_known(spec, split, list(splits))
    if match is None:
        raise DataError(
            f"{spec} split {split!r} is not understood; write it like train[:90%]"
        )
    source = splits[match[1]]
    if "[" not in split:
        return source
    count = len(source)
    start, stop = (_bound(text, count) for text in match.groups()[1:])
    indices = permutation(count, "slice of a split")[start:stop]
    if not len(indices):
        raise DataError(
            f"{spec} split {split!r} is empty: {match[1]} has {count} images"
        )
    return Subset(f"{spec} {split}", source, indices)


def overlap(one: Source, other: Source) -> int:
    """Count the records that two splits of the same set share.

    Args:
        one: a source; those of different kinds or sets share nothing.
        other: likewise.
    """
    extents = [getattr(source, "extents", None) for source in (one, other)]
    if extents[0] is not None and extents[1] is not None:
        return sum(
            max(0, min(stop, other_stop) - max(start, other_start))
            for file, start, stop in extents[0]
            for other_file, other_start, other_stop in extents[1]
            if file == other_file
        )
    whole, chosen = _within(one)
    other_whole, other_chosen = _within(other)
    if whole is not other_whole:
        return 0
    return len(np.intersect1d(chosen, other_chosen))


def _within(source: Source) -> tuple[Source, np.ndarray]:
    if isinstance(source, Subset):
        return source.source, source.indices
    return source, np.arange(len(source))


def _bound(text: str | None, count: int) -> int | None:
    if text is None:
        return None
    return round(count * int(text[:-1]) / 100) if text.endswith("%") else int(text)
