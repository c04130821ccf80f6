"""The locally connected layer against a loop over places, and by small steps."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from alexnet_jax.locally_connected import local


def arrays(dtype: type = np.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 5, 3)).astype(dtype)
    return x, rng.normal(size=(3, 3, 3, 3, 3, 4)).astype(dtype)


def test_each_place_has_a_kernel_of_its_own():
    x, kernels = arrays()
    y = jax.jit(lambda x, k: local(x, k, 2, 1))(x, kernels)
    wanted = np.zeros((2, 3, 3, 4))
    for i, j, di, dj in np.ndindex(3, 3, 3, 3):
        row, column = 2 * i + di - 1, 2 * j + dj - 1
        if 0 <= row < 5 and 0 <= column < 5:
            wanted[:, i, j] += x[:, row, column] @ kernels[i, j, di, dj]
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_in_float64_are_those_of_small_steps():
    with jax.enable_x64(True):
        x, kernels = map(jnp.asarray, arrays(np.float64))
        assert local(x, kernels, 2, 1).dtype == jnp.float64
        run = jax.jit(lambda x, k: local(x, k, 2, 1) ** 2)
        check_grads(run, (x, kernels), 1, ["rev"], atol=1e-7, rtol=1e-7)
