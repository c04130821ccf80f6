"""Addresses of random choices about data: the order of an epoch, stable shuffles.

Each is a function of its arguments only, the same on any machine and in any version of
NumPy: NumPy promises that for the raw bits of a bit generator, and not for
``Generator.permutation``. So permutations here are the sorting order of raw bits.
"""

import hashlib

import numpy as np


def permutation(count: int, *address: object) -> np.ndarray:
    """Shuffle ``range(count)``.

    Args:
        count: of indices, at least 0.
        address: what the shuffle is for; another address gives an independent one.

    Returns:
        ``i64[count]``, each index once.
    """
    text = "\0".join(str(part) for part in address)
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())
    bits = np.random.Philox(key=key).random_raw(count)
    return np.argsort(bits, kind="stable")


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Give the order in which an epoch visits the records (design decision 3).

    Args:
        seed: of the run.
        epoch: number of the pass through the records, from 0.
        count: of records.

    Returns:
        ``i64[count]``, each index once.
    """
    return permutation(count, seed, "data order", epoch)
