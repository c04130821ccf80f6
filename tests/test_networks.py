"""Every constant of the published networks, written out a second time."""

import re

import pytest

from alexnet_jax.errors import ConfigError
from alexnet_jax.networks import CIFAR_80SEC, CODE2012, DIGITS, NETWORKS, network
from alexnet_jax.table import (
    AvgPool,
    Classifier,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Relu,
    ResponseNorm,
    SpatialNorm,
)


def conv(name, features, kernel, stride, pad, reads, sigma, bias):
    return Conv(name, features, kernel, stride, pad, reads, sigma, bias)


def test_code2012_is_net_145():
    # layers/layers-145.cfg of the released code; counts are one tower's.
    assert (CODE2012.towers, CODE2012.input_size, CODE2012.channels) == (2, 224, 3)
    assert CODE2012.classes == 1000
    expected = (
        conv("conv1", 48, 11, 4, 0, "both", 0.01, 0.0),
        ResponseNorm("norm1", size=5, alpha=1e-4, beta=0.75, k=2.0),
        MaxPool("pool1", size=3, stride=2),
        Relu("relu1"),  # after the norm and the pool
        conv("conv2", 128, 5, 1, 2, "own", 0.01, 1.0),
        Relu("relu2"),
        ResponseNorm("norm2", size=5, alpha=1e-4, beta=0.75, k=2.0),
        SpatialNorm("cnorm2", size=5, alpha=1e-3, beta=0.75, k=1.0),
        MaxPool("pool2", size=3, stride=2),
        conv("conv3", 192, 3, 1, 1, "both", 0.03, 0.0),
        Relu("relu3"),
        conv("conv4", 192, 3, 1, 1, "own", 0.03, 1.0),
        Relu("relu4"),
        conv("conv5", 128, 3, 1, 1, "own", 0.03, 1.0),
        MaxPool("pool5", size=3, stride=2),
        Relu("relu5"),
        Dense("fc6", 2048, reads="both", sigma=0.01, bias=1.0),
        Relu("relu6"),
        Dropout("drop6", keep=0.5),
        Dense("fc7", 2048, reads="both", sigma=0.01, bias=1.0),
        Relu("relu7"),
        Dropout("drop7", keep=0.5),
        Classifier("fc8", sigma=0.01, bias=0.0),
    )
    for row, wanted in zip(CODE2012.rows, expected, strict=True):
        assert row == wanted


def test_the_cifar_network_is_80sec():
    # cuda-convnet's layers-80sec.cfg: biases start at 0.
    assert (CIFAR_80SEC.towers, CIFAR_80SEC.input_size) == (1, 32)
    assert (CIFAR_80SEC.channels, CIFAR_80SEC.classes) == (3, 10)
    expected = (
        conv("conv1", 32, 5, 1, 2, "own", 0.0001, 0.0),
        MaxPool("pool1", size=3, stride=2),
        Relu("relu1"),
        conv("conv2", 32, 5, 1, 2, "own", 0.01, 0.0),
        Relu("relu2"),
        AvgPool("pool2", size=3, stride=2),
        conv("conv3", 64, 5, 1, 2, "own", 0.01, 0.0),
        Relu("relu3"),
        AvgPool("pool3", size=3, stride=2),
        Dense("fc64", 64, sigma=0.1, bias=0.0),
        Relu("relu4"),
        Classifier("fc10", sigma=0.1, bias=0.0),
    )
    for row, wanted in zip(CIFAR_80SEC.rows, expected, strict=True):
        assert row == wanted


def test_the_digits_network_has_net_145s_kinds_of_layers():
    assert DIGITS.towers == 2
    assert {type(row) for row in DIGITS.rows} == {type(row) for row in CODE2012.rows}
    assert [type(row) for row in DIGITS.rows[:9]] == [
        type(row) for row in CODE2012.rows[:9]
    ]
    reads = [row.reads for row in DIGITS.rows if isinstance(row, Conv)]
    assert reads == ["both", "own", "both"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_one_row_a_name_and_ends_in_its_classifier(name):
    table = network(name)
    assert table.name == name
    assert table.source
    names = [row.name for row in table.rows]
    assert len(set(names)) == len(names)
    kinds = [isinstance(row, Classifier) for row in table.rows]
    assert kinds == [False] * (len(kinds) - 1) + [True]


def test_an_unknown_network_is_refused_with_those_there_are():
    message = "no network 'alexnet'; there are code2012, digits, cifar-80sec"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        network("alexnet")
