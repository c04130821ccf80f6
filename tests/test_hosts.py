"""Many processes: what they agree on, and real ones, with two devices each."""

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax import checkpoint, hosts, job, mesh, recipes, rundir
from alexnet_jax.data import ArraySource
from alexnet_jax.errors import AlexNetError, CheckpointError, ConfigError
from alexnet_jax.events import Finished, StepDone
from alexnet_jax.networks import DIGITS
from alexnet_jax.train import fit

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ("--set", "run.save_every=0.2", "--set", "eval.batch_size=100")


def refused(message):
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


def test_flags_that_cannot_be():
    hosts.check_flags(None, None, None)
    hosts.check_flags("10.0.0.1:1234", 2, 1)
    together = "--coordinator, --processes, --process-id go together; "
    with refused(together + "--process-id is missing"):
        hosts.check_flags("here:1", 2, None)
    with refused(together + "--coordinator and --processes are missing"):
        hosts.check_flags(None, None, 0)
    with refused("--process-id 2: 2 processes are numbered 0 to 1"):
        hosts.check_flags("here:1", 2, 2)
    with refused("--processes 0: give 1 or more"):
        hosts.check_flags("here:1", 0, 0)
    for wrong in ("here", "here:", ":80", "here:0", "here:65536", "here:x"):
        with refused(
            f"--coordinator {wrong}: give process 0's HOST:PORT, such as 10.0.0.1:1234"
        ):
            hosts.check_flags(wrong, 2, 0)


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with refused(
            f"--coordinator localhost:{port}: process 0 cannot open port {port} "
            "(Address already in use); another process 0 may be running, or choose "
            "another port"
        ):
            hosts.join(f"localhost:{port}", 2, 0, timeout=1)


def test_alone_everything_is_what_it_says():
    assert hosts.count() == 1
    assert hosts.leader()
    assert hosts.gather("here") == ["here"]
    assert hosts.first(lambda: 5) == hosts.together(lambda: 5) == 5
    with pytest.raises(ConfigError, match="no"):
        hosts.first(lambda: (_ for _ in ()).throw(ConfigError("no")))
    hosts.check_same({"seed": 1})


@pytest.fixture
def second_of_two(monkeypatch):
    """Make this process the second of two; the first says what the test wants."""
    said = []
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "leader", lambda: False)
    monkeypatch.setattr(hosts, "gather", lambda text: [said.pop(0), text])
    return said


def test_what_differs_is_named(second_of_two):
    second_of_two.append(json.dumps({"run.seed": 3, "images": 10, "jax": "1"}))
    with refused(
        "process 1 was started with images 9, process 0 with 10; start all processes "
        "alike"
    ) as caught:
        hosts.check_same({"run.seed": 4, "images": 9, "jax": "1"})
    assert caught.value.everywhere


def test_recipe_data_devices_and_versions_are_compared():
    planned = job.plan_job(recipes.load("digits"), 2, None)
    train = planned.dataset.train
    assert isinstance(train, ArraySource)
    turned = dataclasses.replace(train, images=train.images[::-1])
    other = dataclasses.replace(
        planned, dataset=dataclasses.replace(planned.dataset, train=turned)
    )
    facts, theirs = job.facts(planned), job.facts(other)
    assert facts["run.seed"] == 0
    assert facts["images in digits train"] == 1437
    assert facts["devices"] == mesh.describe(planned.mesh)
    assert "jax" in facts
    assert "data.dir" not in facts  # may differ from host to host
    assert {name for name in facts if facts[name] != theirs[name]} == {
        "pictures of digits train with checksum"
    }


def test_process_0_decides_for_all(second_of_two):
    second_of_two.append(json.dumps({"value": "runs/digits-7"}))
    assert hosts.first(lambda: pytest.fail("only process 0")) == "runs/digits-7"
    second_of_two.append(json.dumps({"error": "CheckpointError", "text": "is in use"}))
    with pytest.raises(CheckpointError, match=r"^is in use$") as caught:
        hosts.first(lambda: pytest.fail("only process 0"))
    assert caught.value.everywhere


def test_where_one_fails_all_do(second_of_two):
    second_of_two.append("")
    assert hosts.together(lambda: 7) == 7
    second_of_two.append(json.dumps(["DataError", "no such folder"]))
    with pytest.raises(AlexNetError, match=r"^process 0: no such folder$"):
        hosts.together(lambda: 7)
    second_of_two.append("")
    with pytest.raises(KeyError, match="mine"):  # one's own stays what it is
        hosts.together(lambda: {}["mine"])


def test_devices_of_every_process_take_part():
    @dataclasses.dataclass(frozen=True)
    class Far:
        id: int
        process_index: int
        platform: str = "gpu"

    available = [Far(n, n // 2) for n in range(4)]
    with refused(
        "--devices 2 leaves process 1 without one; leave --devices out, or start fewer "
        "processes"
    ):
        mesh.make_mesh(DIGITS, devices=2, available=available)


def test_onlookers_write_nothing(tmp_path, second_of_two):
    recipe = recipes.load("digits")
    rundir.RunDir.create(tmp_path / "run", recipe).__exit__()
    second_of_two += ["", json.dumps({"value": str(tmp_path / "run")}), ""]
    with rundir.open_run(Path("elsewhere"), recipe, resume=False) as run:
        assert run.path == tmp_path / "run"
        run.forget_after(0)
        run.write(StepDone(1, 0.1, 2.0, 0.5, 0.1, 0.01, 9.0, 0.0, 1.0, row=True))
    assert sorted(p.name for p in run.path.iterdir()) == [".lock", "recipe.toml"]


def test_a_run_directory_that_is_not_shared(tmp_path, second_of_two, monkeypatch):
    monkeypatch.setattr(rundir, "_SEEN_SECONDS", 1)
    monkeypatch.setattr(hosts, "names", lambda: ["node7", "node8"])
    second_of_two += ["", json.dumps({"value": str(tmp_path / "run")}), ""]
    with pytest.raises(
        CheckpointError,
        match=r"run is not to be seen on node7; --run-dir must lie in a folder that "
        "all hosts share$",
    ):
        rundir.open_run(tmp_path, recipes.load("digits"), resume=False)


class Processes:
    """The command, started several times at once."""

    def __init__(self, folder, count, *arguments, ids=None, by="flags", each=()):
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.folder, self.started = folder, []
        for place, process in enumerate(range(count) if ids is None else ids):
            words = [sys.executable, "-m", "alexnet_cli", "train", *arguments]
            environment = {
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'cli'}",
                "JAX_NUM_CPU_DEVICES": "2",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
            }
            if by == "flags":
                words += ["--coordinator", f"localhost:{port}", "--processes"]
                words += [str(count), "--process-id", str(process)]
            else:
                environment |= {
                    "SLURM_JOB_ID": str(port),  # JAX makes the port of it
                    "SLURM_STEP_NODELIST": "localhost",
                    "SLURM_NTASKS": str(count),
                    "SLURM_PROCID": str(process),
                    "SLURM_LOCALID": str(process),
                }
            if each:
                words += each[place]
            with (
                open(folder / f"out{place}", "w") as out,
                open(folder / f"err{place}", "w") as err,
            ):
                begun = subprocess.Popen(
                    words, env=environment, stdout=out, stderr=err, cwd=folder
                )
            self.started.append(begun)

    def wait(self, seconds=300):
        end = time.monotonic() + seconds
        return [p.wait(max(1, end - time.monotonic())) for p in self.started]

    def out(self, place):
        return (self.folder / f"out{place}").read_text()

    def err(self, place):
        return (self.folder / f"err{place}").read_text()

    def worker(self, place):
        pid = self.started[place].pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def until(self, there):
        for _ in range(3600):
            if there():
                return
            assert all(p.poll() is None for p in self.started), self.err(0)
            time.sleep(0.05)
        pytest.fail(f"nothing came of it: {self.err(0)}")


@pytest.fixture(autouse=True)
def _end_what_was_started(monkeypatch):
    started = []
    begin = Processes.__init__

    def remember(self, *arguments, **options):
        begin(self, *arguments, **options)
        started.append(self)

    monkeypatch.setattr(Processes, "__init__", remember)
    yield
    for process in (p for group in started for p in group.started):
        if process.poll() is None:
            process.kill()  # its worker follows
            process.wait()


def last_params(run, step):
    last = checkpoint.steps_in(run)[-1]
    assert last.name == str(step)
    loaded = checkpoint.load(last, mesh.make_mesh(DIGITS, devices=1))
    return jax.tree.map(np.asarray, loaded.params)


def farthest(actual, expected):
    distances = jax.tree.map(
        lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b), actual, expected
    )
    return max(jax.tree.leaves(distances))


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.slow
def test_processes_carry_one_run_whatever_becomes_of_them(tmp_path):
    run = tmp_path / "run"
    endless = ("--steps", "100000", "--run-dir", str(run))

    # Ctrl-C in one process: all save the same step.
    group = Processes(tmp_path / "1", 2, "digits", *OPTIONS, *endless)
    group.until((run / "metrics.jsonl").exists)
    group.started[1].send_signal(signal.SIGINT)
    assert group.wait() == [143, 130], group.err(0) + group.err(1)
    stopped = checkpoint.steps_in(run)
    assert f"saved step {stopped[-1].name}; continue with" in group.err(0)
    assert "SIGINT: all processes finish the step, then save" in group.err(1)

    # One worker is killed: the other's parent says which process died.
    group = Processes(tmp_path / "2", 2, "--resume", *endless)
    group.until(lambda: checkpoint.steps_in(run)[-1] not in stopped)
    os.kill(group.worker(1), signal.SIGKILL)
    assert group.wait(60) == [1, 1]
    host = socket.gethostname()
    go_on = f"start all processes again with --resume --run-dir {run}"
    assert group.err(0).splitlines()[-1] == (
        f"error: process 1 on {host} died or cannot be reached any more; {go_on}"
    )
    assert group.err(1).splitlines() == [
        "error: this process, 1, was killed (SIGKILL), perhaps for want of memory; "
        + go_on
    ]

    # Resumed by as many processes, this time without flags; and by four.
    end = int(checkpoint.steps_in(run)[-1].name) + 20
    shutil.copytree(run, tmp_path / "other")
    until = ("--resume", "--steps", str(end), "--run-dir")
    group = Processes(tmp_path / "3", 2, *until, str(run), by="slurm")
    assert group.wait() == [0, 0], group.err(0)
    group = Processes(tmp_path / "4", 4, *until, str(tmp_path / "other"))
    assert group.wait() == [0] * 4, group.err(0)
    assert "8 devices (cpu) of 4 processes: 4 x data, one tower" in group.err(0)

    # A run that never stopped. Only process 0 prints: events, and nothing else.
    straight = ("--steps", str(end), "--run-dir", "straight", "--json")
    group = Processes(tmp_path, 2, "digits", *OPTIONS, *straight)
    assert group.wait() == [0, 0], group.err(0)
    assert group.out(1) == group.err(1) == ""
    events = [json.loads(line) for line in group.out(0).splitlines()]
    (started,) = (event for event in events if event["event"] == "started")
    assert started["mesh"] == (
        "4 devices (cpu) of 2 processes: 2 x data, one tower on each of two devices"
    )
    assert events[-1]["event"] == "finished"
    # Every held-out picture counts once, though 100 do not divide 360.
    tests = [event for event in events if event["event"] == "evaluated"]
    assert {event["images"] for event in tests} == {360}
    assert {path.name for path in (tmp_path / "straight" / "figures").iterdir()} == {
        "filters.png",
        "learning-curves.png",
    }

    # Bit for bit on as many processes; the order of summation on others, or on one.
    recipe = recipes.load(str(tmp_path / "straight" / "recipe.toml"))
    *_, finished = fit(recipe, tmp_path / "alone", devices=4)
    wanted = last_params(tmp_path / "straight", end)
    jax.tree.map(np.testing.assert_array_equal, last_params(run, end), wanted)
    assert farthest(last_params(tmp_path / "other", end), wanted) < 1e-4
    assert farthest(last_params(tmp_path / "alone", end), wanted) < 1e-4
    assert isinstance(finished, Finished)
    assert finished.result is not None
    assert abs(finished.result.log_prob - events[-1]["log_prob"]) < 1e-4
    rows = [[*rundir.read_metrics(tmp_path / name)] for name in ("run", "straight")]
    losses = [{r["step"]: r["loss"] for r in each if "loss" in r} for each in rows]
    assert losses[0].items() >= {s: v for s, v in losses[1].items() if s < end}.items()


@pytest.mark.slow
def test_starts_that_cannot_be(tmp_path):
    def line(group, place):
        (said,) = (x for x in group.err(place).splitlines() if x.startswith("error:"))
        return said.removeprefix("error: ")

    # All three at once: most of it is waiting.
    other_seed = Processes(
        tmp_path / "seed", 2, "digits", each=[["--seed", "3"], ["--seed", "4"]]
    )
    same_id = Processes(
        tmp_path / "id", 2, "digits", "--wait", "20", "--run-dir", "x", ids=[0, 1, 1]
    )
    alone = Processes(tmp_path / "alone", 2, "digits", "--wait", "2", ids=[1])
    assert other_seed.wait() == [1, 1]
    for place in (0, 1):
        assert line(other_seed, place) == (
            "process 1 was started with run.seed 4, process 0 with 3; start all "
            "processes alike"
        )
    assert not list((tmp_path / "seed").glob("runs/*"))
    assert alone.wait() == [1]
    assert re.fullmatch(
        r"coordinator localhost:\d+ does not answer after 2 s \(Connection refused\); "
        "start process 0 there, and look at the address and the firewall",
        line(alone, 0),
    )
    assert same_id.wait() == [1, 1, 1]
    said = [line(same_id, place) for place in range(3)]
    assert any(
        "two processes call themselves process 1, or it has been started again" in text
        for text in said
    )
