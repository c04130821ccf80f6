"""``alexnet reproduce``: one of the paper's figures, made by training."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from alexnet_cli import interrupt, options, progress, runtime, view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alexnet_jax.studies.figure1 import Curve, Figure1
    from alexnet_jax.studies.runs import Told


def reproduce(
    figure: Annotated[
        Literal["figure1"],
        typer.Argument(
            metavar="FIGURE",
            help="figure1: training error by epoch, of ReLUs and of tanhs.",
        ),
    ],
    data_dir: options.DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The study's folder; one that is there is continued.",
            show_default="runs/FIGURE",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Runs at each best rate.",
            rich_help_panel=options.RUN,
        ),
    ] = 3,
    assignments: options.Assignments = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make one of the paper's figures anew: many runs, a picture, a table.

    figure1: a four-layer network learns CIFAR-10 without any regularisation, with ReLUs
    and with tanhs, each at the best of several rates; how many epochs do they take to
    25% training error? Hours on a CPU.

    Ctrl-C or SIGTERM finishes the step and saves; the same command goes on from there,
    and what is done is never done again.

    Examples:
      alexnet reproduce figure1 --data-dir ~/tensorflow_datasets
      alexnet reproduce figure1 --seeds 1 --out runs/quick
    """
    stop = interrupt.Stop()
    found = None
    with progress.Training("starting", quiet=as_json) as screen, stop.listening(screen):
        try:
            runtime.set_up()
            from alexnet_jax import recipes
            from alexnet_jax.studies import figure1, figure1_page

            where = None if data_dir is None else str(data_dir.expanduser().absolute())
            flags = {} if where is None else {"data.dir": where}
            recipe = recipes.load(figure1.RECIPE, flags, tuple(assignments or ()))
            folder = (out or Path("runs") / figure).expanduser()
            told = figure1.reproduce(recipe, folder, seeds=seeds, stop=stop.asked)
            found = _follow(told, screen, stop)
        except KeyboardInterrupt as error:
            raise typer.Exit(stop.exit_code) from error
    again = f"alexnet {shlex.join(runtime.arguments)}"
    if found is None:
        view.note("saved; the same command goes on")
        view.note(f"  {again}")
        raise typer.Exit(stop.exit_code)
    record = figure1_page.write(found, folder, recipe, again)
    if as_json:
        print(json.dumps(record))
        return
    for title, (columns, rows) in (
        ("Rates", figure1_page.grid(found)),
        ("Figure 1", figure1_page.chosen(found)),
    ):
        table = view.table(columns, rows, right=columns[1:])
        view.answer(view.heading(f"\n{title}"), table)
    files = [
        (what, view.short(folder / name))
        for what, name in (
            ("picture", figure1_page.PICTURE),
            ("words", figure1_page.RESULT),
            ("numbers", figure1_page.RESULTS),
        )
    ]
    view.answer("", figure1_page.summary(found), view.pairs(files))


def _follow(
    told: "Iterator[Told | Curve | Figure1]",
    screen: progress.Training,
    stop: interrupt.Stop,
) -> "Figure1 | None":
    """Show the trials as they go; return the result, None if stopped before."""
    from alexnet_jax import events
    from alexnet_jax.studies import runs
    from alexnet_jax.studies.figure1 import Curve, Figure1
    from alexnet_jax.studies.figure1_page import NAMES

    for each in told:
        match each:
            case runs.Going(trial, event):
                screen.title = f"  {trial.name}"
                match event:
                    case events.Preparing():
                        screen.phase = f"{trial.name}: {event.what}"
                    case events.Started():
                        stop.armed = True
                        screen.start(event)
                    case events.StepDone():
                        screen.step(event)
                    case events.Advice():
                        screen.advice(event)
            case runs.Failed():
                screen.line(f"{each.trial.name}: {each.reason}")
            case Curve():
                took = "not" if each.epochs is None else f"after {each.epochs:.2f}"
                screen.line(
                    f"{NAMES[each.activation]}, rate {each.rate:g}, seed {each.seed}: "
                    f"25% {took} of {len(each.errors)} epochs"
                )
            case Figure1():
                return each
    return None
