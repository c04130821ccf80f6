"""Ensembles: the weighted mean of probabilities, and the 2012 search for weights."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from alexnet_jax import checkpoint, data, ensemble
from alexnet_jax.data import ArraySource
from alexnet_jax.ensemble import Member
from alexnet_jax.errors import ConfigError
from alexnet_jax.evaluate import evaluate
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network
from alexnet_jax.predict import predict

TABLE = network("digits")
SIZE = 120  # one batch size, few compilations


@pytest.fixture(scope="module")
def members(digits_run):
    """Steps 20 and 60 of a run, on one device."""
    mesh = make_mesh(TABLE, devices=1)
    return [
        Member(checkpoint.load(digits_run / step, mesh), mesh) for step in ("20", "60")
    ]


@pytest.fixture(scope="module")
def split():
    return data.open_split("digits", "test")[0]


@pytest.fixture(scope="module")
def table(members, split):
    """Probabilities ``f64[members, 360, 10]``, picture by picture, and labels."""
    records = [split[index] for index in range(len(split))]
    rows = []
    for loaded, mesh in members:
        answers = predict(loaded, [r.image for r in records], mesh, top=10)
        rows.append(
            [
                [g.probability for g in sorted(a.guesses, key=lambda g: g.index)]
                for a in answers
            ]
        )
    return np.array(rows), np.array([record.label for record in records], np.int32)


def by_hand(probabilities, labels):
    """Errors and log-probability of ``[N, C]``, where nothing ties."""
    true = probabilities[np.arange(len(labels)), labels]
    better = (probabilities > true[:, None]).sum(1)
    return (better > 0).mean(), (better > 4).mean(), np.log(true).mean()


@pytest.mark.parametrize("weights", [None, [1.0, 1.0], [1.0, 0.5], [0.0, 2.0]])
def test_the_weighted_mean_of_probabilities(weights, members, split, table):
    *_, found = ensemble.evaluate(members, split, weights=weights, batch_size=SIZE)
    mean = np.average(table[0], axis=0, weights=weights)
    top1, top5, log_prob = by_hand(mean, table[1])
    assert found.result.images == 360
    assert found.result.top1_error == pytest.approx(top1, abs=1e-9)
    assert found.result.top5_error == pytest.approx(top5, abs=1e-9)
    assert found.result.log_prob == pytest.approx(log_prob, rel=1e-4)
    assert found.weights == tuple(weights or (1, 1))


def test_a_weight_of_nothing_leaves_a_member_out(members, split):
    *_, alone = evaluate(members[0].loaded, split, members[0].mesh, batch_size=SIZE)
    *_, found = ensemble.evaluate(members, split, weights=[3.0, 0.0], batch_size=SIZE)
    assert dataclasses.asdict(found.result) == pytest.approx(
        dataclasses.asdict(alone), rel=1e-5
    )


def test_the_result_so_far(members, split):
    so_far = list(ensemble.evaluate(members, split, batch_size=SIZE))
    assert [found.result.images for found in so_far] == [120, 240, 360]


def test_members_on_other_meshes_and_with_other_pictures(members, digits_run, split):
    """One tower a device beside both together: the same members, the same result."""
    mesh = make_mesh(TABLE, devices=2, towers=2)
    spread = Member(checkpoint.load(digits_run / "20", mesh), mesh)
    wide = make_mesh(TABLE, devices=2, towers=1)
    other = Member(checkpoint.load(digits_run / "60", wide), wide)
    *_, whole = ensemble.evaluate(members, split, batch_size=SIZE)
    *_, found = ensemble.evaluate([spread, other], split, batch_size=7)
    assert dataclasses.asdict(found.result) == pytest.approx(
        dataclasses.asdict(whole.result), rel=1e-4
    )
    # Squares of 30 pixels, of which the network sees the centre 28.
    loaded = members[0].loaded
    mean = np.asarray(loaded.preprocess.mean)
    small = dataclasses.replace(
        loaded,
        meta=dataclasses.replace(loaded.meta, image_size=30),
        preprocess=loaded.preprocess._replace(mean=mean[1:-1, 1:-1]),
    )
    *_, found = ensemble.evaluate(
        [Member(small, members[0].mesh), members[1]], split, batch_size=SIZE
    )
    assert found.result.images == 360
    assert found.result.log_prob != pytest.approx(whole.result.log_prob, rel=1e-4)


def test_classes_of_another_order_are_mapped(members, split):
    names = list(split.classes)
    turned = ArraySource(
        "turned", names[::-1], split.images, 9 - split.labels, split.ids
    )
    *_, whole = ensemble.evaluate(members, split, batch_size=SIZE)
    *_, found = ensemble.evaluate(members, turned, batch_size=SIZE)
    assert found.result == whole.result


# The search.


def released_search(probabilities, labels):
    """What avg-valid.py of the released code does, line for line."""

    def do_avg(coeffs):
        preds = np.tensordot(coeffs, probabilities, 1)
        errs = 0
        for c in range(preds.shape[0]):
            err = True
            for _ in range(5):
                top = preds[c, :].argmax()
                if top == labels[c]:
                    err = False
                    break
                preds[c, top] = -1
            errs += err
        return errs

    coeffs = [0.5 for _ in probabilities]
    best = do_avg(coeffs)
    changed = -1
    for _ in range(5):
        for i in range(len(coeffs)):
            if changed == i:
                changed = -2
                break
            for c in [0.0 + c * 0.05 for c in range(21)]:
                oldc = coeffs[i]
                coeffs[i] = c
                err = do_avg(coeffs)
                if err < best:
                    best, changed = err, i
                else:
                    coeffs[i] = oldc
        if changed == -2:
            break
    return coeffs, best


@pytest.mark.parametrize("seed", range(3))
def test_the_search_is_that_of_2012(seed):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 20, 150).astype(np.int32)
    # Three members that know something, one of them little.
    skill = np.array([1.5, 1, 0.3])[:, None, None]
    logits = draw.normal(size=(3, 150, 20)) + skill * np.eye(20)[labels]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    probabilities = np.exp(log_probs.astype(np.float32))
    wanted, errors = released_search(probabilities, labels)
    *_, found = ensemble.search(log_probs.astype(np.float32), labels)
    assert found == pytest.approx(wanted)
    mean = np.tensordot(found, probabilities, 1)
    assert by_hand(mean, labels)[1] * 150 == pytest.approx(errors)
    assert found != (0.5, 0.5, 0.5)  # it moved


def test_a_search_on_a_split(members, split, table, monkeypatch):
    """The last result is that of the weights found, over all images."""
    monkeypatch.setattr(ensemble, "_CHUNK", 100)
    found = list(ensemble.evaluate(members, split, weights="search", batch_size=SIZE))
    assert [so_far.searching for so_far in found[:3]] == [False] * 3
    assert all(so_far.searching for so_far in found[3:])
    assert len(found) > 3
    wanted, errors = released_search(table[0], table[1])
    assert found[-1].weights == pytest.approx(wanted)
    mean = np.average(table[0], axis=0, weights=wanted)
    top1, top5, log_prob = by_hand(mean, table[1])
    assert found[-1].result.images == 360
    assert found[-1].result.top1_error == pytest.approx(top1)
    assert found[-1].result.top5_error == pytest.approx(top5)
    assert top5 * 360 == pytest.approx(errors)
    assert found[-1].result.log_prob == pytest.approx(log_prob, rel=1e-4)


def test_a_search_ends_where_nothing_can_be_better():
    """All are right already: one look at each member."""
    log_probs = np.log(np.full((4, 6, 8), 0.01, np.float32))
    labels = np.arange(6, dtype=np.int32)
    log_probs[:, np.arange(6), labels] = np.log(0.93)
    assert list(ensemble.search(log_probs, labels)) == [(0.5,) * 4] * 4


def test_too_little_space_for_a_search(members, split, monkeypatch):
    monkeypatch.setattr(
        ensemble.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000)
    )
    with pytest.raises(
        ConfigError, match=r"the search keeps 0.0 GB of probabilities in .*, which has "
    ):
        list(ensemble.evaluate(members, split, weights="search"))


# Refusals.


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (
            [1.0],
            "--weights 1: 1 given for 2 checkpoints; give one each, in order",
        ),
        ([0.0, 0.0], "--weights 0,0: give numbers from 0 up, at least one above 0"),
        ([1.0, -1.0], "--weights 1,-1: give numbers from 0 up, at least one above 0"),
        (
            [1.0, float("nan")],
            "--weights 1,nan: give numbers from 0 up, at least one above 0",
        ),
    ],
)
def test_weights_that_cannot_weigh(weights, words):
    with pytest.raises(ConfigError) as raised:
        ensemble.check_weights(weights, 2)
    assert str(raised.value) == words


def test_members_of_other_classes(tmp_path):
    one, two = tmp_path / "a", tmp_path / "b"
    with pytest.raises(ConfigError) as raised:
        ensemble.check_members([(one, ["x", "y"]), (two, ["x", "y", "z"])])
    assert str(raised.value) == (
        f"{two} has 3 classes, {one} has 2; an ensemble needs the same ones, in the "
        "same order"
    )
    with pytest.raises(ConfigError) as raised:
        ensemble.check_members([(one, ["x", "y"]), (two, ["x", "w"])])
    assert str(raised.value) == (
        f"class 1 is 'w' in {two} but 'y' in {one}; an ensemble needs the same ones, "
        "in the same order"
    )


def test_views_of_an_ensemble():
    assert ensemble.common_views([[1], [1, 10]], None) == 1
    assert ensemble.common_views([[1, 10], [10, 1]], 10) == 10
    with pytest.raises(ConfigError, match="with 1 view, others with 10; say which"):
        ensemble.common_views([[1, 10], [10, 1]], None)
    with pytest.raises(ConfigError, match="--views 10: this checkpoint allows 1"):
        ensemble.common_views([[1, 10], [1]], 10)
