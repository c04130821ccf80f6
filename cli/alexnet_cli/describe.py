"""``alexnet describe``: a network as a table, or what is in a checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alexnet_cli import options, view

if TYPE_CHECKING:
    from alexnet_jax.checkpoint import Meta
    from alexnet_jax.table import Network, Row, Traced


def describe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK|CKPT",
            help="A network's name, or the path of a run or checkpoint.",
            autocompletion=options.complete_network,
        ),
    ] = "code2012",
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="Show only the rows that differ from this network's.",
            autocompletion=options.complete_network,
        ),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show a network layer by layer: shapes, parameters, multiply-adds.

    `sees` is what a unit sees of the input: side of a square / pixels from one unit's
    to the next one's. Of a checkpoint also its step, its result, its classes and its
    recipe.

    Examples:
      alexnet describe
      alexnet describe paper --against code2012
      alexnet describe digits --json
      alexnet describe runs/digits-1
    """
    from alexnet_jax.errors import ConfigError
    from alexnet_jax.networks import NETWORKS, is_network, network

    other = None if against is None else network(against)
    if is_network(what):
        if other is None:
            _show(network(what), None, None, as_json)
        else:
            _compare(network(what), other, as_json)
        return
    if not Path(what).expanduser().exists() and "/" not in what:
        raise ConfigError(
            f"no network {what!r} and no checkpoint there; networks are "
            f"{', '.join(NETWORKS)}"
        )
    from alexnet_cli import runtime

    runtime.set_up()
    from alexnet_jax import checkpoint

    path = checkpoint.resolve(what)
    meta = checkpoint.read_meta(path)
    if other is None:
        _show(network(meta.network), meta, path, as_json)
    else:
        _compare(network(meta.network), other, as_json)


def _show(
    network: "Network", meta: "Meta | None", path: Path | None, as_json: bool
) -> None:
    from alexnet_jax.table import trace

    classes = len(meta.classes) if meta else network.classes
    traced = list(trace(network, classes))
    parameters = sum(row.parameters for row in traced)
    macs = sum(row.macs for row in traced)
    if as_json:
        record: dict[str, Any] = {
            "network": network.name,
            "source": network.source,
            "towers": network.towers,
            "input": [network.input_size, network.input_size, network.channels],
            "classes": classes,
            "parameters": parameters,
            "macs": macs,
            "layers": [_record(row) for row in traced],
        }
        if meta is not None:
            record["checkpoint"] = {"path": str(path), **dataclasses.asdict(meta)}
        print(json.dumps(record))
        return
    head = [
        ("network", f"{network.name}, {network.towers} tower"
         f"{'s' * (network.towers > 1)}, {classes:,} classes"),
        ("source", network.source),
    ]  # fmt: skip
    if meta is not None and path is not None:
        head += _of_checkpoint(meta, path)
    view.answer(view.pairs(head), "")
    size = (network.input_size, network.input_size, network.channels)
    rows = [("image", "", "", _shape(size), "", "", "")]
    rows += [
        (
            row.row.name,
            _kind(row),
            row.reads,
            _shape(row.outputs),
            _field(row),
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.macs:,}" if row.macs else "",
        )
        for row in traced
    ]
    view.answer(
        view.table(
            ("layer", "", "reads", "output", "sees", "parameters", "multiply-adds"),
            rows,
            right=("output", "sees", "parameters", "multiply-adds"),
            last=("total", "", "", "", "", f"{parameters:,}", f"{macs:,}"),
        )
    )


def _compare(one: "Network", other: "Network", as_json: bool) -> None:
    """Show the rows in which two tables differ."""
    from alexnet_jax.table import differences, trace

    found = list(differences(one, other))
    facts = ("towers", "input_size", "channels", "classes")
    apart = {
        name: (getattr(one, name), getattr(other, name))
        for name in facts
        if getattr(one, name) != getattr(other, name)
    }
    sums = [sum(row.parameters for row in trace(table)) for table in (one, other)]
    if as_json:
        record = {
            "network": one.name,
            "against": other.name,
            "parameters": sums,
            "facts": apart,
            "rows": [[_values(row) for row in pair] for pair in found],
        }
        print(json.dumps(record))
        return
    rows = [(name.replace("_", " "), *map(str, pair)) for name, pair in apart.items()]
    moved = {row for row, twin in found if row and twin is None and row in other.rows}
    for row, twin in found:
        if row in moved:
            rows.append((row.name, _place(row, one), _place(row, other)))  # pyright: ignore[reportOptionalMemberAccess]
        elif twin not in moved:
            rows.append(_side_by_side(row, twin))
    if not rows:
        view.answer(f"{one.name} and {other.name} have the same rows")
        return
    view.answer(
        view.table(
            ("", one.name, other.name),
            rows,
            last=("parameters", *(f"{count:,}" for count in sums)),
        )
    )


def _values(row: "Row | None") -> dict[str, Any] | None:
    if row is None:
        return None
    return {"kind": type(row).__name__, **dataclasses.asdict(row)}


def _place(row: "Row", table: "Network") -> str:
    place = table.rows.index(row)
    return f"after {table.rows[place - 1].name}" if place else "first"


def _side_by_side(row: "Row | None", twin: "Row | None") -> tuple[str, str, str]:
    """Say what two rows are; of two of one kind only the constants that differ."""
    values, others = _values(row) or {}, _values(twin) or {}
    alike = {name for name in values if values[name] == others.get(name)}

    def said(values: dict[str, Any]) -> str:
        kind = values.get("kind", "none")
        if "kind" in alike:
            kind = ""
        constants = [
            f"{name} {value}"
            for name, value in values.items()
            if name not in {"kind", "name"} | alike
        ]
        return ", ".join([kind] * bool(kind) + constants)

    name = values.get("name") or others["name"]
    return name, said(values), said(others)


def _of_checkpoint(meta: "Meta", path: Path) -> list[tuple[str, str]]:
    from alexnet_jax.classes import readable

    names = ", ".join(readable(meta.classes[:10]))
    shown = names + (", ..." if len(meta.classes) > 10 else "")
    rows = [
        ("checkpoint", view.short(path)),
        ("step", f"{meta.step:,} of {meta.total_steps:,} (epoch {meta.epoch:.1f})"),
        ("classes", shown),
        ("pictures", f"{meta.image_size} x {meta.image_size}, "
         f"{' or '.join(map(str, meta.views))} view{'s' * (meta.views != [1])}"),
    ]  # fmt: skip
    if meta.evaluated is not None:
        found = meta.evaluated
        rows.append(
            (
                "result",
                f"top-1 error {found['top1_error']:.2%}, top-5 error "
                f"{found['top5_error']:.2%} ({found['images']:,} {meta.eval_role})",
            )
        )
    if meta.recipe is not None:
        rows.append(
            ("recipe", f"{meta.recipe['name']}, data {meta.recipe['data']['spec']}")
        )
    return rows


def _record(row: "Traced") -> dict[str, Any]:
    constants = dataclasses.asdict(row.row)
    return {
        "name": constants.pop("name"),
        "kind": type(row.row).__name__,
        "reads": row.reads or None,
        "output": list(row.outputs),
        "field": dataclasses.asdict(row.field),
        "weights": {name: list(shape) for name, shape in row.weights.items()},
        "parameters": row.parameters,
        "macs": row.macs,
        "constants": constants,
    }


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _field(row: "Traced") -> str:
    """Say what a unit sees; nothing where it is all that the layer below sees."""
    return f"{row.field.size}/{row.field.stride}" if row.field.stride else ""


def _kind(row: "Traced") -> str:
    """Say in a few characters what a layer does."""
    layer: Any = row.row
    match type(layer).__name__:
        case "Conv":
            stride = f"/{layer.stride}" if layer.stride > 1 else ""
            return f"conv {layer.kernel}×{layer.kernel}{stride}"
        case "MaxPool" | "AvgPool" as kind:
            return f"{kind[:3].lower()} {layer.size}×{layer.size}/{layer.stride}"
        case "LocallyConnected":
            return f"local {layer.kernel}×{layer.kernel}"
        case "ResponseNorm":
            return f"norm {layer.size} maps"
        case "SpatialNorm":
            return f"norm {layer.size}×{layer.size}"
        case "Dropout":
            return f"dropout {1 - layer.keep:g}"
        case kind:
            return kind.lower()
