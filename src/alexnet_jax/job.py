"""A run before it begins: its devices, its data, its length, and what it will take."""

import contextlib
import dataclasses
import hashlib
import math
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax import augment, data, hosts, recipes, rundir, steps
from alexnet_jax.augment import Preprocess
from alexnet_jax.config import PlateauSchedule, Recipe
from alexnet_jax.data.records import Batch, Dataset, Source
from alexnet_jax.errors import ConfigError
from alexnet_jax.events import Planned
from alexnet_jax.mesh import check_batch, make_mesh
from alexnet_jax.mesh import describe as describe_mesh
from alexnet_jax.mesh import hybrid as divide_dense
from alexnet_jax.networks import network as find_network
from alexnet_jax.table import Network, trace

PROBES = 16  # records by which two copies of a split are compared


@dataclass(frozen=True)
class Job:
    """A run's fixed parts: everything but what changes from step to step."""

    recipe: Recipe
    network: Network
    mesh: Mesh
    dataset: Dataset
    total_steps: int

    @property
    def classes(self) -> int:
        """Count of classes."""
        return len(self.dataset.train.classes)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in a cycle through the training set; may be fractional."""
        return len(self.dataset.train) / self.recipe.optimizer.batch_size

    @property
    def end_step(self) -> int:
        """The step at which this run stops."""
        return min(self.total_steps, self.recipe.run.steps or self.total_steps)

    @property
    def devices(self) -> str:
        """How the devices are used, in one line."""
        return describe_mesh(self.mesh, hybrid=self.network.hybrid)

    @property
    def parameters(self) -> int:
        """Count of weights and biases."""
        return sum(t.parameters for t in trace(self.network, self.classes))

    def due(self, step: int, every: float) -> bool:
        """Tell whether something done every ``every`` epochs is due after ``step``."""
        if step == 0:
            return False
        interval = every * self.steps_per_epoch

        def times(steps: int) -> int:  # a whole number of intervals counts as such
            return math.floor(steps / interval + 1e-9)

        return step == self.total_steps or times(step) > times(step - 1)


def plan_job(
    recipe: Recipe, devices: int | None, towers: int | None, hybrid: bool = False
) -> Job:
    """Find the devices and the data of a run, and check that they fit.

    Raises:
        ConfigError: a batch that does not divide, a plateau without validation.
        DataError: the data is missing.
    """
    table = find_network(recipe.network)
    mesh = make_mesh(table, devices=devices, towers=towers)
    if hybrid:
        table = divide_dense(table, mesh.shape["data"])
    check_batch(mesh, recipe.optimizer.batch_size, recipe.run.accumulate)
    dataset = data.open_dataset(recipe.data)
    if isinstance(recipe.schedule, PlateauSchedule) and dataset.eval_role == "test":
        raise ConfigError(
            f"schedule.kind plateau needs a validation split, but "
            f"{dataset.eval.name} is a test split; use --eval-split with a part of "
            "the training split, or schedule.kind steps"
        )
    epochs, batch = recipe.schedule.epochs, recipe.optimizer.batch_size
    total = max(1, round(epochs * len(dataset.train) / batch))
    return Job(recipe, table, mesh, dataset, total)


def facts(job: Job) -> dict[str, Any]:
    """Return what all processes of a run must have alike, by name.

    Where data lies may differ from host to host; some of its pictures are compared.
    """
    values = recipes.flat(job.recipe)
    values.pop("data.dir", None)
    values["devices"] = job.devices
    for split in (job.dataset.train, job.dataset.eval):
        values[f"images in {split.name}"] = len(split)
        values[f"classes of {split.name}"] = list(split.classes)
        values[f"pictures of {split.name} with checksum"] = _checksum(split)
    for package in ("alexnet-jax", "jax", "jaxlib"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            values[package] = metadata.version(package)
    return values


def _checksum(source: Source) -> str:
    """Return a checksum over a few evenly spaced records."""
    digest = hashlib.blake2b(digest_size=8)
    for place in range(PROBES if len(source) else 0):
        record = source[place * len(source) // PROBES]
        image = record.image
        digest.update(image if isinstance(image, bytes) else image.tobytes())
        digest.update(str(record.label).encode())
    return digest.hexdigest()


def in_memory(job: Job) -> Job:
    """Return the job with its small splits decoded, once and for all.

    One of several processes leaves them as they are: it reads its own records only.
    """
    if hosts.count() > 1:
        return job
    pixels = job.recipe.data.image_size, job.network.channels, job.recipe.data.resize
    dataset = dataclasses.replace(
        job.dataset,
        train=data.in_memory(job.dataset.train, *pixels),
        eval=data.in_memory(job.dataset.eval, *pixels),
    )
    return dataclasses.replace(job, dataset=dataset)


def count(job: Job) -> data.Accumulator | None:
    """Count this process's share of the training pictures, where it has to be done.

    Returns:
        None where the store carries what the pictures come to.

    Raises:
        ImageError: a picture cannot be decoded.
    """
    statistics, channels = job.dataset.statistics, job.network.channels
    # A store's are of colours; a network that reads grey needs its own.
    if statistics is not None and statistics.mean.shape[-1] == channels:
        return None
    return data.measure_part(
        job.dataset.train,
        job.recipe.data.image_size,
        channels,
        job.recipe.data.resize,
        part=jax.process_index(),
        parts=hosts.count(),
    )


def measure(job: Job, mine: data.Accumulator | None) -> Preprocess:
    """Return the preprocessing that follows from the training pictures.

    Args:
        job: the run.
        mine: what ``count`` gave this process; the sums of all are exact.
    """
    statistics = job.dataset.statistics
    if mine is not None:
        total = data.Accumulator(job.recipe.data.image_size, job.network.channels)
        for share in hosts.gather_bytes(mine.to_bytes()):
            total.merge(data.Accumulator.from_bytes(share, *total.sums.shape[1:]))
        statistics = total.statistics()
    assert statistics is not None  # else there would be something to count
    return augment.preprocess(statistics.mean, statistics.covariance)


def compile_step(job: Job) -> jax.stages.Compiled:
    """Compile the training step ahead of time, for exactly this run's shapes."""
    recipe, mesh = job.recipe, job.mesh
    batch, side = recipe.optimizer.batch_size, recipe.data.image_size
    colours = job.network.channels

    def shape(dims: tuple[int, ...], dtype: type, spec: P) -> Any:  # for an array
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, spec))

    step = steps.train_step(recipe, job.network, job.classes, mesh, job.total_steps)
    return (
        cast(jax.stages.Wrapped, step)
        .lower(
            steps.abstract_state(recipe, job.network, job.classes, mesh),
            Batch(
                shape((batch, side, side, colours), np.uint8, P("data")),
                shape((batch,), np.int32, P("data")),
                shape((batch,), np.bool_, P("data")),
            ),
            Preprocess(
                mean=shape((side, side, colours), np.float32, P()),
                components=shape((colours, colours), np.float32, P()),
                scale=shape((colours,), np.float32, P()),
            ),
        )
        .compile()
    )


def dry_run(
    recipe: Recipe,
    run_dir: Path,
    *,
    devices: int | None = None,
    towers: int | None = None,
    hybrid: bool = False,
) -> Planned:
    """Say what a run would take; reads the first batch, compiles, trains nothing.

    Raises:
        AlexNetError: the run could not start.
    """
    job = plan_job(recipe, devices, towers, hybrid)
    batches = data.train_batches(
        job.dataset.train,
        batch_size=recipe.optimizer.batch_size,
        image_size=recipe.data.image_size,
        channels=job.network.channels,
        resize=recipe.data.resize,
        seed=recipe.run.seed,
        num_steps=1,
    )
    first = next(batches)
    batches.close()
    began = time.monotonic()
    memory = compile_step(job).memory_analysis()
    used = (
        0  # a backend that does not tell
        if memory is None
        else memory.argument_size_in_bytes + memory.temp_size_in_bytes
    )
    keep = recipe.run.keep + (job.dataset.eval_role == "validation")
    return Planned(
        mesh=job.devices,
        parameters=job.parameters,
        device_bytes=used,
        checkpoint_bytes=2 * 4 * job.parameters,  # weights and velocities, float32
        kept=keep,
        free_bytes=rundir.free_bytes(run_dir.resolve()),
        total_steps=job.total_steps,
        steps_per_epoch=job.steps_per_epoch,
        train_images=len(job.dataset.train),
        eval_images=len(job.dataset.eval),
        classes=job.classes,
        first_batch=first.images.shape,
        compile_seconds=time.monotonic() - began,
    )
