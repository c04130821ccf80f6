"""What a file of weights is, told by its content and never by its name."""

import hashlib
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from alexnet_jax.errors import WeightsError
from alexnet_jax.weights import arrays, caffe, onnx, torch
from alexnet_jax.weights.tensors import WeightFile

READ = "Caffe's .caffemodel, PyTorch's .pth, .onnx, .safetensors and .npz are read"

_KNOWN_SHA1 = {
    "9116a64c0fbe4459d18f4bb6b56d647b63920377": (
        "bvlc_alexnet.caffemodel, as published with Caffe (its SHA-1 is the one in "
        "models/bvlc_alexnet/readme.md)"
    ),
    "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46": (
        "bvlc_reference_caffenet.caffemodel, as published with Caffe (its SHA-1 is "
        "the one in models/bvlc_reference_caffenet/readme.md)"
    ),
}
# torchvision names its files by the first eight digits, and checks no more of them.
_KNOWN_SHA256 = {
    start: f"alexnet-owt-{start}.pth, as published by torchvision (its SHA-256 begins "
    "as its name says)"
    for start in ("7be5be79", "4df8aa71")
}
_NEITHER = {
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"\x93NUM": "a single array (.npy)",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"%PDF": "a PDF document",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
}


class Fingerprint(NamedTuple):
    """Which file this is, byte for byte.

    Attributes:
        bytes: its size.
        sha1, sha256: in hexadecimal.
        known: the public file that it is, in words; None if it is not one we know.
    """

    bytes: int
    sha1: str
    sha256: str
    known: str | None


def fingerprint(path: Path) -> Fingerprint:
    """Hash a file."""
    sha1, sha256, size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            size += len(part)
            sha1.update(part)
            sha256.update(part)
    digests = sha1.hexdigest(), sha256.hexdigest()
    known = _KNOWN_SHA1.get(digests[0]) or _KNOWN_SHA256.get(digests[1][:8])
    return Fingerprint(size, *digests, known)


def check(path: Path) -> None:
    """Check that there is a file, and something in it.

    Raises:
        WeightsError: there is not.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(f"{path} {what}; name a file of weights: {READ}")
    if not path.stat().st_size:
        raise WeightsError(f"{path} is empty; get it again")


def read(path: Path) -> WeightFile:
    """Open a file of weights; of its tensors only names and shapes are read.

    Raises:
        WeightsError: it is none, damaged, or holds more than tensors.
    """
    check(path)
    with open(path, "rb") as file:
        head = file.read(512)
    # First, for its length in front may begin like anything.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 << 20:
        return arrays.read_safetensors(path)
    if head.startswith(torch.ZIP):
        return _read_zip(path)
    if head.startswith(torch.PICKLE) or tarfile.is_tarfile(path):
        return torch.read(path)
    if onnx.looks_like(path):
        return onnx.read(path)
    if caffe.looks_like(path):
        return caffe.read(path)
    raise WeightsError(f"{path} is {_guess(head)}; {READ}")


def _read_zip(path: Path) -> WeightFile:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or damaged: it begins as a zip file but is none "
            f"({error}); get it again"
        ) from None
    if any(name.endswith("/data.pkl") for name in names):
        return torch.read(path)
    if names and all(name.endswith(".npy") for name in names):
        return arrays.read_npz(path)
    raise WeightsError(
        f"{path} is a zip file without tensors ({', '.join(names[:3])}); {READ}"
    )


def _guess(head: bytes) -> str:
    """Say what a file seems to be that is none of ours."""
    for start, what in _NEITHER.items():
        if head.startswith(start):
            return what
    text = head.decode("utf-8", "replace")
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; fetch it with git lfs pull"
    if text.lstrip().lower().startswith(("<!doctype", "<html", "<?xml")):
        return "a web page, not a file of weights; the download went wrong"
    if text[:500].isprintable() or ("\ufffd" not in text[:500] and "\0" not in text):
        return "a text file, not a file of weights"
    return "of no known format"
