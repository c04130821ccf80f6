"""The tests' own writers and reader of others' files: nothing here is the library's.

Small networks with the published ones' rows, files as Caffe and PyTorch write them,
and the forward pass in numpy, in their layout.
"""

import io
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np

# Filters and units of one tower in the small networks, by row.
SMALL = {"conv1": 4, "conv2": 4, "conv3": 6, "conv4": 6, "conv5": 4, "fc6": 8, "fc7": 6}


def small(table, classes=5):
    """Return a table with few filters; its rows, constants and name stay."""
    rows = tuple(
        replace(row, features=SMALL[row.name]) if row.name in SMALL else row
        for row in table.rows
    )
    return replace(table, rows=rows, classes=classes)


def draw(shapes, seed=0):
    """Draw arrays: ``{layer: (weight, bias)}`` in the others' layout."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            (2 / np.prod(shape[1:]) ** 0.5 * rng.normal(size=shape)).astype("f4"),
            rng.normal(size=shape[0]).astype("f4"),
        )
        for name, shape in shapes.items()
    }


CAFFE = {
    "conv1": (8, 3, 11, 11),
    "conv2": (8, 4, 5, 5),
    "conv3": (12, 8, 3, 3),
    "conv4": (12, 6, 3, 3),
    "conv5": (8, 6, 3, 3),
    "fc6": (16, 8 * 6 * 6),
    "fc7": (12, 16),
    "fc8": (5, 12),
}
OWT = {
    "features.0": (4, 3, 11, 11),
    "features.3": (4, 4, 5, 5),
    "features.6": (6, 4, 3, 3),
    "features.8": (6, 6, 3, 3),
    "features.10": (4, 6, 3, 3),
    "classifier.1": (8, 4 * 6 * 6),
    "classifier.4": (6, 8),
    "classifier.6": (5, 6),
}


def conv(x, weight, bias, stride=1, pad=0, groups=1):
    """Convolve ``[B, C, H, W]``, floor rule."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    parts = [
        np.einsum("bchwyx,ocyx->bohw", part, own)
        for part, own in zip(
            np.split(windows, groups, 1), np.split(weight, groups), strict=True
        )
    ]
    return np.concatenate(parts, 1) + bias[:, None, None]


def pool(x):
    """Take the largest of 3 x 3, two apart."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    return windows[:, :, ::2, ::2].max((-1, -2))


def norm(x, k=1.0, alpha=1e-4, size=5):
    """Normalise over five neighbouring maps of all."""
    padded = np.pad(x**2, ((0, 0), (2, 2), (0, 0), (0, 0)))
    total = sum(padded[:, i : i + x.shape[1]] for i in range(size))
    return x / (k + alpha / size * total) ** 0.75


def relu(x):
    return np.maximum(x, 0)


def caffe_logits(images, weights, pool_first=False):
    """Run bvlc_alexnet, or the reference CaffeNet, on ``f32[B, 3, 227, 227]`` BGR."""
    layer = (lambda x: norm(pool(x))) if pool_first else (lambda x: pool(norm(x)))
    x = layer(relu(conv(images, *weights["conv1"], stride=4)))
    x = layer(relu(conv(x, *weights["conv2"], pad=2, groups=2)))
    x = relu(conv(x, *weights["conv3"], pad=1))
    x = relu(conv(x, *weights["conv4"], pad=1, groups=2))
    x = pool(relu(conv(x, *weights["conv5"], pad=1, groups=2)))
    return _dense(x, [weights[name] for name in ("fc6", "fc7", "fc8")])


def owt_logits(images, weights):
    """Run torchvision's alexnet on ``f32[B, 3, 224, 224]``, normalised RGB."""
    x = pool(relu(conv(images, *weights["features.0"], stride=4, pad=2)))
    x = pool(relu(conv(x, *weights["features.3"], pad=2)))
    for place in (6, 8, 10):
        x = relu(conv(x, *weights[f"features.{place}"], pad=1))
    return _dense(pool(x), [weights[f"classifier.{place}"] for place in (1, 4, 6)])


def _dense(x, layers):
    x = x.reshape(len(x), -1)
    for place, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        x = relu(x) if place < 2 else x
    return x


def varint(value):
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def message(number, *parts):
    raw = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def number(field, value):
    if isinstance(value, float):
        return varint(field << 3 | 5) + struct.pack("<f", value)
    return varint(field << 3) + varint(value)


def caffemodel(weights, *, old=False, pool_first=False, transform=b""):
    """Write a caffemodel as Caffe does; ``old`` with V1 layers and 4-axis blobs."""
    kinds = {"Data": 5, "Convolution": 4, "ReLU": 18, "LRN": 15, "Pooling": 17}
    kinds |= {"InnerProduct": 14, "Dropout": 6, "Softmax": 20}

    def blob(array):
        data = message(5, array.tobytes())
        if old:
            shape = (1,) * (4 - array.ndim) + array.shape
            return b"".join(number(i, n) for i, n in enumerate(shape, 1)) + data
        return data + message(7, message(1, b"".join(map(varint, array.shape))))

    def layer(name, kind, constants=b"", field=(0, 0)):
        blobs = [blob(array) for array in weights.get(name, ())]
        constants = message(field[old], constants) if constants else b""
        if old:
            parts = [message(4, name), number(5, kinds[kind])]
            return message(2, *parts, *(message(6, b) for b in blobs), constants)
        parts = [message(1, name), message(2, kind)]
        return message(100, *parts, *(message(7, b) for b in blobs), constants)

    def convolution(name, pad=0, stride=1, groups=1):
        constants = number(1, len(weights[name][1])) if name in weights else b""
        constants += number(3, pad) + number(6, stride) + number(5, groups)
        return [
            layer(name, "Convolution", constants, (106, 10)),
            layer(f"relu{name[-1]}", "ReLU"),
        ]

    def middle(place):
        alpha = number(1, 5) + number(2, 1e-4) + number(3, 0.75)
        pair = [
            layer(f"norm{place}", "LRN", alpha, (118, 18)),
            layer(f"pool{place}", "Pooling", number(2, 3) + number(3, 2), (121, 19)),
        ]
        return pair[::-1] if pool_first else pair

    layers = [layer("data", "Data", transform, (100, 36))]
    layers += [*convolution("conv1", stride=4), *middle(1)]
    layers += [*convolution("conv2", pad=2, groups=2), *middle(2)]
    layers += convolution("conv3", pad=1)
    layers += convolution("conv4", pad=1, groups=2)
    layers += convolution("conv5", pad=1, groups=2)
    layers += [middle(5)[0 if pool_first else 1]]
    for name in ("fc6", "fc7"):
        layers += [layer(name, "InnerProduct"), layer(f"relu{name[-1]}", "ReLU")]
        layers += [layer(f"drop{name[-1]}", "Dropout")]
    layers += [layer("fc8", "InnerProduct"), layer("prob", "Softmax")]
    return message(1, "AlexNet") + b"".join(layers)


class FloatStorage:
    """What torch.FloatStorage is in a pickle."""


def _rebuild_tensor_v2(*_):
    raise AssertionError("a pickle was run")


class _Tensor:
    def __init__(self, key, array):
        self.key, self.array = key, array

    def __reduce__(self):
        strides = tuple(n // self.array.itemsize for n in self.array.strides)
        storage = _Storage(self.key, self.array.size)
        arguments = (storage, 0, self.array.shape, strides, False, OrderedDict())
        return _rebuild_tensor_v2, arguments


class _Storage:
    def __init__(self, key, count):
        self.key, self.count = key, count


class _Pickler(pickle.Pickler):
    def __init__(self, file, tail):
        super().__init__(file, protocol=2)
        self.tail = tail

    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            return ("storage", FloatStorage, obj.key, "cpu", obj.count, *self.tail)
        return None


def torch_file(state, kind, path: Path):
    """Write ``{name: array}`` as torch.save does.

    Args:
        state: the arrays, f32.
        kind: ``zip``, ``stream`` (before 1.6) or ``tar`` (before 0.2).
        path: of the new file.
    """
    modules = {"torch": types.ModuleType("torch")}
    modules["torch._utils"] = types.ModuleType("torch._utils")
    for module, made in (("torch", FloatStorage), ("torch._utils", _rebuild_tensor_v2)):
        made.__module__ = module
        setattr(modules[module], made.__name__, made)
    sys.modules.update(modules)
    try:
        {"zip": _zip, "stream": _stream, "tar": _tar}[kind](state, path)
    finally:
        for name in modules:
            del sys.modules[name]


def _pickled(value, tail=()):
    file = io.BytesIO()
    _Pickler(file, tail).dump(value)
    return file.getvalue()


def _tensors(state):
    return OrderedDict(
        (name, _Tensor(str(key), array))
        for key, (name, array) in enumerate(state.items())
    )


def _zip(state, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", _pickled(_tensors(state)))
        for key, array in enumerate(state.values()):
            archive.writestr(f"net/data/{key}", array.tobytes("A"))
        archive.writestr("net/version", "3\n")


def _stream(state, path):
    system = {"protocol_version": 1001, "little_endian": True}
    parts = [0x1950A86A20F9469CFC6C, 1001, system, _tensors(state)]
    parts.append([str(key) for key in range(len(state))])
    raw = b"".join(_pickled(part, tail=(None,)) for part in parts)
    for array in state.values():
        raw += struct.pack("<q", array.size) + array.tobytes("A")
    path.write_bytes(raw)


def _tar(state, path):
    storages = tensors = pickle.dumps(len(state), 2)
    for key, array in enumerate(state.values()):
        storages += _pickled((key, "cpu", FloatStorage))
        storages += struct.pack("<q", array.size) + array.tobytes("A")
        strides = [n // array.itemsize for n in array.strides]
        tensors += _pickled((100 + key, key, FloatStorage))
        tensors += struct.pack("<ii", array.ndim, 0)
        tensors += struct.pack(f"<{2 * array.ndim + 1}q", *array.shape, *strides, 0)
    storages += pickle.dumps([], 2)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return str(100 + int(obj.key)) if isinstance(obj, _Tensor) else None

    file = io.BytesIO()
    Pickler(file, 2).dump(_tensors(state))
    members = {"storages": storages, "tensors": tensors, "pickle": file.getvalue()}
    with tarfile.open(path, "w") as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
