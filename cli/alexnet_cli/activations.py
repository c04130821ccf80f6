"""``alexnet activations`` and ``alexnet features``: what the layers say, in files."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli import options, progress, runs, runtime, view

Out = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="Where the .npz goes.", rich_help_panel=options.OUTPUT
    ),
]


def activations(
    image: Annotated[
        str,
        typer.Argument(metavar="IMAGE", help="A picture; - reads it from stdin."),
    ],
    out: Out,
    ckpt: options.Ckpt = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    debug: options.Debug = False,
) -> None:
    """Write every layer's output for a picture to an .npz.

    One float32 array a layer, by its name (alexnet describe shows them), as [1, height,
    width, channels] or [1, units], tower 1 before tower 2; `input` is what the first
    layer sees, the picture's centre, `logits` what the last one says.

    Examples:
      alexnet activations cat.jpg --ckpt runs/imagenet-1 --out cat.npz
      python -c "import numpy; print(numpy.load('cat.npz')['conv1'].shape)"
    """
    runtime.set_up()
    from alexnet_jax import activations as layers
    from alexnet_jax import checkpoint
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    out = layers.check_out(out)
    path = checkpoint.resolve(ckpt or runs.newest())
    table = network(checkpoint.read_meta(path).network)
    mesh = make_mesh(table, devices=devices, towers=towers)
    picture = sys.stdin.buffer.read() if image == "-" else image
    found = layers.activations(checkpoint.load(path, mesh), picture, mesh)
    layers.save(out, found)
    view.answer(
        view.table(
            ("layer", "shape"),
            [(name, "×".join(map(str, rows.shape))) for name, rows in found.items()],
            right=("shape",),
        )
    )
    view.note(f"written to {view.short(out)}")


def features(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Pictures, folders or patterns; - reads one picture from stdin.",
        ),
    ],
    layer: Annotated[
        str,
        typer.Option(
            metavar="LAYER",
            help="A row of the network (alexnet describe), input or logits.",
            rich_help_panel=options.RUN,
        ),
    ],
    out: Out,
    ckpt: options.Ckpt = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    debug: options.Debug = False,
) -> None:
    """Write one layer's output for many pictures to an .npz.

    The file has `features`, float32 [pictures, units] or [pictures, height, width,
    channels], and `images`, their names. The network sees the pictures' centres. fc7 is
    that layer before its ReLU, relu7 after it. The disk is the limit, not the memory:
    on their way the values need twice their space. An input that cannot be read is left
    out and named; then the command ends with 1.

    Examples:
      alexnet features photos/ --layer relu7 --out photos.npz
      alexnet features 'a/*.jpg' b.png --layer fc7 --ckpt runs/a --out x.npz
    """
    if inputs.count("-") > 1:
        raise typer.BadParameter("- reads one picture from stdin: give it once")
    runtime.set_up()
    from alexnet_jax import activations as layers
    from alexnet_jax import checkpoint
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network
    from alexnet_jax.predict import expand

    out = layers.check_out(out)
    path = checkpoint.resolve(ckpt or runs.newest())
    name = checkpoint.read_meta(path).network
    layers.check_layer(name, layer)
    mesh = make_mesh(network(name), devices=devices, towers=towers)
    files = [
        file
        for given in inputs
        for file in (["-"] if given == "-" else expand([given]))
    ]
    pictures = (sys.stdin.buffer.read() if file == "-" else file for file in files)
    failed, shape = 0, ()
    with progress.Progress("loading the weights") as screen:
        found = layers.features(checkpoint.load(path, mesh), pictures, mesh, layer)
        screen.title = f"running to {layer}"
        for place, feature in enumerate(layers.save_features(out, layer, found)):
            if feature.values is None:
                failed += 1
                screen.line(view.failure(files[place], feature.error or ""))
            else:
                shape = feature.values.shape
            screen.advance(place + 1, len(files))
    if failed == len(files):
        view.warn(f"none of {len(files)} inputs could be read; nothing is written")
        raise typer.Exit(1)
    view.answer(
        view.pairs(
            [
                ("features", "×".join(map(str, (len(files) - failed, *shape)))),
                ("layer", f"{layer} of {view.short(path)}"),
                ("written to", view.short(out)),
            ]
        )
    )
    if failed:
        view.warn(f"{failed} of {len(files)} inputs could not be read")
        raise typer.Exit(1)
