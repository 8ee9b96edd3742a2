"""Headers: upright size, orientation, format, and undecodable images."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from gensupcon_jax.data.decoding import decode_upright
from gensupcon_jax.data.headers import read_header
from tests import odd_images
from tests.encoded import encode, picture

IMAGE = picture(1, 0, (30, 40))
OTHER = picture(2, 1, (30, 40))
PIXELS = np.asarray(IMAGE)
SIXTEEN_BIT = Image.fromarray((np.arange(1200, dtype=np.uint16) * 50).reshape(30, 40))
TRANSPARENT = odd_images.transparent(IMAGE)
FEW_COLORS = IMAGE.quantize(16)
RGB_WITHOUT_ALPHA = (0xFF, 0xFF00, 0xFF0000, 0)
ALPHA_FIRST = (0xFF000000, 0xFF0000, 0xFF00, 0xFF)

DECODABLE = {
    "jpeg": encode(IMAGE),
    "progressive": encode(IMAGE, progressive=True),
    "cmyk": encode(IMAGE.convert("CMYK")),
    "cmyk without Adobe's marker": odd_images.without_adobe_marker(encode(IMAGE.convert("CMYK"))),
    "gray jpeg": encode(IMAGE.convert("L")),
    "png": encode(IMAGE, "PNG"),
    "palette png": encode(FEW_COLORS, "PNG"),
    "transparent png": encode(TRANSPARENT, "PNG"),
    "gray and transparent png": encode(TRANSPARENT.convert("LA"), "PNG"),
    "1-bit png": encode(IMAGE.convert("1"), "PNG"),
    "16-bit png": encode(SIXTEEN_BIT, "PNG"),
    "animated png": encode(IMAGE, "PNG", save_all=True, append_images=[OTHER]),
    "webp": encode(IMAGE, "WEBP", lossless=True),
    "transparent webp": encode(TRANSPARENT, "WEBP", lossless=True, exact=True),
    "animated webp": encode(IMAGE, "WEBP", lossless=True, save_all=True, append_images=[OTHER]),
    "transparent and animated webp": encode(
        TRANSPARENT, "WEBP", lossless=True, exact=True, save_all=True, append_images=[odd_images.transparent(OTHER)]
    ),
    "bmp": encode(IMAGE, "BMP"),
    "gray bmp": encode(IMAGE.convert("L"), "BMP"),
    "palette bmp": encode(FEW_COLORS, "BMP"),
    "1-bit bmp": encode(IMAGE.convert("1"), "BMP"),
    "565 bmp": odd_images.bitmap(PIXELS, bits=16, masks=(0xF800, 0x7E0, 0x1F, 0), header_size=40),
    "32-bit bmp": odd_images.bitmap(PIXELS),
    "32-bit bmp with alpha first": odd_images.bitmap(PIXELS, masks=ALPHA_FIRST),
    "bmp of OS/2": odd_images.os2_bitmap(PIXELS),
    "run-length bmp": odd_images.run_length_bitmap(np.asarray(IMAGE.convert("L"))),
    "gif": encode(IMAGE, "GIF"),
    "transparent gif": encode(TRANSPARENT, "GIF"),
    "animated gif": encode(IMAGE, "GIF", save_all=True, append_images=[OTHER]),
    "gif of a small frame": odd_images.gif_on_canvas(IMAGE, (60, 50), (7, 11)),
    "one pixel": encode(IMAGE.crop((0, 0, 1, 1))),
}
UNDECODABLE = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello, I am not an image", "not a known image format"),
    "a web page": (b"<!DOCTYPE html><html>404", "a web page (HTML); allowed: JPEG, PNG, WebP, BMP, GIF"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull fetches the image"),
    "tiff": (encode(IMAGE, "TIFF"), "a TIFF file; allowed: JPEG, PNG, WebP, BMP, GIF"),
    "icon": (encode(IMAGE, "ICO"), "an ICO file; allowed: JPEG, PNG, WebP, BMP, GIF"),
    "jpeg xl": (b"\xff\x0a\xfa\x0f\x01\x90", "a JPEG XL file; allowed"),
    "12-bit jpeg": (odd_images.with_frame(encode(IMAGE), bits=12), "a JPEG of 12 bits per channel; allowed: 8"),
    "dnl jpeg": (
        odd_images.with_frame(encode(IMAGE), height=0),
        "a JPEG whose height follows its pixels (a DNL marker)",
    ),
    "jpeg-ls": (odd_images.with_frame(encode(IMAGE), process=0xF7), "a JPEG-LS file; allowed"),
    "jpeg without a frame": (encode(IMAGE)[:100], "a damaged JPEG file (no frame before the pixels)"),
    "cut webp header": (encode(IMAGE, "WEBP")[:30], "a damaged WebP file ("),
    "bmp with scattered masks": (
        odd_images.bitmap(PIXELS, masks=(0xF0F, 0xF0, 0xF000, 0)),
        "a damaged BMP file (Unsupported BMP bitfields",
    ),
}


def opened(kind):
    return Image.open(io.BytesIO(DECODABLE[kind]))


@pytest.mark.parametrize("kind", DECODABLE)
def test_the_header_agrees_with_the_decoded_image(kind):
    header = read_header(DECODABLE[kind])
    assert header.problem is None
    pixels = decode_upright(DECODABLE[kind], header.orientation, 3)
    assert pixels.shape == (header.height, header.width, 3)
    if kind != "16-bit png":  # PIL clips 16 bits
        expected = np.asarray(opened(kind).convert("RGB"), int)
        assert np.abs(pixels - expected).mean() < 2


def test_the_images_are_what_they_are_called():
    for kind in DECODABLE:
        image = opened(kind)
        assert getattr(image, "is_animated", False) == ("animated" in kind), kind
        lowest, highest = image.convert("RGBA").getchannel("A").getextrema()
        assert (lowest, highest) == (0 if "transparent" in kind else 255, 255), kind
        assert (image.mode == "CMYK") == ("cmyk" in kind), kind
        assert (image.mode in ("P", "PA")) == (kind in ("palette png", "palette bmp") or ("gif" in kind)), kind
        assert (image.mode == "1") == ("1-bit" in kind), kind
    assert "adobe" in opened("cmyk").info and "adobe" not in opened("cmyk without Adobe's marker").info
    assert "progressive" in opened("progressive").info


@pytest.mark.parametrize("kind", [kind for kind in DECODABLE if "transparent" in kind or "animated" in kind])
def test_transparency_is_dropped_and_the_first_image_of_an_animation_is_taken(kind):
    pixels = decode_upright(DECODABLE[kind], 1, 3).astype(int)
    expected = np.asarray(IMAGE.convert("L" if "gray" in kind else "RGB").convert("RGB"), int)
    if kind == "transparent and animated webp":  # nothing is stored under its fully transparent pixels: black
        assert (pixels[:, 0] == 0).all()
        pixels, expected = pixels[:, 1:], expected[:, 1:]
    if kind == "transparent gif":  # all transparent pixels have one color
        pixels, expected = pixels[:, 25:], expected[:, 25:]
    assert np.abs(pixels - expected).mean() < (12 if "gif" in kind else 1)  # of 256 colors; the other image: above 40


@pytest.mark.parametrize(
    ("bits", "masks", "depth"),
    [
        (32, RGB_WITHOUT_ALPHA, 8),
        (32, (0xFF00, 0xFF, 0xFF000000, 0xFF0000), 8),
        (32, (0x3FF00000, 0xFFC00, 0x3FF, 0), 10),
        (16, (0xF00, 0xF0, 0xF, 0xF000), 4),
        (16, (0x7C00, 0x3E0, 0x1F, 0), 5),
        (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF), 8),
    ],
)
@pytest.mark.parametrize("from_top", [False, True])
def test_bitmaps_are_read_with_any_color_masks(bits, masks, depth, from_top):
    pixels = PIXELS[:, :39]  # of 16 bits: rows that are padded
    data = odd_images.bitmap(pixels, bits=bits, masks=masks, from_top=from_top)
    header = read_header(data)
    assert header[:3] == (30, 39, 1) and header.problem is None
    levels = 2**depth - 1
    expected = np.round(np.round(pixels / 255 * levels) * (255 / levels))
    np.testing.assert_allclose(decode_upright(data, 1, 3), expected, atol=1)
    with pytest.raises(ValueError, match="truncated"):
        decode_upright(data[:-100], 1, 3)


def test_a_small_frame_of_a_gif_lies_where_it_belongs_on_its_canvas():
    pixels = decode_upright(DECODABLE["gif of a small frame"], 1, 3)
    assert pixels.shape == (50, 60, 3)
    np.testing.assert_array_equal(pixels[11:41, 7:47], np.asarray(opened("gif").convert("RGB")))
    outside = np.ones((50, 60), bool)
    outside[11:41, 7:47] = False
    assert len(np.unique(pixels[outside], axis=0)) == 1


def test_16_bits_become_8():
    expected = (np.arange(1200) * 50 // 256).reshape(30, 40)
    np.testing.assert_array_equal(decode_upright(DECODABLE["16-bit png"], 1, 3)[..., 0], expected)


def test_gray_images_are_recognized():
    gray = {kind for kind, data in DECODABLE.items() if read_header(data).is_gray}
    assert gray == {
        *("gray jpeg", "gray and transparent png", "1-bit png", "16-bit png"),
        *("gray bmp", "1-bit bmp", "run-length bmp"),
    }


def test_only_plain_jpegs_are_left_to_every_decoder():
    plain = {kind for kind, data in DECODABLE.items() if read_header(data).is_plain_jpeg}
    assert plain == {"jpeg", "progressive", "gray jpeg", "one pixel"}
    for process in (0xC3, 0xC9, 0xCA):  # lossless; arithmetic codes
        header = read_header(odd_images.with_frame(DECODABLE["jpeg"], process=process))
        assert (header.format, header.is_plain_jpeg) == ("JPEG", False)


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_an_undecodable_image_has_a_problem(kind):
    data, problem = UNDECODABLE[kind]
    assert problem in read_header(data).problem
    with pytest.raises(ValueError) as caught:
        decode_upright(data, 1, 3)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(IMAGE)[:900], "truncated"),
        (encode(IMAGE, "PNG")[:-12], "truncated PNG file"),
        (encode(IMAGE, "PNG").replace(b"IDAT", b"IDAT\x00", 1)[:-1], "broken PNG file"),
        (encode(IMAGE, "GIF")[:800], "truncated"),
        (encode(IMAGE, "BMP")[:800], "truncated"),
        (encode(IMAGE, "WEBP", lossless=True)[:-200], "WebP"),
    ],
)
def test_of_damaged_pixels_the_reason_is_said(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode_upright(data, 1, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "late EXIF", "late XMP", "XMP"])
def test_exif_orientation_is_applied(orientation, kind):
    if kind == "late EXIF":
        data = odd_images.png_with_late_chunk(IMAGE, b"eXIf", odd_images.exif(orientation).tobytes()[6:])
    elif kind == "late XMP":
        text = b"XML:com.adobe.xmp\0\0\0\0\0" + odd_images.xmp(orientation)
        data = odd_images.png_with_late_chunk(IMAGE, b"iTXt", text)
    elif kind == "XMP":
        data = encode(IMAGE, xmp=odd_images.xmp(orientation))
    else:
        data = encode(IMAGE, kind, exif=odd_images.exif(orientation))
    header = read_header(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"), int)
    assert expected.shape == ((40, 30, 3) if orientation >= 5 else (30, 40, 3))
    assert (header.height, header.width, header.orientation) == (*expected.shape[:2], orientation)
    assert np.abs(decode_upright(data, header.orientation, 3) - expected).mean() < 2  # turned wrongly it is above 40


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_orientations_that_do_not_exist_are_upright(orientation):
    assert read_header(encode(IMAGE, exif=odd_images.exif(orientation))).orientation == 1


def test_texts_behind_the_pixels_of_a_png_do_not_make_it_decoded(monkeypatch):
    data = odd_images.png_with_late_chunk(IMAGE, b"tEXt", b"date:create\x002026-01-01")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    assert read_header(data).problem is None


def test_damaged_exif_is_ignored():
    data = bytearray(encode(IMAGE, exif=b"Exif\x00\x00" + b"\xff" * 12))
    assert read_header(bytes(data)).orientation == 1
