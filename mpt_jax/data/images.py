"""From encoded images to pixels: JPEG, PNG and WebP, brought to one size and one number of channels."""

import collections
import io
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import ExifTags, Image, ImageOps

from mpt_jax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}

_FORMATS = ("JPEG", "PNG", "WEBP")  # whatever the file is called; the other parsers of PIL never see it
_DEEP = ("I", "F")  # 16 and 32 bits a pixel: conversion to 8 would clip nearly all of them to white
_READ_AT_ONCE = 2048  # files, so that a large data set does not wait in one queue
_SIZE_KEY = "dataset.image_size=HEIGHT,WIDTH to bring all to one size"


def decode(
    file: pathlib.Path | bytes, *, channels: int, size: Sequence[int] | None = None, as_stored: bool = False
) -> np.ndarray:
    """The pixels of an encoded image, ``uint8 [H, W, C]``.

    It is turned upright as its EXIF says; transparent pixels are laid on white; of an animation the first picture
    counts. To come to a size it is scaled, sides in proportion, until it covers that size (PIL's bicubic filter over
    the whole area, so that shrinking averages), and what sticks out is cut off evenly. An image that has the size
    already keeps its pixels.

    Args:
      file: a path or the encoded bytes.
      channels: 1 (grey), 3 (RGB) or 4 (RGBA).
      size: ``(height, width)``; None: as it is.
      as_stored: neither turned upright nor laid on white, as data sets were published.

    Raises:
      ValueError: no such file, none of the formats, truncated or damaged, more than 8 bits a channel, more pixels than
        PIL's limit `Image.MAX_IMAGE_PIXELS` (a decompression bomb).

    Examples:
      >>> file = io.BytesIO()
      >>> Image.new("LA", (6, 4), (0, 0)).save(file, format="png")
      >>> pixels = decode(file.getvalue(), channels=3, size=(2, 2))
      >>> pixels.shape, int(pixels.min())
      ((2, 2, 3), 255)
    """
    try:
        with _open(file) as image:
            if size is not None:
                image.draft(None, (2 * max(size),) * 2)  # a large JPEG decodes to a half, a quarter ... far faster
            if not as_stored:
                ImageOps.exif_transpose(image, in_place=True)
            pixels = _convert(image, MODES[channels], as_stored)
            if size is not None and pixels.size != tuple(size[::-1]):
                pixels = ImageOps.fit(pixels, tuple(size[::-1]), Image.Resampling.BICUBIC)
            return np.asarray(pixels).reshape(*pixels.size[::-1], channels)
    except Exception as error:  # parsers of damaged files raise whatever they stumble over
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
    """A box of an encoded image scaled to a size, ``uint8 [H, W, C]``, by PIL's bilinear filter over the whole area.

    A JPEG is decoded at a half (a quarter, an eighth) of its size where the box then still has twice the size wanted.

    Args:
      box: of the image's width and height, what is wanted: left, top, right, bottom.
      size: ``(height, width)``.
      flip: left and right change places.
      file, channels, as_stored: as those of `decode`.

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
            smaller = round(width / image.width)  # 1, 2, 4 or 8
            pixels = _convert(image, MODES[channels], as_stored)
            edges = [min(edge / smaller, side) for edge, side in zip(edges, pixels.size * 2, strict=True)]
            pixels = pixels.resize(tuple(size[::-1]), Image.Resampling.BILINEAR, box=edges)
            if flip:
                pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return np.asarray(pixels).reshape(*size, channels)
    except Exception as error:  # parsers of damaged files raise whatever they stumble over
        raise ValueError(_reason(error)) from error


def read_files(
    files: Sequence[pathlib.Path], *, channels: int, size: Sequence[int] | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """All images, ``uint8 [N, H, W, C]``, and why some could not be read, by row; their pixels are 0.

    Without a size it is the one that most of the images have, and the others count as not read.

    Raises:
      InputError: more pixels than memory.
    """
    # Ignored: PIL's warnings of damaged metadata, which say nothing about the pixels.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(min(os.cpu_count() or 1, 32)) as pool:
        height, width = _common_size(_in_turn(pool, _upright_size, files)) if size is None else size
        images = blank(len(files), height, width, channels)

        def read(row: int) -> str | None:
            try:
                pixels = decode(files[row], channels=channels, size=size)
            except ValueError as error:
                return str(error)
            if pixels.shape != images.shape[1:]:
                return f"{pixels.shape[0]}x{pixels.shape[1]} pixels, not {height}x{width} as most; set {_SIZE_KEY}"
            images[row] = pixels
            return None

        reasons = _in_turn(pool, read, range(len(files)))
        return images, {row: reason for row, reason in enumerate(reasons) if reason}


def look_at(files: Sequence[pathlib.Path], size: Sequence[int] | None) -> tuple[tuple[int, int], dict[int, str]]:
    """The size that images are to have, and why some cannot be read, by row, as far as their headers tell.

    Without a size it is the one that most of them have, and the others count as not read.
    """
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(min(os.cpu_count() or 1, 32)) as pool:
        sizes = list(_in_turn(pool, _upright_size, files))
    height, width = _common_size(sizes) if size is None else size
    reasons = {}
    for row, found in enumerate(sizes):
        if found is None:
            reasons[row] = "not an image file that can be read"
        elif size is None and found != (height, width):
            reasons[row] = f"{found[0]}x{found[1]} pixels, not {height}x{width} as most; set {_SIZE_KEY}"
    return (height, width), reasons


def blank(number: int, height: int, width: int, channels: int) -> np.ndarray:
    """Black images, ``uint8 [number, height, width, channels]``.

    Raises:
      InputError: more than memory holds.
    """
    try:
        return np.zeros((number, height, width, channels), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{number} images of {height}x{width} pixels and {channels} channels do not fit into memory; "
            "give a smaller dataset.image_size"
        ) from error


def _in_turn(pool: ThreadPoolExecutor, function: Callable, items: Sequence) -> Iterator:
    for start in range(0, len(items), _READ_AT_ONCE):
        yield from pool.map(function, items[start : start + _READ_AT_ONCE])


def _open(file: pathlib.Path | bytes) -> Image.Image:
    """The header alone is read; of a bomb, nothing more is."""
    if isinstance(file, pathlib.Path) and not file.is_file():  # opening a pipe would wait for ever
        raise ValueError("not a file" if file.exists() else "no such file")
    image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS)
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):  # PIL itself only warns up to twice that
        image.close()
        raise Image.DecompressionBombError
    return image


def _convert(image: Image.Image, mode: str, as_stored: bool) -> Image.Image:
    if image.mode.startswith(_DEEP):
        raise ValueError(f"more than 8 bits a pixel, PIL's mode {image.mode}")
    if not as_stored and mode != "RGBA" and ("A" in image.getbands() or "transparency" in image.info):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _upright_size(file: pathlib.Path) -> tuple[int, int] | None:
    """Height and width from the header alone; None where it cannot be read."""
    try:
        with _open(file) as image:
            told = image.format != "PNG" or "exif" in image.info  # else PIL would decode a PNG to look for it
            sideways = told and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            return image.size if sideways else image.size[::-1]
    except Exception:  # said when it is read
        return None


def _common_size(sizes: Iterable[tuple[int, int] | None]) -> tuple[int, int]:
    counts = collections.Counter(size for size in sizes if size)
    return counts.most_common(1)[0][0] if counts else (1, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not {', '.join(_FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    return " ".join(str(error).split())[:100] or type(error).__name__
