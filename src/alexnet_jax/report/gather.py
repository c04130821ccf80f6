"""What a page needs to know of a run: its record, and its network asked once more."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from alexnet_jax import checkpoint, data, hosts, recipes, rundir, steps, units
from alexnet_jax.checkpoint import Loaded, Meta
from alexnet_jax.classes import readable
from alexnet_jax.config import Recipe
from alexnet_jax.data.records import Source
from alexnet_jax.data.splits import evenly
from alexnet_jax.errors import DataError
from alexnet_jax.evaluate import Result
from alexnet_jax.figures import Chroma, chroma
from alexnet_jax.networks import network as find_network
from alexnet_jax.recipes import Published, Sources
from alexnet_jax.report.answers import Answers, answer
from alexnet_jax.table import Field

ANSWERED = 10_000  # pictures that a network is asked about, at most
EXCITED = 2_000  # pictures that its units look at, at most
PAIRS, MISTAKES, SAMPLES = 10, 12, 10


@dataclass(frozen=True)
class Unit:
    """A unit and what excites it.

    Attributes:
        number: among the layer's maps.
        tower: 1 or 2.
        mostly: the class that most of the pictures are of; empty if none is.
        patches: ``u8[S, S, C]`` each, the best first.
    """

    number: int
    tower: int
    mostly: str
    patches: Sequence[np.ndarray]


@dataclass(frozen=True)
class Layer:
    """Some units of a layer.

    Attributes:
        name: of the row.
        field: what a unit sees.
        images: pictures that were looked through.
        units: those shown.
    """

    name: str
    field: Field
    images: int
    units: Sequence[Unit]


@dataclass(frozen=True)
class Gathered:
    """A run, as the page tells it.

    Attributes:
        path: of the run's directory.
        typed: the same as one would type it here.
        meta: of the checkpoint that the page is about.
        last: of the run's last one.
        best: whether the page's was chosen for its validation error.
        recipe: of the run.
        rows: of ``metrics.jsonl``.
        sessions: of ``sessions.jsonl``.
        kernel: ``f32[k, k, C, F]``, the first layer's filters in tower order.
        chroma: how coloured they are; None where the network sees grey.
        sources: where the values are from; None if the recipe is not a shipped one.
        shipped: the recipe as it ships, likewise.
        published: what others reached with it, where that is known.
        answers: what the network says of the evaluation split; None without data.
        layers: its convolutions, likewise.
        missing: why there is no data; None if there is.
    """

    path: Path
    typed: str
    meta: Meta
    last: Meta
    best: bool
    recipe: Recipe
    rows: Sequence[dict[str, Any]]
    sessions: Sequence[dict[str, Any]]
    kernel: np.ndarray
    chroma: Chroma | None
    sources: Sources | None
    shipped: Recipe | None
    published: Published | None
    answers: Answers | None
    layers: Sequence[Layer]
    missing: str | None

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.path.name

    @property
    def towers(self) -> int:
        """How many the network has."""
        return find_network(self.meta.network).towers

    @property
    def result(self) -> Result | None:
        """What the whole evaluation split gave; None if nobody tested."""
        found = self.answers
        if found is not None and found.result.images == found.available:
            return found.result
        return Result(**self.meta.evaluated) if self.meta.evaluated else None


def gather(run: str | Path, mesh: Mesh, *, data_dir: str | None = None) -> Gathered:
    """Read a run, and ask its best checkpoint, or its last, about its pictures.

    A run whose pictures are gone is told without them.

    Args:
        run: its directory, or a checkpoint in it.
        mesh: devices of this process, which fit the run's network.
        data_dir: the folder that tfds's sets lie in, where it is no longer the run's.

    Raises:
        CheckpointError: there is no run, or it has no checkpoint.
    """
    path = checkpoint.resolve(run)
    inside = path.parent.name == "checkpoints"
    home = (path.parents[1] if inside else path).resolve()
    here = Path.cwd()
    recipe = rundir.read_recipe(home)
    loaded = checkpoint.load(path, mesh)
    table = find_network(loaded.meta.network)
    first, *_ = steps.layer_names(table)
    kernel = hosts.whole(loaded.params[first]["kernel"])
    known = recipe.name in recipes.names()
    role = loaded.meta.eval_role
    answers, layers, missing = None, [], None
    try:
        source, _ = data.open_split(
            recipe.data.spec,
            recipe.data.eval_split,
            directory=data_dir or recipe.data.dir,
        )
        answers = answer(
            loaded,
            source,
            mesh,
            limit=ANSWERED,
            batch_size=recipe.eval.batch_size,
            pairs=PAIRS,
            mistakes=MISTAKES,
            samples=SAMPLES,
        )
        layers = _layers(loaded, evenly(source, EXCITED), mesh, recipe.eval.batch_size)
    except DataError as error:
        missing = str(error)
    return Gathered(
        path=home,
        typed=str(home.relative_to(here) if home.is_relative_to(here) else home),
        meta=loaded.meta,
        last=checkpoint.read_meta(checkpoint.steps_in(home)[-1]),
        best=role == "validation" and path.resolve() == checkpoint.resolve(home),
        recipe=recipe,
        rows=list(rundir.read_metrics(home)),
        sessions=list(rundir.read_sessions(home)),
        kernel=kernel,
        chroma=chroma(kernel, table.towers) if kernel.shape[2] == 3 else None,
        sources=recipes.sources(recipes.text(recipe.name)) if known else None,
        shipped=recipes.load(recipe.name) if known else None,
        published=recipes.published(recipe.name) if known else None,
        answers=answers,
        layers=layers,
        missing=missing,
    )


def _layers(loaded: Loaded, source: Source, mesh: Mesh, batch_size: int) -> list[Layer]:
    """Look for what excites a dozen units of each convolution."""
    table = find_network(loaded.meta.network)
    count = len(loaded.meta.classes)
    chosen = {name: units.choose(table, name, count) for name in units.layers(table)}
    *_, seen = units.excite(loaded, source, mesh, chosen, batch_size=batch_size)
    names = readable(source.classes)
    found = []
    for name, best in seen.layers.items():
        traced = units.traced(table, name)
        cut = units.patches(loaded, source, name, best)
        shown = [
            Unit(
                number,
                1 + number * table.towers // traced.outputs[-1],
                _mostly([names[patch.label] for patch in patches]),
                [patch.pixels for patch in patches],
            )
            for number, patches in zip(best.units, cut, strict=True)
        ]
        found.append(Layer(name, traced.field, seen.images, shown))
    return found


def _mostly(labels: Sequence[str]) -> str:
    """Return the label that more than half have, if there is one."""
    label = max(labels, key=labels.count)
    return label if 2 * labels.count(label) > len(labels) else ""
