"""The 1,797 handwritten digits that ship inside scikit-learn (UCI, 1998)."""

import functools

import numpy as np

from alexnet_jax.data.memory import ArraySource
from alexnet_jax.data.order import permutation

SPLITS = ("train", "test")

# The set is in the order of its writers: its last 360 digits are by other people than
# the first 1,437, which is another and harder task. A shuffle with the seed written
# here mixes the writers, stratified by class.
_SEED = 0
_TEST_IMAGES = 360


@functools.cache
def load() -> dict[str, ArraySource]:
    """Load the digits.

    Returns:
        The splits ``train`` (1,437) and ``test`` (360): images ``u8[N, 8, 8, 1]``,
        0 to 255; ids such as ``digits-01234`` number scikit-learn's order.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    # Values are 0..16, counts of inked cells in 4x4 blocks; 16 becomes 255.
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = _stratified(labels)
    parts = {"train": order[_TEST_IMAGES:], "test": order[:_TEST_IMAGES]}
    classes = tuple("0123456789")
    return {
        split: ArraySource(
            name=f"digits {split}",
            classes=classes,
            images=images[indices],
            labels=labels[indices].astype(np.int32),
            ids=tuple(f"digits-{index:05}" for index in indices),
        )
        for split, indices in parts.items()
    }


def _stratified(labels: np.ndarray) -> np.ndarray:
    """Order the records so that any stretch of them has all classes in proportion.

    Args:
        labels: ``i64[N]``.

    Returns:
        ``i64[N]``, each index once.
    """
    shuffled = permutation(len(labels), _SEED, "digits split")
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(position[shuffled], kind="stable")]
