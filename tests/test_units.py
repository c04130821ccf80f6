"""What excites units: against every picture's layers one by one, on any mesh."""

import numpy as np
import pytest

from alexnet_jax import activations, checkpoint, data, units
from alexnet_jax.errors import ConfigError
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network
from alexnet_jax.table import Field

TABLE = network("digits")
COUNT = 30


@pytest.fixture(scope="module")
def split():
    source, _ = data.open_split("digits", f"test[:{COUNT}]")
    return source


@pytest.mark.parametrize("options", [{"devices": 1}, {"devices": 4, "towers": 2}])
def test_the_best_are_those_of_all_pictures(options, digits_run, split):
    mesh = make_mesh(TABLE, **options)
    loaded = checkpoint.load(digits_run, mesh)
    chosen = {"conv2": (3, 40), "logits": (7,)}
    *_, seen = units.excite(loaded, split, mesh, chosen, batch_size=12)
    assert seen.images == COUNT
    pictures = [split[index].image for index in range(COUNT)]
    for layer, wanted in chosen.items():
        found = activations.features(loaded, pictures, mesh, layer)
        rows = [feature.values for feature in found if feature.values is not None]
        maps = np.stack(rows)[..., list(wanted)]
        best = seen.layers[layer]
        assert best.units == wanted
        side = maps.shape[1] if maps.ndim == 4 else 1
        flat = maps.reshape(COUNT, side * side, len(wanted))
        for row in range(len(wanted)):
            largest = flat[:, :, row].max(1)
            order = np.argsort(-largest)[: units.PATCHES]
            np.testing.assert_allclose(best.values[row], largest[order], atol=1e-5)
            # Each picture once; it says at its place what it is listed with.
            assert len(set(best.images[row])) == units.PATCHES
            at = best.places[row] @ [side, 1]
            said = flat[best.images[row], at, row]
            np.testing.assert_allclose(said, best.values[row], atol=1e-5)


def test_fewer_pictures_than_places(digits_run):
    mesh = make_mesh(TABLE, devices=1)
    loaded = checkpoint.load(digits_run, mesh)
    few, _ = data.open_split("digits", "test[:2]")
    *_, seen = units.excite(loaded, few, mesh, {"conv1": (0,)}, batch_size=4)
    best = seen.layers["conv1"]
    assert sorted(best.images[0][:2]) == [0, 1]  # and none of the padding
    assert (best.images[0][2:] == -1).all()
    assert (best.values[0][2:] == -np.inf).all()


def test_a_cut_by_hand():
    picture = np.arange(36, dtype=np.uint8).reshape(6, 6, 1)
    field = Field(size=3, stride=2, first=-1)
    inner = units.cut(picture, field, 1, 2)  # lines 1 to 3, columns 3 to 5
    assert inner[..., 0].tolist() == [[9, 10, 11], [15, 16, 17], [21, 22, 23]]
    out = units.OUTSIDE
    corner = units.cut(picture, field, 0, 3)  # lines -1 to 1, columns 5 to 7
    assert corner[..., 0].tolist() == [[out] * 3, [5, out, out], [11, out, out]]


def test_a_field_larger_than_the_picture_shows_where_it_lies():
    picture = np.ones((4, 4, 3), np.uint8)
    below = units.cut(picture, Field(size=5, stride=2, first=-3), 2, 1)
    assert below.shape == (4, 4, 3)
    assert (below[:1] == units.OUTSIDE).all()  # lines 1 to 5
    assert (below[1:] == 1).all()  # columns -1 to 3
    whole = units.cut(picture, Field(size=9, stride=0, first=-2), 0, 0)
    np.testing.assert_array_equal(whole, picture)


def test_units_that_nobody_chose():
    conv1 = units.choose(TABLE, "conv1", 10)
    assert conv1 == (0, 2, 5, 8, 10, 13, 16, 18, 21, 24, 26, 29)  # six a tower
    assert units.choose(TABLE, "logits", 10) == tuple(range(10))
    assert len(units.choose(network("cifar-80sec"), "conv1", 10)) == 12
    assert units.choose(TABLE, "conv1", 10, [31, 4]) == (31, 4)
    assert units.layers(TABLE) == ("conv1", "conv2", "conv3")
    assert units.layers(network("cifar-conv-local-11pct"))[2:] == ("local3", "local4")


def test_units_that_there_are_not():
    with pytest.raises(ConfigError, match=r"^--units 32: conv1 has units 0 to 31$"):
        units.choose(TABLE, "conv1", 10, [3, 32])
    with pytest.raises(ConfigError, match="it has no units; choose a row after it"):
        units.choose(TABLE, "input", 10)
    with pytest.raises(ConfigError, match="digits has no such layer; it has "):
        units.choose(TABLE, "conv9", 10)
