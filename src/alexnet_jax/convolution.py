"""Convolution in the form that is quickest on the machine at hand.

On CPU a convolution waits for its multiplications, and Winograd's filtering, where it
can be had, needs fewer of them (see ``winograd``). Where it cannot, the gradient of a
kernel, and the forward pass over a picture's few channels, are products of patches (see
``patches``). Neither knows a stride: what has one is first cut into blocks of pixels
(see ``blocks``). Other backends keep XLA's own. This is the one place that chooses.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax import blocks, patches, winograd
from alexnet_jax.table import Rounding, conv_size

Maps = Float[Array, "batch height width inputs"]
Kernel = Float[Array, "size size inputs outputs"]
Out = Float[Array, "batch out_height out_width outputs"]
Rows = Float[Array, "... outputs"]


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


def _without_stride(x: Maps, size: int, stride: int, pad: int, out: int):
    """Return the maps, in blocks where there is a stride, and how they are padded."""
    if stride == 1:
        return x, pad
    return blocks.maps(x, stride, pad, out - 1 + -(-size // stride)), 0


def _in_blocks(kernel: Kernel, stride: int) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda kernel: blocks.kernel(kernel, stride), kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: Maps, kernel: Kernel, stride: int, pad: int, rounding: Rounding) -> Out:
    plain = partial(_plain, stride=stride, pad=pad, rounding=rounding)
    size = len(kernel)
    out = conv_size(x.shape[1], size, stride, pad, rounding)
    taken = _in_blocks(kernel, stride)
    known = isinstance(x.shape[0], int)  # an exported function may leave it open
    if known and winograd.pays(taken, len(x)):
        way = winograd.conv
    elif known and patches.pays(taken):
        way = patches.conv
    else:
        return plain(x, kernel)

    def on_cpu(x: Maps, kernel: Kernel) -> Out:
        cut, zeros = _without_stride(x, size, stride, pad, out)
        return way(cut, blocks.kernel(kernel, stride), zeros)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _forward(x: Maps, kernel: Kernel, stride: int, pad: int, rounding: Rounding):
    return _conv(x, kernel, stride, pad, rounding), (x, kernel)


def _backward(
    stride: int, pad: int, rounding: Rounding, saved: tuple[Maps, Kernel], dy: Out
):
    x, kernel = saved
    quick = winograd.pays(_in_blocks(kernel, stride), len(x))

    def as_xla_does(x: Maps, kernel: Kernel, dy: Out):
        plain = partial(_plain, stride=stride, pad=pad, rounding=rounding)
        return jax.vjp(plain, x, kernel)[1](dy)

    def on_cpu(x: Maps, kernel: Kernel, dy: Out):
        size, out = len(kernel), dy.shape[1]
        if quick and stride == 1 and pad < size:
            turned = kernel[::-1, ::-1].swapaxes(2, 3)
            dx = winograd.conv(dy, turned, size - 1 - pad)
        else:
            dx, _ = as_xla_does(x, kernel, dy)
        cut, zeros = _without_stride(x, size, stride, pad, out)
        way = winograd.kernel_gradient if quick else patches.kernel_gradient
        gradient = way(cut, blocks.kernel(kernel, stride), dy, zeros)
        return dx, blocks.undo(gradient, stride, size)

    return lax.platform_dependent(x, kernel, dy, cpu=on_cpu, default=as_xla_does)


_conv.defvjp(_forward, _backward)


@jax.custom_vjp
def shift(y: Rows, bias: Float[Array, " outputs"]) -> Rows:
    """Add a bias to every pixel.

    Inside ``shard_map`` both arguments must vary over the same mesh axes.

    Args:
        y: ``[..., O]``.
        bias: ``[O]``, of the same dtype.
    """
    return y + bias


def _shift_forward(y: Rows, bias: Float[Array, " outputs"]):
    return y + bias, None


def _shift_backward(_: None, dy: Rows):
    flat = dy.reshape(-1, dy.shape[-1])
    wide = jnp.promote_types(dy.dtype, jnp.float32)

    def product(flat: Array) -> Array:
        ones = jnp.ones_like(flat, shape=(1, len(flat)))
        return lax.dot(ones, flat, preferred_element_type=wide)[0]

    # XLA's CPU backend sums over images and pixels with one thread.
    dbias = lax.platform_dependent(
        flat, cpu=product, default=lambda flat: flat.sum(0, dtype=wide)
    )
    return dy, dbias.astype(dy.dtype)


shift.defvjp(_shift_forward, _shift_backward)
