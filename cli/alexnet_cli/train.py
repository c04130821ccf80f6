"""``alexnet train``: carry a run from a recipe to its report, and on after a stop."""

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alexnet_cli import interrupt, options, progress, report, runs, runtime, view, watch
from alexnet_jax.errors import AlexNetError

if TYPE_CHECKING:
    from alexnet_jax.config import Recipe
    from alexnet_jax.events import Event, Finished, Planned

DEFAULT = "digits"
FINETUNE = "finetune"  # where --init-from is given


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe's name (see alexnet recipes) or a .toml file.",
            show_default=DEFAULT,
            autocompletion=options.complete_recipe,
        ),
    ] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    train_split: options.TrainSplit = None,
    eval_split: options.EvalSplit = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the run writes; never overwritten.",
            show_default="runs/RECIPE-N",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue --run-dir, or the newest run (of RECIPE), exactly.",
            rich_help_panel=options.RUN,
        ),
    ] = False,
    epochs: options.Epochs = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Stop after so many steps; the schedule stays.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    batch_size: options.BatchSize = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Of every random draw.",
            show_default="the recipe's",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT",
            help="Start from these weights; other classes get a new classifier.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="LAYERS",
            help="Layers that do not learn, such as conv1,conv2.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    assignments: options.Assignments = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    hybrid: options.Hybrid = False,
    precision: options.Precision = None,
    coordinator: options.Coordinator = None,
    processes: options.Processes = None,
    process_id: options.ProcessId = None,
    wait: options.Wait = 60,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what the run would take; train nothing, create nothing.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Write a JAX trace of a few steps to DIR/profile.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a network, or continue a run.

    Without RECIPE it learns digits: real handwriting that ships with the package.
    Ctrl-C finishes the step, saves and prints the command that continues the run.

    Examples:
      alexnet train
      alexnet train cifar10-quick --data-dir ~/tensorflow_datasets
      alexnet train imagenet --data prepared:/data/imagenet256 --dry-run
      alexnet train digits --seed 1 --set optimizer.learning_rate=0.02
      alexnet train --init-from runs/imagenet-1 --data folder:photos --freeze conv1
      alexnet train --resume
      alexnet train digits --coordinator node1:1234 --processes 2 --process-id 0
    """
    watch.enter(coordinator, processes, process_id, wait)
    many = {
        "coordinator": coordinator,
        "processes": processes,
        "process_id": process_id,
    }
    if init_from is not None and recipe is None:
        recipe = FINETUNE
        if data is None and not resume:
            raise typer.BadParameter("--init-from needs --data or a RECIPE to learn")
    if recipe is None and not resume:
        view.note(
            "no RECIPE given: learning real handwritten digits, in about a minute"
        )
    flags = {
        "data.spec": None if data is None else options.absolute(data),
        "data.dir": None if data_dir is None else str(data_dir.expanduser().absolute()),
        "data.train_split": train_split,
        "data.eval_split": eval_split,
        "run.seed": seed,
        "run.steps": steps,
        "run.precision": precision,
        "schedule.epochs": epochs,
        "optimizer.batch_size": batch_size,
        "run.init_from": None
        if init_from is None
        else str(init_from.expanduser().absolute()),
    }
    names = [name.strip() for name in (freeze or "").split(",")]
    flags |= {f"schedule.freeze.{name}": 0 for name in names if name}
    machine: dict[str, Any] = {"devices": devices, "towers": towers, "hybrid": hybrid}
    again = {**machine, "steps": steps, **many}
    stop = interrupt.Together() if watch.is_worker() else interrupt.Stop()
    where = None
    with progress.Training("starting", quiet=as_json) as screen, stop.listening(screen):
        try:
            runtime.set_up()
            from alexnet_jax import hosts, job
            from alexnet_jax import train as training

            going = runs.agreed(
                lambda: runs.to_resume(recipe, run_dir) if resume else None
            )
            chosen = hosts.together(
                lambda: _recipe(recipe, going, flags, tuple(assignments or ()))
            )
            where = going or runs.agreed(lambda: run_dir or runs.new(chosen))
            assert where is not None
            screen.title, screen.phase = f"  {chosen.name}", "looking at the data"
            if dry_run:
                planned = job.dry_run(chosen, where, **machine)
                screen.stop()
                _show_plan(planned, where, chosen, as_json)
                return
            events = training.fit(
                chosen,
                where,
                resume=going is not None,
                stop=stop.asked,
                profile=profile,
                **machine,
            )
            finished = _follow(events, screen, stop, as_json)
            page = _report(finished, screen, devices, towers)
        except (KeyboardInterrupt, AlexNetError) as error:
            screen.stop()
            raise _ended(error, where, stop, again) from error
    if finished.interrupted:
        view.note(f"saved step {finished.step:,}; continue with")
        view.note(_go_on(finished.run_dir, again))
        raise typer.Exit(stop.exit_code)
    if not as_json:
        _show_result(finished, page)


def _go_on(where: Path, options: Mapping[str, int | str | None]) -> str:
    """Return the command that continues a run, with what the run does not store."""
    words = ["alexnet", "train", "--resume", "--run-dir", view.short(where)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return f"  {shlex.join(words)}"


def _ended(
    error: BaseException,
    where: Path | None,
    stop: interrupt.Stop,
    options: Mapping[str, int | str | None],
) -> Exception:
    """Say what is left of a run that ended before its end; return what to raise."""
    if isinstance(error, KeyboardInterrupt) and where is None:
        return typer.Exit(stop.exit_code)
    from alexnet_jax import checkpoint, rundir
    from alexnet_jax.errors import TrainingError

    if isinstance(error, TrainingError) and where is not None:
        kept = checkpoint.steps_in(where)
        last = view.short(kept[-1]) if kept else "none yet"
        return TrainingError(f"{error} (last checkpoint: {last})")
    if isinstance(error, Exception):
        return error
    if where is not None and rundir.is_run(where):
        view.note("interrupted; what was saved before can be continued with")
        view.note(_go_on(where, options))
    return typer.Exit(stop.exit_code)


def _recipe(
    name: str | None,
    going: Path | None,
    flags: Mapping[str, Any],
    assignments: tuple[str, ...],
) -> "Recipe":
    """Return the recipe to run: the named one or the run's, with what was given.

    Raises:
        ConfigError: an unknown name or key, or another recipe than the run's.
    """
    from alexnet_jax import recipes, rundir
    from alexnet_jax.errors import ConfigError

    given = {key: value for key, value in flags.items() if value is not None}
    if going is None and name == FINETUNE and (weights := given.get("run.init_from")):
        from alexnet_jax import finetune

        given = finetune.asked_for(weights) | given
    if going is None:
        return runs.recipe(name or DEFAULT, given, assignments)
    stored = rundir.read_recipe(going)
    if name is not None and (other := recipes.load(name).name) != stored.name:
        raise ConfigError(
            f"{going} is a run of the recipe {stored.name}, not of {other}; leave "
            "RECIPE out, or start a new run"
        )
    # How far to go is decided anew each time.
    given = {"run.steps": None, **given}
    return recipes.load(str(going / "recipe.toml"), given, assignments)


def _follow(
    events: "Iterator[Event]",
    screen: "progress.Training",
    stop: interrupt.Stop,
    as_json: bool,
) -> "Finished":
    """Show the events as they come; return the last one."""
    from alexnet_jax import events as kinds

    for event in events:
        if as_json:
            print(json.dumps(_record(event), default=str), flush=True)
        match event:
            case kinds.Preparing():
                screen.phase = event.what
            case kinds.Started():
                stop.armed = True
                watch.tell(run_dir=event.run_dir)
                screen.start(event)
            case kinds.StepDone():
                screen.step(event)
            case kinds.Evaluated():
                screen.evaluated(event)
            case kinds.Saved():
                screen.saved(event)
            case kinds.Dropped():
                screen.dropped(event)
            case kinds.Advice():
                screen.advice(event)
            case kinds.Finished():
                screen.flush()
                return event
    raise RuntimeError("the run ended without a word")


def _report(
    finished: "Finished",
    screen: "progress.Training",
    devices: int | None,
    towers: int | None,
) -> Path | None:
    """Write the page about a run that has come to its end; return it if there is one.

    Of several processes none does: the checkpoint lies over the devices of all, and
    the command can write it later from one.
    """
    from alexnet_jax import hosts
    from alexnet_jax import report as pages
    from alexnet_jax.events import Advice

    page = finished.run_dir / report.NAME
    if finished.interrupted or hosts.count() > 1:
        return None
    if finished.already:
        return page if page.exists() else None
    screen.phase = "writing the report"
    try:
        return pages.write([report.look(finished.run_dir, devices, towers)], page)
    except AlexNetError as error:  # the run itself is safe, and has been told so
        screen.advice(Advice(f"no report: {error}"))
        return None


def _record(event: "Event | Planned") -> dict[str, Any]:
    """Return an event as JSON's values; a result's keys are among the event's own."""
    from alexnet_jax.evaluate import Result

    name = {"StepDone": "step"}.get(type(event).__name__, type(event).__name__.lower())
    values = dataclasses.asdict(event)
    if "result" in values:
        empty = dict.fromkeys(field.name for field in dataclasses.fields(Result))
        values |= values.pop("result") or empty
    return {"event": name, **values}


def _show_plan(
    planned: "Planned", where: Path, recipe: "Recipe", as_json: bool
) -> None:
    if as_json:
        print(json.dumps({**_record(planned), "run_dir": where}, default=str))
        return
    disk = planned.kept * planned.checkpoint_bytes
    rows = [
        ("run", view.short(where)),
        ("devices", planned.mesh),
        (
            "pictures",
            f"{planned.train_images:,} to learn, {planned.eval_images:,} to test, "
            f"{planned.classes:,} classes",
        ),
        ("first batch", " x ".join(map(str, planned.first_batch)) + ", read"),
        ("network", f"{planned.parameters:,} parameters"),
        (
            "length",
            f"{planned.total_steps:,} steps, {planned.steps_per_epoch:,.1f} an epoch, "
            f"{recipe.schedule.epochs:g} epochs",
        ),
        ("memory", f"{view.size(planned.device_bytes)} on each device"),
        (
            "disk",
            f"{view.size(disk)} for {planned.kept} checkpoints of "
            f"{view.size(planned.checkpoint_bytes)}; "
            f"{view.size(planned.free_bytes)} free",
        ),
        ("compiling", f"{planned.compile_seconds:.1f} s"),
    ]
    view.answer(view.heading("This run would take"), view.pairs(rows))
    if disk > planned.free_bytes:
        view.warn("the checkpoints do not fit on the disk; free some or use run.keep=1")


def _show_result(finished: "Finished", page: Path | None) -> None:
    run, found = view.short(finished.run_dir), finished.result
    if finished.already:
        view.answer(f"{run} is finished: step {finished.step:,}; nothing to do")
    else:
        took = view.clock(finished.seconds)
        view.answer(view.heading(f"\n{finished.step:,} steps in {took}"))
    rows = [("run", run)]
    if found is not None:
        rows += [
            ("top-1 error", f"{found.top1_error:.2%} of {found.images:,} pictures"),
            ("top-5 error", f"{found.top5_error:.2%}"),
        ]
    rows += [
        (path.stem.replace("-", " "), view.short(path)) for path in finished.pictures
    ]
    if page is not None:
        rows.append(("report", view.short(page)))
    view.answer(view.pairs(rows))
    if finished.already:
        return
    tries = [f"alexnet eval --ckpt {shlex.quote(run)}"]
    if finished.samples:
        sample = shlex.quote(view.short(finished.samples[0]))
        tries.insert(0, f"alexnet predict {sample} --ckpt {shlex.quote(run)}")
    if page is None:
        tries.append(f"alexnet report {shlex.quote(run)}")
    tries.append(f"tensorboard --logdir {shlex.quote(str(Path(run).parent))}")
    view.answer(view.commands("\nNext", tries))
