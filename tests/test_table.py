"""Shapes, parameters, multiply-adds and fields that follow from a table."""

from math import prod

import jax
import numpy as np
import pytest

from alexnet_jax import augment, model, steps
from alexnet_jax.cifar_networks import CIFAR_80SEC
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import CODE2012
from alexnet_jax.table import (
    AvgPool,
    Classifier,
    Conv,
    Dense,
    LocallyConnected,
    MaxPool,
    Network,
    ResponseNorm,
    SpatialNorm,
    conv_size,
    pool_size,
    trace,
)


def traced(network=CODE2012, classes=None):
    return {record.row.name: record for record in trace(network, classes)}


def windows(side: int, window: int, stride: int) -> int:
    """Count windows until one reaches the last pixel."""
    count = 1
    while (count - 1) * stride + window < side:
        count += 1
    return count


def test_sizes_count_every_window_to_the_last_pixel():
    for window in (1, 2, 3, 5, 11):
        for stride in (1, 2, 3, 4):
            for side in range(window, 40):
                assert pool_size(side, window, stride) == windows(side, window, stride)
                for pad in (0, 1, 2):
                    counted = windows(side + 2 * pad, window, stride)
                    assert conv_size(side, window, stride, pad) == counted
                    whole = range(0, side + 2 * pad - window + 1, stride)
                    floor = conv_size(side, window, stride, pad, "floor")
                    assert floor == len(whole)  # windows that hang over no edge


def test_the_picture_shrinks_as_in_the_paper():
    sides = [
        record.outputs[0]
        for record in trace(CODE2012)
        if record.row.name.startswith(("conv", "pool"))
    ]
    #        conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5
    assert sides == [55, 27, 27, 13, 13, 13, 13, 6]
    layers = traced()
    assert layers["conv1"].inputs == (224, 224, 3)
    assert layers["fc6"].inputs == (6, 6, 256)
    assert layers["fc6"].fan_in == 9216
    assert layers["fc8"].outputs == (1000,)
    assert 224 < 55 * 4 + 11 - 4 == 227  # the last window hangs 3 pixels over


def test_parameters_of_code2012():
    layers = traced()
    expected = {
        "conv1": 96 * 11 * 11 * 3 + 96,
        "conv2": 256 * 5 * 5 * 48 + 256,
        "conv3": 384 * 3 * 3 * 256 + 384,
        "conv4": 384 * 3 * 3 * 192 + 384,
        "conv5": 256 * 3 * 3 * 192 + 256,
        "fc6": 9216 * 4096 + 4096,
        "fc7": 4096 * 4096 + 4096,
        "fc8": 4096 * 1000 + 1000,
    }
    counted = {name: r.parameters for name, r in layers.items() if r.parameters}
    assert counted == expected
    assert list(counted.values()) == [
        34_944,
        307_456,
        885_120,
        663_936,
        442_624,
        37_752_832,
        16_781_312,
        4_097_000,
    ]
    assert sum(counted.values()) == 60_965_224


def test_multiply_adds_of_code2012():
    expected = {
        "conv1": 55 * 55 * 96 * 11 * 11 * 3,
        "conv2": 27 * 27 * 256 * 5 * 5 * 48,
        "conv3": 13 * 13 * 384 * 3 * 3 * 256,
        "conv4": 13 * 13 * 384 * 3 * 3 * 192,
        "conv5": 13 * 13 * 256 * 3 * 3 * 192,
        "fc6": 9216 * 4096,
        "fc7": 4096 * 4096,
        "fc8": 4096 * 1000,
    }
    counted = {name: r.macs for name, r in traced().items() if r.macs}
    assert counted == expected
    assert sum(counted.values()) == 724_406_816


def test_neurons_of_code2012():
    neurons = [prod(record.outputs) for record in trace(CODE2012) if record.weights]
    # The paper's Figure 2 says 253,440 for the first: 55 * 48 * 96, a slip.
    assert neurons == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert sum(neurons) == 659_272


def test_kernels_have_a_tower_axis_only_where_towers_read_their_own_maps():
    layers = traced()
    kernels = {name: r.weights["kernel"] for name, r in layers.items() if r.weights}
    assert kernels == {
        "conv1": (11, 11, 3, 96),
        "conv2": (2, 5, 5, 48, 128),
        "conv3": (3, 3, 256, 384),
        "conv4": (2, 3, 3, 192, 192),
        "conv5": (2, 3, 3, 192, 128),
        "fc6": (9216, 4096),
        "fc7": (4096, 4096),
        "fc8": (4096, 1000),
    }
    assert {name: layers[name].reads for name in kernels} == {
        "conv1": "image",
        "conv2": "own",
        "conv3": "both",
        "conv4": "own",
        "conv5": "own",
        "fc6": "both",
        "fc7": "both",
        "fc8": "both",
    }


def test_rows_without_weights_keep_or_pool_the_shape():
    layers = traced()
    for name in ("norm1", "relu1", "relu2", "norm2", "cnorm2", "relu6", "drop6"):
        assert layers[name].outputs == layers[name].inputs
        assert (layers[name].parameters, layers[name].macs) == (0, 0)
    assert layers["pool1"].outputs == (27, 27, 96)


def test_one_tower_has_whole_kernels_and_reads_nothing_of_another():
    layers = traced(CIFAR_80SEC)
    assert {record.reads for record in layers.values()} == {""}
    assert [r.outputs[0] for n, r in layers.items() if n.startswith("pool")] == [
        16,
        8,
        4,
    ]
    counted = {name: r.parameters for name, r in layers.items() if r.parameters}
    assert counted == {
        "conv1": 32 * 5 * 5 * 3 + 32,
        "conv2": 32 * 5 * 5 * 32 + 32,
        "conv3": 64 * 5 * 5 * 32 + 64,
        "fc64": 64 * (4 * 4 * 64) + 64,
        "fc10": 10 * 64 + 10,
    }


@pytest.mark.parametrize("classes", [2, 17])
def test_only_the_classifier_follows_the_number_of_classes(classes):
    few, thousand = traced(classes=classes), traced()
    assert few.pop("fc8").weights == {"kernel": (4096, classes), "bias": (classes,)}
    del thousand["fc8"]
    assert few == thousand


# What a unit sees.


def test_fields_of_code2012():
    """Size and stride by hand: k - 1 more steps of the layer below at each layer."""
    fields = {
        name: (record.field.size, record.field.stride, record.field.first)
        for name, record in traced().items()
    }
    assert fields["conv1"] == fields["norm1"] == (11, 4, 0)
    assert fields["pool1"] == fields["relu1"] == (11 + 2 * 4, 8, 0)
    assert fields["conv2"] == (19 + 4 * 8, 8, -2 * 8)
    assert fields["cnorm2"] == (51 + 4 * 8, 8, -16 - 2 * 8)
    assert fields["pool2"] == (83 + 2 * 8, 16, -32)
    assert fields["conv3"] == (99 + 2 * 16, 16, -48)
    assert fields["conv4"] == (131 + 2 * 16, 16, -64)
    assert fields["conv5"] == (163 + 2 * 16, 16, -80)
    assert fields["pool5"] == (195 + 2 * 16, 32, -80)
    # Six units of 227 pixels, 32 apart: all of the 224, and 80 and 83 beyond.
    assert fields["fc6"] == fields["fc8"] == (227 + 5 * 32, 0, -80)


def test_a_unit_sees_all_of_its_field_and_nothing_else():
    """The picture changed around the field, then along each of its four sides."""
    table = Network(
        name="every kind of row that looks about",
        source="",
        towers=2,
        input_size=38,
        channels=1,
        classes=2,
        rows=(
            Conv("conv1", 4, kernel=4, stride=3, pad=1, reads="both", sigma=1.0),
            ResponseNorm("norm1"),
            MaxPool("pool1", size=2, stride=2),
            SpatialNorm("cnorm1", size=3, alpha=1.0),
            Conv("conv2", 4, kernel=3, pad=1, reads="own", sigma=1.0),
            AvgPool("pool2"),
            LocallyConnected("local3", 4, kernel=2, reads="both", sigma=1.0),
            Dense("fc4", 8, sigma=1.0),
            Classifier("fc5"),
        ),
    )
    draw, side = np.random.default_rng(0), table.input_size
    names = ("conv1", "pool1", "cnorm1", "conv2", "pool2", "local3", "fc4")
    cases, images = [], []
    for record in trace(table):
        if record.row.name not in names:
            continue
        field, last = record.field, record.outputs[0] - 1
        places = {(0, 0), (last, last), (0, last), (last // 2, last // 2)}
        for place in places if len(record.outputs) == 3 else {()}:
            top, left = (field.first + field.stride * i for i in place or (0, 0))
            rows = slice(max(top, 0), min(top + field.size, side))
            columns = slice(max(left, 0), min(left + field.size, side))
            cases.append((record.row.name, place))
            picture = draw.integers(0, 256, (side, side, 1), np.uint8)
            around = draw.integers(0, 256, picture.shape, np.uint8)
            around[rows, columns] = picture[rows, columns]
            images += [picture, around]
            for edge in (0, -1):
                for axis in (0, 1):
                    changed = picture.copy()
                    inside = changed[rows, columns].swapaxes(0, axis)
                    inside[edge] = 255 * draw.integers(0, 2, inside[edge].shape)
                    images.append(changed)
    params = model.init(table, 2, jax.random.key(0))
    run = steps.layers(
        table, 2, make_mesh(table, devices=1), names=names, precision="f32"
    )
    plain = augment.Preprocess(
        *(np.zeros(shape, np.float32) for shape in ((side, side, 1), (1, 1))),
        scale=np.ones(1, np.float32),
    )
    found = jax.device_get(run(params, plain, jax.numpy.asarray(np.stack(images))))
    assert len(cases) > 20
    for number, (name, place) in enumerate(cases):
        whole, around, *edges = (
            found[name][6 * number + variant][place] for variant in range(6)
        )
        np.testing.assert_allclose(around, whole, rtol=1e-4, err_msg=f"{name} {place}")
        for changed in edges:
            assert not np.allclose(changed, whole, rtol=1e-3), f"{name} {place}"
