"""Recipes: the numbers of a run, each with its source beside it, and their checks.

A recipe is a TOML file in this folder or a path to one. ``load`` overrides, validates
and cross-checks it, so that a combination that cannot run fails before any data is
read.
"""

import copy
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import ValidationError

from alexnet_jax import data
from alexnet_jax.config import Config, PlateauSchedule, Recipe, StepsSchedule
from alexnet_jax.errors import ConfigError
from alexnet_jax.networks import network as find_network
from alexnet_jax.recipes.sources import Published, Sources, sources
from alexnet_jax.table import trace

__all__ = [
    "Published",
    "Sources",
    "check",
    "differences",
    "dump",
    "flat",
    "load",
    "names",
    "override",
    "published",
    "sources",
    "text",
]

C = TypeVar("C", bound=Config)


def names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    files = resources.files(__name__).iterdir()
    return sorted(f.name[: -len(".toml")] for f in files if f.name.endswith(".toml"))


def text(name: str) -> str:
    """Return a recipe's file, comments and all.

    Args:
        name: of a recipe that ships with the package, or a path to a ``.toml`` file.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name in names():
        return (resources.files(__name__) / f"{name}.toml").read_text("utf-8")
    path = Path(name).expanduser()
    if path.suffix == ".toml" and path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe {name} cannot be read: {error}") from error
    raise ConfigError(
        f"no recipe {name!r}; there are {', '.join(names())}, or give a .toml file"
    )


def load(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    assignments: tuple[str, ...] = (),
) -> Recipe:
    """Load a recipe and make it ready to run.

    Args:
        name: of a recipe, or a path to a ``.toml`` file.
        overrides: values by dotted key, such as ``{"run.seed": 1}``.
        assignments: the same as text, ``section.key=value``, values as in TOML.

    Raises:
        ConfigError: an unknown recipe, key or name, or a combination that cannot run.
    """
    values, _ = _parts(name)
    return override(
        {"name": Path(name).stem, **values},
        {**dict(overrides or {}), **dict(map(_parse, assignments))},
    )


def published(name: str) -> Published | None:
    """Return what others reached with a recipe, where that is known.

    Args:
        name: see ``load``.

    Raises:
        ConfigError: an unknown recipe, or its section ``published`` cannot be.
    """
    return _parts(name)[1]


def override(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Recipe:
    """Return the recipe in ``values`` with ``overrides`` by dotted key, checked."""
    values = copy.deepcopy(dict(values))
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {section} is not a section of a recipe")
        place[last] = value
    return check(_validate(Recipe, values))


def dump(recipe: Recipe) -> str:
    """Return a recipe as TOML; ``load`` reads it back to the same recipe."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def flat(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's values by dotted key."""
    return _flat(recipe.model_dump())


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return ``key: old -> new`` for each value in which two recipes differ."""
    before, after = flat(old), flat(new)
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def check(recipe: Recipe) -> Recipe:
    """Check what no field can check alone; return the recipe.

    Raises:
        ConfigError: names the value and what would do instead.
    """
    table = find_network(recipe.network)
    data.known_spec(recipe.data.spec)
    stored, side = recipe.data.image_size, table.input_size
    if stored < side:
        raise ConfigError(
            f"data.image_size {stored} is smaller than {table.name}'s input; "
            f"use {side} or more"
        )
    if 10 in recipe.eval.views and stored == side:
        raise ConfigError(
            f"eval.views 10 needs a border to crop from, but data.image_size {stored} "
            f"is {table.name}'s input size; use views = [1]"
        )
    if 10 in recipe.eval.views and not recipe.augment.flip:
        raise ConfigError(
            "eval.views 10 mirrors the pictures, but augment.flip is false; "
            "use views = [1]"
        )
    if recipe.augment.colour_noise and table.channels != 3:
        raise ConfigError(
            f"augment.colour_noise {recipe.augment.colour_noise} needs colour, but "
            f"{table.name} reads grey; use 0"
        )
    layers = [traced.row.name for traced in trace(table) if traced.weights]
    schedule = recipe.schedule
    named = {
        "optimizer.layer_weight_decay": recipe.optimizer.layer_weight_decay,
        "schedule.freeze": schedule.freeze,
    }
    if isinstance(schedule, StepsSchedule):
        named["schedule.layer_drops"] = schedule.layer_drops
    for key, by_layer in named.items():
        for layer in by_layer:
            if layer not in layers:
                raise ConfigError(
                    f"{key}: {table.name} has no layer {layer!r}; "
                    f"it has {', '.join(layers)}"
                )
    if all(schedule.freeze.get(layer, 1) == 0 for layer in layers):
        raise ConfigError("schedule.freeze: every layer is frozen from the start")
    if isinstance(schedule, PlateauSchedule):
        late = max([*schedule.freeze.values(), schedule.colour_noise_off or 0])
        if late > schedule.max_drops:
            raise ConfigError(
                f"schedule: drop {late} never comes, max_drops is {schedule.max_drops}"
            )
    return recipe


def _parts(name: str) -> tuple[dict[str, Any], Published | None]:
    """Return the values of a recipe's file, and what was published of it."""
    try:
        values = tomllib.loads(text(name))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"recipe {name} is not TOML: {error}") from error
    found = values.pop("published", None)
    if found is not None:
        found = _validate(Published, found, "published")
    return values, found


def _parse(assignment: str) -> tuple[str, Any]:
    key, equals, value = assignment.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise ConfigError(f"--set {assignment!r}: write section.key=value")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value  # a bare word is text


def _validate(model: type[C], values: Mapping[str, Any], section: str = "") -> C:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = [part for part in (section, *map(str, first["loc"])) if part]
        if place[0] == "schedule" and len(place) > 1:
            del place[1]  # the kind of schedule, which pydantic puts there
        given, reason = f" {first['input']!r}", first["msg"]
        match first["type"]:
            case "missing":
                given, reason = "", "is required"
            case "extra_forbidden":
                reason = "there is no such key"
            case "union_tag_not_found":
                place, given, reason = [*place, "kind"], "", "is required"
            case "union_tag_invalid":
                given = f" {first.get('ctx', {}).get('tag')!r}"
                place, reason = [*place, "kind"], "give steps or plateau"
            case "value_error":  # of our own, and it quotes the value
                given, reason = "", reason.removeprefix("Value error, ")
        raise ConfigError(f"{'.'.join(place)}{given}: {reason}") from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
