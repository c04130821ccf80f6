"""Pools with hand-written gradients.

XLA differentiates a window reduction by scattering, and a maximum of slices by padding
each slice back to full size; both cost many times the forward pass on CPU. Here the
gradient of a pixel is gathered instead: with windows ``size`` wide, ``stride`` apart,
the pixel at ``stride * i + r`` lies in the windows ``i, i - 1, ...`` as far as they
reach, so the gradient is a sum of few shifted pictures of the output's size.
"""

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.table import pool_size

Maps = Float[Array, "batch height width *channels"]
Pooled = Float[Array, "batch out_height out_width *channels"]


def _around(x: Array, pad: tuple[int, int]) -> list[tuple[int, int]]:
    """Return how to pad the two axes of the pictures alone."""
    return [pad if axis in (1, 2) else (0, 0) for axis in range(x.ndim)]


def _reduce_windows(
    x: Maps, size: int, stride: int, fill: float, combine: Callable
) -> Pooled:
    """Combine each window's pixels, columns first and then rows."""
    out = pool_size(x.shape[1], size, stride)
    high = max(0, (out - 1) * stride + size - x.shape[1])
    x = jnp.pad(x, _around(x, (0, high)), constant_values=fill)
    reach = (out - 1) * stride + 1
    for axis in (1, 2):
        x = lax.optimization_barrier(x)  # or XLA computes x anew for every slice
        x = reduce(
            combine,
            [lax.slice_in_dim(x, i, i + reach, stride, axis=axis) for i in range(size)],
        )
    return x


def _gather(
    side: int,
    size: int,
    stride: int,
    pixel: Callable[[int, int, list[tuple[int, int]]], Array],
    batch: int,
    channels: tuple[int, ...],
) -> Maps:
    """Assemble a picture from ``stride**2`` interleaved ones.

    Args:
        side: of the picture, pixels.
        size: of the windows, pixels.
        stride: of the windows, pixels.
        pixel: gives, for a remainder (r, s) and the windows that reach it (how many
            steps back in y and x), the pixels at ``stride * i + r, stride * j + s``.
        batch: pictures.
        channels: axes behind the picture's.
    """
    cells = -(-side // stride)

    def back(remainder: int) -> range:
        return range((size - 1 - remainder) // stride + 1)

    rows = [
        jnp.stack(
            [
                pixel(r, s, [(d, e) for d in back(r) for e in back(s)])
                for s in range(stride)
            ],
            axis=3,
        )
        for r in range(stride)
    ]
    whole = jnp.stack(rows, axis=2)
    whole = whole.reshape(batch, cells * stride, cells * stride, *channels)
    return whole[:, :side, :side]


def _shifted(y: Pooled, cells: int, reach: int, fill: float) -> Callable:
    """Return a function of (d, e) that gives the window d, e steps back of a cell."""
    extra = max(0, cells - y.shape[1])
    padded = jnp.pad(y, _around(y, (reach, extra)), constant_values=fill)
    return lambda d, e: padded[
        :, reach - d : reach - d + cells, reach - e : reach - e + cells
    ]


def max_pool(x: Maps, size: int, stride: int) -> Pooled:
    """Return the largest value of each ``size`` x ``size`` window (section 3.4).

    The gradient goes, whole, to every pixel that equals its window's maximum, as in
    the 2012 kernels (XLA and PyTorch choose one where values tie).

    Args:
        x: ``[B, H, H, C]``, or with more axes of channels; a last window may hang
            over (ceiling rule).
        size: of a window, pixels.
        stride: pixels from one window to the next.
    """
    return _max_pool(x, size, stride)


def _largest(x: Maps, size: int, stride: int) -> Pooled:
    return _reduce_windows(x, size, stride, -jnp.inf, jnp.maximum)


_max_pool = jax.custom_vjp(_largest, nondiff_argnums=(1, 2))


def _max_forward(x: Maps, size: int, stride: int):
    y = _largest(x, size, stride)
    return y, (x, y)


def _max_backward(size: int, stride: int, saved: tuple[Maps, Pooled], dy: Pooled):
    x, y = saved
    batch, side, _, *channels = x.shape
    cells, reach = -(-side // stride), (size - 1) // stride
    spare = cells * stride - side
    apart = jnp.pad(x, _around(x, (0, spare)), constant_values=-jnp.inf).reshape(
        batch, cells, stride, cells, stride, *channels
    )
    # Where there is no window its maximum is infinite, and no pixel equals it.
    best = _shifted(y, cells, reach, jnp.inf)
    flow = _shifted(dy, cells, reach, 0.0)

    def pixel(r: int, s: int, windows: list[tuple[int, int]]) -> Array:
        here = apart[:, :, r, :, s]
        none = jnp.zeros_like(here)
        return sum((jnp.where(here == best(*w), flow(*w), 0) for w in windows), none)

    return (_gather(side, size, stride, pixel, batch, tuple(channels)),)


_max_pool.defvjp(_max_forward, _max_backward)


def avg_pool(x: Maps, size: int, stride: int) -> Pooled:
    """Return each window's mean over the pixels inside the picture (cuda-convnet).

    Args:
        x: ``[B, H, H, C]``, or with more axes of channels; a last window may hang
            over (ceiling rule).
        size: of a window, pixels.
        stride: pixels from one window to the next.
    """
    ones = jnp.ones((1, *x.shape[1:3], *(1,) * (x.ndim - 3)), x.dtype)
    return _sum_pool(x, size, stride) / _sum_pool(ones, size, stride)


def _sum(x: Maps, size: int, stride: int) -> Pooled:
    return _reduce_windows(x, size, stride, 0.0, jnp.add)


_sum_pool = jax.custom_vjp(_sum, nondiff_argnums=(1, 2))


def _sum_forward(x: Maps, size: int, stride: int):
    return _sum(x, size, stride), x.shape


def _sum_backward(size: int, stride: int, shape: tuple[int, ...], dy: Pooled):
    batch, side, _, *channels = shape
    cells, reach = -(-side // stride), (size - 1) // stride
    flow = _shifted(dy, cells, reach, 0.0)

    def pixel(r: int, s: int, windows: list[tuple[int, int]]) -> Array:
        del r, s
        none = jnp.zeros((batch, cells, cells, *channels), dy.dtype)
        return sum((flow(*w) for w in windows), none)

    return (_gather(side, size, stride, pixel, batch, tuple(channels)),)


_sum_pool.defvjp(_sum_forward, _sum_backward)
