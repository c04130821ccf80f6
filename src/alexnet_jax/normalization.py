"""The two response normalisations, with one hand-written gradient.

Both are ``y = x * d^-beta`` with ``d = k + scale * W(x^2)``, where W sums over a
window that is symmetric: over neighbouring maps, or over a square of the same map. So
both have the gradient ``dx = dy * d^-beta - 2 * scale * beta * x * W(dy * y / d)``,
which needs one more window sum and no transposed slices. Squares, sums and powers are
float32 when ``x`` is narrower.
"""

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Maps = Float[Array, "batch height width ... channels"]
WindowSum = Callable[[Maps], Maps]


def response_norm(x: Maps, *, size: int, scale: float, beta: float, k: float) -> Maps:
    """Normalise over ``size`` neighbouring maps (section 3.3).

    ``x / (k + scale * sum of squares)^beta``; the window is cut at the first and the
    last map.

    Args:
        x: ``[B, H, W, C]``, or ``[B, H, W, T, C]`` of T towers, each by itself.
        size: maps in a window, odd.
        scale: of the sum of squares: alpha, or alpha / size; the rows derive it.
        beta: the power.
        k: the constant, ``minDiv`` in the 2012 code.
    """
    window = partial(_sum_over_maps, size=size)
    return _normalize(x, window, scale, beta, k)


def spatial_norm(x: Maps, *, size: int, scale: float, beta: float, k: float) -> Maps:
    """Normalise over a ``size`` x ``size`` square of the same map (net 145's cnorm2).

    ``x / (k + scale * sum of squares)^beta``; the square is cut at the borders of the
    picture. ``size`` in pixels, the other arguments as in ``response_norm``.
    """
    window = partial(_sum_over_square, size=size)
    return _normalize(x, window, scale, beta, k)


def _sum_over_maps(x: Maps, *, size: int) -> Maps:
    width, half = x.shape[-1], size // 2
    padded = jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((half, half),))
    return reduce(jnp.add, [padded[..., i : i + width] for i in range(size)])


def _sum_over_square(x: Maps, *, size: int) -> Maps:
    half = size // 2
    for axis in (1, 2):  # a square's sum is a column's sum of rows' sums
        pad = [(0, 0)] * x.ndim
        pad[axis] = (half, half)
        padded = jnp.pad(x, pad)
        parts = [
            lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis)
            for i in range(size)
        ]
        x = reduce(jnp.add, parts)
    return x


def _wide(x: Maps) -> Maps:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _power(d: Maps, beta: float) -> Maps:
    """Return ``d^-beta``."""
    if beta == 0.75:  # two square roots are far cheaper than exp(log)
        return lax.rsqrt(d * jnp.sqrt(d))
    return d**-beta


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _normalize(x: Maps, window: WindowSum, scale: float, beta: float, k: float) -> Maps:
    return _forward(x, window, scale, beta, k)[0]


def _forward(x: Maps, window: WindowSum, scale: float, beta: float, k: float):
    x = lax.optimization_barrier(x)  # or XLA computes x anew for every slice
    d = k + scale * window(_wide(x) ** 2)
    return (x * _power(d, beta)).astype(x.dtype), (x, d)


def _backward(
    window: WindowSum,
    scale: float,
    beta: float,
    k: float,
    saved: tuple[Maps, Maps],
    dy: Maps,
):
    del k
    x, d = saved
    wide, flow = _wide(x), _wide(dy) * _power(d, beta)
    spread = window(flow * wide / d)
    return ((flow - 2 * scale * beta * wide * spread).astype(x.dtype),)


_normalize.defvjp(_forward, _backward)
