"""Training error by epoch of several runs, as the paper's Figure 1 draws it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_jax.figures import canvas


@dataclass(frozen=True)
class Line:
    """A run's line.

    Attributes:
        label: in the legend; nothing there when empty.
        errors: of each whole epoch, 0 to 1.
        dashed: else solid.
    """

    label: str
    errors: Sequence[float]
    dashed: bool = False


def error_by_epoch(
    lines: Sequence[Line], out: Path, *, target: float, title: str
) -> None:
    """Draw the lines, and a level one at the error that they are to reach.

    Args:
        lines: at least one.
        out: the picture, PNG or SVG.
        target: the error, 0 to 1.
        title: written above.
    """
    page = canvas.Page(canvas.WIDTH, 720)
    left = canvas.MARGIN
    page.text(
        *(title, left, 28), size=canvas.LARGE, bold=True, room=page.width - 2 * left
    )
    axes = page.axes(left + 80, 96, page.width - 2 * left - 80, 520)
    axes.axhline(100 * target, color=canvas.FAINT, linewidth=1)
    for line in lines:
        axes.plot(
            range(1, len(line.errors) + 1),
            [100 * error for error in line.errors],
            linestyle="dashed" if line.dashed else "solid",
            color=canvas.ORANGE if line.dashed else canvas.BLUE,
            linewidth=2,
            label=line.label or None,
        )
    size = canvas.points(canvas.SMALL)
    axes.set_xlabel("epochs", fontsize=size)
    axes.set_ylabel("training error (%)", fontsize=size)
    axes.tick_params(labelsize=size)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=size)
    page.save(out)
