"""``alexnet prepare``: bring a data set to small squares once."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli import options, progress, runtime, view

LISTED = 20  # corrupt pictures shown; the store's corrupt.txt has all


def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Data set: imagenet2012, tfds:NAME or folder:PATH.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of the store; given again, it is continued.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    data_dir: options.DataDir = None,
    train_split: options.TrainSplit = None,
    eval_split: options.EvalSplit = None,
    image_size: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Side of the stored squares in pixels.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = 256,
    quality: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=100,
            help="Of the stored JPEGs.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = 85,
    max_corrupt: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of unreadable pictures that may be left out, 0 to 1.",
            rich_help_panel=options.DATA,
        ),
    ] = 0.01,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Threads.",
            show_default="one a core",
            rich_help_panel=options.MACHINE,
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Scale and crop a data set once, so that training reads it fast.

    Writes 256 x 256 JPEGs, the mean image and the colour covariance, as in 2012.
    Stopped at any moment, even by kill -9, the same command continues it.

    Examples:
      alexnet prepare imagenet2012 --data-dir /data/tfds --out /data/imagenet256
      alexnet prepare folder:photos --out photos256 --max-corrupt 0.05
    """
    runtime.set_up()
    from alexnet_jax.data import prepare as preparing

    events = preparing.prepare(
        options.absolute(source),
        out,
        data_dir=None if data_dir is None else str(data_dir.expanduser()),
        train_split=train_split,
        eval_split=eval_split,
        image_size=image_size,
        quality=quality,
        max_corrupt=max_corrupt,
        workers=workers,
    )
    finished, listed = None, 0
    with progress.Progress("opening the source") as screen:
        for event in events:
            match event:
                case preparing.Started():
                    screen.title = "preparing"
                    parts = [f"{n:,} {split}" for split, n in event.splits.items()]
                    screen.line(f"{event.total:,} pictures: {', '.join(parts)}")
                    if event.done:
                        screen.line(f"{event.done:,} of them were done before")
                    screen.advance(event.done, event.total)
                case preparing.Progress():
                    tail = f"{event.corrupt:,} left out" if event.corrupt else ""
                    screen.advance(event.done, event.total, tail)
                case preparing.Skipped():
                    listed += 1
                    if listed <= LISTED:
                        screen.line(f"left out: {event.id}: {event.reason}")
                    if listed == LISTED:
                        screen.line(f"more are listed in {out / 'corrupt.txt'}")
                case preparing.Finished():
                    finished = event
    assert finished is not None
    stored = sum(finished.images.values())
    parts = [f"{n:,} {split}" for split, n in finished.images.items()]
    where = view.short(finished.out)
    listing = f", listed in {view.short(finished.out / 'corrupt.txt')}"
    rows = [
        ("store", where + (" (was complete before)" if finished.already else "")),
        ("pictures", f"{stored:,} ({', '.join(parts)}), {view.size(finished.bytes)}"),
        ("left out", f"{finished.corrupt:,}{listing if finished.corrupt else ''}"),
    ]
    view.answer(view.pairs(rows))
    recipe = "imagenet" if source == "imagenet2012" else "RECIPE"
    train = f"alexnet train {recipe} --data {shlex.quote(f'prepared:{where}')}"
    view.answer(view.commands("\nNext", [train]))
