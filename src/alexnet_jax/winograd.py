"""Convolution with fewer multiplications: Winograd's minimal filtering.

A picture is cut into tiles that overlap. Along one axis, ``outputs`` results of a
filter with ``taps`` taps need only ``outputs + taps - 1`` products, between a few sums
of the tile's pixels and a few sums of the taps. For 3 x 3 windows both axes are done
so: a tile has 4 x 2 results, and what remains is a matrix product for each of its 6 x 4
sums, with 3 times fewer multiplications. For 5 x 5 only columns are, 3 results at a
time: along rows the windows stay, a convolution with windows one pixel high for each of
7 sums, with 2.1 times fewer (both axes would lose precision and gain no time). Only
CPUs gain by it, where multiplications are what a convolution waits for. Results are
within about 4e-6 of the largest of those of a plain convolution in float32.

Source: Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks* (2015);
Winograd, *Arithmetic Complexity of Computations* (1980).
"""

from collections.abc import Sequence
from functools import cache, partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.patches import Products
from alexnet_jax.portions import alone, divide, fold_portions, map_portions

Maps = Float[Array, "batch height width inputs"]
Kernel = Float[Array, "taps taps inputs outputs"]
Out = Float[Array, "batch out_height out_width outputs"]

Sheaf = list[list[Array]]
"""An array for each product, by its place in a tile: down, then across."""

OUTPUTS = {3: (4, 2), 5: (3, 1)}
"""Results of a tile along columns and along rows, by taps; one means that windows stay.
More would cost more sums than they save products, and precision."""

PORTION_BYTES = 3 << 19
"""Sums of pixels made at a time, with what is made of them about what caches hold."""

MIN_CHANNELS = 32
"""With fewer, in or out, the sums take longer than the products they save."""

MIN_IMAGES = 8
"""With fewer, less is gained in a thousand calls than compiling the sums costs once."""

POINTS = (0, 1, -1, 2, -2, 0.5)
"""Where the filter's and the tile's polynomials are multiplied, and at infinity: small
numbers and their inverses, so that little precision is lost."""


def pays(kernel: Kernel | jax.ShapeDtypeStruct, images: int) -> bool:
    """Tell whether a convolution can be done so, and gains by it on CPU.

    Args:
        kernel: ``[k, k, I, O]``, of any dtype; only float32 gains.
        images: in a batch.
    """
    taps, _, inputs, features = kernel.shape
    return (
        taps in OUTPUTS
        and images >= MIN_IMAGES
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


WINDOWS = Sums(np.eye(1), np.eye(1), np.eye(1))
"""Nothing is added up: windows stay as they are."""


@partial(jax.jit, static_argnums=2)  # traced once where it is used twice
def conv(x: Maps, kernel: Kernel, pad: int) -> Out:
    """Convolve with stride 1 and zero padding.

    Args:
        x: ``f32[B, H, W, I]``.
        kernel: ``f32[k, k, I, O]``; see ``pays``.
        pad: pixels of zeros on each side.

    Returns:
        ``f32[B, H + 2 pad - k + 1, W + 2 pad - k + 1, O]``.
    """
    tiles = _Tiles.of(x, kernel, pad)
    filters = tiles.filters(kernel)

    def some(x: Maps) -> Out:
        return tiles.joined(
            [
                [_slide(pixels, taps) for pixels, taps in zip(*pair, strict=True)]
                for pair in zip(tiles.pixels(x), filters, strict=True)
            ]
        )

    return map_portions(some, tiles.portion, x)


@partial(jax.jit, static_argnums=3)
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
    tiles = _Tiles.of(x, kernel, pad)
    _, _, inputs, features = kernel.shape
    products = Products(tiles.window * inputs, features)

    def add(totals: Sheaf, x: Maps, dy: Out) -> Sheaf:
        return [
            [
                products.add(
                    total, _windows(pixels, tiles.window), flow.reshape(-1, features)
                )
                for total, pixels, flow in zip(*triple, strict=True)
            ]
            for triple in zip(totals, tiles.pixels(x), tiles.apart(dy), strict=True)
        ]

    nothing = products.nothing(kernel, kernel.dtype)
    down, across = (len(axis.pixels) for axis in tiles.sums)
    totals = fold_portions(add, [[nothing] * across] * down, tiles.portion, x, dy)
    return tiles.kernel(
        [
            [
                products.result(total).reshape(tiles.window, inputs, features)
                for total in line
            ]
            for line in totals
        ]
    )


class _Tiles(NamedTuple):
    """How maps are cut into tiles, and what is added up of them.

    Lines are made before what is made of a line: fused, XLA would make each line anew
    for every sum across it, and compile a program of its own for each sum of each line.

    Attributes:
        sums: down a column and across a row.
        window: pixels along rows that a product still slides over.
        pad: pixels of zeros on each side.
        side: of the result, pixels, down and across.
        grid: tiles, down and across.
        portion: images taken at a time.
    """

    sums: tuple[Sums, Sums]
    window: int
    pad: int
    side: tuple[int, int]
    grid: tuple[int, int]
    portion: int

    @classmethod
    def of(cls, x: Maps, kernel: Kernel, pad: int) -> "_Tiles":
        batch, *side, inputs = x.shape
        taps, outputs = len(kernel), OUTPUTS[len(kernel)]
        down, across = (sums(n, taps) if n > 1 else WINDOWS for n in outputs)
        window = taps if across is WINDOWS else 1
        height, width = (n + 2 * pad - taps + 1 for n in side)
        grid = -(-height // outputs[0]), -(-width // outputs[1])
        products = len(down.pixels) * len(across.pixels)
        image = products * grid[0] * (grid[1] + window - 1) * inputs * 4
        # With few images at a time most of it would be to read the filters anew.
        filters = products * window * inputs * kernel.shape[-1] * 4
        portion = divide(batch, image, max(PORTION_BYTES, filters + filters // 4))
        return cls((down, across), window, pad, (height, width), grid, portion)

    def filters(self, kernel: Kernel) -> Sheaf:
        """Return each sum of a kernel's taps, ``[window, I, O]``."""
        down, across = self.sums
        return [
            _add(across.taps, jnp.split(line, across.taps.shape[1]))
            for line in alone(partial(_add, down.taps), kernel)
        ]

    def kernel(self, totals: Sheaf) -> Kernel:
        """Return a kernel's gradient of those of ``filters``."""
        down, across = self.sums
        lines = [jnp.concatenate(_add(across.taps.T, line)) for line in totals]
        return jnp.stack(_add(down.taps.T, lines))

    def pixels(self, x: Maps) -> Sheaf:
        """Return each sum of a tile's pixels, ``[B, down, across + window - 1, I]``."""
        zeros = [(self.pad, self.pad + self._spare(axis)) for axis in (0, 1)]

        def lines(x: Maps) -> list[Array]:
            return self._along(jnp.pad(x, ((0, 0), *zeros, (0, 0))), 0)

        return [self._along(line, 1) for line in alone(lines, x)]

    def _along(self, x: Array, axis: int) -> list[Array]:
        weights, step = self.sums[axis].pixels, len(self.sums[axis].results)
        reach = (self.grid[axis] - 1) * step + 1
        reach += self.window - 1 if axis == 1 else 0
        parts = [
            lax.slice_in_dim(x, i, i + reach, step, axis=axis + 1)
            for i in range(len(weights))
        ]
        return _add(weights, parts)

    def joined(self, products: Sheaf) -> Out:
        """Return all tiles' results, of their products ``[B, down, across, O]``."""
        down, across = self.sums
        lines = [_add(across.results, line) for line in products]
        columns = [_add(down.results, column) for column in zip(*lines, strict=True)]
        rows = [jnp.stack(row, axis=3) for row in zip(*columns, strict=True)]
        whole = jnp.stack(rows, axis=2)
        (height, width), features = self.side, whole.shape[-1]
        whole = whole.reshape(len(whole), self._whole(0), self._whole(1), features)
        return whole[:, :height, :width]

    def apart(self, dy: Out) -> Sheaf:
        """Return the gradient of ``joined``: of each product, for that of results."""
        down, across = self.sums
        spare = [(0, self._spare(axis)) for axis in (0, 1)]

        def lines(dy: Out) -> list[Array]:
            dy = jnp.pad(dy, ((0, 0), *spare, (0, 0)))
            dy = dy.reshape(
                len(dy),
                *(self.grid[0], len(down.results)),
                *(self.grid[1], len(across.results)),
                -1,
            )
            rows = [dy[:, :, i] for i in range(len(down.results))]
            return _add(down.results.T, rows)

        columns = range(len(across.results))
        return [
            _add(across.results.T, [line[:, :, :, i] for i in columns])
            for line in alone(lines, dy)
        ]

    def _whole(self, axis: int) -> int:
        """Return the pixels of all tiles' results."""
        return self.grid[axis] * len(self.sums[axis].results)

    def _spare(self, axis: int) -> int:
        """Return how many of them the last tile has too many."""
        return self._whole(axis) - self.side[axis]


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


def _slide(pixels: Array, taps: Array) -> Array:
    """Return the products with windows along rows, ``[B, down, across, O]``."""
    if len(taps) == 1:
        return pixels @ taps[0]
    return lax.conv_general_dilated(
        pixels,
        taps[None],
        (1, 1),
        ((0, 0), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _windows(pixels: Array, window: int) -> Array:
    """Return the windows along rows as a matrix, ``[windows, window * I]``."""
    width = pixels.shape[2] - window + 1
    parts = [pixels[:, :, i : i + width] for i in range(window)]
    return jnp.concatenate(parts, axis=-1).reshape(-1, window * pixels.shape[-1])
