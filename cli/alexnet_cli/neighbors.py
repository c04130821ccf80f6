"""``alexnet neighbors``: the pictures of a set that a layer finds most alike."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from alexnet_cli import options, progress, runs, runtime, splits, view

if TYPE_CHECKING:
    import numpy as np

    from alexnet_jax.checkpoint import Loaded
    from alexnet_jax.data import Source
    from alexnet_jax.neighbors import Neighbor

EVAL = "eval:"


class Query(NamedTuple):
    """A picture that others are compared with.

    Attributes:
        name: as the user gave it.
        pixels: ``u8[S, S, C]``, as the checkpoint wants them.
        label: its true class where that is known.
    """

    name: str
    pixels: "np.ndarray"
    label: str | None


def neighbors(
    queries: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY",
            help="Pictures, folders or patterns; eval:N is picture N of the "
            "evaluation split.",
        ),
    ],
    ckpt: options.Ckpt = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="A row of the network (alexnet describe); fc7 is before its ReLU, "
            "relu7 after it.",
            show_default="what the classifier reads",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=1,
            help="Neighbours of each picture, nearest first.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = 6,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="Split to search, such as train or train[:90%].",
            show_default="the one that the run trained on",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    eval_split: options.EvalSplit = None,
    out: options.Picture = None,
    batch_size: Annotated[int | None, options.batch_size("128")] = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the pictures that are most alike to what a layer says of them.

    The paper's Figure 4: nearest by Euclidean distance in the last hidden layer, among
    the pictures that the run was trained on. What the layer says of them is computed
    once and kept beside the run, in half precision; later queries only search. A
    picture that is itself in the set is not its own neighbour. The picture has a
    .json of its name beside it.

    Examples:
      alexnet neighbors runs/digits-1/samples
      alexnet neighbors eval:7 eval:12 --ckpt runs/cifar10-quick-1 --top 9
      alexnet neighbors cat.jpg --ckpt runs/imagenet-1 --layer fc7 --out like.png
    """
    runtime.set_up()
    from alexnet_jax import checkpoint
    from alexnet_jax import neighbors as likeness
    from alexnet_jax.activations import check_layer, features
    from alexnet_jax.classes import readable
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    path = checkpoint.resolve(ckpt or runs.newest())
    meta = checkpoint.read_meta(path)
    table = network(meta.network)
    layer = check_layer(meta.network, layer or likeness.last_hidden(table))
    out = runs.picture(out, path, "neighbors.png")
    chosen = splits.choose(path, meta, data, data_dir, split, training=True)
    tested = None
    if any(query.startswith(EVAL) for query in queries):
        tested = splits.choose(path, meta, data, data_dir, eval_split)
    mesh = make_mesh(table, devices=devices, towers=towers)
    with progress.Progress("loading the weights", quiet=as_json) as screen:
        loaded = checkpoint.load(path, mesh)
        asked = _read(loaded, queries, tested and tested.source)
        screen.title = f"running {chosen.source.name} to {layer}"
        index_path = likeness.place(
            runs.home(path) / "neighbors", loaded, chosen.source, layer
        )
        for rows in likeness.write(
            index_path,
            loaded,
            chosen.source,
            mesh,
            layer,
            batch_size=batch_size or likeness.BATCH_SIZE,
        ):
            screen.advance(rows, len(chosen.source))
        index = likeness.read(index_path)
        screen.title = "searching"
        found = []
        pictures = [query.pixels for query in asked]
        for query, feature in zip(
            asked, features(loaded, pictures, mesh, layer), strict=True
        ):
            assert feature.values is not None  # it is pixels already
            near = likeness.search(index, feature.values.ravel(), top + 1)
            found.append(_others(loaded, chosen.source, query, near)[:top])
        screen.title = "drawing"
        names = readable(chosen.source.classes)
        _draw(loaded, chosen.source, layer, asked, found, names, out)
    records = [
        _record(query, near, names) for query, near in zip(asked, found, strict=True)
    ]
    record = {
        "checkpoint": str(path),
        "layer": layer,
        "data": chosen.source.name,
        "images": len(index.labels),
        "index": str(index.path),
        "picture": str(out),
        "queries": records,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    out.with_suffix(".json").write_text(text, encoding="utf-8")
    if as_json:
        print(json.dumps(record))
        return
    for query, near in zip(records, found, strict=True):
        known = f" ({query['label']})" if query["label"] is not None else ""
        said = ", ".join(f"{names[n.label]} {n.distance:.3g}" for n in near)
        view.answer(view.heading(query["query"] + known), f"  {said}")
    view.note(
        f"among {len(index.labels):,} of {chosen.source.name}; drawn to "
        f"{view.short(out)}"
    )


def _read(
    loaded: "Loaded", queries: Sequence[str], tested: "Source | None"
) -> list[Query]:
    """Read the queries' pictures.

    Raises:
        ConfigError: the evaluation split has no such picture.
        ImageError: one cannot be read.
    """
    from alexnet_jax import classes, units
    from alexnet_jax.errors import ConfigError
    from alexnet_jax.predict import expand, pixels

    known = classes.readable(loaded.meta.classes)
    asked = []
    for query in queries:
        if query.startswith(EVAL) and tested is not None:
            number = query.removeprefix(EVAL)
            if not number.isdecimal() or int(number) >= len(tested):
                raise ConfigError(
                    f"{query}: {tested.name} has pictures {EVAL}0 to "
                    f"{EVAL}{len(tested) - 1}"
                )
            label = classes.readable(tested.classes)[tested[int(number)].label]
            stored = units.stored(loaded, tested, int(number))
            asked.append(Query(query, stored, label))
            continue
        for file in expand([query]):
            true = classes.of_file(file, loaded.meta.classes)
            label = None if true is None else known[true]
            asked.append(Query(file, pixels(loaded, file), label))
    return asked


def _others(
    loaded: "Loaded", source: "Source", query: Query, near: "Sequence[Neighbor]"
) -> "list[Neighbor]":
    """Leave out the query itself: a picture of the same pixels."""
    from alexnet_jax import units

    others = []
    for neighbor in near:
        same = units.stored(loaded, source, neighbor.index)
        if not (same == query.pixels).all():
            others.append(neighbor)
    return others


def _draw(
    loaded: "Loaded",
    source: "Source",
    layer: str,
    asked: Sequence[Query],
    found: "Sequence[Sequence[Neighbor]]",
    names: list[str],
    out: Path,
) -> None:
    from alexnet_jax import figures, units

    drawn = []
    for query, near in zip(asked, found, strict=True):
        shown = figures.Shown(
            units.centre(loaded, query.pixels), query.label or "", Path(query.name).name
        )
        others = [
            figures.Shown(
                units.view(loaded, source, neighbor.index),
                names[neighbor.label],
                f"{neighbor.distance:.3g}",
            )
            for neighbor in near
        ]
        drawn.append((shown, others))
    figures.neighbors(
        drawn,
        out,
        title=f"Nearest in {layer} of {runs.title(loaded.path, loaded.meta)}",
        caption=f"Euclidean distance; among {len(source):,} pictures of {source.name}",
    )


def _record(
    query: Query, near: "Sequence[Neighbor]", names: list[str]
) -> dict[str, Any]:
    return {
        "query": query.name,
        "label": query.label,
        "neighbors": [
            {
                "image": neighbor.id,
                "index": neighbor.index,
                "label": names[neighbor.label],
                "distance": neighbor.distance,
            }
            for neighbor in near
        ],
    }
