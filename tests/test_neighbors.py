"""The index: exact rows, whole after any interruption, never taken for another."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from alexnet_jax import activations, checkpoint, data, neighbors
from alexnet_jax.data import ArraySource
from alexnet_jax.errors import ConfigError, DataError
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network

TABLE = network("digits")


@pytest.fixture(scope="module")
def one(digits_run):
    mesh = make_mesh(TABLE, devices=1)
    return checkpoint.load(digits_run, mesh), mesh


@pytest.fixture(scope="module")
def split():
    source, _ = data.open_split("digits", "test[:100]")
    return source


@pytest.fixture(scope="module")
def written(one, split, tmp_path_factory):
    loaded, mesh = one
    folder = tmp_path_factory.mktemp("neighbors")
    path = neighbors.place(folder, loaded, split, "fc4")
    rows = list(neighbors.write(path, loaded, split, mesh, "fc4", batch_size=40))
    assert rows == [40, 80, 100]
    return path


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_an_index_holds_what_the_layer_says(one, split, written):
    loaded, mesh = one
    index = neighbors.read(written)
    pictures = [split[place].image for place in range(100)]
    found = activations.features(loaded, pictures, mesh, "fc4")
    values = np.array([feature.values for feature in found])
    assert index.features.dtype == np.float16
    np.testing.assert_allclose(index.features, values, rtol=2e-3, atol=1e-4)
    wide = np.asarray(index.features, np.float32)
    np.testing.assert_allclose(index.squares, (wide**2).sum(1), rtol=1e-5)
    assert index.labels.tolist() == [split[place].label for place in range(100)]
    assert index.ids == [split[place].id for place in range(100)]


def test_a_whole_index_is_only_read(one, split, written):
    loaded, mesh = one
    assert list(neighbors.write(written, loaded, split, mesh, "fc4")) == []


def test_an_interrupted_index_ends_the_same(one, split, written, tmp_path, monkeypatch):
    """Killed after the mark at 32 rows, half a row beyond it on the disk."""
    loaded, mesh = one
    monkeypatch.setattr(neighbors, "_SAVE", 32)
    path = tmp_path / written.name
    going = neighbors.write(path, loaded, split, mesh, "fc4", batch_size=20)
    assert [next(going), next(going)] == [20, 40]
    going.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert json.loads((path / "mark.json").read_text())["rows"] == 32
    with open(path / "features", "ab") as file:
        file.write(b"half a row")
    rows = list(neighbors.write(path, loaded, split, mesh, "fc4", batch_size=20))
    assert rows[-1] == 100
    assert rows[0] == 40
    assert files(path).keys() == files(written).keys()
    for name in ("labels", "ids", "mark.json"):
        assert files(path)[name] == files(written)[name]
    again, whole = neighbors.read(path), neighbors.read(written)
    np.testing.assert_allclose(again.features, whole.features, rtol=2e-3, atol=1e-4)


def test_two_that_write_the_same_index_write_it_once(one, split, written, tmp_path):
    loaded, mesh = one
    path = tmp_path / written.name
    with ThreadPoolExecutor(2) as pool:
        writing = [
            pool.submit(
                lambda: list(
                    neighbors.write(path, loaded, split, mesh, "fc4", batch_size=40)
                )
            )
            for _ in range(2)
        ]
        assert sorted(each.result() for each in writing) == [[], [40, 80, 100]]
    assert files(path) == files(written)


@pytest.mark.parametrize("damage", ["short", "mark", "gone"])
def test_a_damaged_index_is_written_anew(one, split, written, damage, tmp_path):
    loaded, mesh = one
    path = tmp_path / written.name
    path.mkdir()
    for name, content in files(written).items():
        (path / name).write_bytes(content)
    if damage == "short":
        (path / "features").write_bytes(files(written)["features"][:-1])
    elif damage == "mark":
        (path / "mark.json").write_text("{")
    else:
        (path / "squares").unlink()
    list(neighbors.write(path, loaded, split, mesh, "fc4", batch_size=40))
    assert files(path) == files(written)


def test_names_of_indices(one, split, written, digits_run, tmp_path):
    loaded, _ = one
    other, _ = data.open_split("digits", "test[:99]")
    earlier = checkpoint.load(
        digits_run / "checkpoints" / "20", make_mesh(TABLE, devices=1)
    )
    pair = make_mesh(TABLE, devices=2, towers=2)
    names = {
        neighbors.place(tmp_path, *arguments).name
        for arguments in (
            (loaded, split, "fc4"),
            (loaded, split, "relu4"),
            (loaded, other, "fc4"),
            (earlier, split, "fc4"),
        )
    }
    assert len(names) == 4
    assert written.name in names
    on_two = checkpoint.load(digits_run, pair)  # the same weights, elsewhere
    assert neighbors.place(tmp_path, on_two, split, "fc4").name == written.name


def test_search_finds_what_sorting_all_distances_finds(tmp_path, monkeypatch):
    """In pieces of seven rows; far from the origin, where the product is inexact."""
    monkeypatch.setattr(neighbors, "_CHUNK", 7 * 12)
    draw = np.random.default_rng(0)
    features = (100 + draw.normal(size=(200, 12))).astype(np.float16)
    wide = features.astype(np.float32)
    index = neighbors.Index(
        path=tmp_path,
        features=features,
        squares=(wide**2).sum(1),
        labels=np.arange(200, dtype=np.int32) % 3,
        ids=[f"id {place}" for place in range(200)],
    )
    for query in (wide[17], wide[3] + 0.25, wide[100] - 20):
        stored = query.astype(np.float16).astype(np.float64)
        distances = np.sqrt(((features - stored) ** 2).sum(1))
        order = np.argsort(distances, kind="stable")[:9]
        found = neighbors.search(index, query, 9)
        assert [neighbor.index for neighbor in found] == order.tolist()
        np.testing.assert_allclose([n.distance for n in found], distances[order])
        assert [n.label for n in found] == (order % 3).tolist()
        assert [n.id for n in found] == [f"id {place}" for place in order]
    assert neighbors.search(index, wide[17], 1)[0].distance == 0
    assert len(neighbors.search(index, wide[17], 300)) == 200


def test_the_last_hidden_layer():
    layers = {
        name: neighbors.last_hidden(network(name))
        for name in ("code2012", "digits", "owt", "cifar-80sec", "cifar-18pct")
    }
    assert layers == {
        "code2012": "relu7",
        "digits": "relu4",
        "owt": "relu7",
        "cifar-80sec": "relu4",
        "cifar-18pct": "pool3",
    }


# Refusals.


def test_no_pictures_and_no_such_layer(one, split, tmp_path):
    loaded, _ = one
    none = ArraySource(
        "none", split.classes, np.zeros((0, 8, 8, 1), "u1"), np.zeros(0, "i4"), ()
    )
    with pytest.raises(DataError, match=r"^none has no images$"):
        neighbors.place(tmp_path, loaded, none, "fc4")
    with pytest.raises(ConfigError, match="digits has no such layer"):
        neighbors.place(tmp_path, loaded, split, "fc9")


def test_values_too_large_for_half_precision(one, split, tmp_path, monkeypatch):
    loaded, mesh = one

    def take(_, pictures, *__, **___):
        next(pictures)
        return [("x", np.array([1.0, 1e5], np.float32))]

    monkeypatch.setattr(neighbors, "compute", take)
    path = tmp_path / "index"
    with pytest.raises(DataError, match=r"^digits-\d+: fc4 says more than half"):
        list(neighbors.write(path, loaded, split, mesh, "fc4"))


def test_a_picture_that_cannot_be_read_is_named(one, split, tmp_path):
    loaded, mesh = one

    class Broken:
        name, classes = "broken", split.classes

        def __len__(self):
            return 3

        def __getitem__(self, index):
            image = b"no picture" if index == 1 else split[index].image
            return data.Record(image, 0, f"file {index}")

    with pytest.raises(DataError, match=r"^file 1: "):
        list(neighbors.write(tmp_path / "i", loaded, Broken(), mesh, "fc4"))


def test_a_disk_that_is_too_small(one, split, tmp_path, monkeypatch):
    loaded, mesh = one
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(neighbors.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match=r"GB free; make room, or choose a smaller"):
        list(neighbors.write(tmp_path / "i", loaded, split, mesh, "fc4"))
