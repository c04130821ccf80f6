"""Scores against sorting in NumPy, one image at a time."""

import functools
import itertools

import jax
import numpy as np
import pytest

from alexnet_jax import metrics


def random_scores(count=200, classes=12, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)).astype("f4")
    labels = rng.integers(0, classes, count).astype("i4")
    return np.asarray(jax.nn.log_softmax(logits)), labels


@jax.jit
def jitted_score(log_probs, labels, mask):
    return metrics.score(log_probs, labels, mask)


@functools.partial(jax.jit, static_argnums=2)
def jitted_error(rows, labels, top):
    return metrics.error(rows, labels, top)


def score(log_probs, labels, mask=None):
    mask = np.ones(len(labels), bool) if mask is None else np.asarray(mask)
    return jax.device_get(jitted_score(log_probs, labels, mask))


def error(rows, labels, top):
    rows, labels = np.asarray(rows, np.float32), np.asarray(labels, np.int32)
    return np.asarray(jitted_error(rows, labels, top)).tolist()


def means(scores):
    return {name: float(value) for name, value in scores.compute().items()}


@pytest.mark.parametrize("top", [1, 5])
def test_without_ties_an_error_is_not_to_be_among_the_best(top):
    log_probs, labels = random_scores()
    wanted = [
        0.0 if label in np.argsort(row)[::-1][:top] else 1.0
        for row, label in zip(log_probs, labels, strict=True)
    ]
    assert 0 < sum(wanted) < len(wanted)
    assert error(log_probs, labels, top) == wanted


def test_a_shared_best_score_counts_by_its_share():
    rows = [
        [3, 3, 1, 0],  # two share the first place
        [3, 3, 3, 0],
        [3, 3, 1, 0],  # the true class is below them
        [4, 3, 3, 0],  # shares a place that is not the first
    ]
    assert error(rows, [0, 2, 2, 1], 1) == pytest.approx([1 / 2, 2 / 3, 1, 1])


def test_ties_at_the_fifth_place_share_what_is_left():
    # By enumeration: of all orders that agree with the scores, how often is the true
    # class among the first five?
    row, label = [9, 8, 7, 5, 5, 5, 5, 1], 4
    orders = [[0, 1, 2, *tied, 7] for tied in itertools.permutations([3, 4, 5, 6])]
    right = sum(label in order[:5] for order in orders) / len(orders)
    assert right == 1 / 2
    assert error([row], [label], 5) == [1 - right]
    assert error([[5, 5, 5, 1, 1, 1, 0]], [0], 5) == [0]  # three share three places


@pytest.mark.parametrize(("classes", "top"), [(10, 1), (1000, 1), (10, 5), (1000, 5)])
def test_the_same_score_for_all_classes_gains_nothing(classes, top):
    rows = np.zeros((3, classes))
    assert error(rows, [0, 1, classes - 1], top) == pytest.approx(
        [1 - top / classes] * 3
    )


def test_four_classes_are_all_among_the_best_five():
    assert error([[3, 2, 1, 0], [0, 0, 0, 0]], [3, 0], 5) == [0, 0]


def test_not_a_number_is_wrong():
    rows = np.full((1, 10), np.nan)
    assert error(rows, [0], 1) == [1]
    assert error(rows, [0], 5) == [1]


def test_the_log_probability_of_the_true_class():
    log_probs = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]).astype("f4")
    found = means(score(log_probs, np.array([1, 1], "i4")))
    assert found["log_prob"] == pytest.approx((np.log(0.25) + np.log(0.8)) / 2)
    assert found["top1_error"] == pytest.approx((1 + 0) / 2)


def test_a_mask_keeps_padding_out_whatever_it_holds():
    log_probs, labels = random_scores(20)
    padded = np.concatenate([log_probs, np.full((7, 12), np.nan, "f4")])
    with_padding = score(
        padded,
        np.concatenate([labels, np.zeros(7, "i4")]),
        [True] * 20 + [False] * 7,
    )
    assert int(with_padding.top1_error.count) == 20
    assert means(with_padding) == pytest.approx(means(score(log_probs, labels)))


@pytest.mark.parametrize("sizes", [[200], [1] * 200, [128, 72], [7] * 28 + [4]])
def test_any_split_of_the_data_adds_up_to_the_same(sizes):
    log_probs, labels = random_scores()
    ends = np.cumsum(sizes)
    parts = [
        score(log_probs[end - size : end], labels[end - size : end])
        for end, size in zip(ends, sizes, strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    assert int(total.top1_error.count) == 200
    found, true = means(total), np.take_along_axis(log_probs, labels[:, None], 1)
    assert found["top1_error"] == np.float32(
        np.mean(
            [
                row.argmax() != label
                for row, label in zip(log_probs, labels, strict=True)
            ]
        )
    )
    assert found["log_prob"] == pytest.approx(true.mean(), rel=1e-5)
