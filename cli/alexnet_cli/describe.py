"""``alexnet describe``: a network as a table, or what is in a checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alexnet_cli import options, view

if TYPE_CHECKING:
    from alexnet_jax.checkpoint import Meta
    from alexnet_jax.table import Network, Traced


def describe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK|CKPT",
            help="A network's name, or the path of a run or checkpoint.",
            autocompletion=options.complete_network,
        ),
    ] = "code2012",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show a network layer by layer: shapes, parameters, multiply-adds.

    Of a checkpoint also its step, its result, its classes and its recipe.

    Examples:
      alexnet describe
      alexnet describe digits --json
      alexnet describe runs/digits-1
    """
    from alexnet_jax.errors import ConfigError
    from alexnet_jax.networks import NETWORKS

    if what in NETWORKS:
        _show(NETWORKS[what], None, None, as_json)
        return
    if not Path(what).expanduser().exists() and "/" not in what:
        raise ConfigError(
            f"no network {what!r} and no checkpoint there; networks are "
            f"{', '.join(NETWORKS)}"
        )
    from alexnet_cli import runtime

    runtime.set_up()
    from alexnet_jax import checkpoint
    from alexnet_jax.networks import network

    path = checkpoint.resolve(what)
    meta = checkpoint.read_meta(path)
    _show(network(meta.network), meta, path, as_json)


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
    rows = [("image", "", "", _shape(size), "", "")]
    rows += [
        (
            row.row.name,
            _kind(row),
            row.reads,
            _shape(row.outputs),
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.macs:,}" if row.macs else "",
        )
        for row in traced
    ]
    view.answer(
        view.table(
            ("layer", "", "reads", "output", "parameters", "multiply-adds"),
            rows,
            right=("output", "parameters", "multiply-adds"),
            last=("total", "", "", "", f"{parameters:,}", f"{macs:,}"),
        )
    )


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
        "weights": {name: list(shape) for name, shape in row.weights.items()},
        "parameters": row.parameters,
        "macs": row.macs,
        "constants": constants,
    }


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _kind(row: "Traced") -> str:
    """Say in a few characters what a layer does."""
    layer: Any = row.row
    match type(layer).__name__:
        case "Conv":
            stride = f"/{layer.stride}" if layer.stride > 1 else ""
            return f"conv {layer.kernel}×{layer.kernel}{stride}"
        case "MaxPool" | "AvgPool" as kind:
            return f"{kind[:3].lower()} {layer.size}×{layer.size}/{layer.stride}"
        case "ResponseNorm":
            return f"norm over {layer.size} maps"
        case "SpatialNorm":
            return f"norm over {layer.size}×{layer.size}"
        case "Dropout":
            return f"dropout {1 - layer.keep:g}"
        case kind:
            return kind.lower()
