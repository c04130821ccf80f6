"""Convolution as matrix products: every window's pixels laid out as a row.

XLA's CPU backend computes the gradient of a kernel as a convolution with a window as
large as the picture, at a fraction of the speed of its forward pass: here it is a sum
over a few images at a time of patches times the output's gradient, one matrix product
each, so that the patches stay in the cache. And it computes windows of few channels a
pixel at a time: as patches' rows they are as good as any matrix.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from alexnet_jax.portions import divide, fold_portions, map_portions

Maps = Float[Array, "batch height width inputs"]
Kernel = Float[Array, "size size inputs outputs"]
Out = Float[Array, "batch out_height out_width outputs"]

PATCH_BYTES = 4 << 20
"""Patches made at a time: about what a core's cache holds (measured 1 to 8 MB)."""

FEW_CHANNELS = 4
"""With no more, the forward pass gains as well: a picture's colours."""

NARROW = 96
"""Outputs up to which turned products are quicker (measured: 32 to 96, not 128)."""


def pays(kernel: Kernel | jax.ShapeDtypeStruct) -> bool:
    """Tell whether a forward pass gains by patches on CPU.

    Args:
        kernel: ``[k, k, I, O]``.
    """
    return kernel.shape[2] <= FEW_CHANNELS


@partial(jax.jit, static_argnums=2)  # traced once where it is used twice
def conv(x: Maps, kernel: Kernel, pad: int) -> Out:
    """Convolve with stride 1 and zero padding.

    Args:
        x: ``[B, H, H, I]``, square.
        kernel: ``[k, k, I, O]``, of the same dtype.
        pad: pixels of zeros on each side.

    Returns:
        ``[B, H', H', O]`` with ``H' = H + 2 pad - k + 1``.
    """
    out = _out(x, kernel, pad)
    columns = kernel.reshape(-1, kernel.shape[-1])

    def some(x: Maps) -> Out:
        return (_rows(x, len(kernel), pad) @ columns).reshape(len(x), out, out, -1)

    return map_portions(some, _portion(x, kernel, pad), x)


@partial(jax.jit, static_argnums=3)
def kernel_gradient(x: Maps, kernel: Kernel, dy: Out, pad: int) -> Kernel:
    """Return the gradient of ``conv``'s kernel: patches' transpose times ``dy``.

    Args:
        x: as in ``conv``.
        kernel: only its shape and dtype matter.
        dy: the output's gradient, ``[B, H', H', O]``.
        pad: as in ``conv``.
    """
    window, _, inputs, outputs = kernel.shape
    products = Products(window**2 * inputs, outputs)
    portion = _portion(x, kernel, pad)
    heaps = 2 if len(x) % (2 * portion) == 0 else 1

    def add(total: Array, *some: Array) -> Array:
        # XLA copies patches with one thread, but two heaps of them at the same time.
        for images, gradients in zip(*(jnp.split(a, heaps) for a in some), strict=True):
            gradients = gradients.reshape(-1, outputs)
            total = products.add(total, _rows(images, window, pad), gradients)
        return total

    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    nothing = products.nothing(kernel, wide)
    total = fold_portions(add, nothing, heaps * portion, x, dy)
    return products.result(total).reshape(kernel.shape).astype(kernel.dtype)


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


def _out(x: Maps, kernel: Kernel, pad: int) -> int:
    """Return the side of the output, pixels."""
    return x.shape[1] + 2 * pad - len(kernel) + 1


def _portion(x: Maps, kernel: Kernel, pad: int) -> int:
    """Return how many images are taken at a time."""
    windows = _out(x, kernel, pad) ** 2
    image = windows * len(kernel) ** 2 * x.shape[-1] * x.dtype.itemsize
    return divide(len(x), image, PATCH_BYTES)


def _rows(x: Maps, window: int, pad: int) -> Float[Array, "windows numbers"]:
    """Return every window of some images as a row."""
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = x.shape[1] - window + 1
    # First a window's pixels of a line, then its lines: fewer and longer copies.
    for axis in (2, 1):
        parts = [lax.slice_in_dim(x, i, i + out, axis=axis) for i in range(window)]
        x = lax.optimization_barrier(jnp.concatenate(parts, axis=-1))
    # A matrix: of more axes XLA would make a transposed copy for the product.
    return x.reshape(-1, x.shape[-1])
