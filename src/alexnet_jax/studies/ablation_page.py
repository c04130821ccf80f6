"""What an ablation study found, in Markdown and as bars for its figure."""

from importlib import metadata

from alexnet_jax.figures import Bar
from alexnet_jax.studies.comparing import Difference, Spread
from alexnet_jax.studies.rows import FULL
from alexnet_jax.studies.tabulating import Row, Table

JUDGED = {
    "test": "test error",
    "train": "training error",
    "overfitting": "test less training error",
}
SAYS = {
    "agrees": "agrees with the paper",
    "disagrees": "disagrees with the paper",
    "undecided": "undecided: the interval spans zero",
    "one seed": "one seed: no interval",
}


def text(table: Table, command: str) -> str:
    """Return the page: what was run, every row's errors, and what follows."""
    plan, recipe = table.plan, table.plan.recipe
    versions = [f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib")]
    runs = sum(len(row.seeds) for row in table.rows)
    lines = [
        f"# {recipe.name} without each of its parts",
        "",
        f"- command: `{command}`",
        f"- data: {recipe.data.spec}; {recipe.schedule.epochs:g} epochs of "
        f"{recipe.optimizer.batch_size} images a step, network `{recipe.network}`",
        f"- runs: {runs} of {len(plan.trials)}, seeds {', '.join(map(str, plan.seeds))}"
        + (" (the study is not finished)" if table.left else ""),
        f"- hardware: {table.device}; {recipe.run.precision}; {', '.join(versions)}",
        "",
        "Errors are of the last checkpoint, nothing is chosen by them. `training` is "
        "the error of training pictures, centre view, without dropout. Differences "
        "are in percentage points, without the part less with it, with Welch's 95% "
        "interval. " + seen(table),
        "",
        "| without | runs | parameters | test error, mean (range; sd) | top-5 | "
        "training | seconds a run |",
        "|---|---|---|---|---|---|---|",
        *(_errors(row) for row in table.rows),
        "",
        "| without | test error | the claim is about | difference | paper | verdict |",
        "|---|---|---|---|---|---|",
        *(_difference(row) for row in table.rows if row.judged),
        "",
    ]
    for word, said in SAYS.items():
        parts = [row.part for row in table.rows if row.verdict == word]
        if parts:
            lines.append(f"- {said}: {', '.join(parts)}")
    lines += [f"- left out: {each.part}: {each.reason}" for each in plan.left_out]
    lines += [f"- failed: {each.trial.name}: {each.reason}" for each in table.failed]
    sources = {row.claim.part: row.claim for row in table.rows if row.claim}
    lines += ["", "The paper:", ""]
    lines += [
        f"- {part}: section {claim.section}, {claim.says}"
        + (f" ({claim.source})" if claim.source else "")
        for part, claim in sources.items()
    ]
    return "\n".join(lines) + "\n"


def seen(table: Table) -> str:
    """Say with which views the rows were tested."""
    first = table.plan.recipe.eval.views[0]
    other = [row.part for row in table.rows if row.views != first]
    words = {1: "centre view", 10: "ten views"}
    if not other:
        return f"Test errors are of the {words[first]}."
    return (
        f"Test errors are of the {words[first]}; those of {', '.join(other)}, which "
        "cannot be looked at so, are of the centre view, and compared with the centre "
        "view of the whole."
    )


def percent(found: Spread) -> str:
    """Return a mean, its range and its standard deviation."""
    if found.sd is None:
        return f"{found.mean:.2%}"
    return (
        f"{found.mean:.2%} ({100 * found.low:.2f} to {100 * found.high:.2f}; "
        f"{100 * found.sd:.2f})"
    )


def points(found: Difference | None) -> str:
    """Return a difference in percentage points, and its interval if it has one."""
    if found is None:
        return ""
    mean = f"{100 * found.mean:+.2f}"
    if found.low is None or found.high is None:
        return mean
    return f"{mean} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def bars(table: Table) -> list[Bar]:
    """Return each row's difference for the figure, the paper's beside it."""
    found = []
    for row in table.rows:
        if row.claim is None or row.judged is None:
            continue
        other = row.claim.judged != "test"
        ends = row.judged.low, row.judged.high
        found.append(
            Bar(
                label=row.part,
                what=JUDGED[row.claim.judged] if other else "",
                value=100 * row.judged.mean,
                low=None if ends[0] is None else 100 * ends[0],
                high=None if ends[1] is None else 100 * ends[1],
                paper=row.claim.top1,
            )
        )
    return found


def _errors(row: Row) -> str:
    name = "nothing" if row.part == FULL else row.part
    return (
        f"| {name} | {len(row.seeds)} | {row.parameters:,} | {percent(row.test)} | "
        f"{row.test5.mean:.2%} | {row.train.mean:.2%} | {row.seconds.mean:,.0f} |"
    )


def _difference(row: Row) -> str:
    assert row.claim is not None
    return (
        f"| {row.part} | {points(row.top1)} | {JUDGED[row.claim.judged]} | "
        f"{points(row.judged)} | {row.claim.number} | {row.verdict} |"
    )
