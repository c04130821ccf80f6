"""Pools against loops over windows, and the 2012 rule for gradients at ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from alexnet_jax.pooling import avg_pool, max_pool

WINDOWS = [(3, 2), (2, 2), (3, 1), (2, 3), (5, 2)]  # size and stride; first the paper's


def sides(size, stride):
    """Return sides; on none does a window start behind the picture, as 2 / 3 can."""
    few = {(3, 2): range(5, 14), (2, 3): (5, 7, 8, 13)}
    return list(few.get((size, stride), (5, 6, 8, 13)))


def spans(side, size, stride):
    """Return each window's first pixel and the one behind its last inside."""
    starts = [0]
    while starts[-1] + size < side:
        starts.append(starts[-1] + stride)
    return [(start, min(start + size, side)) for start in starts]


def loop(x, size, stride, reduce):
    spanned = spans(x.shape[1], size, stride)
    return np.stack(
        [
            np.stack([reduce(x[:, a:b, c:d], axis=(1, 2)) for c, d in spanned], 1)
            for a, b in spanned
        ],
        1,
    )


def max_gradient(x, dy, size, stride):
    """Give each window's gradient to every pixel that equals its maximum."""
    dx = np.zeros_like(x)
    spanned = spans(x.shape[1], size, stride)
    for i, (a, b) in enumerate(spanned):
        for j, (c, d) in enumerate(spanned):
            best = x[:, a:b, c:d].max(axis=(1, 2), keepdims=True)
            dx[:, a:b, c:d] += (x[:, a:b, c:d] == best) * dy[:, i : i + 1, j : j + 1]
    return dx


def picture(rows):
    return jnp.asarray(rows, jnp.float32)[None, :, :, None]


@jax.jit(static_argnums=0)
def pull(pool, x, dy):
    return jax.vjp(pool, x)[1](dy)[0]


def paper_max(x):
    return max_pool(x, 3, 2)


def paper_avg(x):
    return avg_pool(x, 3, 2)


@pytest.mark.parametrize(("size", "stride"), WINDOWS)
def test_forward_takes_each_window_inside_the_picture(size, stride):
    rng = np.random.default_rng(size)
    # All negative: a pixel of padding read as zero would win or dilute.
    xs = [-1 - rng.random((2, n, n, 3), np.float32) for n in sides(size, stride)]

    @jax.jit
    def pools(xs):
        largest = [max_pool(x, size, stride) for x in xs]
        return largest, [avg_pool(x, size, stride) for x in xs[:3]]

    largest, means = pools(xs)
    for x, y in zip(xs, largest, strict=True):
        np.testing.assert_array_equal(y, loop(x, size, stride, np.max))
    for x, y in zip(xs[:3], means, strict=True):
        np.testing.assert_allclose(y, loop(x, size, stride, np.mean), rtol=1e-6)


def test_every_maximum_gets_the_whole_gradient():
    dy = picture([[1, 10], [100, 1000]])
    level = jnp.full((1, 5, 5, 1), -1.0)
    np.testing.assert_array_equal(
        pull(paper_max, level, dy)[0, :, :, 0],
        [
            [1, 1, 11, 10, 10],
            [1, 1, 11, 10, 10],
            [101, 101, 1111, 1010, 1010],
            [100, 100, 1100, 1000, 1000],
            [100, 100, 1100, 1000, 1000],
        ],
    )
    # Four pixels: the second windows hang over by one.
    np.testing.assert_array_equal(
        pull(paper_max, level[:, :4, :4], dy)[0, :, :, 0],
        [
            [1, 1, 11, 10],
            [1, 1, 11, 10],
            [101, 101, 1111, 1010],
            [100, 100, 1100, 1000],
        ],
    )


def test_some_maxima_by_hand():
    x = picture([[1, 7, 0], [7, 2, 0], [0, 0, 3]])
    dy = picture([[5]])
    np.testing.assert_array_equal(
        pull(paper_max, x, dy)[0, :, :, 0],
        [[0, 5, 0], [5, 0, 0], [0, 0, 0]],
    )


@pytest.mark.parametrize(("size", "stride"), WINDOWS)
def test_the_gradient_of_ties_is_the_loops(size, stride):
    rng = np.random.default_rng(size)
    xs, dys = [], []
    for side in sides(size, stride)[:3]:
        xs.append(rng.integers(0, 3, (2, side, side, 3)).astype(np.float32))
        y = loop(xs[-1], size, stride, np.max)
        dys.append(rng.integers(-9, 9, y.shape).astype(np.float32))

    @jax.jit
    def pulls(xs, dys):
        return [
            jax.vjp(lambda x: max_pool(x, size, stride), x)[1](dy)[0]
            for x, dy in zip(xs, dys, strict=True)
        ]

    for x, dy, dx in zip(xs, dys, pulls(xs, dys), strict=True):
        np.testing.assert_array_equal(dx, max_gradient(x, dy, size, stride))


def test_without_ties_the_gradient_is_xlas():
    def xla(x):
        pad = ((0, 0), (0, 1), (0, 1), (0, 0))  # the last window hangs over by one
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pad)

    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 8, 8, 3)), rng.normal(size=(2, 4, 4, 3))
    np.testing.assert_allclose(
        pull(paper_max, x.astype(np.float32), dy.astype(np.float32)),
        pull(xla, x.astype(np.float32), dy.astype(np.float32)),
        rtol=1e-6,
    )


def test_an_average_counts_only_pixels_inside_the_picture():
    # Windows of 3, 2 apart, on 4 pixels: 9, 6, 6 and 4 pixels lie inside.
    dy = picture([[9, 60], [600, 4000]])
    np.testing.assert_allclose(
        pull(paper_avg, jnp.zeros((1, 4, 4, 1)), dy)[0, :, :, 0],
        [
            [1, 1, 11, 10],
            [1, 1, 11, 10],
            [101, 101, 1111, 1010],
            [100, 100, 1100, 1000],
        ],
    )


@pytest.mark.parametrize("case", [(6, 3, 2), (5, 2, 3)])
@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_gradients_in_float64_are_those_of_small_steps(pool, case):
    side, size, stride = case
    with jax.enable_x64(True):
        # All pixels at least 0.1 apart: no step changes which is the largest.
        order = np.random.default_rng(0).permutation(side * side * 2)
        x = jnp.asarray(order.reshape(1, side, side, 2) / 10, jnp.float64)
        check_grads(
            jax.jit(lambda x: pool(x, size, stride) ** 2),
            (x,),
            order=1,
            modes=["rev"],
            atol=1e-7,
            rtol=1e-7,
        )


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_towers_may_have_an_axis_of_their_own(pool):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (2, 6, 6, 10)).astype(np.float32)  # with ties
    dy = rng.normal(size=(2, 3, 3, 10)).astype(np.float32)

    @jax.jit
    def run(x, dy):
        y, pull = jax.vjp(lambda x: pool(x, 3, 2), x)
        return y, pull(dy)[0]

    apart = run(x.reshape(2, 6, 6, 2, 5), dy.reshape(2, 3, 3, 2, 5))
    for one, other in zip(run(x, dy), apart, strict=True):
        np.testing.assert_array_equal(one, other.reshape(one.shape))


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_bfloat16_stays(pool):
    def run(x):
        y, pull = jax.vjp(lambda x: pool(x, 3, 2), x)
        return y, *pull(y)

    shapes = jax.eval_shape(run, jax.ShapeDtypeStruct((2, 6, 6, 3), jnp.bfloat16))
    assert [shape.dtype for shape in shapes] == [jnp.bfloat16, jnp.bfloat16]
