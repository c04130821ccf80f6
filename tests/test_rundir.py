"""A run's directory: names, one writer, rows that survive a kill, TensorBoard."""

import json
import os
import struct
import subprocess
import sys
import textwrap

import pytest
from tensorboardX.proto import event_pb2

from alexnet_jax import recipes, rundir
from alexnet_jax.errors import CheckpointError, ConfigError
from alexnet_jax.evaluate import Result
from alexnet_jax.events import Evaluated, StepDone
from alexnet_jax.rundir import RunDir

TensorBoardEvent = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue] # generated
RECIPE = recipes.load("digits", {"run.seed": 5, "schedule.freeze.conv1": 0.5})


def done(step, loss=1.5):
    return StepDone(
        step=step,
        epoch=step / 3,
        loss=loss,
        top1_error=0.25,
        top5_error=0.125,
        learning_rate=0.01,
        images_per_second=100.0,
        input_stall=0.5,
        seconds_left=1.0,
        row=True,
    )


def evaluated(step):
    return Evaluated(
        step=step,
        epoch=step / 3,
        split="digits test",
        result=Result(360, 0.1, 0.01, -0.3, 1),
        update_ratios={"conv1": 0.001, "fc5": 0.002},
    )


def rows(path):
    return list(rundir.read_metrics(path))


def steps_of(path):
    return [(row["step"], row["split"], "loss" in row) for row in rows(path)]


def failure(work, *arguments):
    with pytest.raises(CheckpointError) as raised:
        work(*arguments)
    return str(raised.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "digits-1"


# Names.


def test_the_next_name_is_above_all_there_are(tmp_path):
    assert rundir.next_name(tmp_path, "digits") == tmp_path / "digits-1"
    assert rundir.next_name(tmp_path / "gone", "digits").name == "digits-1"
    for name in ("digits-2", "digits-10", "digits-x", "digits-10-old", "imagenet-70"):
        (tmp_path / name).mkdir()
    (tmp_path / "digits-11").touch()  # a file takes a name too
    assert rundir.next_name(tmp_path, "digits").name == "digits-12"
    assert rundir.next_name(tmp_path, "imagenet").name == "imagenet-71"


def test_runs_are_listed_by_when_they_were_last_written_to(tmp_path):
    for when, name in enumerate(["b", "c", "a"]):
        with RunDir.create(tmp_path / name, RECIPE) as run:
            run.write(done(1))
        os.utime(tmp_path / name / "metrics.jsonl", (when, when))
    (tmp_path / "other").mkdir()
    assert [run.name for run in rundir.runs(tmp_path)] == ["b", "c", "a"]
    os.utime(tmp_path / "b" / "metrics.jsonl", (9, 9))
    assert rundir.runs(tmp_path)[-1].name == "b"


# Creation.


def test_the_recipe_in_it_repeats_the_run(path):
    with RunDir.create(path, RECIPE):
        assert rundir.is_run(path)
    assert rundir.read_recipe(path) == RECIPE
    assert recipes.load(str(path / "recipe.toml")) == RECIPE


@pytest.mark.parametrize("what", ["run", "folder", "file"])
def test_nothing_is_overwritten(path, what):
    if what == "run":
        RunDir.create(path, RECIPE).__exit__()
    elif what == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        path.write_text("mine")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in path.parent.rglob("*"))
    assert failure(RunDir.create, path, RECIPE) == (
        f"{path} exists and is not overwritten; continue it with --resume "
        f"--run-dir {path}, or choose another --run-dir"
    )
    after = sorted((p.name, p.stat().st_mtime_ns) for p in path.parent.rglob("*"))
    assert after == before


def test_an_empty_folder_will_do(path):
    path.mkdir()
    with RunDir.create(path, RECIPE):
        assert rundir.is_run(path)


def test_a_place_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "run"
    assert failure(RunDir.create, inside, RECIPE) == (
        f"cannot make run directory {inside}: Not a directory; choose another --run-dir"
    )


def test_what_is_not_a_run(path):
    path.mkdir()
    assert failure(rundir.read_recipe, path) == (
        f"{path} is not a run directory (it has no recipe.toml); "
        "name one that alexnet train made"
    )
    (path / "recipe.toml").write_text("name = ")
    assert failure(rundir.read_recipe, path).startswith(
        f"{path / 'recipe.toml'} is damaged: "
    )


def test_continuing_as_another_run_is_refused_value_by_value():
    rundir.check_same(RECIPE, RECIPE)
    changed = recipes.load(
        "digits",
        {"run.seed": 6, "run.steps": 9, "data.dir": "/d", "eval.batch_size": 7},
    )
    with pytest.raises(ConfigError) as raised:
        rundir.check_same(RECIPE, changed)
    assert str(raised.value) == (
        "--resume with other values than the run's: eval.batch_size: 120 -> 7; "
        "run.seed: 5 -> 6; schedule.freeze.conv1: 0.5 -> None; "
        "leave them out, or start a new run"
    )


# One writer.


def in_use(path):
    return (
        f"{path} is in use by another process; wait for it, or choose another --run-dir"
    )


def test_a_second_holder_is_refused(path):
    with RunDir.create(path, RECIPE):
        assert failure(RunDir, path) == in_use(path)
    RunDir(path).__exit__()  # free again


def test_another_process_is_refused_until_the_first_is_gone(path):
    RunDir.create(path, RECIPE).__exit__()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import fcntl, sys
                lock = open(sys.argv[1], "w")
                fcntl.flock(lock, fcntl.LOCK_EX)
                print("held", flush=True)
                sys.stdin.read()
                """
            ),
            path / ".lock",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert failure(RunDir, path) == in_use(path)
        holder.kill()  # a lock that a kill leaves behind would be worse than none
    RunDir(path).__exit__()


# Rows.


def test_a_step_is_a_row_and_a_test_is_two(path):
    with RunDir.create(path, RECIPE) as run:
        run.write(done(1))
        run.write(evaluated(1))
    assert rows(path) == [
        {
            "split": "train",
            "step": 1,
            "epoch": 0.333333,
            "loss": 1.5,
            "top1_error": 0.25,
            "learning_rate": 0.01,
            "images_per_second": 100.0,
            "input_stall": 0.5,
        },
        {
            "split": "train",
            "step": 1,
            "epoch": 0.333333,
            "update_ratios": {"conv1": 0.001, "fc5": 0.002},
        },
        {
            "split": "eval",
            "step": 1,
            "epoch": 0.333333,
            "images": 360,
            "top1_error": 0.1,
            "top5_error": 0.01,
            "log_prob": -0.3,
            "views": 1,
        },
    ]


def test_a_run_without_rows_has_none(path):
    RunDir.create(path, RECIPE).__exit__()
    assert rows(path) == []
    with RunDir(path) as run:
        run.forget_after(0)
    assert rows(path) == []


def test_a_last_line_that_a_kill_cut_is_left_out_and_then_gone(path):
    with RunDir.create(path, RECIPE) as run:
        run.write(done(1))
        run.write(done(2))
    file = path / "metrics.jsonl"
    whole = file.read_text()
    for cut in range(whole.index("\n") + 1, len(whole)):
        file.write_text(whole[:cut])
        assert [row["step"] for row in rows(path)] == [1]
    with RunDir(path) as run:
        run.forget_after(1)
        run.write(done(2))
    assert [row["step"] for row in rows(path)] == [1, 2]
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_what_will_be_written_again_is_forgotten(path):
    with RunDir.create(path, RECIPE) as run:
        for event in (done(10), done(20), evaluated(20), done(30), evaluated(30)):
            run.write(event)
    everything = steps_of(path)
    with RunDir(path) as run:
        run.forget_after(30)
        assert steps_of(path) == everything
        run.forget_after(29)
        assert steps_of(path) == everything[:4]
        # The checkpoint of step 20 was saved before its test: that comes again.
        run.forget_after(20, tested=False)
        assert steps_of(path) == everything[:2]
        run.forget_after(0)
        assert steps_of(path) == []


def test_a_full_disk(path, monkeypatch):
    """Stands in for a full disk: /dev/full fails as one does."""
    with RunDir.create(path, RECIPE) as run:
        (path / "metrics.jsonl").symlink_to("/dev/full")
        assert failure(run.write, done(1)) == (
            f"cannot write to {path}: No space left on device; free some space, "
            f"then continue with --resume --run-dir {path}"
        )


# TensorBoard.


def crc32c(data):
    """The checksum of RFC 3720, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def tensorboard(path):
    """Read TensorBoard's record format: length, its sum, data, its sum."""
    events = []
    for file in sorted((path / "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert struct.unpack("<I", data[8:12]) == (masked(data[:8]),)
            record, rest = data[12 : 12 + length], data[12 + length :]
            assert struct.unpack("<I", rest[:4]) == (masked(record),)
            events.append(TensorBoardEvent.FromString(record))
            data = rest[4:]
    return events


def scalars(path):
    return {
        (value.tag, event.step): value.simple_value
        for event in tensorboard(path)
        for value in event.summary.value
    }


def test_the_checksum_is_the_one_of_the_rfc():
    assert crc32c(b"123456789") == 0xE3069283


def test_tensorboard_reads_the_same_numbers(path):
    with RunDir.create(path, RECIPE) as run:
        run.write(done(20))
        run.write(evaluated(20))
    assert scalars(path) == pytest.approx(
        {
            ("train/loss", 20): 1.5,
            ("train/top1_error", 20): 0.25,
            ("train/learning_rate", 20): 0.01,
            ("train/images_per_second", 20): 100.0,
            ("train/input_stall", 20): 0.5,
            ("train/update_ratios/conv1", 20): 0.001,
            ("train/update_ratios/fc5", 20): 0.002,
            ("eval/top1_error", 20): 0.1,
            ("eval/top5_error", 20): 0.01,
            ("eval/log_prob", 20): -0.3,
        }
    )


def test_tensorboard_is_told_what_is_written_again(path):
    with RunDir.create(path, RECIPE) as run:
        run.write(done(20))
        run.write(done(40))
    with RunDir(path) as run:
        run.forget_after(20)
        run.write(done(40, loss=1.25))
    # TensorBoard drops what came before a start record and has its step or a later one.
    kept = {}
    for event in tensorboard(path):
        if event.HasField("session_log"):
            kept = {key: value for key, value in kept.items() if key[1] < event.step}
        for value in event.summary.value:
            kept[value.tag, event.step] = value.simple_value
    losses = {step: loss for (tag, step), loss in kept.items() if tag == "train/loss"}
    assert losses == {20: 1.5, 40: 1.25}
    starts = [
        event.step for event in tensorboard(path) if event.HasField("session_log")
    ]
    assert starts == [21]


def test_free_space_of_a_place_that_is_not_there_yet(tmp_path):
    free = rundir.free_bytes(tmp_path / "not" / "there")
    assert free == pytest.approx(rundir.free_bytes(tmp_path), rel=0.05)
    assert free > 0
