"""What weights alone do not say, written beside them so that they come back whole."""

from typing import Literal

import numpy as np
from pydantic import ValidationError

from alexnet_jax.augment import Preprocess
from alexnet_jax.checkpoint import Meta
from alexnet_jax.config import Config
from alexnet_jax.errors import WeightsError


class Description(Config):
    """A checkpoint without its weights, as exports carry it in JSON.

    Attributes:
        network: name of the table.
        classes: names of the classes, in label order.
        image_size: side in pixels that pictures are brought to before the crop.
        resize: how, see ``checkpoint.Meta``.
        views: numbers of views that the data allows, the default first.
        precision: ``f32`` or ``bf16``.
        mean: one value a channel, RGB, 0 to 255; None where it is an image, which is
            then a tensor of its own.
        scale: what the picture less its mean is multiplied by, a value a channel.
        components: see ``augment.Preprocess``.
    """

    network: str
    classes: list[str]
    image_size: int
    resize: Literal["crop", "stretch"]
    views: list[int]
    precision: str
    mean: list[float] | None
    scale: list[float]
    components: list[list[float]]


def describe(meta: Meta, preprocess: Preprocess) -> tuple[str, np.ndarray | None]:
    """Return a checkpoint's description as JSON, and its mean where it is an image."""
    image = np.asarray(preprocess.mean)
    flat = bool((image == image[:1, :1]).all())
    record = Description(
        network=meta.network,
        classes=meta.classes,
        image_size=meta.image_size,
        resize=meta.resize,
        views=meta.views,
        precision=meta.precision,
        mean=image[0, 0].tolist() if flat else None,
        scale=np.asarray(preprocess.scale).tolist(),
        components=np.asarray(preprocess.components).tolist(),
    )
    return record.model_dump_json(), None if flat else image


def parse(text: bytes, path: object) -> Description:
    """Read a description.

    Raises:
        WeightsError: it is not one of ours.
    """
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "its JSON"
        raise WeightsError(
            f"{path}: what alexnet-jax wrote about its network is damaged ({where}: "
            f"{problem['msg']}); export it again"
        ) from None
