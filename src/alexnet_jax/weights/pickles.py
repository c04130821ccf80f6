"""Pickles of tensors, read without running them.

A pickle is a program for a stack machine, and Python's own machine will import and
call whatever the program names. This one has no way to import or to call: names are
only compared with the few that stand for tensors, and the file is refused at any other.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase
from typing import IO, Any, cast

import numpy as np

MOST_OPERATIONS = 1_000_000
"""A state dict of sixteen tensors takes about five hundred."""

DTYPES = {
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
    "BFloat16": "bfloat16",
}


class Refused(Exception):
    """Say why a pickle is not read on."""


@dataclass(frozen=True)
class Name:
    """A name that a pickle mentions, such as ``torch.FloatStorage``."""

    text: str


@dataclass(frozen=True)
class Storage:
    """Numbers that lie outside the pickle.

    Attributes:
        key: by which the file finds them.
        dtype: their type; a numpy name, or ``bfloat16``.
        count: how many.
        start: the first one's place among those of ``key``.
    """

    key: str
    dtype: str
    count: int
    start: int = 0


@dataclass(frozen=True)
class View:
    """A tensor: a strided view of a storage, in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def reach(self) -> int:
        """Count of numbers from the first one to the last."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.stride, strict=True)
        return 1 + sum((length - 1) * step for length, step in steps)


def dtype_of(name: object) -> str:
    """Return the type of numbers of ``torch.FloatStorage`` and its like.

    Raises:
        Refused: it is not one of them.
    """
    if isinstance(name, Name):
        kind = name.text.removeprefix("torch.").removesuffix("Storage")
        if kind in DTYPES:
            return DTYPES[kind]
    raise Refused(f"it has a storage of kind {name}")


def view(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> View:
    """Check and make a view; further arguments (gradient, hooks) do not matter.

    Raises:
        Refused: it is no view of its storage.
    """
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or not all(type(n) is int for n in sizes):
        raise Refused("it has a tensor without a storage")
    if min(sizes) < 0 or len(shape) != len(stride) or len(shape) > 8:
        raise Refused(f"it has a tensor of shape {shape} and stride {stride}")
    found = View(storage, offset, tuple(shape), tuple(stride))
    if offset + found.reach > storage.count:
        raise Refused("it has a tensor that reaches beyond its storage")
    return found


def _tensor(data: Any, *_: Any) -> View:
    if not isinstance(data, View):
        raise Refused("it has a parameter that is no tensor")
    return data


# What a pickle may call, and what that means here.
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda pairs=(): dict(pairs),
    "torch._utils._rebuild_tensor": view,
    "torch._utils._rebuild_tensor_v2": view,
    "torch._utils._rebuild_parameter": _tensor,
    "torch.nn.parameter.Parameter": _tensor,
    "torch.Size": tuple,
}
_MENTIONS = {f"torch.{kind}{what}" for kind in DTYPES for what in ("Storage", "Tensor")}

_NUMBERS_AND_TEXT = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_MARK = object()


def load(file: BufferedIOBase, find: Callable[[Any], Any] | None = None) -> Any:
    """Read one pickle from where ``file`` stands, and leave it after its end.

    Args:
        file: opened for reading.
        find: turns a persistent id (how torch refers to storages) into an object.

    Returns:
        Numbers, texts, tuples, lists, dicts, ``Storage``, ``View`` and ``Name``.

    Raises:
        Refused: it is damaged, or holds something else; one clause with the cause.
    """
    try:
        return _load(file, find)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        cause = " ".join(str(error).split())[:100]
        raise Refused(f"its pickle is damaged ({cause})") from None


def _load(file: BufferedIOBase, find: Callable[[Any], Any] | None) -> Any:
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        place = len(stack) - 1 - stack[::-1].index(_MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    for count, (opcode, argument, _) in enumerate(
        pickletools.genops(cast(IO[bytes], file))
    ):
        if count > MOST_OPERATIONS:
            raise Refused(f"its pickle has more than {MOST_OPERATIONS:,} operations")
        name = opcode.name
        if name in _NUMBERS_AND_TEXT:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = stack[-_TUPLES[name] :]
            del stack[-_TUPLES[name] :]
            stack.append(tuple(items))
        elif name in _PUTS:
            memo[argument] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_name(str(argument).replace(" ", ".")))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_call(called, arguments))
        elif name in ("BINPERSID", "PERSID"):
            asked = stack.pop() if name == "BINPERSID" else argument
            if find is None:
                raise Refused("it refers to something outside the pickle")
            stack.append(find(asked))
        else:
            match name:
                case "PROTO" | "FRAME":
                    pass
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "STACK_GLOBAL":
                    last, first = stack.pop(), stack.pop()
                    stack.append(_name(f"{first}.{last}"))
                case "MARK":
                    stack.append(_MARK)
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "DICT" | "SETITEMS":
                    items = since_mark()
                    target = {} if name == "DICT" else stack.pop()
                    _dict(target).update(zip(items[::2], items[1::2], strict=True))
                    stack.append(target)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _dict(stack[-1])[key] = value
                case "LIST":
                    stack.append(since_mark())
                case "APPENDS":
                    items = since_mark()
                    _list(stack[-1]).extend(items)
                case "APPEND":
                    item = stack.pop()
                    _list(stack[-1]).append(item)
                case "BUILD":
                    # What hangs on a dict (its _metadata) or a tensor (whether it
                    # wants a gradient) is of no use here.
                    stack.pop()
                    if not isinstance(stack[-1], dict | View):
                        raise Refused("its pickle fills in an object that is no tensor")
                case "STOP":
                    (result,) = stack
                    return result
                case _:
                    raise Refused(
                        f"its pickle uses {name}, which no file of tensors needs"
                    )
    raise Refused("its pickle ends early")


def _name(text: str) -> Name:
    if text not in _CALLS and text not in _MENTIONS:
        raise Refused(
            f"its pickle asks for {text}, which is no tensor; nothing of it was run"
        )
    return Name(text)


def _call(called: Any, arguments: Any) -> Any:
    if not isinstance(called, Name) or called.text not in _CALLS:
        raise Refused("its pickle calls what is no tensor; nothing of it was run")
    if not isinstance(arguments, tuple):
        raise Refused("its pickle is damaged (a call without arguments)")
    return _CALLS[called.text](*arguments)


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise Refused("its pickle is damaged (an item for what is no dict)")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Refused("its pickle is damaged (an item for what is no list)")
    return value


def numpy_dtype(name: str, big_endian: bool = False) -> np.dtype:
    """Return the type of a storage's numbers as numpy knows it."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder(">" if big_endian else "<")
