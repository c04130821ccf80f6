"""Convolution against a loop over windows and XLA's own gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from alexnet_jax import blocks, convolution, patches, winograd
from alexnet_jax.convolution import conv
from alexnet_jax.patches import kernel_gradient

CASES = [  # side, kernel, stride, pad; ceiling rule
    (14, 5, 4, 0),  # the last window hangs 3 pixels over, as net 145's first layer
    (7, 3, 1, 1),
    (9, 5, 2, 2),
    (8, 3, 3, 1),
    (5, 1, 1, 0),
]


def arrays(side, kernel, *, batch=3, inputs=2, outputs=4, dtype: type = np.float32):
    rng = np.random.default_rng(side * 100 + kernel)
    x = rng.normal(size=(batch, side, side, inputs)).astype(dtype)
    return x, rng.normal(size=(kernel, kernel, inputs, outputs)).astype(dtype)


def loop(x, kernel, stride, pad):
    """Sum over each window's pixels; those outside the picture are zero."""
    batch, side, _, _ = x.shape
    window, _, _, outputs = kernel.shape
    out = 1
    while (out - 1) * stride + window < side + 2 * pad:
        out += 1
    y = np.zeros((batch, out, out, outputs))
    for b, i, j in np.ndindex(batch, out, out):
        for di, dj in np.ndindex(window, window):
            row, column = i * stride + di - pad, j * stride + dj - pad
            if 0 <= row < side and 0 <= column < side:
                y[b, i, j] += x[b, row, column] @ kernel[di, dj]
    return y


def xla(x, kernel, stride, pad):
    """XLA's convolution on a picture with enough zeros behind it."""
    window = kernel.shape[0]
    extra = (window - x.shape[1] - 2 * pad) % stride
    sides = (pad, pad + extra)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (sides, sides),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


def far(actual, expected):
    """Return the distance of two arrays relative to their length."""
    expected = np.asarray(expected, np.float64)
    distance = np.linalg.norm(np.asarray(actual, np.float64) - expected)
    return distance / np.linalg.norm(expected)


@jax.jit(static_argnums=(0, 3, 4))
def with_gradients(convolve, x, kernel, stride, pad):
    """Return the output and, for some gradient of it, those of both arguments."""
    y, pull = jax.vjp(lambda x, k: convolve(x, k, stride, pad), x, kernel)
    return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


def test_the_overhang_reads_zeros():
    # Windows start at 0, 4, 8, 12 of 14 pixels: the last sees two, then three zeros.
    y = conv(jnp.ones((1, 14, 14, 1)), jnp.ones((5, 5, 1, 1)), 4, 0)
    np.testing.assert_array_equal(
        y[0, :, :, 0],
        [[25, 25, 25, 10], [25, 25, 25, 10], [25, 25, 25, 10], [10, 10, 10, 4]],
    )


@pytest.mark.parametrize("case", CASES)
def test_convolution_and_its_gradients(case):
    side, window, stride, pad = case
    x, kernel = arrays(side, window)
    y, gradients = with_gradients(conv, x, kernel, stride, pad)
    np.testing.assert_allclose(y, loop(x, kernel, stride, pad), rtol=1e-5, atol=1e-5)
    _, expected = with_gradients(xla, x, kernel, stride, pad)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert gradient.shape == wanted.shape
        assert far(gradient, wanted) < 1e-6


@pytest.mark.parametrize(("side", "pad"), [(31, 0), (33, 0), (30, 2)])
@pytest.mark.parametrize("rounding", ["ceil", "floor"])
def test_net_145s_first_layer_is_one_of_3_x_3_blocks(side, pad, rounding, monkeypatch):
    monkeypatch.setattr(winograd, "MIN_IMAGES", 1)
    x, kernel = arrays(side, 11, inputs=3, outputs=32)
    taken = blocks.kernel(jnp.asarray(kernel), 4)
    assert taken.shape == (3, 3, 48, 32)
    assert winograd.pays(taken, len(x))
    y, gradients = with_gradients(
        lambda x, k, stride, pad: conv(x, k, stride, pad, rounding), x, kernel, 4, pad
    )
    out = (side + 2 * pad - 11) // 4 + 1 if rounding == "floor" else y.shape[1]
    wanted, expected = with_gradients(
        lambda x, k, stride, pad: xla(x, k, stride, pad)[:, :out, :out],
        *(x, kernel, 4, pad),
    )
    assert y.shape == wanted.shape
    for actual, right in zip((y, *gradients), (wanted, *expected), strict=True):
        assert far(actual, right) < 3e-6


@pytest.mark.parametrize(("stride", "window"), [(4, 11), (2, 3), (3, 3), (1, 2)])
def test_a_kernel_in_blocks_and_back(stride, window):
    kernel = jnp.asarray(arrays(9, window)[1])
    undone = blocks.undo(blocks.kernel(kernel, stride), stride, window)
    np.testing.assert_array_equal(undone, kernel)


@pytest.mark.parametrize(("side", "pad"), [(9, 0), (13, 2)])
def test_the_floor_rule_drops_the_window_that_hangs_over(side, pad):
    # As torchvision's first layer: 224 + 2 * 2 - 11 = 54 * 4 + 1. Here one and three
    # pixels are left over, so the ceiling's first rows and columns must be the floor's.
    x, kernel = arrays(side, 4)
    y, gradients = with_gradients(
        lambda x, k, stride, pad: conv(x, k, stride, pad, "floor"), x, kernel, 4, pad
    )
    out = (side + 2 * pad - 4) // 4 + 1
    assert y.shape == (3, out, out, 4)
    np.testing.assert_allclose(y, loop(x, kernel, 4, pad)[:, :out, :out], rtol=1e-4)
    _, expected = with_gradients(
        lambda x, k, stride, pad: xla(x, k, stride, pad)[:, :out, :out],
        *(x, kernel, 4, pad),
    )
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert far(gradient, wanted) < 1e-6


@pytest.mark.parametrize(
    ("batch", "patch_bytes"),
    [
        (7, 4 << 20),  # all seven at once
        (7, 3 * 25 * 25 * 2 * 4),  # three would fit, but seven is prime
        (6, 3 * 25 * 25 * 2 * 4),  # two threes
    ],
)
def test_the_kernels_gradient_is_the_same_in_any_portions(
    monkeypatch, batch, patch_bytes
):
    monkeypatch.setattr(patches, "PATCH_BYTES", patch_bytes)
    jax.clear_caches()  # or what was traced with other portions would be taken
    x, kernel = map(jnp.asarray, arrays(5, 5, batch=batch))
    dy = jnp.asarray(np.random.default_rng(1).normal(size=(batch, 5, 5, 4)), x.dtype)

    @jax.jit
    def both(x, kernel, dy):
        (expected,) = jax.vjp(lambda k: xla(x, k, 1, 2), kernel)[1](dy)
        return kernel_gradient(x, kernel, dy, 2), expected

    gradient, expected = both(x, kernel, dy)
    assert far(gradient, expected) < 1e-6


@pytest.mark.parametrize("case", [(6, 3, 2, 0), (5, 3, 1, 1)])
def test_gradients_in_float64_are_those_of_small_steps(case):
    side, window, stride, pad = case
    with jax.enable_x64(True):
        x, kernel = map(jnp.asarray, arrays(side, window, batch=2, dtype=np.float64))
        assert conv(x, kernel, stride, pad).dtype == jnp.float64
        check_grads(
            jax.jit(lambda x, k: conv(x, k, stride, pad) ** 2),
            (x, kernel),
            order=1,
            modes=["rev"],
            atol=1e-7,
            rtol=1e-7,
        )


def test_bfloat16_stays_and_its_gradient_is_summed_in_float32(monkeypatch):
    # 12 images of 17 x 17 ones, one by one: each adds 289, which bfloat16 would round
    # to 288. The sum is rounded once: 12 * 289 = 3468 to 3472, not to 12 * 288 = 3456.
    monkeypatch.setattr(patches, "PATCH_BYTES", 1)
    jax.clear_caches()
    x = jnp.ones((12, 17, 17, 1), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 1, 1), jnp.bfloat16)

    @jax.jit
    def run(x, kernel):
        y, pull = jax.vjp(lambda x, k: conv(x, k, 1, 0), x, kernel)
        return y, *pull(jnp.ones_like(y))

    y, dx, dkernel = run(x, kernel)
    assert y.dtype == dx.dtype == dkernel.dtype == jnp.bfloat16
    assert float(dkernel[0, 0, 0, 0]) == 3472
    np.testing.assert_array_equal(np.asarray(dx, np.float32), 1)


@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (6, 4)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_a_bias_is_added_and_its_gradient_is_the_sum(shape, dtype):
    rng = np.random.default_rng(0)
    y, bias, dy = (
        jnp.asarray(rng.integers(-8, 9, s), dtype) for s in (shape, shape[-1:], shape)
    )
    out, pull = jax.vjp(convolution.shift, y, bias)
    np.testing.assert_array_equal(out, y + bias)
    own, dbias = pull(dy)
    np.testing.assert_array_equal(own, dy)
    assert dbias.dtype == dtype
    # Small integers: exact in any order, and in float32 before the last rounding.
    total = np.asarray(dy, np.float64).reshape(-1, shape[-1]).sum(0)
    np.testing.assert_array_equal(dbias, jnp.asarray(total, dtype))
