"""Pictures of every kind become the same square of pixels, or one clear error."""

import contextlib
import io
import os
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageChops

from alexnet_jax.data import decode, read_image_file
from alexnet_jax.errors import ConfigError, ImageError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width, height, seed=0):
    """Make a smooth picture that has no symmetry: a low-resolution random one."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def gap(one, other):
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_halving_averages_by_hand():
    # Antialiased bilinear at half size: a triangle two pixels to each side, so
    # weights 1/8, 3/8, 3/8, 1/8 inside; at the edge the first is missing and the
    # others are scaled up: 3/7, 3/7, 1/7.
    row = np.array([10, 20, 40, 80], np.uint8)
    pixels = np.tile(row, (4, 1))
    first = (3 * 10 + 3 * 20 + 1 * 40) / 7
    second = (1 * 20 + 3 * 40 + 3 * 80) / 7
    result = decode(pixels, 2, 1)
    assert result.shape == (2, 2, 1)
    np.testing.assert_allclose(result[:, :, 0], [[first, second]] * 2, atol=0.51)


def test_the_centre_square_is_kept():
    pixels = np.zeros((4, 9), np.uint8)
    pixels[:, 2:6] = np.arange(1, 17).reshape(4, 4)
    np.testing.assert_array_equal(decode(pixels, 4, 1)[..., 0], pixels[:, 2:6])
    np.testing.assert_array_equal(decode(pixels.T, 4, 1)[..., 0], pixels[:, 2:6].T)


def test_pixels_of_the_right_size_are_returned_untouched():
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    assert decode(pixels, 8, 3) is pixels
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(pixels)), 8, 3), pixels
    )


@pytest.mark.parametrize("size", [(1, 1), (12000, 50), (50, 12000), (2, 3)])
def test_extreme_shapes(size):
    colour = (10, 200, 90)
    result = decode(encoded(Image.new("RGB", size, colour)), 16, 3)
    np.testing.assert_array_equal(result, np.broadcast_to(colour, (16, 16, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(41, 30), (30, 41)])  # odd left-over
def test_an_exif_turn_equals_the_upright_picture(orientation, size):
    upright = picture(*size)
    # What a camera stores so that the tag turns it back: the inverse of the turn.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode(encoded(stored, exif=exif), 16, 3)
    assert gap(turned, decode(encoded(upright), 16, 3)) <= 1  # order of two roundings


def test_a_turned_jpeg_of_the_right_size_is_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = picture(32, 32)
    turned = decode(encoded(stored, "JPEG", exif=exif), 32, 3)
    plain = decode(encoded(stored, "JPEG"), 32, 3)
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_the_turn_is_found_behind_other_segments():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = picture(32, 32)
    jpeg = encoded(stored, "JPEG", exif=exif)
    # A comment that holds what ends the header and what begins the pixels.
    comment = b"\xff\xda\0\x0cExif \xff\xd9"
    segment = b"\xff\xfe" + (2 + len(comment)).to_bytes(2) + comment
    late = jpeg[:2] + segment + jpeg[2:]
    np.testing.assert_array_equal(decode(late, 32, 3), decode(jpeg, 32, 3))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_pixels_go_where_they_are_wanted(form):
    batch = np.full((3, 32, 32, 3), 7, np.uint8)
    for size in (32, 40):  # of the right size, and scaled
        file = encoded(picture(size, size), form)
        given = decode(file, 32, 3, out=batch[1])
        assert np.shares_memory(given, batch)
        np.testing.assert_array_equal(batch[1], decode(file, 32, 3))
    pixels = np.asarray(picture(32, 32))
    decode(pixels, 32, 3, out=batch[1])
    np.testing.assert_array_equal(batch[1], pixels)
    assert (batch[::2] == 7).all()


def test_both_ways_of_decoding_a_jpeg_agree():
    for options in ({}, {"quality": 60, "subsampling": 0}, {"progressive": True}):
        file = encoded(picture(32, 32), "JPEG", **options)
        slow = np.asarray(Image.open(io.BytesIO(file)))
        np.testing.assert_array_equal(decode(file, 32, 3), slow)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_ways_of_decoding_a_png_agree(mode, channels):
    image = picture(33, 33).convert(mode)
    file = encoded(image)
    assert file[37:41] == b"IDAT"  # plain, so that it takes the short way
    long_way = encoded(image, dpi=(72, 72))
    assert long_way[37:41] != b"IDAT"
    one, two = decode(file, 33, channels), decode(long_way, 33, channels)
    np.testing.assert_array_equal(one, two)
    assert one.shape == (33, 33, channels)


def test_a_damaged_png_of_the_right_size():
    file = encoded(picture(33, 33))
    middle = len(file) // 2
    for damaged in (
        file[:middle] + bytes([file[middle] ^ 255]) + file[middle + 1 :],
        file[:middle],
        file[:60],
        file[:41] + b"\0\0\0\0" + file[45:],
    ):
        with pytest.raises(ImageError, match=r"cannot be decoded: "):
            decode(damaged, 33, 3)


def test_grey_and_colour():
    grey = picture(32, 32).convert("L")
    for kind in ("PNG", "JPEG"):
        file = encoded(grey, kind, **({"quality": 95} if kind == "JPEG" else {}))
        one, three = decode(file, 32, 1), decode(file, 32, 3)
        np.testing.assert_array_equal(three, np.repeat(one, 3, axis=2))
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
    red = decode(encoded(Image.new("RGB", (4, 4), (255, 0, 0))), 4, 1)
    assert np.all(red == round(0.299 * 255))
    bilevel = Image.new("1", (4, 4), 1)
    assert np.all(decode(encoded(bilevel), 4, 3) == 255)


def test_reduced_decoding_of_large_jpegs_keeps_the_pixels():
    file = encoded(picture(900, 1201), "JPEG", quality=95)
    full = Image.open(io.BytesIO(file)).convert("RGB")
    box = (0, 150, 900, 1050)
    exact = np.asarray(full.resize((32, 32), Image.Resampling.BILINEAR, box=box))
    result = decode(file, 32, 3)
    assert gap(result, exact) <= 4
    assert np.abs(result.astype(float) - exact).mean() < 1


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG")])
def test_transparency_is_laid_over_white(mode, kind):
    assert np.all(decode(encoded(Image.new(mode, (4, 4), 0), kind), 4, 3) == 255)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 1)
    result = decode(encoded(image, kind, transparency=0), 4, 3)
    assert result[0, 0].tolist() == [255, 0, 0]
    assert np.all(result[1:] == 255)


def test_half_transparent_black_is_grey():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.all(decode(encoded(image), 4, 3) == 127)
    assert np.all(decode(np.asarray(image), 4, 3) == 127)


def test_palette_with_an_alpha_for_each_entry():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 0, 0, 255])
    file = encoded(image, transparency=bytes([255, 0]))
    assert np.all(decode(file, 4, 3) == 255)


def test_cmyk_jpegs_with_and_without_the_adobe_marker():
    # Cyan only: no red, all of green and blue.
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    adobe = encoded(image, "JPEG", quality=100)
    assert b"Adobe" in adobe
    wanted = np.broadcast_to((0, 255, 255), (16, 16, 3))
    assert gap(decode(adobe, 16, 3), wanted) <= 2
    # Without the marker the values are not inverted. Pillow writes them inverted, so
    # the inverse is saved and the marker taken out.
    plain = bytearray(encoded(ImageChops.invert(image), "JPEG", quality=100))
    marker = plain.index(b"\xff\xee")
    length = int.from_bytes(plain[marker + 2 : marker + 4])
    del plain[marker : marker + 2 + length]
    assert gap(decode(bytes(plain), 16, 3), wanted) <= 2


def test_sixteen_bits():
    values = np.array([[0, 257], [65535, 128 * 257]], np.uint16)
    file = encoded(Image.fromarray(values))
    np.testing.assert_array_equal(decode(file, 2, 1)[..., 0], [[0, 1], [255, 128]])


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([[0.0, 0.5], [1.0, 0.25]], [[0, 128], [255, 64]]),
        ([[0.0, 100.0], [255.0, 7.0]], [[0, 100], [255, 7]]),
        ([[0.0, 257.0], [65535.0, 514.0]], [[0, 1], [255, 2]]),
        ([[-1.0, 0.0], [1.0, 1.0]], [[0, 128], [255, 255]]),
        ([[np.nan, 0.0], [1.0, np.inf]], [[0, 0], [255, 0]]),
    ],
)
def test_floats_are_scaled_by_their_range(values, wanted):
    file = encoded(Image.fromarray(np.array(values, np.float32)), "TIFF")
    np.testing.assert_array_equal(decode(file, 2, 1)[..., 0], wanted)


def test_32_bit_integers():
    file = encoded(Image.fromarray(np.array([[0, 257], [65535, 0]], np.int32)), "TIFF")
    np.testing.assert_array_equal(decode(file, 2, 1)[..., 0], [[0, 1], [255, 0]])


def test_lab_colours():
    image = Image.new("LAB", (4, 4), (255, 128, 128))  # L=100, a=b=0
    assert np.all(decode(encoded(image, "TIFF"), 4, 3) >= 253)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(
        decode(file, 8, 3), np.broadcast_to((255, 0, 0), (8, 8, 3))
    )


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF", "TGA", "ICO", "JPEG2000"])
def test_other_formats(kind):
    image = picture(32, 32)
    np.testing.assert_array_equal(
        decode(encoded(image, kind), 32, 3), np.asarray(image)
    )


def test_damage_is_one_line():
    good = encoded(picture(64, 64), "JPEG")
    png = encoded(picture(64, 64))
    cases = {
        "the file is empty": b"",
        "is not an image that Pillow can read": b"plain text",
        "cannot be decoded: .*truncated": good[: len(good) // 2],
        "(cannot be decoded|is not an image)": png[:40],
        "cannot be decoded: ": png[:100] + bytes(len(png) - 100),
    }
    for message, data in cases.items():
        with pytest.raises(ImageError, match=message) as caught:
            decode(data, 32, 3)
        assert "\n" not in str(caught.value)
        assert "0x" not in str(caught.value)


def test_a_truncated_jpeg_of_the_right_size_is_an_error_too():
    file = encoded(picture(64, 64), "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        decode(file[: len(file) // 2], 64, 3)


def test_decompression_bomb():
    # A header that claims 60000 x 60000, and nothing behind it.
    file = bytearray(encoded(Image.new("1", (8, 8))))
    file[16:24] = (60000).to_bytes(4) * 2
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4)
    with pytest.raises(ImageError, match=r"more than 178,956,970 pixels"):
        decode(bytes(file), 32, 3)


def test_large_pictures_below_the_bound_do_not_warn():
    file = encoded(Image.new("1", (12000, 8000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(file, 4, 3).shape == (4, 4, 3)


def test_odd_metadata_does_not_warn_in_threads():
    file = encoded(picture(40, 30), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decode(file, 16, 3), range(32)))
    assert all(np.array_equal(result, results[0]) for result in results)


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_never_escapes(seed):
    rng = np.random.default_rng(seed)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        file = bytearray(encoded(picture(24, 20, seed), kind))
        for _ in range(4):
            file[rng.integers(len(file))] = rng.integers(256)
        with contextlib.suppress(ImageError):
            assert decode(bytes(file), 16, 3).shape == (16, 16, 3)


def test_arrays_that_are_no_pictures():
    for array in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8)):
        with pytest.raises(ImageError, match=r"is an array .*; give uint8 \[H, W\]"):
            decode(array, 4, 3)
    with pytest.raises(ImageError, match=r"uint8\[0, 4\]"):
        decode(np.zeros((0, 4), np.uint8), 4, 3)


def test_channels():
    with pytest.raises(ConfigError, match="channels=4: a picture has 1"):
        decode(b"", 4, 4)


def test_read_image_file(tmp_path):
    good = tmp_path / "a.jpg"
    good.write_bytes(b"x")
    assert read_image_file(good) == b"x"
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to("gone.jpg")
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    cases = {
        "folder.jpg": "is a directory, not an image file",
        "dangling.jpg": "is a link to gone.jpg, which is missing",
        "empty.jpg": "the file is empty",
        "pipe.jpg": "is not a regular file",
        "missing.jpg": "no such file",
        "a.jpg/b.jpg": "cannot be read: Not a directory",
        "nul\0.jpg": "cannot be read: embedded null byte",
        "x" * 300: "cannot be read: File name too long",
    }
    for name, message in cases.items():
        with pytest.raises(ImageError, match=message) as caught:
            read_image_file(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_the_right_to_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image_file(path)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(375, 500), (300, 201), (33, 1000), (5, 7), (1, 1)])
def test_the_quick_resizer_is_pillows(shape, channels, resize, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, channels), np.uint8)
    quick = decode(pixels, 64, channels, resize)
    with monkeypatch.context() as patch:
        # The module, whose name in the package is the function's.
        module = sys.modules["alexnet_jax.data.decode"]
        patch.setattr(module, "cykooz_resizer", None)
        plain = decode(pixels, 64, channels, resize)
    assert gap(quick, plain) <= 2
