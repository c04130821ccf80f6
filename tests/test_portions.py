"""Rows on a few images at a time against the same rows on all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from alexnet_jax import portions
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network
from alexnet_jax.normalization import response_norm, spatial_norm
from alexnet_jax.pooling import max_pool
from alexnet_jax.portions import alone, in_portions

IMAGE_BYTES = 7 * 7 * 4 * 4


def across(x):
    return response_norm(x, size=3, scale=0.3, beta=0.75, k=2.0)


def within(x):
    return spatial_norm(x, size=3, scale=0.2, beta=0.75, k=1.0)


def pool(x):
    return max_pool(x, 3, 2)


ROWS = (jax.nn.relu, across, within, pool)


def stretch(x):
    for row in ROWS:
        x = row(x)
    return x


def with_gradient(run, x):
    y, pull = jax.vjp(run, x)
    return y, pull(jnp.cos(9 * y))[0]


def maps(batch, dtype):
    return np.random.default_rng(batch).normal(size=(batch, 7, 7, 4)).astype(dtype)


@pytest.mark.parametrize(
    ("batch", "most", "taken"),
    [(6, 6, 6), (6, 4, 3), (7, 4, 1), (8, 4, 4), (4, 0, 1)],
)
def test_any_portions_give_the_same(monkeypatch, batch, most, taken):
    monkeypatch.setattr(portions, "PORTION_BYTES", most * IMAGE_BYTES)
    seen = []

    def watched(x):
        seen.append(len(x))
        return jax.nn.relu(x)

    x = maps(batch, np.float32)

    @jax.jit
    def both(x):
        parts = with_gradient(lambda x: in_portions((watched, *ROWS[1:]), x), x)
        return parts, with_gradient(stretch, x)

    parts, whole = both(x)
    for part, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-6, atol=1e-7)
    assert set(seen) == {taken}


def test_float64_stays(monkeypatch):
    monkeypatch.setattr(portions, "PORTION_BYTES", 4 * IMAGE_BYTES)  # two in float64
    with jax.enable_x64(True):
        x = jnp.asarray(maps(4, np.float64))
        parts = jax.jit(lambda x: with_gradient(lambda x: in_portions(ROWS, x), x))
        whole = jax.jit(lambda x: with_gradient(stretch, x))
        for part, expected in zip(parts(x), whole(x), strict=True):
            assert part.dtype == jnp.float64
            np.testing.assert_allclose(part, expected, rtol=1e-12)


def test_inside_shard_map_each_device_takes_portions_of_its_own(monkeypatch):
    monkeypatch.setattr(portions, "PORTION_BYTES", 2 * IMAGE_BYTES)
    mesh = make_mesh(network("digits"), devices=4, towers=2)
    x = maps(8, np.float32)

    @jax.jit
    def both(x):
        spec = P("data", None, None, "tower")  # four images, two maps on each
        shared = jax.shard_map(
            lambda x: with_gradient(lambda x: in_portions((jax.nn.relu, pool), x), x),
            mesh=mesh,
            in_specs=spec,
            out_specs=(spec, spec),
        )
        whole = jax.shard_map(
            lambda x: with_gradient(lambda x: pool(jax.nn.relu(x)), x),
            mesh=mesh,
            in_specs=spec,
            out_specs=(spec, spec),
        )
        return shared(x), whole(x)

    shared, whole = both(x)
    for part, expected in zip(shared, whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-6, atol=1e-7)


def test_other_backends_run_the_whole_batch(monkeypatch):
    monkeypatch.setattr(portions, "PORTION_BYTES", 0)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    traced = jax.make_jaxpr(lambda x: in_portions(ROWS, x))(maps(4, np.float32))
    assert "scan" not in str(traced)


def test_what_is_made_alone_is_the_same_and_is_not_fused_with_what_follows():
    def parts(x):
        return {"more": x + 1, "twice": [2 * x]}

    def run(x):
        made = alone(parts, x)
        return made["more"] * made["twice"][0]

    x = maps(2, np.float32)
    np.testing.assert_array_equal(jax.jit(run)(x), (x + 1) * (2 * x))
    program = jax.jit(run).lower(x).compile().as_text()
    assert program is not None
    assert program.count(" conditional(") == 1
