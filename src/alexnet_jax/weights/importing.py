"""Weights in: a file that others made becomes a checkpoint of ours, whole.

Layout, colour order, preprocessing and class names go into the checkpoint, so that
``predict`` and ``eval`` need no further word about them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax import checkpoint
from alexnet_jax.augment import Preprocess
from alexnet_jax.checkpoint import Meta
from alexnet_jax.classes import imagenet
from alexnet_jax.config import Resize
from alexnet_jax.errors import ConfigError, WeightsError
from alexnet_jax.networks import network as find_network
from alexnet_jax.table import Network
from alexnet_jax.weights import caffe, description, files, layout
from alexnet_jax.weights.files import Fingerprint
from alexnet_jax.weights.identify import Found, identify
from alexnet_jax.weights.tensors import MEAN, WeightFile, times

FORMATS = {
    "caffemodel": "Caffe",
    "torch": "PyTorch",
    "onnx": "ONNX",
    "safetensors": "safetensors",
    "npz": "NumPy npz",
}

# The mean of ImageNet's training pictures as Caffe's imagenet_mean.binaryproto has it
# (BVLC/caffe, src/caffe/proto and models/bvlc_googlenet/train_val.prototxt round it).
CAFFE_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)

# torchvision, ImageClassification presets: on pictures divided by 255.
TORCH_MEAN = (0.485, 0.456, 0.406)
TORCH_DEVIATION = (0.229, 0.224, 0.225)

IMAGENET_SIZE = 256
"""Side that pictures are brought to for a network of 224 or 227 pixels."""


@dataclass(frozen=True)
class Imported:
    """A file of weights, read and understood.

    Attributes:
        path: of the file.
        format: key of ``FORMATS``.
        fingerprint: its hashes, and whether it is a public file that we know.
        tensors: how many were read.
        params: see ``model.Params``.
        preprocess: mean image, colour components, scale.
        meta: what the checkpoint will say about itself.
        mean_from: where the mean came from, in words.
        notes: what the user should know.
    """

    path: Path
    format: str
    fingerprint: Fingerprint
    tensors: int
    params: dict[str, dict[str, np.ndarray]]
    preprocess: Preprocess
    meta: Meta
    mean_from: str
    notes: tuple[str, ...]


def read(
    path: str | Path,
    *,
    network: str | None = None,
    mean: str | Path | None = None,
    classes: list[str] | None = None,
) -> Imported:
    """Read a file of weights.

    Args:
        path: of a Caffe, PyTorch, ONNX, safetensors or npz file.
        network: name of the table, where the file does not tell.
        mean: a ``.binaryproto`` or ``.npy`` file of the mean image or of the mean
            of each channel, in place of what the file or its kind says.
        classes: names in label order, in place of the file's own or ImageNet's.

    Raises:
        WeightsError: the file is not a file of weights, damaged, or of no network
            here; the message names the tensor and both shapes.
        ConfigError: ``network``, ``mean`` or ``classes`` cannot be.
    """
    path = Path(path).expanduser()
    file = files.read(path)
    described = None
    if file.described is not None:
        described = description.parse(file.described, path)
        network = network or described.network
    if network is not None:
        find_network(network)
    table, found = identify(file, network)
    caffe_like = table.name in ("caffe", "caffenet")
    bgr = file.format == "caffemodel" or (
        file.format == "onnx" and caffe_like and described is None
    )
    count = found[-1].slot.bias[0]
    if classes is None:
        classes = described.classes if described else _class_names(count, path)
    if len(classes) != count:
        raise ConfigError(
            f"{len(classes)} class names for the {count} classes of {path}; give one "
            "a line, in order"
        )
    notes = []
    if bgr and file.format == "onnx":
        notes.append("the first layer is taken to read blue, green, red, as Caffe's")
    if file.crop and file.crop != table.input_size:
        notes.append(
            f"trained on crops of {file.crop} pixels; {table.name} reads "
            f"{table.input_size}"
        )
    preprocess, resize, mean_from = _preprocess(file, table, described, mean, bgr)
    print_ = files.fingerprint(path)
    side = preprocess.mean.shape[0]
    meta = Meta(
        network=table.name,
        classes=list(classes),
        image_size=side,
        views=described.views
        if described
        else [1, 10]
        if side > table.input_size
        else [1],
        precision=described.precision if described else "f32",
        resize=resize,
        origin={
            "file": path.name,
            "format": file.format,
            "sha256": print_.sha256,
            "known": print_.known,
        },
    )
    return Imported(
        path=path,
        format=file.format,
        fingerprint=print_,
        tensors=2 * len(found),
        params=_params(path, found, bgr),
        preprocess=preprocess,
        meta=meta,
        mean_from=mean_from,
        notes=tuple(notes),
    )


def write(imported: Imported, out: str | Path) -> Path:
    """Write what was read as a directory of weights; see ``checkpoint.write``."""
    return checkpoint.write(out, imported.params, imported.preprocess, imported.meta)


def _params(
    path: Path, found: list[Found], bgr: bool
) -> dict[str, dict[str, np.ndarray]]:
    params = {}
    for layer in found:
        slot, name = layer.slot, f"{path}: {layer.name}"
        if layer.native:
            kernel = layout.finite(name, layer.weight.load())
        else:
            kernel = layout.read_kernel(slot, name, layer.weight, bgr=bgr)
        bias = layout.finite(f"{path}: the bias of {slot.name}", layer.bias.load())
        params[slot.name] = {"kernel": kernel, "bias": bias}
    return params


def _class_names(count: int, path: Path) -> list[str]:
    if count == 1000:  # their order is that of the WordNet ids in every such file
        return [known.wordnet_id for known in imagenet()]
    raise WeightsError(
        f"{path} has {count} classes and does not name them; give a file with one name "
        "a line, in order, with --labels"
    )


def _preprocess(
    file: WeightFile,
    table: Network,
    described: description.Description | None,
    mean_file: str | Path | None,
    bgr: bool,
) -> tuple[Preprocess, Resize, str]:
    """Return mean, components and scale, how pictures are resized, and the reason."""
    large = table.input_size in (224, 227)
    side = IMAGENET_SIZE if large else table.input_size
    resize: Resize = "crop"
    colours = table.channels
    scale = np.ones(colours, np.float32)
    components = np.zeros((colours, colours), np.float32)
    mean = None
    why = ""
    if described is not None:
        side, resize = described.image_size, described.resize
        scale = np.asarray(described.scale, np.float32)
        components = np.asarray(described.components, np.float32)
        why = "written in the file"
        if described.mean is not None:
            mean = np.asarray(described.mean, np.float32)
        elif MEAN in file.tensors:
            mean = file.tensors[MEAN].load()
    elif file.format == "caffemodel" or table.name in ("caffe", "caffenet"):
        resize = "stretch"
        scale *= file.scale
        if file.mean:
            mean, why = np.asarray(file.mean, np.float32), "written in the file"
        else:
            mean, why = np.asarray(CAFFE_MEAN_BGR, np.float32), "Caffe's for ImageNet"
        if bgr:
            mean = mean[::-1]
    elif table.name == "owt":
        mean = 255 * np.asarray(TORCH_MEAN, np.float32)
        scale = 1 / (255 * np.asarray(TORCH_DEVIATION, np.float32))
        why = "torchvision's for ImageNet"
    if mean_file is not None:
        mean, why = _read_mean(Path(mean_file).expanduser(), bgr), str(mean_file)
    if mean is None:
        raise WeightsError(
            f"{file.path} says nothing of the mean image that {table.name} subtracts; "
            "give it with --mean FILE (.binaryproto or .npy)"
        )
    if mean.ndim == 1:
        mean = np.broadcast_to(mean, (side, side, len(mean)))
    side = mean.shape[0]
    right = mean.ndim == 3 and mean.shape == (side, side, colours)
    if not right or side < table.input_size:
        raise WeightsError(
            f"the mean image ({why}) is {times(mean.shape)}; {table.name} wants a "
            f"square of at least {table.input_size} pixels and {colours} channels"
        )
    if scale.shape != (colours,) or components.shape != (colours, colours):
        raise WeightsError(
            f"{file.path}: what alexnet-jax wrote about its network is damaged (scale "
            f"{times(scale.shape)}, components {times(components.shape)})"
        )
    mean = layout.finite(
        f"{file.path}: the mean image ({why})", np.ascontiguousarray(mean)
    )
    return Preprocess(mean, components, scale), resize, why


def _read_mean(path: Path, bgr: bool) -> np.ndarray:
    """Read a mean image as ``f32[H, W, C]`` or a value a channel, RGB.

    A ``.binaryproto`` and an array of ``[C, H, W]`` or ``[C]`` have the order of the
    file of weights: blue first for Caffe. An array of ``[H, W, C]`` is RGB.
    """
    files.check(path)
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic == b"\x93NUMPY":
        try:
            mean = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise WeightsError(f"--mean {path} cannot be read: {error}") from None
    else:
        mean = caffe.read_mean(path)
    if mean is None or mean.dtype.kind not in "fiu" or mean.ndim not in (1, 3):
        raise WeightsError(
            f"--mean {path} is no mean image; give Caffe's .binaryproto or a .npy "
            "array of [C, H, W], [H, W, C] or [C]"
        )
    mean = mean.astype(np.float32)
    if mean.ndim == 3 and mean.shape[-1] in (1, 3):
        return mean
    if bgr:
        mean = mean[::-1]
    return mean if mean.ndim == 1 else np.ascontiguousarray(mean.transpose(1, 2, 0))


def summary(imported: Imported) -> dict[str, object]:
    """Return what was found as plain JSON, hashes and checkpoint record included."""
    meta = imported.meta
    return {
        "file": str(imported.path),
        "format": imported.format,
        **imported.fingerprint._asdict(),
        "network": meta.network,
        "tensors": imported.tensors,
        "parameters": sum(
            array.size for layer in imported.params.values() for array in layer.values()
        ),
        "classes": len(meta.classes),
        "image_size": meta.image_size,
        "resize": meta.resize,
        "views": meta.views,
        "mean": np.asarray(imported.preprocess.mean).mean((0, 1), np.float64).tolist(),
        "mean_from": imported.mean_from,
        "scale": np.asarray(imported.preprocess.scale).tolist(),
        "notes": list(imported.notes),
    }
