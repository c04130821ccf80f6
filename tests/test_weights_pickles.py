"""Pickles of tensors: the few words that they need, and nothing else, ever run."""

import io
import os
import pickle
import struct

import pytest

from alexnet_jax.weights import pickles
from alexnet_jax.weights.pickles import Refused, Storage, View


def load(raw, find=None):
    return pickles.load(io.BytesIO(raw), find)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_what_pickle_says(protocol):
    value = {
        "a": [1, -(2**40), 2.5, None, True, False],
        "b": ("é", (), {}, (1, 2, 3, 4)),
    }
    assert load(pickle.dumps(value, protocol)) == value


class Calls:
    """Calls what it is told to when it is unpickled."""

    def __init__(self, function, *arguments):
        self.answer = function, arguments

    def __reduce__(self):
        return self.answer


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.system, ("touch ran",)), (eval, ("1",)), (getattr, (1, "real"))],
)
def test_nothing_that_a_pickle_names_is_run(
    function, arguments, protocol, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    raw = pickle.dumps({"a": [Calls(function, *arguments)]}, protocol)
    with pytest.raises(
        Refused, match=r"asks for .*, which is no tensor; nothing of it"
    ):
        load(raw)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"cos\nsystem\n(S'x'\ntR.", "asks for os.system"),
        (b"(S'x'\nios\nsystem\n.", "uses INST"),
        (b"ctorch\nFloatStorage\n)R.", "calls what is no tensor"),
        (b"K\x01)R.", "calls what is no tensor"),
        (b"ccollections\nOrderedDict\n)\x81.", "uses NEWOBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "fills in an object"),
        (b"K\x01K\x02K\x03s.", "no dict"),
        (b"K\x01K\x02a.", "no list"),
        (b"K\x01Q.", "refers to something outside"),
        (b"h\x07.", "is damaged"),
        (b"}", "is damaged"),
        (b"0.", "uses POP"),
        (b"(((((.", "is damaged"),
        (b"e.", "is damaged"),
        (b"X\xff\xff\xff\x7fab", "is damaged"),
        (b"\x8d" + b"\xff" * 8 + b"ab", "is damaged"),
        (b"\x8e" + struct.pack("<Q", 1 << 60) + b"ab", "is damaged"),
        (b"]r\xff\xff\xff\x7f0.", "uses POP"),
    ],
)
def test_a_hostile_or_damaged_pickle_is_refused(raw, said):
    with pytest.raises(Refused, match=said):
        load(raw)


def test_a_memo_of_huge_indices_costs_nothing():
    assert load(b"]r\xff\xff\xff\x7f.") == []


def test_a_long_pickle_is_refused():
    with pytest.raises(Refused, match="more than 1,000,000 operations"):
        load(b"(" + b"N" * 1_000_001 + b"t.")


def test_deep_nesting_does_not_overflow():
    depth = 20_000
    found = load(b"]" * depth + b"a" * (depth - 1) + b".")
    for _ in range(depth - 1):
        (found,) = found
    assert found == []


def tensor(shape, stride, *, offset=0, count=6):
    storage = Storage("0", "f4", count)
    return pickles.view(storage, offset, shape, stride)


def test_a_view_lies_inside_its_storage():
    assert tensor((2, 3), (3, 1)) == View(Storage("0", "f4", 6), 0, (2, 3), (3, 1))
    for wrong in [
        {"shape": (2, 3), "stride": (4, 1)},
        {"shape": (7,), "stride": (1,)},
        {"shape": (2, 3), "stride": (3, 1), "offset": 1},
        {"shape": (1 << 62,), "stride": (1 << 62,)},
    ]:
        with pytest.raises(Refused, match="reaches beyond its storage"):
            tensor(**wrong)
    for wrong in [((-1,), (1,)), ((2,), (-1,)), ((2, 3), (1,))]:
        with pytest.raises(Refused, match="tensor of shape"):
            tensor(*wrong)
    with pytest.raises(Refused, match="without a storage"):
        pickles.view("nothing", 0, (1,), (1,))
