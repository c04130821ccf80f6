"""Every constant of the published networks, written out a second time."""

import dataclasses
import re

import pytest

from alexnet_jax.cifar_networks import CIFAR_80SEC
from alexnet_jax.errors import ConfigError
from alexnet_jax.networks import CODE2012, DIGITS, NETWORKS, network
from alexnet_jax.table import (
    AvgPool,
    Classifier,
    Conv,
    Dense,
    Dropout,
    LocallyConnected,
    MaxPool,
    Relu,
    ResponseNorm,
    SpatialNorm,
    Tanh,
    Weighted,
    trace,
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


def differing(name, other="code2012"):
    """Return the rows of a table that another does not have, and the reverse."""
    ours, theirs = network(name).rows, network(other).rows
    return (
        [row for row in ours if row not in theirs],
        [row.name for row in theirs if row not in ours],
    )


def sides(name):
    kept = Conv | MaxPool | AvgPool | LocallyConnected
    return [r.outputs[0] for r in trace(network(name)) if isinstance(r.row, kept)]


PARAMETERS = {
    "code2012": 60_965_224,
    "paper": 60_965_224,
    "one-tower": 59_798_312,  # the logged 59.80 million
    "no-overlap": 60_965_224,
    "no-norm": 60_965_224,
    "no-crosstalk": 60_714_408,  # 60.7 million
    "six-conv": 60_965_224 + 256 * 256 * 9 + 256,
    "caffe": 60_965_224,  # bvlc_alexnet's
    "caffenet": 60_965_224,
    "owt": 61_100_840,  # torchvision's
    "owt-2014": 61_100_840,
    "cifar-80sec": 145_578,
    "cifar-19pct": 89_578,
    "cifar-18pct": 89_578,
    "cifar-conv-local-13pct": 1_116_490,
    "cifar-conv-local-11pct": 2_112_970,
    "figure1-relu": 1_116_490,
    "figure1-tanh": 1_116_490,
    "cifar10-towers": 556_682,
}
SIDES = {
    # conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5
    "code2012": [55, 27, 27, 13, 13, 13, 13, 6],
    "paper": [55, 27, 27, 13, 13, 13, 13, 6],
    "one-tower": [55, 27, 27, 13, 13, 13, 13, 6],
    "no-overlap": [55, 28, 26, 13, 13, 13, 11, 6],
    "no-norm": [55, 27, 27, 13, 13, 13, 13, 6],
    "no-crosstalk": [55, 27, 27, 13, 13, 13, 13, 6],
    "six-conv": [55, 27, 27, 13, 13, 13, 13, 6, 6],
    "caffe": [55, 27, 27, 13, 13, 13, 13, 6],
    "caffenet": [55, 27, 27, 13, 13, 13, 13, 6],
    "owt": [55, 27, 27, 13, 13, 13, 13, 6],
    "owt-2014": [55, 27, 27, 13, 13, 13, 13, 6],
    "cifar-80sec": [32, 16, 16, 8, 8, 4],
    "cifar-19pct": [32, 16, 16, 8, 8, 4],
    "cifar-18pct": [32, 16, 16, 8, 8, 4],
    "cifar-conv-local-13pct": [24, 12, 12, 6, 6, 6],
    "cifar-conv-local-11pct": [24, 12, 12, 6, 6, 6],
    "figure1-relu": [24, 12, 12, 6, 6, 6],
    "figure1-tanh": [24, 12, 12, 6, 6, 6],
    "cifar10-towers": [24, 12, 12, 6, 6, 6, 3],
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_sides(name):
    assert sum(row.parameters for row in trace(network(name))) == PARAMETERS[name]
    assert sides(name) == SIDES[name]


def test_all_published_networks_are_checked_here():
    assert list(NETWORKS) == [*PARAMETERS, "digits"]


def test_the_papers_text_differs_from_the_code_in_order_sigma_alpha_and_cnorm2():
    new, gone = differing("paper")
    assert new == [
        ResponseNorm("norm1", alpha=1e-4, k=2.0, divide=False),
        ResponseNorm("norm2", alpha=1e-4, k=2.0, divide=False),
        conv("conv3", 192, 3, 1, 1, "both", 0.01, 0.0),
        conv("conv4", 192, 3, 1, 1, "own", 0.01, 1.0),
        conv("conv5", 128, 3, 1, 1, "own", 0.01, 1.0),
    ]
    assert gone == ["norm1", "norm2", "cnorm2", "conv3", "conv4", "conv5"]
    order = " ".join(row.name for row in network("paper").rows)
    assert order == (
        "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 "
        "conv5 relu5 pool5 fc6 relu6 drop6 fc7 relu7 drop7 fc8"
    )


def test_ablations_of_2012_change_what_their_nets_changed():
    # layers-145-half, -147, -148, -150 and -146-2012-2011 against layers-145.
    assert network("one-tower").towers == 1
    assert differing("one-tower") == (
        [
            conv("conv5", 256, 3, 1, 1, "own", 0.03, 1.0),
            Dense("fc6", 4096, "both", 0.01, 1.0),
            Dense("fc7", 4096, "both", 0.01, 1.0),
        ],
        ["conv5", "fc6", "fc7"],
    )
    assert differing("no-overlap") == (
        [
            MaxPool("pool1", 2, 2),
            conv("conv2", 128, 5, 1, 1, "own", 0.01, 1.0),
            MaxPool("pool2", 2, 2),
            conv("conv5", 128, 3, 1, 0, "own", 0.03, 1.0),
            MaxPool("pool5", 2, 2),
        ],
        ["pool1", "conv2", "pool2", "conv5", "pool5"],
    )
    assert differing("no-norm") == ([], ["norm1", "norm2", "cnorm2"])
    assert differing("no-crosstalk") == (
        [
            conv("conv2", 160, 5, 1, 2, "own", 0.01, 1.0),
            conv("conv3", 192, 3, 1, 1, "own", 0.03, 0.0),
            Dense("fc6", 4096, "own", 0.01, 1.0),
            Dense("fc7", 2048, "own", 0.01, 1.0),
        ],
        ["conv2", "conv3", "fc6", "fc7"],
    )
    assert differing("six-conv") == (
        [conv("conv6", 128, 3, 1, 1, "both", 0.03, 1.0), Relu("conv6_relu")],
        [],
    )
    names = [row.name for row in network("six-conv").rows]
    after = names.index("relu5") + 1
    assert names[after : after + 3] == ["conv6", "conv6_relu", "fc6"]


def test_caffe_is_bvlc_alexnet():
    # models/bvlc_alexnet/train_val.prototxt; group 2 is two towers.
    table = network("caffe")
    assert (table.towers, table.input_size) == (2, 227)
    assert table.rows == (
        conv("conv1", 48, 11, 4, 0, "both", 0.01, 0.0),
        Relu("relu1"),
        ResponseNorm("norm1", 5, 1e-4, 0.75, 1.0, True, "both"),
        MaxPool("pool1", 3, 2),
        conv("conv2", 128, 5, 1, 2, "own", 0.01, 0.1),
        Relu("relu2"),
        ResponseNorm("norm2", 5, 1e-4, 0.75, 1.0, True, "both"),
        MaxPool("pool2", 3, 2),
        conv("conv3", 192, 3, 1, 1, "both", 0.01, 0.0),
        Relu("relu3"),
        conv("conv4", 192, 3, 1, 1, "own", 0.01, 0.1),
        Relu("relu4"),
        conv("conv5", 128, 3, 1, 1, "own", 0.01, 0.1),
        Relu("relu5"),
        MaxPool("pool5", 3, 2),
        Dense("fc6", 2048, "both", 0.005, 0.1),
        Relu("relu6"),
        Dropout("drop6", 0.5, "inverted"),
        Dense("fc7", 2048, "both", 0.005, 0.1),
        Relu("relu7"),
        Dropout("drop7", 0.5, "inverted"),
        Classifier("fc8", 0.01, 0.0),
    )


def test_caffenet_pools_before_it_normalises_and_has_biases_of_one():
    table = network("caffenet")
    order = " ".join(row.name for row in table.rows[:8])
    assert order == "conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2"
    biases = {row.name: row.bias for row in table.rows if isinstance(row, Weighted)}
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert biases == {name: float(name in ones) for name in biases}
    alike = {  # all else is bvlc_alexnet's
        dataclasses.replace(row, bias=0.0) if isinstance(row, Weighted) else row
        for row in table.rows
    }
    assert alike == {
        dataclasses.replace(row, bias=0.0) if isinstance(row, Weighted) else row
        for row in network("caffe").rows
    }


def test_owt_is_torchvisions():
    # torchvision/models/alexnet.py: nn.Dropout stands before both linear layers.
    table = network("owt")
    assert (table.towers, table.input_size) == (1, 224)
    assert table.rows == (
        Conv("conv1", 64, 11, 4, 2, sigma=None, rounding="floor"),
        Relu("relu1"),
        MaxPool("pool1", 3, 2),
        Conv("conv2", 192, 5, 1, 2, sigma=None),
        Relu("relu2"),
        MaxPool("pool2", 3, 2),
        Conv("conv3", 384, 3, 1, 1, sigma=None),
        Relu("relu3"),
        Conv("conv4", 256, 3, 1, 1, sigma=None),
        Relu("relu4"),
        Conv("conv5", 256, 3, 1, 1, sigma=None),
        Relu("relu5"),
        MaxPool("pool5", 3, 2),
        Dropout("drop6", 0.5, "inverted"),
        Dense("fc6", 4096, sigma=None),
        Relu("relu6"),
        Dropout("drop7", 0.5, "inverted"),
        Dense("fc7", 4096, sigma=None),
        Relu("relu7"),
        Classifier("fc8", sigma=None),
    )


def test_owt_2014_is_cuda_convnet2s():
    # layers-imagenet-1gpu.cfg, dropout2 and minDiv 2; its fc1000 starts at -7.
    table = network("owt-2014")
    assert (table.towers, table.input_size) == (1, 224)
    assert differing("owt-2014") == (
        [
            conv("conv1", 64, 11, 4, 0, "own", 0.01, 0.0),
            conv("conv2", 192, 5, 1, 2, "own", 0.01, 1.0),
            conv("conv3", 384, 3, 1, 1, "own", 0.03, 0.0),
            conv("conv4", 256, 3, 1, 1, "own", 0.03, 1.0),
            conv("conv5", 256, 3, 1, 1, "own", 0.03, 1.0),
            Dense("fc6", 4096, "both", 0.01, 1.0),
            Dense("fc7", 4096, "both", 0.01, 1.0),
            Classifier("fc8", 0.01, -7.0),
        ],
        ["conv1", "conv2", "cnorm2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"],
    )


def test_cifar_networks_of_cuda_convnet():
    # example-layers/layers-18pct.cfg: rnorm over 3 x 3 pixels, after each of the
    # first two pools; 19pct is the same without them.
    assert differing("cifar-18pct", "cifar-19pct") == (
        [
            SpatialNorm("norm1", size=3, alpha=5e-5, beta=0.75, k=1.0),
            SpatialNorm("norm2", size=3, alpha=5e-5, beta=0.75, k=1.0),
        ],
        [],
    )
    order = "conv1 pool1 relu1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 pool3 fc10"
    assert [row.name for row in network("cifar-18pct").rows] == order.split()
    assert differing("cifar-18pct", "cifar-80sec")[0][2:] == [
        Classifier("fc10", 0.01, 0.0)
    ]
    assert network("cifar-conv-local-11pct").input_size == 24
    assert network("cifar-conv-local-11pct").rows == (
        conv("conv1", 64, 5, 1, 2, "own", 0.0001, 0.0),
        Relu("relu1"),
        MaxPool("pool1", 3, 2),
        ResponseNorm("norm1", 9, 1e-3, 0.75, 1.0),
        conv("conv2", 64, 5, 1, 2, "own", 0.01, 0.0),
        Relu("relu2"),
        ResponseNorm("norm2", 9, 1e-3, 0.75, 1.0),
        MaxPool("pool2", 3, 2),
        LocallyConnected("local3", 64, 3, 1, 1, "own", 0.04, 0.0),
        Relu("relu3"),
        LocallyConnected("local4", 32, 3, 1, 1, "own", 0.04, 0.0),
        Relu("relu4"),
        Classifier("fc10", 0.01, 0.0),
    )
    assert differing("cifar-conv-local-13pct", "cifar-conv-local-11pct") == (
        [LocallyConnected("local3", 32, 3, 1, 1, "own", 0.04, 0.0)],
        ["norm1", "norm2", "local3"],
    )


def test_the_networks_of_figure_1_differ_in_their_units_alone():
    assert network("figure1-relu").rows == network("cifar-conv-local-13pct").rows
    tanhs = [Tanh(f"tanh{layer}") for layer in (1, 2, 3, 4)]
    relus = [f"relu{layer}" for layer in (1, 2, 3, 4)]
    assert differing("figure1-tanh", "figure1-relu") == (tanhs, relus)
    order = "conv1 tanh1 pool1 conv2 tanh2 pool2 local3 tanh3 local4 tanh4 fc10"
    assert [row.name for row in network("figure1-tanh").rows] == order.split()


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
    message = "no network 'alexnet'; there are code2012, paper, one-tower, "
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        network("alexnet")
