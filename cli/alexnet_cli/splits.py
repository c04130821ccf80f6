"""The split that a verb reads: what the user asked for, or the run's own."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alexnet_cli import options

if TYPE_CHECKING:
    from alexnet_jax.checkpoint import Meta
    from alexnet_jax.data import Role, Source


class Chosen(NamedTuple):
    """A split.

    Attributes:
        spec: of its data set.
        source: the split.
        role: what results on it may be used for.
    """

    spec: str
    source: "Source"
    role: "Role"


def choose(
    path: Path,
    meta: "Meta",
    data: str | None,
    data_dir: Path | None,
    split: str | None,
    *,
    training: bool = False,
) -> Chosen:
    """Open the data that was asked for, or a run's own.

    Args:
        path: of the checkpoint.
        meta: what it says about itself.
        data: as the user gave it.
        data_dir: likewise.
        split: likewise.
        training: whether the split is, by default, the one that the run trained on.

    Raises:
        ConfigError: none is known.
        DataError: it cannot be read.
    """
    from alexnet_jax import data as sources
    from alexnet_jax.config import DataConfig
    from alexnet_jax.errors import ConfigError

    own = DataConfig.model_validate(meta.recipe["data"]) if meta.recipe else None
    if data is not None:
        spec = options.absolute(data)
    elif own is not None:
        spec = own.spec
    else:
        raise ConfigError(f"{path} has no recipe, so no data of its own; give --data")
    if own is None or own.spec != spec:
        own = DataConfig(spec=spec, image_size=meta.image_size)
    directory = str(data_dir.expanduser()) if data_dir else own.dir
    default = (own.train_split or "train") if training else own.eval_split
    source, role = sources.open_split(spec, split or default, directory=directory)
    return Chosen(spec, source, role)
