"""The table of 1, 2, 4 and 8 devices: sameness and bytes, and how it is shown."""

import json

import pytest

from alexnet_jax import plan, scaling
from alexnet_jax.networks import DIGITS
from alexnet_jax.scaling import Scaled


@pytest.mark.slow
def test_the_same_steps_on_one_and_two_devices(monkeypatch):
    # Of 8 such pictures two pixels are so nearly the largest of a window that the order
    # of summation decides whether they tie, and a tie's gradient goes to both.
    monkeypatch.setattr(scaling, "COUNTS", (1, 2, 1000))  # as far as there are any
    alone, data, towers = scaling.measure(batch_size=32)
    assert [(r.data, r.tower) for r in (alone, data, towers)] == [
        (1, 1),
        (2, 1),
        (1, 2),
    ]
    assert alone.difference == alone.tower_bytes == alone.data_bytes == 0
    for row in (data, towers):
        assert 0 < row.difference < 1e-4
        assert row.operations > 100
        assert row.images_per_second is row.efficiency is None  # virtual devices
    # A ring of two sends every gradient once; towers send maps, units and logits.
    parameters = 177_514
    assert (data.tower_bytes, data.data_bytes) == (0, 4 * (parameters + plan.SCORES))
    sent = sum(m.sent(2) for m in plan.messages(DIGITS, data=1, tower=2, batch_size=32))
    assert (towers.tower_bytes, towers.data_bytes) == (sent, 0)


def test_how_it_is_shown(monkeypatch, capsys):
    from alexnet_cli.main import main

    rows = [
        Scaled(1, 1, 0.0, 0.0, 0.0, 1500, 900.0, 1.0),
        Scaled(2, 2, 3e-7, 2048.0, 1e6, 1600, None, None),
    ]
    monkeypatch.setattr(scaling, "measure", lambda network: iter(rows))
    with pytest.raises(SystemExit) as ending:
        main(["bench", "--scaling"])
    assert ending.value.code == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert " ".join(first.split()) == "1 x 1 0.0e+00 0 B 0 B 1,500 900 100%"
    assert " ".join(second.split()) == "2 x 2 3.0e-07 2.0 KiB 976.6 KiB 1,600 - -"
    for words in (["--mode", "train"], ["--devices", "1"], ["--network", "digit"]):
        with pytest.raises(SystemExit) as ending:
            main(["bench", "--scaling", *words])
        assert ending.value.code != 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["bench", "--scaling", "--json"])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["difference"] for record in records] == [0.0, 3e-7]
