"""``alexnet ablate``: its rows, its table, and that what is done is kept."""

import json
from pathlib import Path

import pytest

from alexnet_jax import recipes
from alexnet_jax.errors import ConfigError
from alexnet_jax.studies import ablation_page, claims, measuring, rows
from alexnet_jax.studies.runs import Done, Failed, Trial
from alexnet_jax.studies.tabulating import tabulate

TOWERS = recipes.load("cifar10-towers")


def changes(part: str, recipe=TOWERS) -> list[str]:
    return recipes.differences(recipe, rows.without(recipe, part))


def test_a_row_changes_one_thing():
    for part in ("norm", "overlap", "towers", "dropout"):
        assert changes(part) == [f"network: cifar10-towers -> cifar10-towers:no-{part}"]
    assert changes("layer:conv2") == [
        "network: cifar10-towers -> cifar10-towers:no-conv2"
    ]
    assert changes("colour") == ["augment.colour_noise: 0.1 -> 0.0"]
    assert changes("decay") == ["optimizer.weight_decay: 0.0005 -> 0.0"]
    assert changes("crops") == [
        "augment.crop: True -> False",
        "augment.flip: True -> False",
        "eval.views: (1, 10) -> (1,)",
    ]


def test_values_of_a_layer_go_with_it():
    imagenet = recipes.load("imagenet", {"schedule.freeze": {"conv3": 0.5}})
    assert changes("layer:conv3", imagenet) == [
        "network: code2012 -> code2012:no-conv3",
        "schedule.freeze.conv3: 0.5 -> None",
    ]
    local = recipes.load("cifar-conv-local-11pct")
    assert changes("decay", local) == [
        "optimizer.layer_weight_decay.fc10: 0.01 -> None",
        "optimizer.layer_weight_decay.local3: 0.004 -> None",
        "optimizer.layer_weight_decay.local4: 0.004 -> None",
    ]


def test_all_rows_that_apply():
    plan = rows.plan(TOWERS)
    assert list(plan.rows) == [
        *("full", "norm", "overlap", "towers", "dropout", "colour", "crops", "decay"),
        *("layer:conv2", "layer:conv3"),
    ]
    assert plan.seeds == (0, 1, 2)
    names = [trial.name for trial in plan.trials]
    assert names[:3] == ["full-0", "no-norm-0", "no-overlap-0"]
    assert names[9:11] == ["no-conv3-0", "full-1"]
    assert {trial.recipe.run.seed for trial in plan.trials} == {0, 1, 2}
    assert not plan.left_out


def test_rows_that_do_not_apply_are_left_out_or_refused():
    digits = recipes.load("digits", {"augment.crop": False})
    plan = rows.plan(digits)
    assert [(each.part, each.reason) for each in plan.left_out] == [
        ("colour", "the recipe digits has no colour to take away"),
        ("crops", "the recipe digits has no crops to take away"),
    ]
    with pytest.raises(ConfigError, match=r"has no colour to take away$"):
        rows.plan(digits, ["norm", "colour"])
    with pytest.raises(ConfigError) as raised:
        rows.plan(digits, ["norms"])
    assert str(raised.value) == (
        "--only 'norms': there is no such row; there are norm, overlap, towers, "
        "dropout, colour, crops, decay, layer:conv2"
    )
    for layer in ("conv9", "norm"):
        with pytest.raises(ConfigError) as raised:
            rows.plan(digits, [f"layer:{layer}"])
        assert str(raised.value) == (
            f"digits has no layer {layer!r} to take away; it has conv2, conv3, fc4"
        )


def test_rows_for_pictures_of_ones_own():
    own = recipes.load("imagenet", {"data.spec": "folder:photos"})
    plan = rows.plan(own)
    assert list(plan.rows) == [
        *("full", "norm", "overlap", "towers", "dropout", "colour", "crops", "decay"),
        *("layer:conv2", "layer:conv3", "layer:conv4"),
    ]
    assert plan.rows["layer:conv4"].network == "code2012:no-conv4"
    assert plan.rows["crops"].eval.views == (1,)


def test_claims_are_the_papers():
    numbers = {part: (c.top1, c.top5) for part, c in claims.CLAIMS.items()}
    assert numbers == {
        "norm": (1.4, 1.2),  # C12
        "overlap": (0.4, 0.3),  # C13
        "towers": (1.7, 1.2),  # C10
        "dropout": (None, None),  # C18
        "colour": (1.0, None),  # C16
        "crops": (None, None),  # C17
        "decay": (None, None),  # C19
    }
    assert claims.find("layer:conv3", "imagenet2012").top1 == 2.0  # C20
    assert claims.find("norm", "tfds:cifar10").top1 == 2.0  # C14: 13% to 11%
    assert claims.find("norm", "imagenet2012").number == "+1.4 / +1.2"
    assert claims.find("colour", "digits").number == "at least +1"


def measured(top1: float, train: float, ten: float | None = None) -> dict:
    def result(error: float, views: int) -> dict:
        return {"top1_error": error, "top5_error": error / 10, "views": views}

    return {
        "test": result(top1, 1) if ten is None else result(ten, 10),
        "centre": result(top1, 1),
        "train": result(train, 1),
        "parameters": 1000,
        "seconds": 60.0,
        "device": "cpu, 2 cores",
    }


def study(recipe, found: dict[str, list[dict]], only: list[str]):
    plan = rows.plan(recipe, only, seeds=2)
    done = [
        Done(Trial(rows.trial_name(part, seed), plan.rows[part]), Path(), values)
        for part, runs in found.items()
        for seed, values in enumerate(runs)
    ]
    return plan, done


def test_a_table():
    plan, done = study(
        TOWERS,
        {
            "full": [measured(0.20, 0.10), measured(0.22, 0.12)],
            "norm": [measured(0.30, 0.20), measured(0.32, 0.22)],
            "crops": [measured(0.26, 0.00), measured(0.28, 0.02)],
            "decay": [measured(0.20, 0.09), measured(0.22, 0.15)],
        },
        ["norm", "overlap", "crops", "decay"],
    )
    reason = "the loss is nan at step 2"
    failed = [Failed(Trial("no-overlap-0", plan.rows["overlap"]), reason)]
    table = tabulate(plan, done, failed)
    assert table.left == 1  # no-overlap-1
    full, norm, crops, decay = table.rows
    assert full.test.mean == pytest.approx(0.21)
    assert full.judged is None
    # Two and two with sd sqrt(2) / 100: t(0.975, 2) = 4.303 standard errors of 0.01
    # times sqrt(2).
    assert norm.judged is not None
    assert norm.judged.mean == pytest.approx(0.1)
    assert norm.judged.low == pytest.approx(0.1 - 4.30265 * 0.01 * 2**0.5, abs=1e-6)
    assert norm.top5 is not None
    assert norm.top5.mean == pytest.approx(0.01)
    # Crops are judged by test less training error, decay by training error.
    assert crops.judged is not None
    assert crops.judged.mean == pytest.approx(0.16)
    assert decay.judged is not None
    assert decay.judged.mean == pytest.approx(0.01)
    assert [row.verdict for row in table.rows[1:]] == ["agrees", "agrees", "undecided"]

    text = ablation_page.text(table, "alexnet ablate cifar10-towers")
    assert "- command: `alexnet ablate cifar10-towers`" in text
    assert "- runs: 8 of 10, seeds 0, 1 (the study is not finished)" in text
    assert (
        "| norm | 2 | 1,000 | 31.00% (30.00 to 32.00; 1.41) | 3.10% | 21.00% | 60 |"
    ) in text
    assert (
        "| norm | +10.00 [+3.92, +16.08] | test error | +10.00 [+3.92, +16.08] | +2 | "
        "agrees |"
    ) in text
    assert "- agrees with the paper: norm, crops" in text
    assert "- undecided: the interval spans zero: decay" in text
    assert f"- failed: no-overlap-0: {reason}" in text
    bar = ablation_page.bars(table)[0]
    assert (bar.label, bar.paper) == ("norm", 2.0)
    assert bar.value == pytest.approx(10)


def test_a_row_without_ten_views_is_compared_by_the_centre_view():
    ten = recipes.load("cifar10-towers", {"eval.views": [10, 1]})
    runs = {
        "full": [measured(0.20, 0.1, 0.18)],
        "norm": [measured(0.25, 0.1, 0.22)],
        "crops": [measured(0.30, 0.1)],
    }
    plan, done = study(ten, runs, ["norm", "crops"])
    table = tabulate(plan, done)
    said = "Test errors are of the ten views; those of crops, which cannot be looked"
    assert said in ablation_page.text(table, "alexnet ablate")
    full, norm, crops = table.rows
    assert (full.views, norm.views, crops.views) == (10, 10, 1)
    assert norm.top1 is not None
    assert norm.top1.mean == pytest.approx(0.04)
    assert crops.top1 is not None
    assert crops.top1.mean == pytest.approx(0.10)
    assert crops.verdict == "one seed"


def test_errors_of_a_run(digits_run):
    recipe = recipes.load(str(digits_run / "recipe.toml"))
    found = measuring.errors(recipe, digits_run)
    assert found["test"] == found["centre"]
    assert found["test"]["images"] == found["train"]["images"] == 360
    assert found["steps"] == 60
    assert found["parameters"] == 177_514
    assert found["seconds"] > 0


@pytest.mark.usefixtures("compile_once")
def test_the_command(tmp_path, capsys, monkeypatch):
    from alexnet_cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def ablate(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ending:
            main(["ablate", "digits", "--set", "run.steps=2", *more])
        captured = capsys.readouterr()
        assert isinstance(ending.value.code, int)
        return ending.value.code, captured.out, captured.err

    one = ("--only", "dropout", "--seeds")
    code, out, err = ablate(*one, "1")
    assert code == 0, err
    assert "2 runs in runs/ablate-digits-1" in err
    assert "one seed" in out.splitlines()[2]
    assert "runs/ablate-digits-1/RESULT.md" in out
    result = Path("runs/ablate-digits-1/RESULT.md").read_text()
    command = "alexnet ablate digits --seeds 1 --only dropout --set run.steps=2"
    assert f"- command: `{command}`" in result

    # Once more: nothing is trained again.
    code, out, err = ablate(*one, "1", "--json")
    assert code == 0, err
    *runs, table = map(json.loads, out.splitlines())
    assert [(run["run"], run["kept"]) for run in runs] == [
        ("full-0", True),
        ("no-dropout-0", True),
    ]
    assert table["event"] == "table"
    assert [row["part"] for row in table["rows"]] == ["full", "dropout"]
    stored = json.loads(Path("runs/ablate-digits-1/results.json").read_text())
    assert stored == {key: table[key] for key in table if key != "event"}
    assert Path("runs/ablate-digits-1/differences.png").stat().st_size > 1000

    # Other values are another study.
    code, out, err = ablate(*one, "1", "--epochs", "3", "--out", "runs/ablate-digits-1")
    assert code == 1
    assert err.splitlines()[1] == (
        "error: runs/ablate-digits-1 is a study of other values: schedule.epochs: "
        "60.0 -> 3.0; give the same, or choose another --out"
    )


def test_interrupted_it_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    import signal

    from alexnet_cli import interrupt
    from alexnet_cli.main import main

    def asked(self: interrupt.Stop) -> bool:
        self.signal = signal.SIGINT
        return True

    monkeypatch.setattr(interrupt.Stop, "asked", asked)
    monkeypatch.setenv("HOME", str(tmp_path))  # a shell leaves --out=~/there as it is
    with pytest.raises(SystemExit) as ending:
        main(["ablate", "digits", "--only", "norm", "--out", "~/there"])
    assert (tmp_path / "there" / "study.toml").exists()
    assert ending.value.code == 130
    assert capsys.readouterr().err.splitlines()[1:] == [
        "saved; continue with",
        "  alexnet ablate digits --only norm --out '~/there'",
    ]
