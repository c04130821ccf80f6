"""``alexnet predict``: say what pictures show, for people and for programs."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alexnet_cli import options, runs, runtime, view

if TYPE_CHECKING:
    from alexnet_jax.checkpoint import Loaded
    from alexnet_jax.predict import Answer, Picture

MANY = 6  # pictures from which each gets one line
DRAWN = 24  # pictures in a figure, at most


class Format(StrEnum):
    """How the answers are written."""

    table = "table"
    json = "json"
    csv = "csv"


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Pictures, folders or patterns; - reads one picture from stdin.",
        ),
    ],
    ckpt: options.Ckpt = None,
    top: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=1,
            help="Classes to name, best first.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = 5,
    views: options.Views = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Other names for the classes, one a line, in order.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="table|json|csv",
            help="A table for people, JSON or CSV for programs.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = Format.table,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Draw the first {DRAWN} pictures with their guesses, .png or .svg.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    debug: options.Debug = False,
) -> None:
    """Say what pictures show.

    Any format that Pillow reads. An input that cannot be read gets an error of its own,
    the others are answered; then the command ends with 1. --figure draws the paper's
    Figure 4: picture, true class (where its folder is named like one), a bar a guess.

    Examples:
      alexnet predict cat.jpg
      alexnet predict runs/digits-1/samples --figure guesses.png
      alexnet predict photos/ '*.png' --ckpt runs/imagenet-1 --format json
      curl -s URL | alexnet predict - --top 1
    """
    names = None if labels is None else options.read_labels(labels)
    if inputs.count("-") > 1:
        raise typer.BadParameter("- reads one picture from stdin: give it once")
    runtime.set_up()
    from alexnet_jax import checkpoint, figures
    from alexnet_jax import predict as prediction
    from alexnet_jax.classes import readable
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    if figure is not None:
        figure = figures.check_picture(figure, "--figure")
    path = checkpoint.resolve(ckpt or runs.newest())
    mesh = make_mesh(
        network(checkpoint.read_meta(path).network), devices=devices, towers=towers
    )
    files = [
        file
        for given in inputs
        for file in (["-"] if given == "-" else prediction.expand([given]))
    ]
    given = sys.stdin.buffer.read() if "-" in files else b""
    pictures = [given if file == "-" else file for file in files]
    loaded = checkpoint.load(path, mesh)
    answers = prediction.predict(
        loaded, pictures, mesh, top=top, views=views, labels=names
    )
    columns = None
    if len(files) >= MANY:
        shown = names or readable(loaded.meta.classes)
        columns = (max(map(len, files)), max(map(len, shown)))
    kept: list[Any] = []
    answers = _named(answers, files)
    if figure is not None:
        answers = _keep(answers, pictures, kept)
    failed = sum(_write(answers, form, columns))
    if figure is not None and kept:
        _draw(loaded, kept, names, figure)
    if failed:
        view.warn(f"{failed} of {len(files)} inputs could not be read")
        raise typer.Exit(1)


def _keep(
    answers: "Iterable[Answer]",
    pictures: "Sequence[Picture]",
    kept: "list[tuple[Picture, Answer]]",
) -> "Iterator[Answer]":
    """Pass answers on; put those aside that are drawn."""
    for picture, answer in zip(pictures, answers, strict=True):
        if answer.error is None and len(kept) < DRAWN:
            kept.append((picture, answer))
        yield answer


def _draw(
    loaded: "Loaded",
    kept: "Sequence[tuple[Picture, Answer]]",
    names: Sequence[str] | None,
    out: Path,
) -> None:
    """Draw pictures with what they are taken for."""
    from alexnet_jax import classes, figures, units
    from alexnet_jax import predict as prediction

    shown = names or classes.readable(loaded.meta.classes)
    drawn = []
    for picture, answer in kept:
        true = classes.of_file(answer.image, loaded.meta.classes)
        drawn.append(
            figures.Predicted(
                name=Path(answer.image).name,
                pixels=units.centre(loaded, prediction.pixels(loaded, picture)),
                shares=[(guess.label, guess.probability) for guess in answer.guesses],
                truth=None if true is None else shown[true],
            )
        )
    figures.predictions(
        drawn, out, title=f"What {runs.title(loaded.path, loaded.meta)} says"
    )
    view.note(f"drawn to {view.short(out)}")


def _named(answers: "Iterable[Answer]", files: list[str]) -> "Iterator[Answer]":
    """Give the picture from stdin the name that the user gave it."""
    import dataclasses

    for answer, file in zip(answers, files, strict=True):
        yield dataclasses.replace(answer, image=file)


def _write(
    answers: "Iterable[Answer]", form: Format, columns: tuple[int, int] | None
) -> Iterator[bool]:
    """Write the answers as they come; yield for each whether it is an error."""
    if form is Format.json:
        records = []
        for answer in answers:
            records.append(_record(answer))
            yield answer.error is not None
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if form is Format.csv:
        writer.writerow(("image", "rank", "label", "class", "probability", "error"))
    for place, answer in enumerate(answers):
        if form is Format.csv:
            writer.writerows(_csv_rows(answer))
        else:
            view.prediction(
                answer.image,
                [(guess.label, guess.probability) for guess in answer.guesses],
                answer.error,
                columns=columns,
                first=place == 0,
            )
        yield answer.error is not None


def _record(answer: "Answer") -> dict[str, Any]:
    if answer.error is not None:
        return {"image": answer.image, "error": answer.error}
    predictions = []
    for guess in answer.guesses:
        record = {"label": guess.label, "class": guess.index}
        if guess.wordnet_id is not None:
            record["wordnet_id"] = guess.wordnet_id
        predictions.append({**record, "probability": guess.probability})
    return {"image": answer.image, "predictions": predictions}


def _csv_rows(answer: "Answer") -> list[tuple[Any, ...]]:
    if answer.error is not None:
        return [(answer.image, "", "", "", "", answer.error)]
    return [
        (answer.image, rank, guess.label, guess.index, guess.probability, "")
        for rank, guess in enumerate(answer.guesses, start=1)
    ]
