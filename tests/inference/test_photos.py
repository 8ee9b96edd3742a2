"""Image files of every format, size, orientation and mode have the features of the run's own evaluation."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from gensupcon_jax.errors import UserError
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.inference.images import find_images
from gensupcon_jax.run.run import build_run
from tests import odd_images
from tests.data.test_headers import DECODABLE
from tests.encoded import picture
from tests.inference.conftest import photos_config
from tests.inference.test_encoder import evaluated_features

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture(scope="module")
def encoder(photos):
    return Encoder.load(photos[1])


@pytest.fixture(scope="module")
def expected(photos):
    """Features of the test split, as the run evaluates them."""
    root, folder = photos
    test = build_run(photos_config(root), folder).dataset.test
    return evaluated_features(folder, photos_config(root), None, test)


def test_features_of_a_folder_are_those_of_the_runs_own_evaluation(photos, encoder, expected):
    assert (encoder.image_shape, encoder.center_share) == ((16, 16, 3), 0.875)
    found = encoder.embed(photos[0] / "test", batch_size=5)
    assert found.shape == (22, 16)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01


@pytest.mark.parametrize("num_devices", [1, 2])
def test_features_of_files_do_not_depend_on_the_devices(photos, expected, num_devices):
    encoder = Encoder.load(photos[1], devices=jax.devices()[:num_devices])
    files = [photos[0] / "test" / name for name in find_images(photos[0] / "test").names]
    order = [20, 3, 11, 7]
    np.testing.assert_allclose(encoder.embed([files[row] for row in order], batch_size=3), expected[order], atol=1e-5)


def test_a_single_file_and_its_preprocessed_pixels_have_the_same_features(photos, encoder, expected):
    names = find_images(photos[0] / "test").names
    for row, name in enumerate(names):
        pixels = encoder.preprocess(photos[0] / "test" / name)
        assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
        np.testing.assert_allclose(encoder.embed(pixels[None], batch_size=8), expected[[row]], atol=1e-5)
    np.testing.assert_allclose(encoder.embed(photos[0] / "test" / names[2]), expected[[2]], atol=1e-5)


def test_pil_images_are_prepared_like_their_files(photos, encoder):
    for name in find_images(photos[0] / "test").names:
        path = photos[0] / "test" / name
        if not name.lower().endswith(("jpg", "jpeg")):  # a large JPEG file is decoded at a smaller scale
            np.testing.assert_array_equal(encoder.preprocess(Image.open(path)), encoder.preprocess(path), err_msg=name)
    turned = Image.open(photos[0] / "test" / "ash" / "02.jpg")
    difference = encoder.preprocess(turned).astype(int) - encoder.preprocess(turned.filename)
    assert np.abs(difference).mean() < 12  # turned upright: without that, 40
    assert np.abs(encoder.preprocess(turned).astype(int) - encoder.preprocess(turned.rotate(180))).mean() > 20


def test_without_a_probe_the_kept_neighbors_predict(photos, encoder):
    found = encoder.predict(photos[0] / "train")
    assert (found.predictor, found.class_names) == ("k-NN", ("ash", "birch"))
    assert found.names[0] in ("ash", "birch")
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)


def test_without_anything_kept_the_training_images_are_read_again(photos, tmp_path):
    folder = shutil.copytree(photos[1], tmp_path / "run")
    kept = Encoder.load(folder).predict(photos[0] / "test")
    (folder / "neighbors.npz").unlink()
    again = Encoder.load(folder).predict(photos[0] / "test")
    assert again.predictor == "k-NN"
    np.testing.assert_allclose(again.probabilities, kept.probabilities, atol=1e-4)


# Arrays of other sizes, gray and color


def test_arrays_of_other_sizes_are_center_cropped_and_resized(encoder):
    image = np.asarray(picture(0, 1, (40, 64)))
    np.testing.assert_array_equal(encoder.preprocess(image), encoder.preprocess(Image.fromarray(image)))
    as_float = (image / 255).astype(np.float32)
    np.testing.assert_array_equal(encoder.preprocess(as_float), encoder.preprocess(image))
    mixed = encoder.embed([image, image[:20, :30], encoder.preprocess(image)])
    np.testing.assert_allclose(mixed[0], mixed[2], atol=1e-5)


def test_gray_images_are_repeated_for_an_encoder_of_color(encoder):
    gray = np.asarray(picture(0, 1, (16, 16)).convert("L"))
    color = np.repeat(gray[..., None], 3, axis=2)
    for image in (gray, gray[..., None]):
        np.testing.assert_array_equal(encoder.preprocess(image), color)
    np.testing.assert_array_equal(encoder.embed(gray[None]), encoder.embed(color[None]))


def test_images_of_other_channels_get_a_sentence(encoder, trained, capsys):
    gray, color = np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3), np.uint8)
    encoder.embed([gray, color])
    assert capsys.readouterr().err == ""
    encoder.embed([gray, gray])
    assert "note: all 2 images are gray and are repeated in 3 channels" in capsys.readouterr().err
    Encoder.load(trained).embed([gray[:8, :8], color[:8, :8]])
    assert "note: 1 of 2 images is in color and becomes gray (luma)" in capsys.readouterr().err


def test_files_of_color_become_gray_for_an_encoder_of_gray(photos, trained, capsys):
    encoder = Encoder.load(trained)
    features = encoder.embed(photos[0] / "test" / "ash")
    assert "9 of 11 images are in color and become gray" in capsys.readouterr().err
    pixels = [
        encoder.preprocess(photos[0] / "test" / "ash" / name) for name in find_images(photos[0] / "test/ash").names
    ]
    np.testing.assert_allclose(encoder.embed(np.stack(pixels)), features, atol=1e-5)


def test_color_images_become_gray_for_an_encoder_of_gray(trained):
    encoder = Encoder.load(trained)
    color = np.asarray(picture(0, 1, (8, 8)))
    gray = np.round(color.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)[..., None]
    np.testing.assert_array_equal(encoder.preprocess(color), gray)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 16, 16, 4), np.uint8), "an image has shape (16, 16, 4); allowed: [height, width]"),
        (np.zeros((16, 16, 3), np.uint8), "images have shape (16, 16, 3), that of one image; pass images[None]"),
        (np.zeros((1, 16, 16, 3), np.int32), "an image is int32; allowed: uint8 in 0..255, or float in 0..1"),
        (np.full((1, 16, 16, 3), 200.0), "an image lies in 200..200; allowed for float images: 0..1"),
        (np.full((1, 16, 16, 3), np.nan), "an image has values that are NaN or infinite"),
        (np.zeros((0, 16, 16, 3), np.uint8), "0 images were given; allowed: 1 or more"),
        ([], "0 images were given"),
        ([None], "an image is NoneType of object; allowed:"),
        ("nowhere", "nowhere does not exist; allowed: a folder with images"),
    ],
)
def test_images_that_cannot_be_embedded_are_one_line(encoder, images, message):
    with pytest.raises(UserError) as error:
        encoder.embed(images)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_batch_size_that_cannot_be_is_one_line(encoder):
    with pytest.raises(UserError, match="batch_size is 0; allowed: a whole number >= 1"):
        encoder.embed(np.zeros((1, 16, 16, 3), np.uint8), batch_size=0)


def test_damaged_files_are_named(encoder, tmp_path):
    picture(0, 1).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(
        UserError, match=r"1 image cannot be decoded: empty.jpg \(the file is empty\); repair or remove"
    ):
        encoder.embed(tmp_path)
    with pytest.raises(UserError, match=r"1 image cannot be decoded: .*empty.jpg \(the file is empty\)"):
        encoder.preprocess(tmp_path / "empty.jpg")
    with pytest.raises(UserError, match=r"1 image cannot be decoded: .*cut\.png \("):
        encoder.embed([tmp_path / "cut.png"])


def test_an_image_that_is_damaged_below_its_center_crop_is_damaged_alone_and_beside_others(encoder, tmp_path):
    picture(0, 1, (64, 17)).save(tmp_path / "tall.jpg")
    encoded = (tmp_path / "tall.jpg").read_bytes()
    (tmp_path / "tall.jpg").write_bytes(encoded[: int(0.9 * len(encoded))])
    with pytest.raises(UserError, match=r"1 image cannot be decoded: .*tall\.jpg \(image file is truncated"):
        encoder.embed([tmp_path / "tall.jpg"])
    picture(0, 1).save(tmp_path / "whole.png")
    alone = encoder.embed([tmp_path / "whole.png"])
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    found = find_images(tmp_path)
    assert found.names == ("cut.png", "tall.jpg", "whole.png")
    (outputs,) = encoder.outputs(found)
    assert outputs.indices.tolist() == [2]
    assert [name for name, _ in found.damaged] == ["cut.png", "tall.jpg"]
    np.testing.assert_allclose(outputs.features, alone, atol=1e-5)


ODD = ("transparent webp", "animated webp", "transparent and animated webp", "gif of a small frame", "transparent gif")
ODD += ("palette bmp", "565 bmp", "run-length bmp", "32-bit bmp with alpha first", "cmyk without Adobe's marker")


def test_odd_images_have_the_features_of_their_pixels(encoder, tmp_path):
    odd, plain = tmp_path / "odd", tmp_path / "plain"
    odd.mkdir()
    plain.mkdir()
    exif = odd_images.exif(6).tobytes()[6:]
    late = odd_images.png_with_late_chunk(picture(0, 1, (30, 40)), b"eXIf", exif)
    for number, data in enumerate([*(DECODABLE[kind] for kind in ODD), late]):
        (odd / f"{number:02}.png").write_bytes(data)  # the content decides, not the name
        upright = ImageOps.exif_transpose(Image.open(odd / f"{number:02}.png"))
        upright.convert("RGB").save(plain / f"{number:02}.png")
    found, expected = encoder.embed(odd), encoder.embed(plain)
    assert found.shape == (11, 16)
    np.testing.assert_allclose(found[:10], expected[:10], atol=1e-5)
    turned, upright = (encoder.preprocess(folder / "10.png").astype(int) for folder in (odd, plain))
    assert np.abs(turned - upright).max() <= 2  # resized before and after turning


def test_a_file_that_is_replaced_after_it_was_found_is_named(encoder, tmp_path):
    for number in range(3):
        picture(0, number).save(tmp_path / f"{number}.jpg")
    found = find_images(tmp_path)
    picture(0, 5, (40, 40)).save(tmp_path / "1.jpg", "PNG")
    (outputs,) = encoder.outputs(found)
    assert outputs.indices.tolist() == [0, 2]
    reason = "it was a JPEG of 24 x 20 pixels when its header was read, and is now a PNG of 40 x 40"
    assert found.damaged == [("1.jpg", reason)]


# Finding images


def test_images_of_a_folder_are_found_at_any_depth_in_order(tmp_path):
    for name in ("b/2.png", "a/1.jpg", "a/deep/3.webp", "top.png", ".hidden/4.png", "a/._5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(0, 1).save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").touch()
    found = find_images(tmp_path)
    assert found.names == ("a/1.jpg", "a/deep/3.webp", "b/2.png", "top.png")
    assert found.folders == ("a", "a", "b", None)
    assert found.damaged == []


def test_the_class_folders_lie_below_those_of_splits(photos):
    found = find_images(photos[0])
    assert set(found.folders) == {"ash", "birch"}
    assert set(find_images(photos[0] / "test").folders) == {"ash", "birch"}


def test_files_keep_their_order_and_names(photos):
    files = [photos[0] / "test" / "birch" / "01.png", photos[0] / "test" / "ash" / "00.jpg"]
    found = find_images(files)
    assert found.names == tuple(map(str, files))
    assert found.folders == (None, None)


def test_folders_without_images_are_one_line(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"contains no images \(1 x .txt\); allowed: .jpg"):
        find_images(tmp_path)
    with pytest.raises(UserError, match="0 image files were given"):
        find_images([])
    with pytest.raises(UserError, match="is a folder; allowed"):
        find_images([tmp_path])
