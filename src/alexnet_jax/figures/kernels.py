"""Figure 3 of the paper: the first layer's kernels, tower by tower, and their colour.

Claim C28 is that one tower's kernels are largely grey and the other's largely coloured,
on every run, whichever of the two it is. What is measured is each kernel's share of
chroma: of its energy, the sum of its squared weights, the part that is not alike in
red, green and blue.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from alexnet_jax.figures import canvas

COLUMNS = 16  # as in the paper's figure
NOISE = 2 / 3  # of three independent colours' energy, what is not their mean's
BINS = 20
_PLOT, _HEAD = 130, 36  # height of a tower's bars and of a line of text, pixels


@dataclass(frozen=True)
class Chroma:
    """How coloured the kernels are.

    Attributes:
        shares: of each tower, its kernels' shares of chroma, 0 to 1.
        medians: of each tower.
        coloured: the tower with more colour, 1 or 2; None if there is one tower.
        separation: of all pairs of a kernel of that tower and one of the other, in how
            many the first has the larger share: 0.5 where the towers are alike, 1
            where they share nothing; None if there is one tower.
    """

    shares: tuple[tuple[float, ...], ...]
    medians: tuple[float, ...]
    coloured: int | None = None
    separation: float | None = None


def chroma(kernel: Float[np.ndarray, "k k colours filters"], towers: int) -> Chroma:
    """Measure the first layer's colour.

    Args:
        kernel: filters in tower order, C is 1 (then no kernel has any) or 3.
        towers: 1 or 2.
    """
    wide = kernel.astype(np.float64)
    energy = (wide**2).sum((0, 1, 2))
    coloured = ((wide - wide.mean(2, keepdims=True)) ** 2).sum((0, 1, 2))
    shares = np.divide(coloured, energy, out=np.zeros_like(energy), where=energy > 0)
    own = np.split(shares, towers)
    coloured = separation = None
    if towers == 2:
        one, other = own[0][:, None], own[1][None]
        wins = float(np.mean((one > other) + 0.5 * (one == other)))
        coloured, separation = (1, wins) if wins > 0.5 else (2, 1 - wins)
    return Chroma(
        shares=tuple(tuple(map(float, tower)) for tower in own),
        medians=tuple(float(np.median(tower)) for tower in own),
        coloured=coloured,
        separation=separation,
    )


def sheet(kernel: np.ndarray, low: float, high: float) -> np.ndarray:
    """Lay kernels out in lines, a white pixel apart.

    Args:
        kernel: ``f32[k, k, C, F]``.
        low: the weight that is black.
        high: the weight that is white.

    Returns:
        ``f64[H, W, C]``, 0 to 1.
    """
    size, _, colours, count = kernel.shape
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    drawn = np.ones((lines * (size + 1) - 1, columns * (size + 1) - 1, colours))
    for index in range(count):
        row, column = divmod(index, columns)
        y, x = row * (size + 1), column * (size + 1)
        shown = (kernel[..., index] - low) / (high - low)
        drawn[y : y + size, x : x + size] = shown
    return drawn


def filters(kernel: np.ndarray, towers: int, out: Path, *, title: str) -> Chroma:
    """Draw the first layer's kernels, one panel a tower, and how coloured they are.

    Contrast is one for the whole picture, as in the 2012 code (``shownet.py``): the
    smallest weight of all kernels is black and the largest white, so strong kernels
    look strong.

    Args:
        kernel: ``f32[k, k, C, F]``, filters in tower order; C is 1 or 3.
        towers: 1 or 2.
        out: the picture, PNG or SVG.
        title: written above.

    Returns:
        What is drawn below the kernels; a network that sees grey has nothing there.
    """
    size, _, colours, count = kernel.shape
    found = chroma(kernel, towers)
    low, high = float(kernel.min()), float(kernel.max())
    if low == high:
        low, high = low - 1, high + 1  # grey
    panels = [sheet(own, low, high) for own in np.split(kernel, towers, axis=-1)]
    height, width = panels[0].shape[:2]
    zoom = canvas.zoom_to(canvas.WIDTH - 2 * canvas.MARGIN, width)
    left = canvas.MARGIN
    label = 36 if towers == 2 else 0
    below = 110 + _HEAD * (towers - 1) + towers * _PLOT if colours == 3 else 0
    page = canvas.Page(
        max(canvas.WIDTH - 100, width * zoom + 2 * left),
        110 + towers * (label + height * zoom + 24) + below,
    )
    room = page.width - 2 * left
    page.text(title, left, 28, size=canvas.LARGE, bold=True, room=room)
    page.text(
        f"the first layer's {count} kernels of {size}×{size}; black {low:+.2g}, "
        f"white {high:+.2g}",
        left,
        70,
        size=canvas.SMALL,
        colour=canvas.FAINT,
        room=room,
    )
    y = 110
    for tower, panel in enumerate(panels):
        if towers == 2:
            page.text(f"tower {tower + 1}", left, y, bold=True)
        page.picture(panel, left, y + label, zoom)
        y += label + height * zoom + 24
    if colours == 3:
        _draw_chroma(page, found, y)
    page.save(out)
    return found


def _draw_chroma(page: canvas.Page, found: Chroma, top: int) -> None:
    """Draw each tower's kernels by their share of chroma, one above the other."""
    left, room = canvas.MARGIN, page.width - 2 * canvas.MARGIN
    page.text("kernels by the share of colour in their energy", left, top, room=room)
    top += _HEAD
    if found.separation is not None:
        page.text(
            f"tower {found.coloured}'s kernel has the larger share in "
            f"{found.separation:.0%} of all pairs",
            left,
            top,
            size=canvas.SMALL,
            colour=canvas.FAINT,
            room=room,
        )
        top += _HEAD
    axes = page.axes(left, top, room, len(found.shares) * _PLOT)
    edges = np.linspace(0, 1, BINS + 1)
    counts = [np.histogram(own, edges)[0] for own in found.shares]
    tallest = max(int(own.max()) for own in counts)
    small = canvas.points(canvas.SMALL)
    for tower, (own, median) in enumerate(zip(counts, found.medians, strict=True)):
        sign = 1 if tower == 0 else -1  # the second tower's hang below the line
        colour = (canvas.BLUE, canvas.ORANGE)[tower]
        middles = edges[:-1] + 0.5 / BINS
        axes.bar(middles, sign * own, 0.9 / BINS, color=colour, linewidth=0)
        tip = sign * 1.4 * tallest
        axes.plot([median] * 2, [0, tip], color=colour, linewidth=1.5)
        name = f"tower {tower + 1}: " if len(counts) == 2 else ""
        axes.text(
            *(median + (0.01 if median < 0.5 else -0.01), tip),
            f"{name}median {median:.0%}",
            color=colour,
            fontsize=small,
            horizontalalignment="left" if median < 0.5 else "right",
            verticalalignment="top" if sign > 0 else "bottom",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    ends = (0 if len(counts) == 1 else -1.4 * tallest, 1.4 * tallest)
    axes.plot([NOISE] * 2, ends, color=canvas.FAINT, linewidth=1, linestyle=":")
    axes.axhline(0, color=canvas.INK, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(*ends)
    axes.set_yticks([])
    axes.set_xticks(
        [0, 0.25, 0.5, NOISE, 1], ["grey", "25%", "50%", "noise 67%", "100%"]
    )
    axes.tick_params(labelsize=small, length=0, colors=canvas.FAINT)
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.spines[:].set_visible(False)
