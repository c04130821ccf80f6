"""Crops, flips, colour noise and ten views against slices and sums in NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import augment
from alexnet_jax.augment import Draws
from alexnet_jax.config import AugmentConfig
from alexnet_jax.steps import Purpose, address

HandWritten: Any = Draws  # of NumPy arrays

ON, OFF = np.bool_(True), np.bool_(False)
STORED, SIZE = 12, 8


def pictures(count, side=STORED, colours=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, colours), np.uint8)


def mean_image(side=STORED, colours=3):
    return np.random.default_rng(9).uniform(0, 255, (side, side, colours)).astype("f4")


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def jitted_draw(key, config, batch, border, components, noise_on):
    return augment.draw(
        key,
        config,
        batch=batch,
        border=border,
        components=components,
        noise_on=noise_on,
    )


def draw(
    key: Any = 0,
    batch=64,
    border=STORED - SIZE,
    noise_on: Any = ON,
    components=None,
    **config,
):
    if not hasattr(key, "dtype"):
        key = jax.random.key(key)
    components = np.eye(3, dtype="f4") if components is None else components
    return jax.device_get(
        jitted_draw(key, AugmentConfig(**config), batch, border, components, noise_on)
    )


def plain(count, corner=(2, 2), flip=False, noise=0.0, scale=1.0, colours=3):
    """Draws written by hand."""
    return HandWritten(
        corner=np.tile(np.asarray(corner, "i4"), (count, 1)),
        flip=np.full(count, flip),
        noise=np.full((count, colours), noise, "f4"),
        scale=np.float32(scale),
    )


@functools.partial(jax.jit, static_argnums=(3,))
def training_view(images, draws, prepare, size):
    return augment.training_view(images, draws, prepare, size)


def prepared(mean, scale=1.0):
    colours = mean.shape[-1]
    scales = np.full(colours, scale, "f4")
    return augment.Preprocess(mean, np.eye(colours, dtype="f4"), scales)


def view(images, draws, mean, scale=1.0):
    return np.asarray(training_view(images, draws, prepared(mean, scale), SIZE))


@functools.partial(jax.jit, static_argnums=(2, 3))
def jitted_views(images, prepare, size, views):
    return augment.evaluation_views(images, prepare, size, views)


def eval_views(images, mean, size, views, scale=1.0):
    return np.asarray(jitted_views(images, prepared(mean, scale), size, views))


# Training views.


@pytest.mark.parametrize("colours", [1, 3])
def test_a_training_view_is_a_slice_mirrored_less_the_centre_of_the_mean(colours):
    images, mean = pictures(40, colours=colours), mean_image(colours=colours)
    draws = draw(batch=40, components=np.eye(colours, dtype="f4"))
    seen = view(images, draws, mean)
    assert seen.shape == (40, SIZE, SIZE, colours)
    assert {True, False} == set(draws.flip.tolist())
    assert len({tuple(corner) for corner in draws.corner.tolist()}) > 5
    for image, got, (y, x), flip in zip(
        images, seen, draws.corner, draws.flip, strict=True
    ):
        wanted = image[y : y + SIZE, x : x + SIZE].astype("f4")
        wanted = wanted[:, ::-1] if flip else wanted
        # Wherever the crop lies, the same 8 x 8 in the middle of the mean goes.
        np.testing.assert_array_equal(got, wanted - mean[2:10, 2:10])


def test_noise_is_one_colour_a_picture_and_comes_before_the_division():
    images, mean = pictures(2), mean_image()
    noise = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -8.0]], "f4")
    draws = plain(2)._replace(noise=noise, scale=np.float32(1.1))
    seen = view(images, draws, mean)
    for n in range(2):
        crop = images[n, 2:10, 2:10].astype("f4")
        wanted = (crop - mean[2:10, 2:10] + noise[n]) / np.float32(1.1)
        np.testing.assert_allclose(seen[n], wanted, rtol=1e-6, atol=1e-4)


def test_the_scale_comes_last_in_training_and_in_testing():
    images, mean = pictures(2), mean_image()
    draws = plain(2, noise=3.0, scale=1.1)
    wanted = view(images, draws, mean) * np.float32(0.25)
    np.testing.assert_array_equal(view(images, draws, mean, scale=0.25), wanted)
    wanted = eval_views(images, mean, SIZE, 10) * np.float32(0.25)
    found = eval_views(images, mean, SIZE, 10, scale=0.25)
    np.testing.assert_array_equal(found, wanted)


def test_without_a_border_the_picture_is_taken_whole():
    images, mean = pictures(3, side=SIZE), mean_image(side=SIZE)
    draws = draw(batch=3, border=0, flip=False)
    assert not draws.corner.any()
    np.testing.assert_array_equal(view(images, draws, mean), images - mean)


# Draws.


def test_a_crop_starts_anywhere_from_edge_to_edge():
    corner = draw(batch=20_000, border=32).corner  # 256 - 224
    for axis in (0, 1):
        starts, counts = np.unique(corner[:, axis], return_counts=True)
        assert starts.tolist() == list(range(33))  # both ends included
        expected = len(corner) / 33
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert abs(np.corrcoef(corner.T.astype("f8"))[0, 1]) < 0.03  # one axis from another


def test_half_of_the_pictures_are_mirrored():
    flips = draw(batch=20_000, border=32).flip
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / np.sqrt(20_000)


def test_what_is_off_is_not_drawn():
    draws = draw(batch=5, border=7, crop=False, flip=False)
    assert draws.corner.tolist() == [[3, 3]] * 5  # 7 // 2
    assert not draws.flip.any()
    assert not draws.noise.any()
    assert float(draws.scale) == 1.0


COVARIANCE = np.array([[900.0, 300.0, 200.0], [300.0, 700.0, 250.0], [200, 250, 1100]])


def components():
    return augment.preprocess(np.zeros((4, 4, 3)), COVARIANCE).components


def test_components_are_a_square_root_of_the_covariance():
    root = np.asarray(components(), np.float64)
    np.testing.assert_allclose(root @ root.T, COVARIANCE, rtol=1e-5)
    # Principal: the columns are orthogonal to each other.
    gram = root.T @ root
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-2)
    np.testing.assert_allclose(
        sorted(np.diag(gram)), np.linalg.eigvalsh(COVARIANCE), rtol=1e-5
    )


def test_colours_that_never_vary_get_no_noise():
    covariance = np.full((3, 3), 400.0)  # grey pictures: one eigenvalue, two of ~0
    root = augment.preprocess(np.zeros((4, 4, 3)), covariance).components
    assert np.isfinite(root).all()
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-5)


def test_noise_has_a_hundredth_of_the_datas_covariance():
    noise = draw(batch=40_000, colour_noise=0.1, components=components()).noise
    found = np.cov(noise.astype(np.float64).T)
    # A covariance from n draws is off by about sqrt(2 / n) of the variances: 0.7%.
    np.testing.assert_allclose(found, 0.01 * COVARIANCE, atol=0.04 * 11)
    assert np.abs(noise.mean(0)).max() < 5 * 3.3 / np.sqrt(40_000)


def test_noise_is_alphas_times_components():
    """Section 4.1: [p1, p2, p3] [alpha_i lambda_i]^T, one draw for each picture."""
    key, root = jax.random.key(4), np.asarray(components())
    noise = draw(key, batch=6, colour_noise=0.1, components=root).noise
    normal = np.asarray(jax.random.normal(jax.random.split(key, 3)[2], (6, 3)))
    for n in range(6):
        wanted = sum(0.1 * normal[n, i] * root[:, i] for i in range(3))
        np.testing.assert_allclose(noise[n], wanted, rtol=1e-4, atol=1e-5)
    assert len(np.unique(noise)) == 18


def test_the_division_by_a_tenth_more_ends_with_the_noise():
    on = draw(colour_noise=0.1, noise_on=ON)
    off = draw(colour_noise=0.1, noise_on=OFF)
    assert float(on.scale) == np.float32(1.1)
    assert float(off.scale) == 1.0
    assert on.noise.any()
    assert not off.noise.any()
    np.testing.assert_array_equal(on.corner, off.corner)  # nothing else changes
    np.testing.assert_array_equal(on.flip, off.flip)


def test_grey_noise_follows_the_one_variance():
    root = augment.preprocess(np.zeros((4, 4, 1)), np.array([[400.0]])).components
    noise = draw(batch=20_000, colour_noise=0.1, components=root).noise
    assert noise.shape == (20_000, 1)
    assert noise.std() == pytest.approx(0.1 * 20, rel=0.03)


def test_draws_are_a_function_of_seed_purpose_and_step():
    def at(*where):
        return draw(address(*where), colour_noise=0.1)

    one, same = at(7, Purpose.AUGMENT, 3), at(7, Purpose.AUGMENT, jnp.int32(3))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    for other in (
        at(8, Purpose.AUGMENT, 3),
        at(7, Purpose.DROPOUT, 3),
        at(7, Purpose.AUGMENT, 4),
    ):
        assert np.any(one.corner != other.corner)
        assert np.any(one.flip != other.flip)
        assert np.all(one.noise != other.noise)


# Views for testing.


def test_the_centre_view():
    images, mean = pictures(3), mean_image()
    seen = eval_views(images, mean, SIZE, 1)
    assert seen.shape == (1, 3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(
        seen[0], images[:, 2:10, 2:10].astype("f4") - mean[2:10, 2:10]
    )


def test_the_ten_views_in_their_order():
    # Two rows and columns of border: 3 x 3 pixels, 1 x 1 views tell where they lie.
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    mean = np.zeros((3, 3, 1), "f4")
    seen = eval_views(image, mean, 1, 10)
    crops = [0, 2, 6, 8, 4]  # top left, top right, bottom left, bottom right, centre
    assert seen.ravel().tolist() == crops + crops

    seen = eval_views(image, mean, 2, 10)
    rows = seen[:, 0, :, :, 0].tolist()
    assert rows[:5] == [
        [[0, 1], [3, 4]],
        [[1, 2], [4, 5]],
        [[3, 4], [6, 7]],
        [[4, 5], [7, 8]],
        [[0, 1], [3, 4]],  # an odd border: the centre is rounded up and left
    ]
    assert rows[5:] == [[line[::-1] for line in crop] for crop in rows[:5]]


def test_the_centre_of_the_mean_is_taken_from_every_view():
    images, mean = pictures(2), mean_image()
    with_mean = eval_views(images, mean, SIZE, 10)
    without = eval_views(images, 0 * mean, SIZE, 10)
    np.testing.assert_allclose(
        without - with_mean,
        np.broadcast_to(mean[2:10, 2:10], without.shape),
        atol=1e-4,
    )


def test_the_set_of_ten_views_does_not_change_when_a_picture_is_mirrored():
    image, mean = pictures(1), np.zeros((STORED, STORED, 3), "f4")

    def views(pixels):
        return {one.tobytes() for one in eval_views(pixels, mean, SIZE, 10)}

    assert views(image) == views(image[:, :, ::-1])
