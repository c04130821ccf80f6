"""Pictures inside tar files, read where they lie.

An index of offsets is made from the headers alone; then a picture is one positioned
read, from any thread, and nothing is ever unpacked to disk or held in memory.
"""

import os
import tarfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_jax.data.records import Record
from alexnet_jax.errors import DataError, ImageError

_BLOCK = tarfile.BLOCKSIZE  # 512 bytes: headers, and what contents are padded to


class Member(NamedTuple):
    """A regular file inside a tar.

    Attributes:
        name: as its header has it.
        start: offset of its first byte in the outermost file.
        size: in bytes.
    """

    name: str
    start: int
    size: int


class TarFile:
    """A tar that many threads read at once.

    Attributes:
        path: of the file.
        size: of the file in bytes.
    """

    def __init__(self, path: Path, expected_size: int | None = None):
        """Open a tar.

        Args:
            path: of the file.
            expected_size: in bytes, for messages.

        Raises:
            DataError: it cannot be opened.
        """
        self.path = path
        self._expected = f" of {expected_size:,}" if expected_size else ""
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, start: int, size: int) -> bytes:
        """Read bytes; fewer at the end of the file."""
        return os.pread(self._descriptor, size, start)

    def members(self, start: int = 0, stop: int | None = None) -> Iterator[Member]:
        """List the regular files of a tar, or of a tar inside it, by their headers.

        Args:
            start: offset of the first header.
            stop: offset of the tar's end; the file's when None.

        Raises:
            DataError: the tar is cut off or damaged.
        """
        stop = self.size if stop is None else stop
        while start < stop:
            header = self.read(start, _BLOCK)
            if len(header) < _BLOCK:
                raise self._cut_off()
            if not header.strip(b"\0"):
                return
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise DataError(
                    f"{self.path} is not a tar or is damaged at byte {start:,} "
                    f"({error}); download it again"
                ) from None
            start += _BLOCK
            if start + info.size > self.size:
                raise self._cut_off()
            if info.isreg():
                yield Member(info.name, start, info.size)
            start += -(-info.size // _BLOCK) * _BLOCK

    def _cut_off(self) -> DataError:
        return DataError(
            f"{self.path} is cut off: it has {self.size:,} bytes{self._expected}; "
            "download it again"
        )


@dataclass(frozen=True)
class Index:
    """Where pictures lie in a tar: arrays, since a million objects take 300 MB.

    Attributes:
        names: ``S[N]``, of the pictures.
        starts: ``i64[N]``, their offsets in the file.
        sizes: ``i64[N]``, in bytes.
    """

    names: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, members: Iterable[Member]) -> "Index":
        """Keep members, sorted by name."""
        ordered = sorted(members)
        return cls(
            names=np.array([os.fsencode(member.name) for member in ordered], np.bytes_),
            starts=np.array([member.start for member in ordered], np.int64),
            sizes=np.array([member.size for member in ordered], np.int64),
        )

    @classmethod
    def joined(cls, parts: Sequence["Index"]) -> "Index":
        """Put indices one after another."""
        return cls(
            names=np.concatenate([part.names for part in parts]),
            starts=np.concatenate([part.starts for part in parts]),
            sizes=np.concatenate([part.sizes for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class TarSplit:
    """Pictures in a tar.

    Attributes:
        name: what the user asked for.
        classes: names of the classes, in label order.
        file: that they are in.
        index: where.
        labels: ``i32[N]``.
    """

    name: str
    classes: Sequence[str]
    file: TarFile
    index: Index
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        name = os.path.basename(os.fsdecode(self.index.names[index]))
        size = int(self.index.sizes[index])
        try:
            image = self.file.read(int(self.index.starts[index]), size)
        except OSError as error:
            raise ImageError(f"{name}: cannot be read: {error.strerror}") from None
        if len(image) != size:
            raise ImageError(f"{name}: is cut off in {self.file.path}")
        return Record(image, int(self.labels[index]), name)
