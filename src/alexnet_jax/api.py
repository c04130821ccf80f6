"""The library in a few lines: load a checkpoint, predict, evaluate."""

from collections.abc import Iterable
from pathlib import Path

from jax.sharding import Mesh

from alexnet_jax import checkpoint, data
from alexnet_jax import evaluate as evaluation
from alexnet_jax import predict as prediction
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.evaluate import Result
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network as find_network
from alexnet_jax.predict import Answer, Picture


class Classifier:
    """A trained network on its devices.

    Attributes:
        loaded: weights, preprocessing and what the checkpoint says about itself.
        mesh: the devices.
    """

    def __init__(self, loaded: Loaded, mesh: Mesh) -> None:
        """Wrap loaded weights; ``load`` does it in one call."""
        self.loaded = loaded
        self.mesh = mesh

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in label order."""
        return self.loaded.meta.classes

    def predict(
        self, pictures: Iterable[Picture], *, top: int = 5, views: int | None = None
    ) -> list[Answer]:
        """Name what pictures show; see ``predict.predict``.

        Args:
            pictures: paths, encoded files, or pixels ``u8[H, W, 3]``.
            top: classes an answer.
            views: 1 or 10; the checkpoint's default when None.
        """
        return list(
            prediction.predict(self.loaded, pictures, self.mesh, top=top, views=views)
        )

    def evaluate(
        self,
        spec: str,
        *,
        data_dir: str | None = None,
        split: str | None = None,
        views: int | None = None,
        batch_size: int = 128,
    ) -> Result:
        """Test on a data set, every image once; see ``evaluate.evaluate``.

        Args:
            spec: such as ``digits`` or ``folder:photos``.
            data_dir: that tfds's sets lie in.
            split: the set's default evaluation split when None.
            views: 1 or 10; the checkpoint's default when None.
            batch_size: images in one step.
        """
        source, _ = data.open_split(spec, split, directory=data_dir)
        *_, result = evaluation.evaluate(
            self.loaded, source, self.mesh, views=views, batch_size=batch_size
        )
        return result


def load(
    path: str | Path, *, devices: int | None = None, towers: int | None = None
) -> Classifier:
    """Load a checkpoint onto devices.

    Args:
        path: a run directory, a step inside one, or imported weights.
        devices: how many to use; all when None.
        towers: devices that one network is split over; see ``mesh.make_mesh``.

    Raises:
        CheckpointError: there is none, or it is damaged.
        ConfigError: devices that do not fit.
    """
    meta = checkpoint.read_meta(checkpoint.resolve(path))
    mesh = make_mesh(find_network(meta.network), devices=devices, towers=towers)
    return Classifier(checkpoint.load(path, mesh), mesh)
