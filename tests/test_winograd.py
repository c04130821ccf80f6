"""Winograd's filtering against sliding windows in float64, and where it is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from alexnet_jax import blocks, winograd
from alexnet_jax.convolution import conv
from alexnet_jax.networks import network
from alexnet_jax.table import Conv, trace

CASES = [  # images, side, taps, pad; channels in and out
    (2, 27, 5, 2, 48, 64),  # whole tiles, as net 145's second layer
    (3, 13, 3, 1, 32, 40),  # the last tile has three rows too many
    (1, 9, 5, 0, 32, 32),
    (5, 8, 3, 2, 33, 35),  # the result is larger than the picture
]


@pytest.mark.parametrize(("taps", "outputs"), [(3, 4), (3, 2), (5, 3)])
def test_the_sums_slide_a_filter_over_a_tile(taps, outputs):
    rng = np.random.default_rng(taps)
    tile = rng.integers(-9, 10, outputs + taps - 1).astype(float)
    taken = rng.integers(-9, 10, taps).astype(float)
    sums = winograd.sums(outputs, taps)
    products = (sums.pixels @ tile) * (sums.taps @ taken)
    assert len(products) == outputs + taps - 1  # Winograd's bound
    np.testing.assert_allclose(
        sums.results @ products, np.correlate(tile, taken), atol=1e-12
    )


def test_the_sums_for_four_results_of_three_taps_are_those_of_the_literature():
    # Lavin and Gray (2015), section 4.3, up to the sign of a product.
    assert winograd.sums(4, 3).pixels.tolist() == [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]


def arrays(images, side, taps, pad, inputs, features):
    rng = np.random.default_rng(side)
    x = np.maximum(rng.normal(size=(images, side, side, inputs)), 0)
    kernel = rng.normal(size=(taps, taps, inputs, features))
    dy = rng.normal(size=(images, *(side + 2 * pad - taps + 1,) * 2, features))
    return [jnp.asarray(a, jnp.float32) for a in (x, kernel, dy)]


def reference(x, kernel, dy, pad):
    """Return the result and both gradients, by windows, in float64."""
    taps = len(kernel)

    def windows(maps, border):
        maps = np.pad(maps, ((0, 0), (border, border), (border, border), (0, 0)))
        return sliding_window_view(maps.astype(np.float64), (taps, taps), (1, 2))

    seen, back = windows(x, pad), windows(dy, taps - 1 - pad)
    return (
        np.einsum("bhwcij,ijco->bhwo", seen, kernel, optimize=True),
        np.einsum("bhwoij,ijco->bhwc", back, kernel[::-1, ::-1], optimize=True),
        np.einsum("bhwcij,bhwo->ijco", seen, dy, optimize=True),
    )


def far(actual, expected):
    """Return the largest difference, relative to the largest number."""
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("portion", [1, 1 << 40])
def test_the_result_and_both_gradients(case, portion, monkeypatch):
    monkeypatch.setattr(winograd, "PORTION_BYTES", portion)
    monkeypatch.setattr(winograd, "MIN_IMAGES", 1)
    jax.clear_caches()  # or what was traced with other portions would be taken
    pad = case[3]
    x, kernel, dy = arrays(*case)
    assert winograd.pays(kernel, len(x))
    y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, 1, pad), x, kernel)
    for actual, expected in zip(
        (y, *pull(dy)), reference(x, kernel, dy, pad), strict=True
    ):
        assert actual.shape == expected.shape
        assert far(np.asarray(actual), expected) < 1e-5


@pytest.mark.parametrize(
    ("case", "fewer"),
    [
        # 3 x 5 products of a column become 7.
        ((2, 27, 5, 2, 48, 64), 15 / 7),
        # 8 results of 9 products each become 24.
        ((2, 12, 3, 1, 32, 32), 3.0),
        # 13 x 13 results are cut of 16 x 14.
        ((2, 13, 3, 1, 32, 32), 3.0 * (13 * 13) / (16 * 14)),
    ],
    ids=str,
)
def test_the_multiplications_are_fewer(case, fewer):
    pad = case[3]
    x, kernel, _ = arrays(*case)
    flops = []
    for function in (
        lambda x, kernel: winograd.conv(x, kernel, pad),
        lambda x, kernel: jax.lax.conv_general_dilated(
            *(x, kernel, (1, 1), ((pad, pad), (pad, pad))),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ),
    ):
        jaxpr = jax.make_jaxpr(function)(x, kernel)
        flops.append(_multiplications(jaxpr.jaxpr))
    ours, plain = flops
    assert plain / ours == pytest.approx(fewer)


def _multiplications(jaxpr):
    """Count those of convolutions and matrix products, over all turns of a loop."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            window = equation.invars[1].aval.shape
            total += equation.outvars[0].aval.size * np.prod(window[:3])
        if equation.primitive.name == "dot_general":
            total += equation.outvars[0].aval.size * equation.invars[1].aval.shape[0]
        if equation.primitive.name == "scan":
            turns, inner = equation.params["length"], equation.params["jaxpr"]
            total += turns * _multiplications(inner.jaxpr)
        if equation.primitive.name in ("jit", "pjit"):
            total += _multiplications(equation.params["jaxpr"].jaxpr)
    return total


def test_where_it_is_chosen():
    def kernels(name):
        for traced in trace(network(name)):
            if isinstance(traced.row, Conv):
                # A layer with a kernel a tower has one more axis.
                shape = traced.weights["kernel"][-4:]
                kernel = blocks.kernel(jnp.zeros(shape), traced.row.stride)
                yield traced.row.name, winograd.pays(kernel, 8)

    assert dict(kernels("code2012")) == {
        f"conv{n}": True
        for n in (1, 2, 3, 4, 5)  # conv1 as 3 x 3 blocks of 4 x 4 pixels
    }
    assert dict(kernels("cifar-18pct")) == {
        "conv1": False,  # three colours
        "conv2": True,
        "conv3": True,
    }
    assert not winograd.pays(jnp.zeros((3, 3, 64, 64)), 7)
    assert not winograd.pays(jnp.zeros((3, 3, 64, 64), jnp.bfloat16), 8)
    assert not winograd.pays(jnp.zeros((7, 7, 64, 64)), 8)
