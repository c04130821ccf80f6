"""Weights in: others' files give others' logits; a wrong file gets one clear line."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from unittest.mock import ANY

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import augment, checkpoint, model, networks
from alexnet_jax.errors import WeightsError
from alexnet_jax.mesh import BATCH, make_mesh
from alexnet_jax.weights import importing

CLASSES = list("abcde")
BGR = (104.00698793, 116.66876762, 122.67891434)
CAFFE = foreign.draw(foreign.CAFFE)
OWT = foreign.draw(foreign.OWT)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Give the published networks few filters, so that their files are small."""
    for name in ("caffe", "caffenet", "owt"):
        table = foreign.small(networks.NETWORKS[name])
        monkeypatch.setitem(networks.NETWORKS, name, table)


def state_dict(weights=OWT):
    return {
        f"{name}.{part}": array
        for name, pair in weights.items()
        for part, array in zip(("weight", "bias"), pair, strict=True)
    }


def images(side, batch=2):
    """Whole RGB pictures, f32[B, S, S, 3], 0 to 255."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (batch, side, side, 3)).astype("f4")


def our_logits(imported, pictures):
    """Run an imported network on pictures of its own input size."""
    table = networks.NETWORKS[imported.meta.network]
    mesh = make_mesh(table, devices=1)
    classes = len(imported.meta.classes)
    graph = model.graph(table, classes)
    mean = augment.centre(jnp.asarray(imported.preprocess.mean), table.input_size)
    x = (pictures - mean) * imported.preprocess.scale
    run = jax.shard_map(
        lambda x, params: model.merge(graph, params)(x, None, dtype=np.float32),
        mesh=mesh,
        in_specs=(BATCH, model.param_specs(table, classes)),
        out_specs=BATCH,
    )
    return jax.jit(run)(x, imported.params)


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("old", [False, True], ids=["layer", "V1 layers"])
@pytest.mark.parametrize("pool_first", [False, True], ids=["caffe", "caffenet"])
def test_a_caffemodel_gives_caffes_logits(old, pool_first, tmp_path):
    raw = foreign.caffemodel(CAFFE, old=old, pool_first=pool_first)
    imported = importing.read(write(tmp_path / "a", raw), classes=CLASSES)
    assert imported.meta.network == ("caffenet" if pool_first else "caffe")
    assert (imported.meta.resize, imported.meta.image_size) == ("stretch", 256)
    pictures = images(227)
    bgr = pictures[..., ::-1] - np.array(BGR, "f4")
    wanted = foreign.caffe_logits(bgr.transpose(0, 3, 1, 2), CAFFE, pool_first)
    np.testing.assert_allclose(
        our_logits(imported, pictures), wanted, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["zip", "stream", "tar"])
def test_a_pth_file_of_any_age_gives_torchvisions_logits(kind, tmp_path):
    foreign.torch_file(state_dict(), kind, tmp_path / "a")
    imported = importing.read(tmp_path / "a", classes=CLASSES)
    assert (imported.meta.network, imported.meta.resize) == ("owt", "crop")
    pictures = images(224)
    x = pictures / 255 - np.array([0.485, 0.456, 0.406], "f4")
    x = (x / np.array([0.229, 0.224, 0.225], "f4")).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        our_logits(imported, pictures), foreign.owt_logits(x, OWT), rtol=1e-4, atol=1e-3
    )


def test_npz_and_safetensors_hold_the_same_as_pth(tmp_path):
    from safetensors.numpy import save_file

    foreign.torch_file(state_dict(), "zip", tmp_path / "a.pth")
    np.savez(tmp_path / "a.npz", **state_dict())
    save_file(state_dict(), tmp_path / "a.safetensors")
    one, *others = (
        importing.read(tmp_path / f"a.{kind}", classes=CLASSES)
        for kind in ("pth", "npz", "safetensors")
    )
    for other in others:
        assert other.meta.network == "owt"
        jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_a_safetensors_file_that_begins_as_a_pickle_is_none(tmp_path):
    from safetensors.numpy import save

    raw = save(state_dict())
    (length,) = struct.unpack("<q", raw[:8])
    header = raw[8 : 8 + length].ljust((length & ~0xFF) + 0x180)
    raw = struct.pack("<q", len(header)) + header + raw[8 + length :]
    assert raw[:1] == b"\x80"
    imported = importing.read(write(tmp_path / "a", raw), classes=CLASSES)
    assert imported.format == "safetensors"


def test_half_and_strided_tensors_are_read(tmp_path):
    state = state_dict()
    state["classifier.4.weight"] = state["classifier.4.weight"].T.copy().T
    foreign.torch_file(state, "stream", tmp_path / "a.pth")
    np.savez(tmp_path / "a.npz", **{k: v.astype("f2") for k, v in state.items()})
    strided = importing.read(tmp_path / "a.pth", classes=CLASSES)
    half = importing.read(tmp_path / "a.npz", classes=CLASSES)
    wanted = state["classifier.4.weight"].T
    np.testing.assert_array_equal(strided.params["fc7"]["kernel"], wanted)
    np.testing.assert_array_equal(half.params["fc7"]["kernel"], wanted.astype("f2"))


def test_preprocessing_in_the_file_is_carried_over(tmp_path):
    transform = foreign.number(1, 0.5) + foreign.number(3, 224)
    transform += b"".join(foreign.number(5, value) for value in (100.0, 110.0, 120.0))
    raw = foreign.caffemodel(CAFFE, transform=transform)
    imported = importing.read(write(tmp_path / "a", raw), classes=CLASSES)
    assert imported.preprocess.mean[0, 0].tolist() == [120, 110, 100]
    assert imported.preprocess.scale.tolist() == [0.5] * 3
    assert imported.mean_from == "written in the file"
    assert imported.notes == ("trained on crops of 224 pixels; caffe reads 227",)


def test_a_mean_image_is_turned_to_rgb(tmp_path):
    mean = np.random.default_rng(3).uniform(0, 255, (3, 256, 256)).astype("f4")
    proto = b"".join(foreign.number(i, n) for i, n in enumerate((1, 3, 256, 256), 1))
    write(tmp_path / "mean.binaryproto", proto + foreign.message(5, mean.tobytes()))
    np.save(tmp_path / "mean.npy", mean)
    file = write(tmp_path / "a", foreign.caffemodel(CAFFE))
    for name in ("mean.binaryproto", "mean.npy"):
        found = importing.read(file, mean=tmp_path / name, classes=CLASSES)
        np.testing.assert_array_equal(
            found.preprocess.mean, mean[::-1].transpose(1, 2, 0)
        )


def test_an_import_is_a_checkpoint(tmp_path):
    file = write(tmp_path / "a", foreign.caffemodel(CAFFE, old=True))
    imported = importing.read(file, classes=CLASSES)
    path = importing.write(imported, tmp_path / "out")
    mesh = make_mesh(networks.NETWORKS["caffe"], devices=2)
    loaded = checkpoint.load(path, mesh)
    assert loaded.meta == imported.meta
    assert loaded.meta.origin == {
        "file": "a",
        "format": "caffemodel",
        "sha256": ANY,
        "known": None,
    }
    jax.tree.map(np.testing.assert_array_equal, loaded.params, imported.params)
    for ours, theirs in zip(loaded.preprocess, imported.preprocess, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def pth(pickled: bytes) -> bytes:
    """A PyTorch zip around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
    return file.getvalue()


def torch_bytes(state, kind, tmp_path):
    foreign.torch_file(state, kind, tmp_path / "made")
    return (tmp_path / "made").read_bytes()


class Run:
    """A pickle that would run a command."""

    def __reduce__(self):
        return print, ("a pickle was run",)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


RESNET = {
    "conv1.weight": np.ones((64, 3, 7, 7), "f4"),
    "bn1.weight": np.ones(64, "f4"),
    "bn1.bias": np.ones(64, "f4"),
    "fc.bias": np.ones(1000, "f4"),
}
NEAREST = "is no network known here; the nearest is"
STATE = "; save only the tensors, torch.save(model.state_dict(), FILE)"
READ = "Caffe's .caffemodel, PyTorch's .pth, .onnx, .safetensors and .npz are read"


def wrong_files(folder):
    """Yield bytes and what must be said of them, after the path."""
    yield b"", " is empty; get it again"
    yield b"name: 'AlexNet'\n", f" is a text file, not a file of weights; {READ}"
    yield (
        b"<!DOCTYPE html><html>",
        f" is a web page, not a file of weights; the download went wrong; {READ}",
    )
    yield (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        " is a pointer of Git LFS, not the file itself; fetch it with git lfs pull; "
        + READ,
    )
    yield (
        bytes(range(128, 256)) * 8,
        " is refused as a PyTorch file: its pickle uses EXT1, which no file of tensors "
        f"needs{STATE}",
    )
    yield b"\x00\xff" * 300, f" is of no known format; {READ}"
    whole = foreign.caffemodel(CAFFE)
    yield (
        whole[: len(whole) // 2],
        " is truncated or damaged: as a caffemodel it has a field of ",
    )
    yield (
        torch_bytes(state_dict(), "zip", folder)[:-40],
        " is truncated or damaged: it begins as a zip file but is none (File is not a "
        "zip file); get it again",
    )
    yield (
        torch_bytes(state_dict(), "stream", folder)[:-40],
        " is truncated or damaged: 120 bytes of numbers are named, 108 are left; get "
        "it again",
    )
    yield (
        pth(pickle.dumps(Run())),
        " is refused as a PyTorch file: its pickle asks for builtins.print, which is "
        f"no tensor; nothing of it was run{STATE}",
    )
    yield (
        pickle.dumps(Run()),
        " is refused as a PyTorch file: its pickle asks for builtins.print, which is "
        f"no tensor; nothing of it was run{STATE}",
    )
    yield (
        pickle.dumps({"a": 1}),
        " is refused as a PyTorch file: it is a Python pickle that PyTorch did not "
        f"write{STATE}",
    )
    yield (
        torch_bytes(RESNET, "zip", folder),
        f" {NEAREST} code2012, but conv1.weight is 64×3×7×7, not 96×3×11×11",
    )
    state = state_dict()
    state["features.3.weight"] = np.ones((4, 4, 3, 3), "f4")
    yield (
        torch_bytes(state, "zip", folder),
        " is no owt network: features.3.weight is 4×4×3×3, not 4×4×5×5",
    )
    del state["features.3.weight"]
    yield (
        torch_bytes(state, "zip", folder),
        " is no owt network: it has no tensor features.3.weight; it holds "
        "features.0.weight (4×3×11×11), features.0.bias (4), features.3.bias (4), 12 "
        "more",
    )
    yield (
        torch_bytes(state_dict() | {"extra": np.ones(3, "f4")}, "zip", folder),
        " is no owt network: it has tensors of other layers, extra (3)",
    )
    broken = state_dict()
    broken["features.0.weight"] = np.full((4, 3, 11, 11), np.nan, "f4")
    yield (
        torch_bytes(broken, "tar", folder),
        (": features.0.weight holds a number that is not finite"),
    )
    yield (
        foreign.caffemodel(CAFFE | {"conv2": foreign.draw({"": (8, 8, 5, 5)})[""]}),
        f" {NEAREST} caffe, but conv2.weight is 8×8×5×5, not 8×4×5×5",
    )
    yield (
        foreign.caffemodel({k: v for k, v in CAFFE.items() if k != "fc7"}),
        f" {NEAREST} caffe, but it has no tensor fc7.weight; it holds conv1.weight "
        "(8×3×11×11), conv1.bias (8), conv2.weight (8×4×5×5), 11 more",
    )
    yield (
        npz(a=np.array([{}], object)),
        " is no npz file of arrays: it holds Python objects, which are not read; save "
        "plain arrays",
    )
    header = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}})
    yield (
        struct.pack("<q", len(header)) + header.encode(),
        " is truncated or damaged: as safetensors, ",
    )
    yield (
        b"\x08\x08\x3a\xff\x01abc",
        " is truncated or damaged: as an ONNX model it has a field of 255 bytes, 3 are "
        "left; get it again",
    )


def test_a_wrong_file_gets_one_line_and_writes_nothing(tmp_path, capsys, monkeypatch):
    from alexnet_cli.main import main

    monkeypatch.chdir(tmp_path)
    made = tmp_path / "made-elsewhere"
    made.mkdir()
    (tmp_path / "names").write_text("\n".join(CLASSES))
    for raw, said in list(wrong_files(made)):
        (tmp_path / "bad").write_bytes(raw)
        with pytest.raises(SystemExit) as ending:
            main(["import", "bad", "--out", "out", "--labels", "names"])
        told = capsys.readouterr()
        assert ending.value.code == 1
        assert told.out == ""
        assert told.err.startswith(f"error: bad{said}"), told.err
        assert told.err.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_read(tmp_path, capsys, monkeypatch):
    from alexnet_cli.main import main

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.caffemodel", foreign.caffemodel(CAFFE))
    (tmp_path / "names").write_text("\n".join(CLASSES))
    arguments = ["net.caffemodel", "--out", "out", "--labels", "names"]
    with pytest.raises(SystemExit) as ending:
        main(["import", *arguments])
    assert ending.value.code == 0
    told = capsys.readouterr().out
    parameters = sum(array.size for pair in CAFFE.values() for array in pair)
    assert f"caffe, {parameters:,} parameters in 16 tensors" in " ".join(told.split())
    assert "alexnet predict PICTURE --ckpt out" in told
    with pytest.raises(SystemExit) as ending:
        main(["import", *arguments])
    assert ending.value.code == 1
    assert capsys.readouterr().err == (
        "error: out holds something already; choose a new folder\n"
    )


def test_what_the_file_cannot_tell_is_asked_for(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        **{
            f"{name}.{part}": array
            for name, pair in CAFFE.items()
            for part, array in zip(("weight", "bias"), pair, strict=True)
        },
    )
    with pytest.raises(
        WeightsError, match=r"fits caffe, caffenet alike .* name it with --network"
    ):
        importing.read(tmp_path / "a.npz", classes=CLASSES)
    with pytest.raises(WeightsError, match="has 5 classes and does not name them"):
        importing.read(tmp_path / "a.npz", network="caffe")
