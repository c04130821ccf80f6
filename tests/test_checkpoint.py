"""Checkpoints: every bit comes back, on any mesh, or an error says what is wrong."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from alexnet_jax import checkpoint, job, recipes, rundir, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.checkpoint import Checkpoints, Meta
from alexnet_jax.errors import CheckpointError
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network

CLASSES = list("0123456789")
RECIPE = recipes.load("digits")
TABLE = network("digits")
ONE = {"devices": 1}
FOUR = {"devices": 4, "towers": 2}


def mesh(**devices):
    return make_mesh(TABLE, **devices)


@functools.cache
def abstract(**devices):
    return steps.abstract_state(RECIPE, TABLE, 10, mesh(**devices))


def some_state(seed=0, **devices):
    """A state of random numbers, so that nothing is zero or like its neighbour."""
    rng = np.random.default_rng(seed)

    def fill(leaf):
        if leaf.dtype == np.int32:
            return jax.device_put(np.int32(rng.integers(100)), leaf.sharding)
        return jax.device_put(
            rng.normal(size=leaf.shape).astype(leaf.dtype), leaf.sharding
        )

    return jax.tree.map(fill, abstract(**devices))


def some_preprocess():
    rng = np.random.default_rng(1)
    mean = rng.uniform(0, 255, (32, 32, 1)).astype("f4")
    return Preprocess(mean, np.array([[70.5]], "f4"), np.array([0.5], "f4"))


def meta(step=0, error=None, role="test", **values):
    return Meta(
        network="digits",
        classes=CLASSES,
        image_size=32,
        views=[1],
        precision="f32",
        step=step,
        evaluated=None if error is None else {"top1_error": error},
        eval_role=role,
        **values,
    )


def write(run, *metas, keep=10):
    """Save one state for each record; return the directory."""
    checkpoints, state = Checkpoints(run, keep), some_state(**ONE)
    for record in metas:
        checkpoints.save(state, some_preprocess(), record)
    checkpoints.close()
    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two checkpoints; tests that damage them work on a copy."""
    return write(tmp_path_factory.mktemp("run") / "a", meta(3), meta(5))


@pytest.fixture
def copied(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run"


def kept(run):
    return [int(path.name) for path in checkpoint.steps_in(run)]


def same(one, other):
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other)
    )


def failure(work, *arguments):
    with pytest.raises(CheckpointError) as raised:
        work(*arguments)
    return str(raised.value)


# Weights alone.


def test_weights_alone_come_back_whole_on_any_mesh(tmp_path):
    state, prep = some_state(**ONE), some_preprocess()
    record = meta(resize="stretch", origin={"file": "a.npz"})
    path = checkpoint.write(tmp_path / "deep" / "w", state.params, prep, record)
    assert checkpoint.resolve(path) == path
    loaded = checkpoint.load(path, mesh(**FOUR))
    assert loaded.meta == record
    same(loaded.params, state.params)
    same(loaded.preprocess, prep)
    text = failure(checkpoint.write, path, state.params, prep, record)
    assert text == f"{path} holds something already; choose a new folder"


def test_a_checkpoint_of_the_first_format_has_scale_one(tmp_path):
    prep = some_preprocess()._asdict()
    del prep["scale"]
    ocp.save_checkpointables(
        str(tmp_path / "old"),
        {"params": some_state(**ONE).params, "preprocess": prep},
        custom_metadata=dataclasses.asdict(meta(format=1)),
    )
    loaded = checkpoint.load(tmp_path / "old", mesh(**ONE))
    np.testing.assert_array_equal(loaded.preprocess.scale, [1])
    np.testing.assert_array_equal(loaded.preprocess.mean, prep["mean"])


# Round trips.


@pytest.mark.parametrize(("here", "there"), [(ONE, ONE), (FOUR, ONE), (ONE, FOUR)])
def test_every_bit_comes_back_on_any_mesh(here, there, tmp_path):
    state, run = some_state(**here), tmp_path / "run"
    checkpoints = Checkpoints(run, 1)
    record = meta(7)
    path = checkpoints.save(state, some_preprocess(), record)
    assert path == run / "checkpoints" / "7"
    restored = checkpoints.restore(abstract(**there), 7)
    checkpoints.close()
    same(restored, state)
    wanted = jax.tree.map(lambda leaf: leaf.sharding, abstract(**there))
    assert jax.tree.map(lambda leaf: leaf.sharding, restored) == wanted
    assert jax.tree.structure(restored) == jax.tree.structure(state)  # optax's types

    loaded = checkpoint.load(run, mesh(**there))
    same(loaded.params, state.params)
    same(loaded.preprocess, some_preprocess())
    assert loaded.meta == record
    assert loaded.path == path


def test_the_record_comes_back_as_it_was(tmp_path):
    record = dataclasses.replace(
        meta(9, 0.1, "validation"),
        epoch=1 / 3,
        recipe=RECIPE.model_dump(mode="json"),
        total_steps=1234,
        plateau={"best": 17.0, "waited": 1, "drops": 2, "ended": False},
        since_row={"top1_error": {"total": 0.1, "count": 32.0}},
        classes=["a b", "ü", "\N{PILE OF POO}"],
    )
    checkpoints = Checkpoints(tmp_path, 1)
    path = checkpoints.save(some_state(**ONE), some_preprocess(), record)
    checkpoints.close()
    read = checkpoint.read_meta(path)
    assert read == record
    assert read.recipe is not None
    assert recipes.override(read.recipe, {}) == RECIPE


def test_a_step_can_be_written_again(tmp_path):
    checkpoints = Checkpoints(tmp_path, 3)
    first, second = some_state(1, **ONE), some_state(2, **ONE)
    checkpoints.save(first, some_preprocess(), meta(4))
    checkpoints.save(second, some_preprocess(), meta(4, 0.5))
    same(checkpoints.restore(abstract(**ONE), 4), second)
    assert checkpoint.read_meta(tmp_path / "checkpoints" / "4") == meta(4, 0.5)
    assert checkpoints.steps() == [4]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    checkpoints.close()


def test_a_kill_while_a_step_is_written_again_loses_nothing(copied):
    """Stands in for the kill: the old one lies aside, the new one is not there."""
    folder = copied / "checkpoints"
    (folder / "5").rename(folder / "5.replaced")
    checkpoints = Checkpoints(copied, 3)
    assert checkpoints.steps() == [3, 5]
    same(checkpoints.restore(abstract(**ONE), 5), some_state(**ONE))
    checkpoints.close()
    # And a kill after the new one came, before the old one went:
    shutil.copytree(folder / "3", folder / "5.replaced")
    Checkpoints(copied, 3).close()
    assert kept(copied) == [3, 5]
    assert not (folder / "5.replaced").exists()
    same(checkpoint.read_meta(folder / "5").step, 5)


def test_what_a_kill_left_half_written_is_cleared(copied):
    """Stands in for the kill: Orbax's temporary name holds part of a checkpoint."""
    folder = copied / "checkpoints"
    for step in (8, 9):
        half = folder / f"{step}.orbax-checkpoint-tmp"
        shutil.copytree(folder / "5" / "params", half / "params")
    assert kept(copied) == [3, 5]
    checkpoints = Checkpoints(copied, 3)
    assert checkpoints.steps() == [3, 5]
    checkpoints.save(some_state(2, **ONE), some_preprocess(), meta(9))
    same(checkpoints.restore(abstract(**ONE), 9), some_state(2, **ONE))
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["3", "5", "9"]


# What is kept.


def test_the_last_few_are_kept(tmp_path):
    assert kept(write(tmp_path, *map(meta, range(1, 4)), keep=2)) == [2, 3]


ERRORS = (0.5, 0.2, 0.4, 0.3)


def test_the_best_is_kept_when_a_validation_split_chose_it(tmp_path):
    metas = [meta(step, e, "validation") for step, e in enumerate(ERRORS, 1)]
    run = write(tmp_path, *metas, keep=1)
    assert kept(run) == [2, 4]
    assert checkpoint.resolve(run) == run / "checkpoints" / "2"


def test_a_test_split_chooses_nothing(tmp_path):
    metas = [meta(step, e, "test") for step, e in enumerate(ERRORS, 1)]
    run = write(tmp_path, *metas, keep=1)
    assert kept(run) == [4]
    assert checkpoint.resolve(run) == run / "checkpoints" / "4"


def test_the_best_is_remembered_by_the_next_process(tmp_path):
    metas = [meta(step, e, "validation") for step, e in enumerate(ERRORS, 1)]
    write(tmp_path, *metas[:2], keep=1)
    write(tmp_path, *metas[2:], keep=1)
    assert kept(tmp_path) == [2, 4]


def test_a_step_without_a_test_is_never_the_best(tmp_path):
    metas = [meta(1, 0.9, "validation"), meta(2, None, "validation")]
    run = write(tmp_path, *metas)
    assert checkpoint.resolve(run) == run / "checkpoints" / "1"


# Which one a path stands for.


def test_a_run_stands_for_its_last_checkpoint(written):
    last = written / "checkpoints" / "5"
    for path in (written, written / "checkpoints", last, written / "5", str(written)):
        assert checkpoint.resolve(path) == last
    assert checkpoint.resolve(written / "3") == written / "checkpoints" / "3"


def test_steps_are_numbers_not_text(tmp_path):
    run = write(tmp_path, meta(9), meta(10), meta(100))
    assert kept(run) == [9, 10, 100]
    assert checkpoint.resolve(run).name == "100"


def test_a_path_that_leads_nowhere(written, tmp_path):
    for gone in (tmp_path / "gone", written / "4", written / "checkpoints" / "4"):
        assert failure(checkpoint.resolve, gone) == (
            f"no checkpoint at {gone}: it does not exist; "
            "give a run directory or a step inside one"
        )
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "file"
    file.touch()
    for empty in (tmp_path, file):
        assert failure(checkpoint.resolve, empty) == (
            f"no checkpoint in {empty}; give a run directory, a step inside "
            "one, or imported weights"
        )


# Damage.


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("item", "harm"),
    [
        ("params", truncate),
        ("params", garble),
        ("params", Path.unlink),
        ("preprocess", truncate),
        ("training", garble),
    ],
)
def test_damaged_weights(copied, item, harm):
    path = copied / "checkpoints" / "5"
    harm(largest_file(path / item))
    checkpoints = Checkpoints(copied, 3)

    def read_all():
        checkpoint.load(path, mesh(**ONE))
        checkpoints.restore(abstract(**ONE), 5)

    message = failure(read_all)
    assert message.startswith(f"checkpoint {path} is damaged or not of this network (")
    assert message.endswith("); use another step")
    assert "\n" not in message
    same(checkpoints.restore(abstract(**ONE), 3), some_state(**ONE))
    checkpoints.save(some_state(3, **ONE), some_preprocess(), meta(5))  # and again
    same(checkpoints.restore(abstract(**ONE), 5), some_state(3, **ONE))
    checkpoints.close()


@pytest.mark.parametrize("harm", [truncate, garble])
def test_a_damaged_record(copied, harm):
    path = copied / "checkpoints" / "5"
    harm(path / "_CHECKPOINT_METADATA")
    message = failure(checkpoint.read_meta, path)
    assert message.startswith(
        f"checkpoint {path} is damaged: its metadata cannot be read ("
    )
    assert message.endswith("); use another step")
    assert failure(checkpoint.load, copied, mesh(**ONE)) == message
    same(checkpoint.load(copied / "3", mesh(**ONE)).params, some_state(**ONE).params)


def rewrite_record(path, **values):
    file = path / "_CHECKPOINT_METADATA"
    record = json.loads(file.read_text())
    record["custom_metadata"].update(values)
    file.write_text(json.dumps(record))


def test_a_record_of_a_later_version(copied):
    path = copied / "checkpoints" / "5"
    wanted = (
        f"checkpoint {path} has format 3, this version reads up to 2; "
        "update alexnet-jax"
    )
    rewrite_record(path, format=3)
    assert failure(checkpoint.read_meta, path) == wanted
    rewrite_record(path, a_key_of_the_future=1)
    assert failure(checkpoint.read_meta, path) == wanted
    rewrite_record(path, format=1)  # a key too many in a version that is known
    assert "is damaged" in failure(checkpoint.read_meta, path)


def test_weights_of_another_network(copied):
    path = copied / "checkpoints" / "5"
    rewrite_record(path, classes=CLASSES[:9])
    assert "is damaged or not of this network" in failure(
        checkpoint.load, path, mesh(**ONE)
    )


def test_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    """Stands in for a full disk: Orbax has deleted the old when it cannot write."""
    checkpoints = Checkpoints(tmp_path, 3)
    checkpoints.save(some_state(1, **ONE), some_preprocess(), meta(4))

    def full(step, *_, **__):
        shutil.rmtree(tmp_path / "checkpoints" / str(step), ignore_errors=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._orbax, "save_checkpointables", full)
    wanted = (
        f"cannot save step {{}} in {tmp_path / 'checkpoints'}: [Errno 28] No space "
        "left on device; free some space or choose another --run-dir"
    )
    for step in (4, 5):  # over a good one, and a new one
        message = failure(
            checkpoints.save, some_state(2, **ONE), some_preprocess(), meta(step)
        )
        assert message == wanted.format(step)
    assert kept(tmp_path) == [4]
    same(checkpoints.restore(abstract(**ONE), 4), some_state(1, **ONE))
    checkpoints.close()


def test_a_dry_run_knows_the_size_of_a_checkpoint(digits_run, tmp_path):
    recipe = rundir.read_recipe(digits_run)
    planned = job.dry_run(recipe, tmp_path, devices=1)
    for step in checkpoint.steps_in(digits_run):
        files = [file for file in step.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        assert size == pytest.approx(planned.checkpoint_bytes, rel=0.15)
