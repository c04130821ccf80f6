"""Weights out: a checkpoint as a file that other programs read."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from alexnet_jax.checkpoint import Loaded
from alexnet_jax.errors import ConfigError
from alexnet_jax.networks import network as find_network
from alexnet_jax.weights import (
    arrays,
    caffe_net,
    description,
    layout,
    onnx_graph,
    stablehlo,
    torch,
)
from alexnet_jax.weights.identify import TORCHVISION
from alexnet_jax.weights.tensors import MEAN

FORMATS = ("safetensors", "torchvision", "caffemodel", "onnx", "stablehlo")


def export(loaded: Loaded, mesh: Mesh, format: str, out: str | Path) -> Path:
    """Write a checkpoint's network for others.

    All but ``stablehlo`` can be imported again and are then the same, bit for bit,
    with class names and preprocessing.

    Args:
        loaded: the checkpoint.
        mesh: that it lies on, of one device.
        format: one of ``FORMATS``.
        out: path of the new file.

    Returns:
        The path.

    Raises:
        ConfigError: the format is not known or cannot hold this network, or there is
            a file already.
    """
    out = Path(out).expanduser()
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: there are {', '.join(FORMATS)}")
    if out.exists():
        raise ConfigError(f"{out} exists and is not overwritten; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    try:
        _WRITERS[format](loaded, mesh, partial)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def _tensors(loaded: Loaded, bgr: bool = False) -> dict[str, np.ndarray]:
    """Return the weights as others lay them out, by ``LAYER.weight``."""
    table = find_network(loaded.meta.network)
    tensors = {}
    for slot, weight, bias in layout.weights(table, loaded.params, bgr=bgr):
        tensors[f"{slot.name}.{slot.part}"] = weight
        tensors[f"{slot.name}.bias"] = bias
    return tensors


def _safetensors(loaded: Loaded, mesh: Mesh, path: Path) -> None:
    described, mean = description.describe(loaded.meta, loaded.preprocess)
    tensors = _tensors(loaded)
    if mean is not None:
        tensors[MEAN] = mean
    arrays.write_safetensors(path, tensors, described)


def _torchvision(loaded: Loaded, mesh: Mesh, path: Path) -> None:
    name = loaded.meta.network
    if name != "owt":
        raise ConfigError(
            f"torchvision has the network owt only, not {name}; export it as "
            "safetensors or onnx"
        )
    described, mean = description.describe(loaded.meta, loaded.preprocess)
    renamed = (
        (f"{TORCHVISION[layer]}.{part}", array)
        for key, array in _tensors(loaded).items()
        for layer, _, part in [key.partition(".")]
    )
    torch.write(path, renamed, described, mean)


def _caffemodel(loaded: Loaded, mesh: Mesh, path: Path) -> None:
    _write(path, _built(loaded, caffe_net.build, bgr=True))


def _onnx(loaded: Loaded, mesh: Mesh, path: Path) -> None:
    _write(path, _built(loaded, onnx_graph.build))


def _built(
    loaded: Loaded, build: Callable[..., Iterable], bgr: bool = False
) -> Iterable[bytes]:
    described, mean = description.describe(loaded.meta, loaded.preprocess)
    if mean is None:
        mean = np.asarray(loaded.preprocess.mean)[0, 0]
    return build(
        find_network(loaded.meta.network),
        len(loaded.meta.classes),
        _tensors(loaded, bgr),
        mean=mean,
        scale=np.asarray(loaded.preprocess.scale),
        described=described,
    )


def _stablehlo(loaded: Loaded, mesh: Mesh, path: Path) -> None:
    path.write_bytes(stablehlo.serialize(loaded, mesh))


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with open(path, "wb") as file:
        for part in parts:
            file.write(part)


_WRITERS: dict[str, Callable[[Loaded, Mesh, Path], None]] = {
    "safetensors": _safetensors,
    "torchvision": _torchvision,
    "caffemodel": _caffemodel,
    "onnx": _onnx,
    "stablehlo": _stablehlo,
}
