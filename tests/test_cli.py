"""The command as a whole: help, exit codes, one line for a mistake, stable JSON."""

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Ran(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Alexnet = Callable[..., Ran]


@pytest.fixture
def alexnet(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Alexnet:
    """Run the command in this process, in an empty folder."""
    from alexnet_cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main([str(argument) for argument in arguments])
        code = ending.value.code
        assert isinstance(code, int)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def fails(ran: Ran, *words: str) -> None:
    """Check for one red line, exit 1, and nothing on stdout."""
    assert ran.code == 1, ran
    assert ran.out == ""
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ran.err
    assert "Traceback" not in ran.err
    assert "this is a bug" not in ran.err
    for word in words:
        assert word in errors[0]


# --- help ---------------------------------------------------------------------------

VERBS = (
    *("train", "eval", "predict", "prepare", "describe", "recipes", "doctor"),
    "mesh",
    *("activations", "features", "filters", "units", "neighbors"),
    *("report", "ablate", "reproduce"),
)


def test_help_loads_no_large_library() -> None:
    probe = (
        "import sys\n"
        "from alexnet_cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as ending: assert not ending.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.splitlines()[-1].split())
    heavy = "jax flax optax orbax grain tensorflow_datasets numpy pydantic PIL sklearn"
    assert loaded.isdisjoint(heavy.split())


def test_help_is_quick() -> None:
    """Processor seconds, of five the first that is: other tests may be running."""

    def seconds() -> float:
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "alexnet_cli", "--help"],
            capture_output=True,
            check=True,
        )
        after = os.times()
        used = after.children_user - before.children_user
        return used + after.children_system - before.children_system

    assert any(seconds() <= 0.4 for _ in range(5))


def test_help_lists_the_verbs(alexnet: Alexnet) -> None:
    ran = alexnet("--help")
    assert ran.code == 0
    listed = [line.split()[0] for line in ran.out.splitlines() if line.startswith("  ")]
    assert [word for word in listed if word in VERBS] == list(VERBS)
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_teaches(alexnet: Alexnet, verb: str) -> None:
    ran = alexnet(verb, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: alexnet {verb} ")
    assert f"\nExamples:\n  alexnet {verb}" in ran.out
    assert "--debug" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_no_arguments_show_the_help(alexnet: Alexnet) -> None:
    ran = alexnet()
    assert ran.code == 2
    assert "Commands:" in ran.err + ran.out


def test_version(alexnet: Alexnet) -> None:
    ran = alexnet("--version")
    assert ran.code == 0
    assert ran.out.startswith("alexnet-jax ")


def test_names_are_completed() -> None:
    from alexnet_cli.options import complete_network, complete_recipe
    from alexnet_jax import networks, recipes

    assert complete_recipe("") == recipes.names()
    assert complete_recipe("im") == ["imagenet", "imagenet-plateau"]
    assert complete_network("code") == ["code2012"]
    assert complete_network("") == list(networks.NETWORKS)


# --- wrong usage --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian",), "No such command 'trian'. Did you mean 'train'?"),
        (("train", "--sead", "1"), "No such option: --sead"),
        (("train", "--steps", "0"), "--steps"),
        (("train", "--precision", "f16"), "'f16' is not one of 'f32', 'bf16'"),
        (("train", "--towers", "3"), "--towers"),
        (("predict",), "Missing argument 'INPUT'"),
        (("predict", "x.png", "--format", "xml"), "'xml' is not one of 'table', 'js"),
        (("predict", "x.png", "--top", "0"), "--top"),
        (("predict", "-", "-"), "- reads one picture from stdin: give it once"),
        (("prepare", "folder:x"), "Missing option '--out'"),
        (("eval", "--weights", "much"), "--weights much: give numbers such as 1,0.5"),
        (("activations", "x.png"), "Missing option '--out'"),
        (("features", "x.png", "--out", "o"), "Missing option '--layer'"),
    ],
)
def test_wrong_usage_exits_2(
    alexnet: Alexnet, arguments: tuple[str, ...], words: str
) -> None:
    ran = alexnet(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert words in ran.err
    assert "Traceback" not in ran.err


# --- mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("train", "imagnet"),
            ["no recipe 'imagnet'; there are cifar-18pct, cifar-conv-local-11pct, "],
        ),
        (
            ("train", "digits", "--set", "network=alex"),
            ["no network 'alex'; there are code2012, paper"],
        ),
        (
            ("train", "digits", "--set", "optimizer.lr=1"),
            ["optimizer.lr", "there is no such key"],
        ),
        (("train", "digits", "--set", "seed"), ["--set 'seed': write section.key"]),
        (
            ("train", "digits", "--set", "optimizer.momentum=2"),
            ["optimizer.momentum 2", "less than 1"],
        ),
        (
            ("train", "digits", "--data", "mnist"),
            ["data 'mnist' is not known; give one of digits, imagenet2012, tfds:NAME"],
        ),
        (
            ("train", "digits", "--data", "folder:nowhere"),
            ["nowhere"],
        ),
        (
            ("train", "cifar10-quick", "--data-dir", "empty"),
            ["tfds:cifar10 is not there", "--data-dir", "tfds build cifar10"],
        ),
        (
            ("train", "digits", "--eval-split", "validation"),
            ["digits has no split 'validation'; it has train, test"],
        ),
        (("train", "digits", "--devices", "99"), ["--devices 99: this machine has"]),
        (
            ("train", "digits", "--devices", "3", "--towers", "2"),
            ["--towers 2 needs an even number of devices, not 3"],
        ),
        (
            ("train", "digits", "--devices", "2", "--towers", "1", "--batch-size", "9"),
            ["batch_size 9 does not divide over 2 devices; use 8 or 10"],
        ),
        (
            ("train", "digits", "--hybrid"),
            ["--hybrid is for networks of one tower; digits has 2: use --towers"],
        ),
        (
            ("mesh", "owt", "--plan", "8", "--batch-size", "9"),
            ["batch_size 9 does not divide over 8 devices; use 16"],
        ),
        (
            ("train", "cifar10-quick", "--towers", "2"),
            ["--towers 2: cifar-80sec has 1 tower; use --towers 1"],
        ),
        (("eval",), ["no run with a checkpoint in ./runs; train one"]),
        (("predict", "x.png"), ["no run with a checkpoint in ./runs; train one"]),
        (("eval", "--ckpt", "gone"), ["no checkpoint at gone: it does not exist"]),
        (("describe", "gone"), ["no network 'gone' and no checkpoint there"]),
        (("recipes", "gone"), ["no recipe 'gone'; there are"]),
        (("prepare", "mnist", "--out", "o"), ["data 'mnist' is not known"]),
        (
            ("prepare", "folder:x", "--out", "o", "--max-corrupt", "2"),
            ["max_corrupt=2.0: give a share from 0 to 1"],
        ),
    ],
)
def test_a_mistake_is_one_line(
    alexnet: Alexnet, tmp_path: Path, arguments: tuple[str, ...], words: list[str]
) -> None:
    fails(alexnet(*arguments), *words)
    assert list(tmp_path.iterdir()) == []  # nothing was begun


def test_unreadable_recipes(alexnet: Alexnet, tmp_path: Path) -> None:
    broken, binary = tmp_path / "broken.toml", tmp_path / "binary.toml"
    broken.write_text("network = \n")
    binary.write_bytes(b"\xff\xfe\x00")
    fails(alexnet("train", broken), "broken.toml is not TOML")
    fails(alexnet("train", binary), "binary.toml")
    fails(alexnet("recipes", tmp_path / "none.toml"), "no recipe")


def test_run_dir_that_cannot_be_made(alexnet: Alexnet, tmp_path: Path) -> None:
    """The tests may run as root, whom permissions do not stop: a file in the way."""
    (tmp_path / "file").write_text("x")
    ran = alexnet("train", "digits", "--devices", 1, "--run-dir", "file/run")
    fails(ran, "cannot make run directory file/run", "choose another --run-dir")
    fails(
        alexnet("train", "digits", "--devices", 1, "--run-dir", "/proc/nope/run"),
        "cannot make run directory /proc/nope/run",
    )


def test_debug_shows_the_traceback(alexnet: Alexnet) -> None:
    from alexnet_cli.main import main
    from alexnet_jax.errors import ConfigError

    with pytest.raises(ConfigError, match="no recipe 'x'"):
        main(["recipes", "x", "--debug"])
    fails(alexnet("recipes", "x"), "no recipe 'x'")  # and only where it is asked for


def test_a_bug_is_called_a_bug(
    alexnet: Alexnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet_jax import recipes

    def broken() -> list[str]:
        raise KeyError("what")

    monkeypatch.setattr(recipes, "names", broken)
    ran = alexnet("recipes")
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert line.startswith("error: this is a bug in alexnet-jax")
    assert "KeyError: 'what'" in line
    assert "--debug" in line


def test_interrupted_outside_training(
    alexnet: Alexnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet_jax import recipes

    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "names", interrupted)
    assert alexnet("recipes") == Ran(130, "", "")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m alexnet_cli describe --json | true"
    ran = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""


# --- describe, recipes --------------------------------------------------------------


def test_describe_against_shows_the_rows_that_differ(alexnet: Alexnet) -> None:
    ran = alexnet("describe", "paper", "--against", "code2012")
    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines() if line.strip()] == [
        ["paper", "code2012"],
        ["relu1", "after", "conv1", "after", "pool1"],
        ["norm1", "divide", "False", "divide", "True"],
        ["norm2", "divide", "False", "divide", "True"],
        [
            "cnorm2",
            "none",
            "SpatialNorm,",
            "size",
            "5,",
            "alpha",
            "0.001,",
            "beta",
            "0.75,",
            "k",
            "1.0",
        ],
        ["conv3", "sigma", "0.01", "sigma", "0.03"],
        ["conv4", "sigma", "0.01", "sigma", "0.03"],
        ["conv5", "sigma", "0.01", "sigma", "0.03"],
        ["pool5", "after", "relu5", "after", "conv5"],
        ["parameters", "60,965,224", "60,965,224"],
    ]
    record = json.loads(
        alexnet("describe", "six-conv", "--against", "code2012", "--json").out
    )
    assert record["parameters"] == [61_555_304, 60_965_224]
    assert [(row["name"], twin) for row, twin in record["rows"]] == [
        ("conv6", None),
        ("conv6_relu", None),
    ]
    same = alexnet("describe", "owt", "--against", "owt")
    assert same.out == "owt and owt have the same rows\n"
    fails(alexnet("describe", "owt", "--against", "vgg"), "no network 'vgg'")


def test_describe_code2012(alexnet: Alexnet) -> None:
    ran = alexnet("describe")
    assert ran.code == 0
    assert ran.err == ""
    assert "net 145" in ran.out
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "".join(ran.out.split()).endswith("total60,965,224724,406,816")
    rows = {line.split()[0]: line.split() for line in lines if line.split()}
    assert rows["conv1"][-4:] == ["55×55×96", "11/4", "34,944", "105,415,200"]
    assert rows["conv5"][-3] == "195/16"
    assert rows["relu7"] == ["relu7", "relu", "4096"]  # sees all that fc6 sees
    assert "own" in rows["conv2"]
    assert "both" in rows["conv3"]


def test_describe_json(alexnet: Alexnet) -> None:
    record = json.loads(alexnet("describe", "code2012", "--json").out)
    assert record["parameters"] == 60_965_224
    assert record["macs"] == 724_406_816
    assert record["input"] == [224, 224, 3]
    layers = {layer["name"]: layer for layer in record["layers"]}
    assert layers["conv2"]["reads"] == "own"
    assert layers["conv2"]["output"] == [27, 27, 256]
    assert layers["conv2"]["field"] == {"size": 51, "stride": 8, "first": -16}
    assert sum(layer["parameters"] for layer in layers.values()) == 60_965_224


def test_describe_a_checkpoint(alexnet: Alexnet, digits_run: Path) -> None:
    ran = alexnet("describe", digits_run)
    assert ran.code == 0
    for words in ("step        60 of 2,694", "top-1 error", "recipe      digits"):
        assert words in ran.out
    record = json.loads(alexnet("describe", digits_run / "20", "--json").out)
    assert record["network"] == "digits"
    assert record["checkpoint"]["step"] == 20
    assert record["checkpoint"]["classes"] == [str(digit) for digit in range(10)]


def test_recipes(alexnet: Alexnet, tmp_path: Path) -> None:
    from alexnet_jax import recipes

    ran = alexnet("recipes")
    assert ran.code == 0
    for name in recipes.names():
        assert f"\n{name}  " in f"\n{ran.out}"
    assert max(map(len, ran.out.splitlines())) <= 80
    printed = alexnet("recipes", "imagenet").out
    assert printed == recipes.text("imagenet")
    assert "# " in printed
    (tmp_path / "mine.toml").write_text(printed)
    assert recipes.load(str(tmp_path / "mine.toml")).network == "code2012"


# --- eval ---------------------------------------------------------------------------


def test_eval_json(alexnet: Alexnet, digits_run: Path) -> None:
    ran = alexnet("eval", "--ckpt", digits_run, "--devices", 1, "--json")
    assert ran.code == 0
    record = json.loads(ran.out)
    assert record["images"] == 360
    assert record["views"] == 1
    assert record["checkpoints"] == [str(digits_run / "checkpoints" / "60")]
    assert (
        0 < record["top5_error"] <= record["top1_error"] < 1 or not record["top5_error"]
    )
    assert record["log_prob"] < 0
    metrics = (digits_run / "metrics.jsonl").read_text().splitlines()
    last = json.loads(metrics[-1])
    assert last["split"] == "eval"
    assert record["top1_error"] == pytest.approx(last["top1_error"])
    # Every picture counts once, also where the batches do not come out even.
    options = ("--ckpt", digits_run, "--devices", 1, "--batch-size", 7)
    other = json.loads(alexnet("eval", *options, "--json").out)
    assert other["images"] == 360
    assert other["top1_error"] == record["top1_error"]
    assert other["log_prob"] == pytest.approx(record["log_prob"], rel=1e-5)


def test_eval_for_people(alexnet: Alexnet, digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits-7").symlink_to(digits_run)
    ran = alexnet("eval", "--devices", 1)
    assert ran.code == 0
    assert "using the newest run, runs/digits-7" in ran.err
    assert "a test split" in ran.err
    assert "top-1 error" in ran.out
    assert "360 of digits test, 1 view each" in ran.out


def test_eval_of_another_split(alexnet: Alexnet, digits_run: Path) -> None:
    options = ("--ckpt", digits_run, "--devices", 1, "--eval-split", "train[:100]")
    record = json.loads(alexnet("eval", *options, "--json").out)
    assert record["images"] == 100
    assert record["role"] == "validation"
    assert "a test split" not in alexnet("eval", *options).err


def test_eval_of_an_ensemble(alexnet: Alexnet, digits_run: Path) -> None:
    steps = [digits_run / "checkpoints" / step for step in ("20", "60")]
    options = ("--ckpt", steps[0], "--ckpt", steps[1], "--devices", 1)
    record = json.loads(alexnet("eval", *options, "--json").out)
    assert record["images"] == 360
    assert record["checkpoints"] == list(map(str, steps))
    assert record["weights"] == [1, 1]
    assert "weights_found_on" not in record
    searched = json.loads(
        alexnet("eval", *options, "--weights", "search", "--json").out
    )
    assert searched["weights_found_on"] == "digits test"
    assert searched["top5_error"] <= record["top5_error"]
    found = ",".join(map(str, searched["weights"]))
    again = json.loads(alexnet("eval", *options, "--weights", found, "--json").out)
    assert again["top1_error"] == pytest.approx(searched["top1_error"])
    ran = alexnet("eval", *options, "--weights", "search")
    assert ran.code == 0
    assert "these figures are optimistic; on another split: --weights " in ran.err
    assert "(step 20, weight " in ran.out


def test_eval_of_some_classes(
    alexnet: Alexnet, digits_run: Path, tmp_path: Path
) -> None:
    from PIL import Image

    sample = min((digits_run / "samples").glob("*-3.png"))
    for split in ("train", "val"):
        for name in ("3", "8"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            Image.open(sample).save(folder / "a.png")
    options = ("--ckpt", digits_run, "--devices", 1, "--data", "folder:photos")
    ran = alexnet("eval", *options)
    assert ran.code == 0
    assert "2 of folder:" in ran.out
    assert "photos val, 1 view each; 2 of 10 classes" in ran.out
    (told,) = json.loads(
        alexnet("predict", sample, *options[:4], "--format", "json").out
    )
    said = told["predictions"][0]["class"]  # of the same picture in both folders
    wrong = (said != 3) + (said != 8)
    assert f"{wrong / 2:.2%} ({wrong} wrong)" in ran.out


def test_eval_refuses(alexnet: Alexnet, digits_run: Path, tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(folder / "a.png")
    eval_ = ("eval", "--ckpt", digits_run, "--devices", 1)
    ran = alexnet(*eval_, "--data", "folder:photos")
    fails(ran, "has 2 classes that the checkpoint", "does not know: cat, dog; it knows")
    fails(alexnet(*eval_, "--weights", "1"), "--weights 1: give two checkpoints to w")
    ran = alexnet(*eval_, "--ckpt", digits_run / "20", "--weights", "1,1,1")
    fails(ran, "--weights 1,1,1: 3 given for 2 checkpoints; give one each, in order")
    fails(alexnet(*eval_, "--views", "10"), "--views 10: this checkpoint allows 1;")
    fails(alexnet(*eval_, "--eval-split", "val"), "digits has no split 'val'")
    fails(alexnet("eval", "--ckpt", digits_run / "40000"), "it does not exist")
    fails(alexnet("eval", "--ckpt", tmp_path), "no checkpoint in")


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoints(
    alexnet: Alexnet, digits_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "broken"
    shutil.copytree(digits_run, run)
    step = run / "checkpoints" / "60"
    for data in step.glob("params/**/d/*"):
        data.write_bytes(b"")
    for verb in (("eval",), ("predict", digits_run / "samples")):
        ran = alexnet(*verb, "--ckpt", step, "--devices", 1)
        fails(ran, "is damaged", "use another step")
    (step / "_CHECKPOINT_METADATA").write_text("{")
    fails(alexnet("eval", "--ckpt", step), "is damaged", "use another step")
    assert alexnet("eval", "--ckpt", run / "40", "--devices", 1).code == 0
    gc.collect()  # Orbax leaves coroutines behind that nothing awaits


# --- activations, features ----------------------------------------------------------


def test_activations(alexnet: Alexnet, digits_run: Path, tmp_path: Path) -> None:
    import numpy as np

    sample = sorted((digits_run / "samples").iterdir())[0]
    options = ("--ckpt", digits_run, "--devices", 1)
    ran = alexnet("activations", sample, "--out", "x.npz", *options)
    assert ran.code == 0
    shown = dict(line.split() for line in ran.out.splitlines()[1:])
    with np.load(tmp_path / "x.npz") as file:
        shapes = {name: "×".join(map(str, file[name].shape)) for name in file}
    assert shown == shapes
    assert (shapes["input"], shapes["logits"]) == ("1×28×28×1", "1×10")
    (tmp_path / "bad.png").write_text("no picture")
    fails(alexnet("activations", "bad.png", "--out", "y.npz", *options), "bad.png")
    ran = alexnet("activations", sample, "--out", tmp_path, *options)
    fails(ran, "is a folder; name a file")
    assert not (tmp_path / "y.npz").exists()


def test_features(alexnet: Alexnet, digits_run: Path, tmp_path: Path) -> None:
    import numpy as np

    samples = sorted((digits_run / "samples").iterdir())
    options = ("--ckpt", digits_run, "--devices", 1, "--layer")
    ran = alexnet("features", samples[0].parent, "--out", "x.npz", *options, "fc4")
    assert ran.code == 0
    assert "features    10×128" in ran.out
    (tmp_path / "bad.png").write_text("no picture")
    inputs = (samples[3], "bad.png", samples[1])
    ran = alexnet("features", *inputs, "--out", "y.npz", *options, "pool1")
    assert ran.code == 1
    assert "bad.png: " in ran.err
    assert "1 of 3 inputs could not be read" in ran.err
    with np.load(tmp_path / "y.npz") as file:
        assert file["images"].tolist() == [str(samples[3]), str(samples[1])]
        assert file["features"].shape[0] == 2
        assert file["features"].ndim == 4
    ran = alexnet("features", "bad.png", "--out", "z.npz", *options, "fc4")
    assert ran.code == 1
    assert "none of 1 inputs could be read; nothing is written" in ran.err
    ran = alexnet("features", *inputs, "--out", "z.npz", *options, "fc9")
    fails(ran, "--layer fc9: digits has no such layer; it has input, conv1")
    assert not (tmp_path / "z.npz").exists()


# --- prepare ------------------------------------------------------------------------


def test_prepare_then_train(alexnet: Alexnet, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (50, 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    (tmp_path / "photos" / "train" / "cat" / "bad.jpg").write_bytes(b"no picture")
    prepare = ("prepare", "folder:photos", "--image-size", 32, "--out", "store")
    ran = alexnet(*prepare)
    assert ran.code == 1
    assert "left out: cat/bad.jpg: " in ran.err
    assert "error: 1 of 33 pictures are corrupt" in ran.err
    ran = alexnet(*prepare, "--max-corrupt", 0.05)
    assert ran.code == 0
    assert "32 (24 train, 8 validation)" in ran.out
    assert "left out  1, listed in store/corrupt.txt" in ran.out
    assert "bad.jpg" in (tmp_path / "store" / "corrupt.txt").read_text()
    assert "alexnet train RECIPE --data prepared:store" in ran.out
    again = alexnet(*prepare, "--max-corrupt", 0.05)
    assert "was complete before" in again.out

    ran = alexnet(
        *("train", "digits", "--data", "prepared:store", "--steps", 2),
        *("--batch-size", 4, "--devices", 1, "--run-dir", "run", "--json"),
    )
    assert ran.code == 0
    last = json.loads(ran.out.splitlines()[-1])
    assert (last["step"], last["images"]) == (2, 8)
