"""What the layers say: every row by name, alike on any mesh, in whole files."""

from typing import Any

import jax
import numpy as np
import pytest

from alexnet_jax import activations, augment, checkpoint, data, model, steps
from alexnet_jax.activations import Feature
from alexnet_jax.errors import ConfigError, ImageError
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network
from alexnet_jax.predict import predict
from alexnet_jax.table import Classifier, MaxPool, trace

TABLE = network("digits")


def on(digits_run, **options):
    mesh = make_mesh(TABLE, **options)
    return checkpoint.load(digits_run, mesh), mesh


@pytest.fixture(scope="module")
def one(digits_run):
    return on(digits_run, devices=1)


@pytest.fixture(scope="module")
def digits():
    source, _ = data.open_split("digits", "test")
    return [source[index].image for index in range(40)]


@pytest.fixture(scope="module")
def whole(one, digits):
    """All layers of the first digit."""
    loaded, mesh = one
    return activations.activations(loaded, digits[0], mesh)


def test_every_row_has_its_name_and_the_shape_of_the_table(whole):
    wanted: dict[str, tuple[int, ...]] = {"input": (1, 28, 28, 1)}
    for traced in trace(TABLE):
        is_last = isinstance(traced.row, Classifier)
        wanted["logits" if is_last else traced.row.name] = (1, *traced.outputs)
    assert {name: rows.shape for name, rows in whole.items()} == wanted
    assert list(whole) == list(wanted)  # in the order of the rows
    assert all(rows.dtype == np.float32 for rows in whole.values())


def test_the_rows_follow_from_each_other(whole, one, digits):
    """The input, a rectifier, a pool by hand, a dropout and the answer."""
    loaded, mesh = one
    pixels = data.decode(digits[0], 32, 1).astype(np.float32)
    mean = np.asarray(loaded.preprocess.mean)
    np.testing.assert_array_equal(whole["input"][0], (pixels - mean)[2:-2, 2:-2])
    np.testing.assert_array_equal(whole["relu2"], np.maximum(whole["conv2"], 0))
    (pool,) = (row for row in TABLE.rows if row.name == "pool1")
    assert isinstance(pool, MaxPool)
    size, stride = pool.size, pool.stride
    corner = whole["norm1"][0, :size, :size].max((0, 1))
    np.testing.assert_array_equal(whole["pool1"][0, 0, 0], corner)
    below = whole["norm1"][0, stride : stride + size, :size].max((0, 1))
    np.testing.assert_array_equal(whole["pool1"][0, 1, 0], below)
    np.testing.assert_allclose(whole["drop4"], whole["relu4"] * 0.5, rtol=1e-6)
    kernel, bias = (np.asarray(loaded.params["fc5"][k]) for k in ("kernel", "bias"))
    logits = whole["drop4"].reshape(1, -1) @ kernel + bias
    np.testing.assert_allclose(whole["logits"], logits, rtol=1e-4, atol=1e-5)
    (answer,) = predict(loaded, digits[:1], mesh, top=10)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    found = [g.probability for g in sorted(answer.guesses, key=lambda g: g.index)]
    np.testing.assert_allclose(found, shares[0], atol=1e-6)


@pytest.mark.parametrize("options", [{"devices": 2, "towers": 2}, {"devices": 4}])
def test_both_towers_in_order_on_any_mesh(options, digits_run, whole, digits):
    loaded, mesh = on(digits_run, **options)
    found = activations.activations(loaded, digits[0], mesh)
    assert list(found) == list(whole)
    for name, rows in whole.items():
        scale = np.abs(rows).max()
        np.testing.assert_allclose(found[name], rows, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("name", ["code2012", "caffe", "owt", "cifar-conv-local-11pct"])
def test_the_large_networks_have_their_layers_by_shape(name):
    """Traced only: nothing is computed."""
    table = network(name)
    mesh = make_mesh(table, devices=2)
    names = steps.row_names(table)
    run = steps.layers(table, 7, mesh, names=names, precision="bf16")
    side = table.input_size + 4
    shape: Any = jax.ShapeDtypeStruct
    found = jax.eval_shape(
        run,
        jax.eval_shape(lambda: model.init(table, 7, jax.random.key(0))),
        augment.Preprocess(
            *(shape(sides, np.float32) for sides in ((side, side, 3), (3, 3), (3,)))
        ),
        shape((4, side, side, 3), np.uint8),
    )
    shapes = [(4, *traced.outputs) for traced in trace(table, 7)]
    assert [found[name].shape for name in names[1:]] == shapes
    assert {leaf.dtype for leaf in found.values()} == {np.dtype("f4")}


def test_features_are_the_layers_rows_in_order(one, digits, whole):
    loaded, mesh = one
    given = [*digits[:5], b"no picture", *digits[5:]]
    found = list(activations.features(loaded, given, mesh, "fc4", batch_size=16))
    assert len(found) == 41
    assert found[5].values is None
    assert found[5].error
    values = [feature.values for feature in found if feature.values is not None]
    assert np.shape(values) == (40, 128)
    np.testing.assert_allclose(values[0], whole["fc4"][0], atol=1e-5)
    later = activations.activations(loaded, digits[30], mesh)["fc4"][0]
    np.testing.assert_allclose(values[30], later, atol=1e-5)


def test_features_of_maps_are_maps(one, digits, whole):
    loaded, mesh = one
    (found,) = activations.features(loaded, digits[:1], mesh, "pool1")
    assert found.values is not None
    np.testing.assert_allclose(found.values, whole["pool1"][0], atol=1e-5)


# Files.


def test_a_file_of_features(tmp_path):
    draw = np.random.default_rng(0)
    values = draw.normal(size=(3, 2, 2, 5)).astype(np.float32)
    given = [
        Feature("a.png", values[0]),
        Feature("é b.png", values[1]),
        Feature("bad.png", error="no"),
        Feature("c.png", values[2]),
    ]
    path = tmp_path / "x.npz"
    path.write_text("an older file")
    seen = activations.save_features(path, "pool1", given)
    for wanted in given[:3]:
        assert next(seen) is wanted
        assert path.read_text() == "an older file"  # until all are there
    assert list(seen) == given[3:]
    with np.load(path) as file:  # without pickles
        np.testing.assert_array_equal(file["features"], values)
        assert file["images"].tolist() == ["a.png", "é b.png", "c.png"]
        assert file["layer"].item() == "pool1"
        assert file["features"].dtype == np.float32
    assert list(tmp_path.iterdir()) == [path]


def test_no_features_no_file(tmp_path):
    bad = [Feature("bad.png", error="no")]
    assert list(activations.save_features(tmp_path / "x.npz", "fc4", bad)) == bad
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_activations(tmp_path, whole):
    activations.save(tmp_path / "x.npz", whole)
    with np.load(tmp_path / "x.npz") as file:
        assert set(file) == set(whole)
        for name, rows in whole.items():
            np.testing.assert_array_equal(file[name], rows)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


# Refusals.


def test_a_layer_that_there_is_not():
    with pytest.raises(ConfigError) as raised:
        activations.check_layer("digits", "fc9")
    assert str(raised.value).startswith(
        "--layer fc9: digits has no such layer; it has input, conv1, "
    )
    assert str(raised.value).endswith(", drop4, logits")


def test_places_that_a_file_cannot_go_to(tmp_path):
    with pytest.raises(ConfigError, match=r"is a folder; name a file, such as x\.npz"):
        activations.check_out(tmp_path)
    with pytest.raises(ConfigError, match=r"gone does not exist; make it first"):
        activations.check_out(tmp_path / "gone" / "x.npz")
    assert activations.check_out(tmp_path / "x.npz") == tmp_path / "x.npz"


def test_a_picture_that_cannot_be_read(one):
    loaded, mesh = one
    with pytest.raises(ImageError, match=r"^<bytes>: is not an image that Pillow can"):
        activations.activations(loaded, b"no picture", mesh)
    with pytest.raises(ImageError, match=r"^gone\.png: no such file"):
        activations.activations(loaded, "gone.png", mesh)
