"""The page's charts: curves of all runs in one, and the colour of filters. By Bokeh.

Bokeh's script goes into the page, so that it asks no host for anything. What depends on
light or dark, and which runs are shown, is set in the page (``templates/report.js``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from alexnet_jax.figures.kernels import BINS, NOISE, Chroma

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

COLOURS = (
    *("#3a86d0", "#e0702a", "#3fa45b", "#b8609f"),
    *("#b8962e", "#2ba3b0", "#d6556d", "#8f7a66"),
)  # of runs; they stand out from white and from black
POINTS = 300  # of a curve, at most

Row = dict[str, Any]


@dataclass(frozen=True)
class Curves:
    """A run's part of the learning curves.

    Attributes:
        name: of the run.
        rows: of ``metrics.jsonl``.
        tested: what its evaluation split is called, such as ``test``.
    """

    name: str
    rows: Sequence[Row]
    tested: str

    @property
    def trained(self) -> list[Row]:
        """The rows of training steps, thinned; each the mean of those it stands for."""
        return thinned([row for row in self.rows if "loss" in row])

    @property
    def evaluated(self) -> list[Row]:
        """The rows of evaluations."""
        return [row for row in self.rows if row["split"] == "eval"]


def thinned(rows: Sequence[Row], limit: int = POINTS) -> list[Row]:
    """Return at most ``limit`` rows: the means of as many neighbours.

    Each has the ``epoch`` and the ``step`` of its last.
    """
    size = max(1, -(-len(rows) // limit))
    return [
        {
            "epoch": part[-1]["epoch"],
            "step": part[-1]["step"],
            "loss": float(np.mean([row["loss"] for row in part])),
            "top1_error": float(np.mean([row["top1_error"] for row in part])),
        }
        for part in (rows[at : at + size] for at in range(0, len(rows), size))
    ]


def colour(place: int) -> str:
    """Return the colour of a run by its place."""
    return COLOURS[place % len(COLOURS)]


def library() -> str:
    """Return Bokeh's script."""
    from bokeh.resources import Resources

    script, *_ = Resources(mode="inline", components=["bokeh"]).js_raw
    return script


def described(chart: "Figure") -> dict[str, Any]:
    """Return a chart as its script reads it; plain JSON."""
    from bokeh.embed import json_item

    return cast(dict[str, Any], json_item(chart))


def errors(runs: Sequence[Curves]) -> "Figure":
    """Draw top-1 errors by epoch, in percent."""

    def percent(row: Row) -> float:
        return 100 * row["top1_error"]

    return _curves("top-1 error (%)", "%", runs, percent, percent)


def losses(runs: Sequence[Curves]) -> "Figure":
    """Draw losses by epoch."""
    return _curves(
        "loss (nats)",
        " nats",
        runs,
        lambda row: row["loss"],
        lambda row: -row["log_prob"],
    )


def colours(found: Chroma) -> "Figure":
    """Draw filters by their share of colour, the second tower's below the line."""
    from bokeh.models import HoverTool, Span

    chart = _figure(
        "filters", "share of colour in a filter's energy (%)", 200, x_range=(0, 100)
    )
    edges = np.linspace(0, 1, BINS + 1)
    for tower, shares in enumerate(found.shares):
        sign = 1 if tower == 0 else -1
        counts = np.histogram(shares, edges)[0]
        bars = chart.quad(
            left="left",
            right="right",
            top="top",
            bottom=0,
            source={
                "left": (100 * edges[:-1]).tolist(),
                "right": (100 * edges[1:]).tolist(),
                "top": (sign * counts).tolist(),
                "count": counts.tolist(),
            },
            fill_color=COLOURS[tower],
            line_color=None,
            fill_alpha=0.85,
        )
        chart.add_tools(
            HoverTool(
                renderers=[bars],
                tooltips=f"tower {tower + 1}: @count with @left{{0}}% to @right{{0}}%",
            )
        )
        chart.add_layout(
            Span(
                location=100 * found.medians[tower],
                dimension="height",
                line_color=COLOURS[tower],
                line_width=2,
            )
        )
    chart.add_layout(
        Span(
            location=100 * NOISE,
            dimension="height",
            line_color="#888888",
            line_dash="dotted",
        )
    )
    chart.yaxis.visible = False
    return chart


def _curves(
    vertical: str,
    unit: str,
    runs: Sequence[Curves],
    of_training: Callable[[Row], float],
    of_test: Callable[[Row], float],
) -> "Figure":
    """Draw runs: training faint, evaluation with points.

    The page finds by a chart's tag the unit of its values, by a curve's name what to
    call it, and by its tags whether to show it.
    """
    from bokeh.models import CrosshairTool, DataRange1d

    chart = _figure(vertical, y_range=DataRange1d(start=0, only_visible=True))
    chart.tags = [unit]
    chart.add_tools(CrosshairTool(dimensions="height", line_color="#888888"))
    for place, run in enumerate(runs):
        for kind, what, rows, value, width, alpha in (
            ("evaluation", run.tested, run.evaluated, of_test, 2.5, 1.0),
            ("training", "training", run.trained, of_training, 1.5, 0.45),
        ):
            paint = {"color": colour(place), "tags": [f"run-{place}", kind]}
            line = chart.line(
                "epoch",
                "value",
                source={
                    "epoch": [round(row["epoch"], 4) for row in rows],
                    "value": [round(value(row), 5) for row in rows],
                },
                name=f"{run.name}, {what}",
                line_width=width,
                line_alpha=alpha,
                **paint,
            )
            if kind == "evaluation":
                chart.scatter(
                    "epoch", "value", source=line.data_source, size=7, **paint
                )
    return chart


def _figure(
    vertical: str, across: str = "epoch", height: int = 300, **ranges: Any
) -> "Figure":
    from bokeh.plotting import figure

    chart = figure(
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        x_axis_label=across,
        y_axis_label=vertical,
        outline_line_color=None,
        background_fill_alpha=0,
        border_fill_alpha=0,
        min_border_left=24,
        min_border_right=16,
        **ranges,
    )
    chart.ygrid.grid_line_width = 1
    chart.xgrid.visible = False
    for axis in (*chart.xaxis, *chart.yaxis):
        axis.axis_line_color = None
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font = axis.major_label_text_font = "system-ui"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
    return chart
