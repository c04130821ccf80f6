"""The body on every mesh against one plain forward pass made of XLA's operators."""

import dataclasses
from math import prod
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from alexnet_jax import model
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import CODE2012, DIGITS, OWT
from alexnet_jax.table import (
    AvgPool,
    Classifier,
    Conv,
    Dense,
    Dropout,
    LocallyConnected,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
    Row,
    SpatialNorm,
    Tanh,
    trace,
)

MESHES = [(1, 1), (1, 2), (4, 2)]  # 'data' x 'tower'; test_steps.py has others
BATCH, CLASSES = 8, 7


def shrunken(row):
    """Make a row of code2012 narrow, and its norms and weights strong enough to see."""
    sizes = {"conv1": (6, 5), "conv2": (4, 3)}
    match row:
        case Conv():
            features, kernel = sizes.get(row.name, (4, 3))
            return dataclasses.replace(
                row, features=features, kernel=kernel, pad=min(row.pad, 1), sigma=0.3
            )
        case Dense():
            return dataclasses.replace(row, features=12, sigma=0.2)
        case Classifier():
            return dataclasses.replace(row, sigma=0.2, bias=0.5)
        case ResponseNorm() | SpatialNorm():
            return dataclasses.replace(row, alpha=0.5)
    return row


# 54 pixels: 14, 7, 7, 3, 3, 3, 1; the first windows hang 3 pixels over, as at 224.
# conv4 is left out: to the body it is another conv5.
SMALL = dataclasses.replace(
    CODE2012,
    input_size=54,
    rows=tuple(shrunken(row) for row in CODE2012.rows if row.name[-1] != "4"),
)

# What ablations and other published networks need: units that read their own tower
# (net 150), a classifier that reads maps; Caffe's norm over both towers, dropout that
# is inverted and silences maps, kernels that differ from place to place, floors.
OWN_UNITS = Network(
    name="own-units",
    source="test",
    towers=2,
    input_size=9,
    channels=2,
    classes=CLASSES,
    rows=(
        Conv("conv1", 4, kernel=3, stride=2, reads="both", sigma=0.4),
        AvgPool("pool1"),
        Relu("relu1"),
        Dense("fc2", 6, reads="own", sigma=0.4),
        Relu("relu2"),
        Dropout("drop2", keep=0.75),
        Classifier("fc3", sigma=0.4),
    ),
)
READS_MAPS = dataclasses.replace(
    OWN_UNITS,
    name="reads-maps",
    rows=(*OWN_UNITS.rows[:3], Classifier("fc3", sigma=0.4)),
)
RELATIVES = dataclasses.replace(
    OWN_UNITS,
    name="relatives",
    rows=(
        # 9 pixels, windows 3 wide and 4 apart: two fit, a third would hang over.
        Conv("conv1", 3, 3, stride=4, reads="both", sigma=0.4, rounding="floor"),
        ResponseNorm("norm1", size=3, alpha=0.9, k=1.0, divide=False, reads="both"),
        Relu("relu1"),
        LocallyConnected("local2", 4, kernel=3, pad=1, sigma=0.4),
        Tanh("tanh2"),
        ResponseNorm("norm2", size=3, alpha=0.9, reads="both"),
        LocallyConnected("local3", 2, kernel=2, reads="both", sigma=None),
        Dropout("drop4", keep=0.75, rule="inverted"),
        Dense("fc4", 4, sigma=None),
        Classifier("fc3", sigma=None),
    ),
)


def reference(network, params, images, masks):
    """Run a table on one device, without towers: own layers are grouped ones.

    Returns every row's output by name, channels of both towers in order.
    """
    x, outputs, towers = images, {}, network.towers

    def pool(x, row, start, combine):
        size, stride, side = row.size, row.stride, x.shape[1]
        high = (-(side - size)) % stride
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        pad = ((0, 0), (0, high), (0, high), (0, 0))
        return lax.reduce_window(x, start, combine, window, strides, pad)

    def halves(x):
        return jnp.split(x, towers, -1)

    def flat(x):
        return x.reshape(len(x), -1)

    for row in network.rows:
        own = params.get(row.name, {})
        match row:
            case Conv():
                kernel, groups = own["kernel"], 1
                if kernel.ndim == 5:
                    kernel, groups = jnp.concatenate(list(kernel), -1), 2
                high = row.pad + (row.kernel - x.shape[1] - 2 * row.pad) % row.stride
                if row.rounding == "floor":
                    high = row.pad
                x = own["bias"] + lax.conv_general_dilated(
                    x,
                    kernel,
                    (row.stride, row.stride),
                    ((row.pad, high), (row.pad, high)),
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                    feature_group_count=groups,
                )
            case LocallyConnected():
                kernels = own["kernel"]
                kernels = kernels if kernels.ndim == 7 else kernels[None]
                x = jnp.concatenate(
                    [
                        locally(row, part, kernel)
                        for part, kernel in zip(
                            jnp.split(x, len(kernels), -1), kernels, strict=True
                        )
                    ],
                    -1,
                )
                x = x + own["bias"]
            case Dense():
                kernel = own["kernel"]
                if kernel.ndim == 3:
                    pairs = zip(halves(x), kernel, strict=True)
                    x = jnp.concatenate([flat(h) @ k for h, k in pairs], -1)
                else:
                    x = flat(x) @ kernel
                x = x + own["bias"]
            case Classifier():
                units = jnp.concatenate([flat(h) for h in halves(x)], -1)
                x = units @ own["kernel"] + own["bias"]
            case ResponseNorm():
                apart = 1 if row.reads == "both" else towers
                maps = x.reshape(*x.shape[:3], apart, -1)
                half = row.size // 2
                total = lax.reduce_window(
                    maps**2,
                    0.0,
                    lax.add,
                    (1, 1, 1, 1, row.size),
                    (1,) * 5,
                    ((0, 0),) * 4 + ((half, half),),
                )
                share = row.alpha / row.size if row.divide else row.alpha
                maps = maps * (row.k + share * total) ** -row.beta
                x = maps.reshape(x.shape)
            case SpatialNorm():
                total = lax.reduce_window(
                    x**2, 0.0, lax.add, (1, row.size, row.size, 1), (1,) * 4, "SAME"
                )
                x = x * (row.k + row.alpha / row.size**2 * total) ** -row.beta
            case MaxPool():
                x = pool(x, row, -jnp.inf, lax.max)
            case AvgPool():
                ones = jnp.ones_like(x)
                x = pool(x, row, 0.0, lax.add) / pool(ones, row, 0.0, lax.add)
            case Relu():
                x = jnp.where(x > 0, x, 0)
            case Tanh():
                x = 2 / (1 + jnp.exp(-2 * x)) - 1
            case Dropout():
                keep = {"2012": (1, row.keep), "inverted": (1 / row.keep, 1)}
                training, testing = keep[row.rule]
                x = testing * x if masks is None else training * masks[row.name] * x
        outputs[row.name] = x
    return outputs


def locally(row, x, kernels):
    """Weigh window by window; kernels [H', W', k, k, I, O]."""
    pad = ((0, 0), (row.pad, row.pad), (row.pad, row.pad), (0, 0))
    x, side, size = jnp.pad(x, pad), kernels.shape[0], row.kernel
    assert (row.stride, x.shape[1] - size + 1) == (1, side)
    rows = [
        jnp.stack(
            [
                jnp.einsum(
                    "byxi,yxio->bo", x[:, i : i + size, j : j + size], kernels[i, j]
                )
                for j in range(side)
            ],
            axis=1,
        )
        for i in range(side)
    ]
    return jnp.stack(rows, axis=1)


def inputs(network, seed=0):
    """Return parameters with bumpy biases, images, labels and masks."""
    rng = np.random.default_rng(seed)
    params = model.init(network, CLASSES, jax.random.key(seed))
    params = {
        name: {
            "kernel": layer["kernel"],
            "bias": layer["bias"] + rng.normal(size=layer["bias"].shape, scale=0.2),
        }
        for name, layer in params.items()
    }
    size, channels = network.input_size, network.channels
    images = rng.normal(size=(BATCH, size, size, channels)).astype(np.float32)
    labels = rng.integers(0, CLASSES, BATCH)
    masks = {
        name: rng.random((BATCH, *shape)) < keep
        for name, (shape, keep) in model.dropout_rows(network).items()
    }
    return params, images, labels, masks


def cross_entropy(logits, labels):
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probs, labels[:, None], 1))


def body(network, data, towers, masked=True, dtype=jnp.float32):
    """Return a function of (params, images, masks) that gives logits on a mesh."""
    mesh = make_mesh(network, devices=data * towers, towers=towers)
    graph = model.graph(network, CLASSES)
    masks = {
        name: P("data", *(None,) * (len(shape) - 1), "tower")
        for name, (shape, _) in model.dropout_rows(network).items()
    }
    return jax.shard_map(
        lambda p, x, m: model.merge(graph, p)(x, m, dtype=dtype),
        mesh=mesh,
        in_specs=(
            model.param_specs(network, CLASSES),
            P("data"),
            masks if masked else None,
        ),
        out_specs=P("data"),
    )


def far(actual, expected):
    """Return the distance of two arrays relative to their length."""
    expected = np.asarray(expected, np.float64)
    distance = np.linalg.norm(np.asarray(actual, np.float64) - expected)
    return distance / np.linalg.norm(expected)


def loss_and_gradients(forward, network):
    params, images, labels, masks = inputs(network)

    @jax.jit
    def run(params, images, labels, masks):
        return jax.value_and_grad(
            lambda p: cross_entropy(forward(p, images, masks), labels)
        )(params)

    return run(params, images, labels, masks)


@pytest.fixture(scope="module")
def expected():
    return loss_and_gradients(lambda p, x, m: reference(SMALL, p, x, m)["fc8"], SMALL)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "towers"), MESHES)
def test_loss_and_gradients_are_the_references_on_any_mesh(data, towers, expected):
    loss, gradients = loss_and_gradients(body(SMALL, data, towers), SMALL)
    wanted_loss, wanted = expected
    assert abs(float(loss) / float(wanted_loss) - 1) < 1e-5
    assert jax.tree.structure(gradients) == jax.tree.structure(wanted)
    distances = jax.tree.map(far, gradients, wanted)
    assert max(jax.tree.leaves(distances)) < 1e-5, distances


@pytest.mark.parametrize(
    "network", [OWN_UNITS, READS_MAPS, RELATIVES], ids=lambda n: n.name
)
def test_other_tables_too(network):
    wanted_loss, wanted = loss_and_gradients(
        lambda p, x, m: reference(network, p, x, m)["fc3"], network
    )
    for towers in (1, 2):
        loss, gradients = loss_and_gradients(body(network, 1, towers), network)
        assert abs(float(loss) / float(wanted_loss) - 1) < 1e-5
        distances = jax.tree.map(far, gradients, wanted)
        assert max(jax.tree.leaves(distances)) < 1e-5, distances


EVERY_KIND = dataclasses.replace(
    OWN_UNITS,
    name="every-kind",
    rows=(
        Conv("conv1", 4, kernel=3, stride=2, reads="both", sigma=0.4),
        ResponseNorm("norm1", alpha=0.9),
        MaxPool("pool1"),
        Relu("relu1"),
        LocallyConnected("local2", 2, kernel=2, sigma=0.4),
        SpatialNorm("cnorm2", size=3, alpha=0.9),
        Tanh("tanh2"),
        Conv("conv3", 3, kernel=2, pad=1, sigma=0.4),
        ResponseNorm("norm3", size=3, alpha=0.9, reads="both"),
        AvgPool("pool3", size=2),
        Dense("fc4", 6, reads="own", sigma=0.4),
        Dropout("drop4", rule="inverted"),
        Dense("fc5", 6, sigma=0.4),
        Dropout("drop5"),
        Classifier("fc6", sigma=0.4),
    ),
)


def test_the_gradient_in_float64_is_that_of_small_steps_for_every_kind_of_row():
    kinds = set(get_args(Row))
    assert {type(row) for row in EVERY_KIND.rows} == kinds
    with jax.enable_x64(True):
        params, images, labels, masks = inputs(EVERY_KIND)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        images = jnp.asarray(images[:2], jnp.float64)
        masks = {name: mask[:2] for name, mask in masks.items()}
        forward = body(EVERY_KIND, 1, 1, dtype=jnp.float64)

        def loss(params, images):
            return cross_entropy(forward(params, images, masks), labels[:2])

        assert jax.eval_shape(loss, params, images).dtype == jnp.float64
        close = {"atol": 1e-7, "rtol": 1e-7}
        check_grads(jax.jit(loss), (params, images), 1, ["rev"], **close)


def test_record_holds_every_rows_output():
    params, images, _, _ = inputs(DIGITS)
    graph = model.graph(DIGITS, CLASSES)

    def run(params, images):
        record = {}
        model.merge(graph, params)(images, None, dtype=jnp.float32, record=record)
        return record

    lie = {
        traced.row.name: P("data", *(None,) * (len(traced.outputs) - 1), "tower")
        for traced in trace(DIGITS)
    }
    lie["fc5"] = P("data")
    mapped = jax.shard_map(
        run,
        mesh=make_mesh(DIGITS, devices=4, towers=2),
        in_specs=(model.param_specs(DIGITS, CLASSES), P("data")),
        out_specs=lie,
    )
    record = jax.jit(mapped)(params, images)
    wanted = jax.jit(lambda p, x: reference(DIGITS, p, x, None))(params, images)
    assert list(lie) == [row.name for row in DIGITS.rows]
    for traced in trace(DIGITS, CLASSES):
        name = traced.row.name
        assert record[name].shape == (BATCH, *traced.outputs), name
        assert far(record[name], wanted[name]) < 1e-5, name


def test_no_gradient_passes_a_relu_at_zero():
    # On a black picture conv1's output is its bias, 0: neither side of the ReLU. The
    # 2012 kernels ask for more than 0.
    _, images, labels, _ = inputs(READS_MAPS)
    params = model.init(READS_MAPS, CLASSES, jax.random.key(0))
    forward = body(READS_MAPS, 1, 1)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: cross_entropy(forward(p, 0 * images, {}), labels))(
            params
        )

    gradients = gradient(params)
    assert np.any(gradients["fc3"]["bias"])
    np.testing.assert_array_equal(gradients["conv1"]["bias"], 0)


def test_bfloat16_is_close_and_its_logits_are_float32():
    params, images, _, masks = inputs(OWN_UNITS)
    forward = body(OWN_UNITS, 1, 1, dtype=jnp.bfloat16)
    logits = jax.jit(forward)(params, images, masks)
    wanted = jax.jit(lambda *a: reference(OWN_UNITS, *a)["fc3"])(params, images, masks)
    assert logits.dtype == jnp.float32
    assert 1e-5 < far(logits, wanted) < 0.05


def test_first_weights_are_normal_and_biases_constant():
    params = model.init(DIGITS, 10, jax.random.key(3))
    rows = {row.name: row for row in DIGITS.rows}
    assert list(params) == ["conv1", "conv2", "conv3", "fc4", "fc5"]
    for name, layer in params.items():
        row, kernel = rows[name], np.asarray(layer["kernel"], np.float64)
        assert isinstance(row, Conv | Dense | Classifier)
        error = row.sigma / np.sqrt(kernel.size)
        assert abs(kernel.mean()) < 4 * error
        assert abs(kernel.std() - row.sigma) < 4 * error / np.sqrt(2)
        np.testing.assert_array_equal(layer["bias"], np.float32(row.bias))
        assert layer["kernel"].dtype == layer["bias"].dtype == jnp.float32


def test_pytorchs_first_weights_are_uniform_within_the_root_of_the_fan_in():
    fans = {"conv1": 3 * 11 * 11, "fc8": 4096}

    @jax.jit
    def some():  # the other 57 million are not drawn
        params = model.init(OWT, 1000, jax.random.key(3))
        return {name: params[name] for name in fans}

    params = some()
    for name, fan_in in fans.items():
        for values in params[name].values():
            values = np.asarray(values, np.float64) * np.sqrt(fan_in)
            assert np.abs(values).max() <= 1
            assert np.abs(values).max() > 0.95
            error = 1 / np.sqrt(3 * values.size)
            assert abs(values.mean()) < 4 * error
            assert abs(values.std() - 1 / np.sqrt(3)) < 4 * error


def test_the_towers_are_no_twins():
    params = model.init(DIGITS, 10, jax.random.key(0))
    one, other = jnp.split(params["conv1"]["kernel"], 2, -1)
    assert np.abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.2
    one, other = params["conv2"]["kernel"]
    assert np.abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.2


def test_a_row_more_or_less_moves_no_other_rows_weights():
    rows = tuple(row for row in DIGITS.rows if not isinstance(row, ResponseNorm))
    without = dataclasses.replace(DIGITS, rows=rows)
    key = jax.random.key(0)
    before, after = model.init(DIGITS, 10, key), model.init(without, 10, key)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    kernels = [np.asarray(layer["kernel"]).ravel()[:99] for layer in before.values()]
    assert np.abs(np.corrcoef(kernels) - np.eye(5)).max() < 0.5  # each has its own draw


def test_code2012_has_the_papers_parameters_in_the_shapes_of_the_table():
    shapes = jax.eval_shape(lambda: model.init(CODE2012, 1000, jax.random.key(0)))
    assert sum(prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 60_965_224
    logits = jax.eval_shape(
        body(CODE2012, 1, 2, masked=False),
        jax.eval_shape(lambda: model.init(CODE2012, CLASSES, jax.random.key(0))),
        jax.ShapeDtypeStruct((BATCH, 224, 224, 3), jnp.float32),
        None,
    )
    assert (logits.shape, logits.dtype) == ((BATCH, CLASSES), jnp.float32)


def test_where_parameters_lie():
    kernels = {
        name: layer["kernel"] for name, layer in model.param_specs(CODE2012, 7).items()
    }
    column, both = P(None, None, None, "tower"), P("tower", None, None, None, None)
    assert kernels == {
        "conv1": column,
        "conv2": both,
        "conv3": column,
        "conv4": both,
        "conv5": both,
        "fc6": P(None, "tower"),
        "fc7": P(None, "tower"),
        "fc8": P("tower", None),
    }
    biases = [layer["bias"] for layer in model.param_specs(CODE2012, 7).values()]
    assert biases == [P("tower")] * 7 + [P(None)]


def test_dropout_rows():
    units = ((4096,), 0.5)
    assert model.dropout_rows(CODE2012) == {"drop6": units, "drop7": units}
    assert model.dropout_rows(OWN_UNITS) == {"drop2": ((12,), 0.75)}
    assert model.dropout_rows(RELATIVES) == {"drop4": ((1, 1, 4), 0.75)}
