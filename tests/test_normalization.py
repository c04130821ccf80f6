"""The response normalisations against nested loops, and at their borders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from alexnet_jax.normalization import response_norm, spatial_norm
from alexnet_jax.table import ResponseNorm, SpatialNorm

CONSTANTS = [  # size, alpha, beta, k; alpha large enough to matter
    (5, 0.8, 0.75, 2.0),
    (9, 0.8, 0.75, 1.0),
    (5, 5.0, 0.5, 1.0),
]


def over_maps(x, towers, size, alpha, beta, k):
    """Divide by the squares of a map's neighbours in its tower, map by map."""
    width = x.shape[-1] // towers
    y = np.empty_like(x)
    for tower in range(towers):
        for own in range(width):
            total = 0.0
            for other in range(own - size // 2, own + size // 2 + 1):
                if 0 <= other < width:
                    total = total + x[..., tower * width + other] ** 2
            place = tower * width + own
            y[..., place] = x[..., place] / (k + alpha / size * total) ** beta
    return y


def over_square(x, size, alpha, beta, k):
    """Divide by the squares of a pixel's neighbours in its map, pixel by pixel."""
    _, height, width, _ = x.shape
    y = np.empty_like(x)
    for i, j in np.ndindex(height, width):
        total = 0.0
        for di in range(-(size // 2), size // 2 + 1):
            for dj in range(-(size // 2), size // 2 + 1):
                if 0 <= i + di < height and 0 <= j + dj < width:
                    total = total + x[:, i + di, j + dj] ** 2
        y[:, i, j] = x[:, i, j] / (k + alpha / size**2 * total) ** beta
    return y


def by_tower(x, towers, **constants):
    apart = x.reshape(*x.shape[:-1], towers, -1)
    return response_norm(apart, **constants).reshape(x.shape)


def maps(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape, scale=2.0)


@pytest.mark.parametrize("constants", CONSTANTS)
def test_the_norms_are_the_loops(constants):
    size, alpha, beta, k = constants
    x = maps(2, 6, 6, 14)

    @jax.jit
    def norms(x):
        common = {"size": size, "beta": beta, "k": k}
        return [
            response_norm(x, scale=alpha / size, **common),
            by_tower(x, 2, scale=alpha / size, **common),
            spatial_norm(x, scale=alpha / size**2, **common),
            spatial_norm(x.reshape(2, 6, 6, 2, 7), scale=alpha / size**2, **common),
        ]

    one, two, square, apart = norms(x.astype(np.float32))
    np.testing.assert_allclose(one, over_maps(x, 1, *constants), rtol=1e-5)
    np.testing.assert_allclose(two, over_maps(x, 2, *constants), rtol=1e-5)
    np.testing.assert_allclose(square, over_square(x, *constants), rtol=1e-5)
    np.testing.assert_array_equal(apart.reshape(x.shape), square)


def test_a_windows_neighbours_are_counted_once():
    # Ones everywhere. Five maps: 3, 4, 5, 4, 3 neighbours; k = 0 and beta = 1 / 2.
    constants = {"scale": 1.0, "beta": 0.5, "k": 0.0}
    norm = jax.jit(lambda x: response_norm(x, size=5, **constants))
    y = np.asarray(norm(jnp.ones((1, 1, 1, 5))))
    np.testing.assert_allclose(y[0, 0, 0] ** -2, [3, 4, 5, 4, 3], rtol=1e-6)
    # A square of 3 on 3 pixels: 4 neighbours at a corner, 6 at an edge, 9 within.
    norm = jax.jit(lambda x: spatial_norm(x, size=3, **constants))
    y = np.asarray(norm(jnp.ones((1, 3, 3, 1))))
    counts = [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    np.testing.assert_allclose(y[0, :, :, 0] ** -2, counts, rtol=1e-6)


def test_alpha_is_divided_by_the_window_unless_a_row_says_no():
    # The released code's: 1e-4 over five maps, 1e-3 over 5 x 5 pixels.
    assert ResponseNorm("norm1").scale == pytest.approx(2e-5, rel=1e-12)
    assert ResponseNorm("norm1", size=9, alpha=9e-3).scale == pytest.approx(1e-3)
    assert ResponseNorm("norm1", divide=False).scale == 1e-4  # the paper's text
    assert SpatialNorm("cnorm2").scale == pytest.approx(4e-5, rel=1e-12)


def test_a_tower_does_not_feel_the_other():
    x = maps(1, 2, 2, 12).astype(np.float32)
    louder = x * np.repeat(np.array([1, 100], np.float32), 6)

    @jax.jit(static_argnums=1)
    def norm(x, towers):
        return by_tower(x, towers, size=5, scale=0.2, beta=0.75, k=1.0)

    def felt(towers):
        apart = np.abs(np.asarray(norm(louder, towers)) - np.asarray(norm(x, towers)))
        return list(apart[..., :6].max((0, 1, 2)) > 1e-3)

    assert felt(2) == [False] * 6
    assert felt(1) == [False] * 4 + [True] * 2  # were they one, two maps would


def response(x):
    return by_tower(x, 2, size=5, scale=0.8 / 5, beta=0.75, k=2.0)


def response_root(x):
    return by_tower(x, 2, size=3, scale=0.8 / 3, beta=0.5, k=1.0)


def spatial(x):
    return spatial_norm(x, size=5, scale=3.0 / 25, beta=0.75, k=1.0)


@pytest.mark.parametrize("norm", [response_root, spatial])
def test_gradients_in_float64_are_those_of_small_steps(norm):
    with jax.enable_x64(True):
        x = jnp.asarray(maps(1, 4, 4, 6, seed=1))
        assert jax.eval_shape(norm, x).dtype == jnp.float64
        check_grads(
            jax.jit(lambda x: norm(x) ** 2),
            (x,),
            order=1,
            modes=["rev"],
            atol=1e-7,
            rtol=1e-7,
        )


@pytest.mark.parametrize("norm", [response, spatial])
def test_bfloat16_is_rounded_once_at_the_end(norm):
    @jax.jit
    def run(x):
        y, pull = jax.vjp(norm, x)
        return y, *pull(jnp.ones_like(y))

    x = jnp.asarray(maps(4, 8, 8, 12), jnp.bfloat16)
    y, dx = run(x)
    assert y.dtype == dx.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    if norm is response:
        exact = over_maps(exact, 2, 5, 0.8, 0.75, 2.0)
    else:
        exact = over_square(exact, 5, 3.0, 0.75, 1.0)
    rounded = jnp.asarray(exact, jnp.bfloat16)
    # Sums in bfloat16 would round otherwise in half the places.
    assert np.mean(np.asarray(y != rounded)) < 0.01
    _, wide = run(x.astype(jnp.float32))
    assert np.mean(np.asarray(dx != wide.astype(jnp.bfloat16))) < 0.01


def test_squares_of_small_values_are_not_lost():
    # 1 + 2^-9 is 1 in bfloat16: each map's share alone would vanish beside k.
    x = jnp.full((1, 1, 1, 5), 2.0, jnp.bfloat16)
    scale = 2.0**-9 / 4  # every neighbour adds 2^-9

    @jax.jit
    def norm(x):
        return response_norm(x, size=5, scale=scale, beta=4.0, k=1.0)

    y = norm(x)
    # 5 neighbours in the middle: 2 / (1 + 5 / 512)^4 = 1.924, not 2.
    assert abs(float(y[0, 0, 0, 2]) - 1.924) < 2**-8
