"""A run's pictures: pixels that can be worked out by hand, files that can be read."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import data, figures
from alexnet_jax.data import ArraySource
from alexnet_jax.errors import ConfigError
from alexnet_jax.figures import kernels

# Filters.


def test_a_sheet_of_kernels_pixel_by_pixel():
    kernel = np.zeros((2, 2, 1, 3), "f4")
    kernel[:, :, 0, 0] = [[0, 1], [-1, 0.5]]
    kernel[:, :, 0, 1] = [[1, 1], [1, 1]]
    kernel[:, :, 0, 2] = [[-1, -0.5], [0, 0]]
    wanted = [
        [0.5, 1.0, 1, 1.0, 1.0, 1, 0.0, 0.25],  # white lines between kernels
        [0.0, 0.75, 1, 1.0, 1.0, 1, 0.5, 0.5],
    ]
    np.testing.assert_allclose(kernels.sheet(kernel, -1.0, 1.0)[..., 0], wanted)
    # Contrast is one for all, from the weight that is black to the one that is white.
    wide = kernels.sheet(kernel, -1.0, 3.0)
    np.testing.assert_allclose(wide[0, :2, 0], [0.25, 0.5])


def test_kernels_run_along_lines_of_sixteen_and_the_rest_is_white():
    kernel = np.zeros((1, 1, 3, 18), "f4")
    kernel[0, 0, :, 16] = [-1, 0, 1]  # the first of the second line, in colour
    drawn = kernels.sheet(kernel, -1.0, 1.0)
    assert drawn.shape == (3, 31, 3)
    assert drawn[2, 0].tolist() == [0, 0.5, 1]
    assert (drawn[0, ::2] == 0.5).all()
    assert (drawn[1] == 1).all()
    assert (drawn[2, 3:] == 1).all()


@pytest.mark.parametrize(
    ("towers", "colours", "suffix"), [(1, 1, "png"), (2, 1, "svg"), (2, 3, "png")]
)
def test_each_tower_has_its_panel(towers, colours, suffix, tmp_path, monkeypatch):
    panels = []
    draw = kernels.sheet

    def spy(kernel, low, high):
        panels.append((kernel, low, high))
        return draw(kernel, low, high)

    monkeypatch.setattr(kernels, "sheet", spy)
    kernel = np.random.default_rng(0).normal(size=(5, 5, colours, 8)).astype("f4")
    out = tmp_path / f"filters.{suffix}"
    figures.filters(kernel, towers, out, title="digits-1 & $x_1$")
    own = 8 // towers
    assert len(panels) == towers
    for tower, (shown, low, high) in enumerate(panels):
        np.testing.assert_array_equal(
            shown, kernel[..., tower * own : (tower + 1) * own]
        )
        assert (low, high) == (kernel.min(), kernel.max())
    assert list(tmp_path.iterdir()) == [out]
    if suffix == "svg":
        assert out.read_text().startswith("<?xml")
        return
    with Image.open(out) as image:
        assert image.format == "PNG"
        # Black and white are in it, each pixel of a kernel a square of one colour.
        shown = np.asarray(image.convert("RGB"))
        zoom = (1024 - 64) // (8 // towers * 6 - 1)
        top = 110 + (36 if towers == 2 else 0)
        first = shown[top : top + 5 * zoom, 32 : 32 + 5 * zoom]
        cells = first.reshape(5, zoom, 5, zoom, 3)
        assert (cells == cells[:, :1, :, :1]).all()
        grey = (kernel[..., 0] - kernel.min()) / (kernel.max() - kernel.min())
        wanted = np.broadcast_to(grey * 255, (5, 5, 3))
        np.testing.assert_allclose(cells[:, 0, :, 0], wanted, atol=2)


def test_kernels_of_zeros_are_grey(tmp_path):
    figures.filters(np.zeros((3, 3, 1, 4), "f4"), 1, tmp_path / "f.png", title="t")
    with Image.open(tmp_path / "f.png") as image:
        assert {127, 128} & set(image.convert("L").tobytes())


def test_the_share_of_chroma_by_hand():
    kernel = np.zeros((1, 1, 3, 4), "f4")
    kernel[0, 0, :, 0] = [2, 2, 2]  # grey
    kernel[0, 0, :, 1] = [3, 0, 0]  # red: 9, of which 3 * 1 * 1 are grey
    kernel[0, 0, :, 2] = [1, -1, 0]  # as red as it is not green
    # The fourth is nothing, so it has no colour.
    found = figures.chroma(kernel, 2)
    assert np.allclose(found.shares, [[0, 2 / 3], [1, 0]])
    assert np.allclose(found.medians, [1 / 3, 1 / 2])
    # (0, 1), (0, 0), (2/3, 1), (2/3, 0): the second has more in 2 and a half of 4.
    assert (found.coloured, found.separation) == (2, 2.5 / 4)
    mirrored = figures.chroma(kernel[..., [2, 3, 0, 1]], 2)
    assert (mirrored.coloured, mirrored.separation) == (1, 2.5 / 4)
    whole = figures.chroma(kernel, 1)
    assert (whole.coloured, whole.separation) == (None, None)
    assert np.allclose(whole.medians, [1 / 3])


def test_kernels_of_noise_have_two_thirds():
    kernel = np.random.default_rng(0).normal(size=(11, 11, 3, 96)).astype("f4")
    found = figures.chroma(kernel, 2)
    assert np.allclose(found.medians, kernels.NOISE, atol=0.01)
    assert found.separation is not None
    assert found.separation < 0.6


def test_places_that_a_picture_cannot_go_to(tmp_path):
    for path, words in {
        tmp_path / "x.jpg": r"written as \.png or \.svg; let the name end so",
        tmp_path / "gone" / "x.png": "gone does not exist; make it first",
    }.items():
        with pytest.raises(ConfigError, match=words):
            figures.check_picture(path)
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ConfigError, match=r"^--figure .* is a folder; name a file$"):
        figures.check_picture(tmp_path / "x.png", "--figure")
    assert figures.check_picture(tmp_path / "y.SVG") == tmp_path / "y.SVG"


# Curves.


@pytest.mark.parametrize("many", [0, 1, 30])
def test_curves_of_any_length(many, tmp_path):
    rows = []
    for step in range(many):
        when = {"step": step, "epoch": step / 2}
        rows += [
            {"split": "train", **when, "loss": 2.0, "top1_error": 0.5},
            {"split": "train", **when, "update_ratios": {"conv1": 0.1}},
            {"split": "eval", **when, "log_prob": -1.0, "top1_error": 0.4},
        ]
    figures.learning_curves(rows, tmp_path / "curves.png", title="digits-1")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1080, 432)


# Samples.


def test_samples_are_evenly_spaced_pictures_of_the_split(tmp_path):
    source, _ = data.open_split("digits", "test")
    written = figures.write_samples(source, tmp_path / "samples")
    assert len(written) == 10
    for number, path in enumerate(written):
        record = source[number * 36]
        assert path.name == f"{number:02d}-{record.label}.png"
        assert isinstance(record.image, np.ndarray)
        decoded = data.decode(path.read_bytes(), 8, 1)
        np.testing.assert_array_equal(decoded, record.image)


def colour_source(count, classes=("a/b c", "..")):
    rng = np.random.default_rng(0)
    return ArraySource(
        name="colours",
        classes=classes,
        images=rng.integers(0, 256, (count, 6, 6, 3), np.uint8),
        labels=(np.arange(count) % 2).astype("i4"),
        ids=[str(index) for index in range(count)],
    )


def test_few_pictures_are_all_written_and_names_stay_in_the_folder(tmp_path):
    source = colour_source(3)
    written = figures.write_samples(source, tmp_path / "samples")
    assert [path.name for path in written] == [
        "00-a-b-c.png",
        "01-.png",
        "02-a-b-c.png",
    ]
    for path, image in zip(written, source.images, strict=True):
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image)


def test_encoded_pictures_are_written_as_they_are(tmp_path):
    class Files:
        name = "files"
        classes = ("x",)
        files = (b"\xff\xd8jpeg", b"\x89PNGpng", b"GIFgif")

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return data.Record(self.files[index], 0, str(index))

    written = figures.write_samples(Files(), tmp_path / "samples")
    assert [path.name for path in written] == ["00-x.jpg", "01-x.png", "02-x.img"]
    assert [path.read_bytes() for path in written] == list(Files.files)
