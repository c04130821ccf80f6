"""``alexnet predict`` on every kind of file that people have, and its three formats."""

import csv
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image


class Ran(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def predict(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    digits_run: Path,
) -> Callable[..., Ran]:
    """Run ``alexnet predict`` on the trained digits, in an empty folder."""
    from alexnet_cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        options = ["--ckpt", str(digits_run), "--devices", "1"]
        with pytest.raises(SystemExit) as ending:
            main(["predict", *map(str, arguments), *options])
        code = ending.value.code
        assert isinstance(code, int)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def pixels(*shape: int) -> np.ndarray:
    """Draw some pixels."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def png_header_of(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds hardly any data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def good_pictures(folder: Path) -> list[Path]:
    """Write pictures that must all be answered."""
    colour, grey = Image.fromarray(pixels(40, 50, 3)), Image.fromarray(pixels(40, 50))
    alpha = Image.fromarray(pixels(40, 50, 4), "RGBA")
    palette = alpha.convert("RGB").quantize(16)
    palette.info["transparency"] = 3
    deep = Image.fromarray(pixels(40, 50).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    plain: dict[str, Image.Image] = {
        "colour.jpg": colour,
        "colour.png": colour,
        "colour.bmp": colour,
        "colour.webp": colour,
        "colour.tif": colour,
        "colour.ppm": colour,
        "grey.jpg": grey,
        "grey.png": grey,
        "grey-alpha.png": alpha.convert("LA"),
        "rgba.png": alpha,
        "palette.png": palette,
        "palette.gif": palette,
        "bilevel.png": grey.convert("1"),
        "cmyk.jpg": colour.convert("CMYK"),
        "cmyk.tif": colour.convert("CMYK"),
        "ycbcr.tif": colour.convert("YCbCr"),
        "lab.tif": colour.convert("LAB"),
        "float.tif": grey.convert("F"),
        "16-bit.png": deep,
        "16-bit.tif": deep,
        "one.png": colour.resize((1, 1)),
        "wide.png": colour.resize((12000, 50)),
        "tall.jpg": colour.resize((50, 12000)),
        "name with spaces é.png": colour,
        "no-suffix.png": colour,
        "wrong-suffix.jpg.png": colour,
    }
    for name, picture in plain.items():
        picture.save(folder / name)
    colour.save(folder / "turned.jpg", exif=turned)
    colour.save(folder / "progressive.jpg", progressive=True)
    frames = [Image.fromarray(pixels(20, 20, 3) // n) for n in (1, 2, 3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:])
    (folder / "no-suffix.png").rename(folder / "no-suffix")
    (folder / "wrong-suffix.jpg.png").rename(folder / "wrong-suffix.jpg")
    return sorted(folder.iterdir())


def bad_pictures(folder: Path) -> list[Path]:
    """Write what must get an error each."""
    whole = io.BytesIO()
    Image.fromarray(pixels(200, 200, 3)).save(whole, "JPEG")
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[:2000])
    (folder / "header-only.jpg").write_bytes(whole.getvalue()[:20])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture\n")
    (folder / "bomb.png").write_bytes(png_header_of(60_000, 60_000))
    (folder / "cut.png").write_bytes(png_header_of(100, 100))
    (folder / "zeros.gif").write_bytes(bytes(1000))
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    return [*sorted(folder.iterdir()), folder / "missing.png"]


def test_odd_files_get_one_answer_or_one_error_each(
    predict: Callable[..., Ran], tmp_path: Path
) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    good, bad = good_pictures(tmp_path / "good"), bad_pictures(tmp_path / "bad")
    assert len(good) >= 30
    inputs = [path for pair in zip(good, bad, strict=False) for path in pair]
    inputs += good[len(bad) :]
    ran = predict(*inputs, "--format", "json")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert f"{len(bad)} of {len(inputs)} inputs could not be read" in ran.err
    answers = json.loads(ran.out)
    assert [answer["image"] for answer in answers] == [str(path) for path in inputs]
    for answer, path in zip(answers, inputs, strict=True):
        if path in bad:
            assert set(answer) == {"image", "error"}, answer
            assert "\n" not in answer["error"]
            assert 5 < len(answer["error"]) < 300
        else:
            assert set(answer) == {"image", "predictions"}, answer
            check_predictions(answer["predictions"], 5)


def check_predictions(guesses: list[dict[str, Any]], count: int) -> None:
    """Check what is stable for programs."""
    assert len(guesses) == count
    for guess in guesses:
        assert set(guess) == {"label", "class", "probability"}
        assert guess["label"] == str(guess["class"])
    shares = [guess["probability"] for guess in guesses]
    assert shares == sorted(shares, reverse=True)
    assert 0 <= sum(shares) <= 1.0001


def test_bad_files_have_clear_errors(
    predict: Callable[..., Ran], tmp_path: Path
) -> None:
    bad_pictures(tmp_path)
    names = {
        "truncated.jpg": "",
        "empty.png": "empty",
        "text.png": "",
        "bomb.png": "pixels",
        "folder.jpg": "folder",
        "dangling.png": "",
        "missing.png": "no such file",
    }
    ran = predict(*names, "--format", "json")
    errors = {answer["image"]: answer["error"] for answer in json.loads(ran.out)}
    for name, words in names.items():
        assert words in errors[name], errors[name]


def test_all_good_exits_0(predict: Callable[..., Ran], digits_run: Path) -> None:
    ran = predict(digits_run / "samples", "--top", 99, "--format", "json")
    assert ran.code == 0
    assert ran.err == ""
    answers = json.loads(ran.out)
    assert len(answers) == 10
    for answer in answers:
        check_predictions(answer["predictions"], 10)  # as many as there are classes
        shares = [guess["probability"] for guess in answer["predictions"]]
        assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_folders_patterns_and_order(
    predict: Callable[..., Ran], tmp_path: Path
) -> None:
    for name in ("b.png", "a.png", "sub/c.png", "sub/.hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(9, 9)).save(tmp_path / name)
    (tmp_path / "sub" / "notes.txt").write_text("x")
    ran = predict("b.png", "sub", "*.png", "none*.png", "--format", "json")
    assert ran.code == 1
    named = [answer["image"] for answer in json.loads(ran.out)]
    assert named == ["b.png", "sub/c.png", "a.png", "b.png", "none*.png"]


def test_stdin(
    predict: Callable[..., Ran], digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture from a pipe, among files; the real command."""
    sample = sorted((digits_run / "samples").iterdir())[0]
    command = [sys.executable, "-m", "alexnet_cli", "predict", "-", str(sample)]
    command += ["--ckpt", str(digits_run), "--devices", "1", "--format", "json"]
    ran = subprocess.run(
        command, input=sample.read_bytes(), capture_output=True, check=True
    )
    assert ran.stderr == b""
    piped, named = json.loads(ran.stdout)
    assert piped["image"] == "-"
    assert piped["predictions"] == named["predictions"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    broken = predict("-", sample, "--format", "json")
    assert broken.code == 1
    piped, named = json.loads(broken.out)
    assert piped["image"] == "-"
    assert piped["error"]
    assert named["predictions"]


def test_csv(predict: Callable[..., Ran], digits_run: Path, tmp_path: Path) -> None:
    sample = sorted((digits_run / "samples").iterdir())[0]
    (tmp_path / "a, b.png").write_text("x")
    ran = predict(sample, "a, b.png", "--top", 2, "--format", "csv")
    assert ran.code == 1
    assert ran.out.startswith("image,rank,label,class,probability,error\n")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert rows[0]["image"] == str(sample)
    assert 0 <= float(rows[0]["probability"]) <= 1
    assert rows[2]["image"] == "a, b.png"
    assert rows[2]["error"]


def test_table(predict: Callable[..., Ran], digits_run: Path) -> None:
    samples = sorted((digits_run / "samples").iterdir())
    one = predict(samples[0])
    assert one.code == 0
    name, *lines = one.out.splitlines()
    assert name == str(samples[0])
    assert len(lines) == 5
    assert all(line.endswith("%") and len(line) <= 80 for line in lines)
    assert "█" in lines[0]
    many = predict(*samples, "missing.png")
    assert many.code == 1
    assert len(many.out.splitlines()) == len(samples) + 1
    assert "missing.png: no such file" in many.out


def test_labels(predict: Callable[..., Ran], digits_run: Path, tmp_path: Path) -> None:
    names = [f"number {digit}" for digit in range(10)]
    (tmp_path / "names").write_text("\n".join(names) + "\n\n")
    sample = sorted((digits_run / "samples").iterdir())[0]
    ran = predict(sample, "--labels", "names", "--format", "json")
    (answer,) = json.loads(ran.out)
    for guess in answer["predictions"]:
        assert guess["label"] == names[guess["class"]]
    (tmp_path / "few").write_text("one\ntwo\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\n")
    for file, words in {
        "few": "2 labels given",
        "binary": "is not UTF-8 text",
        "none": "none: No such file",
    }.items():
        ran = predict(sample, "--labels", file)
        assert ran.code == 1
        assert ran.out == ""
        (line,) = ran.err.splitlines()
        assert line.startswith("error: ")
        assert words in line


def test_views_that_the_digits_do_not_have(
    predict: Callable[..., Ran], digits_run: Path
) -> None:
    ran = predict(digits_run / "samples", "--views", "10")
    assert ran.code == 1
    assert "error: --views 10: this checkpoint allows 1" in ran.err
