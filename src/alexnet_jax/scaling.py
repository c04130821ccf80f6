"""One run on 1, 2, 4 and 8 devices: is it the same, what does it send, how fast is it?

On a CPU the devices are virtual, so only the first two questions have an answer.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax import augment, bench, data, job, plan, recipes, steps
from alexnet_jax.config import Recipe
from alexnet_jax.data.records import Dataset
from alexnet_jax.job import Job
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network as find_network

COUNTS = (1, 2, 4, 8)
STEPS = 5

Weights = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Scaled:
    """The same few steps on one mesh.

    Attributes:
        data, tower: devices along the two axes.
        difference: of the parameters to those of one device, the largest of all
            arrays: ``|a - b| / |b|``.
        tower_bytes, data_bytes: sent by each device in a step, along each axis.
        operations: of the optimised program.
        images_per_second: all devices, computing alone; None on virtual ones.
        efficiency: that over as many times one device's; likewise.
    """

    data: int
    tower: int
    difference: float
    tower_bytes: float
    data_bytes: float
    operations: int
    images_per_second: float | None
    efficiency: float | None


def measure(*, batch_size: int = 32, network: str = "code2012") -> Iterator[Scaled]:
    """Yield one row a mesh, as many as there are devices for.

    Args:
        batch_size: images in a step of the run that is compared; the network of it is
            ``digits``, small enough for virtual devices.
        network: whose rate is measured on real devices, 128 images for each.
    """
    here = jax.devices()
    real = here[0].platform != "cpu"
    alone, rate = None, None
    for count, tower in itertools.product(COUNTS, (1, 2)):
        if count > len(here) or count % tower:
            continue
        job_here = _job(count, tower, batch_size)
        params, operations = _few_steps(job_here)
        alone = params if alone is None else alone
        shape = {"data": count // tower, "tower": tower}
        sent = {"data": 0.0, "tower": 0.0}
        for message in plan.messages(
            job_here.network,
            data=shape["data"],
            tower=shape["tower"],
            batch_size=batch_size,
        ):
            sent[message.axis] += message.sent(shape[message.axis])
        found = None
        if real:
            found = bench.measure(
                network, "train", batch_size=128 * count, devices=count, towers=tower
            ).images_per_second
            rate = rate or found
        yield Scaled(
            **shape,
            difference=_farthest(params, alone),
            tower_bytes=sent["tower"],
            data_bytes=sent["data"],
            operations=operations,
            images_per_second=found,
            efficiency=None if found is None or rate is None else found / count / rate,
        )


def _job(count: int, tower: int, batch_size: int) -> Job:
    recipe: Recipe = recipes.load("digits", {"optimizer.batch_size": batch_size})
    table = find_network(recipe.network)
    source = bench.pictures(recipe.data.image_size, table.channels, table.classes)
    mesh = make_mesh(table, devices=count, towers=tower)
    dataset = Dataset("made-up", source, source, "test")
    return Job(recipe, table, mesh, dataset, total_steps=1000)


def _few_steps(planned: Job) -> tuple[Weights, int]:
    """Return the parameters after a few steps, and the program's operations."""
    recipe, mesh = planned.recipe, planned.mesh
    program = job.compile_step(planned)
    side, colours = recipe.data.image_size, planned.network.channels
    mean = np.full((side, side, colours), 127.5, np.float32)
    preprocess = jax.device_put(
        augment.preprocess(mean, 900.0 * np.eye(colours)), NamedSharding(mesh, P())
    )
    state = steps.create_state(recipe, planned.network, planned.classes, mesh)
    batches = data.train_batches(
        planned.dataset.train,
        batch_size=recipe.optimizer.batch_size,
        image_size=side,
        channels=colours,
        seed=recipe.run.seed,
        num_steps=STEPS,
    )
    for batch in batches:
        state, _ = program(state, steps.put_batch(batch, mesh), preprocess)
    text = program.as_text() or ""  # a backend that does not tell
    operations = sum(" = " in line for line in text.splitlines())
    return jax.tree.map(np.asarray, state.params), operations


def _farthest(params: Weights, alone: Weights) -> float:
    distances = jax.tree.map(
        lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b), params, alone
    )
    return float(max(jax.tree.leaves(distances)))
