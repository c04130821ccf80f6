"""The page that figures are drawn on: measured in pixels, from its upper left corner.

Pictures are shown pixel by pixel, without smoothing, each pixel the same whole number
of the page's. A page is about 1,000 pixels wide, which a phone shows at 40%, so text
is 22 pixels high or more.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_jax.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")

WIDTH = 1024
MARGIN = 32
SMALL, PLAIN, LARGE = 22, 25, 31  # height of text

INK, FAINT, LINE = "#1d2733", "#66727f", "#c9d1d9"
BLUE, ORANGE = "#0b4f8a", "#c8571b"
PALE, PALE_ORANGE = "#c3d3e2", "#f3c3a4"  # under letters

_DPI = 100


class Page:
    """A white page.

    Attributes:
        width, height: pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        """Take an empty page."""
        # Half a second, which only who draws should pay.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        self._canvas = FigureCanvasAgg(self._figure)

    def axes(self, x: int, y: int, width: int, height: int) -> "Axes":
        """Return axes that fill a part of the page, all in pixels."""
        bottom = self.height - y - height
        return self._figure.add_axes(
            (
                x / self.width,
                bottom / self.height,
                width / self.width,
                height / self.height,
            )
        )

    def picture(self, pixels: np.ndarray, x: int, y: int, zoom: int = 1) -> None:
        """Show a picture, each of its pixels ``zoom`` pixels wide.

        Args:
            pixels: ``u8[H, W, C]``, or floats from 0 to 1; C is 1 or 3.
            x: of its left edge.
            y: of its upper edge.
            zoom: at least 1.
        """
        axes = self.axes(x, y, pixels.shape[1] * zoom, pixels.shape[0] * zoom)
        axes.imshow(
            pixels if pixels.shape[-1] == 3 else pixels[..., 0],
            cmap="gray",
            vmin=0,
            vmax=255 if pixels.dtype == np.uint8 else 1,
            interpolation="nearest",
            aspect="auto",
        )
        axes.set_axis_off()

    def text(
        self,
        words: str,
        x: int,
        y: int,
        *,
        size: int = PLAIN,
        room: int | None = None,
        colour: str = INK,
        bold: bool = False,
        align: str = "left",
    ) -> None:
        """Write a line, its upper edge at ``y``.

        Args:
            words: no markup; what is too long for ``room`` ends in an ellipsis.
            x: of its left edge, its middle or its right edge; ``align`` says which.
            y: of its upper edge.
            size: pixels.
            room: pixels; all there is when None.
            colour: of the letters.
            bold: heavier.
            align: ``left``, ``center`` or ``right``.
        """
        drawn = self._figure.text(
            x / self.width,
            1 - y / self.height,
            words,
            fontsize=points(size),
            color=colour,
            weight="bold" if bold else "normal",
            horizontalalignment=align,
            verticalalignment="top",
            parse_math=False,
        )
        renderer = self._canvas.get_renderer()
        while room and words and drawn.get_window_extent(renderer).width > room:
            words = words[:-1]
            drawn.set_text(words.rstrip() + "…")

    def save(self, path: Path) -> None:
        """Write the page, whole or not at all.

        Args:
            path: see ``check_picture``.
        """
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.name}-"
        ) as folder:
            whole = Path(folder) / path.name
            self._figure.savefig(whole, dpi=_DPI)
            os.replace(whole, path)


def check_picture(path: Path, option: str = "--out") -> Path:
    """Return the path of a picture that can be written.

    Args:
        path: of the file.
        option: that it came with.

    Raises:
        ConfigError: it cannot; better known before the work than after it.
    """
    path = path.expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{option} {path}: pictures are written as {' or '.join(SUFFIXES)}; "
            "let the name end so"
        )
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; name a file")
    if not path.parent.is_dir():
        raise ConfigError(
            f"{option} {path}: the folder {path.parent} does not exist; make it first"
        )
    return path


def points(pixels: int) -> float:
    """Return a height of text in matplotlib's unit."""
    return pixels * 72 / _DPI


def fitted(pixels: np.ndarray, side: int) -> tuple[np.ndarray, int]:
    """Make a square picture fit a place on the page.

    Args:
        pixels: ``u8[S, S, C]``.
        side: of the place.

    Returns:
        The picture and how many times it is enlarged; one that is too large is scaled
        down with antialiasing.
    """
    if len(pixels) <= side:
        return pixels, side // len(pixels)
    from PIL import Image

    grey = pixels.shape[-1] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    small = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
    return small.reshape(side, side, -1), 1


def zoom_to(pixels: int, side: int) -> int:
    """Return how many times ``side`` fits into ``pixels``, at least 1."""
    return max(1, pixels // side)
