"""The README's commands and its Python example, run as they stand.

What makes them long or needs data of the user's own is replaced, and only that: runs
are cut to a few steps and small test batches and end without their page, the bench's
repeats to a tenth of a second, and DATA, PHOTOS and STORE are folders made here.
ImageNet is not at hand, so there the command must say what is missing.
"""

import functools
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from alexnet_cli.main import main
from alexnet_jax import bench

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
# `make train`, `make test` and the like are run by .ci/run; bare `alexnet train` too.
ELSEWHERE = {"make train", "make test", "make check", "make build", "make bench"}
PUBLIC = {"bvlc_alexnet.caffemodel", "alexnet-owt-7be5be79.pth"}  # not downloaded
CIFAR = Path(os.environ.get("ALEXNET_TEST_TFDS", ROOT.parent / "shared/data/tfds"))


def commands() -> list[str]:
    lines = [
        line.partition("#")[0].strip()
        for language, block in BLOCKS
        if language == "sh"
        for line in block.splitlines()
    ]
    return [line for line in lines if line and line not in ELSEWHERE]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs of two classes in it."""
    home = tmp_path_factory.mktemp("home")
    source = bench.pictures(64, 3, 2)
    for index in range(120):
        folder = home / "PHOTOS" / ("cat" if index % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(bytes(source[index].image))
    return home


@pytest.fixture
def machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A machine with so many devices, one at first; at home."""
    there = jax.devices()

    def machine(devices: int) -> None:
        monkeypatch.setattr(jax, "devices", lambda *_: there[:devices])

    machine(1)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return machine


@pytest.fixture
def run(
    machine: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    unreported: None,
) -> Callable[..., tuple[int, str]]:
    """Carry out a command in this process; return its exit code and its stderr."""
    short = functools.partial(bench.measure, seconds=0.1)
    monkeypatch.setattr(bench, "measure", short)

    def run(words: list[str], JAX_NUM_CPU_DEVICES: str = "1") -> tuple[int, str]:
        machine(int(JAX_NUM_CPU_DEVICES))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main(words)
        assert isinstance(ending.value.code, int)
        return ending.value.code, capsys.readouterr().err

    return run


def test_every_command_of_the_readme_does_what_it_says(
    run: Callable[..., tuple[int, str]],
):
    ran = 0
    for line in commands():
        if line.startswith(("source ", "make setup")):
            continue
        words = shlex.split(line)
        environment = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        assert words.pop(0) == "alexnet", line
        if words[1:2] == ["imagenet2012"] or any("IMAGENET" in w for w in words):
            code, err = run(words, **environment)
            assert code == 1, line
            assert "ILSVRC2012" in err or "IMAGENET" in err, line
            continue
        if words[0] == "import" and words[1] in PUBLIC:
            code, err = run(words, **environment)
            assert code == 1, line
            assert f"{words[1]} does not exist" in err, line
            continue
        if "DATA" in words:
            if not CIFAR.is_dir():
                continue
            words[words.index("DATA")] = str(CIFAR)
            words += ["--train-split", "train[:256]", "--eval-split", "test[:100]"]
        if words[:2] == ["train", "imagenet"] and "--steps" in words:
            words += ["--steps", "1", "--set", "eval.batch_size=8"]  # 128 take 8 GB
        whole = {"train", "--dry-run", "--steps"} & set(words) == {"train"}
        if whole:
            words += ["--steps", "4"] if "--resume" in words else ["--steps", "2"]
        if words[0] == "bench":
            words += ["--mode", "forward", "--batch-size", "8"]
        code, err = run(words, **environment)
        assert code == 0, f"{line}\n{err}"
        assert "Traceback" not in err, line
        ran += 1
    assert ran > 12


def test_the_python_example_of_the_readme_runs(
    machine: Callable[[int], None], capsys: pytest.CaptureFixture[str]
):
    (example,) = [block for language, block in BLOCKS if language == "python"]
    cut = example.replace('"run.steps": 100', '"run.steps": 4')
    assert cut != example
    exec(cut, {})
    out = capsys.readouterr().out
    assert "Finished(" in out
    assert "images=360" in out


def test_every_file_that_the_readme_points_to_is_there():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
