"""What meshes would cost: hand-worked numbers; test_steps compares the messages."""

import dataclasses
import re

import pytest

from alexnet_jax import plan
from alexnet_jax.errors import ConfigError
from alexnet_jax.mesh import hybrid, make_mesh
from alexnet_jax.networks import CODE2012, network

OWT, CIFAR = network("owt"), network("cifar-80sec")
PARAMETERS = 60_965_224  # of code2012


def test_who_does_what():
    mesh = make_mesh(CODE2012, devices=4)
    found = plan.places(CODE2012, mesh, 256)
    assert [(p.device, p.tower, p.rows) for p in found] == [
        (0, 0, range(0, 128)),
        (1, 1, range(0, 128)),
        (2, 0, range(128, 256)),
        (3, 1, range(128, 256)),
    ]
    assert {(p.kind, p.process) for p in found} == {("cpu", 0)}
    (alone,) = plan.places(CODE2012, make_mesh(CODE2012, devices=1), 8)
    assert (alone.tower, alone.rows) == (None, range(0, 8))
    with pytest.raises(ConfigError, match="batch_size 9 does not divide over 2"):
        plan.places(CODE2012, mesh, 9)


def test_the_papers_two_devices_send_what_the_facts_say():
    # Net 145, float32, 128 images: the inputs of conv3, fc6 and fc7, and the logits.
    found = list(plan.messages(CODE2012, data=1, tower=2, batch_size=128))
    towers = {"conv3": 13 * 13 * 128, "fc6": 6 * 6 * 128, "fc7": 2048}
    wanted = [
        (operation, "tower", name, 2 * 128 * numbers * 4)
        for name, numbers in towers.items()
        for operation in ("all-gather", "reduce-scatter")
    ]
    wanted.append(("all-reduce", "tower", "fc8", 128 * 1000 * 4))
    assert [dataclasses.astuple(message) for message in found] == wanted
    # A ring of two: a gather sends one's own half, a reduction the whole.
    assert found[0].sent(2) == 128 * 13 * 13 * 128 * 4 == 11_075_584
    assert found[-1].sent(2) == 512_000


def test_data_parallelism_sends_all_gradients():
    (message,) = plan.messages(CODE2012, data=8, tower=1, batch_size=1024)
    assert (message.operation, message.axis) == ("all-reduce", "data")
    assert message.size == 4 * (PARAMETERS + plan.SCORES)
    assert message.sent(8) == 2 * 7 / 8 * message.size
    # Towers apart: half of each, but for the classifier's bias, which both have.
    *_, apart = plan.messages(CODE2012, data=4, tower=2, batch_size=1024)
    assert apart.size == 4 * ((PARAMETERS - 1000) // 2 + 1000 + plan.SCORES)


def test_divided_dense_layers_send_images_instead_of_gradients():
    found = {
        (m.operation, m.what): m.size
        for m in plan.messages(hybrid(OWT, 8), data=8, tower=1, batch_size=1024)
    }
    assert found["all-gather", "fc6"] == 1024 * 9216 * 4
    assert found["all-gather", "fc7"] == 1024 * 4096 * 4
    assert found["reduce-scatter", "fc8"] == 1024 * 1000 * 4
    dense = 9216 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000
    whole = next(iter(plan.messages(OWT, data=8, tower=1, batch_size=1024))).size
    assert found["all-reduce", "gradients"] == whole - 4 * dense


def test_a_layout_from_hand_worked_numbers():
    (data, towers) = plan.compare(
        CODE2012, 2, batch_size=256, rate=1000.0, link=1e9, precision="f32"
    )
    assert (data.layout, data.data, data.tower) == ("data", 2, 1)
    assert (towers.layout, towers.data, towers.tower) == ("towers", 1, 2)
    assert data.tower_bytes == towers.data_bytes == 0
    # 256 images take two devices 0.128 s; a ring of two sends all gradients once.
    sent = 4 * (PARAMETERS + plan.SCORES)
    assert data.data_bytes == sent
    assert data.efficiency == pytest.approx(0.128 / (0.128 + sent / 1e9))
    assert data.images_per_second == pytest.approx(2000 * data.efficiency)
    assert data.parameters == PARAMETERS
    assert towers.parameters == (PARAMETERS - 1000) // 2 + 1000
    # A device that holds one tower of twice the images has as many activations, but
    # 128 more images (as bytes, then as floats) and logits (with their gradient).
    more = 128 * (224 * 224 * 3 * (1 + 4) + 1000 * 2 * 4)
    less = 12 * (data.parameters - towers.parameters)
    assert towers.memory_bytes - data.memory_bytes == more - less
    half = plan.compare(
        CODE2012, 2, batch_size=256, rate=1000.0, link=1e9, precision="bf16"
    )[1]
    logits = 256 * 1000 * 4  # stay float32
    assert half.tower_bytes - logits == (towers.tower_bytes - logits) / 2


def test_a_thousand_devices_need_not_exist():
    found = plan.compare(CODE2012, 1024, batch_size=131_072, rate=5000.0, link=25e9)
    assert [(p.data, p.tower) for p in found] == [(1024, 1), (512, 2)]
    assert all(0 < p.efficiency < 1 for p in found)
    layouts = [p.layout for p in plan.compare(OWT, 8, batch_size=8, rate=1.0, link=1.0)]
    assert layouts == ["data", "hybrid"]
    # 64 units do not divide over six devices; one device has nothing to divide.
    six = plan.compare(CIFAR, 6, batch_size=12, rate=1.0, link=1.0)
    one = plan.compare(CIFAR, 1, batch_size=12, rate=1.0, link=1.0)
    assert [p.layout for p in (*six, *one)] == ["data", "data"]
    assert one[0].efficiency == 1
    message = "batch_size 9 does not divide over 8 devices; use 16"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        plan.compare(OWT, 8, batch_size=9, rate=1.0, link=1.0)
