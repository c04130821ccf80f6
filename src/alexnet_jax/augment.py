"""Crops, mirror images, colour noise and ten views: on the device, inside the step.

Draws are made in global shapes, addressed by (seed, purpose, step), and handed to the
body, so a picture is cut alike on any mesh. Source: paper section 4.1 and the data
providers of the released 2012 code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from alexnet_jax.config import AugmentConfig

NOISE_SCALE = 1.1
"""Pictures with colour noise are divided by 1 + 0.1, as the 2012 provider does."""


class Preprocess(NamedTuple):
    """What a network needs to know of the pictures it was trained on.

    Attributes:
        mean: ``f32[S, S, C]``, the mean image at the stored size.
        components: ``f32[C, C]``, column i the i-th principal component of colour
            times the standard deviation along it.
        scale: ``f32[C]``, what a colour is multiplied by once the mean is subtracted:
            1 in 2012; imported weights may ask for another.
    """

    mean: Array | np.ndarray
    components: Array | np.ndarray
    scale: Array | np.ndarray


class Draws(NamedTuple):
    """The random choices for one batch.

    Attributes:
        corner: ``i32[B, 2]``, top and left of the crop.
        flip: ``bool[B]``.
        noise: ``f32[B, C]``, what is added to each colour; 0 where it is off.
        scale: ``f32[]``, what the picture is divided by.
    """

    corner: Int[Array, "batch 2"]
    flip: Bool[Array, " batch"]
    noise: Float[Array, "batch colours"]
    scale: Float[Array, ""]


def preprocess(mean: np.ndarray, covariance: np.ndarray) -> Preprocess:
    """Derive what the body needs from a training set's statistics.

    Args:
        mean: ``f32[S, S, C]``.
        covariance: ``f64[C, C]`` of the colours.
    """
    variances, vectors = np.linalg.eigh(covariance)
    deviations = np.sqrt(np.maximum(variances, 0))
    return Preprocess(
        mean=np.asarray(mean, np.float32),
        components=(vectors * deviations).astype(np.float32),
        scale=np.ones(mean.shape[-1], np.float32),
    )


def draw(
    key: Array,
    config: AugmentConfig,
    *,
    batch: int,
    border: int,
    components: Float[Array, "colours colours"],
    noise_on: Bool[Array, ""],
) -> Draws:
    """Draw a batch's choices; a pure function of ``key``.

    Args:
        key: addressed by (seed, "augment", step).
        config: what is to be done.
        batch: images in the global batch.
        border: stored side less the network's input side, pixels. A crop starts
            anywhere from 0 to ``border``: 33 places an axis for 256 and 224.
        components: see ``Preprocess``.
        noise_on: False from the moment the schedule turns colour noise off; the
            division by 1.1 ends with it.
    """
    corner_key, flip_key, noise_key = jax.random.split(key, 3)
    if config.crop:
        corner = jax.random.randint(corner_key, (batch, 2), 0, border + 1)
    else:
        corner = jnp.full((batch, 2), border // 2)
    if config.flip:
        flip = jax.random.bernoulli(flip_key, 0.5, (batch,))
    else:
        flip = jnp.zeros((batch,), bool)
    colours = components.shape[0]
    if config.colour_noise:
        strength = jnp.where(noise_on, jnp.float32(config.colour_noise), 0.0)
        noise = jax.random.normal(noise_key, (batch, colours)) @ components.T * strength
        scale = jnp.where(noise_on, jnp.float32(NOISE_SCALE), 1.0)
    else:
        noise, scale = jnp.zeros((batch, colours)), jnp.float32(1)
    return Draws(corner, flip, noise, scale)


def centre(images: Array, size: int) -> Array:
    """Cut the centre ``size`` x ``size`` pixels out of ``[..., S, S, C]``."""
    start = (images.shape[-2] - size) // 2
    return images[..., start : start + size, start : start + size, :]


def training_view(
    images: UInt8[Array, "batch stored stored colours"],
    draws: Draws,
    prepare: Preprocess,
    size: int,
) -> Float[Array, "batch size size colours"]:
    """Cut, mirror, centre and colour a batch.

    The centre of the mean image is subtracted wherever the crop lies, as in 2012.

    Args:
        images: ``u8[B, S, S, C]``.
        draws: this batch's choices.
        prepare: mean image and scale.
        size: side of the network's input, pixels.
    """
    colours = images.shape[-1]

    def cut(image: Array, corner: Array) -> Array:
        top, left = corner
        return lax.dynamic_slice(image, (top, left, 0), (size, size, colours))

    if images.shape[1] > size:
        images = jax.vmap(cut)(images, draws.corner)
    images = jnp.where(draws.flip[:, None, None, None], images[:, :, ::-1], images)
    x = images.astype(jnp.float32) - centre(jnp.asarray(prepare.mean), size)
    return (x + draws.noise[:, None, None, :]) / draws.scale * prepare.scale


def evaluation_views(
    images: UInt8[Array, "batch stored stored colours"],
    prepare: Preprocess,
    size: int,
    views: int,
) -> Float[Array, "views batch size size colours"]:
    """Return the centre view, or the ten of section 4.1.

    Ten views, in order: the crops at the top left, top right, bottom left, bottom
    right and the centre, then their mirror images in the same order.

    Args:
        images: ``u8[B, S, S, C]``.
        prepare: mean image, whose centre is subtracted from every view, and scale.
        size: side of the network's input, pixels.
        views: 1 or 10.
    """
    stored = images.shape[1]
    end, middle = stored - size, (stored - size) // 2
    corners = [(middle, middle)]
    if views == 10:
        corners = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]
    crops = [images[:, y : y + size, x : x + size] for y, x in corners]
    if views == 10:
        crops += [crop[:, :, ::-1] for crop in crops]
    x = jnp.stack(crops).astype(jnp.float32) - centre(jnp.asarray(prepare.mean), size)
    return x * prepare.scale
