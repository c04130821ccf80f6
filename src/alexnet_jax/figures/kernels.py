"""Figure 3 of the paper: the first layer's kernels, tower by tower."""

from pathlib import Path

import numpy as np

COLUMNS = 16  # as in the paper's figure


def sheet(kernel: np.ndarray, scale: float) -> np.ndarray:
    """Lay kernels out in lines, a white pixel apart.

    Args:
        kernel: ``f32[k, k, C, F]``.
        scale: the weight that is white; its negative is black, zero is grey.

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
        drawn[y : y + size, x : x + size] = 0.5 + 0.5 * kernel[..., index] / scale
    return drawn


def filters(kernel: np.ndarray, towers: int, out: Path, *, title: str) -> None:
    """Draw the first layer's kernels, one panel a tower.

    Contrast is one for the whole picture: the largest weight of all kernels is black
    or white, zero is grey, so strong kernels look strong.

    Args:
        kernel: ``f32[k, k, C, F]``, filters in tower order; C is 1 or 3.
        towers: 1 or 2.
        out: the picture, PNG.
        title: written above.
    """
    colours, count = kernel.shape[2:]
    own = count // towers
    columns = min(COLUMNS, own)
    lines = -(-own // columns)
    # Half a second, which only a run's end should pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(7, 0.5 + towers * (0.4 + 6.6 * lines / columns)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(towers, 1))
    scale = float(np.abs(kernel).max()) or 1.0
    for tower, axes in enumerate(panels):
        panel = sheet(kernel[..., tower * own : (tower + 1) * own], scale)
        axes.imshow(
            panel if colours == 3 else panel[..., 0],
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        axes.set_axis_off()
        if towers == 2:
            axes.set_title(f"tower {tower + 1}", fontsize=8, loc="left")
    figure.suptitle(f"{title}: the first layer's {count} kernels", fontsize=10)
    figure.savefig(out, dpi=120)
