"""The handwritten digits of scikit-learn and their fixed split."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from alexnet_jax.config import DataConfig
from alexnet_jax.data import open_dataset, open_split
from alexnet_jax.errors import ConfigError, DataError


def digits(**options):
    return open_dataset(DataConfig(spec="digits", image_size=8, **options))


def test_every_digit_is_in_one_split_with_its_own_label_and_pixels():
    data = digits()
    assert (len(data.train), len(data.eval), data.eval_role) == (1437, 360, "test")
    assert data.train.classes == tuple("0123456789")
    pixels, labels = load_digits(return_X_y=True)
    seen = set()
    for split in (data.train, data.eval):
        for index in range(len(split)):
            record = split[index]
            number = int(record.id.removeprefix("digits-"))
            seen.add(number)
            assert record.label == labels[number]
            image = np.asarray(record.image)
            assert image.shape == (8, 8, 1)
            ink = image.ravel() / 255 * 16
            np.testing.assert_allclose(ink, pixels[number], atol=0.04)
    assert seen == set(range(1797))


def test_the_split_is_stratified_and_mixes_the_writers():
    data = digits()
    _, labels = load_digits(return_X_y=True)
    held_out = np.bincount([data.eval[i].label for i in range(360)])
    np.testing.assert_allclose(held_out, np.bincount(labels) / 5, atol=1)
    numbers = [int(data.eval[i].id[-5:]) for i in range(360)]
    # The last 360 in scikit-learn's order are other people's: a fifth of them is held
    # out, as of all others.
    assert 50 < sum(number >= 1437 for number in numbers) < 95


def test_the_split_never_changes():
    assert [digits().eval[i].id for i in range(3)] == [
        "digits-00992",
        "digits-00866",
        "digits-01617",
    ]


def test_slices():
    data = digits(train_split="train[:80%]", eval_split="train[80%:]")
    assert (len(data.train), len(data.eval), data.eval_role) == (
        1150,
        287,
        "validation",
    )
    ids = [{s[i].id for i in range(len(s))} for s in (data.train, data.eval)]
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 1437
    source, role = open_split("digits", "test[-100:]")
    assert (len(source), role) == (100, "test")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tset", r"digits has no split 'tset'; it has train, test \(slices such as"),
        ("train[5", r"digits split 'train\[5' is not understood; write it like"),
        ("train[2000:]", r"digits split 'train\[2000:\]' is empty: train has 1437"),
    ],
)
def test_split_mistakes(split, message):
    with pytest.raises(DataError, match=message):
        open_split("digits", split)


def test_overlapping_splits_are_refused():
    with pytest.raises(ConfigError, match=r"shares 287 images with the training split"):
        digits(eval_split="train[80%:]")
    assert len(digits(train_split="train", eval_split="train").eval) == 1437
