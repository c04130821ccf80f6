"""The verbs that draw: what they write, what they say, and where it goes."""

import json
import shutil
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
    ran = alexnet("units", *options, *data, "--layer", "logits", "--json")
    assert {unit["tower"] for unit in json.loads(ran.out)[0]["units"]} == {None}
    (tmp_path / "file").touch()
    ran = alexnet("units", *options[:-1], "file")
    assert "--out file: cannot be made: File exists; choose another folder" in ran.err


def test_neighbors(
    alexnet: Callable[..., Ran],
    digits_run: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)  # the index is kept beside it
    sample = run / "samples" / "00-3.png"
    options = ["--ckpt", run, "--devices", "1", "--split", "test[:60]"]
    ran = alexnet("neighbors", sample, "eval:7", *options)
    assert ran.code == 0, ran.err
    assert "00-3.png (3)\n  " in ran.out
    assert "eval:7 (0)\n  " in ran.out
    assert "among 60 of digits test[:60]; drawn to " in ran.err
    picture = run / "figures" / "neighbors.png"
    assert is_picture(picture)
    record = json.loads(picture.with_suffix(".json").read_text())
    assert record["layer"] == "relu4"
    (index,) = (run / "neighbors").iterdir()
    assert Path(record["index"]) == index
    before = (index / "features").stat().st_mtime_ns
    ran = alexnet("neighbors", sample, *options, "--top", "4", "--json", "--out=n.svg")
    assert ran.err == ""
    again = json.loads(ran.out)
    assert json.loads((tmp_path / "n.json").read_text()) == again
    (query,) = again["queries"]
    assert (query["query"], query["label"]) == (str(sample), "3")
    near = query["neighbors"]
    assert [n["index"] for n in near] == [
        n["index"] for n in record["queries"][0]["neighbors"][:4]
    ]
    assert [n["distance"] for n in near] == sorted(n["distance"] for n in near)
    # The sample is the split's first picture, and is not its own neighbour.
    assert 0 not in {n["index"] for n in near}
    assert (index / "features").stat().st_mtime_ns == before
    ran = alexnet("neighbors", "eval:360", *options)
    assert ran.code == 1
    assert "eval:360: digits test has pictures eval:0 to eval:359" in ran.err
    ran = alexnet("neighbors", "gone.png", *options)
    assert "gone.png: no such file" in ran.err


def test_predict_draws(
    alexnet: Callable[..., Ran], digits_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    sample, *_ = sorted((digits_run / "samples").iterdir())
    options = ["--ckpt", digits_run, "--devices", "1", "--figure", "f.png"]
    ran = alexnet("predict", sample, "bad.png", *options, "--format", "json")
    assert ran.code == 1
    assert len(json.loads(ran.out)) == 2
    assert "drawn to f.png" in ran.err
    assert is_picture(tmp_path / "f.png")
    (tmp_path / "f.png").unlink()
    assert alexnet("predict", "bad.png", *options).code == 1  # nothing to draw
    assert not (tmp_path / "f.png").exists()
    ran = alexnet("predict", sample, *options[:-1], "f.jpg")
    assert "--figure f.jpg: pictures are written as .png or .svg" in ran.err
    assert ran.out == ""
