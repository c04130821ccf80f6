"""From the devices' sums to the figures that a user watches."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax import model, optim, steps
from alexnet_jax.errors import TrainingError
from alexnet_jax.events import StepDone
from alexnet_jax.job import Job
from alexnet_jax.metrics import Scores

IN_FLIGHT = 2  # steps under way while the host reads an older one's numbers
ROW_STEPS = 20  # steps to a row of metrics.jsonl
SHOW_SECONDS = 0.5  # the least time between two events that are no row
FLAT_STEPS = 1000  # steps after which a loss at ln(classes) is worth a word
FLAT_MARGIN = 0.01


class Meter:
    """Reads the numbers of steps that are done, a little behind the devices.

    Attributes:
        drops: of the ``plateau`` schedule; the loop keeps it up to date.
        saved: the last checkpoint; likewise.
    """

    def __init__(
        self, job: Job, step: int, since_row: dict[str, Any] | None = None
    ) -> None:
        """Begin at ``step``, with what ``since_row`` returned when it was saved."""
        self.drops = 0
        self.saved: Path | None = None
        self._job = job
        self._pending: deque[tuple[int, Scores]] = deque()
        self._sums = None if since_row is None else _scores(since_row)
        self._done = step
        self._flat_from: int | None = None
        self._warned = False
        self._rate = jax.jit(self._learning_rate)
        self._shown = 0.0
        self._row = _Span(step)
        self._run = _Span(step)
        self._clock: float | None = None

    def waited(self, seconds: float) -> None:
        """Count time that was spent waiting for input."""
        self._row.stalled += seconds

    def started(self, step: int, scores: Scores) -> Iterator[StepDone]:
        """Take note of a step under way; yield what is known by now.

        Raises:
            TrainingError: the loss of a step that is done is not finite.
        """
        if self._clock is None:
            self._clock = time.monotonic()
        self._pending.append((step, scores))
        while len(self._pending) > IN_FLIGHT:
            yield from self._read()

    def drain(self) -> Iterator[StepDone]:
        """Read the steps that are under way, waiting for them.

        Raises:
            TrainingError: the loss of one is not finite.
        """
        while self._pending:
            yield from self._read()

    def pause(self) -> None:
        """Stop the clock until the next step: a test or a save comes first."""
        self._tick()
        self._clock = None

    def since_row(self) -> dict[str, Any] | None:
        """Return the sums since the last row, as plain numbers, for a checkpoint."""
        if self._sums is None:
            return None
        return {
            name: {"total": float(metric.total), "count": float(metric.count)}
            for name, metric in vars(self._sums).items()
            if name in Scores.__annotations__
        }

    def check_finite(self, params: model.Params) -> None:
        """Check the weights before they are tested or saved.

        The loss of a step is that of the weights before it: they can be spoilt
        while every loss so far is finite.

        Raises:
            TrainingError: a weight is not finite.
        """
        if not _finite(params):
            raise self._diverged("a weight is not finite after")

    def flat(self) -> str | None:
        """Return advice, once, if the loss has stayed at ln(classes)."""
        patience = min(FLAT_STEPS, self._job.total_steps // 2)
        if (
            self._warned
            or self._flat_from is None
            or self._done - self._flat_from < patience
        ):
            return None
        self._warned = True
        classes = self._job.classes
        return (
            f"the loss has stayed at ln({classes}) = {math.log(classes):.3f} for "
            f"{self._done - self._flat_from} steps: the network has not begun to "
            "learn; early in a long run that can pass, else try another seed, a "
            "higher optimizer.learning_rate, or look whether the labels are right"
        )

    def _tick(self) -> None:
        now = time.monotonic()
        if self._clock is not None:
            self._row.seconds += now - self._clock
            self._run.seconds += now - self._clock
        self._clock = now

    def _read(self) -> Iterator[StepDone]:
        step, scores = self._pending.popleft()
        scores = jax.device_get(scores)
        loss = -float(scores.log_prob.total / scores.log_prob.count)
        if not math.isfinite(loss):
            self._done = step
            raise self._diverged(f"the loss is {loss} at")
        self._watch(step, loss)
        self._sums = scores if self._sums is None else self._sums.merge(scores)
        self._done = step
        regular = step % ROW_STEPS == 0 or step == self._job.total_steps
        row = regular or step == self._job.end_step
        now = time.monotonic()
        if row or now - self._shown >= SHOW_SECONDS:
            self._shown = now
            self._tick()
            yield self._event(self._sums, row)
        if regular:  # a row that an early end asked for leaves the others as they are
            self._sums, self._row = None, _Span(step)

    def _diverged(self, what: str) -> TrainingError:
        last = "no checkpoint was saved"
        if self.saved is not None:
            last = f"the last checkpoint, {self.saved}, is finite"
        f32 = self._job.recipe.run.precision == "f32"
        return TrainingError(
            f"{what} step {self._done}; {last}; start a new run with a lower "
            f"optimizer.learning_rate{'' if f32 else ' or --precision f32'}"
        )

    def _watch(self, step: int, loss: float) -> None:
        """Remember since when the loss has been at ln(classes)."""
        if abs(loss - math.log(self._job.classes)) > FLAT_MARGIN:
            self._flat_from = None
        elif self._flat_from is None:
            self._flat_from = step

    def _event(self, sums: Scores, row: bool) -> StepDone:
        job, step = self._job, self._done
        means = {name: float(value) for name, value in sums.compute().items()}
        batch = job.recipe.optimizer.batch_size
        seconds = max(self._row.seconds, 1e-9)
        whole = max(self._run.seconds, 1e-9) / max(step - self._run.first, 1)
        return StepDone(
            step=step,
            epoch=step / job.steps_per_epoch,
            loss=-means["log_prob"],
            top1_error=means["top1_error"],
            top5_error=means["top5_error"],
            learning_rate=float(self._rate(step - 1, self.drops)),
            images_per_second=(step - self._row.first) * batch / seconds,
            input_stall=min(self._row.stalled / seconds, 1.0),
            seconds_left=(job.end_step - step) * whole,
            row=row,
        )

    def _learning_rate(self, step: jax.Array, drops: jax.Array) -> jax.Array:
        recipe = self._job.recipe
        last = steps.layer_names(self._job.network)[-1]
        return optim.rates(
            recipe.optimizer,
            recipe.schedule,
            (last,),
            step=step,
            total_steps=self._job.total_steps,
            drops=drops,
        ).weights[last]


@jax.jit
def _finite(params: model.Params) -> jax.Array:
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]
    return jnp.stack(leaves).all()


def _scores(sums: dict[str, Any]) -> Scores:
    """Return the scores that ``Meter.since_row`` has written down."""
    empty = Scores.empty()
    metrics = {
        name: dataclasses.replace(
            getattr(empty, name),
            **{key: np.float32(value) for key, value in parts.items()},
        )
        for name, parts in sums.items()
    }
    return dataclasses.replace(empty, **metrics)


class _Span:
    """Time spent since a step.

    Attributes:
        first: the step.
        seconds: on steps.
        stalled: of these, waiting for input.
    """

    def __init__(self, first: int) -> None:
        self.first, self.seconds, self.stalled = first, 0.0, 0.0
