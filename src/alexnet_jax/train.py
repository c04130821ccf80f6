"""Training: ``fit`` carries a run from its recipe to its last checkpoint.

``fit`` is an iterator of events and prints nothing. The hot loop never waits for the
step it has just started: a few steps are under way while the host reads the numbers
of an older one. What a run computes is a function of its recipe alone, so one that is
stopped anywhere and continued ends with the same parameters as one that never was.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax import data, figures, finetune, hosts, machine, optim, rundir, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.checkpoint import Checkpoints, Meta, read_meta
from alexnet_jax.checkpoint import load as load_checkpoint
from alexnet_jax.config import PlateauSchedule, Recipe
from alexnet_jax.errors import CheckpointError, ConfigError
from alexnet_jax.evaluate import EvalStep, Result, padded, result, score_batches
from alexnet_jax.events import (
    Advice,
    Dropped,
    Evaluated,
    Event,
    Finished,
    Preparing,
    Saved,
    Started,
    StepDone,
)
from alexnet_jax.job import (
    Job,
    compile_step,
    count,
    facts,
    in_memory,
    measure,
    plan_job,
)
from alexnet_jax.meter import Meter
from alexnet_jax.model import Params
from alexnet_jax.optim import Plateau
from alexnet_jax.rundir import RunDir
from alexnet_jax.steps import TrainState

PROFILED_STEPS = range(3, 8)  # after the start-up, few enough for a small trace


def fit(
    recipe: Recipe,
    run_dir: str | Path,
    *,
    resume: bool = False,
    devices: int | None = None,
    towers: int | None = None,
    hybrid: bool = False,
    stop: Callable[[], bool] = lambda: False,
    profile: bool = False,
) -> Generator[Event, None, None]:
    """Train a network.

    On several processes (see ``hosts.join``) all call it alike; process 0's
    ``run_dir`` counts, and process 0 alone writes to it, but for checkpoints.

    Args:
        recipe: the run; see ``recipes.load``.
        run_dir: where it writes; must be new unless ``resume``.
        resume: continue from the last good checkpoint in ``run_dir``.
        devices: how many to use; all when None.
        towers: devices that one network is split over; see ``mesh.make_mesh``.
        hybrid: divide the fully connected layers of a one-tower network over the
            devices; see ``mesh.hybrid``.
        stop: asked after each step; True saves a checkpoint and ends the run. On
            several processes it must be True on all at once; see ``hosts.stopping``.
        profile: write a JAX trace of a few steps to ``run_dir/profile``.

    Yields:
        Events, the last one ``Finished``.

    Raises:
        AlexNetError: the run cannot start or go on; nothing is overwritten.
    """
    began = time.monotonic()
    run_dir = Path(run_dir).expanduser()
    job = hosts.together(lambda: plan_job(recipe, devices, towers, hybrid))
    if hosts.count() > 1:
        hosts.check_same(hosts.together(lambda: facts(job)))
    if not resume:
        hosts.together(lambda: finetune.check(recipe))
    run = rundir.open_run(run_dir, recipe, resume=resume)
    with run, contextlib.ExitStack() as closing:
        checkpoints = Checkpoints(run.path, recipe.run.keep)
        closing.callback(checkpoints.close)
        yield from _fit(job, run, checkpoints, closing, stop, profile, began)


def _fit(
    job: Job,
    run: RunDir,
    checkpoints: Checkpoints,
    closing: contextlib.ExitStack,
    stop: Callable[[], bool],
    profile: bool,
    began: float,
) -> Generator[Event, None, None]:
    recipe, mesh, end = job.recipe, job.mesh, job.end_step
    state, meta, bad = _restore(job, checkpoints)
    for step in bad:
        yield Advice(f"checkpoint {step} is damaged; continuing from an earlier one")
    step = meta.step  # not the state's: that is still being drawn
    evaluated = None if meta.evaluated is None else Result(**meta.evaluated)
    plateau = Plateau(**(meta.plateau or {}))
    run.forget_after(step, tested=evaluated is not None)
    if step > end or (step == end and evaluated) or plateau.ended:
        yield Finished(
            run.path, step, evaluated, time.monotonic() - began, already=True
        )
        return

    pictures = job.dataset.eval  # as they are stored, before they are decoded
    with ThreadPoolExecutor(1) as aside:
        decoded = aside.submit(in_memory, job)
        counted = None if step else aside.submit(lambda: count(decoded.result()))
        yield Preparing("compiling the training step")
        train_step = compile_step(job)
        yield Preparing("reading the pictures")
        job = decoded.result()
    if counted is None:
        preprocess = load_checkpoint(checkpoints.directory / str(step), mesh).preprocess
    else:
        preprocess = measure(job, hosts.together(counted.result))
        if recipe.run.init_from is not None:
            state, preprocess, what = finetune.start(job, state, preprocess)
            yield Advice(what)
    preprocess = jax.device_put(preprocess, NamedSharding(mesh, P()))
    eval_step = steps.eval_step(
        job.network, job.classes, mesh, views=1, precision=recipe.run.precision
    )
    yield Started(
        run_dir=run.path,
        step=step,
        total_steps=job.total_steps,
        end_step=end,
        steps_per_epoch=job.steps_per_epoch,
        mesh=job.devices,
        rates=optim.describe(recipe.optimizer),
        train_images=len(job.dataset.train),
        eval_images=len(job.dataset.eval),
        classes=job.classes,
        parameters=job.parameters,
    )
    run.write_session(
        {"event": "began", "step": step, "mesh": job.devices, **machine.facts()}
    )

    tested_at = step if evaluated else None
    saved_at = step if step else None
    meter = Meter(job, step, meta.since_row)
    meter.drops = plateau.drops
    meter.saved = checkpoints.directory / str(step) if step else None
    tracer = None
    if profile and hosts.leader():
        tracer = closing.enter_context(_Tracer(run.path / "profile", step))
    batches = data.train_batches(
        job.dataset.train,
        batch_size=recipe.optimizer.batch_size,
        image_size=recipe.data.image_size,
        channels=job.network.channels,
        resize=recipe.data.resize,
        seed=recipe.run.seed,
        start_step=step,
        num_steps=end,
        rows=steps.own_rows(mesh, recipe.optimizer.batch_size),
    )
    closing.callback(batches.close)
    while True:
        # 1. What is due after this step: test, save, stop. A test that an
        # interruption put off is made up for here when the run goes on.
        stopping = stop()
        scheduled = job.due(step, recipe.run.eval_every)
        test = (scheduled or step == end) and tested_at != step and not stopping
        save = job.due(step, recipe.run.save_every) or step == end or stopping
        if test or save:
            yield from _record(run, meter.drain())
            meter.pause()
            meter.check_finite(state.params)
        if test:
            evaluated = _evaluate(job, eval_step, state.params, preprocess)
            tested_at = step
            yield (event := _evaluation(job, state, step, evaluated))
            run.write(event)
            before, plateau = plateau, _remember(job, plateau, evaluated, scheduled)
            if plateau.drops != before.drops or plateau.ended:
                state = state._replace(
                    drops=jax.device_put(
                        np.int32(plateau.drops), NamedSharding(mesh, P())
                    )
                )
                meter.drops = plateau.drops
                yield Dropped(step, plateau.drops, plateau.ended)
            # The best of a validation split is kept, whenever it comes.
            better = plateau.best != before.best
            save = save or (job.dataset.eval_role == "validation" and better)
            save = save or plateau.ended
        if save and (saved_at != step or test) and step:
            saving = time.monotonic()
            path = checkpoints.save(
                state,
                jax.device_get(preprocess),
                _meta(
                    job,
                    step,
                    plateau,
                    evaluated if tested_at == step else None,
                    meter.since_row(),
                ),
            )
            saved_at, meter.saved = step, path
            yield Saved(step, path, time.monotonic() - saving)
        if stopping or step == end or plateau.ended:
            break

        # 2. One step: take a batch, start the update, read an older one's numbers.
        waiting = time.monotonic()
        batch = next(batches)
        meter.waited(time.monotonic() - waiting)
        if tracer:
            tracer.before(step, state)
        state, scores = train_step(state, steps.put_batch(batch, mesh), preprocess)
        step += 1
        yield from _record(run, meter.started(step, scores))
        advice = meter.flat()
        if advice:
            yield Advice(advice)
    if tracer:
        tracer.end(state)
    drawn, samples = (), ()
    if not stopping:
        drawn = _draw(job, run, state)
    if not stopping and hosts.leader():
        samples = figures.write_samples(pictures, run.path / "samples")
    seconds = time.monotonic() - began
    run.write_session({"event": "ended", "step": step, "seconds": round(seconds, 2)})
    yield Finished(
        run_dir=run.path,
        step=step,
        result=evaluated,
        seconds=seconds,
        pictures=drawn,
        samples=samples,
        interrupted=stopping,
    )


def _record(run: RunDir, events: Iterator[StepDone]) -> Iterator[StepDone]:
    """Write the events that are rows, pass all of them on."""
    for event in events:
        if event.row:
            run.write(event)
        yield event


def _restore(job: Job, checkpoints: Checkpoints) -> tuple[TrainState, Meta, list[int]]:
    """Load the last good checkpoint, or draw the initial state; name the damaged."""
    abstract = steps.abstract_state(job.recipe, job.network, job.classes, job.mesh)
    bad = []
    for step in reversed(hosts.first(checkpoints.steps)):
        try:
            path = checkpoints.directory / str(step)
            meta = hosts.together(lambda path=path: _read_meta(job, path))
            state = checkpoints.restore(abstract, step)
        except CheckpointError:
            bad.append(step)
            continue
        return state, meta, bad
    if bad:
        raise CheckpointError(
            f"every checkpoint in {checkpoints.directory} is damaged "
            f"(steps {', '.join(map(str, sorted(bad)))}); start again with a new "
            "--run-dir"
        )
    state = steps.create_state(job.recipe, job.network, job.classes, job.mesh)
    return state, _meta(job, 0, Plateau(), None, None), bad


def _read_meta(job: Job, path: Path) -> Meta:
    meta = read_meta(path)
    if meta.classes != list(job.dataset.train.classes):
        raise ConfigError(
            f"the run has {len(meta.classes)} classes, {job.dataset.train.name} has "
            f"{job.classes} or others; continue with the data it was started on"
        )
    return meta


def _evaluate(
    job: Job, step: EvalStep, params: Params, preprocess: Preprocess
) -> Result:
    """Test the network on the whole evaluation split, centre view."""
    batch_size = padded(job.recipe.eval.batch_size, job.mesh)
    batches = data.eval_batches(
        job.dataset.eval,
        batch_size=batch_size,
        rows=steps.own_rows(job.mesh, batch_size),
        image_size=job.recipe.data.image_size,
        channels=job.network.channels,
        resize=job.recipe.data.resize,
    )
    *_, scores = score_batches(step, params, preprocess, batches, job.mesh)
    return result(scores, views=1)


@jax.jit
def _update_ratios(params: Params, velocity: Params) -> dict[str, jax.Array]:
    """Return mean |dW| / |W| by layer: the velocity is the last update."""
    return {
        layer: jnp.abs(velocity[layer]["kernel"]).mean()
        / jnp.abs(params[layer]["kernel"]).mean()
        for layer in params
    }


def _evaluation(job: Job, state: TrainState, step: int, found: Result) -> Evaluated:
    velocity = optim.velocity(state.opt_state)
    ratios = jax.device_get(_update_ratios(state.params, velocity))
    return Evaluated(
        step=step,
        epoch=step / job.steps_per_epoch,
        split=job.dataset.eval.name,
        result=found,
        update_ratios={layer: float(ratio) for layer, ratio in ratios.items()},
    )


def _remember(job: Job, plateau: Plateau, found: Result, scheduled: bool) -> Plateau:
    """Return the schedule's memory after a test.

    A test that only an early stop asked for is not part of the schedule.
    """
    errors = found.top1_error * found.images
    if scheduled and isinstance(job.recipe.schedule, PlateauSchedule):
        return plateau.after(job.recipe.schedule, errors)
    if not scheduled or (plateau.best is not None and errors >= plateau.best):
        return plateau
    return plateau._replace(best=errors)


def _meta(
    job: Job,
    step: int,
    plateau: Plateau,
    evaluated: Result | None,
    since_row: dict[str, Any] | None,
) -> Meta:
    recipe = job.recipe
    return Meta(
        network=job.network.name,
        classes=list(job.dataset.train.classes),
        image_size=recipe.data.image_size,
        resize=recipe.data.resize,
        views=list(recipe.eval.views),
        precision=recipe.run.precision,
        step=step,
        epoch=step / job.steps_per_epoch,
        recipe=recipe.model_dump(mode="json"),
        total_steps=job.total_steps,
        plateau=plateau._asdict(),
        evaluated=None if evaluated is None else asdict(evaluated),
        eval_role=job.dataset.eval_role,
        since_row=since_row,
    )


def _draw(job: Job, run: RunDir, state: TrainState) -> tuple[Path, ...]:
    """Draw the learning curves and the first layer's filters."""
    first = next(iter(steps.layer_names(job.network)))
    kernel = hosts.whole(state.params[first]["kernel"])
    if not hosts.leader():
        return ()
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    rows = list(rundir.read_metrics(run.path))
    curves = folder / "learning-curves.png"
    filters = folder / "filters.png"
    figures.learning_curves(rows, curves, title=run.path.name)
    figures.filters(kernel, job.network.towers, filters, title=run.path.name)
    return curves, filters


class _Tracer:
    """Writes a JAX trace of a few steps."""

    def __init__(self, folder: Path, start: int) -> None:
        self._folder, self._start, self._running = folder, start, False

    def __enter__(self) -> "_Tracer":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._running:  # a failure came before the end
            jax.profiler.stop_trace()

    def before(self, step: int, state: TrainState) -> None:
        """Begin or end the trace, if it is time."""
        if step - self._start == PROFILED_STEPS.start:
            jax.block_until_ready(state.params)
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif step - self._start == PROFILED_STEPS.stop:
            self.end(state)

    def end(self, state: TrainState) -> None:
        """End the trace once the steps in it are done."""
        if self._running:
            jax.block_until_ready(state.params)
            jax.profiler.stop_trace()
            self._running = False
