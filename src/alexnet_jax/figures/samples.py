"""A few pictures of the evaluation split as files, to try ``predict`` on."""

import re
from pathlib import Path

from PIL import Image

from alexnet_jax.data.records import Source

COUNT = 10
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png"}


def write_samples(source: Source, folder: Path) -> tuple[Path, ...]:
    """Write evenly spaced pictures of a split, as they are stored.

    Args:
        source: the split, not decoded.
        folder: made if need be; files are named by number and class.

    Returns:
        The files, in order.
    """
    folder.mkdir(exist_ok=True)
    count = min(COUNT, len(source))
    written = []
    for number in range(count):
        record = source[number * len(source) // count]
        label = re.sub(r"\W+", "-", source.classes[record.label]).strip("-")
        path = folder / f"{number:02d}-{label}"
        if isinstance(record.image, bytes):
            path = path.with_name(path.name + _SUFFIXES.get(record.image[:2], ".img"))
            path.write_bytes(record.image)
        else:
            path = path.with_name(path.name + ".png")
            pixels = record.image
            Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
                path
            )
        written.append(path)
    return tuple(written)
