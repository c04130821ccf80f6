"""Rates: what is counted, and how the figures of one measurement hang together."""

import functools
import json

import jax
import numpy as np
import pytest

from alexnet_cli.main import main
from alexnet_jax import bench
from alexnet_jax.networks import network


def test_the_operations_of_an_image():
    # 724.4 million multiply-adds forward. Back: twice that, less the image's own
    # gradient, 55 * 55 * 96 windows of 11 * 11 * 3: 105.4 million.
    table = network("code2012")
    assert bench.flops(table, "forward") == 2 * 724_406_816
    conv1 = 55 * 55 * 96 * 11 * 11 * 3
    assert bench.flops(table, "train") == 2 * (3 * 724_406_816 - conv1)
    assert bench.flops(table, "end-to-end") == bench.flops(table, "train")
    assert bench.flops(table, "input") == 0


@pytest.mark.parametrize("mode", ["train", "input"])
def test_a_measurement(mode):
    found = bench.measure(
        "digits", mode, batch_size=8, devices=1, repeats=3, seconds=0.01
    )
    assert found.n == 3
    assert 0 < found.min <= found.images_per_second <= found.max
    assert found.compile_seconds > 0
    assert found.peak_memory > 50e6  # Python and jax alone
    assert found.versions["jax"] == jax.__version__
    if mode == "input":
        assert found.share_of_matmul is None
    else:
        work = bench.flops(network("digits"), mode)
        share = found.images_per_second * work / found.matmul_flops
        assert found.share_of_matmul == pytest.approx(share)


def test_the_peak_is_of_the_measurement_and_not_of_what_came_before():
    mesh = bench.make_mesh(network("digits"), devices=1)
    held = np.ones(2**25)  # 256 MiB
    assert bench._peak_memory(mesh) > held.nbytes
    with_it = bench._peak_memory(mesh)
    del held
    bench._forget_peak()
    assert bench._peak_memory(mesh) < with_it - 2**27


def test_the_command_keeps_what_json_prints(tmp_path, capsys, monkeypatch):
    short = functools.partial(bench.measure, repeats=2, seconds=0.01)
    monkeypatch.setattr(bench, "measure", short)
    out = tmp_path / "rates.jsonl"
    words = ["bench", "--network", "digits", "--mode", "input", "--batch-size", "8"]
    with pytest.raises(SystemExit) as ending:
        main([*words, "--json", "--out", str(out)])
    assert ending.value.code == 0
    assert out.read_text() == capsys.readouterr().out
    assert json.loads(out.read_text())["mode"] == "input"
    for file in (out, tmp_path / "new.jsonl"):  # what was measured before stays
        with pytest.raises(SystemExit) as ending:
            main(["bench", "--network", "digit", "--out", str(file)])
        assert ending.value.code == 1
    assert not (tmp_path / "new.jsonl").exists()
    assert "no network 'digit'" in capsys.readouterr().err
    assert json.loads(out.read_text())["mode"] == "input"
    with pytest.raises(SystemExit) as ending:
        main([*words, "--out", str(tmp_path)])
    assert ending.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "cannot be written: Is a directory; choose another file" in said
