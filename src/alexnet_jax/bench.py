"""Rates of this machine: computing alone, reading alone, and both together.

Pictures are made here (smooth noise, JPEG where the network's records are JPEG), so a
measurement needs no data set. Every figure is the median of several repeats, each
long enough to time; comparisons belong in one run, side by side.
"""

import contextlib
import io
import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image, ImageFilter

from alexnet_jax import augment, data, job, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.config import (
    AugmentConfig,
    DataConfig,
    OptimizerConfig,
    Recipe,
    RunConfig,
    StepsSchedule,
)
from alexnet_jax.data.records import Batch, Dataset, Record
from alexnet_jax.job import Job
from alexnet_jax.mesh import check_batch, make_mesh
from alexnet_jax.networks import network as find_network
from alexnet_jax.table import Network, trace

Mode = Literal["train", "forward", "input", "end-to-end"]
MODES: tuple[Mode, ...] = ("train", "forward", "input", "end-to-end")

BORDER = 1.142  # stored side over the network's input: 256 over 224
JPEG_FROM = 64  # pixels; smaller records are stored without loss, as tfds has them


@dataclass(frozen=True)
class Measurement:
    """One rate.

    Attributes:
        mode: ``train`` or ``forward`` (computing alone), ``input`` (reading and
            decoding alone) or ``end-to-end`` (training fed by the input).
        network: name of the table.
        batch_size: images in a step, over all devices.
        precision: ``f32`` or ``bf16``.
        images_per_second: the median repeat.
        min, max: the slowest and the fastest repeat.
        n: repeats.
        device: what computed, and how many of it.
        versions: of Python's packages that matter.
        compile_seconds: until the first step was done, compiling included; where
            the compile cache has the program, reading it.
        matmul_flops: floating-point operations a second of all devices in a product
            of large matrices of this precision, the most a network could reach.
        share_of_matmul: what the network's own operations come to, as a share of
            that; None for ``input``, which computes nothing.
        peak_memory: bytes, the most during this measurement: of the process on CPU
            (on macOS: since it began), else of a device since the process began.
    """

    mode: Mode
    network: str
    batch_size: int
    precision: str
    images_per_second: float
    min: float
    max: float
    n: int
    device: str
    versions: dict[str, str]
    compile_seconds: float
    matmul_flops: float
    share_of_matmul: float | None
    peak_memory: int


@dataclass(frozen=True)
class Pictures:
    """A split of made-up pictures, encoded once and repeated.

    Attributes:
        name: of the split.
        classes: made-up names.
        records: the different pictures.
        count: records that the split pretends to have.
    """

    name: str
    classes: Sequence[str]
    records: Sequence[Record]
    count: int

    def __len__(self) -> int:
        """Count the records."""
        return self.count

    def __getitem__(self, index: int) -> Record:
        """Return one record."""
        return self.records[index % len(self.records)]


def pictures(side: int, channels: int, classes: int, count: int = 100_000) -> Pictures:
    """Make pictures as a store would hold them.

    Args:
        side: pixels.
        channels: 1 or 3.
        classes: how many the labels name.
        count: records that the split pretends to have.
    """
    draw = np.random.Generator(np.random.Philox(2012))
    records = []
    for index in range(64):
        noise = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
        # As smooth as a photograph: about 20 kB as a JPEG of 256 x 256.
        picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.5))
        if channels == 1:
            picture = picture.convert("L")
        file = io.BytesIO()
        picture.save(file, "JPEG" if side >= JPEG_FROM else "PNG", quality=90)
        records.append(Record(file.getvalue(), index % classes, str(index)))
    names = [str(number) for number in range(classes)]
    return Pictures("made-up pictures", names, records, count)


def measure(
    network: str,
    mode: Mode,
    *,
    batch_size: int = 128,
    precision: Literal["f32", "bf16"] = "f32",
    devices: int | None = None,
    towers: int | None = None,
    repeats: int = 5,
    seconds: float = 2.0,
) -> Measurement:
    """Measure one rate.

    Args:
        network: name of the table.
        mode: what to measure.
        batch_size: images in a step, over all devices.
        precision: of the arithmetic.
        devices: how many to use; all when None.
        towers: devices that one network is split over; see ``mesh.make_mesh``.
        repeats: timed, after a warm-up.
        seconds: the least a repeat takes.

    Raises:
        ConfigError: an unknown network, or a batch that does not divide.
    """
    planned = _plan(network, batch_size, precision, devices, towers)
    mesh = planned.mesh
    _forget_peak()
    began = time.perf_counter()
    step = _stepper(planned, mode)
    step(1)
    compile_seconds = time.perf_counter() - began
    ceiling = _matmul_flops(mesh, precision)
    rates = [batch_size * rate for rate in _steps_per_second(step, repeats, seconds)]
    rate, work = statistics.median(rates), flops(planned.network, mode)
    kinds = {device.device_kind for device in mesh.devices.flat}
    return Measurement(
        mode=mode,
        network=network,
        batch_size=batch_size,
        precision=precision,
        images_per_second=rate,
        min=min(rates),
        max=max(rates),
        n=repeats,
        device=f"{mesh.size} x {', '.join(sorted(kinds))}, {data.cores()} cores",
        versions={name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
        compile_seconds=compile_seconds,
        matmul_flops=ceiling,
        share_of_matmul=rate * work / ceiling if work else None,
        peak_memory=_peak_memory(mesh),
    )


def flops(network: Network, mode: Mode) -> int:
    """Return the floating-point operations that ``mode`` needs for an image.

    Two for each multiply-add of convolutions and matrices, nothing for the rest. The
    way back needs twice the forward pass, less the gradient of the image itself.
    """
    if mode == "input":
        return 0
    macs = [traced.macs for traced in trace(network) if traced.macs]
    return 2 * (sum(macs) if mode == "forward" else 3 * sum(macs) - macs[0])


def _matmul_flops(mesh: Mesh, precision: Literal["f32", "bf16"]) -> float:
    """Return the best rate of five products, times the devices.

    CPU devices share the machine's cores, so there they count as one.
    """
    cpu = mesh.devices.flat[0].platform == "cpu"
    side = 2048 if cpu else 8192
    square = jnp.ones((side, side), steps.DTYPES[precision])
    square = jax.device_put(square, mesh.devices.flat[0])
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(square, square))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(product(square, square))
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds) * (1 if cpu else mesh.size)


def _forget_peak() -> None:
    """Let Linux count the most memory of this process from now on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(mesh: Mesh) -> int:
    statistics_of = mesh.devices.flat[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics_of:
        return statistics_of["peak_bytes_in_use"]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes


Step = Callable[[int], None]
"""Does a number of steps and returns when the last one is done."""


def stepper(
    network: str,
    mode: Mode,
    *,
    batch_size: int = 128,
    precision: Literal["f32", "bf16"] = "f32",
) -> Step:
    """Return what ``measure`` times, for a clock of one's own; arguments as there."""
    return _stepper(_plan(network, batch_size, precision, None, None), mode)


def _stepper(planned: Job, mode: Mode) -> Step:
    if mode == "train":
        return _training(planned, itertools.repeat(_first(planned)))
    if mode == "forward":
        return _predicting(planned)
    if mode == "input":
        return _reading(planned)
    return _training(planned, _batches(planned))


def _steps_per_second(step: Step, repeats: int, seconds: float) -> Iterator[float]:
    step(2)  # compile, fill the buffers
    began = time.perf_counter()
    step(1)
    count = max(1, round(seconds / max(time.perf_counter() - began, 1e-6)))
    for _ in range(repeats):
        began = time.perf_counter()
        step(count)
        yield count / (time.perf_counter() - began)


def _plan(
    network: str,
    batch_size: int,
    precision: Literal["f32", "bf16"],
    devices: int | None,
    towers: int | None,
) -> Job:
    table = find_network(network)
    mesh = make_mesh(table, devices=devices, towers=towers)
    check_batch(mesh, batch_size)
    side = round(table.input_size * BORDER)
    source = pictures(side, table.channels, table.classes)
    return _job(table, mesh, source, side, batch_size, precision)


def _job(
    table: Network,
    mesh: Mesh,
    source: Pictures,
    side: int,
    batch_size: int,
    precision: Literal["f32", "bf16"],
) -> Job:
    """Return a run like the recipe ``imagenet``, on made-up pictures."""
    recipe = Recipe(
        name="bench",
        network=table.name,
        data=DataConfig(spec="made-up", image_size=side),
        augment=AugmentConfig(
            crop=True, flip=True, colour_noise=0.1 if table.channels == 3 else 0.0
        ),
        optimizer=OptimizerConfig(
            batch_size=batch_size,
            learning_rate=0.001,
            bias_learning_rate=0.002,
            momentum=0.9,
            weight_decay=0.0005,
        ),
        schedule=StepsSchedule(kind="steps", epochs=90),
        run=RunConfig(precision=precision),
    )
    dataset = Dataset("made-up", source, source, "validation")
    return Job(recipe, table, mesh, dataset, total_steps=10**6)


def _preprocess(planned: Job) -> Preprocess:
    side, colours = planned.recipe.data.image_size, planned.network.channels
    mean = np.full((side, side, colours), 127.5, np.float32)
    prepared = augment.preprocess(mean, 900.0 * np.eye(colours))
    return jax.device_put(prepared, NamedSharding(planned.mesh, P()))


def _batches(planned: Job) -> Generator[Batch, None, None]:
    return data.train_batches(
        planned.dataset.train,
        batch_size=planned.recipe.optimizer.batch_size,
        image_size=planned.recipe.data.image_size,
        channels=planned.network.channels,
        seed=0,
        num_steps=10**9,
    )


def _first(planned: Job) -> Batch:
    batches = _batches(planned)
    try:
        return next(batches)
    finally:
        batches.close()


def _training(planned: Job, batches: Iterator[Batch]) -> Step:
    train_step = job.compile_step(planned)
    state = steps.create_state(
        planned.recipe, planned.network, planned.classes, planned.mesh
    )
    preprocess = _preprocess(planned)

    def step(count: int) -> None:
        nonlocal state
        behind = None
        for _ in range(count):
            batch = steps.put_batch(next(batches), planned.mesh)
            state, scores = train_step(state, batch, preprocess)
            if behind is not None:  # as ``fit`` does: one step ahead, not a hundred
                jax.block_until_ready(behind)
            behind = scores
        jax.block_until_ready(state)

    return step


def _predicting(planned: Job) -> Step:
    run = steps.forward(
        planned.network,
        planned.classes,
        planned.mesh,
        views=1,
        precision=planned.recipe.run.precision,
    )
    state = steps.create_state(
        planned.recipe, planned.network, planned.classes, planned.mesh
    )
    preprocess = _preprocess(planned)
    images = jax.numpy.asarray(steps.put_batch(_first(planned), planned.mesh).images)

    def step(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(run(state.params, preprocess, images))

    return step


def _reading(planned: Job) -> Step:
    batches = _batches(planned)

    def step(count: int) -> None:
        for _ in range(count):
            next(batches)

    return step
