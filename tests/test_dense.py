"""The product of fully connected layers and its gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from alexnet_jax.dense import product


def arrays(dtype: type = np.float32):
    rng = np.random.default_rng(0)
    shapes = (6, 40), (40, 24), (6, 24)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def gradients(x, kernel, dy):
    return jax.vjp(product, x, kernel)[1](dy)


def test_gradients_are_the_products_of_the_chain_rule():
    x, kernel, dy = arrays()
    dx, dkernel = jax.jit(gradients)(x, kernel, dy)
    wide, weights, flow = (a.astype(np.float64) for a in (x, kernel, dy))
    np.testing.assert_allclose(dx, flow @ weights.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, wide.T @ flow, rtol=1e-5, atol=1e-5)


def test_gradients_in_float64_are_those_of_small_steps():
    with jax.enable_x64(True):
        x, kernel, _ = map(jnp.asarray, arrays(np.float64))
        run = jax.jit(lambda x, kernel: product(x, kernel) ** 2)
        check_grads(run, (x, kernel), 1, ["rev"], atol=1e-7, rtol=1e-7)


def test_narrow_factors_have_narrow_gradients():
    x, kernel, dy = (jnp.asarray(a, jnp.bfloat16) for a in arrays())
    assert [a.dtype for a in jax.jit(gradients)(x, kernel, dy)] == ["bfloat16"] * 2


def test_on_cpu_the_kernel_stays_the_first_factor_of_the_units_gradient():
    program = jax.jit(gradients).lower(*arrays()).compile().as_text() or ""
    assert re.search(r"f32\[40,6\]\S* dot\(", program)
    assert not re.search(r"f32\[6,40\]\S* dot\(", program)
