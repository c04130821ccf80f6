"""Convolution in the form that is quickest on the machine at hand.

On CPU a convolution waits for its multiplications, and Winograd's filtering, where it
can be had, needs fewer of them (see ``winograd``). And XLA's CPU backend computes the
gradient of a kernel as a convolution with a window as large as the picture, at a
fraction of the speed of its forward pass: here it is a sum over a few images at a time
of patches' transpose times the output's gradient, one matrix product each, so that the
patches stay in the cache. Other backends keep XLA's own. This is the one place that
chooses.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax import winograd
from alexnet_jax.table import Rounding, conv_size

Maps = Float[Array, "batch height width inputs"]
Kernel = Float[Array, "size size inputs outputs"]
Out = Float[Array, "batch out_height out_width outputs"]

PATCH_BYTES = 4 << 20
"""Patches made at a time: about what a core's cache holds (measured 1 to 8 MB)."""


def conv(
    x: Maps, kernel: Kernel, stride: int, pad: int, rounding: Rounding = "ceil"
) -> Out:
    """Convolve with zero padding; a last window may overhang (net 145: 3 pixels).

    Inside ``shard_map`` both arguments must vary over the same mesh axes.

    Args:
        x: ``[B, H, W, I]``, square.
        kernel: ``[k, k, I, O]``, of the same dtype.
        stride: pixels from one window to the next.
        pad: pixels of zeros on each side.
        rounding: ``floor`` drops a last window that would hang over.
    """
    return _conv(x, kernel, stride, pad, rounding)


def _high_pad(size: int, window: int, stride: int, pad: int, rounding: Rounding) -> int:
    """Return the zeros after the last pixel; below 0 where pixels are not read."""
    out = conv_size(size, window, stride, pad, rounding)
    return (out - 1) * stride + window - size - pad


def _plain(x: Maps, kernel: Kernel, stride: int, pad: int, rounding: Rounding) -> Out:
    """Convolve as XLA does."""
    high = _high_pad(x.shape[1], kernel.shape[0], stride, pad, rounding)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, high), (pad, high)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _winograd(x: Maps, kernel: Kernel, stride: int, pad: int) -> bool:
    known = isinstance(x.shape[0], int)  # an exported function may leave it open
    return known and winograd.pays(kernel, stride, pad)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: Maps, kernel: Kernel, stride: int, pad: int, rounding: Rounding) -> Out:
    plain = partial(_plain, stride=stride, pad=pad, rounding=rounding)
    if not _winograd(x, kernel, stride, pad):
        return plain(x, kernel)
    return lax.platform_dependent(
        x, kernel, cpu=partial(winograd.conv, pad=pad), default=plain
    )


def _forward(x: Maps, kernel: Kernel, stride: int, pad: int, rounding: Rounding):
    return _conv(x, kernel, stride, pad, rounding), (x, kernel)


def _backward(
    stride: int, pad: int, rounding: Rounding, saved: tuple[Maps, Kernel], dy: Out
):
    x, kernel = saved

    def as_xla_does(x: Maps, kernel: Kernel, dy: Out):
        plain = partial(_plain, stride=stride, pad=pad, rounding=rounding)
        return jax.vjp(plain, x, kernel)[1](dy)

    def by_winograd(x: Maps, kernel: Kernel, dy: Out):
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        dx = winograd.conv(dy, turned, len(kernel) - 1 - pad)
        return dx, winograd.kernel_gradient(x, kernel, dy, pad)

    def by_patches(x: Maps, kernel: Kernel, dy: Out):
        dx, _ = as_xla_does(x, kernel, dy)
        return dx, kernel_gradient(x, kernel, dy, stride=stride, pad=pad)

    on_cpu = by_winograd if _winograd(x, kernel, stride, pad) else by_patches
    return lax.platform_dependent(x, kernel, dy, cpu=on_cpu, default=as_xla_does)


_conv.defvjp(_forward, _backward)


def kernel_gradient(
    x: Maps, kernel: Kernel, dy: Out, *, stride: int, pad: int
) -> Kernel:
    """Return the gradient of ``kernel``: patches' transpose times ``dy``.

    Args:
        x: the input, ``[B, H, W, I]``.
        kernel: ``[k, k, I, O]``; only its shape and dtype matter.
        dy: the output's gradient, ``[B, H', W', O]``.
        stride: as in the forward pass.
        pad: as in the forward pass.
    """
    window, _, inputs, outputs = kernel.shape
    batch, side, out = len(x), x.shape[1], dy.shape[1]
    # In blocks of stride x stride pixels, each one pixel with more channels, the
    # stride is 1; windows grow to whole blocks, and what grew is cut off at the end.
    blocks = -(-window // stride)
    high = max(0, (out - 1 + blocks) * stride - side - pad)
    cells = (pad + side + high) // stride
    depth = stride**2 * inputs
    patch_bytes = (out * blocks) ** 2 * depth * x.dtype.itemsize
    most = max(1, PATCH_BYTES // patch_bytes)
    chunk = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)
    heaps = 2 if batch % (2 * chunk) == 0 else 1

    def patches(images: Maps) -> Array:
        images = jnp.pad(images, ((0, 0), (pad, high), (pad, high), (0, 0)))
        if stride > 1:
            images = images[:, : cells * stride, : cells * stride]
            images = images.reshape(chunk, cells, stride, cells, stride, inputs)
            images = images.swapaxes(2, 3).reshape(chunk, cells, cells, depth)
        parts = [
            images[:, i : i + out, j : j + out]
            for i in range(blocks)
            for j in range(blocks)
        ]
        # A matrix: of more axes XLA would make a transposed copy for the product.
        return jnp.concatenate(parts, axis=-1).reshape(-1, blocks**2 * depth)

    def add(total: Array, pairs: tuple[Array, Array]) -> tuple[Array, None]:
        # XLA copies patches with one thread, but two heaps of them at the same time.
        for images, gradients in zip(*pairs, strict=True):
            total += lax.dot_general(
                patches(images),
                gradients.reshape(-1, outputs),
                (((0,), (0,)), ((), ())),
                preferred_element_type=total.dtype,
            )
        return total, None

    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    # Made from the kernel so that inside shard_map it varies over the same axes.
    zero = jnp.zeros_like(kernel, wide, shape=(blocks**2 * depth, outputs))
    total, _ = lax.scan(
        add,
        zero,
        (
            x.reshape(-1, heaps, chunk, *x.shape[1:]),
            dy.reshape(-1, heaps, chunk, *dy.shape[1:]),
        ),
    )
    total = total.reshape(blocks, blocks, stride, stride, inputs, outputs)
    total = total.swapaxes(1, 2).reshape(*(blocks * stride,) * 2, inputs, outputs)
    return total[:window, :window].astype(kernel.dtype)
