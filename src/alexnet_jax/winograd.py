"""Convolution with fewer multiplications: Winograd's minimal filtering, along columns.

A column of pixels is cut into tiles that overlap. Of a tile, ``outputs`` results of a
filter with ``taps`` taps need only ``outputs + taps - 1`` products, between a few sums
of its pixels and a few sums of the taps. Along rows the windows stay as they are, so
what remains is a convolution with windows one pixel high for each of those products:
2.1 times fewer multiplications for 5 x 5 windows, 1.6 times for 3 x 3. Only CPUs gain
by it, where multiplications are what a convolution waits for. Results are within about
3e-6 of the largest of those of a plain convolution in float32.

Source: Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks* (2015);
Winograd, *Arithmetic Complexity of Computations* (1980).
"""

from collections.abc import Sequence
from functools import cache, reduce
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.patches import Products
from alexnet_jax.portions import divide, map_portions

Maps = Float[Array, "batch height width inputs"]
Kernel = Float[Array, "taps taps inputs outputs"]
Out = Float[Array, "batch out_height out_width outputs"]

OUTPUTS = {3: 4, 5: 3}
"""Results of a tile, by taps: more would cost more sums than they save products."""

PORTION_BYTES = 3 << 19
"""Sums of pixels made at a time, with what is made of them about what caches hold."""

MIN_CHANNELS = 32
"""With fewer, in or out, the sums take longer than the products they save."""

POINTS = (0, 1, -1, 2, -2, 0.5)
"""Where the filter's and the tile's polynomials are multiplied, and at infinity: small
numbers and their inverses, so that little precision is lost."""


def pays(kernel: Kernel, stride: int, pad: int) -> bool:
    """Tell whether a convolution can be done so, and gains by it on CPU.

    Args:
        kernel: ``[k, k, I, O]``, of any dtype; only float32 gains.
        stride: pixels from one window to the next.
        pad: pixels of zeros on each side.
    """
    taps, _, inputs, features = kernel.shape
    return (
        (stride == 1 and taps in OUTPUTS and pad < taps)
        and min(inputs, features) >= MIN_CHANNELS
        and kernel.dtype == jnp.float32
    )


class Sums(NamedTuple):
    """What is added up before and after the products.

    Attributes:
        pixels: ``f64[products, products]``, of a tile's pixels.
        taps: ``f64[products, taps]``, of the filter's taps.
        results: ``f64[outputs, products]``, of the products.
    """

    pixels: np.ndarray
    taps: np.ndarray
    results: np.ndarray


@cache
def sums(outputs: int, taps: int) -> Sums:
    """Return the sums for ``outputs`` results of a filter with ``taps`` taps.

    With them ``results @ ((pixels @ tile) * (taps @ filter))`` is, for all tiles and
    filters, the filter slid over the tile.
    """
    products = outputs + taps - 1
    points = np.array(POINTS[: products - 1])

    def powers(count: int) -> np.ndarray:
        """Return what ``count`` coefficients are worth at the points."""
        at_infinity = np.eye(count)[-1]
        return np.vstack([points[:, None] ** np.arange(count), at_infinity])

    others = [np.delete(points, i) for i in range(products - 1)]
    vanishing = [np.poly(roots)[::-1] for roots in [*others, points]]
    pixels = np.zeros((products, products))
    for row, coefficients in zip(pixels, vanishing, strict=True):
        row[: len(coefficients)] = coefficients
    worth = [np.prod(p - rest) for p, rest in zip(points, others, strict=True)]
    return Sums(
        pixels=pixels,
        taps=powers(taps) / np.array([*worth, 1.0])[:, None],
        results=powers(outputs).T,
    )


def conv(x: Maps, kernel: Kernel, pad: int) -> Out:
    """Convolve with stride 1 and zero padding.

    Args:
        x: ``f32[B, H, W, I]``.
        kernel: ``f32[k, k, I, O]``; see ``pays``.
        pad: pixels of zeros on each side.

    Returns:
        ``f32[B, H + 2 pad - k + 1, W + 2 pad - k + 1, O]``.
    """
    taps, _, _, features = kernel.shape
    shape = _Shape.of(x, taps, pad)
    filters = _add(shape.sums.taps, kernel)

    def some(turn: Array, x: Maps) -> Out:
        del turn
        products = [
            lax.conv_general_dilated(
                pixels,
                rows[None],
                (1, 1),
                ((0, 0), (0, 0)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for pixels, rows in zip(shape.pixels(x), filters, strict=True)
        ]
        results = jnp.stack(_add(shape.sums.results, products), axis=2)
        return results.reshape(len(x), -1, shape.width, features)[:, : shape.height]

    return map_portions(some, shape.portion, x)


def kernel_gradient(x: Maps, kernel: Kernel, dy: Out, pad: int) -> Kernel:
    """Return the gradient of ``conv``'s kernel.

    Args:
        x: as in ``conv``.
        kernel: only its shape and dtype matter.
        dy: the output's gradient, ``f32[B, H', W', O]``.
        pad: as in ``conv``.

    Returns:
        ``f32[k, k, I, O]``.
    """
    taps, _, inputs, features = kernel.shape
    shape = _Shape.of(x, taps, pad)
    products = Products(taps * inputs, features)

    def add(totals: list[Array], some: tuple[Maps, Out]) -> tuple[list[Array], None]:
        x, dy = some
        dy = jnp.pad(dy, ((0, 0), (0, shape.spare), (0, 0), (0, 0)))
        dy = dy.reshape(len(x), shape.tiles, -1, shape.width, features)
        rows = [dy[:, :, i] for i in range(dy.shape[2])]
        flows = _add(shape.sums.results.T, rows)
        return [
            products.add(
                total,
                _windows(pixels, taps, shape.width),
                flow.reshape(-1, features),
            )
            for total, pixels, flow in zip(totals, shape.pixels(x), flows, strict=True)
        ], None

    nothing = products.nothing(kernel, kernel.dtype)
    own, flows = (a.reshape(-1, shape.portion, *a.shape[1:]) for a in (x, dy))
    totals, _ = lax.scan(add, [nothing] * len(shape.sums.pixels), (own, flows))
    totals = [products.result(total) for total in totals]
    totals = [total.reshape(taps, inputs, features) for total in totals]
    return jnp.stack(_add(shape.sums.taps.T, totals))


class _Shape(NamedTuple):
    """How maps are cut into tiles.

    Attributes:
        sums: see ``Sums``.
        pad: pixels of zeros on each side.
        height: of the result, pixels.
        width: of the result, pixels.
        tiles: one below the other.
        portion: images taken at a time.
    """

    sums: Sums
    pad: int
    height: int
    width: int
    tiles: int
    portion: int

    @classmethod
    def of(cls, x: Maps, taps: int, pad: int) -> "_Shape":
        batch, height, width, inputs = x.shape
        height, width = (side + 2 * pad - taps + 1 for side in (height, width))
        own = sums(OUTPUTS[taps], taps)
        tiles = -(-height // OUTPUTS[taps])
        image = len(own.pixels) * tiles * width * inputs * x.dtype.itemsize
        portion = divide(batch, image, PORTION_BYTES)
        return cls(own, pad, height, width, tiles, portion)

    @property
    def spare(self) -> int:
        """Rows of results that the last tile has too many."""
        return self.tiles * len(self.sums.results) - self.height

    def pixels(self, x: Maps) -> list[Array]:
        """Return each sum of a tile's pixels, ``[B, tiles, W + 2 pad, I]``."""
        pad, step = self.pad, len(self.sums.results)
        x = jnp.pad(x, ((0, 0), (pad, pad + self.spare), (pad, pad), (0, 0)))
        reach = (self.tiles - 1) * step + 1
        rows = [
            lax.slice_in_dim(x, i, i + reach, step, axis=1)
            for i in range(len(self.sums.pixels))
        ]
        return _add(self.sums.pixels, rows)


def _add(weights: np.ndarray, parts: Sequence[Array] | Array) -> list[Array]:
    """Return, for each row of ``weights``, the sum of the parts times its numbers."""
    made = []
    for row in weights:
        terms = [
            part if weight == 1 else float(weight) * part
            for weight, part in zip(row, parts, strict=True)
            if weight
        ]
        made.append(reduce(jnp.add, terms))
    return made


def _windows(pixels: Array, taps: int, width: int) -> Array:
    """Return the windows along rows as a matrix, ``[windows, taps * I]``."""
    parts = [pixels[:, :, i : i + width] for i in range(taps)]
    return jnp.concatenate(parts, axis=-1).reshape(-1, taps * pixels.shape[-1])
