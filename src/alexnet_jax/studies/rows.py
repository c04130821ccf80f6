"""The rows of an ablation study: recipes with one thing taken away.

A row takes it from the network (``norm``, ``overlap``, ``towers``, ``dropout``,
``layer:conv3``) or from how it is trained (``colour``, ``crops``, ``decay``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_jax import ablations, recipes
from alexnet_jax.config import Recipe
from alexnet_jax.errors import ConfigError
from alexnet_jax.networks import network as find_network
from alexnet_jax.studies import claims
from alexnet_jax.studies.claims import LAYER
from alexnet_jax.studies.runs import Trial

FULL = "full"
SEEDS = 3


@dataclass(frozen=True)
class LeftOut:
    """A row that does not apply to the recipe; ``reason`` says why."""

    part: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a study trains.

    Attributes:
        recipe: the whole one.
        rows: the recipe of each row, by what is taken away; ``full`` is first.
        left_out: rows that do not apply.
        seeds: that each is trained from.
    """

    recipe: Recipe
    rows: dict[str, Recipe]
    left_out: tuple[LeftOut, ...]
    seeds: tuple[int, ...]

    @property
    def trials(self) -> list[Trial]:
        """All runs; all rows of one seed come before those of the next."""
        return [
            Trial(
                trial_name(part, seed),
                recipes.override(recipe.model_dump(), {"run.seed": seed}),
            )
            for seed in self.seeds
            for part, recipe in self.rows.items()
        ]


def trial_name(part: str, seed: int) -> str:
    """Return the name of a row's run from one seed."""
    row = FULL if part == FULL else f"no-{part.removeprefix(LAYER)}"
    return f"{row}-{seed}"


def plan(recipe: Recipe, only: Sequence[str] | None = None, seeds: int = SEEDS) -> Plan:
    """Lay out a study.

    Args:
        recipe: the whole one.
        only: the rows that are wanted; all that apply when None.
        seeds: how many, counted from the recipe's own.

    Raises:
        ConfigError: a row that there is not, or that was asked for and does not apply.
    """
    known = list(claims.CLAIMS)
    table = find_network(recipe.network)
    known += [LAYER + name for name in ablations.middle_convolutions(table)]
    for part in only or ():
        if part not in known and not part.startswith(LAYER):
            raise ConfigError(
                f"--only {part!r}: there is no such row; there are {', '.join(known)}"
            )
    rows, left_out = {FULL: recipe}, []
    for part in only or known:
        try:
            rows[part] = without(recipe, part)
        except ConfigError as error:
            if only:
                raise
            left_out.append(LeftOut(part, str(error)))
    first = recipe.run.seed
    return Plan(recipe, rows, tuple(left_out), tuple(range(first, first + seeds)))


def without(recipe: Recipe, part: str) -> Recipe:
    """Return a recipe with one thing taken away.

    Raises:
        ConfigError: it has no such thing.
    """
    optimizer = recipe.optimizer
    changes: dict[str, Any]
    match part:
        case "colour":
            there = recipe.augment.colour_noise > 0
            changes = {"augment.colour_noise": 0.0}
        case "crops":
            there = recipe.augment.crop or recipe.augment.flip
            changes = {
                "augment.crop": False,
                "augment.flip": False,
                "eval.views": (1,),  # ten need mirror images
            }
        case "decay":
            decays = optimizer.weight_decay, *optimizer.layer_weight_decay.values()
            there = any(decays)
            changes = {
                "optimizer.weight_decay": 0.0,
                "optimizer.layer_weight_decay": {},
            }
        case _:
            there = True  # or the table says what it has
            table, name = find_network(recipe.network), part.removeprefix(LAYER)
            layers = ablations.layers(table)
            if part.startswith(LAYER) and name not in layers:
                raise ConfigError(
                    f"{table.name} has no layer {name!r} to take away; it has "
                    f"{', '.join(layers)}"
                )
            network = ablations.without(table, name).name
            changes = {"network": network, **_forgetting(recipe, name)}
    if not there:
        raise ConfigError(f"the recipe {recipe.name} has no {part} to take away")
    return recipes.override(recipe.model_dump(), changes)


def _forgetting(recipe: Recipe, layer: str) -> dict[str, Any]:
    """Return the recipe's values by layer that name ``layer``, without it."""
    by_layer = {
        f"{section}.{name}": values
        for section, entries in recipe.model_dump().items()
        if isinstance(entries, dict)
        for name, values in entries.items()
        if isinstance(values, dict) and layer in values
    }
    return {
        key: {name: values[name] for name in values if name != layer}
        for key, values in by_layer.items()
    }
