"""safetensors and npz: files of named arrays, without layers."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from alexnet_jax.errors import WeightsError
from alexnet_jax.weights.tensors import Tensor, WeightFile, in_memory

DESCRIBED = "alexnet_jax"
"""Our key in a safetensors file's metadata, and our member of an npz file."""

# What numpy, zipfile and zlib say of bytes that are not as they should be.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError),
    *(NotImplementedError, RuntimeError, SyntaxError, TypeError, MemoryError),
)
_FLOATS = {"F64", "F32", "F16", "BF16"}


def read_safetensors(path: Path) -> WeightFile:
    """Read the names and shapes of a safetensors file.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        file = safe_open(path, framework="numpy")
        described = (file.metadata() or {}).get(DESCRIBED)
        tensors = {
            name: tensor
            for name in file.keys()  # noqa: SIM118 (it is no dict)
            if (tensor := _slice(file, name)) is not None
        }
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is truncated or damaged: as safetensors, {error}; get it again"
        ) from None
    return WeightFile(
        path,
        "safetensors",
        tensors,
        described=described.encode() if described else None,
    )


def _slice(file: Any, name: str) -> Tensor | None:
    found = file.get_slice(name)
    shape = tuple(found.get_shape())
    if found.get_dtype() not in _FLOATS or not prod(shape) or not shape:
        return None
    dtype = np.dtype(np.float32)
    return Tensor(shape, dtype, lambda start, stop: found[start:stop])


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], described: str
) -> None:
    """Write named arrays and what they cannot say themselves."""
    save_file(dict(tensors), path, metadata={DESCRIBED: described})


def read_npz(path: Path) -> WeightFile:
    """Read the arrays of an npz file; pickled ones are not read.

    Raises:
        WeightsError: it is damaged, or holds Python objects.
    """
    described = None
    tensors = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name, array in _members(archive):
                if name == DESCRIBED:
                    described = str(array).encode()
                elif array.dtype.kind in "fV" and array.ndim:
                    tensors[name] = in_memory(array)
    except _DAMAGE as error:
        cause = " ".join(str(error).split())
        if "allow_pickle" in cause:
            cause = "it holds Python objects, which are not read; save plain arrays"
        else:
            cause = f"it is truncated or damaged ({cause}); get it again"
        raise WeightsError(f"{path} is no npz file of arrays: {cause}") from None
    return WeightFile(path, "npz", tensors, described=described)


def _members(archive: Any) -> Iterator[tuple[str, np.ndarray]]:
    for name in archive.files:
        yield name, archive[name]
