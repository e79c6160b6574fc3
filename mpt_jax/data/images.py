"""Decoding of image files to one size and number of channels."""

import collections
import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import ExifTags, Image, ImageOps, features

from mpt_jax.data.dataset_config import COVER, Resizing
from mpt_jax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}

_FORMATS = (  # whatever the suffix: no other parser of PIL sees a file
    *("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"),
    *(["AVIF"] if features.check("avif") else []),  # not in every build of pillow
)
_DEEP = ("I", "F")  # PIL modes of 16 and 32 bits; conversion to 8 bits would clip most pixels to white
_BITS_OF_TIFF = 258  # tag BitsPerSample
_BATCH = 2048  # files per call of the thread pool, which queues all of them at once
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_SIZE_HINT = "set dataset.image_size"


def decode(
    file: pathlib.Path | bytes,
    *,
    channels: int,
    size: Sequence[int] | None = None,
    as_stored: bool = False,
    resizing: Resizing = COVER,
) -> np.ndarray:
    """Decode an image to ``uint8 [H, W, C]``.

    The EXIF orientation is applied, transparency is blended with white, and of an animation only the first frame is
    read. To reach a given size, the image is scaled with its aspect ratio kept until it covers the size (PIL's bicubic
    filter, antialiased), and the excess is cropped equally on both sides. An image of that size keeps its pixels, and a
    large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which is faster. With another `resizing`, the pixels are
    exactly those of torchvision's ``Resize`` and ``CenterCrop`` on a PIL image.

    Args:
      file: a path or the encoded bytes.
      channels: 1 (grey), 3 (RGB) or 4 (RGBA).
      size: ``(height, width)``; None: the size of the image.
      as_stored: ignore EXIF orientation and transparency, as published data sets do.
      resizing: how the size is reached.

    Raises:
      ValueError: no such file, another format, a truncated or damaged file, more than 8 bits per channel, or more
        pixels than PIL's limit `Image.MAX_IMAGE_PIXELS` (a decompression bomb).

    Examples:
      >>> file = io.BytesIO()
      >>> Image.new("LA", (6, 4), (0, 0)).save(file, format="png")
      >>> pixels = decode(file.getvalue(), channels=3, size=(2, 2))
      >>> pixels.shape, int(pixels.min())
      ((2, 2, 3), 255)
    """
    try:
        with _open(file) as image:
            if size is not None and resizing == COVER:
                image.draft(None, (2 * max(size),) * 2)
            if not as_stored:
                ImageOps.exif_transpose(image, in_place=True)
            pixels = _convert(image, MODES[channels], as_stored)
            if size is not None:
                pixels = _resized(pixels, size, resizing)
            return np.asarray(pixels).reshape(*pixels.size[::-1], channels)
    except Exception as error:  # PIL raises many types for damaged files
        raise ValueError(_reason(error)) from error


def decode_box(
    file: pathlib.Path | bytes,
    box: Callable[[int, int], tuple[float, float, float, float]],
    *,
    channels: int,
    size: Sequence[int],
    as_stored: bool = False,
    flip: bool = False,
) -> np.ndarray:
    """Decode a box of an image and scale it to ``uint8 [H, W, C]`` with PIL's bilinear filter, antialiased.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the box then still has at least twice the requested size.

    Args:
      box: takes the width and height of the image, and returns left, top, right and bottom of the box.
      size: ``(height, width)``.
      flip: mirror the result horizontally.
      file, channels, as_stored: as in `decode`.

    Raises:
      ValueError: as `decode`.

    Examples:
      >>> file = io.BytesIO()
      >>> Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, format="png")
      >>> decode_box(file.getvalue(), lambda w, h: (2, 4, 4, 6), channels=1, size=(2, 2))[..., 0].tolist()
      [[34, 35], [42, 43]]
    """
    try:
        with _open(file) as image:
            if not as_stored:
                ImageOps.exif_transpose(image, in_place=True)
            width, height = image.size
            edges = box(width, height)
            spare = min((edges[2] - edges[0]) / size[1], (edges[3] - edges[1]) / size[0]) / 2
            if spare >= 2:
                image.draft(None, (int(width / spare), int(height / spare)))
            reduction = round(width / image.width)  # 1, 2, 4 or 8
            pixels = _convert(image, MODES[channels], as_stored)
            left, top, right, bottom = (
                min(edge / reduction, side) for edge, side in zip(edges, pixels.size * 2, strict=True)
            )
            pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
            if flip:
                pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return np.asarray(pixels).reshape(*size, channels)
    except Exception as error:  # PIL raises many types for damaged files
        raise ValueError(_reason(error)) from error


def read_files(
    files: Sequence[pathlib.Path],
    *,
    channels: int,
    size: Sequence[int] | None = None,
    resizing: Resizing = COVER,
) -> tuple[np.ndarray, dict[int, str]]:
    """Decode all images to ``uint8 [N, H, W, C]``, and return why some could not be read, by row; their pixels are 0.

    Without a size, the most frequent size is used, and images of another size count as unreadable.

    Raises:
      InputError: the pixels do not fit in memory.
    """
    with _pool() as pool:
        height, width = _most_frequent(_map(pool, _upright_size, files)) if size is None else size
        images = blank(len(files), height, width, channels)

        def read(row: int) -> str | None:
            try:
                pixels = decode(files[row], channels=channels, size=size, resizing=resizing)
            except ValueError as error:
                return str(error)
            if pixels.shape != images.shape[1:]:
                return _wrong_size(pixels.shape[:2], (height, width))
            images[row] = pixels
            return None

        reasons = _map(pool, read, range(len(files)))
        return images, {row: reason for row, reason in enumerate(reasons) if reason}


def read_sizes(files: Sequence[pathlib.Path], size: Sequence[int] | None) -> tuple[tuple[int, int], dict[int, str]]:
    """Return the common size of the images, and why some cannot be read according to their headers, by row.

    Without a size, the most frequent size is used, and images of another size count as unreadable.
    """
    with _pool() as pool:
        sizes = list(_map(pool, _upright_size, files))
    common = _most_frequent(sizes) if size is None else (size[0], size[1])
    reasons = {}
    for row, found in enumerate(sizes):
        if found is None:
            reasons[row] = "not a readable image file"
        elif size is None and found != common:
            reasons[row] = _wrong_size(found, common)
    return common, reasons


def blank(number: int, height: int, width: int, channels: int) -> np.ndarray:
    """Return black images, ``uint8 [number, height, width, channels]``.

    Raises:
      InputError: they do not fit in memory.
    """
    try:
        return np.zeros((number, height, width, channels), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{number} images of {height}x{width} pixels and {channels} channels do not fit in memory; "
            "expected a smaller dataset.image_size"
        ) from error


@contextlib.contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    # PIL warns of damaged metadata, which does not affect the pixels.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(min(os.cpu_count() or 1, 32)) as pool:
        yield pool


def _map(pool: ThreadPoolExecutor, function: Callable, items: Sequence) -> Iterator:
    for start in range(0, len(items), _BATCH):
        yield from pool.map(function, items[start : start + _BATCH])


def _open(file: pathlib.Path | bytes) -> Image.Image:
    """Open an image, reading only its header; refuse decompression bombs."""
    if isinstance(file, pathlib.Path) and not file.is_file():  # opening a pipe would block
        raise ValueError("not a file" if file.exists() else "no such file")
    image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS)
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):  # PIL only warns up to twice its limit
        image.close()
        raise Image.DecompressionBombError
    return image


def _convert(image: Image.Image, mode: str, as_stored: bool) -> Image.Image:
    if image.mode.startswith(_DEEP):
        raise ValueError(f"more than 8 bits per pixel, PIL mode {image.mode}")
    bits = getattr(image, "tag_v2", {}).get(_BITS_OF_TIFF, (1,))
    if max(bits) > 8:  # PIL keeps the upper 8 bits of colours, often black: cameras and scanners fill 10 or 12 of 16
        raise ValueError(f"more than 8 bits per channel, TIFF of {max(bits)} bits")
    if not as_stored and mode != "RGBA" and ("A" in image.getbands() or "transparency" in image.info):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _resized(image: Image.Image, size: Sequence[int], resizing: Resizing) -> Image.Image:
    height, width = size
    if resizing == COVER:
        same = image.size == (width, height)
        return image if same else ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    scaled = resizing.scaled(*image.size, size)
    if scaled[0] * scaled[1] > (Image.MAX_IMAGE_PIXELS or np.inf):  # a line, scaled until its width covers the size
        raise Image.DecompressionBombError
    if image.size != scaled:
        image = image.resize(scaled, _FILTERS[resizing.interpolation])
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _upright_size(file: pathlib.Path) -> tuple[int, int] | None:
    """Return height and width after rotation, from the header alone; None if it cannot be read."""
    try:
        with _open(file) as image:
            # PIL gives the upright size of a TIFF.
            has_exif = image.format != "PNG" or "exif" in image.info  # getexif would decode a PNG without it
            rotated = (
                image.format != "TIFF" and has_exif and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            )
            return image.size if rotated else image.size[::-1]
    except Exception:  # reported when the image is decoded
        return None


def _most_frequent(sizes: Iterable[tuple[int, int] | None]) -> tuple[int, int]:
    counts = collections.Counter(size for size in sizes if size)
    return counts.most_common(1)[0][0] if counts else (1, 1)


def _wrong_size(found: Sequence[int], common: Sequence[int]) -> str:
    return f"{found[0]}x{found[1]} pixels, not {common[0]}x{common[1]} like most; {_SIZE_HINT}"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not {', '.join(_FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    return " ".join(str(error).split())[:100] or type(error).__name__
