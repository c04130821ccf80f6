"""A run's directory: recipe, metrics, TensorBoard events; one writer at a time.

``recipe.toml`` (enough to repeat the run), ``metrics.jsonl``, ``sessions.jsonl`` (on
which machine, and how long), ``tensorboard/``, ``checkpoints/``, ``figures/``,
``samples/``, and the command's ``report.html``.
"""

import dataclasses
import fcntl
import json
import os
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from alexnet_jax import hosts, recipes
from alexnet_jax.config import Recipe
from alexnet_jax.errors import CheckpointError, ConfigError
from alexnet_jax.events import Evaluated, StepDone

RESUMABLE = {"run.steps", "run.accumulate", "data.dir"}
"""What may differ when a run goes on: where it stops, how many images are computed at
once, and where its data lies."""


_SEEN_SECONDS = 10  # within which a shared folder shows everybody a new file


def next_name(parent: Path, recipe: str) -> Path:
    """Return ``parent/RECIPE-N`` with the lowest N above all there are."""
    taken = [
        int(tail)
        for path in parent.glob(f"{recipe}-*")
        if (tail := path.name[len(recipe) + 1 :]).isdigit()
    ]
    return parent / f"{recipe}-{max(taken, default=0) + 1}"


def is_run(path: Path) -> bool:
    """Tell whether ``path`` is a run directory."""
    return (path / "recipe.toml").is_file()


def runs(parent: Path) -> list[Path]:
    """Return the run directories in ``parent``, the one last written to last."""
    found = [path for path in parent.glob("*") if is_run(path)]
    return sorted(found, key=_last_written)


def _holds_something(folder: Path) -> bool:
    """Tell whether there is more than what a start that was killed left behind."""
    return any(path.name not in (".lock", ".recipe.toml") for path in folder.iterdir())


def _last_written(run: Path) -> float:
    metrics = run / "metrics.jsonl"
    return (metrics if metrics.exists() else run / "recipe.toml").stat().st_mtime


def read_recipe(path: Path) -> Recipe:
    """Read the resolved recipe of a run.

    Raises:
        CheckpointError: ``path`` is not a run directory, or its recipe is damaged.
    """
    if not is_run(path):
        raise CheckpointError(
            f"{path} is not a run directory (it has no recipe.toml); "
            "name one that alexnet train made"
        )
    try:
        return recipes.override(tomllib.loads((path / "recipe.toml").read_text()), {})
    except tomllib.TOMLDecodeError as error:
        raise CheckpointError(f"{path / 'recipe.toml'} is damaged: {error}") from error


def check_same(old: Recipe, new: Recipe) -> None:
    """Refuse to continue a run as another.

    Raises:
        ConfigError: names every value that differs.
    """
    differing = [
        line
        for line in recipes.differences(old, new)
        if line.partition(":")[0] not in RESUMABLE
    ]
    if differing:
        raise ConfigError(
            f"--resume with other values than the run's: {'; '.join(differing)}; "
            "leave them out, or start a new run"
        )


class RunDir:
    """An open run directory; use it as a context."""

    def __init__(self, path: Path) -> None:
        """Take hold of a directory that ``create`` or an earlier run has made.

        Raises:
            CheckpointError: another process writes to it, or nobody may.
        """
        self.path = path.resolve()
        try:
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {path}: {error.strerror}; choose another --run-dir"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise CheckpointError(
                f"{path} is in use by another process; wait for it, or choose "
                "another --run-dir"
            ) from error
        self._tensorboard = None
        self._purge_step: int | None = None

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> "RunDir":
        """Make a new run directory.

        Raises:
            CheckpointError: there is something already, or it cannot be made.
        """
        if path.exists() and (not path.is_dir() or _holds_something(path)):
            raise CheckpointError(
                f"{path} exists and is not overwritten; continue it with --resume "
                f"--run-dir {path}, or choose another --run-dir"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path)
            run._write_recipe(recipe)
        except OSError as error:
            raise CheckpointError(
                f"cannot make run directory {path}: {error.strerror}; "
                "choose another --run-dir"
            ) from error
        return run

    def _write_recipe(self, recipe: Recipe) -> None:
        partial = self.path / ".recipe.toml"
        partial.write_text(
            "# The resolved recipe of this run; repeat it with\n"
            "#   alexnet train THIS_FILE\n" + recipes.dump(recipe)
        )
        partial.replace(self.path / "recipe.toml")

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
        self._lock.close()

    def forget_after(self, step: int, *, tested: bool = True) -> None:
        """Drop the rows after ``step``: they are about to be written again.

        Args:
            step: that the run goes on from.
            tested: whether the checkpoint of ``step`` holds its test; if not, the
                test is made again, and its rows are dropped too.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        self._purge_step = step + 1
        kept = [
            row
            for row in read_metrics(self.path)
            if row["step"] < step or (row["step"] == step and (tested or "loss" in row))
        ]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        partial.replace(path)

    def write(self, event: StepDone | Evaluated) -> None:
        """Add an event's row to ``metrics.jsonl`` and to TensorBoard's events.

        Raises:
            CheckpointError: the disk is full.
        """
        try:
            with open(self.path / "metrics.jsonl", "a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in _rows(event)))
            self._write_tensorboard(event)
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {self.path}: {error.strerror}; free some space, "
                f"then continue with --resume --run-dir {self.path}"
            ) from error

    def write_session(self, record: Mapping[str, Any]) -> None:
        """Add a line to ``sessions.jsonl``: a start or an end, and on which machine.

        Raises:
            CheckpointError: the disk is full.
        """
        try:
            with open(self.path / "sessions.jsonl", "a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {self.path}: {error.strerror}; free some space"
            ) from error

    def _write_tensorboard(self, event: StepDone | Evaluated) -> None:
        if self._tensorboard is None:
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(
                str(self.path / "tensorboard"),
                purge_step=self._purge_step,
                # Two files begun in one second would else have one name.
                filename_suffix=f".{self._purge_step or 0}",
            )
        for row in _rows(event):
            for name, value in row.items():
                if name in ("split", "step", "epoch", "views", "images"):
                    continue
                values = value if isinstance(value, dict) else {"": value}
                for key, number in values.items():
                    tag = f"{row['split']}/{name}" + (f"/{key}" if key else "")
                    self._tensorboard.add_scalar(tag, number, row["step"])


class Onlooker(RunDir):
    """A run directory that process 0 writes, as another process holds it."""

    def __init__(self, path: Path) -> None:
        """Look at a run directory without taking hold of it."""
        self.path = path

    def __exit__(self, *failure: object) -> None:
        """Let go of nothing."""

    def forget_after(self, step: int, *, tested: bool = True) -> None:
        """Leave the rows to process 0."""

    def write(self, event: StepDone | Evaluated) -> None:
        """Leave the rows to process 0."""

    def write_session(self, record: Mapping[str, Any]) -> None:
        """Leave the line to process 0."""


def open_run(path: Path, recipe: Recipe, *, resume: bool) -> RunDir:
    """Open the directory of a run, on every process of it; process 0 alone writes.

    Args:
        path: that process 0 was given; it must be new unless ``resume``.
        recipe: of the run.
        resume: whether it continues the run that is there.

    Raises:
        CheckpointError: it cannot be written, or not every process can see it.
        ConfigError: the run there is another.
    """

    def take() -> RunDir | None:
        if not hosts.leader():
            return None
        if not resume:
            return RunDir.create(path, recipe)
        check_same(read_recipe(path), recipe)
        return RunDir(path)

    def look() -> None:
        for _ in range(_SEEN_SECONDS):
            if is_run(there):
                return
            time.sleep(1)
        raise CheckpointError(
            f"{there} is not to be seen on {hosts.names()[jax.process_index()]}; "
            "--run-dir must lie in a folder that all hosts share"
        )

    run = hosts.together(take)
    there = Path(hosts.first(lambda: "" if run is None else str(run.path)))
    try:
        hosts.together(look)
    except CheckpointError:
        if run is not None:
            run.__exit__()
        raise
    return run or Onlooker(there)


def _rows(event: StepDone | Evaluated) -> list[dict[str, Any]]:
    when = {"step": event.step, "epoch": round(event.epoch, 6)}
    if isinstance(event, StepDone):
        return [
            {
                "split": "train",
                **when,
                "loss": event.loss,
                "top1_error": event.top1_error,
                "learning_rate": event.learning_rate,
                "images_per_second": event.images_per_second,
                "input_stall": event.input_stall,
            }
        ]
    return [
        {"split": "train", **when, "update_ratios": event.update_ratios},
        {"split": "eval", **when, **dataclasses.asdict(event.result)},
    ]


def read_metrics(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run's ``metrics.jsonl``; a last line cut off is left out."""
    return _read_lines(run_dir / "metrics.jsonl")


def step_seconds(rows: Iterable[dict[str, Any]], batch_size: int) -> float:
    """Return the seconds that a run's steps took, interruptions not counted.

    Args:
        rows: of ``metrics.jsonl``.
        batch_size: images a step.
    """
    total, before = 0.0, 0
    for row in rows:
        if rate := row.get("images_per_second"):
            total += (row["step"] - before) * batch_size / rate
            before = row["step"]
    return total


def read_sessions(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's ``sessions.jsonl``; runs of old have none.

    A line has ``event``, ``began`` or ``ended``, and ``step``; the first kind also
    ``mesh`` and what ``machine.facts`` says, the second ``seconds``.
    """
    return _read_lines(run_dir / "sessions.jsonl")


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with open(path) as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def free_bytes(path: Path) -> int:
    """Return the free space where ``path`` is, or would be."""
    while not path.exists():
        path = path.parent
    stats = os.statvfs(path)
    return stats.f_bavail * stats.f_frsize
