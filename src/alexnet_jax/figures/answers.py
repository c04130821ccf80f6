"""Figure 4 of the paper: what pictures are taken for, and which are like them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.figures import canvas

PANELS = 3  # predictions in a line
NEIGHBORS = 3  # neighbours in a line
_BETWEEN, _LINE, _BAR = 36, 36, 36


@dataclass(frozen=True)
class Predicted:
    """A picture and what it is taken for.

    Attributes:
        name: of its file.
        pixels: ``u8[S, S, C]``, what the network sees.
        shares: labels and probabilities, best first.
        truth: its true label where that is known.
    """

    name: str
    pixels: np.ndarray
    shares: Sequence[tuple[str, float]]
    truth: str | None = None


@dataclass(frozen=True)
class Shown:
    """A picture among its like.

    Attributes:
        pixels: ``u8[S, S, C]``, what the network sees.
        label: its true class; empty where that is not known.
        remark: written below that.
    """

    pixels: np.ndarray
    label: str
    remark: str


def predictions(shown: Sequence[Predicted], out: Path, *, title: str) -> None:
    """Draw pictures, each with its true label and a bar a guess.

    Args:
        shown: at least one.
        out: the picture, PNG or SVG.
        title: written above.
    """
    left = canvas.MARGIN
    side = (canvas.WIDTH - 2 * left - (PANELS - 1) * _BETWEEN) // PANELS
    columns = min(PANELS, len(shown))
    lines = -(-len(shown) // PANELS)
    bars = max(len(panel.shares) for panel in shown)
    tall = side + _LINE + 8 + bars * _BAR + 36
    page = canvas.Page(
        2 * left + columns * side + (columns - 1) * _BETWEEN, 80 + lines * tall
    )
    page.text(
        *(title, left, 28), size=canvas.LARGE, bold=True, room=page.width - 2 * left
    )
    for number, panel in enumerate(shown):
        line, column = divmod(number, PANELS)
        x, y = left + column * (side + _BETWEEN), 84 + line * tall
        small, zoom = canvas.fitted(panel.pixels, side)
        page.picture(small, x, y, zoom)
        y += len(small) * zoom + 8
        if panel.truth is None:
            page.text(panel.name, x, y, room=side, colour=canvas.FAINT)
        else:
            page.text(panel.truth, x, y, bold=True, room=side)
        _bars(page, panel, x, y + _LINE, side)
    page.save(out)


def _bars(page: canvas.Page, panel: Predicted, x: int, y: int, width: int) -> None:
    """Draw a bar a guess, its label on it; the true one's in another colour."""
    axes = page.axes(x, y, width, len(panel.shares) * _BAR)
    axes.barh(
        range(len(panel.shares)),
        [share for _, share in panel.shares],
        0.86,
        color=[
            canvas.PALE_ORANGE if label == panel.truth else canvas.PALE
            for label, _ in panel.shares
        ],
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(len(panel.shares) - 0.5, -0.5)
    axes.set_axis_off()
    axes.axvline(0, color=canvas.INK, linewidth=2)
    for number, (label, share) in enumerate(panel.shares):
        top = y + number * _BAR + 7
        page.text(label, x + 10, top, size=canvas.SMALL, room=width - 86)
        page.text(f"{share:.1%}", x + width - 6, top, size=canvas.SMALL, align="right")


def neighbors(
    queries: Sequence[tuple[Shown, Sequence[Shown]]],
    out: Path,
    *,
    title: str,
    caption: str,
) -> None:
    """Draw each query, large, and beside it the pictures like it, the nearest first.

    Args:
        queries: each with its neighbours; a label unlike the query's has a colour.
        out: the picture, PNG or SVG.
        title: written above.
        caption: written under the title.
    """
    left, gap = canvas.MARGIN, 14
    room = canvas.WIDTH - 2 * left
    place = (room - _BETWEEN - NEIGHBORS * gap) // (NEIGHBORS + 2)
    tall = place + 2 * 28 + 16
    heights = [max(2, -(-len(found) // NEIGHBORS)) * tall + 26 for _, found in queries]
    page = canvas.Page(canvas.WIDTH, 120 + sum(heights))
    page.text(title, left, 28, size=canvas.LARGE, bold=True, room=room)
    page.text(caption, left, 70, size=canvas.SMALL, colour=canvas.FAINT, room=room)
    y = 120
    for (query, found), height in zip(queries, heights, strict=True):
        wide = 2 * place + gap
        _picture(page, query, left, y, wide, canvas.INK)
        for number, neighbor in enumerate(found):
            line, column = divmod(number, NEIGHBORS)
            strange = query.label and neighbor.label != query.label
            _picture(
                page,
                neighbor,
                left + wide + _BETWEEN + column * (place + gap),
                y + line * tall,
                place,
                canvas.ORANGE if strange else canvas.INK,
            )
        y += height
    page.save(out)


def _picture(
    page: canvas.Page, shown: Shown, x: int, y: int, side: int, colour: str
) -> None:
    small, zoom = canvas.fitted(shown.pixels, side)
    page.picture(small, x, y, zoom)
    y += len(small) * zoom + 6
    if shown.label:
        page.text(
            shown.label, x, y, size=canvas.SMALL, bold=True, room=side, colour=colour
        )
        y += 28
    page.text(shown.remark, x, y, size=canvas.SMALL, room=side, colour=canvas.FAINT)
