"""What excites units: nine patches each, on one page a layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.figures import canvas

COLUMNS = 3  # units in a line, and patches in a line of a unit
_GAP, _LINE = 3, 34  # between patches; a line of text


@dataclass(frozen=True)
class Unit:
    """A unit and what excites it.

    Attributes:
        name: such as ``unit 17``.
        remark: written beside it.
        patches: ``u8[S, S, C]`` each, all of one size, best first, at most nine.
    """

    name: str
    remark: str
    patches: Sequence[np.ndarray]


def units(shown: Sequence[Unit], out: Path, *, title: str, caption: str) -> None:
    """Draw units, three in a line, their patches from the best at the upper left.

    Args:
        shown: at least one, whose patches are of one size.
        out: the picture, PNG or SVG.
        title: written above.
        caption: written under the title.
    """
    left, between = canvas.MARGIN, 30
    room = canvas.WIDTH - 2 * left
    block = (room - (COLUMNS - 1) * between) // COLUMNS
    place = (block - (COLUMNS - 1) * _GAP) // COLUMNS
    example, zoom = canvas.fitted(shown[0].patches[0], place)
    step = len(example) * zoom + _GAP
    wide = COLUMNS * step - _GAP
    tall = COLUMNS * step + _LINE + 22
    lines = -(-len(shown) // COLUMNS)
    page = canvas.Page(canvas.WIDTH, 124 + lines * tall)
    page.text(title, left, 28, size=canvas.LARGE, bold=True, room=room)
    page.text(caption, left, 70, size=canvas.SMALL, colour=canvas.FAINT, room=room)
    for number, unit in enumerate(shown):
        line, column = divmod(number, COLUMNS)
        x = left + column * (room - wide) // (COLUMNS - 1)
        y = 116 + line * tall
        page.text(unit.name, x, y, size=canvas.SMALL, bold=True, room=wide)
        page.text(
            unit.remark,
            x + wide,
            y,
            size=canvas.SMALL,
            colour=canvas.FAINT,
            room=wide * 2 // 3,
            align="right",
        )
        for place_number, patch in enumerate(unit.patches):
            row, at = divmod(place_number, COLUMNS)
            small, times = canvas.fitted(patch, place)
            page.picture(small, x + at * step, y + _LINE + row * step, times)
    page.save(out)
