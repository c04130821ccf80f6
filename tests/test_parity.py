"""Full-size networks against PyTorch's operators, layer by layer.

A wrong constant in a norm costs a point of accuracy, which looks like bad luck; here it
is a difference in the third digit. ``make parity`` installs PyTorch and runs this.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from alexnet_jax import model
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network
from alexnet_jax.table import (
    Classifier,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Relu,
    ResponseNorm,
    SpatialNorm,
    trace,
)

torch = pytest.importorskip("torch", reason="PyTorch is not here: make parity")
F = torch.nn.functional

BATCH = 2


def weights(table):
    """Random weights, strong enough that no layer's output dies or explodes."""
    rng = np.random.default_rng(2012)
    params = {}
    for traced in trace(table):
        if traced.weights:
            kernel = rng.standard_normal(traced.weights["kernel"], np.float32)
            bias = rng.standard_normal(traced.weights["bias"], np.float32)
            kernel *= np.float32(np.sqrt(2 / traced.fan_in))
            params[traced.row.name] = {"kernel": kernel, "bias": bias}
    return params


def images(table):
    rng = np.random.default_rng(0)
    shape = (BATCH, table.input_size, table.input_size, table.channels)
    return rng.uniform(-128, 128, shape).astype(np.float32)


def ours(table, params, x):
    """Every row's output, from the body on one device."""
    graph = model.graph(table, table.classes)

    def run(params, x):
        record = {}
        model.merge(graph, params)(x, None, dtype=jnp.float32, record=record)
        return record

    lie = {
        t.row.name: P("data", *(None,) * (len(t.outputs) - 1), "tower")
        for t in trace(table)
    }
    lie[table.rows[-1].name] = P("data")
    mapped = jax.shard_map(
        run,
        mesh=make_mesh(table, devices=1),
        in_specs=(model.param_specs(table, table.classes), P("data")),
        out_specs=lie,
    )
    return jax.device_get(jax.jit(mapped)(params, x))


def theirs(table, params, x):
    """Every row's output, from PyTorch's own operators; NHWC as ours."""
    x, outputs = torch.from_numpy(x).permute(0, 3, 1, 2), {}

    for row in table.rows:
        layer = {k: torch.from_numpy(v) for k, v in params.get(row.name, {}).items()}
        match row:
            case Conv():
                kernel = layer["kernel"]
                groups = 2 if kernel.ndim == 5 else 1
                if groups == 2:  # a tower's filters are one group
                    kernel = torch.cat(list(kernel), -1)
                if row.rounding == "ceil":  # PyTorch counts with the floor
                    spare = (row.kernel - x.shape[-1] - 2 * row.pad) % row.stride
                    x = F.pad(x, (0, spare, 0, spare))
                kernel = kernel.permute(3, 2, 0, 1)
                bias, pad = layer["bias"], row.pad
                x = F.conv2d(x, kernel, bias, row.stride, pad, groups=groups)
            case ResponseNorm():
                constants = (row.size, row.alpha, row.beta, row.k)
                parts = x.chunk(table.towers if row.reads == "own" else 1, dim=1)
                x = torch.cat([F.local_response_norm(p, *constants) for p in parts], 1)
            case SpatialNorm():
                mean = F.avg_pool2d(x**2, row.size, 1, row.size // 2)
                x = x / (row.k + row.alpha * mean) ** row.beta
            case MaxPool():
                x = F.max_pool2d(x, row.size, row.stride, ceil_mode=True)
            case Relu():
                x = F.relu(x)
            case Dense() | Classifier():
                if x.ndim == 4:  # rows are in the order of NHWC
                    x = x.permute(0, 2, 3, 1).flatten(1)
                x = F.linear(x, layer["kernel"].T, layer["bias"])
            case Dropout():
                x = x * row.keep if row.rule == "2012" else x
        outputs[row.name] = (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy()
    return outputs


@pytest.mark.parametrize("name", ["code2012", "caffe", "caffenet", "owt"])
def test_every_layer_is_pytorchs(name):
    table = network(name)
    params, x = weights(table), images(table)
    with torch.no_grad():
        expected = theirs(table, params, x)
    found = ours(table, params, x)
    assert list(expected) == [row.name for row in table.rows]
    apart = {}
    for layer, wanted in expected.items():
        assert found[layer].shape == wanted.shape
        largest = np.abs(wanted).max()
        assert 1e-2 < largest < 1e6, layer
        apart[layer] = float(np.abs(found[layer] - wanted).max() / largest)
    assert max(apart.values()) < 1e-4, apart
    print(name, {layer: f"{value:.1e}" for layer, value in apart.items()})
