"""``alexnet import``: a file of weights that others made becomes a checkpoint."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_cli import options, progress, runtime, view


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .caffemodel, .pth, .onnx, .safetensors or .npz file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="New folder of the checkpoint.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The network that it is.",
            show_default="as the file tells",
            autocompletion=options.complete_network,
        ),
    ] = None,
    mean: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mean image: Caffe's .binaryproto, or a .npy array.",
            show_default="the file's, or its publisher's",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names of the classes, one a line, in order.",
            show_default="the file's, or ImageNet's",
        ),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Turn a file of weights from Caffe, PyTorch or others into a checkpoint.

    What kind of file it is, is told by its content. Layout, colour order,
    preprocessing and class names go into the checkpoint: predict and eval need no
    further option. Nothing in the file is executed, and none of those programs needed.

    Examples:
      alexnet import bvlc_alexnet.caffemodel --out weights/caffe
      alexnet import alexnet-owt-7be5be79.pth --out weights/owt
      alexnet import model.caffemodel --mean mean.binaryproto --out weights/mine
    """
    runtime.set_up()
    from alexnet_jax import checkpoint
    from alexnet_jax.weights import importing

    checkpoint.check_new(out)
    classes = None if labels is None else options.read_labels(labels)
    with progress.Progress("reading the weights", quiet=as_json) as screen:
        imported = importing.read(file, network=network, mean=mean, classes=classes)
        screen.title = "writing the checkpoint"
        path = importing.write(imported, out)
    found = importing.summary(imported)
    if as_json:
        print(json.dumps({**found, "checkpoint": str(path)}))
        return
    view.answer(view.pairs(_rows(found, importing.FORMATS, path)))
    for note in imported.notes:
        view.warn(note)
    shown = shlex.quote(view.short(path))
    view.answer(
        view.commands(
            "\nNext",
            [
                f"alexnet predict PICTURE --ckpt {shown}",
                f"alexnet eval --ckpt {shown} --data imagenet2012",
            ],
        )
    )


def _rows(
    found: dict[str, Any], formats: dict[str, str], path: Path
) -> list[tuple[str, str]]:
    known = found["known"] or "not one of the public files known here"
    side, resize = found["image_size"], found["resize"]
    how = "stretched to" if resize == "stretch" else "shorter side and centre"
    mean = ", ".join(f"{value:.3f}" for value in found["mean"])
    scale = ""
    if any(value != 1 for value in found["scale"]):
        scale = ", times " + ", ".join(f"{value:.5f}" for value in found["scale"])
    return [
        ("file", f"{view.short(found['file'])}, {view.size(found['bytes'])}"),
        ("SHA-256", found["sha256"]),
        ("SHA-1", found["sha1"]),
        ("is", known),
        ("format", formats[found["format"]]),
        ("network", f"{found['network']}, {found['parameters']:,} parameters in "
         f"{found['tensors']} tensors"),
        ("classes", f"{found['classes']:,}"),
        ("pictures", f"{how} {side} x {side}; {' or '.join(map(str, found['views']))} "
         f"view{'s' * (found['views'] != [1])}"),
        ("mean", f"RGB {mean} ({found['mean_from']}){scale}"),
        ("checkpoint", view.short(path)),
    ]  # fmt: skip
