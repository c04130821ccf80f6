"""A study's runs: done once, continued where they stopped, one a device at a time."""

import dataclasses
import json
from pathlib import Path

import pytest

from alexnet_jax import recipes, rundir
from alexnet_jax.errors import ConfigError, DataError
from alexnet_jax.studies import runs
from alexnet_jax.studies.runs import Done, Failed, Going, Stopped, Trial

pytestmark = pytest.mark.usefixtures("compile_once")


def trial(name: str, values: dict[str, object] | None = None) -> Trial:
    return Trial(name, recipes.load("digits", {"run.steps": 2, **(values or {})}))


def loss(recipe, run_dir: Path) -> dict[str, float]:
    *_, last = rundir.read_metrics(run_dir)
    return {"seed": recipe.run.seed, "error": last["top1_error"]}


def test_what_is_done_is_kept(tmp_path):
    two = [trial("one"), trial("two", {"run.seed": 1})]
    told = list(runs.carry_out(two[:1], tmp_path, loss))
    assert isinstance(told[0], Going)
    first = told[-1]
    assert isinstance(first, Done)
    assert first.measured["seed"] == 0
    before = (tmp_path / "one/metrics.jsonl").stat().st_mtime_ns
    told = list(runs.carry_out(two, tmp_path, loss))
    assert told[0] == dataclasses.replace(first, kept=True)
    assert {each.trial.name for each in told[1:]} == {"two"}
    assert (tmp_path / "one/metrics.jsonl").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "two/measured.json").read_text())["seed"] == 1


def test_what_was_stopped_goes_on(tmp_path):
    asked = iter([False, False, True])  # before the trial, before its first step

    def stop() -> bool:
        return next(asked, True)

    two = [trial("one", {"run.steps": 3}), trial("two", {"run.steps": 3})]
    told = list(runs.carry_out(two, tmp_path, loss, stop=stop))
    assert told[-1] == Stopped(two[0])
    assert not (tmp_path / "two").exists()
    *_, done = runs.carry_out(two[:1], tmp_path, loss)
    assert isinstance(done, Done)
    *_, straight = runs.carry_out([trial("other", {"run.steps": 3})], tmp_path, loss)
    assert isinstance(straight, Done)
    assert done.measured == straight.measured


def test_another_recipe_under_the_same_name(tmp_path):
    *_, _ = runs.carry_out([trial("one")], tmp_path, loss)
    other = [trial("one", {"optimizer.learning_rate": 0.5})]
    with pytest.raises(ConfigError) as raised:
        list(runs.carry_out(other, tmp_path, loss))
    assert str(raised.value) == (
        f"{tmp_path / 'one'} is a run of other values: "
        "optimizer.learning_rate: 0.01 -> 0.5; give the same, or choose another --out"
    )


def test_a_loss_that_is_no_number_is_a_finding(tmp_path):
    wild = trial("wild", {"optimizer.learning_rate": 1e30})
    told = list(runs.carry_out([wild, trial("tame")], tmp_path, loss))
    (failed,) = [each for each in told if isinstance(each, Failed)]
    assert failed.trial == wild
    assert failed.reason.startswith("the loss is nan at step 2; no checkpoint was")
    assert isinstance(told[-1], Done)


def test_devices_that_are_not_there():
    with pytest.raises(ConfigError) as raised:
        runs.choose_devices(3)
    assert str(raised.value) == (
        "--devices 3: 1 run at a time can be carried out here, one a GPU; use 1"
    )


@pytest.mark.slow
def test_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "choose_devices", lambda wanted: 2)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    two = [trial("a"), trial("b", {"run.seed": 1})]
    told = list(runs.carry_out(two, tmp_path, loss))
    assert {each.trial.name for each in told if isinstance(each, Going)} == {"a", "b"}
    done = [each for each in told if isinstance(each, Done)]
    assert {each.trial.name: each.measured["seed"] for each in done} == {"a": 0, "b": 1}


@pytest.mark.slow
def test_a_trial_that_cannot_start_ends_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "choose_devices", lambda wanted: 2)
    lost = [trial(name, {"data.spec": "folder:/nowhere"}) for name in "ab"]
    with pytest.raises(DataError, match="/nowhere"):
        list(runs.carry_out(lost, tmp_path, loss))
