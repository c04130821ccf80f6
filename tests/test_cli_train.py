"""``alexnet train``: what it writes, how it stops, and that it goes on exactly."""

import gc
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("compile_once")

TRAIN = (sys.executable, "-m", "alexnet_cli", "train")
SMALL = ("--devices", "1", "--towers", "1")
EPOCH = 1437 / 32  # steps


class Ran(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of ``--json``."""
        return [json.loads(line) for line in self.out.splitlines()]


Train = Callable[..., Ran]


@pytest.fixture
def train(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    unreported: None,
) -> Train:
    """Run ``alexnet train`` on one device in this process, in an empty folder."""
    from alexnet_cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main(["train", *map(str, arguments), *SMALL])
        code = ending.value.code
        assert isinstance(code, int)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """Start the real command as a process of its own, compiled as a user's is."""
    command = [*TRAIN, *map(str, arguments), *SMALL]
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
    }
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def wait_for(process: "subprocess.Popen[str]", event: str, step: int = 0) -> list[str]:
    """Read ``--json`` lines until an event has happened at or after a step."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        record = json.loads(line)
        if record["event"] == event and record.get("step", 0) >= step:
            return lines
    raise AssertionError(f"no {event}: {lines[-3:]}")


def arrays(run_dir: Path, step: int) -> dict[str, np.ndarray]:
    """Load all that a checkpoint holds of the training state."""
    import jax
    from orbax.checkpoint import v1 as ocp

    path = (run_dir / "checkpoints" / str(step)).resolve()
    with warnings.catch_warnings():
        # Orbax would rather be told the shardings; here it is to say what it holds.
        warnings.simplefilter("ignore", UserWarning)
        state = ocp.load_checkpointables(str(path))
    kept = {key: state[key] for key in ("params", "training", "preprocess")}
    leaves = jax.tree_util.tree_leaves_with_path(kept)
    return {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}


def assert_equal_runs(one: Path, other: Path, step: int) -> None:
    """Check two runs for the same state after ``step``, bit for bit."""
    first, second = arrays(one, step), arrays(other, step)
    assert first.keys() == second.keys()
    assert len(first) > 20
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)


# --- what a run says and leaves behind ----------------------------------------------


def test_json_and_profile(train: Train, tmp_path: Path) -> None:
    ran = train("digits", "--steps", 10, "--json", "--profile")
    assert ran.code == 0
    assert ran.err == ""
    events = ran.events
    names = [event["event"] for event in events]
    assert {"started", "step", "evaluated", "saved", "finished"} <= set(names)
    known = {"preparing", "dropped", "advice"}
    assert set(names) <= {"started", "step", "evaluated", "saved", "finished"} | known
    assert names.index("started") < names.index("step")
    by_name = {event["event"]: event for event in events}
    assert by_name["started"]["run_dir"] == str(tmp_path / "runs" / "digits-1")
    for key in ("step", "epoch", "loss", "top1_error", "learning_rate", "input_stall"):
        assert key in by_name["step"]
    last = events[-1]
    assert last["event"] == "finished"
    assert last["run_dir"] == str(tmp_path / "runs" / "digits-1")
    assert last["step"] == 10
    results = ("images", "top1_error", "top5_error", "log_prob", "views")
    for key in results:
        assert last[key] == by_name["evaluated"][key]
    assert last["images"] == 360
    assert list((tmp_path / "runs/digits-1/profile").rglob("*.xplane.pb"))


def test_for_people(train: Train, tmp_path: Path) -> None:
    """Bare ``alexnet train``: it says what it does and what to do next."""
    ran = train("--steps", 25)
    assert ran.code == 0
    assert "no RECIPE given: learning real handwritten digits" in ran.err
    assert "177,514 parameters" in ran.err
    assert "top-1 error" in ran.err
    assert max(map(len, ran.out.splitlines())) <= 80
    run_dir = tmp_path / "runs" / "digits-1"
    commands = [line[2:] for line in ran.out.splitlines() if "  alexnet" in line]
    sample = sorted((run_dir / "samples").iterdir())[0].relative_to(tmp_path)
    assert commands == [
        f"alexnet predict {sample} --ckpt runs/digits-1",
        "alexnet eval --ckpt runs/digits-1",
    ]
    for name in ("learning-curves.png", "filters.png"):
        assert f"runs/digits-1/figures/{name}" in ran.out
        assert (run_dir / "figures" / name).stat().st_size > 1000
    assert "\x1b" not in ran.out + ran.err  # no terminal, no colours

    # The next run gets a name of its own; none is ever overwritten.
    ran = train("digits", "--steps", 1, "--json")
    assert ran.events[-1]["run_dir"] == str(tmp_path / "runs" / "digits-2")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    ran = train("digits", "--steps", 1, "--run-dir", "runs/digits-2")
    assert ran.code == 1
    assert (
        "error: runs/digits-2 exists and is not overwritten; continue it with --resume "
        "--run-dir runs/digits-2, or choose another --run-dir"
    ) in ran.err
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_recipe_file_and_set(train: Train, tmp_path: Path) -> None:
    from alexnet_jax import recipes, rundir

    (tmp_path / "mine.toml").write_text(recipes.text("digits"))
    ran = train(
        *("mine.toml", "--steps", 1, "--seed", 3, "--epochs", 2, "--batch-size", 8),
        *("--set", "optimizer.momentum=0.5", "--set", "run.keep=1"),
        *("--set", "schedule.drops=[0.5]", "--eval-split", "test[:50]"),
    )
    assert ran.code == 0
    stored = rundir.read_recipe(tmp_path / "runs" / "mine-1")
    assert (stored.run.seed, stored.schedule.epochs, stored.run.keep) == (3, 2, 1)
    assert (stored.optimizer.batch_size, stored.optimizer.momentum) == (8, 0.5)
    assert stored.schedule.kind == "steps"
    assert stored.schedule.drops == (0.5,)
    assert stored.data.eval_split == "test[:50]"
    # What is stored is enough to repeat the run.
    assert recipes.load("runs/mine-1/recipe.toml") == stored


def test_dry_run_creates_nothing(train: Train, tmp_path: Path) -> None:
    ran = train("digits", "--dry-run")
    assert ran.code == 0
    for words in (
        "run          runs/digits-1",
        "32 x 32 x 32 x 1, read",
        "2,694 steps, 44.9 an epoch, 60 epochs",
        "for 3 checkpoints of",
        "free",
    ):
        assert words in ran.out
    assert list(tmp_path.iterdir()) == []
    ran = train("digits", "--dry-run", "--json")
    (planned,) = ran.events
    assert planned["event"] == "planned"
    assert planned["parameters"] == 177_514
    assert planned["first_batch"] == [32, 32, 32, 1]
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite(train: Train, tmp_path: Path) -> None:
    ran = train(
        *("digits", "--steps", 60, "--set", "optimizer.learning_rate=1e9"),
        *("--set", f"run.save_every={1 / EPOCH}", "--run-dir", "run"),
    )
    assert ran.code == 1
    (line,) = (line for line in ran.err.splitlines() if line.startswith("error: "))
    assert re.search(r"the loss is (nan|inf) at step \d+", line)
    assert "lower optimizer.learning_rate" in line
    named = re.search(r"\(last checkpoint: (run/checkpoints/\d+)\)", line)
    assert named
    for value in arrays(tmp_path / "run", int(named[1].rpartition("/")[2])).values():
        assert np.isfinite(value).all()


# --- going on -----------------------------------------------------------------------


def test_resume_an_empty_place_starts_at_0(train: Train, tmp_path: Path) -> None:
    ran = train("--resume", "--steps", 1)
    assert ran.code == 0
    assert "nothing to resume in ./runs: starting at step 0" in ran.err
    (tmp_path / "empty").mkdir()
    ran = train("digits", "--resume", "--run-dir", "empty", "--steps", 2, "--json")
    assert ran.code == 0
    assert "nothing to resume in empty: starting at step 0" in ran.err
    assert ran.events[-1]["step"] == 2


def test_resume_goes_on_and_ends(train: Train, tmp_path: Path) -> None:
    """The newest run, by its own recipe; a finished one says so."""
    options = ("--epochs", 1, "--seed", 5, "--set", "schedule.drops=[0.5]")
    options += ("--train-split", "train[:704]")  # 22 batches
    assert train("digits", "--steps", 5, *options).code == 0
    ran = train("--resume", "--steps", 10, "--json")
    assert ran.code == 0
    assert "continuing the newest run, runs/digits-1" in ran.err
    started = next(event for event in ran.events if event["event"] == "started")
    steps = (started["step"], started["end_step"], started["total_steps"])
    assert steps == (5, 10, 22)
    ran = train("digits", "--resume", "--json")  # to the end of the schedule
    assert ran.events[-1]["step"] == 22
    ran = train("--resume", "--run-dir", "runs/digits-1")
    assert ran.code == 0
    assert "runs/digits-1 is finished: step 22; nothing to do" in ran.out
    ran = train("--resume", "--json")
    assert ran.code == 0
    assert ran.events[-1]["already"] is True
    assert ran.events[-1]["images"] == 360

    assert train("digits", "--run-dir", "whole", *options).code == 0
    assert_equal_runs(tmp_path / "runs" / "digits-1", tmp_path / "whole", 22)
    rows = [
        (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        for name in ("runs/digits-1", "whole")
    ]
    resumed, straight = (
        {row["step"]: row["loss"] for row in map(json.loads, lines) if "loss" in row}
        for lines in rows
    )
    assert resumed[20] == straight[20]


def test_resume_with_other_values_is_refused(train: Train, tmp_path: Path) -> None:
    assert train("digits", "--steps", 2, "--run-dir", "run").code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json*")}
    for options, words in {
        ("--seed", "1"): "run.seed: 0 -> 1",
        ("--batch-size", "16"): "optimizer.batch_size: 32 -> 16",
        ("--precision", "bf16"): "run.precision: f32 -> bf16",
        ("--epochs", "3"): "schedule.epochs: 60.0 -> 3.0",
        ("--set", "run.keep=1"): "run.keep: 3 -> 1",
    }.items():
        ran = train("--resume", "--run-dir", "run", *options)
        assert ran.code == 1
        assert "error: --resume with other values than the run's" in ran.err
        assert words in ran.err
    ran = train("cifar10-quick", "--resume", "--run-dir", "run")
    assert ran.code == 1
    assert "error: run is a run of the recipe digits, not of cifar10-quick" in ran.err
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json*")}
    assert before == after
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # killed before the first save
    ran = train("--resume", "--run-dir", "run", "--steps", 2, "--json")
    assert ran.code == 0
    assert ran.events[-1]["step"] == 2
    (tmp_path / "run" / "recipe.toml").write_text("name = ")
    ran = train("--resume", "--run-dir", "run")
    assert ran.code == 1
    assert "recipe.toml is damaged" in ran.err


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_resume_past_a_damaged_checkpoint(train: Train, tmp_path: Path) -> None:
    saves = ("--set", f"run.save_every={4 / EPOCH}")
    assert train("digits", "--steps", 8, "--run-dir", "run", *saves).code == 0
    assert train("digits", "--steps", 8, "--run-dir", "whole", *saves).code == 0
    for path in (tmp_path / "run" / "checkpoints" / "8").rglob("d/*"):
        path.write_bytes(b"")
    ran = train("--resume", "--run-dir", "run", "--steps", 8, "--json")
    assert ran.code == 0, ran.err
    advice = [event["what"] for event in ran.events if event["event"] == "advice"]
    assert advice == ["checkpoint 8 is damaged; continuing from an earlier one"]
    assert_equal_runs(tmp_path / "run", tmp_path / "whole", 8)
    gc.collect()  # Orbax leaves coroutines behind that nothing awaits


# --- signals and kills --------------------------------------------------------------


def test_signals_and_kills_lose_nothing(tmp_path: Path) -> None:
    """SIGINT, kill -9 while it saves, SIGTERM: the same end as without them."""
    path, whole = tmp_path / "run", tmp_path / "whole"
    length = ("--steps", 60, "--json")
    often = ("--set", f"run.save_every={2 / EPOCH}")
    process = start("digits", "--run-dir", path, *length, *often)
    other = start("digits", "--run-dir", whole, *length)
    resume = ("--resume", "--run-dir", path, *length)

    wait_for(process, "step", 10)
    done = interrupted(process, signal.SIGINT, 130)
    assert 10 <= done < 60
    process = start(*resume)
    wait_for(process, "saved", done + 4)
    time.sleep(random.uniform(0, 0.2))  # somewhere in a step or a save
    process.kill()
    process.communicate(timeout=180)
    process = start(*resume)
    started = json.loads(wait_for(process, "started")[-1])
    assert started["step"] >= done + 4
    wait_for(process, "step", started["step"] + 1)
    done = interrupted(process, signal.SIGTERM, 143)
    assert started["step"] < done < 60
    process = start(*resume)
    for each in (process, other):
        out, err = each.communicate(timeout=300)
        assert each.returncode == 0, err
        assert json.loads(out.splitlines()[-1])["step"] == 60
    assert_equal_runs(path, whole, 60)
    rows = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    steps = [row["step"] for row in rows if "loss" in row]
    assert all(one < other for one, other in itertools.pairwise(steps))


def interrupted(
    process: "subprocess.Popen[str]", number: signal.Signals, code: int
) -> int:
    """Send a signal, check how the run ends, return the step it has saved."""
    process.send_signal(number)
    out, err = process.communicate(timeout=180)
    assert process.returncode == code
    assert f"{number.name}: finishing the step, then saving" in err
    assert "Traceback" not in err
    last = json.loads(out.splitlines()[-1])
    assert last["event"] == "finished"
    assert last["interrupted"] is True
    command = err.splitlines()[-1].split()
    assert command[:4] == ["alexnet", "train", "--resume", "--run-dir"]
    assert command[5:] == [*SMALL, "--steps", "60"]
    return last["step"]


def test_a_signal_before_the_first_step_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = start("digits", "--run-dir", path, "--json")
    wait_for(process, "preparing")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"alexnet train --resume --run-dir {path}" in err


def test_a_second_interrupt_says_that_it_is_saving() -> None:
    """The handler itself: a real save is over before a second key press."""
    from alexnet_cli.interrupt import Stop

    said = []

    class Screen:
        """Takes down what would be shown."""

        interrupt = staticmethod(said.append)

    stop = Stop()
    before = signal.getsignal(signal.SIGINT)
    with stop.listening(Screen()):  # pyright: ignore[reportArgumentType]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # nothing to save yet
        stop.signal, stop.armed = None, True
        signal.raise_signal(signal.SIGINT)
        assert stop.asked()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.exit_code == 130
    assert said == [
        "SIGINT: finishing the step, then saving",
        "saving; Ctrl-C once more quits without",
    ]
    assert signal.getsignal(signal.SIGINT) is before


def test_other_pictures_are_learned_from_weights_that_are_there(
    train, digits_run, tmp_path
):
    draw = np.random.default_rng(0)
    for number in range(12):
        split, kind = ("train", "val")[number % 3 == 0], ("cat", "dog")[number % 2]
        path = tmp_path / "photos" / split / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    weights = ("--init-from", digits_run)
    ran = train(
        *(*weights, "--data", "folder:photos", "--freeze", "conv1, conv2"),
        *("--steps", 2, "--batch-size", 4, "--json"),
    )
    assert ran.code == 0, ran.err
    advice = [event["what"] for event in ran.events if event["event"] == "advice"]
    assert advice == [
        f"weights from {digits_run / 'checkpoints' / '60'} (digits, step 60); fc5 is "
        "drawn anew: 10 classes there, 2 or others here"
    ]
    recipe = Path(ran.events[-1]["run_dir"]) / "recipe.toml"
    values = tomllib.loads(recipe.read_text())
    assert (values["name"], values["network"]) == ("finetune", "digits")
    assert values["schedule"]["freeze"] == {"conv1": 0, "conv2": 0}
    assert values["run"]["init_from"] == str(digits_run)

    without = train(*weights)
    assert without.code == 2
    assert "--init-from needs --data or a RECIPE to learn" in without.err
    unknown = train(*weights, "--data", "folder:photos", "--freeze", "conv9")
    assert unknown.code == 1
    assert "schedule.freeze: digits has no layer 'conv9'" in unknown.err
