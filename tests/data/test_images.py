"""Image files of all kinds, damaged files and malicious files."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from mpt_jax.data import Resizing, images
from mpt_jax.data.photos import photograph
from mpt_jax.errors import InputError

# Four flat quarters survive lossy formats: every pixel is far from the other colours.
RED, LIME, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = np.array([[RED, LIME], [BLUE, WHITE]], np.uint8).repeat(16, 0).repeat(24, 1)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, format=kind, **options)
    return file.getvalue()


def corners(pixels):
    """Return the rounded colours in the middle of the four quarters."""
    height, width, _ = pixels.shape
    rows, columns = ([side // 4, 3 * side // 4] for side in (height, width))
    return [tuple(int(v > 127) * 255 for v in pixels[row, column]) for row in rows for column in columns]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_formats(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this build of pillow has no AVIF")
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = images.decode(encoded(QUARTERS, kind, **options), channels=3)
    assert pixels.shape == (32, 48, 3) and pixels.dtype == np.uint8
    assert corners(pixels) == [RED, LIME, BLUE, WHITE]
    if kind not in ("JPEG", "AVIF"):
        np.testing.assert_array_equal(pixels, QUARTERS)


@pytest.mark.parametrize(
    ("orientation", "expected"),  # top left, top right, bottom left, bottom right
    [
        (1, [RED, LIME, BLUE, WHITE]),
        (2, [LIME, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, LIME, RED]),
        (4, [BLUE, WHITE, RED, LIME]),
        (5, [RED, BLUE, LIME, WHITE]),
        (6, [BLUE, RED, WHITE, LIME]),
        (7, [WHITE, LIME, BLUE, RED]),
        (8, [LIME, WHITE, RED, BLUE]),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_exif_orientation_is_applied(kind, orientation, expected, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(QUARTERS, kind, exif=exif)
    assert corners(images.decode(content, channels=3)) == expected
    assert corners(images.decode(content, channels=3, size=(20, 20))) == expected
    if kind != "TIFF":  # PIL always turns these
        assert corners(images.decode(content, channels=3, as_stored=True)) == [RED, LIME, BLUE, WHITE]
    (tmp_path / "image").write_bytes(content)
    pixels, reasons = images.read_files([tmp_path / "image"], channels=3)
    assert reasons == {} and pixels.shape[1:3] == ((48, 32) if orientation > 4 else (32, 48))


def test_grey_palette_and_cmyk():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    np.testing.assert_array_equal(images.decode(encoded(grey), channels=1), grey[..., None])
    np.testing.assert_array_equal(images.decode(encoded(grey), channels=3), grey[..., None].repeat(3, -1))
    colour = Image.fromarray(QUARTERS)
    for picture, kind in ((colour.convert("P"), "PNG"), (colour.convert("CMYK"), "JPEG")):
        assert corners(images.decode(encoded(picture, kind), channels=3)) == [RED, LIME, BLUE, WHITE]
    luma = images.decode(encoded(QUARTERS), channels=1)[[0, 0, -1, -1], [0, -1, 0, -1], 0]
    np.testing.assert_allclose(luma, [0.299 * 255, 0.587 * 255, 0.114 * 255, 255], atol=1)
    assert images.decode(encoded(Image.new("1", (2, 2), 1)), channels=1).min() == 255


def test_transparency_is_blended_with_white():
    random = np.random.default_rng(0)
    rgba = random.integers(0, 256, (5, 6, 4), dtype=np.uint8)
    alpha = rgba[..., 3:].astype(float) / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(images.decode(encoded(rgba), channels=3), expected, atol=1)
    np.testing.assert_array_equal(images.decode(encoded(rgba), channels=3, as_stored=True), rgba[..., :3])
    np.testing.assert_array_equal(images.decode(encoded(rgba), channels=4), rgba)
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert images.decode(encoded(palette, transparency=0), channels=3).tolist() == [[[255] * 3, [40, 50, 60]]]
    grey = Image.merge("LA", [Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 0)])
    assert images.decode(encoded(grey), channels=1).tolist() == [[[255]]]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20))
def test_images_get_the_requested_size(height, width, new_height, new_width):
    flat = np.full((height, width, 3), [10, 100, 200], np.uint8)
    pixels = images.decode(encoded(flat), channels=3, size=(new_height, new_width))
    assert pixels.shape == (new_height, new_width, 3)
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8([10, 100, 200]), pixels.shape))


def test_the_aspect_ratio_is_kept_and_the_excess_cropped_equally():
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (40, 1))  # 40 x 120, brighter from left to right
    pixels = images.decode(encoded(ramp), channels=1, size=(20, 20))[..., 0].astype(float)
    # The middle 40 x 40 shrunk by two: column c covers the source's columns 40 + 2 c and the next.
    np.testing.assert_allclose(pixels[:, 2:-2], np.tile(2 * (40.5 + 2 * np.arange(20)), (20, 1))[:, 2:-2], atol=1)
    same = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(images.decode(encoded(same), channels=3, size=(7, 9)), same)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
    assert images.decode(encoded(noise), channels=1, size=(4, 4)).std() < 5  # antialiased


SIDES = [(500, 375), (375, 500), (256, 256), (60, 91), (1300, 1024), (224, 1000), (640, 427)]


@pytest.mark.parametrize(("width", "height"), SIDES)
@pytest.mark.parametrize(("resize", "interpolation"), [(256, "bilinear"), (235, "bicubic"), (0, "bilinear")])
def test_a_resizing_scales_the_shorter_side_and_crops_the_centre(width, height, resize, interpolation):
    jpeg = photograph("rings", height, width, np.random.default_rng(1), quality=95)
    whole, short, to = Image.open(io.BytesIO(jpeg)), min(width, height), resize or 224
    scaled = [to if side == short else int(to * side / short) for side in (width, height)]
    resized = whole.resize(scaled, getattr(Image.Resampling, interpolation.upper()))
    left, top = (round((side - 224) / 2) for side in scaled)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    found = images.decode(jpeg, channels=3, size=(224, 224), resizing=Resizing(resize, interpolation))
    np.testing.assert_array_equal(found, expected)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(1, 20), st.integers(0, 12))
def test_every_image_covers_the_size_that_it_is_cropped_to(width, height, tall, wide, more):
    resize = min(tall, wide) + more
    scaled = Resizing(resize).scaled(width, height, (tall, wide))
    frame = (wide * resize // min(tall, wide), tall * resize // min(tall, wide))
    assert all(side >= least for side, least in zip(scaled, frame, strict=True)) and frame[0] >= wide
    assert any(side == least for side, least in zip(scaled, frame, strict=True))
    assert abs(scaled[0] * height - scaled[1] * width) < max(width, height)  # its aspect, up to a pixel


@pytest.mark.slow  # imports torchvision
@pytest.mark.parametrize(("width", "height"), SIDES)
def test_a_resizing_gives_the_pixels_of_torchvision(width, height):
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    pytorch_packages.package("torchvision")
    from torchvision import transforms

    jpeg = photograph("rings", height, width, np.random.default_rng(2), quality=95)
    for resize, side, name in ((256, 224, "bilinear"), (248, 224, "bicubic"), (232, 224, "bilinear")):
        mode = transforms.InterpolationMode(name)
        theirs = transforms.Compose([transforms.Resize(resize, mode), transforms.CenterCrop(side)])
        expected = np.asarray(theirs(Image.open(io.BytesIO(jpeg))))
        found = images.decode(jpeg, channels=3, size=(side, side), resizing=Resizing(resize, name))
        np.testing.assert_array_equal(found, expected)


def test_an_image_that_scaling_makes_too_large_is_refused():
    line = encoded(np.zeros((1, 5000), np.uint8))
    with pytest.raises(ValueError, match=r"more than .* pixels"):
        images.decode(line, channels=1, size=(224, 224), resizing=Resizing(256))


def test_large_jpegs_decoded_at_a_fraction_keep_their_content():
    large = QUARTERS.repeat(40, 0).repeat(40, 1)
    content = encoded(large, "JPEG")
    assert corners(images.decode(content, channels=3, size=(24, 24))) == [RED, LIME, BLUE, WHITE]
    exact = Image.fromarray(large).crop((320, 0, 1600, 1280)).resize((24, 24), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(images.decode(content, channels=3, size=(24, 24)).astype(int), exact, atol=16)


# Damaged and malicious files


@pytest.mark.filterwarnings("ignore:Truncated")  # which `read_files` silences, too
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_detected_wherever_they_end(kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = encoded(noise, kind)
    for end in range(0, len(content) - 40, len(content) // 50):
        with pytest.raises(ValueError, match=r"."):
            images.decode(content[:end], channels=3)


@given(st.data())
def test_damaged_files_give_pixels_or_a_message_of_one_line(data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]))
    content = bytearray(encoded(QUARTERS, kind))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = images.decode(bytes(content), channels=3, size=(8, 8))
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert pixels.shape == (8, 8, 3)


def png_header(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "side", [9_460, 13_400, 2**31 - 1]
)  # just above PIL's limit, above twice the limit, the maximum
def test_decompression_bombs_are_refused(side, tmp_path, recwarn):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    _, reasons = images.read_files([tmp_path / "bomb.png"], channels=3, size=(8, 8))
    assert reasons == {0: f"more than {Image.MAX_IMAGE_PIXELS} pixels"}
    assert not recwarn.list


def test_bombs_in_other_chunks_are_refused():
    content = encoded(QUARTERS)
    text = b"zTXtkey\0\0" + zlib.compress(bytes(80 * 2**20))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    end = content.index(b"IDAT") - 4
    try:
        pixels = images.decode(content[:end] + chunk + content[end:], channels=3)
    except ValueError as error:
        assert "too large" in str(error)
    else:
        np.testing.assert_array_equal(pixels, QUARTERS)


def test_other_formats_and_deep_pixels_are_refused():
    for kind in ("PPM", "TGA", "EPS", "PDF"):
        with pytest.raises(ValueError, match="not JPEG, PNG, WEBP"):
            images.decode(encoded(QUARTERS, kind), channels=3)
    for content in (b"", b"text", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"):
        with pytest.raises(ValueError, match="not JPEG, PNG, WEBP"):
            images.decode(content, channels=3)
    with pytest.raises(ValueError, match="more than 8 bits"):
        images.decode(encoded(np.full((2, 2), 1000, np.uint16)), channels=1)
    with pytest.raises(ValueError, match="more than 8 bits"):
        images.decode(encoded(np.full((2, 2), 1000, np.uint16), "TIFF"), channels=1)


def test_16_bit_colours_of_a_tiff_are_refused():
    entries = [
        *((256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2)),  # 2x2 pixels, RGB
        *((273, 4, 1, 300), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 24)),
    ]
    header = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    content = (header + bytes(4)).ljust(200, b"\0") + struct.pack("<HHH", 16, 16, 16)
    with pytest.raises(ValueError, match="TIFF of 16 bits"):
        images.decode(content.ljust(300, b"\0") + struct.pack("<12H", *range(1000, 1012)), channels=3)


def test_the_first_frame_of_a_gif_is_read():
    file = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    assert (images.decode(file.getvalue(), channels=3) == RED).all()


def test_readable_images_are_read_and_others_are_named(tmp_path):
    good = encoded(QUARTERS)
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(good)
    (tmp_path / "1.png").write_bytes(good[:60])
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_bytes(encoded(QUARTERS[:, :20]))
    os.mkfifo(tmp_path / "pipe.png")  # opening it would block
    (tmp_path / "folder.png").mkdir()
    names = [*(f"{i}.png" for i in range(5)), "pipe.png", "folder.png", "x" * 300 + ".png", "nul\0.png"]
    pixels, reasons = images.read_files([tmp_path / name for name in names], channels=3)
    assert pixels.shape == (9, 32, 48, 3) and sorted(reasons) == [1, 2, 3, 5, 6, 7, 8]
    np.testing.assert_array_equal(pixels[[0, 4]], [QUARTERS, QUARTERS])
    assert not pixels[sorted(reasons)].any()
    assert reasons[2] == "no such file" and reasons[5] == reasons[6] == "not a file"
    assert reasons[3].startswith("32x20 pixels, not 32x48 like most") and "dataset.image_size" in reasons[3]
    pixels, reasons = images.read_files([tmp_path / "3.png", tmp_path / "0.png"], channels=1, size=(4, 6))
    assert pixels.shape == (2, 4, 6, 1) and not reasons


def test_more_pixels_than_memory(tmp_path):
    with pytest.raises(InputError, match=r"do not fit in memory; expected a smaller dataset\.image_size"):
        images.read_files([tmp_path / "none"] * 10_000, channels=3, size=(2**30, 2**30))
