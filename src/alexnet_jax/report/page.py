"""The page itself: what was gathered, put into words and into one file."""

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from alexnet_jax.errors import ConfigError
from alexnet_jax.report import charts, pictures, words
from alexnet_jax.report.gather import Gathered

PICTURED = 4  # runs whose pictures are shown


def check_page(out: Path) -> Path:
    """Return the path of a page that can be written.

    Raises:
        ConfigError: it cannot; better known before the work than after it.
    """
    out = out.expanduser()
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: a report is a page; let the name end in .html")
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file")
    if not out.parent.is_dir():
        raise ConfigError(
            f"--out {out}: the folder {out.parent} does not exist; make it first"
        )
    return out


def write(runs: Sequence[Gathered], out: Path) -> Path:
    """Write the page about runs; it needs no other file and no network.

    Args:
        runs: at least one.
        out: the file, see ``check_page``; replaced at once, never half written.

    Raises:
        ConfigError: it cannot be written.
    """
    out = check_page(out)
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_text(render(runs), encoding="utf-8")
        os.replace(partial, out)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from error
    return out


def render(runs: Sequence[Gathered]) -> str:
    """Return the page about runs."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("alexnet_jax.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Bokeh tells a thing where it names it first: sorted, its charts make no sense.
    templates.policies["json.dumps_kwargs"] = {"sort_keys": False}
    templates.filters |= {
        "percent": words.percent,
        "given": words.given,
        "embed": pictures.embed,
    }
    names = words.named(runs)
    curves = [
        charts.Curves(name, run.rows, words.tested(run))
        for name, run in zip(names, runs, strict=True)
    ]
    drawn = {
        "chart-errors": charts.errors(curves),
        "chart-losses": charts.losses(curves),
        **{
            f"chart-colours-{place}": charts.colours(run.chroma)
            for place, run in enumerate(runs)
            if run.chroma is not None
        },
    }
    folder = resources.files("alexnet_jax.report") / "templates"
    return templates.get_template("report.html.j2").render(
        runs=list(zip(names, runs, strict=True)),
        curves=curves,
        charts={id: charts.described(chart) for id, chart in drawn.items()},
        library=charts.library(),
        style=(folder / "report.css").read_text("utf-8"),
        behaviour=(folder / "report.js").read_text("utf-8"),
        words=words,
        pictures=pictures,
        colour=charts.colour,
        pictured_runs=PICTURED,
    )
