"""``alexnet export``: a checkpoint becomes a file that other programs read."""

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli import options, progress, runs, runtime, view


def export(
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="safetensors, torchvision, caffemodel, onnx or stablehlo.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The new file.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    ckpt: options.Ckpt = None,
    debug: options.Debug = False,
) -> None:
    """Write a trained network as a file for other programs.

    safetensors: any network. torchvision: owt, as torchvision's alexnet loads it.
    caffemodel: caffe, caffenet and others of which Caffe has every layer. These and
    onnx can be imported again and are then the same, bit for bit.

    onnx and stablehlo hold the whole network: RGB pictures of the network's own size,
    0 to 255, in; logits out. f32[N, C, H, W] for onnx, f32[N, H, W, C] for stablehlo,
    which jax.export.deserialize reads.

    Examples:
      alexnet export --format onnx --out digits.onnx
      alexnet export --ckpt weights/owt --format torchvision --out owt.pth
    """
    runtime.set_up()
    from alexnet_jax import checkpoint
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network
    from alexnet_jax.weights import exporting

    path = checkpoint.resolve(ckpt or runs.newest())
    table = network(checkpoint.read_meta(path).network)
    mesh = make_mesh(table, devices=1)
    with progress.Progress("loading the weights") as screen:
        loaded = checkpoint.load(path, mesh)
        screen.title = f"writing {out.name}"
        written = exporting.export(loaded, mesh, form, out)
    rows = [
        ("checkpoint", view.short(path)),
        ("network", f"{table.name}, {len(loaded.meta.classes):,} classes"),
        ("file", f"{view.short(written)}, {form}, {view.size(written.stat().st_size)}"),
    ]
    view.answer(view.pairs(rows))
