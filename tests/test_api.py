"""The front door: the example in its docstring works, and opening it costs nothing."""

import doctest
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import alexnet_jax
from alexnet_jax import data, evaluate, steps


def test_importing_the_library_loads_no_jax():
    """In a fresh interpreter."""
    code = (
        "import sys, alexnet_jax; dir(alexnet_jax); "
        "print([m for m in ('jax', 'flax', 'optax', 'orbax', 'grain', 'numpy', "
        "'tensorflow_datasets', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_every_name_that_is_promised_is_there():
    assert sorted(dir(alexnet_jax)) == sorted(alexnet_jax.__all__)
    for name in alexnet_jax.__all__:
        assert getattr(alexnet_jax, name)
    with pytest.raises(AttributeError, match="has no attribute 'resnet'"):
        alexnet_jax.resnet  # noqa: B018


@pytest.fixture
def one_device(monkeypatch):
    """As on a machine with one device: compiling for eight takes its time."""
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: one)


def test_the_example_of_the_docstring(tmp_path, monkeypatch, one_device):
    monkeypatch.chdir(tmp_path)
    source, _ = data.open_split("digits", "test")
    index = next(i for i in range(len(source)) if source[i].label == 3)
    pixels = np.asarray(source[index].image)
    Image.fromarray(pixels[..., 0]).save("three.png")
    example = doctest.DocTestParser().get_examples(alexnet_jax.__doc__ or "")
    assert len(example) >= 6
    names: dict = {}
    values = []
    for line in example:
        try:
            values.append(eval(line.source, names))
        except SyntaxError:
            exec(line.source, names)
    *_, answers, result = values
    assert (tmp_path / "runs" / "mine" / "recipe.toml").exists()
    (answer,) = answers
    assert answer.image == "three.png"
    assert len(answer.guesses) == 3
    assert result.images == 360
    assert result.top1_error < 0.3  # a hundred steps; guessing errs on 90%


def test_a_classifier_is_the_library_in_few_words(digits_run, one_device):
    classifier = alexnet_jax.load(str(digits_run))
    assert classifier.classes == list("0123456789")
    assert classifier.loaded.path == digits_run / "checkpoints" / "60"
    source, _ = data.open_split("digits", None)
    *_, wanted = evaluate.evaluate(classifier.loaded, source, classifier.mesh)
    assert classifier.evaluate("digits") == wanted
    train = classifier.evaluate("digits", split="train[:100]", batch_size=50)
    assert train.images == 100
    with pytest.raises(alexnet_jax.AlexNetError, match="no checkpoint at"):
        alexnet_jax.load(digits_run / "61")


def test_a_second_answer_compiles_nothing(digits_run, one_device, caplog):
    classifier = alexnet_jax.load(digits_run)

    def compiled():
        caplog.clear()
        with jax.log_compiles():
            (answer,) = classifier.predict([np.full((8, 8), 7, np.uint8)], top=3)
        assert len(answer.guesses) == 3
        return [r.message for r in caplog.records if "Compiling" in r.message]

    steps.forward.cache_clear()
    assert compiled()
    assert not compiled()


def test_devices_are_the_callers_choice(digits_run):
    classifier = alexnet_jax.load(digits_run, devices=4, towers=2)
    assert dict(classifier.mesh.shape) == {"data": 2, "tower": 2}
    with pytest.raises(alexnet_jax.AlexNetError, match="--devices 9: this machine has"):
        alexnet_jax.load(digits_run, devices=9)
