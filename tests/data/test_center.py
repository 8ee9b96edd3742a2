"""The part of an image that an evaluation sees: the same however the images are stored."""

import numpy as np
import pytest
from PIL import Image

from gensupcon_jax.data import datasets
from gensupcon_jax.data.center import center_share_of
from gensupcon_jax.data.input_pipeline import centered_images
from gensupcon_jax.views.augment import resize

SQUARES = np.full((6, 2), 24)


@pytest.mark.parametrize(
    ("given", "sizes", "image_size", "share"),
    [
        (None, SQUARES, 24, 1.0),
        (None, SQUARES, 16, 0.875),  # squares, but of another size
        (None, np.array([[24, 24], [24, 25]]), 24, 0.875),  # one image is no square
        (None, np.array([[500, 375]]), 224, 0.875),
        (None, np.zeros((0, 2), np.int32), 24, 1.0),
        (0.5, SQUARES, 24, 0.5),
        (1, np.array([[500, 375]]), 224, 1.0),
    ],
)
def test_all_of_a_square_of_the_right_size_is_evaluated_else_the_usual_share(given, sizes, image_size, share):
    assert center_share_of(given, sizes, image_size) == share


def pictures(num, size=24):
    """Smooth pictures, as PNG files keep them exactly."""
    rows, columns = np.mgrid[:size, :size]
    waves = [127 + 120 * np.sin((rows * (1 + k % 3) + columns * (1 + k % 4)) / 9 + k) for k in range(num)]
    return np.repeat(np.round(np.stack(waves)).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def stored_twice(tmp_path_factory):
    """(the folder of PNG files, images, classes): training images, which are the test images too."""
    root, images = tmp_path_factory.mktemp("stored") / "waves", pictures(12)
    classes = np.arange(12) % 2
    for split in ("train", "test"):
        for number, (image, label) in enumerate(zip(images, classes, strict=True)):
            folder = root / split / "ab"[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:02}.png")
    order = np.argsort(classes, kind="stable")
    return root, images[order], classes[order]


def evaluated(dataset, indices):
    """The pixels that the network sees in an evaluation."""
    if dataset.is_encoded:
        return centered_images(dataset.test, indices)
    return np.asarray(resize(dataset.test.images[indices], dataset.image_size, dataset.center_share))


@pytest.mark.parametrize(("image_size", "given", "share"), [(None, None, 1.0), (24, 0.875, 0.875), (16, None, 0.875)])
def test_files_and_arrays_are_evaluated_alike(stored_twice, image_size, given, share):
    root, images, classes = stored_twice
    files = datasets.load(f"folder:{root}", image_size=image_size, center_share=given)
    memory = datasets.from_arrays(images, classes, test=(images, classes), validation_fraction=1 / 6)
    memory = datasets.seen_at(memory, image_size, given)
    assert files.center_share == memory.center_share == share
    assert files.description()["center_share"] == memory.description()["center_share"] == share
    of_files, of_memory = (evaluated(each, np.arange(12)).astype(int) for each in (files, memory))
    assert of_files.shape == of_memory.shape == (12, image_size or 24, image_size or 24, 3)
    if share == 1:
        np.testing.assert_array_equal(of_files, images)
        np.testing.assert_array_equal(of_memory, images)
    else:  # the two resize with kernels of their own; whole images differ by more
        whole = np.asarray(resize(images, image_size)).astype(int)
        assert np.abs(of_files - of_memory).mean() < 2
        assert np.abs(of_files - whole).mean() > 6


def test_one_image_of_another_size_changes_the_share_of_all(stored_twice, tmp_path):
    import shutil

    root = shutil.copytree(stored_twice[0], tmp_path / "waves")
    Image.fromarray(pictures(1, 30)[0]).save(root / "train" / "a" / "odd.png")
    assert datasets.load(f"folder:{root}", image_size=24).center_share == 0.875


def test_the_center_is_cut_out_before_it_is_resized():
    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[:, 2:6, 2:6] = 200  # all that a share of a half sees
    np.testing.assert_array_equal(resize(image, 4, 0.5), np.full((1, 4, 4, 1), 200))
    np.testing.assert_array_equal(resize(image, 8, 1.0), image)
