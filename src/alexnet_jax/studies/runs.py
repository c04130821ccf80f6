"""Many runs in one folder: restartable, and one on each device at a time.

A study's folder holds a run directory for each trial, under the trial's name, and in it
``measured.json`` once the trial is done. What is done is never done again, what was
interrupted goes on from its last checkpoint, so a study is continued by starting it
once more.

A GPU computes one trial at a time, in a process of its own that sees no other. A CPU
computes them one after the other, in this process, each with all cores.
"""

import collections
import concurrent.futures
import contextlib
import json
import multiprocessing
import queue
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import jax

from alexnet_jax import recipes, rundir
from alexnet_jax.config import Recipe
from alexnet_jax.errors import AlexNetError, ConfigError, TrainingError
from alexnet_jax.events import Event, Finished
from alexnet_jax.train import fit

MEASURED = "measured.json"
_FREE = {"data.dir", "run.accumulate"}  # change nothing in what comes out
_CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)

Measure = Callable[[Recipe, Path], dict[str, Any]]
"""What is wanted of a run that is done, as plain JSON, given its recipe and directory.

It is called on the device that trained it, and sent to other processes: a function of a
module, or a ``functools.partial`` of one.
"""


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        name: of its run directory in the study's folder.
        recipe: what it computes.
    """

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Going:
    """A trial goes on; ``event`` is one of ``fit``'s."""

    trial: Trial
    event: Event


@dataclass(frozen=True)
class Done:
    """A trial is done.

    Attributes:
        trial: which.
        run_dir: where it is.
        measured: what the study wanted of it.
        kept: whether it was done before this study was continued.
    """

    trial: Trial
    run_dir: Path
    measured: dict[str, Any]
    kept: bool = False


@dataclass(frozen=True)
class Failed:
    """A trial cannot be trained: its loss is no longer a number, says ``reason``."""

    trial: Trial
    reason: str


@dataclass(frozen=True)
class Stopped:
    """A trial was asked to stop, and saved."""

    trial: Trial


Told = Going | Done | Failed | Stopped


def carry_out(
    trials: Sequence[Trial],
    folder: Path,
    measure: Measure,
    *,
    devices: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Told, None, None]:
    """Carry out trials, as many at a time as there are devices.

    Args:
        trials: in the order in which they are begun.
        folder: the study's; made if it is not there.
        measure: see ``Measure``.
        devices: how many to use; all when None.
        stop: asked often; True makes the trials under way save, and ends the study.

    Yields:
        For each trial ``Done``, ``Failed`` or ``Stopped``, before that its ``Going``.
        Those that were never begun because of ``stop`` are not mentioned.

    Raises:
        AlexNetError: a trial cannot start or go on; others under way save first.
    """
    left = []
    for trial in trials:
        run_dir = folder / trial.name
        measured = _measured(trial, run_dir)
        if measured is None:
            left.append(trial)
        else:
            yield Done(trial, run_dir, measured, kept=True)
    if not left:
        return
    count = min(choose_devices(devices), len(left))
    if count > 1:
        yield from _side_by_side(left, folder, measure, count, stop)
        return
    for trial in left:
        if stop():
            return
        yield from _one(trial, folder, measure, stop)


def choose_devices(wanted: int | None) -> int:
    """Return how many trials can be under way at once; a CPU computes one.

    Raises:
        ConfigError: more were wanted than there are.
    """
    if wanted == 1:
        return 1
    count = 1 if jax.config.jax_platforms == "cpu" else _ask()  # pyright: ignore[reportAttributeAccessIssue]
    if wanted is not None and not 1 <= wanted <= count:
        raise ConfigError(
            f"--devices {wanted}: {count} run{'s' * (count > 1)} at a time can be "
            f"carried out here, one a GPU; use 1{f' to {count}' if count > 1 else ''}"
        )
    return wanted or count


def _ask() -> int:
    """Count the GPUs in another process: who asks JAX takes hold of their memory."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(_count).result()


def _count() -> int:
    return 1 if jax.default_backend() == "cpu" else jax.local_device_count()


def _measured(trial: Trial, run_dir: Path) -> dict[str, Any] | None:
    """Return what was measured of a trial that is done, None if it is not.

    Raises:
        ConfigError: the run there is another.
    """
    if not rundir.is_run(run_dir):
        return None
    check_same(trial, run_dir)
    with contextlib.suppress(FileNotFoundError):
        return json.loads((run_dir / MEASURED).read_text())
    return None


def check_same(trial: Trial, run_dir: Path) -> None:
    """Refuse to take another run for a trial's.

    Raises:
        ConfigError: names every value that differs.
    """
    differing = differences(rundir.read_recipe(run_dir), trial.recipe)
    if differing:
        raise ConfigError(
            f"{run_dir} is a run of other values: {'; '.join(differing)}; give the "
            "same, or choose another --out"
        )


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return how two recipes differ in what comes out; see ``recipes.differences``."""
    lines = recipes.differences(old, new)
    return [line for line in lines if line.partition(":")[0] not in _FREE]


def _one(
    trial: Trial, folder: Path, measure: Measure, stop: Callable[[], bool]
) -> Iterator[Told]:
    """Carry out one trial on the first device that this process sees."""
    run_dir = folder / trial.name
    going = rundir.is_run(run_dir)
    try:
        for event in fit(
            trial.recipe, run_dir, resume=going, devices=1, towers=1, stop=stop
        ):
            yield Going(trial, event)
            if isinstance(event, Finished) and event.interrupted:
                yield Stopped(trial)
                return
    except TrainingError as error:
        yield Failed(trial, str(error))
        return
    measured = measure(trial.recipe, run_dir)
    partial = run_dir / f".{MEASURED}"
    partial.write_text(json.dumps(measured, indent=1) + "\n")
    partial.replace(run_dir / MEASURED)
    yield Done(trial, run_dir, measured)


def _side_by_side(
    trials: Sequence[Trial],
    folder: Path,
    measure: Measure,
    devices: int,
    stop: Callable[[], bool],
) -> Iterator[Told]:
    """Carry out a trial on each device at a time, in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    told: Any = spawn.Queue()
    stopping = spawn.Event()
    cache = {name: getattr(jax.config, name) for name in _CACHE}
    waiting = collections.deque(trials)
    working: dict[int, tuple[BaseProcess, Trial]] = {}
    try:
        while working or (waiting and not stopping.is_set()):
            if stop():
                stopping.set()
            for device in range(devices):
                if device in working or not waiting or stopping.is_set():
                    continue
                trial = waiting.popleft()
                process = spawn.Process(
                    target=_work,
                    args=(device, trial, folder, measure, cache, told, stopping),
                    daemon=True,
                )
                process.start()
                working[device] = process, trial
            try:
                device, message = told.get(timeout=0.2)
            except queue.Empty:
                _check_alive(working)
                continue
            if isinstance(message, AlexNetError):
                raise message
            if not isinstance(message, Going):
                process, _ = working.pop(device)
                process.join()
            yield message
    except KeyboardInterrupt:  # a second Ctrl-C: without saving
        for process, _ in working.values():
            process.kill()
        raise
    finally:
        stopping.set()
        while any(process.is_alive() for process, _ in working.values()):
            with contextlib.suppress(queue.Empty):  # or they wait to be heard
                told.get(timeout=0.2)


def _check_alive(working: dict[int, tuple[BaseProcess, Trial]]) -> None:
    for device, (process, trial) in working.items():
        if process.exitcode:  # one that ends well says so first
            raise TrainingError(
                f"the process that trained {trial.name} on device {device} ended with "
                f"exit code {process.exitcode}; start the study again to go on"
            )


def _work(
    device: int,
    trial: Trial,
    folder: Path,
    measure: Measure,
    cache: dict[str, Any],
    told: Any,
    stopping: Any,
) -> None:
    """Carry out a trial in a process that sees one device, and tell the parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent passes the wish on
    for name, value in cache.items():
        jax.config.update(name, value)
    jax.config.update("jax_cuda_visible_devices", str(device))
    jax.config.update("jax_rocm_visible_devices", str(device))
    parent = multiprocessing.parent_process()

    def stop() -> bool:
        return stopping.is_set() or not (parent and parent.is_alive())

    try:
        for message in _one(trial, folder, measure, stop):
            told.put((device, message))
    except AlexNetError as error:
        told.put((device, error))
