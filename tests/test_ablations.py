"""Networks without a part: the nets the authors trained, and counts by hand."""

import json

import pytest

from alexnet_jax import ablations
from alexnet_jax.errors import ConfigError
from alexnet_jax.networks import NETWORKS, is_network, network
from alexnet_jax.table import Conv, Dense, Dropout, MaxPool, Relu, trace

OF_2012 = {"norm": "no-norm", "overlap": "no-overlap", "towers": "one-tower"}


@pytest.mark.parametrize("part", OF_2012)
def test_of_code2012_they_are_the_nets_148_147_and_145_half(part):
    table, published = network(f"code2012:no-{part}"), network(OF_2012[part])
    assert table.rows == published.rows
    assert table.towers == published.towers


def test_no_part_that_is_taken_away_is_left():
    for table in NETWORKS.values():
        for part in ablations.parts(table):
            changed = network(f"{table.name}:no-{part}")
            assert changed.name == f"{table.name}:no-{part}"
            assert part not in ablations.parts(changed)
            # The same picture goes in, the same classes come out.
            *_, last = trace(changed)
            assert last.outputs == (table.classes,)
            assert changed.input_size == table.input_size


def test_the_two_tower_network_for_cifar10():
    table = network("cifar10-towers")
    kinds = {type(row) for row in table.rows}
    assert kinds == {type(row) for row in network("code2012").rows}
    reads = [row.reads for row in table.rows if isinstance(row, Conv | Dense)]
    assert reads == ["both", "own", "both", "own", "both"]
    assert ablations.parts(table) == [
        *("norm", "overlap", "towers", "dropout"),
        *("conv2", "conv3", "conv4", "fc5"),
    ]
    assert ablations.middle_convolutions(table) == ["conv2", "conv3"]


@pytest.mark.parametrize(
    ("part", "parameters"),
    [
        ("norm", 556_682),
        ("overlap", 556_682),
        ("dropout", 556_682),
        # conv1 16, conv2 32, conv3 48, conv4 96, fc5 512
        (
            "towers",
            (75 + 1) * 16
            + (9 * 16 + 1) * 32
            + (9 * 32 + 1) * 48
            + (9 * 48 + 1) * 96
            + (9 * 96 + 1) * 512
            + (512 + 1) * 10,
        ),
        # conv3 (64 to 96) goes; conv4 reads both towers' 64 in its place
        ("conv3", 556_682 - (9 * 64 + 1) * 96 + 9 * (64 - 48) * 96),
        # conv2 goes: conv3 reads conv1's 32 instead of 64
        ("conv2", 556_682 - (9 * 16 + 1) * 64 - 9 * 32 * 96),
    ],
)
def test_parameters(part, parameters):
    table = network(f"cifar10-towers:no-{part}")
    assert sum(row.parameters for row in trace(table)) == parameters


def test_a_layer_goes_with_its_relu_and_dropout_and_leaves_its_pool():
    rows = {row.name: row for row in network("code2012:no-conv3").rows}
    assert "relu3" not in rows
    assert rows["conv4"] == Conv("conv4", 192, 3, 1, 1, "both", 0.03, 1.0)
    rows = {row.name: row for row in network("code2012:no-conv5").rows}
    assert "relu5" not in rows
    assert isinstance(rows["pool5"], MaxPool)
    rows = {row.name: row for row in network("code2012:no-fc6").rows}
    assert not {"relu6", "drop6"} & rows.keys()
    assert isinstance(rows["drop7"], Dropout)
    assert isinstance(rows["relu7"], Relu)


def test_pools_without_overlap_keep_the_sizes_where_they_can():
    for name in ("cifar10-towers", "cifar-80sec", "owt", "digits"):
        sizes = [
            [t.outputs[0] for t in trace(network(each)) if "pool" in t.row.name]
            for each in (name, f"{name}:no-overlap")
        ]
        grown = [b - a for a, b in zip(*sizes, strict=True)]
        assert all(0 <= each <= 1 for each in grown)
        assert grown[-1] == 0


def test_parts_follow_each_other():
    table = network("code2012:no-norm:no-dropout")
    assert table.name == "code2012:no-norm:no-dropout"
    gone = {row.name for row in network("code2012").rows}
    gone -= {row.name for row in table.rows}
    assert gone == {"norm1", "norm2", "cnorm2", "drop6", "drop7"}


def test_what_is_not_there_cannot_be_taken_away():
    with pytest.raises(ConfigError) as raised:
        network("owt:no-norm")
    assert str(raised.value) == (
        "owt has no 'norm' to take away; it has overlap, dropout, conv2, conv3, conv4, "
        "conv5, fc6, fc7"
    )
    with pytest.raises(ConfigError, match=r"^no network 'alexnet'; there are code"):
        network("alexnet:no-norm")
    assert is_network("owt:no-norm")
    assert not is_network("alexnet:no-norm")


def test_described_against_the_whole(capsys):
    from alexnet_cli.main import main

    whole = ["describe", "cifar10-towers", "--against", "cifar10-towers:no-norm"]
    with pytest.raises(SystemExit) as ending:
        main([*whole, "--json"])
    assert ending.value.code == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [one["name"] for one, other in rows] == ["norm1", "norm2", "cnorm2"]
    assert all(other is None for one, other in rows)
