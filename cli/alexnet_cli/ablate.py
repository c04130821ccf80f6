"""``alexnet ablate``: what the network loses without each of its parts."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alexnet_cli import interrupt, options, progress, runs, runtime, view

if TYPE_CHECKING:
    from alexnet_jax.config import Recipe
    from alexnet_jax.studies.runs import Told
    from alexnet_jax.studies.tabulating import Table


def ablate(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe's name (see alexnet recipes) or a .toml file.",
            autocompletion=options.complete_recipe,
        ),
    ],
    only: Annotated[
        str | None,
        typer.Option(
            metavar="ROW,ROW",
            help="Of norm, overlap, towers, dropout, colour, crops, decay and "
            "layer:NAME.",
            show_default="all that apply",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Runs of each row, from the recipe's seed on.",
            rich_help_panel=options.RUN,
        ),
    ] = 3,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the runs and the result go; runs that are done are kept.",
            show_default="runs/ablate-RECIPE-N, the newest of the same recipe",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    epochs: options.Epochs = None,
    assignments: options.Assignments = None,
    devices: options.Devices = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a recipe with and without each of its parts, and compare with the paper.

    One row a claim: the same data, schedule and seeds, one thing taken away. Started
    again it goes on where it was; more rows or seeds are added to what there is. Each
    GPU trains a run of its own.

    A difference whose 95% interval spans zero is called undecided.

    Examples:
      alexnet ablate cifar10-towers --data-dir ~/tensorflow_datasets
      alexnet ablate digits --only norm,towers --seeds 5
      alexnet ablate imagenet --data folder:photos --epochs 30 --out runs/photos
    """
    given = {
        "data.spec": None if data is None else options.absolute(data),
        "data.dir": None if data_dir is None else str(data_dir.expanduser().absolute()),
        "schedule.epochs": epochs,
    }
    command = _command(recipe, only, seeds, data, epochs, assignments)
    stop = interrupt.Stop()
    with progress.Progress("starting", quiet=as_json) as screen, stop.listening(screen):
        try:
            runtime.set_up()
            from alexnet_jax.studies import ablate as study
            from alexnet_jax.studies import rows

            chosen = runs.recipe(recipe, given, tuple(assignments or ()))
            names = None if only is None else [n.strip() for n in only.split(",")]
            plan = rows.plan(chosen, names, seeds)
            folder = (out or _folder(chosen)).expanduser()
            screen.phase = "looking at the data"
            for each in plan.left_out:
                screen.line(f"left out: {each.part}: {each.reason}")
            screen.title = f"{len(plan.trials)} runs"
            screen.line(f"{screen.title} in {view.short(folder)}")
            stop.armed = True
            table = _follow(
                study.ablate(
                    plan, folder, command=command, devices=devices, stop=stop.asked
                ),
                screen,
                len(plan.trials),
                as_json,
            )
        except KeyboardInterrupt as error:
            screen.stop()
            raise typer.Exit(stop.exit_code) from error
    if stop.asked() and (table is None or table.left):
        view.note("saved; continue with")
        view.note(f"  {shlex.join(['alexnet', *runtime.arguments])}")
        raise typer.Exit(stop.exit_code)
    if table is not None and not as_json:
        _show(table, folder)


def _command(
    recipe: str,
    only: str | None,
    seeds: int,
    data: str | None,
    epochs: float | None,
    assignments: list[str] | None,
) -> str:
    """Return the command that repeats a study anywhere: no paths of this machine."""
    words = ["alexnet", "ablate", recipe, "--seeds", str(seeds)]
    given = {"--only": only, "--data": data, "--epochs": epochs}
    for flag, value in given.items():
        words += [] if value is None else [flag, str(value)]
    for assignment in assignments or ():
        words += ["--set", assignment]
    return shlex.join(words)


def _folder(recipe: "Recipe") -> Path:
    """Return the newest study of a recipe, or the name of a new one."""
    from alexnet_jax import rundir
    from alexnet_jax.studies import ablate as study

    name = f"ablate-{recipe.name}"
    new = rundir.next_name(runs.RUNS, name)
    for number in range(int(new.name[len(name) + 1 :]) - 1, 0, -1):
        if study.is_of(there := runs.RUNS / f"{name}-{number}", recipe):
            return there
    return new


def _follow(
    told: Iterator["Told | Table"], screen: progress.Progress, runs: int, as_json: bool
) -> "Table | None":
    """Show what a study tells; return its last table."""
    from alexnet_jax import events
    from alexnet_jax.studies import ablate as study
    from alexnet_jax.studies.runs import Done, Failed, Going
    from alexnet_jax.studies.tabulating import Table

    ended, length, steps, table = 0, 0, dict[str, int](), None
    for each in told:
        match each:
            case Going(trial, events.Started() as begun):
                steps[trial.name] = begun.step
                length = begun.end_step
                screen.advance(ended * length + sum(steps.values()), runs * length)
            case Going(trial, events.StepDone() as last):
                steps[trial.name] = last.step
                screen.advance(
                    ended * length + sum(steps.values()),
                    runs * length,
                    f"{trial.name}, {view.clock(last.seconds_left)} left",
                )
            case Going(_, events.Preparing(what)) if not steps:
                screen.phase = what
            case Going(trial, events.Advice(what)):
                screen.line(f"{trial.name}: {what}")
            case Done(trial, _, measured, kept):
                ended += 1
                steps.pop(trial.name, None)
                if as_json:
                    facts = {"event": "done", "run": trial.name, "kept": kept}
                    print(json.dumps({**facts, **measured}), flush=True)
                screen.line(_run(trial.name, measured, kept))
            case Failed(trial, reason):
                ended += 1
                steps.pop(trial.name, None)
                screen.line(f"{trial.name}: {reason}")
            case Table():
                table = each
    if as_json and table is not None:
        print(json.dumps({"event": "table", **study.record(table)}))
    return table


def _run(name: str, measured: Mapping[str, Any], kept: bool) -> str:
    return (
        f"{name}: test error {measured['test']['top1_error']:.2%}, training error "
        f"{measured['train']['top1_error']:.2%}, {view.clock(measured['seconds'])}"
        + (" (kept)" if kept else "")
    )


def _show(table: "Table", folder: Path) -> None:
    from alexnet_jax.studies import ablation_page as page
    from alexnet_jax.studies.rows import FULL

    rows = []
    for row in table.rows:
        name, spread = "nothing" if row.part == FULL else row.part, row.test.sd
        error = f"{100 * row.test.mean:.2f}"
        tested = error if spread is None else f"{error} ± {100 * spread:.2f}"
        if row.claim is None or row.judged is None:
            rows.append((name, str(row.test.n), tested, *[""] * 5))
            continue
        difference, _, interval = page.points(row.judged).partition(" ")
        paper = "rises" if row.claim.top1 is None else row.claim.number
        judged = {"overfitting": "gap"}.get(row.claim.judged, row.claim.judged)
        found = (difference, interval, paper.partition(" /")[0], row.verdict or "")
        rows.append((name, str(row.test.n), tested, judged, *found))
    columns = ("without", "n", "test error", "of", "rises", "95% interval", "paper")
    view.answer(
        view.table((*columns, "verdict"), rows, right=("n", "test error", "rises")),
        view.pairs(
            [
                (name, view.short(folder / name))
                for name in ("RESULT.md", "results.json", "differences.png")
            ]
        ),
    )
