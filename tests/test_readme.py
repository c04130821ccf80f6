"""The README's commands and its Python example, run as they stand.

What makes them long or needs data of the user's own is replaced, and only that: runs
are cut to a few steps, and DATA, PHOTOS and STORE are folders made here. ImageNet is
not at hand, so there the command must say what is missing.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax import bench

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
# `make train`, `make test` and the like are run by .ci/run; bare `alexnet train` too.
ELSEWHERE = {"make train", "make test", "make check", "make build", "make bench"}
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


def run(
    words: list[str], home: Path, **environment: str
) -> subprocess.CompletedProcess:
    inherited = {**os.environ, "HOME": str(home), "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.run(
        words,
        cwd=home,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_every_command_of_the_readme_does_what_it_says(home: Path):
    ran = 0
    for line in commands():
        if line.startswith(("source ", "make setup")):
            continue
        words = shlex.split(line)
        environment = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        assert words[0] == "alexnet", line
        words[:1] = [sys.executable, "-m", "alexnet_cli"]
        if words[3:4] == ["imagenet2012"] or any("IMAGENET" in w for w in words):
            result = run(words, home, **environment)
            assert result.returncode == 1, line
            assert "ILSVRC2012" in result.stderr or "IMAGENET" in result.stderr, line
            continue
        if "DATA" in words:
            if not CIFAR.is_dir():
                continue
            words[words.index("DATA")] = str(CIFAR)
            words += ["--train-split", "train[:256]", "--eval-split", "test[:100]"]
        whole = {"train", "--dry-run", "--steps"} & set(words) == {"train"}
        if whole:
            words += ["--steps", "4"] if "--resume" in words else ["--steps", "2"]
        if words[3] == "bench":
            words += ["--mode", "forward", "--batch-size", "8"]
        result = run(words, home, **environment)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
        assert "Traceback" not in result.stderr, line
        ran += 1
    assert ran > 12


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(home: Path):
    (example,) = [block for language, block in BLOCKS if language == "python"]
    cut = example.replace('"run.steps": 100', '"run.steps": 4')
    assert cut != example
    result = run([sys.executable, "-c", cut], home)
    assert result.returncode == 0, result.stderr
    assert "Finished(" in result.stdout
    assert "images=360" in result.stdout


def test_every_file_that_the_readme_points_to_is_there():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
