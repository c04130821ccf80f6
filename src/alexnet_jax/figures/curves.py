"""Learning curves: error and loss by epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def learning_curves(rows: Sequence[dict[str, Any]], out: Path, *, title: str) -> None:
    """Draw the curves of a run.

    Args:
        rows: of ``metrics.jsonl``.
        out: the picture, PNG.
        title: written above.
    """
    trained = [row for row in rows if "loss" in row]
    tested = [row for row in rows if row["split"] == "eval"]
    # Half a second, which only a run's end should pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    errors, losses = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in trained]
    errors.plot(
        epochs,
        [100 * row["top1_error"] for row in trained],
        color="#9db4c8",
        linewidth=1,
        label="training (as it learned)",
    )
    errors.plot(
        [row["epoch"] for row in tested],
        [100 * row["top1_error"] for row in tested],
        color="#0b4f8a",
        marker="o",
        markersize=3,
        label="evaluation",
    )
    errors.set_ylabel("top-1 error (%)")
    losses.plot(
        epochs,
        [row["loss"] for row in trained],
        color="#9db4c8",
        linewidth=1,
        label="training (as it learned)",
    )
    losses.plot(
        [row["epoch"] for row in tested],
        [-row["log_prob"] for row in tested],
        color="#0b4f8a",
        marker="o",
        markersize=3,
        label="evaluation",
    )
    losses.set_ylabel("loss (nats)")
    for axes in (errors, losses):
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(out, dpi=120)
