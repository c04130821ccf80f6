"""``alexnet mesh``: who does what here, and what other meshes would cost."""

import json
import socket

import pytest

from alexnet_cli.main import main


@pytest.fixture
def mesh(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main(["mesh", *arguments])
        captured = capsys.readouterr()
        assert ending.value.code == 0, captured.err
        return [" ".join(line.split()) for line in captured.out.splitlines()], captured

    return run


def test_each_device_has_its_tower_and_images(mesh):
    lines, printed = mesh("digits", "--devices", "4", "--batch-size", "64")
    host = socket.gethostname()
    assert lines == [
        "device kind process host holds images of a batch",
        f"0 cpu 0 {host} tower 1 0 to 31",
        f"1 cpu 0 {host} tower 2 0 to 31",
        f"2 cpu 0 {host} tower 1 32 to 63",
        f"3 cpu 0 {host} tower 2 32 to 63",
    ]
    assert printed.err.splitlines()[-1] == (
        "digits: 4 devices (cpu): 2 x data, one tower on each of two devices; batch 64"
    )
    lines, _ = mesh("digits", "--devices", "1", "--json")
    assert json.loads(lines[0]) == {
        "host": host,
        "device": 0,
        "kind": "cpu",
        "process": 0,
        "tower": None,
        "rows": [0, 128],
    }
    _, printed = mesh("owt", "--devices", "2", "--hybrid")
    assert "fully connected layers divided over 2" in printed.err


def test_a_plan_beside_pure_data_parallelism(mesh):
    lines, printed = mesh("--plan", "1024", "--link", "25")
    assert [line.split(" ")[:5] for line in lines[1:]] == [
        ["data", "only", "1024", "x", "1"],
        ["towers", "apart", "512", "x", "2"],
    ]
    assert "code2012, batch 131,072" in printed.err
    (record,), _ = mesh("owt", "--plan", "8", "--json")
    data, hybrid = json.loads(record)
    assert (data["layout"], hybrid["layout"]) == ("data", "hybrid")
    assert hybrid["data_bytes"] < data["data_bytes"] / 3
