"""Protobuf's wire format, as far as caffemodel and ONNX files need it.

A reader of our own, because ``google.protobuf`` copies a file of 240 MB twice and
would need the schemas compiled: here long fields are spans of the file, and the
numbers in them are read where they lie.
Source: protobuf.dev/programming-guides/encoding.
"""

import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from alexnet_jax.errors import WeightsError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Malformed(Exception):
    """Say that bytes are no protobuf message, or end inside one."""


class Span(NamedTuple):
    """A part of a file: where it starts and ends, in bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Count of its bytes."""
        return self.end - self.start


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: as in the schema.
        kind: wire type.
        value: of a varint; else 0.
        span: where its bytes lie; of a varint empty.
    """

    number: int
    kind: int
    value: int
    span: Span


class Wire:
    """A file read as protobuf messages; use it as a context."""

    def __init__(self, path: Path) -> None:
        """Open a file that is not empty."""
        self.path = path
        with open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.whole = Span(0, len(self.data))

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *failure: object) -> None:
        self.data.close()

    def fields(self, message: Span) -> Iterator[Field]:
        """Yield the fields of the message that a span holds.

        Raises:
            Malformed: it is none, or cut off.
        """
        at, end = message
        while at < end:
            tag, at = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            if number == 0:
                raise Malformed("field number 0")
            value, size = 0, 0
            if kind == VARINT:
                value, at = self._varint(at, end)
            elif kind == BYTES:
                size, at = self._varint(at, end)
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
            else:
                raise Malformed(f"wire type {kind}")
            if at + size > end:
                raise Malformed(f"a field of {size:,} bytes, {end - at:,} are left")
            yield Field(number, kind, value, Span(at, at + size))
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for place in range(10):
            if at + place >= end:
                raise Malformed("it ends inside a number")
            byte = self.data[at + place]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value, at + place + 1
        raise Malformed("a number of more than ten bytes")

    def bytes(self, span: Span) -> bytes:
        """Read a span."""
        return self.data[span.start : span.end]

    def text(self, span: Span) -> str:
        """Read a span as a name."""
        try:
            return self.bytes(span).decode()
        except UnicodeDecodeError:
            raise Malformed("a name that is no UTF-8") from None

    def integers(self, fields: Iterable[Field]) -> list[int]:
        """Read a repeated integer, packed or not."""
        values = []
        for found in fields:
            if found.kind == VARINT:
                values.append(_signed(found.value))
                continue
            at = found.span.start
            while at < found.span.end:
                value, at = self._varint(at, found.span.end)
                values.append(_signed(value))
        return values

    def floats(self, fields: Iterable[Field]) -> list[float]:
        """Read a short repeated float, packed or not."""
        values: list[float] = []
        for found in fields:
            if found.span.size % 4:
                raise Malformed(f"{found.span.size} bytes of floats")
            raw = self.bytes(found.span)
            values += [number for (number,) in struct.iter_unpack("<f", raw)]
        return values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def damaged(path: Path, what: str, error: Malformed) -> WeightsError:
    """Return the error for a file that is no message of the kind that it should be."""
    return WeightsError(
        f"{path} is truncated or damaged: as {what} it has {error}; get it again"
    )


def varint(value: int) -> bytes:
    """Write an integer."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    """Write an integer field."""
    return varint(number << 3 | VARINT) + varint(value)


def real(number: int, value: float) -> bytes:
    """Write a float field."""
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)


def head(number: int, size: int) -> bytes:
    """Write what comes before ``size`` bytes of a field."""
    return varint(number << 3 | BYTES) + varint(size)


def block(number: int, *parts: bytes | str) -> bytes:
    """Write a field of bytes, text or messages."""
    raw = b"".join(p.encode() if isinstance(p, str) else p for p in parts)
    return head(number, len(raw)) + raw
