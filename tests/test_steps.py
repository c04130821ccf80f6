"""The compiled steps: the same run on any mesh, and what crosses between devices."""

import dataclasses
import functools
import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax import augment, model, optim, plan, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.config import (
    AugmentConfig,
    DataConfig,
    OptimizerConfig,
    Recipe,
    RunConfig,
    StepsSchedule,
)
from alexnet_jax.data.records import Batch
from alexnet_jax.mesh import hybrid, make_mesh
from alexnet_jax.steps import Purpose, address
from alexnet_jax.table import (
    Classifier,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
)

MESHES = [(1, 1), (1, 2), (2, 1), (2, 2), (4, 2), (8, 1)]  # 'data' x 'tower'
BATCH, STORED, SIDE, CLASSES = 8, 12, 9, 7

# Towers read each other where code2012's do: conv3, fc6, fc7 and the classifier.
TINY = Network(
    name="tiny",
    source="test",
    towers=2,
    input_size=SIDE,
    channels=3,
    classes=CLASSES,
    rows=(
        Conv("conv1", 6, kernel=3, stride=2, reads="both", sigma=0.02),
        ResponseNorm("norm1", alpha=0.1),
        MaxPool("pool1"),
        Relu("relu1"),
        Conv("conv2", 4, kernel=2, reads="own", sigma=0.3, bias=0.1),
        Relu("relu2"),
        Conv("conv3", 4, kernel=1, reads="both", sigma=0.3, bias=0.1),
        Relu("relu3"),
        Dense("fc6", 8, reads="both", sigma=0.3, bias=0.1),
        Relu("relu6"),
        Dropout("drop6"),
        Dense("fc7", 8, reads="both", sigma=0.3, bias=0.1),
        Relu("relu7"),
        Dropout("drop7", keep=0.8),
        Classifier("fc8", sigma=0.3),
    ),
)
RECIPE = Recipe(
    name="tiny",
    network="tiny",
    data=DataConfig(spec="digits", image_size=STORED),
    augment=AugmentConfig(crop=True, flip=True, colour_noise=0.1),
    optimizer=OptimizerConfig(
        batch_size=BATCH,
        learning_rate=0.05,
        bias_learning_rate=0.1,
        momentum=0.9,
        weight_decay=0.01,
    ),
    schedule=StepsSchedule(kind="steps", epochs=1.0, drops=(0.5,)),
    run=RunConfig(seed=5),
)
TOTAL = 24  # steps of the schedule: the rates drop after twelve
STEPS = 20


def host_batches(count):
    rng = np.random.default_rng(0)
    return [
        Batch(
            rng.integers(0, 256, (BATCH, STORED, STORED, 3), np.uint8),
            rng.integers(0, CLASSES, BATCH, np.int32),
            np.ones(BATCH, bool),
        )
        for _ in range(count)
    ]


def preprocess(mesh):
    rng = np.random.default_rng(1)
    prep = Preprocess(
        rng.uniform(90, 160, (STORED, STORED, 3)).astype(np.float32),
        rng.normal(size=(3, 3), scale=30).astype(np.float32),
        np.ones(3, np.float32),
    )
    return jax.device_put(prep, NamedSharding(mesh, P()))


def mesh_of(data, towers):
    return make_mesh(TINY, devices=data * towers, towers=towers)


class Trained:
    """Steps on a mesh, and what they left behind."""

    def __init__(
        self, data, towers, recipe=RECIPE, state=None, table=TINY, count=STEPS
    ):
        self.mesh = mesh = make_mesh(table, devices=data * towers, towers=towers)
        self.step: Any = steps.train_step(recipe, table, CLASSES, mesh, TOTAL)
        if state is None:
            state = steps.create_state(recipe, table, CLASSES, mesh)
        else:  # spares compiling the draw
            abstract = steps.abstract_state(recipe, table, CLASSES, mesh)
            state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract))
        self.first_state = jax.tree.map(np.asarray, state)
        self.first = self.first_state.params
        self.prep, self.scores = preprocess(mesh), []
        self.donated = []
        self.gradients, self.after_one = None, None
        for batch in host_batches(count):
            before, on_devices = state, steps.put_batch(batch, mesh)
            state, scores = self.step(state, on_devices, self.prep)
            self.scores.append(jax.tree.map(np.asarray, scores))
            old = jax.tree.leaves((before.params, before.opt_state))
            self.donated.append([x.is_deleted() for x in old])
            if self.after_one is None:
                self.after_one = jax.tree.map(np.asarray, state.params)
                self.gradients = first_gradients(self.first, state)
        self.state = state
        self.params = jax.tree.map(np.asarray, state.params)


def first_gradients(params, state):
    """Undo the update rule on the velocities after one step."""
    rule, velocities = RECIPE.optimizer, optim.velocity(state.opt_state)
    return {
        name: {
            "kernel": np.asarray(v["kernel"]) / -rule.learning_rate
            - rule.weight_decay * params[name]["kernel"],
            "bias": np.asarray(v["bias"]) / -rule.bias_learning_rate,
        }
        for name, v in velocities.items()
    }


RUNS: dict[tuple[int, int], Trained] = {}


def trained(data, towers):
    if (data, towers) not in RUNS:
        drawn_here = (data, towers) in ((1, 1), (2, 2))
        state = None if drawn_here else trained(1, 1).first_state
        RUNS[data, towers] = Trained(data, towers, state=state)
    return RUNS[data, towers]


@pytest.fixture(scope="module", autouse=True)
def _forget_the_runs():
    yield
    RUNS.clear()
    hybrid_run.cache_clear()


def far(actual, expected):
    """Return the distance of two arrays relative to their length."""
    expected = np.asarray(expected, np.float64)
    distance = np.linalg.norm(np.asarray(actual, np.float64) - expected)
    return distance / np.linalg.norm(expected)


def farthest(actual, expected):
    return max(jax.tree.leaves(jax.tree.map(far, actual, expected)))


def check_same_run(run, alone, gradients, params):
    """Compare a run with the one on a single device, array by array."""
    jax.tree.map(np.testing.assert_array_equal, run.first, alone.first)
    assert farthest(alone.first, alone.params) > 0.01  # they did learn
    assert farthest(run.gradients, alone.gradients) < gradients
    assert farthest(run.params, alone.params) < params
    for scores, wanted in zip(run.scores, alone.scores, strict=True):
        assert far(scores.log_prob.total, wanted.log_prob.total) < params
        assert scores.top1_error.count == wanted.top1_error.count == BATCH
    assert int(run.state.step) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize(("data", "towers"), MESHES)
def test_twenty_steps_are_the_same_on_any_mesh(data, towers):
    run, alone = trained(data, towers), trained(1, 1)
    check_same_run(run, alone, gradients=1e-5, params=1e-4)
    for scores, wanted in zip(run.scores[:5], alone.scores, strict=False):
        np.testing.assert_array_equal(scores.top1_error.total, wanted.top1_error.total)
        np.testing.assert_array_equal(scores.top5_error.total, wanted.top5_error.total)


def halved(recipe=RECIPE):
    values = recipe.model_dump()
    values["run"]["accumulate"] = 2
    return Recipe.model_validate(values)


def wide(state):
    return jax.tree.map(
        lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, state
    )


@pytest.mark.slow
def test_in_double_precision_only_rounding_is_left(monkeypatch):
    # A mask, a crop or an image out of place would show: float32 hides small errors.
    state, dense = wide(trained(1, 1).first_state), wide(hybrid_run(1).first_state)
    monkeypatch.setitem(steps.DTYPES, "f32", jnp.float64)
    with jax.enable_x64(True):
        alone = Trained(1, 1, state=state)
        assert alone.params["conv2"]["kernel"].dtype == np.float64
        for data, towers in MESHES[1:]:
            run = Trained(data, towers, state=state)
            check_same_run(run, alone, gradients=1e-9, params=1e-9)
        check_same_run(Trained(2, 2, halved(), state), alone, 1e-9, 1e-9)
        alone = Trained(1, 1, state=dense, table=ONE_TOWER)
        divided = Trained(4, 1, state=dense, table=hybrid(ONE_TOWER, 4))
        check_same_run(divided, alone, 1e-9, 1e-9)
        halves = Trained(4, 1, halved(), dense, hybrid(ONE_TOWER, 4))
        check_same_run(halves, alone, 1e-9, 1e-9)


def test_a_batch_in_two_parts_is_the_same_update():
    run = Trained(2, 2, halved(), trained(1, 1).first_state)
    check_same_run(run, trained(1, 1), gradients=1e-5, params=1e-4)
    # The parts' gradients travel together; what the towers exchange is in a loop.
    assert collectives(compiled(run), (2, 2)) == STEP


# Dropout before the first fully connected layer, as torchvision's network has it.
ONE_TOWER = dataclasses.replace(
    TINY,
    name="one-tower",
    towers=1,
    rows=(
        *TINY.rows[:6],
        Conv("conv3", 8, kernel=1, sigma=0.3, bias=0.1),
        Dropout("drop3"),
        *TINY.rows[8:],
    ),
)


@functools.cache
def hybrid_run(devices):
    table = ONE_TOWER if devices == 1 else hybrid(ONE_TOWER, devices)
    state = None if devices == 1 else hybrid_run(1).first_state
    return Trained(devices, 1, state=state, table=table)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_divided_dense_layers_give_the_same_run(devices):
    run = hybrid_run(devices)
    check_same_run(run, hybrid_run(1), gradients=1e-5, params=1e-4)
    held = run.state.params["fc7"]["kernel"].addressable_shards
    assert {shard.data.shape for shard in held} == {(8, 8 // devices)}
    held = run.state.params["fc8"]["kernel"].addressable_shards
    assert {shard.data.shape for shard in held} == {(8 // devices, CLASSES)}
    # The parameters of the convolutions and the classifier's bias alone are summed.
    assert collectives(compiled(run), (devices, 1)) == {
        ("all-gather", "data"): 3,  # fc6's images, fc7's units; backward: the logits
        ("reduce-scatter", "data"): 3,
        ("all-reduce", "data"): 1,
    }


def test_parameters_and_velocities_lie_where_the_specs_say():
    run = trained(2, 2)
    wanted = steps.abstract_state(RECIPE, TINY, CLASSES, run.mesh)
    for leaf, abstract in zip(
        jax.tree.leaves(run.state), jax.tree.leaves(wanted), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (abstract.shape, abstract.dtype)
        assert leaf.sharding.is_equivalent_to(abstract.sharding, leaf.ndim)
    kernel = run.state.params["conv2"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (1, 2, 2, 6, 4)
    velocities = jax.tree.leaves(run.state.opt_state)
    assert [v.shape for v in velocities if v.ndim == 5] == [kernel.shape]
    assert all(
        v.addressable_shards[0].data.shape[0] == 1 for v in velocities if v.ndim == 5
    )


def test_the_state_is_donated():
    # The first two steps' parameters are kept for other tests, which prevents it.
    for deleted in trained(2, 2).donated[2:]:
        assert all(deleted)


def test_a_step_moves_nothing_to_or_from_the_host():
    run = trained(1, 2)
    state, batch = run.state, host_batches(1)[0]
    on_devices = steps.put_batch(batch, run.mesh)
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jnp.sin(batch.labels)  # the guard works
        state, scores = run.step(state, on_devices, run.prep)
        jax.block_until_ready(scores)
    run.state = state


def test_no_step_and_no_drop_compiles_again():
    run = trained(2, 1)
    size = run.step._cache_size()
    state = run.state
    for drops, batch in enumerate(host_batches(2)):
        where = NamedSharding(run.mesh, P())
        state = state._replace(drops=jax.device_put(jnp.int32(drops), where))
        state, _ = run.step(state, steps.put_batch(batch, run.mesh), run.prep)
    run.state = state
    assert run.step._cache_size() == size == 1


@pytest.mark.slow
def test_bfloat16_is_close_and_parameters_stay_float32():
    values = RECIPE.model_dump()
    values["run"]["precision"] = "bf16"
    full = trained(1, 1)
    narrow = Trained(1, 1, Recipe.model_validate(values), full.first_state, count=1)
    for leaf in jax.tree.leaves((narrow.state.params, narrow.state.opt_state)):
        assert leaf.dtype == jnp.float32
    moved, wanted = (
        jax.tree.map(np.subtract, run.after_one, run.first) for run in (narrow, full)
    )
    for name in full.first:
        distance = far(moved[name]["kernel"], wanted[name]["kernel"])
        assert 1e-4 < distance < 0.2, name
    loss, wanted = (run.scores[0].log_prob.total for run in (narrow, full))
    assert 1e-6 < far(loss, wanted) < 0.02


OPERATION = re.compile(
    r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    r"|collective-broadcast|ragged-all-to-all)(?:-start)?\("
)


def axis_of(line, shape=(2, 2)):
    """Say along which axis of a mesh a collective's groups lie.

    Groups are printed as lists, as iotas or, from newer JAX, by the mesh's axes.
    """
    if listed := re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", line):
        groups = [group.split(",") for group in re.findall(r"\{([\d,]+)\}", listed[1])]
        groups = [[int(device) for device in group] for group in groups]
    elif iota := re.search(
        r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line
    ):
        into, dims, order = (
            [int(n) for n in part.split(",")] if part else [] for part in iota.groups()
        )
        devices = np.arange(np.prod(dims)).reshape(dims).transpose(order or None)
        groups = devices.reshape(into).tolist()
    elif named := re.search(r"replica_groups=@?mesh.*?\]\s*\{([^}]*)\}", line):
        return named[1].strip("'\" ")
    else:
        raise AssertionError(f"no groups in {line}")
    grid = np.arange(np.prod(shape)).reshape(shape)
    if groups == grid.tolist():
        return "tower"
    return "data" if groups == grid.T.tolist() else str(groups)


def operations(compiled, shape):
    """Yield operation, axis and bytes of the whole of each collective."""
    for line in compiled.as_text().splitlines():
        if found := OPERATION.search(line):
            axis, size = axis_of(line, shape), 0
            sizes = re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", line[: found.start()])
            for bits, dims in sizes:
                count = np.prod([int(n) for n in dims.split(",") if n])
                size += int(count) * int(bits) // 8
            devices = {"data": shape[0], "tower": shape[1]}.get(axis)
            if devices == 1:  # nothing leaves the device
                continue
            if found[1] == "reduce-scatter":  # the result is one device's part
                size *= devices or 1
            yield found[1], axis, size


def collectives(compiled, shape=(2, 2)):
    return Counter(found[:2] for found in operations(compiled, shape))


def compiled(run):
    batch = steps.put_batch(host_batches(1)[0], run.mesh)
    return run.step.lower(run.state, batch, run.prep).compile()


FORWARD = {("all-gather", "tower"): 3, ("all-reduce", "tower"): 1}
# Backward: each gather's transpose, and all gradients, the loss and the counts in one
# message. Nothing else, no all-to-all, no permutation.
STEP = {**FORWARD, ("reduce-scatter", "tower"): 3, ("all-reduce", "data"): 1}


def test_groups_in_any_notation():
    line = "x = f32[2] all-reduce(y), replica_groups="
    assert axis_of(line + "{{0,1},{2,3}}, z={{0,2},{1,3}}") == "tower"
    assert axis_of(line + "{{0,2},{1,3}}, to_apply=a") == "data"
    assert axis_of(line + "[2,2]<=[4], to_apply=a") == "tower"
    assert axis_of(line + "[2,2]<=[2,2]T(1,0), to_apply=a") == "data"
    assert axis_of(line + "mesh['data'=2,'tower'=2]{'tower'}, a={1}") == "tower"
    assert axis_of(line + "{{0,1,2,3}}, to_apply=a") == "[[0, 1, 2, 3]]"
    assert axis_of(line + "{{0,1,2,3}}, to_apply=a", (4, 1)) == "data"
    assert axis_of(line + "[2,4]<=[4,2]T(1,0), to_apply=a", (4, 2)) == "data"


def check_planned(found, table, **shape):
    """Compare with the plan, which knows every message and its size from the table."""
    planned = plan.messages(table, batch_size=BATCH, classes=CLASSES, **shape)
    wanted = [(message.operation, message.axis, message.size) for message in planned]
    gradients = ("all-reduce", "data")
    assert Counter(m for m in found if m[:2] != gradients) == Counter(
        m for m in wanted if m[:2] != gradients
    )
    if shape["data"] > 1:  # XLA sends equal counts once
        ((*_, size),) = (m for m in found if m[:2] == gradients)
        ((*_, most),) = (m for m in wanted if m[:2] == gradients)
        assert most - 4 * plan.SCORES < size <= most


@pytest.mark.slow
@pytest.mark.parametrize(("data", "towers"), [(1, 2), (2, 2), (4, 2), (8, 1)])
def test_what_crosses_in_a_training_step(data, towers):
    found = list(operations(compiled(trained(data, towers)), (data, towers)))
    wanted = {
        (operation, axis): count
        for (operation, axis), count in STEP.items()
        if {"data": data, "tower": towers}[axis] > 1
    }
    assert Counter(each[:2] for each in found) == wanted
    check_planned(found, TINY, data=data, tower=towers)


def test_what_crosses_where_dense_layers_are_divided():
    found = list(operations(compiled(hybrid_run(2)), (2, 1)))
    check_planned(found, hybrid(ONE_TOWER, 2), data=2, tower=1)


def test_what_crosses_in_a_prediction():
    mesh = mesh_of(2, 2)
    predict: Any = steps.forward(TINY, CLASSES, mesh, views=1, precision="f32")
    where = NamedSharding(mesh, P("data"))
    images = jax.device_put(host_batches(1)[0].images, where)
    params = trained(2, 2).state.params
    program = predict.lower(params, preprocess(mesh), images).compile()
    assert collectives(program) == FORWARD


def masks(step, seed=5, rows=1000):
    dropouts = {"drop6": ((64,), 0.5), "drop7": ((2, 4, 5), 0.8)}
    return steps.draw_masks(address(seed, Purpose.DROPOUT, step), dropouts, rows)


def test_masks_keep_their_share_and_differ_by_step_row_and_layer():
    first, second = masks(0), masks(1)
    for name, units, keep in (("drop6", 64, 0.5), ("drop7", 40, 0.8)):
        mask = np.asarray(first[name])
        assert mask.shape == ((1000, 64) if units == 64 else (1000, 2, 4, 5))
        mask = mask.reshape(1000, units)
        assert mask.dtype == bool
        error = np.sqrt(keep * (1 - keep) / mask.size)
        assert abs(mask.mean() - keep) < 4 * error
        assert len(np.unique(mask, axis=0)) > 990
        # Independent: equal in keep^2 + (1 - keep)^2 of all places.
        same = np.mean(mask == np.asarray(second[name]).reshape(1000, units))
        assert abs(same - keep**2 - (1 - keep) ** 2) < 0.01
    maps = np.asarray(first["drop7"]).reshape(1000, 40)
    columns = np.asarray(first["drop6"])[:, :40] == maps
    assert abs(columns.mean() - 0.5) < 0.01
    again = masks(0)
    np.testing.assert_array_equal(again["drop6"], first["drop6"])
    assert np.any(np.asarray(masks(0, seed=6)["drop6"]) != first["drop6"])


def test_masks_and_crops_do_not_know_the_mesh():
    dropouts = model.dropout_rows(TINY)

    def draw():
        key = address(5, Purpose.AUGMENT, 3)
        return (
            steps.draw_masks(address(5, Purpose.DROPOUT, 3), dropouts, BATCH),
            augment.draw(
                key,
                RECIPE.augment,
                batch=BATCH,
                border=STORED - SIDE,
                components=jnp.eye(3),
                noise_on=jnp.asarray(True),
            ),
        )

    plain = jax.jit(draw)()
    mesh = mesh_of(4, 2)
    rows = NamedSharding(mesh, P("data"))
    where = (
        dict.fromkeys(dropouts, NamedSharding(mesh, P("data", "tower"))),
        augment.Draws._make([rows, rows, rows, NamedSharding(mesh, P())]),
    )
    divided = jax.jit(draw, out_shardings=where)()
    jax.tree.map(np.testing.assert_array_equal, divided, plain)


def test_a_step_draws_at_its_own_address():
    run = trained(1, 1)
    state, batch = run.state, host_batches(1)[0]
    step = int(state.step)
    draws = augment.draw(
        address(5, Purpose.AUGMENT, step),
        RECIPE.augment,
        batch=BATCH,
        border=STORED - SIDE,
        components=run.prep.components,
        noise_on=jnp.asarray(True),
    )
    dropouts = model.dropout_rows(TINY)
    spoken = steps.draw_masks(address(5, Purpose.DROPOUT, step), dropouts, BATCH)
    graph = model.graph(TINY, CLASSES)
    forward = jax.shard_map(
        lambda params, x, m: model.merge(graph, params)(x, m, dtype=jnp.float32),
        mesh=run.mesh,
        in_specs=(
            model.param_specs(TINY, CLASSES),
            P("data"),
            dict.fromkeys(dropouts, P("data", "tower")),
        ),
        out_specs=P("data"),
    )

    @jax.jit
    def log_prob(params, images):
        x = augment.training_view(images, draws, run.prep, SIDE)
        log_probs = jax.nn.log_softmax(forward(params, x, spoken))
        return log_probs[np.arange(BATCH), batch.labels].sum()

    wanted = float(log_prob(state.params, batch.images))
    run.state, scores = run.step(state, steps.put_batch(batch, run.mesh), run.prep)
    assert far(scores.log_prob.total, wanted) < 1e-5


def test_addresses_differ():
    keys = [address(s, p, n) for s in (0, 1) for p in Purpose for n in (0, 1)]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == len(keys)


def test_layer_names():
    assert steps.layer_names(TINY) == ("conv1", "conv2", "conv3", "fc6", "fc7", "fc8")


def test_evaluation_counts_what_the_mask_shows():
    # Without weights every image gets the classifier's bias: class 6 first, 0 last.
    mesh = mesh_of(2, 2)
    params = jax.tree.map(np.zeros_like, trained(2, 2).first)
    params["fc8"]["bias"] = np.arange(7, dtype=np.float32)
    batch = host_batches(1)[0]._replace(
        labels=np.array([6, 6, 5, 1, 0, 6, 0, 2], np.int32),
        mask=np.array([1, 1, 1, 1, 1, 0, 0, 1], bool),
    )
    evaluate = steps.eval_step(TINY, CLASSES, mesh, views=1, precision="f32")
    scores = evaluate(params, preprocess(mesh), steps.put_batch(batch, mesh))
    # Of the six that count: two right; labels 1 and 0 are not among the five best.
    assert float(scores.top1_error.total) == 4
    assert float(scores.top5_error.total) == 2
    assert float(scores.log_prob.count) == float(scores.top1_error.count) == 6
    normaliser = np.log(np.sum(np.exp(np.arange(7))))
    wanted = (6 + 6 + 5 + 1 + 0 + 2) - 6 * normaliser
    np.testing.assert_allclose(scores.log_prob.total, wanted, rtol=1e-6)


def test_ten_views_are_the_mean_of_ten_predictions():
    images = host_batches(1)[0].images
    params = trained(1, 1).params
    end, middle = STORED - SIDE, (STORED - SIDE) // 2
    starts = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]
    crops = [images[:, y : y + SIDE, x : x + SIDE] for y, x in starts]
    views = np.concatenate(crops + [crop[:, :, ::-1] for crop in crops])

    alone, spread = mesh_of(1, 1), mesh_of(2, 2)
    prep = preprocess(alone)
    inside = slice(middle, middle + SIDE)
    small = prep._replace(mean=np.asarray(prep.mean)[inside, inside])
    one = steps.forward(TINY, CLASSES, alone, views=1, precision="f32")
    each = np.asarray(one(params, small, jnp.asarray(views)), np.float64)
    wanted = np.exp(each).reshape(10, BATCH, CLASSES).mean(0)

    ten = steps.forward(TINY, CLASSES, spread, views=10, precision="f32")
    where = NamedSharding(spread, P("data"))
    found = ten(params, preprocess(spread), jax.device_put(images, where))
    np.testing.assert_allclose(np.exp(found), wanted, rtol=1e-5)
    centre = np.exp(each).reshape(10, BATCH, CLASSES)[4]
    assert far(centre, wanted) > 1e-3  # the views do differ
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, rtol=1e-5)
