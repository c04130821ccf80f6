"""Differences with their intervals, beside those that somebody else found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_OURS, _THEIRS, _ZERO = "#0b4f8a", "#c8571b", "#9db4c8"


@dataclass(frozen=True)
class Bar:
    """One difference, percentage points.

    Attributes:
        label: of what.
        what: it is a difference of, where that is not the test error.
        value: the difference.
        low, high: ends of its interval; None without one.
        paper: the paper's difference, None where it gives no number.
    """

    label: str
    what: str
    value: float
    low: float | None
    high: float | None
    paper: float | None


def differences(bars: Sequence[Bar], out: Path, *, title: str) -> None:
    """Draw differences, one below the other.

    Args:
        bars: from the top down.
        out: the picture, PNG.
        title: written above.
    """
    # Half a second, which only who draws should pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 1.6 + 0.42 * max(1, len(bars))
    figure = Figure(figsize=(7, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axvline(0, color=_ZERO, linewidth=1)
    for place, bar in enumerate(bars):
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [place] * 2, color=_OURS, linewidth=2)
        axes.plot([bar.value], [place], "o", color=_OURS, markersize=6)
        if bar.paper is not None:
            axes.plot(
                [bar.paper], [place], "D", color=_THEIRS, fillstyle="none", markersize=7
            )
    axes.plot([], [], "o-", color=_OURS, label="here, 95% interval")
    axes.plot([], [], "D", color=_THEIRS, fillstyle="none", label="the paper")
    labels = [f"{b.label}\n({b.what})" if b.what else b.label for b in bars]
    axes.set_yticks(range(len(bars)), [f"without {label}" for label in labels])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlabel("rise of the test error, or of what is named, percentage points")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, ncols=2, loc="outside lower right")
    figure.suptitle(title, fontsize=10)
    figure.savefig(out, dpi=120)
