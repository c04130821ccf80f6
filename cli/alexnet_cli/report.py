"""``alexnet report``: runs as a page, side by side, that opens without a network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexnet_cli import options, progress, runs, runtime, view

if TYPE_CHECKING:
    from alexnet_jax.report import Gathered

NAME = "report.html"


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            help="Run directories; several are laid over each other.",
            show_default="the newest run in ./runs",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page.",
            show_default=f"{NAME} in the run, or here for several",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    debug: options.Debug = False,
) -> None:
    """Write a page about runs: results, curves, filters, units, mistakes, sources.

    One file that opens from disk, on any screen, without a network. Curves answer to
    the pointer; of several runs each can be hidden. Its network is asked once more
    about the evaluation split (10,000 pictures of it at most), so the data must be
    there; without it the page says so and has no pictures.

    Examples:
      alexnet report
      alexnet report runs/digits-1 runs/digits-2 --out report.html
    """
    runtime.set_up()
    from alexnet_jax import checkpoint
    from alexnet_jax import report as pages

    given = paths or [runs.newest()]
    first, *others = [checkpoint.resolve(path) for path in given]
    if out is None:
        out = Path(NAME) if others else runs.home(first) / NAME
    out = pages.check_page(out)
    with progress.Progress("", quiet=False) as screen:
        found = []
        for path in given:
            screen.phase = f"looking at {view.short(path)}"
            found.append(look(path, devices, towers, data_dir))
        screen.phase = "writing the page"
        pages.write(found, out)
    for run in found:
        if run.missing is not None:
            view.warn(f"{run.name} is told without pictures: {run.missing}")
    view.answer(
        view.pairs(
            [("report", view.short(out)), ("size", view.size(out.stat().st_size))]
        )
    )


def look(
    path: Path, devices: int | None, towers: int | None, data_dir: Path | None = None
) -> "Gathered":
    """Return what the page says of a run; see ``report.gather``."""
    from alexnet_jax import checkpoint
    from alexnet_jax import report as pages
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    table = network(checkpoint.read_meta(checkpoint.resolve(path)).network)
    return pages.gather(
        path,
        make_mesh(table, devices=devices, towers=towers),
        data_dir=None if data_dir is None else str(data_dir.expanduser()),
    )
