"""A network without one of its parts: ``NAME:no-norm``, ``code2012:no-conv3``.

Each change is a function from a table to a table, so that what the paper took away from
its network can be taken away from any. Of ``code2012`` the results are the nets that
the authors trained for it, where those are known: 148 without norms, 147 without
overlap, 145-half with one tower (a test compares the rows).
"""

from collections.abc import Callable
from dataclasses import replace

from alexnet_jax.errors import ConfigError
from alexnet_jax.table import (
    AvgPool,
    Conv,
    Dense,
    Dropout,
    LocallyConnected,
    MaxPool,
    Network,
    Relu,
    ResponseNorm,
    Row,
    SpatialNorm,
    Tanh,
    Weighted,
    trace,
)

SIGN = ":no-"


def without(network: Network, part: str) -> Network:
    """Return a network without one of its parts.

    Args:
        network: the table.
        part: ``norm``, ``overlap``, ``towers``, ``dropout`` or the name of a layer.

    Returns:
        A table named ``NAME:no-PART``.

    Raises:
        ConfigError: it has no such part; the message lists those it has.
    """
    known = parts(network)
    if part not in known:
        raise ConfigError(
            f"{network.name} has no {part!r} to take away; it has {', '.join(known)}"
        )
    change = _CHANGES.get(part) or (lambda table: _without_layer(table, part))
    return replace(
        change(network),
        name=f"{network.name}{SIGN}{part}",
        source=f"{network.name} without {part}; {network.source}",
    )


def parts(network: Network) -> list[str]:
    """Return what can be taken away from a network, layers last."""
    rows = network.rows
    there = {
        "norm": any(isinstance(row, ResponseNorm | SpatialNorm) for row in rows),
        "overlap": any(_overlaps(row) for row in rows),
        "towers": network.towers == 2,
        "dropout": any(isinstance(row, Dropout) for row in rows),
    }
    return [part for part, has in there.items() if has] + layers(network)


def layers(network: Network) -> list[str]:
    """Return the layers that can be taken away: not the first, nor the classifier."""
    weighted = [row.name for row in network.rows if isinstance(row, Weighted)]
    return weighted[1:-1]


def middle_convolutions(network: Network) -> list[str]:
    """Return the convolutions but the first and the last (section 3.5's claim)."""
    convolutions = (Conv, LocallyConnected)
    return [r.name for r in network.rows if isinstance(r, convolutions)][1:-1]


def _without_norm(network: Network) -> Network:
    """Take all response norms away, as net 148 does, the spatial one too."""
    norms = (ResponseNorm, SpatialNorm)
    rows = tuple(row for row in network.rows if not isinstance(row, norms))
    return replace(network, rows=rows)


def _without_overlap(network: Network) -> Network:
    """Make pools' windows as small as their strides, as net 147 does.

    Such pools shrink a little less. Where one's output would grow, the convolution
    before it pads one pixel less, if only that restores the size.
    """
    sizes = [traced.outputs[0] for traced in trace(network)]
    rows = list(network.rows)
    conv: int | None = None  # place of the last convolution since the last pool
    for place, row in enumerate(network.rows):
        if isinstance(row, Conv | LocallyConnected):
            conv = place
        if not isinstance(row, MaxPool | AvgPool):
            continue
        if _overlaps(row):
            rows[place] = replace(row, size=row.stride)
        if conv is not None and _size(network, rows, place) > sizes[place]:
            padded = rows[conv]
            assert isinstance(padded, Conv | LocallyConnected)
            if padded.pad:
                less = rows.copy()
                less[conv] = replace(padded, pad=padded.pad - 1)
                if _size(network, less, place) == sizes[place]:
                    rows = less
        conv = None
    return replace(network, rows=tuple(rows))


def _without_towers(network: Network) -> Network:
    """Leave one tower of the two, as net 145-half does.

    The last convolution and the dense layers keep the width that both towers had
    together: most parameters are there, and so the count of them hardly changes
    (section 3.2, footnote).
    """
    convs = [r.name for r in network.rows if isinstance(r, Conv | LocallyConnected)]

    def widened(row: Row) -> Row:
        if isinstance(row, Dense) or row.name in convs[-1:]:
            assert isinstance(row, Conv | LocallyConnected | Dense)
            return replace(row, features=2 * row.features)
        return row

    return replace(network, towers=1, rows=tuple(map(widened, network.rows)))


def _without_dropout(network: Network) -> Network:
    rows = tuple(row for row in network.rows if not isinstance(row, Dropout))
    return replace(network, rows=rows)


def _without_layer(network: Network, name: str) -> Network:
    """Take a layer away with its ReLU and its dropout; pools and norms stay.

    If it read both towers, the next layer does so in its place: depth is what goes, not
    the meeting of the towers.
    """
    rows, gone, crossing = [], False, False
    for row in network.rows:
        if row.name == name:
            assert isinstance(row, Weighted)
            gone, crossing = True, getattr(row, "reads", "own") == "both"
            continue
        if isinstance(row, Weighted):
            if crossing and isinstance(row, Conv | LocallyConnected | Dense):
                row = replace(row, reads="both")
            gone = crossing = False
        if not (gone and isinstance(row, Relu | Tanh | Dropout)):
            rows.append(row)
    return replace(network, rows=tuple(rows))


def _overlaps(row: Row) -> bool:
    return isinstance(row, MaxPool | AvgPool) and row.size > row.stride


def _size(network: Network, rows: list[Row], place: int) -> int:
    """Return the side of the output of the row at ``place``."""
    *_, last = trace(replace(network, rows=tuple(rows[: place + 1])))
    return last.outputs[0]


_CHANGES: dict[str, Callable[[Network], Network]] = {
    "norm": _without_norm,
    "overlap": _without_overlap,
    "towers": _without_towers,
    "dropout": _without_dropout,
}
