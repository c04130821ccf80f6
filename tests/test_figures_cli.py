"""The verbs that draw: what they write, what they say, and where it goes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image


class Ran(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def alexnet(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., Ran]:
    """Run a command in an empty folder."""
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


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 100


def test_filters(alexnet: Callable[..., Ran], digits_run: Path, tmp_path: Path) -> None:
    ran = alexnet("filters", "--ckpt", digits_run, "--out", "f.png")
    assert ran.code == 0, ran.err
    assert "kernels  32 of conv1" in ran.out
    assert "there is no colour to measure" in ran.err
    assert is_picture(tmp_path / "f.png")
    ran = alexnet("filters", "--ckpt", digits_run, "--out", "f.svg", "--json")
    record: dict[str, Any] = json.loads(ran.out)
    assert record["picture"] == "f.svg"
    assert (record["towers"], record["chroma"]) == (2, None)
    ran = alexnet("filters", "--ckpt", digits_run, "--out", "f.gif")
    assert ran.code == 1
    assert "pictures are written as .png or .svg" in ran.err
