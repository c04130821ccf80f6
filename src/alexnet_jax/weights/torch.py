"""PyTorch's files: today's zip, the stream of pickles before 1.6, the tar before 0.2.

All three hold a pickle that names storages, and the storages' raw numbers. The pickle
goes through ``pickles``, which cannot run anything.
"""

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.errors import WeightsError
from alexnet_jax.weights import pickles
from alexnet_jax.weights.pickles import Refused, Storage, View
from alexnet_jax.weights.tensors import (
    MEAN,
    Tensor,
    WeightFile,
    in_memory,
    stored,
)

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in the stream of pickles."""

_DESCRIBED, _MEAN = "alexnet_jax.json", "alexnet_jax.mean.npy"
# What numpy, zipfile, tarfile and struct say of bytes that are not as they should be.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, struct.error, EOFError, OSError),
    *(ValueError, KeyError, TypeError, NotImplementedError, RuntimeError),
)
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_LARGEST_PICKLE = 64 << 20


class _Place(NamedTuple):
    """Where a storage lies in the file, in bytes."""

    offset: int
    size: int


def read(path: Path) -> WeightFile:
    """Read the tensors of a ``.pth`` file.

    Raises:
        WeightsError: it is damaged, or holds more than tensors.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        if start == ZIP:
            return _read_zip(path)
        found, places = _read_stream(path) if start[:1] == PICKLE else _read_tar(path)
        return WeightFile(path, "torch", _tensors(path, found, places))
    except Refused as error:
        raise WeightsError(
            f"{path} is refused as a PyTorch file: {error}; save only the tensors, "
            "torch.save(model.state_dict(), FILE)"
        ) from None
    except _DAMAGE as error:
        raise WeightsError(
            f"{path} is truncated or damaged: {error}; get it again"
        ) from None


def _read_zip(path: Path) -> WeightFile:
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        members = {info.filename: info for info in archive.infolist()}
        pickled = next(name for name in members if name.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        if members[pickled].file_size > _LARGEST_PICKLE:
            raise Refused(f"its pickle has {members[pickled].file_size:,} bytes")
        order = members.get(f"{root}byteorder")
        big = order is not None and archive.read(order).strip() == b"big"
        found = pickles.load(io.BytesIO(archive.read(pickled)), _storage)
        places = {
            name.removeprefix(f"{root}data/"): _zip_place(file, info)
            for name, info in members.items()
            if name.startswith(f"{root}data/")
        }
        tensors = _tensors(path, found, places, big)
        described = None
        if f"{root}{_DESCRIBED}" in members:
            described = archive.read(f"{root}{_DESCRIBED}")
        if f"{root}{_MEAN}" in members:
            mean = np.load(io.BytesIO(archive.read(f"{root}{_MEAN}")))
            tensors[MEAN] = in_memory(mean)
    return WeightFile(path, "torch", tensors, described=described)


def _zip_place(file: io.BufferedIOBase, info: zipfile.ZipInfo) -> _Place:
    """Find the bytes of a member; torch stores them uncompressed."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise Refused(f"its member {info.filename} is compressed")
    file.seek(info.header_offset)
    head = file.read(30)
    name, extra = struct.unpack("<HH", head[26:30])
    offset = info.header_offset + 30 + name + extra
    if offset + info.file_size > file.seek(0, io.SEEK_END):
        raise Refused(f"its member {info.filename} ends early")
    return _Place(offset, info.file_size)


def _storage(asked: Any) -> Storage:
    """Understand ``("storage", type, key, device, count[, view])``."""
    if not isinstance(asked, tuple) or len(asked) < 5 or asked[0] != "storage":
        raise Refused("it refers to what is no storage")
    _, kind, key, _, count, *view = asked
    if type(count) is not int or not 0 <= count < 1 << 40:
        raise Refused(f"it has a storage of {count} numbers")
    start = 0
    if view and view[0] is not None:  # a part of another storage
        _, start, count = view[0]
    return Storage(str(key), pickles.dtype_of(kind), count, start)


def _read_stream(path: Path) -> tuple[Any, dict[str, _Place]]:
    storages: dict[str, Storage] = {}

    def find(asked: Any) -> Storage:
        storage = _storage(asked)
        storages[storage.key] = storage
        return storage

    with open(path, "rb") as file:
        if pickles.load(file) != MAGIC:
            raise Refused("it is a Python pickle that PyTorch did not write")
        pickles.load(file)  # protocol
        system = pickles.load(file)
        if not (isinstance(system, dict) and system.get("little_endian", True)):
            raise Refused("it was written on a big-endian machine")
        found = pickles.load(file, find)
        keys = pickles.load(file)
        places = {}
        for key in keys:
            if key not in storages:
                raise Refused(f"it has numbers for a storage {key!r} that it lacks")
            places[key] = _counted(file, storages[key].dtype)
    return found, places


def _counted(file: io.BufferedIOBase, dtype: str) -> _Place:
    """Pass over a count and that many numbers; return where the numbers lie."""
    (count,) = struct.unpack("<q", file.read(8))
    size = count * pickles.numpy_dtype(dtype).itemsize
    offset = file.tell()
    end = file.seek(0, io.SEEK_END)
    if count < 0 or offset + size > end:
        raise EOFError(
            f"{size:,} bytes of numbers are named, {end - offset:,} are left"
        )
    file.seek(offset + size)
    return _Place(offset, size)


def _read_tar(path: Path) -> tuple[Any, dict[str, _Place]]:
    with tarfile.open(path, "r:") as archive, open(path, "rb") as file:
        members = {member.name: member for member in archive.getmembers()}
        missing = {"pickle", "storages", "tensors"} - members.keys()
        if missing:
            raise Refused(f"it is a tar without {' and '.join(sorted(missing))}")

        def go_to(name: str) -> None:
            file.seek(members[name].offset_data)

        storages: dict[Any, Storage] = {}
        places: dict[str, _Place] = {}
        go_to("storages")
        for _ in range(_number(pickles.load(file))):
            key, _, kind = pickles.load(file)
            dtype = pickles.dtype_of(kind)
            place = places[str(key)] = _counted(file, dtype)
            count = place.size // pickles.numpy_dtype(dtype).itemsize
            storages[key] = Storage(str(key), dtype, count)
        for key, whole, start, count in pickles.load(file):
            whole = storages[whole]
            storages[key] = Storage(whole.key, whole.dtype, count, start)
        tensors: dict[int, View] = {}
        go_to("tensors")
        for _ in range(_number(pickles.load(file))):
            key, storage, _ = pickles.load(file)
            (axes,) = struct.unpack("<i4x", file.read(8))
            if not 0 <= axes <= 8:
                raise Refused(f"it has a tensor of {axes} axes")
            numbers = struct.unpack(f"<{2 * axes + 1}q", file.read(16 * axes + 8))
            shape, stride = numbers[:axes], numbers[axes : 2 * axes]
            tensors[int(key)] = pickles.view(
                storages.get(storage), numbers[-1], shape, stride
            )
        go_to("pickle")
        found = pickles.load(file, lambda asked: tensors[int(asked)])
    return found, places


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 16:
        raise Refused(f"it has {value} storages or tensors")
    return value


def _tensors(
    path: Path, found: Any, places: dict[str, _Place], big_endian: bool = False
) -> dict[str, Tensor]:
    """Flatten a state dict, and find the numbers of its tensors."""
    if not isinstance(found, dict):
        raise Refused("it holds no dict of tensors")
    for wrapper in _WRAPPERS:
        if isinstance(found.get(wrapper), dict):
            found = found[wrapper]
            break
    views = {
        str(name).removeprefix("module."): value
        for name, value in found.items()
        if isinstance(value, View)
    }
    if not views:
        raise Refused("it holds no dict of tensors")
    return {
        name: _tensor(path, view, places, big_endian) for name, view in views.items()
    }


def _tensor(
    path: Path, view: View, places: dict[str, _Place], big_endian: bool
) -> Tensor:
    storage = view.storage
    dtype = pickles.numpy_dtype(storage.dtype, big_endian)
    if storage.key not in places:
        raise Refused(f"it lacks the numbers of storage {storage.key}")
    place = places[storage.key]
    if (storage.start + storage.count) * dtype.itemsize > place.size:
        raise Refused(
            f"storage {storage.key} should hold {storage.count:,} numbers but has "
            f"{place.size:,} bytes"
        )
    offset = place.offset + (storage.start + view.offset) * dtype.itemsize
    plain = [prod(view.shape[axis + 1 :]) for axis in range(len(view.shape))]
    steps = zip(view.shape, view.stride, plain, strict=True)
    if all(length == 1 or step == whole for length, step, whole in steps):
        shape = view.shape or (1,)
        return stored(path, offset, shape, dtype)

    def rows(start: int, stop: int) -> np.ndarray:
        flat = np.fromfile(path, dtype, view.reach, offset=offset)
        strides = [s * dtype.itemsize for s in view.stride]
        return np.lib.stride_tricks.as_strided(flat, view.shape, strides)[start:stop]

    return Tensor(view.shape, dtype, rows)


def write(
    path: Path,
    tensors: Iterator[tuple[str, np.ndarray]],
    described: str,
    mean: np.ndarray | None,
) -> None:
    """Write a state dict that ``torch.load`` reads, also with ``weights_only``.

    Args:
        path: of the new file.
        tensors: names and ``f32`` arrays.
        described: what a state dict cannot say, in a member that torch passes over.
        mean: the mean image, where it is one; likewise.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        entries = []
        for key, (name, array) in enumerate(tensors):
            raw = np.ascontiguousarray(array, "<f4")
            archive.writestr(f"archive/data/{key}", raw.data.cast("B"))
            entries.append(_entry(name, str(key), raw.shape))
        archive.writestr(
            "archive/data.pkl",
            b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(entries) + b"u.",
        )
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr(f"archive/{_DESCRIBED}", described)
        if mean is not None:
            npy = io.BytesIO()
            np.save(npy, mean)
            archive.writestr(f"archive/{_MEAN}", npy.getvalue())


def _entry(name: str, key: str, shape: tuple[int, ...]) -> bytes:
    """Write a state dict's entry as torch pickles it."""
    stride = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    storage = b"(%bctorch\nFloatStorage\n%b%b%bt" % (
        _pickled("storage"),
        _pickled(key),
        _pickled("cpu"),
        _pickled(prod(shape)),
    )
    rest = b"".join(map(_pickled, (0, shape, stride)))
    hooks = b"\x89ccollections\nOrderedDict\n)R"  # no gradient, no hooks
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(%bQ%b%btR" % (storage, rest, hooks)
    return _pickled(name) + call


def _pickled(value: str | int | tuple[int, ...]) -> bytes:
    if isinstance(value, str):
        return b"X" + struct.pack("<i", len(value.encode())) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    return b"(" + b"".join(map(_pickled, value)) + b"t"
