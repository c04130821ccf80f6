"""What a data set is to the rest of the library: records, sources, batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Record(NamedTuple):
    """One labelled picture as it is stored.

    Attributes:
        image: an encoded file (JPEG, PNG, ...) as bytes, or ``u8[H, W, C]``.
        label: index into the source's ``classes``.
        id: a name that says which picture this is: a path or a tfds key.
    """

    image: bytes | np.ndarray
    label: int
    id: str


@runtime_checkable
class Source(Protocol):
    """A split that can be read at random; safe to read from many threads.

    A record that cannot be read raises an ImageError that starts with its id.

    Attributes:
        name: what the user asked for, such as ``tfds:cifar10 train``.
        classes: names of the classes, in label order.
    """

    @property
    def name(self) -> str:
        """What the user asked for."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in label order."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


@dataclass(frozen=True)
class Statistics:
    """The mean image and the colour covariance of a training set.

    Attributes:
        mean: ``f32[S, S, C]``, the mean of each pixel, 0 to 255.
        covariance: ``f64[C, C]``, over all pixels of all images.
        images: how many images were counted.
    """

    mean: np.ndarray
    covariance: np.ndarray
    images: int


@dataclass(frozen=True)
class Dataset:
    """A training split and the split that it is evaluated on.

    Attributes:
        spec: what the user asked for.
        train: the split to train on.
        eval: the split to evaluate on.
        eval_role: ``validation`` if results on it may choose a checkpoint or a
            learning rate, ``test`` if they may only be reported.
        statistics: of the training split where the store carries them, else None.
    """

    spec: str
    train: Source
    eval: Source
    eval_role: Literal["validation", "test"]
    statistics: Statistics | None = None


class Batch(NamedTuple):
    """What travels to the devices.

    Attributes:
        images: ``u8[B, S, S, C]``.
        labels: ``i32[B]``.
        mask: ``bool[B]``, False where the batch is padding.
    """

    images: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
