"""The mean image and the covariance, against NumPy's own."""

import numpy as np
import pytest

from alexnet_jax.data import ArraySource, compute, statistics
from alexnet_jax.data.statistics import Accumulator
from alexnet_jax.errors import DataError


def source(count, size=6, channels=3):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, size, size, channels), np.uint8)
    labels = np.zeros(count, np.int32)
    return ArraySource("s", ("a", "b"), images, labels, [""] * count)


@pytest.mark.parametrize("channels", [1, 3])
def test_against_numpy(channels):
    split = source(100, channels=channels)
    result = compute(split, 6, channels)
    exact = split.images.astype(np.float64)
    np.testing.assert_allclose(result.mean, exact.mean(0), rtol=1e-6)
    covariance = np.cov(exact.reshape(-1, channels).T, bias=True)
    np.testing.assert_allclose(
        result.covariance, covariance.reshape(channels, channels), rtol=1e-12
    )
    assert result.mean.dtype == np.float32
    assert result.images == 100


def test_by_hand():
    # Two pixels, red 0 and 10, green 4 and 8: means 5 and 6, variances 25 and 4,
    # covariance ((0-5)(4-6) + (10-5)(8-6)) / 2 = 10.
    sums = Accumulator(1, 3)
    sums.add(np.array([[[0, 4, 0]]], np.uint8))
    sums.add(np.array([[[10, 8, 0]]], np.uint8))
    result = sums.statistics()
    assert result.mean.tolist() == [[[5, 6, 0]]]
    assert result.covariance.tolist() == [[25, 10, 0], [10, 4, 0], [0, 0, 0]]


def test_threads_change_nothing():
    split = source(300)
    one, four = compute(split, 6, 3, threads=1), compute(split, 6, 3, threads=4)
    np.testing.assert_array_equal(one.mean, four.mean)
    np.testing.assert_array_equal(one.covariance, four.covariance)


def test_large_sets_are_sampled_evenly(monkeypatch):
    monkeypatch.setattr(statistics, "MAX_EXACT", 50)
    monkeypatch.setattr(statistics, "SAMPLE", 20)
    split = source(60)
    result = compute(split, 6, 3)
    assert result.images == 20
    np.testing.assert_allclose(result.mean, split.images[::3].mean(0), rtol=1e-6)
    assert compute(source(50), 6, 3).images == 50


def test_the_shares_of_several_processes_add_up_to_the_whole(monkeypatch):
    for bound in (50_000, 40):  # all images, and a sample of 20
        monkeypatch.setattr(statistics, "MAX_EXACT", bound)
        monkeypatch.setattr(statistics, "SAMPLE", 20)
        split = source(101)
        total = Accumulator(6, 3)
        for part in range(3):
            share = statistics.measure_part(split, 6, 3, part=part, parts=3)
            total.merge(Accumulator.from_bytes(share.to_bytes(), 6, 3))
        whole, found = compute(split, 6, 3), total.statistics()
        np.testing.assert_array_equal(found.mean, whole.mean)
        np.testing.assert_array_equal(found.covariance, whole.covariance)
        assert found.images == whole.images == (101 if bound > 101 else 20)


def test_nothing_to_measure():
    with pytest.raises(DataError, match="no image to take the mean of"):
        compute(source(0), 6, 3)
