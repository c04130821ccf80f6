"""Pictures as text, inside the page; small ones pixel by pixel."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

SMALL = 64  # pixels a side up to which a picture is kept as it is
LARGE = 160  # pixels a side to which a larger one is brought
PATCH = 48  # pixels a side of a patch among others, at most
COLUMNS = 16  # filters in a line
_QUALITY = 80

Pixels = UInt8[np.ndarray, "height width colours"]


def embed(pixels: Pixels) -> str:
    """Return a picture as an address of the kind ``data:``.

    Args:
        pixels: of 1 (grey) or 3 colours. Up to ``SMALL`` pixels a side nothing is
            lost; larger ones are scaled, and compressed as photographs are.
    """
    image = _image(pixels)
    if max(image.size) <= SMALL:
        return _address(image, True)
    image.thumbnail((LARGE, LARGE), Image.Resampling.LANCZOS)
    return _address(image, False)


def grid(
    pictures: Sequence[Pixels], columns: int
) -> UInt8[np.ndarray, "lines across 4"]:
    """Lay pictures out in lines, a clear pixel apart.

    Args:
        pictures: at least one, of one size.
        columns: in a line.

    Returns:
        ``u8[H, W, 4]``, the last of them opacity.
    """
    height, width = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    sheet = np.zeros((lines * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for number, picture in enumerate(pictures):
        line, column = divmod(number, columns)
        y, x = line * (height + 1), column * (width + 1)
        place = sheet[y : y + height, x : x + width]
        place[..., :3] = picture  # grey is the same in all three
        place[..., 3] = 255
    return sheet


def patches(pictures: Sequence[Pixels]) -> str:
    """Return up to nine patches as one picture, three in a line."""
    small = [_fitted(picture) for picture in pictures]
    sheet = grid(small, 3)
    return _address(Image.fromarray(sheet), len(pictures[0]) <= PATCH)


def filters(kernel: Float[np.ndarray, "k k colours filters"], towers: int) -> list[str]:
    """Return the first layer's filters as one picture a tower.

    Contrast is one for all, as in ``figures.filters``.
    """
    low, high = float(kernel.min()), float(kernel.max())
    span = high - low or 1.0
    shown = np.clip(np.rint((kernel - low) / span * 255), 0, 255).astype(np.uint8)
    return [
        _address(Image.fromarray(grid(list(np.moveaxis(own, -1, 0)), COLUMNS)), True)
        for own in np.split(shown, towers, axis=-1)
    ]


def _address(image: Image.Image, lossless: bool) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=lossless, quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _fitted(pixels: Pixels) -> UInt8[np.ndarray, "lines across colours"]:
    if len(pixels) <= PATCH:
        return pixels
    image = _image(pixels).resize((PATCH, PATCH), Image.Resampling.LANCZOS)
    small = np.asarray(image)
    return small.reshape(PATCH, PATCH, -1)


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
