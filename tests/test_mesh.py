"""How devices are laid out, and what is said when they do not fit."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from alexnet_jax.cifar_networks import CIFAR_80SEC
from alexnet_jax.errors import ConfigError
from alexnet_jax.mesh import (
    BATCH,
    check_batch,
    describe,
    hybrid,
    make_mesh,
    shardings,
)
from alexnet_jax.networks import CODE2012, network


def refused(message):
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(
    ("table", "options", "shape"),
    [
        (CODE2012, {}, (4, 2)),  # all eight
        (CODE2012, {"devices": 1}, (1, 1)),
        (CODE2012, {"devices": 2}, (1, 2)),
        (CODE2012, {"devices": 3}, (3, 1)),  # odd: towers together
        (CODE2012, {"devices": 6}, (3, 2)),
        (CODE2012, {"devices": 4, "towers": 1}, (4, 1)),
        (CODE2012, {"towers": 2}, (4, 2)),
        (CIFAR_80SEC, {}, (8, 1)),  # one tower: nothing to split
        (CIFAR_80SEC, {"devices": 2}, (2, 1)),
    ],
)
def test_devices_and_towers(table, options, shape):
    mesh = make_mesh(table, **options)
    assert mesh.axis_names == ("data", "tower")
    assert mesh.devices.shape == shape
    assert mesh.devices.ravel().tolist() == jax.devices()[: np.prod(shape)]
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,) * 2


def test_only_the_devices_given_are_used():
    given = jax.devices()[5:1:-1]
    mesh = make_mesh(CODE2012, devices=2, available=given)
    assert mesh.devices.ravel().tolist() == given[:2]


@pytest.mark.parametrize("devices", [0, 9, -1])
def test_a_wrong_number_of_devices(devices):
    with refused(f"--devices {devices}: this machine has 8 (cpu); use 1 to 8"):
        make_mesh(CODE2012, devices=devices)


def test_towers_that_a_network_does_not_have():
    with refused("--towers 2: cifar-80sec has 1 tower; use --towers 1"):
        make_mesh(CIFAR_80SEC, towers=2)
    with refused("--towers 3: code2012 has 2 towers; use --towers 1"):
        make_mesh(CODE2012, towers=3)


def test_two_towers_on_an_odd_number_of_devices():
    message = "--towers 2 needs an even number of devices, not {}; use {}--towers 1"
    with refused(message.format(3, "--devices 4 or ")):
        make_mesh(CODE2012, devices=3, towers=2)
    seven = jax.devices()[:7]
    with refused(message.format(7, "--devices 6 or ")):
        make_mesh(CODE2012, towers=2, available=seven)
    with refused(message.format(1, "--devices 2 or ")):
        make_mesh(CODE2012, devices=1, towers=2)
    # A machine of one device has no other number to offer, least of all 0.
    with refused(message.format(1, "")):
        make_mesh(CODE2012, towers=2, available=seven[:1])


def test_a_batch_must_divide_over_the_data_axis():
    mesh = make_mesh(CODE2012)  # 4 x 2
    for fits in (4, 128):
        check_batch(mesh, fits)
    with refused(
        "batch_size 6 does not divide over 4 devices; use 4 or 8, or other --devices"
    ):
        check_batch(mesh, 6)
    with refused(
        "batch_size 3 does not divide over 4 devices; use 4, or other --devices"
    ):
        check_batch(mesh, 3)
    check_batch(make_mesh(CODE2012, devices=2), 3)  # the towers share every image


def test_a_device_computes_its_images_in_parts():
    mesh = make_mesh(CODE2012)  # 4 x 2
    check_batch(mesh, 24, parts=3)
    with refused(
        "run.accumulate 4: a device's 6 images do not divide into so many parts; use "
        "a divisor"
    ):
        check_batch(mesh, 24, parts=4)


def test_one_tower_may_divide_its_dense_layers():
    owt = network("owt")
    divided = hybrid(owt, 8)
    assert divided.hybrid
    assert dataclasses.replace(divided, hybrid=False) == owt
    with refused("--hybrid is for networks of one tower; code2012 has 2: use --towers"):
        hybrid(CODE2012, 2)
    with refused(
        "--hybrid: the 64 units of fc64 do not divide over 6 devices; use --devices 4"
    ):
        hybrid(network("cifar-80sec"), 6)
    with refused("--hybrid: cifar-18pct has no layer to divide"):
        hybrid(network("cifar-18pct"), 2)


def test_the_mesh_in_words():
    assert describe(make_mesh(CODE2012)) == (
        "8 devices (cpu): 4 x data, one tower on each of two devices"
    )
    assert describe(make_mesh(CODE2012, devices=1)) == (
        "1 device (cpu): 1 x data, towers together"
    )
    assert describe(make_mesh(CODE2012, devices=4, towers=1), hybrid=True) == (
        "4 devices (cpu): 4 x data, fully connected layers divided over 4"
    )


def test_a_tree_of_specs_becomes_one_of_shardings():
    mesh = make_mesh(CODE2012, devices=4)
    trees = {"a": np.arange(6)}
    x = jax.device_put(trees, shardings(mesh, {"a": BATCH}))["a"]
    # Two replicas hold three images each; both towers of one hold the same.
    held = [np.asarray(shard.data).tolist() for shard in x.addressable_shards]
    assert held == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
