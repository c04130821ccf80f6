"""Convolution as matrix products: every window's pixels laid out as a row.

XLA's CPU backend computes the gradient of a kernel as a convolution with a window as
large as the picture, at a fraction of the speed of its forward pass: here it is a sum
over a few images at a time of patches times the output's gradient, one matrix product
each, so that the patches stay in the cache. And it computes windows of few channels a
pixel at a time: as patches' rows they are as good as any matrix.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from alexnet_jax.portions import divide, map_portions

Maps = Float[Array, "batch height width inputs"]
Kernel = Float[Array, "size size inputs outputs"]
Out = Float[Array, "batch out_height out_width outputs"]

PATCH_BYTES = 4 << 20
"""Patches made at a time: about what a core's cache holds (measured 1 to 8 MB)."""

FEW_CHANNELS = 4
"""With no more, the forward pass gains as well: a picture's colours."""

NARROW = 96
"""Outputs up to which turned products are quicker (measured: 32 to 96, not 128)."""


def pays(kernel: Kernel, stride: int) -> bool:
    """Tell whether a forward pass gains by patches on CPU.

    Args:
        kernel: ``[k, k, I, O]``.
        stride: pixels from one window to the next; longer strides gain nothing.
    """
    return stride == 1 and kernel.shape[2] <= FEW_CHANNELS


def conv(x: Maps, kernel: Kernel, *, out: int, stride: int, pad: int) -> Out:
    """Convolve with zero padding; arguments as for ``kernel_gradient``.

    Args:
        x: the input.
        kernel: of any values.
        out: side of the output, pixels.
        stride: pixels from one window to the next.
        pad: pixels of zeros before the first one.
    """
    patches = _Patches.of(x, kernel, out, stride, pad)
    columns = patches.flat(kernel)

    def some(turn: Array, x: Maps) -> Out:
        del turn
        return (patches.rows(x) @ columns).reshape(len(x), out, out, -1)

    return map_portions(some, patches.portion, x)


def kernel_gradient(
    x: Maps, kernel: Kernel, dy: Out, *, stride: int, pad: int
) -> Kernel:
    """Return the gradient of ``kernel``: patches' transpose times ``dy``.

    Args:
        x: the input, ``[B, H, W, I]``, square.
        kernel: ``[k, k, I, O]``; only its shape and dtype matter.
        dy: the output's gradient, ``[B, H', W', O]``.
        stride: as in the forward pass.
        pad: as in the forward pass.
    """
    patches = _Patches.of(x, kernel, dy.shape[1], stride, pad)
    products = Products(patches.width, kernel.shape[-1])
    portion = patches.portion
    heaps = 2 if len(x) % (2 * portion) == 0 else 1

    def add(total: Array, some: tuple[Maps, Out]) -> tuple[Array, None]:
        # XLA copies patches with one thread, but two heaps of them at the same time.
        for images, gradients in zip(*(jnp.split(a, heaps) for a in some), strict=True):
            gradients = gradients.reshape(-1, products.outputs)
            total = products.add(total, patches.rows(images), gradients)
        return total, None

    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    own, flows = (a.reshape(-1, heaps * portion, *a.shape[1:]) for a in (x, dy))
    total, _ = lax.scan(add, products.nothing(kernel, wide), (own, flows))
    return patches.kernel(products.result(total)).astype(kernel.dtype)


class Products(NamedTuple):
    """A sum of products, rows' transpose times their outputs' gradients.

    XLA's CPU backend is quicker with the narrower factor first where that is narrow:
    there the sum is kept turned.

    Attributes:
        width: numbers in a row.
        outputs: of a row.
    """

    width: int
    outputs: int

    @property
    def turned(self) -> bool:
        """Whether the sum is ``[outputs, width]``."""
        return self.outputs <= NARROW

    def nothing(self, like: Array, dtype: DTypeLike) -> Array:
        """Return the sum of none, varying over the mesh axes that ``like`` does."""
        shape = (self.width, self.outputs)
        shape = shape[::-1] if self.turned else shape
        return jnp.zeros_like(like, dtype, shape=shape)

    def add(
        self,
        total: Array,
        rows: Float[Array, "windows numbers"],
        dy: Float[Array, "windows outputs"],
    ) -> Array:
        """Return the sum with another product in it."""
        left, right = (dy, rows) if self.turned else (rows, dy)
        axes = (((0,), (0,)), ((), ()))
        return total + lax.dot_general(
            left, right, axes, preferred_element_type=total.dtype
        )

    def result(self, total: Array) -> Float[Array, "numbers outputs"]:
        """Return the sum itself."""
        return total.T if self.turned else total


class _Patches(NamedTuple):
    """How windows become rows.

    In blocks of stride x stride pixels, each one pixel with more channels, the stride
    is 1; windows grow to whole blocks, and what grew is cut off at the end.

    Attributes:
        window: side, pixels.
        inputs: channels.
        out: side of the output, pixels.
        stride: pixels from one window to the next.
        pad: pixels of zeros before the first one.
        high: pixels of zeros behind the last one.
        portion: images taken at a time.
    """

    window: int
    inputs: int
    out: int
    stride: int
    pad: int
    high: int
    portion: int

    @classmethod
    def of(cls, x: Maps, kernel: Kernel, out: int, stride: int, pad: int) -> "_Patches":
        batch, side, _, inputs = x.shape
        window = len(kernel)
        blocks = -(-window // stride)
        high = max(0, (out - 1 + blocks) * stride - side - pad)
        image = (out * blocks * stride) ** 2 * inputs * x.dtype.itemsize
        portion = divide(batch, image, PATCH_BYTES)
        return cls(window, inputs, out, stride, pad, high, portion)

    @property
    def blocks(self) -> int:
        """Side of a window in blocks."""
        return -(-self.window // self.stride)

    @property
    def depth(self) -> int:
        """Channels of a block."""
        return self.stride**2 * self.inputs

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.blocks**2 * self.depth

    def rows(self, x: Maps) -> Float[Array, "windows numbers"]:
        """Return every window of some images as a row."""
        zeros = (self.pad, self.high)
        x = jnp.pad(x, ((0, 0), zeros, zeros, (0, 0)))
        if self.stride > 1:
            cells = x.shape[1] // self.stride
            x = x[:, : cells * self.stride, : cells * self.stride]
            x = x.reshape(-1, cells, self.stride, cells, self.stride, self.inputs)
            x = x.swapaxes(2, 3).reshape(-1, cells, cells, self.depth)
        # First a window's pixels of a row, then its rows: fewer and longer copies.
        steps = range(self.blocks)
        x = jnp.concatenate([x[:, :, j : j + self.out] for j in steps], axis=-1)
        x = lax.optimization_barrier(x)
        x = jnp.concatenate([x[:, i : i + self.out] for i in steps], axis=-1)
        # A matrix: of more axes XLA would make a transposed copy for the product.
        return x.reshape(-1, self.width)

    def flat(self, kernel: Kernel) -> Float[Array, "numbers outputs"]:
        """Return a kernel as the matrix that rows are multiplied by."""
        blocks, stride = self.blocks, self.stride
        spare = (0, blocks * stride - self.window)
        kernel = jnp.pad(kernel, (spare, spare, (0, 0), (0, 0)))
        kernel = kernel.reshape(blocks, stride, blocks, stride, self.inputs, -1)
        return kernel.swapaxes(1, 2).reshape(self.width, -1)

    def kernel(self, flat: Float[Array, "numbers outputs"]) -> Kernel:
        """Undo ``flat``."""
        blocks, stride, window = self.blocks, self.stride, self.window
        flat = flat.reshape(blocks, blocks, stride, stride, self.inputs, -1)
        flat = flat.swapaxes(1, 2)
        flat = flat.reshape(*(blocks * stride,) * 2, self.inputs, -1)
        return flat[:window, :window]
