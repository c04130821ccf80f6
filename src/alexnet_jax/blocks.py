"""A convolution with a stride as one without, over fewer pixels with more channels.

A block of stride x stride pixels becomes one pixel with the channels of all of them.
Windows then begin at every pixel; they grow to whole blocks, with zeros in the kernel
for what grew. Net 145's first layer, 11 x 11 x 3 at stride 4, becomes 3 x 3 x 48.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

Maps = Float[Array, "batch height width inputs"]
Blocks = Float[Array, "batch down across depth"]
Kernel = Float[Array, "size size inputs outputs"]
InBlocks = Float[Array, "blocks blocks depth outputs"]


def maps(x: Maps, stride: int, pad: int, cells: int) -> Blocks:
    """Cut maps into blocks.

    Args:
        x: ``[B, H, H, I]``, of any dtype.
        stride: side of a block, pixels.
        pad: pixels of zeros before the first one.
        cells: blocks down and across; behind the last pixel there are zeros, and
            pixels beyond the last block are left out.

    Returns:
        ``[B, cells, cells, stride^2 I]``.
    """
    side = cells * stride
    zeros = (pad, max(0, side - pad - x.shape[1]))
    x = jnp.pad(x, ((0, 0), zeros, zeros, (0, 0)))[:, :side, :side]
    # A block's lines one after the other, which are copied whole; a transposition goes
    # number by number.
    lines = x.reshape(len(x), cells, stride, cells, -1)
    return jnp.concatenate([lines[:, :, i] for i in range(stride)], axis=-1)


def kernel(kernel: Kernel, stride: int) -> InBlocks:
    """Return the kernel that does the same on blocks.

    Args:
        kernel: ``[k, k, I, O]``, of any dtype.
        stride: side of a block, pixels.

    Returns:
        ``[b, b, stride^2 I, O]``, where b blocks cover k pixels.
    """
    window, _, _, outputs = kernel.shape
    blocks = -(-window // stride)
    spare = (0, blocks * stride - window)
    kernel = jnp.pad(kernel, (spare, spare, (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, -1, outputs)
    return kernel.swapaxes(1, 2).reshape(blocks, blocks, -1, outputs)


def undo(kernel: InBlocks, stride: int, window: int) -> Kernel:
    """Return the kernel of which ``kernel`` made this one.

    Args:
        kernel: ``[b, b, stride^2 I, O]``, or its gradient.
        stride: side of a block, pixels.
        window: side of the windows, pixels: k.

    Returns:
        ``[k, k, I, O]``.
    """
    blocks, _, _, outputs = kernel.shape
    kernel = kernel.reshape(blocks, blocks, stride, stride, -1, outputs)
    side = blocks * stride
    kernel = kernel.swapaxes(1, 2).reshape(side, side, -1, outputs)
    return kernel[:window, :window]
