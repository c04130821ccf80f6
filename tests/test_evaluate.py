"""Testing: every image counts once, on any batch size and any number of devices."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax import checkpoint, classes, data, evaluate
from alexnet_jax.data import ArraySource
from alexnet_jax.data.imagenet import class_names
from alexnet_jax.errors import ConfigError, DataError
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network
from alexnet_jax.predict import predict

TABLE = network("digits")


@pytest.fixture(scope="module")
def loaded(digits_run):
    """A checkpoint on one device and on four, by number of devices."""
    return {
        count: checkpoint.load(digits_run, make_mesh(TABLE, devices=count))
        for count in (1, 4)
    }


def mesh_of(loaded):
    leaf = jax.tree.leaves(loaded.params)[0]
    return leaf.sharding.mesh


@pytest.fixture(scope="module")
def test_split():
    return data.open_split("digits", "test")[0]


def results(loaded, source, **options):
    return list(evaluate.evaluate(loaded, source, mesh_of(loaded), **options))


@pytest.fixture(scope="module")
def by_hand(loaded, test_split):
    """The result as predictions one by one and NumPy give it."""
    records = [test_split[index] for index in range(len(test_split))]
    answers = predict(loaded[1], [r.image for r in records], mesh_of(loaded[1]), top=10)
    ranks, logs = [], []
    for record, answer in zip(records, answers, strict=True):
        (rank,) = (n for n, g in enumerate(answer.guesses) if g.index == record.label)
        ranks.append(rank)
        logs.append(np.log(answer.guesses[rank].probability))
    return np.array(ranks), np.array(logs)


@pytest.mark.parametrize(
    ("batch_size", "devices"), [(1, 1), (7, 1), (128, 1), (1000, 1), (7, 4), (128, 4)]
)
def test_every_image_counts_once(batch_size, devices, loaded, test_split, by_hand):
    ranks, logs = by_hand
    *_, found = results(loaded[devices], test_split, batch_size=batch_size)
    assert found.images == 360
    assert found.top1_error == pytest.approx((ranks > 0).mean(), abs=1e-9)
    assert found.top5_error == pytest.approx((ranks > 4).mean(), abs=1e-9)
    assert found.log_prob == pytest.approx(logs.mean(), rel=1e-5)
    assert 0 < found.top1_error < 0.5  # it has learned, and not all
    assert found.views == 1


def test_the_result_so_far(loaded, test_split):
    so_far = results(loaded[1], test_split, batch_size=128)
    assert [found.images for found in so_far] == [128, 256, 360]


def test_a_batch_is_rounded_up_to_what_the_mesh_divides(loaded):
    four = mesh_of(loaded[4])
    assert dict(four.shape) == {"data": 2, "tower": 2}
    assert [evaluate.padded(size, four) for size in (1, 2, 7, 8)] == [2, 2, 8, 8]


def test_ten_views_are_the_mean_of_their_softmax(loaded, test_split):
    """One picture's ten views, each made the centre of a picture of its own."""
    allowed = dataclasses.replace(loaded[1].meta, views=[1, 10])
    ten = dataclasses.replace(loaded[1], meta=allowed)
    pixels = data.decode(test_split[5].image, 32, 1)
    alone = []
    for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
        crop = pixels[y : y + 28, x : x + 28]
        for view in (crop, crop[:, ::-1]):
            centred = np.zeros_like(pixels)
            centred[2:30, 2:30] = view
            alone.append(centred)
    mesh = mesh_of(ten)

    def probabilities(pictures, views):
        return [
            [g.probability for g in sorted(a.guesses, key=lambda g: g.index)]
            for a in predict(ten, pictures, mesh, top=10, views=views)
        ]

    (found,) = probabilities([pixels], 10)
    np.testing.assert_allclose(found, np.mean(probabilities(alone, 1), 0), atol=1e-6)
    assert np.ptp(probabilities(alone, 1), axis=0).max() > 0.01  # the views differ

    one_image = ArraySource(
        "one", ten.meta.classes, pixels[None], np.array([5], "i4"), ["a"]
    )
    *_, result = results(ten, one_image, views=10, batch_size=3)
    assert dataclasses.asdict(result) == {
        "images": 1,
        "top1_error": float(np.argmax(found) != 5),
        "top5_error": float(5 not in np.argsort(found)[-5:]),
        "log_prob": pytest.approx(np.log(found[5]), rel=1e-4),
        "views": 10,
    }


# Classes by name.


def test_some_of_the_classes_in_any_order(loaded, test_split, by_hand):
    """They are scored among all ten."""
    ranks, logs = by_hand
    kept = np.isin(test_split.labels, (7, 2, 4))
    some = ArraySource(
        "some",
        ["7", "2", "4"],
        test_split.images[kept],
        np.array([(7, 2, 4).index(n) for n in test_split.labels[kept]], "i4"),
        np.array(test_split.ids)[kept].tolist(),
    )
    *_, found = results(loaded[1], some)
    assert found.images == kept.sum()
    assert found.top1_error == pytest.approx((ranks[kept] > 0).mean())
    assert found.top5_error == pytest.approx((ranks[kept] > 4).mean())
    assert found.log_prob == pytest.approx(logs[kept].mean(), rel=1e-5)


def test_folders_called_by_name_for_a_checkpoint_of_ids(loaded, tmp_path, test_split):
    """Folders in the order of their names, the checkpoint's in that of the ids."""
    ids = class_names()[:10]
    names = classes.readable(ids)
    called = dataclasses.replace(
        loaded[1], meta=dataclasses.replace(loaded[1].meta, classes=ids)
    )
    chosen = [n for n in range(40) if test_split.labels[n] in (9, 1, 4)]
    for index in chosen:
        record = test_split[index]
        folder = ids[record.label] if record.label == 4 else names[record.label]
        for part in ("train", "val"):
            path = tmp_path / part / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(record.image[..., 0]).save(path)
    source, _ = data.open_split(f"folder:{tmp_path}", "val")
    assert source.classes == ["goldfish", "n01494475", "ostrich"]
    *_, found = results(called, source)
    as_digits = ArraySource(
        "digits",
        test_split.classes,
        test_split.images[chosen],
        test_split.labels[chosen],
        [test_split.ids[n] for n in chosen],
    )
    *_, wanted = results(loaded[1], as_digits)
    assert found.images == len(chosen)
    assert dataclasses.asdict(found) == pytest.approx(
        dataclasses.asdict(wanted), rel=1e-5
    )


# Refusals.


def photos(classes):
    pixels = np.zeros((1, 32, 32, 1), np.uint8)
    return ArraySource("photos", classes, pixels, np.zeros(1, "i4"), ["a"])


def test_classes_that_the_checkpoint_does_not_know(loaded):
    path = loaded[1].path
    with pytest.raises(DataError) as raised:
        results(loaded[1], photos(["cat", "7", "dog"]))
    assert str(raised.value) == (
        f"photos has 2 classes that the checkpoint {path} does not know: cat, dog; it "
        "knows 10, such as 0, 1, 2: name them as it does, or evaluate on the data it "
        "was trained for"
    )
    with pytest.raises(DataError) as raised:
        results(loaded[1], photos([f"c{n}" for n in range(13)]))
    assert (
        "does not know: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 3 more; it knows 10"
    ) in str(raised.value)
    ids = dataclasses.replace(
        loaded[1], meta=dataclasses.replace(loaded[1].meta, classes=class_names()[:10])
    )
    with pytest.raises(
        DataError, match=r"1 class that .* such as tench, goldfish, gre"
    ):
        results(ids, photos(["tench", "crane"]))


@pytest.mark.parametrize(
    ("allowed", "views", "wanted"),
    [
        (
            [1],
            10,
            "--views 10: this checkpoint allows 1; ten views need a border to crop "
            "from and pictures that may be mirrored",
        ),
        ([1, 10], 5, "--views 5: this checkpoint allows 1 or 10; choose 1 or 10"),
    ],
)
def test_views_that_cannot_be(allowed, views, wanted):
    with pytest.raises(ConfigError) as raised:
        evaluate.choose_views(allowed, views)
    assert str(raised.value) == wanted


def test_the_views_of_a_checkpoint():
    assert evaluate.choose_views([1, 10], None) == 1
    assert evaluate.choose_views([10], None) == 10
    assert evaluate.choose_views([1, 10], 10) == 10


def test_an_empty_batch(loaded, test_split):
    with pytest.raises(ConfigError, match="batch_size=0; give at least 1"):
        results(loaded[1], test_split, batch_size=0)
