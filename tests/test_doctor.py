"""``alexnet doctor``: what there is, what is missing, and the command for it."""

import json
from pathlib import Path

import pytest


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must succeed, and return what it prints."""
    from alexnet_cli.main import main

    capsys.readouterr()
    with pytest.raises(SystemExit) as ending:
        main(["doctor", *arguments])
    assert ending.value.code == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_doctor_finds_data_and_runs(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    digits_run: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits-3").symlink_to(digits_run)
    info = tmp_path / "tfds" / "cifar10" / "3.0.2" / "dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text("{}")
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "ILSVRC2012_img_val.tar").write_bytes(b"")
    found = json.loads(doctor(capsys, "--json", "--data-dir", str(tmp_path / "tfds")))
    assert found["cores"] >= 1
    assert found["memory_bytes"]["total"] > 2**30
    assert len(found["devices"]) == 8  # the tests' virtual ones
    assert found["versions"]["jax"]
    assert found["newest_run"] == "runs/digits-3"
    assert found["data"]["tfds_sets"] == ["cifar10"]
    assert found["data"]["imagenet_files"] == ["ILSVRC2012_img_val.tar"]
    (missing,) = (m for m in found["missing"] if "ILSVRC" in m["what"])
    assert "put ILSVRC2012_img_train.tar in" in missing["what"]
    assert missing["command"].startswith("alexnet prepare imagenet2012")
    assert not [m for m in found["missing"] if "cifar10" in m["command"]]


def test_doctor_on_an_empty_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    out = doctor(capsys)
    for words in (
        "Machine",
        "8 x cpu",
        "none in ./runs",
        f"none in {tmp_path / 'none'}",
        "\n  no run yet\n    alexnet train\n",
        f"tfds build cifar10 --data_dir={tmp_path / 'none'}",
    ):
        assert words in out
    assert list(tmp_path.iterdir()) == []
