"""What the study of Figure 1 found, in a table, a picture, JSON and words."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from alexnet_jax import data, figures
from alexnet_jax.config import Recipe
from alexnet_jax.figures import Line
from alexnet_jax.studies.figure1 import ACTIVATIONS, TARGET, Curve, Figure1

PUBLISHED = 6
PICTURE, RESULTS, RESULT = "figure1.png", "results.json", "RESULT.md"
NAMES = {"relu": "ReLU", "tanh": "tanh"}

_WORDS = f"""# Figure 1: ReLU against tanh on CIFAR-10

{{summary}}

![Training error by epoch]({PICTURE})

{{chosen}}

How the rates were chosen, with one seed:

{{grid}}

The network is `cifar-conv-local-13pct`'s, in one case with tanh for ReLU: the paper's
own, "a particular four-layer convolutional network", is named by no released file. Both
start from the same weights, drawn as that file says for ReLUs; what that costs the
tanhs is left to their own rate to make good, as in the paper. No decay, no crops, no
mirror images, a constant rate; biases learn at twice the weights' rate.

An epoch's error is the mean over its steps, as the 2012 program printed it, and stands
at the epoch's end. Epochs to {TARGET:.0%} lie on the straight line between two ends.
The rates are half a decade apart, the best between two that are worse; a trial ended
once it was there, or once it could no longer be the first of its table. The seconds are
of training steps alone.

| | |
|---|---|
| command | `{{command}}` |
| recipe | `{{recipe}}`, batch {{batch}}, momentum {{momentum:g}} |
| machine | {{machine}} |
| versions | {{versions}} |
| training steps | {{seconds:,.0f}} s in all |
"""


def write(found: Figure1, folder: Path, recipe: Recipe, command: str) -> dict[str, Any]:
    """Write the picture, ``results.json`` and ``RESULT.md`` into the study's folder.

    Args:
        found: the result.
        folder: the study's.
        recipe: that it was asked for with.
        command: likewise.

    Returns:
        What is in ``results.json``.
    """
    # A trial computes on one device, however many there are.
    machine = f"1 x {jax.local_devices()[0].device_kind}, {data.cores()} cores"
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    seconds = sum(curve.seconds for curve in _trials(found))
    lowest, middle, highest = found.spread or (None, None, None)
    record = {
        "published_ratio": PUBLISHED,
        "target": TARGET,
        "ratio": found.ratio,
        "ratios": found.ratios,
        "ratio_min": lowest,
        "ratio_median": middle,
        "ratio_max": highest,
        "epochs": found.epochs,
        "chosen": {name: _records(each) for name, each in found.chosen.items()},
        "grid": {name: _records(each) for name, each in found.grid.items()},
        "command": command,
        "recipe": recipe.model_dump(mode="json"),
        "machine": machine,
        "versions": versions,
        "seconds": seconds,
    }
    draw(found, folder / PICTURE)
    words = _WORDS.format(
        summary=summary(found),
        chosen=_markdown(*chosen(found)),
        grid=_markdown(*grid(found)),
        command=command,
        recipe=recipe.name,
        batch=recipe.optimizer.batch_size,
        momentum=recipe.optimizer.momentum,
        machine=machine,
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
        seconds=seconds,
    )
    for name, text in (
        (RESULTS, json.dumps(record, indent=1) + "\n"),
        (RESULT, words),
    ):
        partial = folder / f".{name}"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)
    return record


def summary(found: Figure1) -> str:
    """Say the result in a sentence."""
    spread, count = found.spread, len(found.ratios)
    if found.ratio is None or spread is None:
        return (
            f"Not every one of the {count} seeds came to {TARGET:.0%} training error, "
            f"so there is no ratio (the paper: about {PUBLISHED})."
        )
    by_seed = f"by seed {spread[0]:.2f} to {spread[2]:.2f}, median {spread[1]:.2f}"
    return (
        f"To {TARGET:.0%} training error tanhs take {found.ratio:.2f} times as many "
        f"epochs as ReLUs ({by_seed}, n = {count}; the paper: about {PUBLISHED})."
    )


def chosen(found: Figure1) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the titles and rows of the result's table."""
    seeds = [f"seed {curve.seed}" for curve in found.chosen["relu"]]
    rows = []
    for activation in ACTIVATIONS:
        curves = found.chosen[activation]
        each = [*map(_epochs, curves), _number(found.epochs[activation])]
        rows.append((NAMES[activation], f"{curves[0].rate:g}", *each))
    ratios = [*map(_number, found.ratios), _number(found.ratio)]
    rows.append(("tanh / ReLU", "", *ratios))
    return (f"epochs to {TARGET:.0%}", "rate", *seeds, "mean"), rows


def grid(found: Figure1) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the titles and rows of the table of rates."""
    rows = []
    for activation in ACTIVATIONS:
        for curve in found.grid[activation]:
            last = f"{curve.errors[-1]:.1%}" if curve.errors else "-"
            rows.append(
                (
                    NAMES[activation],
                    f"{curve.rate:g}",
                    _epochs(curve),
                    f"{len(curve.errors)}",
                    last,
                )
            )
    columns = ("units", "rate", f"epochs to {TARGET:.0%}", "epochs run", "last error")
    return columns, rows


def draw(found: Figure1, out: Path) -> None:
    """Draw training error by epoch: ReLUs solid, tanhs dashed, a line a seed."""
    lines = [
        Line(
            f"{NAMES[activation]}, rate {curve.rate:g}" if first else "",
            curve.errors,
            dashed=activation == "tanh",
        )
        for activation in ACTIVATIONS
        for first, curve in _marked(found.chosen[activation])
    ]
    figures.error_by_epoch(
        lines, out, target=TARGET, title="CIFAR-10: ReLU (solid) and tanh (dashed)"
    )


def _marked(curves: Sequence[Curve]) -> list[tuple[bool, Curve]]:
    return [(place == 0, curve) for place, curve in enumerate(curves)]


def _trials(found: Figure1) -> list[Curve]:
    """Return every trial once: the best rate's first is in both tables."""
    curves = [curve for each in found.grid.values() for curve in each]
    return curves + [c for each in found.chosen.values() for c in each[1:]]


def _records(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    return [{**asdict(curve), "epochs": curve.epochs} for curve in curves]


def _epochs(curve: Curve) -> str:
    if curve.diverged:
        return "diverged"
    return _number(curve.epochs) if curve.epochs else f"> {len(curve.errors)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
