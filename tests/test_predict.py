"""Prediction: one answer for every input, in order, whatever the inputs are."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import checkpoint, data
from alexnet_jax.data.imagenet import class_names
from alexnet_jax.errors import ConfigError
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network
from alexnet_jax.predict import expand, predict


def one_device():
    return make_mesh(network("digits"), devices=1)


@pytest.fixture(scope="module")
def loaded(digits_run):
    return checkpoint.load(digits_run, one_device())


@pytest.fixture(scope="module")
def digits():
    """Some digits of the test split as pixels, ``u8[8, 8, 1]``."""
    source, _ = data.open_split("digits", "test")
    return [source[index].image for index in range(50)]


def ask(loaded, pictures, **options):
    return list(predict(loaded, pictures, one_device(), **options))


def probabilities(answers):
    """Return ``[answers, classes]``, in the order of the classes."""
    return np.array(
        [
            [guess.probability for guess in sorted(a.guesses, key=lambda g: g.index)]
            for a in answers
        ]
    )


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(out, "PNG")
    return out.getvalue()


# Answers.


def test_files_bytes_and_pixels_get_the_same_answer_in_order(loaded, digits, tmp_path):
    files = []
    for number, pixels in enumerate(digits[:3]):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(png(pixels))
    mixed = [
        str(files[2]),
        png(digits[0]),
        digits[1],
        files[0],
        digits[2],
        digits[1][..., 0],
    ]
    answers = ask(loaded, mixed, top=10)
    assert [answer.image for answer in answers] == [
        str(files[2]),
        "<bytes>",
        "<array>",
        str(files[0]),
        "<array>",
        "<array>",
    ]
    found = probabilities(answers)
    for same in ((0, 4), (1, 3), (2, 5)):
        np.testing.assert_array_equal(found[same[0]], found[same[1]])
    assert not np.allclose(found[0], found[1])


def test_guesses_are_the_best_first_and_sum_to_one(loaded, digits):
    for answer in ask(loaded, digits, top=10):
        given = [guess.probability for guess in answer.guesses]
        assert given == sorted(given, reverse=True)
        assert sum(given) == pytest.approx(1, abs=1e-5)
        assert sorted(guess.index for guess in answer.guesses) == list(range(10))
        assert all(guess.label == str(guess.index) for guess in answer.guesses)
        assert answer.error is None
    for top in (1, 3, 99):
        (answer,) = ask(loaded, digits[:1], top=top)
        assert len(answer.guesses) == min(top, 10)


def test_labels_of_ones_own(loaded, digits):
    names = [f"digit {n}" for n in range(10)]
    (answer,) = ask(loaded, digits[:1], labels=names)
    assert all(g.label == f"digit {g.index}" for g in answer.guesses)


def test_imagenets_classes_have_readable_labels(loaded, digits):
    ids = [*class_names()[130:139], "n99999999"]
    meta = dataclasses.replace(loaded.meta, classes=ids)
    called = dataclasses.replace(loaded, meta=meta)
    (answer,) = ask(called, digits[:1], top=10)
    (plain,) = ask(loaded, digits[:1], top=10)
    labels = {guess.index: guess.label for guess in answer.guesses}
    assert labels[0] == "flamingo"
    assert labels[4] == "crane bird"
    assert labels[9] == "n99999999"  # no class of ImageNet's, yet a WordNet id
    for guess, other in zip(answer.guesses, plain.guesses, strict=True):
        assert guess.wordnet_id == ids[guess.index]
        assert (guess.index, guess.probability) == (other.index, other.probability)
        assert other.wordnet_id is None
    (answer,) = ask(called, digits[:1], labels=list("abcdefghij"))
    assert answer.guesses[0].label == "abcdefghij"[answer.guesses[0].index]
    assert answer.guesses[0].wordnet_id == ids[answer.guesses[0].index]


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_a_picture_alone_or_among_many_gets_the_same_answer(batch_size, loaded, digits):
    whole = probabilities(ask(loaded, digits, top=10, batch_size=50))
    found = probabilities(ask(loaded, digits, top=10, batch_size=batch_size))
    assert found.shape == (50, 10)
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_two_devices_give_the_same_answers(digits_run, loaded, digits):
    mesh = make_mesh(network("digits"), devices=4, towers=2)
    spread = checkpoint.load(digits_run, mesh)
    found = probabilities(predict(spread, digits[:5], mesh, top=10))
    np.testing.assert_allclose(
        found, probabilities(ask(loaded, digits[:5], top=10)), atol=1e-6
    )


def test_unreadable_pictures_have_an_error_and_the_others_an_answer(
    loaded, digits, tmp_path
):
    good = tmp_path / "good.png"
    good.write_bytes(png(digits[0]))
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(png(digits[0])[:60])
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    inputs = [
        tmp_path / "empty.png",
        good,
        tmp_path / "gone.png",
        tmp_path / "cut.png",
        b"no picture",
        good,
        tmp_path / "folder.jpg",
        tmp_path / "link.png",
        np.zeros((4, 4, 7), np.uint8),
        "x" * 300,
        good,
    ]
    for batch_size in (1, 4, 32):
        answers = ask(loaded, inputs, batch_size=batch_size)
        assert len(answers) == len(inputs)
        for given, answer in zip(inputs, answers, strict=True):
            if given is good:
                assert answer.error is None
                assert len(answer.guesses) == 5
            else:
                assert answer.guesses == ()
                assert answer.error is not None
                assert "\n" not in answer.error
    wanted = {0: "empty", 2: "no such file", 6: "is a directory", 7: "is a link to"}
    for place, text in wanted.items():
        assert text in str(answers[place].error)


def test_nothing_in_nothing_out(loaded):
    assert ask(loaded, []) == []


def test_only_bad_pictures(loaded):
    assert [bool(a.error) for a in ask(loaded, [b"", b"?"])] == [True, True]


def test_pictures_are_taken_as_they_are_needed(loaded, digits):
    """A stream may be endless: the first answers come before its end is seen."""
    taken = 0

    def stream():
        nonlocal taken
        while True:
            taken += 1
            yield digits[0]

    answers = predict(loaded, stream(), one_device(), batch_size=4)
    assert next(answers).error is None
    assert taken < 40
    answers.close()  # pyright: ignore[reportAttributeAccessIssue] # it is a generator


# Refusals.


def test_labels_that_do_not_fit(loaded, digits):
    with pytest.raises(ConfigError) as raised:
        ask(loaded, digits[:1], labels=["a", "b"])
    assert str(raised.value) == (
        f"2 labels given, but the checkpoint {loaded.path} has 10 classes; "
        "give one a line, in order"
    )


def test_no_class_at_all(loaded, digits):
    with pytest.raises(ConfigError) as raised:
        ask(loaded, digits[:1], top=0)
    assert str(raised.value) == "--top 0: ask for at least 1 class"


def test_views_that_the_checkpoint_does_not_allow(loaded, digits):
    with pytest.raises(ConfigError, match="--views 10: this checkpoint allows 1; "):
        ask(loaded, digits[:1], views=10)


# Which files.


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with pictures below it, and the folder above it as the current one."""
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/d.x"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "bare").mkdir()
    (tmp_path / "odd[1].png").touch()
    (tmp_path / "dir.png").mkdir()
    (tmp_path / "link.png").symlink_to("gone")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["in"], ["in/a.JPG", "in/b.png", "in/sub/c.webp"]),  # by name, and below
        (["in/notes.txt"], ["in/notes.txt"]),  # a file is what the user says it is
        (["in/*.png"], ["in/b.png"]),
        (["in/**/*.webp"], ["in/sub/c.webp"]),
        (["in/b.png", "in/a.JPG", "in/b.png"], ["in/b.png", "in/a.JPG", "in/b.png"]),
        (["odd[1].png"], ["odd[1].png"]),  # a file first, a pattern second
        (["bare"], ["bare"]),  # what leads nowhere stays, and gets an error
        (["*.gif", "gone.png"], ["*.gif", "gone.png"]),
        (["dir.png"], ["dir.png"]),
        (["link.png"], ["link.png"]),
        (["x" * 300, "~nobody-of-this-name/x"], ["x" * 300, "~nobody-of-this-name/x"]),
        ([], []),
    ],
)
def test_files_folders_and_patterns(given, wanted, tree):
    del tree
    assert expand(given) == wanted


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    names = [f"{n:02}.png" for n in range(30)]
    for name in np.random.default_rng(0).permutation(names):
        (tmp_path / name).touch()
    wanted = [str(tmp_path / name) for name in names]
    assert expand([str(tmp_path)]) == wanted
    assert expand([f"{tmp_path}/*.png"]) == wanted


def test_a_home_is_expanded(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    assert expand(["~/in/b.png"]) == [str(tree / "in" / "b.png")]
    assert expand(["~/in/*.png"]) == [str(tree / "in" / "b.png")]
