"""Shapes, parameters and multiply-adds that follow from a table, by arithmetic."""

from math import prod

import pytest

from alexnet_jax.cifar_networks import CIFAR_80SEC
from alexnet_jax.networks import CODE2012
from alexnet_jax.table import conv_size, pool_size, trace


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
