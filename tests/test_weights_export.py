"""Weights out: what is written comes back bit for bit, and runs elsewhere alike."""

from dataclasses import replace

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from alexnet_jax import augment, checkpoint, model, networks
from alexnet_jax.augment import Preprocess
from alexnet_jax.checkpoint import Loaded, Meta
from alexnet_jax.errors import ConfigError
from alexnet_jax.mesh import BATCH, make_mesh
from alexnet_jax.table import Relu, Tanh
from alexnet_jax.weights import exporting, importing

# Each kind of row: two towers with norms of their own, a norm over a square and windows
# that hang over; groups with norms over both; dense layers of a tower's own; one tower
# with the floor rule; pools of means; kernels that differ from place to place.
TABLES = {
    name: foreign.small(networks.NETWORKS[name], 5)
    for name in (
        *("digits", "paper", "no-crosstalk", "caffe", "caffenet", "owt"),
        *("cifar-80sec", "cifar-conv-local-13pct"),
    )
}
TABLES["tanh"] = replace(
    TABLES["cifar-80sec"],
    name="tanh",
    rows=tuple(
        Tanh(row.name) if isinstance(row, Relu) else row
        for row in TABLES["cifar-80sec"].rows
    ),
)
WRITABLE = {
    "safetensors": set(TABLES),
    "torchvision": {"owt"},
    "caffemodel": {"caffe", "caffenet", "owt", "cifar-80sec", "tanh"},
    "onnx": set(TABLES) - {"cifar-conv-local-13pct"},
}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Give the published networks few filters, so that their files are small."""
    for name, table in TABLES.items():
        monkeypatch.setitem(networks.NETWORKS, name, table)


def some(name, tmp_path, *, flat=False):
    """Return random weights of a network, as a checkpoint would be loaded."""
    table, rng = TABLES[name], np.random.default_rng(5)
    shapes = jax.eval_shape(lambda: model.init(table, 5, jax.random.key(0)))
    params = jax.tree.map(
        lambda leaf: (
            rng.normal(size=leaf.shape) * 2 / max(1, leaf.size // leaf.shape[-1]) ** 0.5
        ).astype("f4"),
        shapes,
    )
    side = table.input_size + 5
    mean = rng.uniform(90, 160, (side, side, table.channels)).astype("f4")
    if flat:
        mean = np.broadcast_to(mean[:1, :1], mean.shape)
    prepare = Preprocess(
        mean=mean,
        components=rng.normal(size=(table.channels, table.channels)).astype("f4"),
        scale=rng.uniform(0.01, 0.02, table.channels).astype("f4"),
    )
    meta = Meta(
        network=name,
        classes=["a", "b", "c", "d", "é"],
        image_size=side,
        views=[10, 1],
        precision="f32",
        resize="stretch",
    )
    return Loaded(tmp_path, meta, jax.device_put(params), prepare), make_mesh(
        table, devices=1
    )


def pictures(name):
    side, colours = TABLES[name].input_size, TABLES[name].channels
    rng = np.random.default_rng(2)
    return rng.uniform(0, 255, (2, side, side, colours)).astype("f4")


def logits(loaded, mesh, images):
    table = TABLES[loaded.meta.network]
    graph = model.graph(table, 5)
    mean = augment.centre(jnp.asarray(loaded.preprocess.mean), table.input_size)
    run = jax.shard_map(
        lambda x, params: model.merge(graph, params)(x, None, dtype=jnp.float32),
        mesh=mesh,
        in_specs=(BATCH, model.param_specs(table, 5)),
        out_specs=BATCH,
    )
    return jax.jit(run)((images - mean) * loaded.preprocess.scale, loaded.params)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (n, form)
        for form, names in WRITABLE.items()
        for n in sorted(set(TABLES) - names)
    ],
)
def test_what_a_format_cannot_hold_is_refused(name, form, tmp_path):
    loaded, mesh = some(name, tmp_path)
    with pytest.raises(ConfigError, match=f"{name}.* export it as safetensors"):
        exporting.export(loaded, mesh, form, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "form", "flat"),
    [(name, form, False) for form, names in WRITABLE.items() for name in sorted(names)]
    + [("owt", form, True) for form in WRITABLE],
)
def test_what_is_exported_comes_back_bit_for_bit(name, form, flat, tmp_path):
    loaded, mesh = some(name, tmp_path, flat=flat)
    out = tmp_path / "file"
    exporting.export(loaded, mesh, form, out)
    back = importing.read(out)
    assert replace(back.meta, origin=None) == loaded.meta
    jax.tree.map(np.testing.assert_array_equal, back.params, loaded.params)
    for ours, theirs in zip(back.preprocess, loaded.preprocess, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "name", ["digits", "paper", "no-crosstalk", "caffe", "owt", "cifar-80sec", "tanh"]
)
def test_onnxruntime_gives_the_same_logits(name, tmp_path):
    loaded, mesh = some(name, tmp_path)
    exporting.export(loaded, mesh, "onnx", tmp_path / "a.onnx")
    images = pictures(name)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (given,) = session.run(["logits"], {"image": images.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(
        np.asarray(given), logits(loaded, mesh, images), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["digits", "cifar-conv-local-13pct"])
def test_stablehlo_gives_the_same_logits_for_any_batch(name, tmp_path):
    loaded, mesh = some(name, tmp_path)
    exporting.export(loaded, mesh, "stablehlo", tmp_path / "a")
    program = jax.export.deserialize(bytearray((tmp_path / "a").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "rocm", "tpu")
    images = pictures(name)
    wanted = logits(loaded, mesh, images)
    np.testing.assert_allclose(
        program.call(images[:1]), wanted[:1], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(program.call(images), wanted, rtol=1e-5, atol=1e-5)


def test_the_files_are_what_other_programs_read(tmp_path):
    """The numpy forward pass of others, on the weights as they are in the file."""
    import io
    import pickle
    import zipfile

    loaded, mesh = some("owt", tmp_path, flat=True)
    exporting.export(loaded, mesh, "torchvision", tmp_path / "a.pth")
    archive = zipfile.ZipFile(tmp_path / "a.pth")

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if name == "_rebuild_tensor_v2":
                return lambda storage, start, shape, stride, *_: storage.reshape(shape)
            return super().find_class(module, name) if name == "OrderedDict" else name

        def persistent_load(self, pid):
            raw = archive.read(f"archive/data/{pid[2]}")
            assert pid[:2] == ("storage", "FloatStorage")
            return np.frombuffer(raw, "<f4", pid[4])

    state = Unpickler(io.BytesIO(archive.read("archive/data.pkl"))).load()
    assert list(state) == [
        f"{name}.{part}" for name in foreign.OWT for part in ("weight", "bias")
    ]
    images = pictures("owt")
    x = (images - loaded.preprocess.mean[0, 0]) * loaded.preprocess.scale
    weights = {
        name: (state[f"{name}.weight"], state[f"{name}.bias"]) for name in foreign.OWT
    }
    np.testing.assert_allclose(
        foreign.owt_logits(x.transpose(0, 3, 1, 2), weights),
        logits(loaded, mesh, images),
        rtol=1e-4,
        atol=1e-4,
    )


def test_nothing_is_overwritten_and_no_other_format_known(tmp_path):
    loaded, mesh = some("owt", tmp_path)
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ConfigError, match="a exists and is not overwritten"):
        exporting.export(loaded, mesh, "onnx", tmp_path / "a")
    with pytest.raises(ConfigError, match="--format keras: there are safetensors, "):
        exporting.export(loaded, mesh, "keras", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "mine"


def test_the_command_exports_a_checkpoint(tmp_path, capsys):
    from alexnet_cli.main import main

    loaded, _ = some("digits", tmp_path)
    path, out = tmp_path / "ckpt", tmp_path / "digits.safetensors"
    checkpoint.write(path, loaded.params, loaded.preprocess, loaded.meta)
    arguments = ["--ckpt", str(path), "--format", "safetensors", "--out", str(out)]
    with pytest.raises(SystemExit) as ending:
        main(["export", *arguments])
    assert ending.value.code == 0
    assert "digits, 5 classes" in capsys.readouterr().out
    back = importing.read(out)
    assert (back.meta.classes, back.mean_from) == (
        loaded.meta.classes,
        "written in the file",
    )
