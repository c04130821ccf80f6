"""A run in words and numbers, as the page says them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w

from alexnet_jax import recipes, rundir
from alexnet_jax.networks import network as find_network
from alexnet_jax.report.answers import Answers
from alexnet_jax.report.gather import Gathered
from alexnet_jax.table import trace

NOTHING = "\N{EN DASH}"
MATRIX = 20  # classes up to which every pair is shown
NO_CLAIM = {  # what may differ from the shipped recipe without another result in mind
    *("name", "data.dir", "run.seed", "run.steps", "run.eval_every", "run.save_every"),
    *("run.keep", "run.accumulate", "eval.batch_size"),
}


@dataclass(frozen=True)
class Value:
    """A value of a recipe.

    Attributes:
        key: within its section.
        value: as TOML has it.
        source: what the recipe's file says beside it; empty if nothing.
        shipped: the shipped recipe's value where this one is another; None elsewhere.
    """

    key: str
    value: str
    source: str
    shipped: str | None


@dataclass(frozen=True)
class Section:
    """A section of a recipe.

    Attributes:
        name: empty for what stands above all sections.
        source: what the recipe's file says above it; empty if nothing.
        values: in the recipe's order.
    """

    name: str
    source: str
    values: Sequence[Value]


@dataclass(frozen=True)
class Cell:
    """A number of the table of all pairs.

    Attributes:
        truth, guess: names of the classes.
        count: pictures of the one taken for the other.
        share: of the pictures of ``truth``.
    """

    truth: str
    guess: str
    count: int
    share: float


def percent(share: float | None) -> str:
    """Return a share as ``26.5%``; a dash where there is none."""
    if share is None:
        return NOTHING
    if 0 < share < 5e-5:
        return "< 0.01%"
    digits = 2 if share < 0.0995 else 1
    return f"{100 * share:.{digits}f}%"


def given(share: float) -> str:
    """Return a share with the digits that it was given with, such as ``18%``."""
    return f"{100 * share:.4g}%"


def duration(seconds: float) -> str:
    """Return a duration in words, such as ``1 h 12 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min"


def views(count: int) -> str:
    """Return how often a picture was looked at, in words."""
    return "centre view" if count == 1 else "ten views averaged"


def named(runs: Sequence[Gathered]) -> list[str]:
    """Return a name for each run: its directory's, with the path if others share it."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.path)
        for name, run in zip(names, runs, strict=True)
    ]


def tested(run: Gathered) -> str:
    """Return what the evaluation split is for: ``test`` or ``validation``."""
    return run.meta.eval_role or "test"


def remarks(run: Gathered) -> list[str]:
    """Return what a reader of the result should know, a sentence each."""
    said = []
    found, published, meta = run.result, run.published, run.meta
    ended = bool((run.last.plateau or {}).get("ended"))
    if run.last.step < meta.total_steps and not ended:
        said.append(
            f"The run went to step {run.last.step:,} of {meta.total_steps:,}: the "
            "schedule was not run to its end."
        )
    if found is not None and published is not None and found.views != published.views:
        said.append(
            f"The published number is for {views(published.views)}, this one for the "
            f"{views(found.views)}; like with like is: alexnet eval --ckpt {run.typed} "
            f"--views {published.views}"
        )
    other = [
        value.key if not section.name else f"{section.name}.{value.key}"
        for section in sections(run)
        for value in section.values
        if value.shipped is not None
    ]
    other = [key for key in other if key not in NO_CLAIM]
    if published is not None and other:
        said.append(
            "The published number is for the recipe as it ships; this run differs in "
            f"{', '.join(other)}."
        )
    return said


def sections(run: Gathered) -> list[Section]:
    """Return a run's values with their sources; overridden ones say so."""
    values = run.recipe.model_dump(mode="json", exclude_none=True)
    values.pop("name")
    shipped = recipes.flat(run.shipped) if run.shipped else None
    given = recipes.flat(run.recipe)
    said = run.sources

    def section(name: str, values: dict[str, Any]) -> list[Section]:
        inner, own = [], []
        for key, value in values.items():
            path = f"{name}.{key}" if name else key
            if isinstance(value, dict):
                inner += section(path, value)
                continue
            before = None if shipped is None else shipped.get(path)
            other = shipped is not None and before != given[path]
            own.append(
                Value(
                    key,
                    _toml(value),
                    said.keys.get(path, "") if said else "",
                    (_toml(before) if before is not None else "none")
                    if other
                    else None,
                )
            )
        if not own:
            return inner
        above = said.sections.get(name, "") if said else ""
        return [Section(name, above, own), *inner]

    return section("", values)


def _toml(value: Any) -> str:
    """Return a value as a recipe has it, on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").strip()


def facts(run: Gathered) -> list[tuple[str, str]]:
    """Return what the run is of: network, data, length."""
    meta, recipe = run.meta, run.recipe
    table = find_network(meta.network)
    parameters = sum(row.parameters for row in trace(table, len(meta.classes)))
    towers = "two towers" if table.towers == 2 else "one tower"
    return [
        ("recipe", recipe.name),
        ("network", f"{meta.network}, {towers}, {parameters:,} parameters"),
        ("data", f"{recipe.data.spec}, {len(meta.classes):,} classes"),
        ("checkpoint", f"step {meta.step:,}, epoch {meta.epoch:.4g}{_standing(run)}"),
        ("batch", f"{recipe.optimizer.batch_size} pictures a step"),
        ("seed", str(recipe.run.seed)),
    ]


def _standing(run: Gathered) -> str:
    """Say which of a run's checkpoints it is, where that is more than one of many."""
    if run.meta.step == run.last.step:
        return ", the last"
    return ", the best by its validation error" if run.best else ""


def machine(run: Gathered) -> list[tuple[str, str]]:
    """Return where and how long the run was computed, as its record has it."""
    rows = []
    began = [line for line in run.sessions if line["event"] == "began"]
    ended = [line for line in run.sessions if line["event"] == "ended"]
    for line in {str(_place(line)): line for line in began}.values():
        rows += _place(line)
    if len(began) > 1:
        rows.append(("sessions", f"{len(began)}, one after the other"))
    if ended:
        whole = "" if len(ended) == len(began) else "; sessions that were killed not in"
        rows.append(
            (
                "from start to end",
                duration(sum(line["seconds"] for line in ended))
                + f", with reading, compiling, testing and saving{whole}",
            )
        )
    if steps := step_seconds(run):
        batch = run.recipe.optimizer.batch_size
        trained = max(row["step"] for row in run.rows if "loss" in row)
        rows.append(
            (
                "its steps alone",
                f"{duration(steps)}, {trained * batch / steps:,.0f} pictures a second",
            )
        )
    if began and (line := began[-1]):
        versions = ", ".join(f"{name} {v}" for name, v in line["versions"].items())
        rows += [("system", line["system"]), ("Python", line["python"])]
        rows.append(("versions", versions))
    return rows


def _place(line: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the hardware of a session."""
    return [
        ("processor", _processor(line)),
        ("devices", line["mesh"]),
    ]


def _processor(line: dict[str, Any]) -> str:
    cores = line["cores"]
    return f"{line['processor']}, {cores} core{'s' * (cores != 1)}"


def step_seconds(run: Gathered) -> float:
    """Return the seconds that steps took, from the rates of ``metrics.jsonl``."""
    return rundir.step_seconds(run.rows, run.recipe.optimizer.batch_size)


def elapsed(run: Gathered) -> str:
    """Return how long a run took, as far as it is known."""
    ended = [line["seconds"] for line in run.sessions if line["event"] == "ended"]
    seconds = sum(ended) if _none_killed(run) else step_seconds(run)
    return duration(seconds) if seconds else NOTHING


def counted(run: Gathered) -> str:
    """Return what is counted in ``elapsed``."""
    return "from start to end" if _none_killed(run) else "its steps alone"


def _none_killed(run: Gathered) -> bool:
    """Tell whether all of a run's time is on record: a killed session writes no end."""
    said = [line["event"] for line in run.sessions]
    return 0 < said.count("began") == said.count("ended")


def devices(run: Gathered) -> str:
    """Return what a run was computed on, in a word or two."""
    for line in reversed(run.sessions):
        if line["event"] == "began":
            if "cpu" not in line["devices"]:
                return line["devices"]
            return _processor(line)
    return "machine not recorded"


def cells(answers: Answers) -> list[tuple[str, list[Cell]]]:
    """Return the table of all pairs, a line for each true class; empty if too large."""
    names = answers.classes
    if len(names) > MATRIX:
        return []
    totals = answers.counts.sum(1)
    return [
        (
            truth,
            [
                Cell(truth, guess, int(count), float(count / max(1, totals[line])))
                for guess, count in zip(names, answers.counts[line], strict=True)
            ],
        )
        for line, truth in enumerate(names)
    ]


def differing(runs: Sequence[Gathered]) -> list[tuple[str, list[str]]]:
    """Return the values in which runs differ, one of each run."""
    flat = [recipes.flat(run.recipe) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    rows = [(key, [values.get(key) for values in flat]) for key in keys]
    return [
        (key, [NOTHING if value is None else _toml(value) for value in values])
        for key, values in rows
        if any(value != values[0] for value in values) and key != "data.dir"
    ]
