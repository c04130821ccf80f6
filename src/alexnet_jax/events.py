"""What a run tells while it goes on: plain records; the command draws them."""

from dataclasses import dataclass
from pathlib import Path

from alexnet_jax.evaluate import Result


@dataclass(frozen=True)
class Preparing:
    """Something slow comes before the first step; ``what`` says it in words."""

    what: str


@dataclass(frozen=True)
class Started:
    """The run begins or continues.

    Attributes:
        run_dir: where it writes.
        step: updates already made.
        total_steps: of the whole schedule.
        end_step: where this run stops (earlier with ``run.steps``).
        steps_per_epoch: may be fractional; batches run across an epoch's end.
        mesh: the devices, in one line.
        rates: the learning rates before any drop, in one line.
        train_images, eval_images: sizes of the splits.
        classes: how many.
        parameters: how many.
    """

    run_dir: Path
    step: int
    total_steps: int
    end_step: int
    steps_per_epoch: float
    mesh: str
    rates: str
    train_images: int
    eval_images: int
    classes: int
    parameters: int


@dataclass(frozen=True)
class StepDone:
    """Training went on to ``step``; figures are over the steps since the last row.

    Attributes:
        step: updates made.
        epoch: cycles through the training set.
        loss: mean negative log-probability of the true class, natural logarithm.
        top1_error, top5_error: of the augmented training pictures, with dropout.
        learning_rate: of the weights.
        images_per_second: saves, evaluations and compilation not counted.
        input_stall: share of that time spent waiting for input, 0 to 1.
        seconds_left: until the end, evaluations and saves not counted.
        row: whether this is also a row of ``metrics.jsonl``.
    """

    step: int
    epoch: float
    loss: float
    top1_error: float
    top5_error: float
    learning_rate: float
    images_per_second: float
    input_stall: float
    seconds_left: float
    row: bool


@dataclass(frozen=True)
class Evaluated:
    """The network was tested.

    Attributes:
        step, epoch: when.
        split: name of the split.
        result: what was found.
        update_ratios: mean ``|dW| / |W|`` of each layer's last update.
    """

    step: int
    epoch: float
    split: str
    result: Result
    update_ratios: dict[str, float]


@dataclass(frozen=True)
class Dropped:
    """The ``plateau`` schedule divided the learning rate by ten, or ended the run."""

    step: int
    drops: int
    ended: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on disk."""

    step: int
    path: Path
    seconds: float


@dataclass(frozen=True)
class Advice:
    """The run goes on, but the user should know ``what``."""

    what: str


@dataclass(frozen=True)
class Finished:
    """The run is over.

    Attributes:
        run_dir: where everything is.
        step: updates made.
        result: the last evaluation.
        seconds: since ``fit`` was called.
        pictures: figures drawn at the end.
        samples: a few pictures of the evaluation split, for trying ``predict``.
        interrupted: whether it was asked to stop before its end.
        already: whether there was nothing left to do.
    """

    run_dir: Path
    step: int
    result: Result | None
    seconds: float
    pictures: tuple[Path, ...] = ()
    samples: tuple[Path, ...] = ()
    interrupted: bool = False
    already: bool = False


@dataclass(frozen=True)
class Planned:
    """What a run would take, found without training.

    Attributes:
        mesh: the devices, in one line.
        parameters: how many.
        device_bytes: on each device: state, batch and the step's scratch memory.
        checkpoint_bytes: one checkpoint on disk.
        kept: how many of them a run keeps at most.
        free_bytes: free where the run directory would be.
        total_steps, steps_per_epoch: of the schedule.
        train_images, eval_images, classes: of the data.
        first_batch: shape of the first batch, which was read.
        compile_seconds: what compiling the step took.
    """

    mesh: str
    parameters: int
    device_bytes: int
    checkpoint_bytes: int
    kept: int
    free_bytes: int
    total_steps: int
    steps_per_epoch: float
    train_images: int
    eval_images: int
    classes: int
    first_batch: tuple[int, ...]
    compile_seconds: float


Event = (
    Preparing
    | Started
    | StepDone
    | Evaluated
    | Dropped
    | Saved
    | Advice
    | Finished
    | Planned
)
