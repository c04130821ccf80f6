"""``alexnet units``: the patches that excite units most, a picture a layer."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alexnet_cli import options, progress, runs, runtime, splits, view

if TYPE_CHECKING:
    from alexnet_jax.checkpoint import Loaded
    from alexnet_jax.data import Source
    from alexnet_jax.units import Best


def units(
    ckpt: options.Ckpt = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="A row of the network (alexnet describe); may be given again.",
            show_default="every convolution",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    numbers: Annotated[
        str | None,
        typer.Option(
            "--units",
            metavar="N,N",
            help="Numbers of the units to show, from 0.",
            show_default="a dozen, evenly spaced",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    eval_split: options.EvalSplit = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for units-LAYER.png and units-LAYER.json.",
            show_default="the run's figures",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    batch_size: Annotated[int | None, options.batch_size("128")] = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show from edges to parts what the layers have learned to see.

    Of each unit the nine pictures of the evaluation split that excite it most, cut to
    what the unit sees (its receptive field; grey where that hangs over the picture's
    edge), from the strongest at the upper left. A class that most of them belong to is
    named.

    Examples:
      alexnet units
      alexnet units --ckpt runs/imagenet-1 --layer conv1 --layer conv5
      alexnet units --layer conv2 --units 3,17,40 --eval-split train --out figures
    """
    wanted = _numbers(numbers)
    runtime.set_up()
    from alexnet_jax import checkpoint
    from alexnet_jax import units as excitement
    from alexnet_jax.classes import readable
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    path = checkpoint.resolve(ckpt or runs.newest())
    meta = checkpoint.read_meta(path)
    table = network(meta.network)
    chosen = {
        name: excitement.choose(table, name, len(meta.classes), wanted)
        for name in layer or excitement.layers(table)
    }
    if out is not None:
        out = _folder(out)
    pictures = {
        name: runs.picture(out and out / f"units-{name}.png", path, f"units-{name}.png")
        for name in chosen
    }
    split = splits.choose(path, meta, data, data_dir, eval_split)
    mesh = make_mesh(table, devices=devices, towers=towers)
    seen = None
    with progress.Progress("loading the weights", quiet=as_json) as screen:
        loaded = checkpoint.load(path, mesh)
        screen.title = f"looking through {split.source.name}"
        for seen in excitement.excite(
            loaded, split.source, mesh, chosen, batch_size=batch_size or 128
        ):
            screen.advance(seen.images, len(split.source))
        assert seen is not None
        screen.title = "drawing"
        names = readable(split.source.classes)
        records = []
        for name, best in seen.layers.items():
            record = _draw(loaded, split.source, name, best, names, pictures[name])
            records.append({"checkpoint": str(path), "layer": name, **record})
            text = json.dumps(records[-1], indent=1, ensure_ascii=False)
            pictures[name].with_suffix(".json").write_text(text, encoding="utf-8")
    if as_json:
        print(json.dumps(records))
        return
    view.answer(
        view.table(
            ("layer", "sees", "picture"),
            [
                (
                    record["layer"],
                    _sees(record["field"]),
                    view.short(record["picture"]),
                )
                for record in records
            ],
        )
    )


def _folder(out: Path) -> Path:
    """Make the folder of the pictures.

    Raises:
        ConfigError: it cannot be made.
    """
    from alexnet_jax.errors import ConfigError

    out = out.expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be made: {error.strerror}; choose another folder"
        ) from None
    return out


def _sees(field: dict[str, int]) -> str:
    return f"{field['size']}×{field['size']} pixels" if field["stride"] else "all"


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--units {text}: give numbers such as 3,17,40"
        ) from None


def _draw(
    loaded: "Loaded",
    source: "Source",
    layer: str,
    best: "Best",
    names: list[str],
    out: Path,
) -> dict[str, Any]:
    """Draw a layer's units; return what is drawn."""
    import dataclasses

    from alexnet_jax import figures
    from alexnet_jax import units as excitement
    from alexnet_jax.networks import network
    from alexnet_jax.table import Classifier

    table = network(loaded.meta.network)
    traced = excitement.traced(table, layer)
    field, maps, towers = traced.field, traced.outputs[-1], table.towers
    shown, records = [], []
    cut = excitement.patches(loaded, source, layer, best)
    for unit, patches in zip(best.units, cut, strict=True):
        found = [
            {
                "image": patch.image,
                "index": patch.index,
                "label": names[patch.label],
                "value": patch.value,
                "top": patch.top,
                "left": patch.left,
            }
            for patch in patches
        ]
        name, many = Counter(patch["label"] for patch in found).most_common(1)[0]
        remark = f"{many} of {len(found)}: {name}" if 2 * many > len(found) else ""
        shown.append(
            figures.Unit(f"unit {unit}", remark, [patch.pixels for patch in patches])
        )
        # The classifier's units are sums over all towers.
        own = None if isinstance(traced.row, Classifier) else 1 + unit * towers // maps
        records.append({"unit": unit, "tower": own, "patches": found})
    caption = f"best of {source.name}"
    if field.stride:
        caption += (
            f"; each sees {field.size}×{field.size} pixels, the next {field.stride} on"
        )
    figures.units(
        shown,
        out,
        title=f"{layer}: {len(shown)} units of {runs.title(loaded.path, loaded.meta)}",
        caption=caption,
    )
    return {
        "field": dataclasses.asdict(field),
        "data": source.name,
        "units": records,
        "picture": str(out),
    }
