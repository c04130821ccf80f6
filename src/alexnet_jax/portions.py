"""Row after row on a few images at a time, so that on CPU they stay in the cache.

A norm or a pool does little arithmetic on much data: run over a whole batch, each of
its passes waits for main memory. Taken a few images at a time, a stretch of such rows
reads its input once and writes its output once. The way back does the rows again: that
is cheaper than to keep what they made. Other backends run the whole batch at once.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

Images = Float[Array, "batch ..."]
Made = Float[Array, "batch ..."]
Row = Callable[[Images], Made]
Rows = tuple[Row, ...]

PORTION_BYTES = 2 << 20
"""Input taken at a time: with what is made of it, it fits a core's cache."""


def in_portions(rows: Rows, x: Images) -> Made:
    """Return what the rows, one after the other, make of ``x``.

    Args:
        rows: functions without parameters, in which no image's output depends on
            another image.
        x: ``[B, ...]``.
    """
    # Chosen while tracing, for the two keep different things for the way back.
    known = isinstance(x.shape[0], int)  # an exported function may leave it open
    if jax.default_backend() != "cpu" or not known or _portion(x) == len(x):
        return reduce(lambda x, row: row(x), rows, x)
    return _run(x, rows)


def divide(images: int, image_bytes: int, budget: int) -> int:
    """Return how many images are taken at a time: a divisor of all of them.

    Args:
        images: of the batch.
        image_bytes: what one takes.
        budget: bytes that a portion may take; one image always may.
    """
    most = max(1, budget // image_bytes)
    return max(n for n in range(1, images + 1) if images % n == 0 and n <= most)


def _portion(x: Images) -> int:
    return divide(len(x), x.nbytes // len(x), PORTION_BYTES)


Tree = TypeVar("Tree")


def fold_portions(
    body: Callable[..., Tree], start: Tree, portion: int, *arrays: Images
) -> Tree:
    """Return what becomes of ``start`` when each portion is added to it in turn.

    Args:
        body: a function of what was so far and of the portion's images in each array.
        start: any tree of arrays.
        portion: see ``divide``.
        arrays: of as many images each.
    """
    return _each(lambda so_far, _, *some: body(so_far, *some), start, portion, *arrays)


def map_portions(
    body: Callable[..., Made], portion: int, *arrays: Images, over: bool = False
) -> Made:
    """Return what ``body`` makes of all images, ``portion`` of them at a time.

    Args:
        body: a function of the portion's images in each array.
        portion: see ``divide``.
        arrays: of as many images each.
        over: put each portion in the place of the first array's, of the same shape.
            The result needs no room of its own then, which XLA would fill with zeros.
    """

    def put(out: Array, first: Array, *some: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(out, body(*some), first, 0)

    start = arrays[0]
    if not over:
        parts = [jax.eval_shape(lambda a: a[:portion], a) for a in arrays]
        made = jax.eval_shape(body, *parts)
        shape = (len(start), *made.shape[1:])
        start = jnp.zeros_like(start, made.dtype, shape=shape)
    return _each(put, start, portion, *arrays)


def _each(
    body: Callable[..., Tree], start: Tree, portion: int, *arrays: Images
) -> Tree:
    """Fold over portions; ``body`` is told the number of the first image too."""

    def one(turn: Int[Array, ""], so_far: Tree) -> Tree:
        # Not arrays with an axis of portions: of a portion of one image XLA would make
        # a copy, for the axis of length one.
        first = turn * portion
        some = [lax.dynamic_slice_in_dim(a, first, portion) for a in arrays]
        return body(so_far, first, *some)

    return lax.fori_loop(0, len(arrays[0]) // portion, one, start)


def alone(function: Callable[..., Tree], *arrays: Array) -> Tree:
    """Return ``function(*arrays)``, any tree of arrays, from kernels of its own.

    XLA would fuse it with what comes after: into the copying of the result to its
    place, which it does with one thread, or into a pool, which would do a norm anew
    for each window. It does not fuse across the border of a branch; this one is always
    taken.
    """
    made = jax.eval_shape(function, *arrays)

    def never(*arrays: Array) -> Tree:
        def nothing(part: jax.ShapeDtypeStruct) -> Array:
            return jnp.zeros_like(arrays[0], part.dtype, shape=part.shape)

        return jax.tree.map(nothing, made)

    # What is behind a barrier XLA does not know until it has done with branches.
    always = lax.optimization_barrier(jnp.bool_(True))
    return lax.cond(always, function, never, *arrays)


def _pull(row: Row, x: Images, dy: Made) -> Images:
    return jax.vjp(row, x)[1](dy)[0]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _run(x: Images, rows: Rows) -> Made:
    def body(x: Images) -> Made:
        return reduce(lambda x, row: alone(row, x), rows, x)

    return map_portions(body, _portion(x), x)


def _forward(x: Images, rows: Rows):
    return _run(x, rows), x


def _backward(rows: Rows, x: Images, dy: Made):
    def body(x: Images, dy: Made) -> Images:
        inputs = [x]
        for row in rows[:-1]:
            inputs.append(alone(row, inputs[-1]))
        for row, own in zip(reversed(rows), reversed(inputs), strict=True):
            dy = alone(partial(_pull, row), own, dy)
        return dy

    return (map_portions(body, _portion(x), x, dy, over=True),)


_run.defvjp(_forward, _backward)
