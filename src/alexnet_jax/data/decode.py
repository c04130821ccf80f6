"""Turn any picture into the square of pixels that the rest of the library reads.

Everything goes through Pillow: turned as its EXIF tag says, first frame only,
transparency laid over white, shorter side scaled to the wanted size with antialiasing
and the centre square kept (paper section 2). Two kinds of files that need none of this
take a shorter way to the same pixels: a JPEG of the wanted size, which is what a
prepared store holds (simplejpeg wraps the same libjpeg-turbo with the same settings),
and a plain PNG of the wanted size, which is what tfds writes of small pictures.
Scaling is Pillow's filter, computed by cykooz-resizer where that can be had: in a third
of the time, and to within two of 255 levels of Pillow's own.
"""

import io
import os
import stat
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageChops, ImageCms

from alexnet_jax.config import Resize
from alexnet_jax.errors import ConfigError, ImageError

try:
    import cykooz_resizer
except ImportError:  # no wheel for this machine
    cykooz_resizer = None

# Beyond this many pixels a file is taken for a decompression bomb (Pillow's own bound
# for an error; it only warns at half of it, where real panoramas and scans lie).
MAX_PIXELS = 2 * (1024**3 // 4 // 3)

# libjpeg can decode at 1/2, 1/4 or 1/8 of the size far more cheaply. That is a coarser
# filter than ours, so it is used only while twice the wanted size is left for our own
# antialiased resize: on photographs that moves a pixel by less than one level on
# average (tested), and a 12-megapixel one is several times cheaper. Nearly all of
# ImageNet's pictures are too small for it to apply at 256.
_DRAFT_MARGIN = 2

_OWN = threading.local()  # a thread's resizer, with its buffers

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

# EXIF orientation -> whether the stored x and y axes run backwards when it is shown.
_MIRRORED = {
    1: (False, False),
    2: (True, False),
    3: (True, True),
    4: (False, True),
    5: (False, False),
    6: (False, True),
    7: (True, True),
    8: (True, False),
}
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    image: bytes | np.ndarray,
    image_size: int,
    channels: int,
    resize: Resize = "crop",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Decode a picture to a square of `image_size` pixels a side.

    Args:
        image: an encoded file of any format that Pillow reads, or pixels as
            ``u8[H, W]`` or ``u8[H, W, C]`` with C of 1, 3 or 4 (the fourth is alpha).
        image_size: side of the result in pixels.
        channels: 3 for RGB or 1 for grey (ITU-R 601 luma).
        resize: ``crop`` (shorter side to `image_size`, centre kept) or ``stretch``.
        out: where to put the result, contiguous; a JPEG of the right size is decoded
            straight into it. New memory when None.

    Returns:
        ``u8[image_size, image_size, channels]``: `out` where it is given, else an
        array that may share memory with `image`.

    Raises:
        ImageError: the picture cannot be decoded; one line with the cause.
        ConfigError: `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ConfigError(f"channels={channels}: a picture has 1 (grey) or 3 (RGB)")
    if isinstance(image, np.ndarray):
        pixels = image
        if image.shape != (image_size, image_size, channels) or image.dtype != np.uint8:
            pixels = _array(_square(_from_array(image), image_size, channels, resize))
    else:
        pixels = same_size_jpeg(image, image_size, channels, out)
        if pixels is None:
            pixels = _same_size_png(image, image_size, channels)
        if pixels is None:
            pixels = _array(_from_file(image, image_size, channels, resize))
    if out is None or pixels is out:
        return pixels
    out[...] = pixels
    return out


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Read one image file.

    Args:
        path: of the file.

    Returns:
        Its bytes, at least one.

    Raises:
        ImageError: it is missing, a dangling link, not a regular file, not readable
            or empty; the message starts with the path.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{path}: is a directory, not an image file")
        if not stat.S_ISREG(mode):
            # Opening a pipe or a device could wait for ever.
            raise ImageError(f"{path}: is not a regular file")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        if os.path.islink(path):
            target = os.readlink(path)
            raise ImageError(
                f"{path}: is a link to {target}, which is missing"
            ) from None
        raise ImageError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        cause = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{path}: cannot be read: {cause}") from None
    if not data:
        raise ImageError(f"{path}: the file is empty")
    return data


def same_size_jpeg(
    data: bytes, size: int, channels: int, out: np.ndarray | None = None
) -> np.ndarray | None:
    """Decode a JPEG that needs neither scaling nor turning nor another colour space.

    Args:
        data: an encoded file.
        size: of the sides that it must have, in pixels.
        channels: that it must have: 1 or 3.
        out: where to put the pixels, contiguous; new memory when None.

    Returns:
        ``u8[size, size, channels]``, `out` where it is given; or None for any other
        file or a damaged one.
    """
    if data[:3] != b"\xff\xd8\xff" or _has_exif(data):
        return None  # Exif may hold an orientation; such files are rare in a store
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if (height, width) != (size, size):
            return None
        if channels == 3 and colorspace in ("YCbCr", "RGB"):
            pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
        elif channels == 1 and colorspace == "Gray":
            pixels = simplejpeg.decode_jpeg(data, "GRAY", buffer=out)
        else:
            return None
    except ValueError:
        return None  # Pillow has the last word on what is damaged
    return pixels if out is None else out


def _has_exif(jpeg: bytes) -> bool:
    """Look for an Exif segment among those before the pixels.

    Searching the whole file costs three times as much, and no other thread can run.
    """
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda":
        if jpeg[at + 4 : at + 9] == b"Exif\0":
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return False


def _same_size_png(data: bytes, size: int, channels: int) -> np.ndarray | None:
    """Decode a PNG of 8 bits that holds nothing but its header and one run of pixels.

    Opening a file in Pillow costs twice what decoding 32x32 pixels does, and it is
    Python that threads cannot share: CIFAR-10 is read in half the time this way.

    Args:
        data: an encoded file.
        size: of the sides that it must have, in pixels.
        channels: that it must have: 1 or 3.

    Returns:
        ``u8[size, size, channels]``, or None for any other file or a damaged one.
    """
    mode, colour_type = ("L", 0) if channels == 1 else ("RGB", 2)
    header = struct.pack(">4sIIBBBBB", b"IHDR", size, size, 8, colour_type, 0, 0, 0)
    if data[12:29] != header or data[37:41] != b"IDAT":
        return None
    end = 41 + int.from_bytes(data[33:37])
    checksum = zlib.crc32(data[37:end]).to_bytes(4)
    if data[end:] != checksum + _PNG_END:
        return None
    try:
        image = Image.frombytes(mode, (size, size), data[41:end], "zip", mode)
    except ValueError:
        return None
    return _array(image)


def _from_file(data: bytes, size: int, channels: int, resize: Resize) -> Image.Image:
    """Decode an encoded file with Pillow to a ``size x size`` image."""
    if not data:
        raise ImageError("the file is empty")
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(data)) as image:
            full = image.size
            if full[0] * full[1] > MAX_PIXELS:
                raise Image.DecompressionBombError
            wanted = size * _DRAFT_MARGIN
            if min(full) > wanted:
                scale = wanted / min(full)
                image.draft(None, (int(full[0] * scale), int(full[1] * scale)))
            image.load()
            return _square(image, size, channels, resize, full)
    except Image.DecompressionBombError:
        raise ImageError(
            f"has more than {MAX_PIXELS:,} pixels: a decompression bomb?"
        ) from None
    except Image.UnidentifiedImageError:
        raise ImageError("is not an image that Pillow can read") from None
    except MemoryError:
        raise ImageError("needs more memory than there is") from None
    except Exception as error:
        # Pillow's plugins raise whatever damaged bytes lead them to: OSError,
        # SyntaxError, ValueError, struct.error, EOFError, IndexError, KeyError...
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot be decoded: {cause}") from None


def _square(
    image: Image.Image,
    size: int,
    channels: int,
    resize: Resize,
    full: tuple[int, int] | None = None,
) -> Image.Image:
    """Bring a loaded image to 8 bits, cut its centre square and scale that.

    Args:
        image: loaded; perhaps smaller than stored, after ``draft``.
        size: side of the result in pixels.
        channels: of the result.
        resize: ``stretch`` cuts nothing.
        full: width and height as stored, in pixels; ``image.size`` when None.

    Returns:
        A ``size x size`` image of mode RGB or L.
    """
    width, height = full or image.size
    side = min(width, height)
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    x_mirrored, y_mirrored = _MIRRORED.get(orientation, (False, False))
    left = _half(width - side, x_mirrored)
    top = _half(height - side, y_mirrored)
    # After draft the image is a power of two smaller, rounded up.
    now_wide, now_high = map(float, image.size)
    shrink = max(1, round(width / now_wide), round(height / now_high))
    box = (0.0, 0.0, now_wide, now_high)
    if resize == "crop":
        box = (
            left / shrink,
            top / shrink,
            min((left + side) / shrink, now_wide),
            min((top + side) / shrink, now_high),
        )
    image = _eight_bits(image, channels)
    if image.size != (size, size) or box != (0, 0, size, size):
        image = _scaled(image, size, box)
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    return image


def _scaled(
    image: Image.Image, size: int, box: tuple[float, float, float, float]
) -> Image.Image:
    """Scale what is inside a box, so that the long side of 12000x50 never is.

    Bilinear (a triangle as wide as the scale, so antialiased) is what torchvision's
    transforms use, whose weights we import.
    """
    left, top, right, bottom = box
    # A box between pixels comes of ``draft`` alone; it could end a hair outside.
    if cykooz_resizer is None or not all(edge.is_integer() for edge in box):
        return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    resizer = getattr(_OWN, "resizer", None)
    if resizer is None:
        resizer = _OWN.resizer = cykooz_resizer.Resizer()
    options = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(
            cykooz_resizer.FilterType.bilinear
        ),
        crop_box=cykooz_resizer.CropBox(left, top, right - left, bottom - top),
        use_alpha=False,
    )
    scaled = Image.new(image.mode, (size, size))
    resizer.resize_pil(image, scaled, options)
    return scaled


def _half(spare: int, mirrored: bool) -> int:
    """Halve what is cut off an axis, rounded down at its start as it is shown.

    So a turned picture gives the same square as one that was stored upright.
    """
    return spare - spare // 2 if mirrored else spare // 2


def _eight_bits(image: Image.Image, channels: int) -> Image.Image:
    """Convert any Pillow mode to RGB (or L), transparency laid over white."""
    wanted = "RGB" if channels == 3 else "L"
    if image.mode == wanted and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_in_levels(np.asarray(image)))
    elif image.mode == "CMYK":
        # Pillow takes every CMYK JPEG for an inverted one, as Adobe writes them; a
        # file without Adobe's marker holds plain values (libjpeg's convention).
        if image.format == "JPEG" and "adobe" not in image.info:
            image = ImageChops.invert(image)
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    elif image.has_transparency_data:
        # The premultiplied modes convert only to their plain twins.
        plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
        layer = image.convert(plain).convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
        image = image.convert("RGB")
    if image.mode != "L" and wanted == "L":
        image = image.convert("RGB")  # not every mode converts to L itself
    return image.convert(wanted)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    if converted is None:
        raise ValueError("LAB colours cannot be converted")
    return converted


def _in_levels(values: np.ndarray) -> np.ndarray:
    """Scale 16-bit, 32-bit or float grey values to 0..255.

    Unsigned 16-bit values are divided by 257, so that 65535 becomes 255. Wider types
    say nothing about their range: 0..1 (floats), 0..255 and 0..65535 are recognised
    by the values present, anything else is stretched from its minimum to its maximum.

    Args:
        values: ``u16``, ``i32`` or ``f32[H, W]``.

    Returns:
        ``u8[H, W]``.
    """
    if values.dtype.itemsize == 2 and values.dtype.kind == "u":
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    floats = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = floats.min(), floats.max()
    if low < 0 or high > 65535:
        floats = (floats - low) * (255 / (high - low))
    elif high > 255:
        floats = floats / 257
    elif values.dtype.kind == "f" and high <= 1:
        floats = floats * 255
    return np.rint(floats).astype(np.uint8)


def _from_array(pixels: np.ndarray) -> Image.Image:
    squeezed = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    fits = squeezed.ndim == 2 or (squeezed.ndim == 3 and squeezed.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not fits or 0 in pixels.shape:
        raise ImageError(
            f"is an array {pixels.dtype}{list(pixels.shape)}; give uint8 [H, W], "
            "[H, W, 1], [H, W, 3] or [H, W, 4]"
        )
    return Image.fromarray(np.ascontiguousarray(squeezed))


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _silence_pillow() -> None:
    """Keep Pillow's warnings (odd metadata, large pictures) from the user.

    What is really wrong with a picture comes as an exception. ``catch_warnings`` is
    not safe under threads; one filter for Pillow's modules is.
    """
    if _PILLOW_FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _PILLOW_FILTER = warnings.filters[0]
