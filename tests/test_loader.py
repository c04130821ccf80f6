"""Batches: the order is addressed by (seed, position), and nothing else decides it."""

import gc
import itertools
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
import simplejpeg

from alexnet_jax.data import (
    ArraySource,
    Record,
    epoch_order,
    eval_batches,
    in_memory,
    train_batches,
)
from alexnet_jax.errors import ConfigError, DataError, ImageError

SIZE = 16


class Jpegs:
    """Pictures as files; the label is the index, so that batches tell the order."""

    name = "jpegs"
    classes = ("a", "b")

    def __init__(self, count, damaged=()):
        rng = np.random.default_rng(0)
        self.files = [
            simplejpeg.encode_jpeg(rng.integers(0, 256, (20, 24, 3), np.uint8))
            for _ in range(count)
        ]
        for index in damaged:
            self.files[index] = self.files[index][:100]
        self.read = []

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        self.read.append(index)
        return Record(self.files[index], index, f"picture-{index}")


def train(source, **options):
    defaults = {"batch_size": 8, "image_size": SIZE, "channels": 3, "seed": 1}
    return train_batches(source, **{**defaults, "num_steps": 10, **options})


def evaluate(source, **options):
    return eval_batches(source, batch_size=8, image_size=SIZE, channels=3, **options)


def labels(batches):
    return [batch.labels.tolist() for batch in batches]


def no_prefetch_threads():
    return not [t for t in threading.enumerate() if t.name.startswith("grain")]


def test_an_epochs_order_is_a_permutation_addressed_by_seed_and_epoch():
    order = epoch_order(3, 5, 1000)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, epoch_order(3, 5, 1000))
    for seed, epoch in ((3, 6), (4, 5), (35, 0), (0, 35)):
        # Two independent permutations agree in one place on average.
        assert np.sum(order == epoch_order(seed, epoch, 1000)) < 10


def test_the_order_never_changes():
    # A run begun by this version must resume under any later one. (Pinned.)
    assert epoch_order(0, 0, 10).tolist() == [7, 9, 1, 4, 0, 3, 6, 5, 8, 2]


@pytest.mark.parametrize("way", ["threads", "array"])
def test_batches_follow_the_epochs_across_their_ends(way):
    source = Jpegs(20)
    if way == "array":
        source = in_memory(source, SIZE, 3)
    run = np.concatenate([batch.labels for batch in train(source)])
    wanted = np.concatenate([epoch_order(1, epoch, 20) for epoch in range(4)])
    np.testing.assert_array_equal(run, wanted[:80])


def test_a_batch_may_be_larger_than_an_epoch():
    source = in_memory(Jpegs(5), SIZE, 3)
    run = np.concatenate([b.labels for b in train(source, batch_size=12, num_steps=2)])
    wanted = np.concatenate([epoch_order(1, epoch, 5) for epoch in range(5)])
    np.testing.assert_array_equal(run, wanted[:24])


@pytest.mark.parametrize("way", ["threads", "array"])
def test_resuming_gives_the_same_tail(way):
    source = Jpegs(20)
    if way == "array":
        source = in_memory(source, SIZE, 3)
    whole = list(train(source))
    tail = list(train(source, start_step=7))
    assert len(whole) == 10
    assert len(tail) == 3
    for one, other in zip(whole[7:], tail, strict=True):
        for array, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, same)


def test_neither_threads_nor_memory_change_a_batch():
    source = Jpegs(40)
    options = {"batch_size": 24, "num_steps": 4}
    one = list(train(source, threads=1, **options))
    others = [
        list(train(source, threads=3, **options)),
        list(train(source, threads=7, **options)),
        list(train(in_memory(source, SIZE, 3, threads=2), **options)),
    ]
    for other in others:
        for batch, same in zip(one, other, strict=True):
            for array, again in zip(batch, same, strict=True):
                np.testing.assert_array_equal(array, again)


def test_shapes_and_types():
    batch = next(iter(train(Jpegs(9), channels=1)))
    assert batch.images.shape == (8, SIZE, SIZE, 1)
    assert [array.dtype for array in batch] == [np.uint8, np.int32, bool]
    assert batch.mask.all()


def test_every_batch_has_arrays_of_its_own():
    for source in (Jpegs(20), in_memory(Jpegs(20), SIZE, 3)):
        one, two = itertools.islice(train(source), 2)
        assert not np.shares_memory(one.images, two.images)


def test_memory_is_used_again_once_nobody_holds_it():
    alone = [batch.images.copy() for batch in train(Jpegs(50), num_steps=30)]
    held, places = {}, set()
    for step, batch in enumerate(train(Jpegs(50), num_steps=30)):
        places.add(batch.images.ctypes.data)
        if step == 3:
            held[step] = batch.images[2:]  # a part of it is enough
        if step == 7:
            held[step] = jnp.asarray(batch.images)
        del batch
    # Two are held; others are being filled, waiting, or were just given.
    assert len(places) <= 8
    np.testing.assert_array_equal(held[3], alone[3][2:])
    np.testing.assert_array_equal(held[7], alone[7])


@pytest.mark.parametrize("batch_size", [1, 7, 8, 21, 64])
@pytest.mark.parametrize("way", ["threads", "array"])
def test_evaluation_counts_every_image_once(way, batch_size):
    source = Jpegs(21)
    if way == "array":
        source = in_memory(source, SIZE, 3)
    batches = list(
        eval_batches(source, batch_size=batch_size, image_size=SIZE, channels=3)
    )
    seen = np.concatenate([batch.labels[batch.mask] for batch in batches])
    assert seen.tolist() == list(range(21))
    assert all(batch.images.shape[0] == batch_size for batch in batches)
    padding = np.concatenate([batch.images[~batch.mask] for batch in batches])
    assert not padding.any()


@pytest.mark.parametrize("way", ["threads", "array"])
def test_a_process_reads_its_own_rows_only(way):
    whole, parts = Jpegs(21), [Jpegs(21), Jpegs(21)]
    rows = [range(0, 5), range(5, 8)]

    def ready(source):
        return source if way == "threads" else in_memory(source, SIZE, 3)

    for give in (train, evaluate):
        for batch, *own in zip(
            give(ready(whole)),
            *(give(ready(p), rows=r) for p, r in zip(parts, rows, strict=True)),
            strict=True,
        ):
            for got, part in zip(own, rows, strict=True):
                for mine, full in zip(got, batch, strict=True):
                    np.testing.assert_array_equal(mine, full[part.start : part.stop])
        if way == "threads":  # and each record is read once
            assert sorted(parts[0].read + parts[1].read) == sorted(whole.read)
            for source in (whole, *parts):
                source.read.clear()


def test_memory_ahead_is_bounded():
    source = Jpegs(400)
    batches = train(source, batch_size=10, threads=2, num_steps=40)
    next(batches)
    time.sleep(0.3)  # the threads run as far ahead as they may
    assert len(source.read) <= 50
    batches.close()


def test_a_damaged_image_is_named_and_ends_the_iteration():
    source = Jpegs(30, damaged=[13])
    batches = eval_batches(source, batch_size=8, image_size=SIZE, channels=3)
    assert labels(itertools.islice(batches, 1)) == [list(range(8))]
    with pytest.raises(ImageError, match=r"^picture-13: cannot be decoded: ") as caught:
        list(batches)
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=r"^picture-13: "):
        in_memory(source, SIZE, 3)


def test_closing_stops_the_threads():
    batches = train(Jpegs(30), num_steps=10_000)
    next(batches)
    batches.close()
    del batches
    gc.collect()
    for _ in range(100):
        if no_prefetch_threads():
            break
        time.sleep(0.05)
    assert no_prefetch_threads()


def test_an_abandoned_iterator_does_not_keep_the_process():
    program = """
import numpy as np
from alexnet_jax.data import ArraySource, train_batches
pixels = np.zeros((64, 32, 32, 3), np.uint8)
source = ArraySource("a", ("x", "y"), pixels, np.zeros(64, np.int32), [""] * 64)
batches = train_batches(source, batch_size=8, image_size=16, channels=3, seed=0,
                        num_steps=10**6, threads=2)
next(batches)
raise SystemExit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr


def test_in_memory_keeps_names_and_respects_the_bound(monkeypatch):
    source = Jpegs(10)
    array = in_memory(source, SIZE, 3, threads=3)
    assert isinstance(array, ArraySource)
    assert array.name == source.name
    assert [array[i].id for i in (0, 9)] == ["picture-0", "picture-9"]
    assert array[4].label == 4
    assert in_memory(array, SIZE, 3) is array
    monkeypatch.setattr("alexnet_jax.data.memory.MAX_BYTES", 10 * SIZE * SIZE * 3 - 1)
    assert in_memory(source, SIZE, 3) is source


def test_another_size_of_an_array_is_decoded():
    array = in_memory(Jpegs(10), 32, 3)
    (batch,) = eval_batches(array, batch_size=10, image_size=8, channels=1)
    assert batch.images.shape == (10, 8, 8, 1)


def test_mistakes():
    with pytest.raises(DataError, match="jpegs has no images"):
        train(Jpegs(0))
    with pytest.raises(ConfigError, match="batch_size=0; give at least 1"):
        eval_batches(Jpegs(1), batch_size=0, image_size=8, channels=3)
    assert list(train(Jpegs(3), start_step=10)) == []
