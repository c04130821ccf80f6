"""The published networks, each a table that reads like the paper's Figure 2.

Counts of filters and units are those of one tower. Sources are cited by the file of
the released 2012 code (``layers/layers-145.cfg`` is the network of the paper) or of
cuda-convnet; ``Network.source`` says which.
"""

from alexnet_jax.errors import ConfigError
from alexnet_jax.table import (
    AvgPool,
    Classifier,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
    SpatialNorm,
)

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

CIFAR_80SEC = Network(
    name="cifar-80sec",
    source="cuda-convnet, example-layers/layers-80sec.cfg",
    towers=1,
    input_size=32,
    channels=3,
    classes=10,
    rows=(
        Conv("conv1", 32, kernel=5, pad=2, sigma=0.0001),
        MaxPool("pool1"),
        Relu("relu1"),
        Conv("conv2", 32, kernel=5, pad=2, sigma=0.01),
        Relu("relu2"),
        AvgPool("pool2"),
        Conv("conv3", 64, kernel=5, pad=2, sigma=0.01),
        Relu("relu3"),
        AvgPool("pool3"),
        Dense("fc64", 64, sigma=0.1),
        Relu("relu4"),
        Classifier("fc10", sigma=0.1),
    ),
)

NETWORKS = {table.name: table for table in (CODE2012, DIGITS, CIFAR_80SEC)}


def network(name: str) -> Network:
    """Return the table called ``name``.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in NETWORKS:
        raise ConfigError(f"no network {name!r}; there are {', '.join(NETWORKS)}")
    return NETWORKS[name]
