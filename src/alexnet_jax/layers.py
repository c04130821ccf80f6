"""The arithmetic of one layer: pure functions of arrays, no parameters, no state.

Pictures are ``[batch, height, width, channels]``. The forms are chosen for speed on
CPU as well as on GPU: pools and norms are sums and maxima of shifted slices, because
XLA's windowed reductions (and above all their gradients) are several times slower.
"""

from functools import reduce

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from alexnet_jax.table import conv_size, pool_size

Maps = Float[Array, "batch height width channels"]


def conv(
    x: Maps, kernel: Float[Array, "size size inputs outputs"], stride: int, pad: int
) -> Float[Array, "batch out_height out_width outputs"]:
    """Convolve with zero padding; a last window may overhang (net 145: 3 pixels).

    Args:
        x: ``[B, H, W, I]``.
        kernel: ``[k, k, I, O]``, of the same dtype.
        stride: pixels from one window to the next.
        pad: pixels of zeros on each side.
    """
    size, window = x.shape[1], kernel.shape[0]
    out = conv_size(size, window, stride, pad)
    high = (out - 1) * stride + window - size - pad
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, high), (pad, high)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _windows(x: Maps, size: int, stride: int, fill: float) -> list[Maps]:
    """Return the ``size**2`` strided views whose elements share a window."""
    out = pool_size(x.shape[1], size, stride)
    high = max(0, (out - 1) * stride + size - x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, high), (0, high), (0, 0)), constant_values=fill)
    reach = (out - 1) * stride + 1
    return [
        x[:, i : i + reach : stride, j : j + reach : stride]
        for i in range(size)
        for j in range(size)
    ]


def max_pool(x: Maps, size: int, stride: int) -> Maps:
    """Return the largest value of each ``size`` x ``size`` window (section 3.4).

    Where values tie, the gradient is shared between them by halves, pair by pair;
    the 2012 kernels gave all of it to each, XLA's own operator gives it to one.
    """
    return reduce(jnp.maximum, _windows(x, size, stride, -jnp.inf))


def avg_pool(x: Maps, size: int, stride: int) -> Maps:
    """Return each window's mean over the pixels inside the picture (cuda-convnet)."""
    total = sum(_windows(x, size, stride, 0.0))
    inside = sum(_windows(jnp.ones_like(x[:1, :, :, :1]), size, stride, 0.0))
    return total / inside


def _divide(x: Maps, denominator: Maps, beta: float) -> Maps:
    """Return ``x / denominator**beta`` in the dtype of ``x``."""
    if beta == 0.75:  # two square roots are far cheaper than exp(log)
        scale = lax.rsqrt(denominator * jnp.sqrt(denominator))
    else:
        scale = denominator**-beta
    return (x * scale).astype(x.dtype)


def response_norm(
    x: Maps, *, towers: int, size: int, alpha: float, beta: float, k: float
) -> Maps:
    """Normalise over ``size`` neighbouring maps of the same tower (section 3.3).

    ``x / (k + alpha / size * sum of squares)^beta``; the window is cut at the first
    and the last map of a tower. Squares and powers are float32.

    Args:
        x: ``[B, H, W, C]``, channels in tower order.
        towers: how many towers' maps ``x`` holds.
        size: maps in a window, odd.
        alpha: as printed in the 2012 configuration, before the division by size.
        beta: the power.
        k: the constant, ``minDiv`` in the 2012 code.
    """
    *lead, channels = x.shape
    apart = x.astype(jnp.float32).reshape(*lead, towers, channels // towers)
    half = size // 2
    squares = jnp.pad(apart**2, ((0, 0),) * 4 + ((half, half),))
    width = channels // towers
    total = sum(squares[..., i : i + width] for i in range(size))
    denominator = (k + alpha / size * total).reshape(x.shape)
    return _divide(x, denominator, beta)


def spatial_norm(x: Maps, *, size: int, alpha: float, beta: float, k: float) -> Maps:
    """Normalise over a ``size`` x ``size`` square of the same map (cnorm2).

    ``x / (k + alpha / size^2 * sum of squares)^beta``; the square is cut at the
    borders of the picture. Squares and powers are float32.
    """
    half = size // 2
    total = x.astype(jnp.float32) ** 2
    for axis in (1, 2):  # a square's sum is a column's sum of rows' sums
        pad = [(0, 0)] * 4
        pad[axis] = (half, half)
        padded = jnp.pad(total, pad)
        total = sum(
            lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis)
            for i in range(size)
        )
    return _divide(x, k + alpha / size**2 * total, beta)


def dropout(
    x: Float[Array, "batch units"],
    mask: Bool[Array, "batch units"] | None,
    keep: float,
) -> Float[Array, "batch units"]:
    """Apply the 2012 rule (section 4.2): a mask in training, ``keep`` in testing.

    Args:
        x: ``[B, U]``.
        mask: True where a unit speaks; None when testing.
        keep: probability of True.
    """
    return x * keep if mask is None else jnp.where(mask, x, 0)
