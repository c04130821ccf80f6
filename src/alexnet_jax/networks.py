"""The published networks, each a table that reads like the paper's Figure 2.

Counts of filters and units are those of one tower. Sources are cited by the file of
the released 2012 code (``layers/layers-145.cfg`` is the network of the paper) or of
cuda-convnet; ``Network.source`` says which. A network that is another with some rows
changed is written that way. The CIFAR-10 networks are in ``cifar_networks.py``.
"""

import functools
from collections.abc import Iterable
from dataclasses import replace

from alexnet_jax import ablations
from alexnet_jax.cifar_networks import CIFAR_NETWORKS
from alexnet_jax.errors import ConfigError
from alexnet_jax.table import (
    Classifier,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
    Row,
    SpatialNorm,
)


def _changed(table: Network, *rows: Row) -> tuple[Row, ...]:
    """Return a table's rows with those of the same names in place of its own."""
    new = {row.name: row for row in rows}
    return tuple(new.pop(row.name, row) for row in table.rows)


def _without(table: Network, names: Iterable[str]) -> tuple[Row, ...]:
    return tuple(row for row in table.rows if row.name not in names)


CODE2012 = Network(
    name="code2012",
    source="net 145 of the released 2012 code; its errors are those in the paper",
    towers=2,
    input_size=224,
    channels=3,
    classes=1000,
    rows=(
        # Layer 1 has its ReLU last, after norm and pool.
        Conv("conv1", 48, kernel=11, stride=4, reads="both", sigma=0.01, bias=0.0),
        ResponseNorm("norm1"),
        MaxPool("pool1"),
        Relu("relu1"),
        Conv("conv2", 128, kernel=5, pad=2, reads="own", sigma=0.01, bias=1.0),
        Relu("relu2"),
        ResponseNorm("norm2"),
        SpatialNorm("cnorm2"),  # not in the paper's text
        MaxPool("pool2"),
        Conv("conv3", 192, kernel=3, pad=1, reads="both", sigma=0.03, bias=0.0),
        Relu("relu3"),
        Conv("conv4", 192, kernel=3, pad=1, reads="own", sigma=0.03, bias=1.0),
        Relu("relu4"),
        Conv("conv5", 128, kernel=3, pad=1, reads="own", sigma=0.03, bias=1.0),
        MaxPool("pool5"),
        Relu("relu5"),
        Dense("fc6", 2048, reads="both", sigma=0.01, bias=1.0),
        Relu("relu6"),
        Dropout("drop6"),
        Dense("fc7", 2048, reads="both", sigma=0.01, bias=1.0),
        Relu("relu7"),
        Dropout("drop7"),
        Classifier("fc8", sigma=0.01, bias=0.0),
    ),
)

# The paper read literally, wherever its text differs from the released code: ReLU
# straight after every convolution, alpha not divided by n, every sigma 0.01, one norm
# in layer 2. The text counts 224 pixels and 55 windows, which is the ceiling rule; the
# norm's sum is over "the layer", but towers meet "only in certain layers" (3.2), so it
# stays within a tower here too.
PAPER = Network(
    name="paper",
    source="the paper's text, sections 3 and 5, read literally",
    towers=2,
    input_size=224,
    channels=3,
    classes=1000,
    rows=(
        Conv("conv1", 48, kernel=11, stride=4, reads="both", sigma=0.01, bias=0.0),
        Relu("relu1"),
        ResponseNorm("norm1", divide=False),
        MaxPool("pool1"),
        Conv("conv2", 128, kernel=5, pad=2, reads="own", sigma=0.01, bias=1.0),
        Relu("relu2"),
        ResponseNorm("norm2", divide=False),
        MaxPool("pool2"),
        Conv("conv3", 192, kernel=3, pad=1, reads="both", sigma=0.01, bias=0.0),
        Relu("relu3"),
        Conv("conv4", 192, kernel=3, pad=1, reads="own", sigma=0.01, bias=1.0),
        Relu("relu4"),
        Conv("conv5", 128, kernel=3, pad=1, reads="own", sigma=0.01, bias=1.0),
        Relu("relu5"),
        MaxPool("pool5"),
        Dense("fc6", 2048, reads="both", sigma=0.01, bias=1.0),
        Relu("relu6"),
        Dropout("drop6"),
        Dense("fc7", 2048, reads="both", sigma=0.01, bias=1.0),
        Relu("relu7"),
        Dropout("drop7"),
        Classifier("fc8", sigma=0.01, bias=0.0),
    ),
)

# One column; conv5 and the dense layers are wide, so that it has about as many
# parameters (59,798,312) as the two towers.
ONE_TOWER = replace(
    CODE2012,
    name="one-tower",
    source="net 145-half of the released 2012 code (section 3.2's one-GPU net)",
    towers=1,
    rows=_changed(
        CODE2012,
        Conv("conv5", 256, kernel=3, pad=1, sigma=0.03, bias=1.0),
        Dense("fc6", 4096, sigma=0.01, bias=1.0),
        Dense("fc7", 4096, sigma=0.01, bias=1.0),
    ),
)

# Pools of 2 x 2 shrink less, so two convolutions pad less: 55-28-26-13-13-13-11-6.
NO_OVERLAP = replace(
    CODE2012,
    name="no-overlap",
    source="net 147 of the released 2012 code (section 3.4 without overlap)",
    rows=_changed(
        CODE2012,
        MaxPool("pool1", size=2, stride=2),
        Conv("conv2", 128, kernel=5, pad=1, reads="own", sigma=0.01, bias=1.0),
        MaxPool("pool2", size=2, stride=2),
        Conv("conv5", 128, kernel=3, pad=0, reads="own", sigma=0.03, bias=1.0),
        MaxPool("pool5", size=2, stride=2),
    ),
)

NO_NORM = replace(
    CODE2012,
    name="no-norm",
    source="net 148 of the released 2012 code (section 3.3's net without norms)",
    rows=_without(CODE2012, ("norm1", "norm2", "cnorm2")),
)

# Two columns that meet only in the classifier; wider where they lost their inputs.
NO_CROSSTALK = replace(
    CODE2012,
    name="no-crosstalk",
    source="net 150 of the released 2012 code: towers that never meet before fc8",
    rows=_changed(
        CODE2012,
        Conv("conv2", 160, kernel=5, pad=2, reads="own", sigma=0.01, bias=1.0),
        Conv("conv3", 192, kernel=3, pad=1, reads="own", sigma=0.03, bias=0.0),
        Dense("fc6", 4096, reads="own", sigma=0.01, bias=1.0),
        Dense("fc7", 2048, reads="own", sigma=0.01, bias=1.0),
    ),
)

# The network that was first trained on all of ImageNet's 2009 or 2011 releases.
SIX_CONV = replace(
    CODE2012,
    name="six-conv",
    source="net 146 of the released 2012 code (section 6.1: a sixth convolution)",
    rows=(
        *CODE2012.rows[:16],  # up to relu5
        Conv("conv6", 128, kernel=3, pad=1, reads="both", sigma=0.03, bias=1.0),
        Relu("conv6_relu"),
        *CODE2012.rows[16:],
    ),
)

CAFFE = Network(
    name="caffe",
    source="Caffe, models/bvlc_alexnet: towers as groups, norms across both, k 1",
    towers=2,
    input_size=227,
    channels=3,
    classes=1000,
    rows=(
        Conv("conv1", 48, kernel=11, stride=4, reads="both"),
        Relu("relu1"),
        ResponseNorm("norm1", k=1.0, reads="both"),
        MaxPool("pool1"),
        Conv("conv2", 128, kernel=5, pad=2, bias=0.1),
        Relu("relu2"),
        ResponseNorm("norm2", k=1.0, reads="both"),
        MaxPool("pool2"),
        Conv("conv3", 192, kernel=3, pad=1, reads="both"),
        Relu("relu3"),
        Conv("conv4", 192, kernel=3, pad=1, bias=0.1),
        Relu("relu4"),
        Conv("conv5", 128, kernel=3, pad=1, bias=0.1),
        Relu("relu5"),
        MaxPool("pool5"),
        Dense("fc6", 2048, sigma=0.005, bias=0.1),
        Relu("relu6"),
        Dropout("drop6", rule="inverted"),
        Dense("fc7", 2048, sigma=0.005, bias=0.1),
        Relu("relu7"),
        Dropout("drop7", rule="inverted"),
        Classifier("fc8", sigma=0.01, bias=0.0),
    ),
)

_caffe = {row.name: row for row in CAFFE.rows}

CAFFENET = replace(
    CAFFE,
    name="caffenet",
    source="Caffe, models/bvlc_reference_caffenet: pools before norms, biases 1",
    rows=tuple(
        replace(row, bias=1.0) if getattr(row, "bias", 0.0) else row
        for row in (
            *CAFFE.rows[:2],
            *(_caffe["pool1"], _caffe["norm1"]),
            *CAFFE.rows[4:6],
            *(_caffe["pool2"], _caffe["norm2"]),
            *CAFFE.rows[8:],
        )
    ),
)

OWT = Network(
    name="owt",
    source="torchvision's alexnet: one tower, no norms, dropout before fc6 and fc7",
    towers=1,
    input_size=224,
    channels=3,
    classes=1000,
    rows=(
        Conv("conv1", 64, 11, stride=4, pad=2, sigma=None, rounding="floor"),
        Relu("relu1"),
        MaxPool("pool1"),
        Conv("conv2", 192, kernel=5, pad=2, sigma=None),
        Relu("relu2"),
        MaxPool("pool2"),
        Conv("conv3", 384, kernel=3, pad=1, sigma=None),
        Relu("relu3"),
        Conv("conv4", 256, kernel=3, pad=1, sigma=None),
        Relu("relu4"),
        Conv("conv5", 256, kernel=3, pad=1, sigma=None),
        Relu("relu5"),
        MaxPool("pool5"),
        Dropout("drop6", rule="inverted"),
        Dense("fc6", 4096, sigma=None),
        Relu("relu6"),
        Dropout("drop7", rule="inverted"),
        Dense("fc7", 4096, sigma=None),
        Relu("relu7"),
        Classifier("fc8", sigma=None),
    ),
)

OWT_2014 = Network(
    name="owt-2014",
    source="cuda-convnet2, layers-imagenet-1gpu.cfg: the one-weird-trick net of 2014",
    towers=1,
    input_size=224,
    channels=3,
    classes=1000,
    rows=(
        Conv("conv1", 64, kernel=11, stride=4, sigma=0.01, bias=0.0),
        ResponseNorm("norm1"),
        MaxPool("pool1"),
        Relu("relu1"),
        Conv("conv2", 192, kernel=5, pad=2, sigma=0.01, bias=1.0),
        Relu("relu2"),
        ResponseNorm("norm2"),
        MaxPool("pool2"),
        Conv("conv3", 384, kernel=3, pad=1, sigma=0.03, bias=0.0),
        Relu("relu3"),
        Conv("conv4", 256, kernel=3, pad=1, sigma=0.03, bias=1.0),
        Relu("relu4"),
        Conv("conv5", 256, kernel=3, pad=1, sigma=0.03, bias=1.0),
        MaxPool("pool5"),
        Relu("relu5"),
        Dense("fc6", 4096, sigma=0.01, bias=1.0),
        Relu("relu6"),
        Dropout("drop6"),
        Dense("fc7", 4096, sigma=0.01, bias=1.0),
        Relu("relu7"),
        Dropout("drop7"),
        Classifier("fc8", sigma=0.01, bias=-7.0),
    ),
)

DIGITS = Network(
    name="digits",
    source="this project: net 145's kinds of layers at the size of an 8 x 8 digit",
    towers=2,
    input_size=28,
    channels=1,
    classes=10,
    rows=(
        Conv("conv1", 16, kernel=5, stride=2, reads="both", sigma=0.01, bias=0.0),
        ResponseNorm("norm1"),
        MaxPool("pool1"),
        Relu("relu1"),
        Conv("conv2", 32, kernel=3, pad=1, reads="own", sigma=0.05, bias=0.1),
        Relu("relu2"),
        ResponseNorm("norm2"),
        SpatialNorm("cnorm2"),
        MaxPool("pool2"),
        Conv("conv3", 48, kernel=3, pad=1, reads="both", sigma=0.05, bias=0.1),
        Relu("relu3"),
        Dense("fc4", 64, reads="both", sigma=0.05, bias=0.1),
        Relu("relu4"),
        Dropout("drop4"),
        Classifier("fc5", sigma=0.05, bias=0.0),
    ),
)

NETWORKS = {
    table.name: table
    for table in (
        *(CODE2012, PAPER, ONE_TOWER, NO_OVERLAP, NO_NORM, NO_CROSSTALK, SIX_CONV),
        *(CAFFE, CAFFENET, OWT, OWT_2014),
        *CIFAR_NETWORKS,
        DIGITS,
    )
}


def network(name: str) -> Network:
    """Return the table called ``name``.

    ``NAME:no-PART`` is one without a part; see ``ablations.without``. Parts may follow
    each other: ``code2012:no-norm:no-dropout``.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    base, *changes = name.split(ablations.SIGN)
    if base not in NETWORKS:
        raise ConfigError(f"no network {base!r}; there are {', '.join(NETWORKS)}")
    return functools.reduce(ablations.without, changes, NETWORKS[base])


def is_network(name: str) -> bool:
    """Tell whether ``name`` is meant as a network's: its first part is one."""
    return name.partition(ablations.SIGN)[0] in NETWORKS
