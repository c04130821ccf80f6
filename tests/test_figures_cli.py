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


def test_units(alexnet: Callable[..., Ran], digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    options = ["--ckpt", digits_run, "--devices", "1", "--out", "drawn"]
    data = ["--eval-split", "test[:40]", "--batch-size", "40"]
    ran = alexnet("units", *options, *data, "--json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    records = json.loads(ran.out)
    assert [record["layer"] for record in records] == ["conv1", "conv2", "conv3"]
    for record in records:
        picture = tmp_path / record["picture"]
        assert is_picture(picture)
        assert json.loads(picture.with_suffix(".json").read_text()) == record
        assert len(record["units"]) == 12
        assert [unit["tower"] for unit in record["units"]] == [1] * 6 + [2] * 6
        for unit in record["units"]:
            values = [patch["value"] for patch in unit["patches"]]
            assert len(values) == 9
            assert values == sorted(values, reverse=True)
    assert records[0]["field"] == {"size": 5, "stride": 2, "first": 0}
    ran = alexnet("units", *options, *data, "--layer", "fc4", "--units", "3,40")
    assert ran.out.split()[3:] == ["fc4", "all", "drawn/units-fc4.png"]
    ran = alexnet("units", *options, "--layer", "conv1", "--units", "x")
    assert ran.code == 2
    ran = alexnet("units", *options[:-1], "gone")
    assert "gone does not exist; make it first" in ran.err
