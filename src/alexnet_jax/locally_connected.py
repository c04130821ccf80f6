"""The locally connected layer: a convolution whose kernels are not shared.

cuda-convnet's ``local``: every place of the output has weights and biases of its own
(conv-local-11pct and conv-local-13pct).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from alexnet_jax.table import conv_size

Maps = Float[Array, "batch height width inputs"]
Kernels = Float[Array, "out_height out_width size size inputs outputs"]
Out = Float[Array, "batch out_height out_width outputs"]


def local(x: Maps, kernels: Kernels, stride: int, pad: int) -> Out:
    """Weigh each window with the kernel of its place.

    Args:
        x: ``[B, H, H, I]``.
        kernels: ``[H', H', k, k, I, O]``, of the same dtype.
        stride: pixels from one window to the next.
        pad: pixels of zeros on each side; a last window may hang over further.
    """
    out, _, window, _, inputs, outputs = kernels.shape
    assert out == conv_size(x.shape[1], window, stride, pad)
    reach = (out - 1) * stride + 1
    high = max(0, reach - 1 + window - pad - x.shape[1])
    x = jnp.pad(x, ((0, 0), (pad, high), (pad, high), (0, 0)))
    patches = jnp.concatenate(
        [
            x[:, i : i + reach : stride, j : j + reach : stride]
            for i in range(window)
            for j in range(window)
        ],
        axis=-1,
    )
    kernels = kernels.reshape(out, out, window**2 * inputs, outputs)
    return jnp.einsum("bhwp,hwpo->bhwo", patches, kernels)
