"""Gray from color and back: literal pixels; splits, order and labels of a data set stay the same."""

import numpy as np
import pytest
from PIL import Image

from gensupcon_jax.data import datasets
from gensupcon_jax.data.channels import converted
from gensupcon_jax.data.input_pipeline import centered_images
from gensupcon_jax.errors import UserError
from tests.tiny import tiny_dataset

RED, GREEN, BLUE, GRAY = [255, 0, 0], [0, 255, 0], [0, 0, 255], [7, 7, 7]


def test_literal_pixels():
    color = np.array([[[RED, GREEN], [BLUE, GRAY]]], np.uint8)
    assert converted(color, 1).tolist() == [[[[76], [150]], [[29], [7]]]]  # 0.299, 0.587 and 0.114 of 255
    assert converted(converted(color, 1), 3)[0, 0, 0].tolist() == [76, 76, 76]
    assert converted(color, 3) is color


def test_many_images_are_those_of_pillow():
    images = np.random.default_rng(0).integers(0, 256, (1030, 3, 3, 3), np.uint8)  # more than a tile
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    found = converted(images, 1)[..., 0]
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found != expected).mean() < 0.01  # halves are rounded in another direction


def test_arrays_in_other_channels_keep_their_splits_order_and_labels():
    color = tiny_dataset(channels=3)
    gray = datasets.in_channels(color, 1)
    assert gray.description()["image_shape"] == [8, 8, 1]
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(gray, name).images, converted(getattr(color, name).images, 1))
        np.testing.assert_array_equal(getattr(gray, name).labels, getattr(color, name).labels)
    assert gray.description()["mean"] == [pytest.approx(gray.train.images.mean() / 255)]
    again = datasets.in_channels(gray, 3)
    assert again.description()["mean"] == gray.description()["mean"] * 3
    assert datasets.in_channels(color, None) is color
    assert datasets.load("digits", channels=3).num_channels == 3


def write_images(folder, mode):
    rng = np.random.default_rng(0)
    for split, num in (("train", 6), ("validation", 2), ("test", 2)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for index in range(num):
                pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / split / label / f"{index}.png")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_folder_is_decoded_in_these_channels(tmp_path, mode):
    pytest.importorskip("tensorflow")
    write_images(tmp_path, mode)
    gray, color = (datasets.load(f"folder:{tmp_path}", channels=channels) for channels in (1, 3))
    assert (gray.num_channels, color.num_channels) == (1, 3)
    assert gray.train.numbers.tolist() == color.train.numbers.tolist()
    indices = np.arange(4)
    in_color, in_gray = centered_images(color.train, indices), centered_images(gray.train, indices)
    if mode == "L":
        np.testing.assert_array_equal(in_color, np.repeat(in_gray, 3, axis=-1))
        repeated = datasets.in_channels(datasets.load(f"folder:{tmp_path}"), 3)
        np.testing.assert_array_equal(centered_images(repeated.train, indices), in_color)
        np.testing.assert_allclose(repeated.description()["mean"], color.description()["mean"], atol=1e-6)
    else:
        np.testing.assert_allclose(in_gray, converted(in_color, 1), atol=1)
        with pytest.raises(UserError, match=r"pass Reading\(channels=1\) where they are read"):
            datasets.in_channels(color, 1)
