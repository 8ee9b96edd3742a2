"""Layouts of folders that people really have: what is read, what is left out with a note, what is refused and why."""

import os

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.errors import UserError
from gensupcon_jax.inference.images import find_images
from tests.encoded import encode, picture

PICTURE = encode(picture(0, 0, (16, 16)), "PNG")


def put(folder, num=4, names="im{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        (folder / names.format(number)).write_bytes(PICTURE)


def classes(root, names=("cat", "dog"), num=4):
    for name in names:
        put(root / name, num)


def load(root):
    return datasets.load(f"folder:{root}")


def sizes(dataset):
    return [split.num_images for split in (dataset.train, dataset.validation, dataset.test)]


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Validation", "Test"),
        ("training", "valid", "TESTING"),
        ("TRAIN", "dev", "test"),
        ("train", "eval", "Test"),
        ("train", "Val", "test"),
    ],
)
def test_splits_have_their_usual_names_in_any_case(tmp_path, names):
    for name, num in zip(names, (4, 3, 2), strict=True):
        classes(tmp_path / name, num=num)
    assert sizes(load(tmp_path)) == [8, 6, 4]
    assert load(tmp_path).notes == ()


def test_a_folder_with_images_that_no_split_uses_is_named(tmp_path):
    for name in ("train", "test", "val", "validation", "more/raw"):
        classes(tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert load(tmp_path).notes == (
        f"{tmp_path}/more contains images and is used by no split",
        f"{tmp_path}/val contains images and is used by no split",
    )


def test_a_folder_named_for_one_split_is_not_taken_for_another(tmp_path):
    for name, num in (("train", 6), ("val", 2), ("extra", 3)):
        classes(tmp_path / name, num=num)
    dataset = datasets.load(f"folder:{tmp_path}", test_split="val")
    assert sizes(dataset) == [10, 2, 4]  # not the four images of val for validation too
    dataset = datasets.load(f"folder:{tmp_path}", train_split="val", test_split="extra")
    assert sizes(dataset) == [2, 2, 6]


def test_a_split_without_images_is_noted_and_refused_where_it_is_named(tmp_path):
    classes(tmp_path / "train")
    (tmp_path / "val" / "cat").mkdir(parents=True)
    assert load(tmp_path).notes == (f"{tmp_path}/val contains no images and is not used",)
    with pytest.raises(
        UserError, match=r"dataset.test_split is 'val', but .*val contains no images; allowed: a folder with"
    ):
        datasets.load(f"folder:{tmp_path}", test_split="val")


def test_images_beside_the_split_folders_are_noted(tmp_path):
    for name in ("train", "test"):
        classes(tmp_path / name)
    put(tmp_path, 1)
    assert load(tmp_path).notes == (f"{tmp_path}: 1 image beside the split folders, used by no split",)


def test_splits_of_other_names_are_not_taken_for_classes(tmp_path):
    for name in ("train_set", "test-data"):
        classes(tmp_path / name)
    with pytest.raises(
        UserError, match=r"with test-data, train_set, but without a train folder; .*set dataset.train_split"
    ):
        load(tmp_path)


def test_a_folder_above_the_classes_is_not_taken_for_one(tmp_path):
    classes(tmp_path / "dataset")
    put(tmp_path / "extra" / "pictures")
    with pytest.raises(
        UserError, match=r"no image lies directly in a folder of .*, dataset contains cat, dog; .*/dataset, or"
    ):
        load(tmp_path)


def test_a_split_without_class_folders_is_refused(tmp_path):
    classes(tmp_path / "train")
    put(tmp_path / "val", 12)
    with pytest.raises(
        UserError,
        match=r"val contains 12 images without class folders, and is the validation split by its name; .*dataset.name=csv:<file>",
    ):
        load(tmp_path)


def test_images_beside_the_class_folders_are_noted(tmp_path):
    classes(tmp_path)
    put(tmp_path, 5)
    dataset = load(tmp_path)
    assert sum(sizes(dataset)) == 8
    assert dataset.notes == (
        f"{tmp_path}: 5 images beside the class folders are not used; put them into a class folder",
    )


HIDDEN = {
    "a hidden folder": lambda root: put(root / "cat" / ".ipynb_checkpoints", 3),
    "hidden files": lambda root: put(root / "cat", 1, ".hidden{}.png"),
    "forks of a Mac": lambda root: (root / "cat" / "._im0.png").write_bytes(b"\0\5\x16\7"),
    "an archive of a Mac": lambda root: put(root / "__MACOSX" / "cat"),
    "a network storage": lambda root: put(root / "cat" / "@eaDir" / "im0.png"),
    "a file of Windows": lambda root: (root / "cat" / "Thumbs.db").write_bytes(b"x"),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path, kind):
    classes(tmp_path)
    HIDDEN[kind](tmp_path)
    dataset = load(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert sum(sizes(dataset)) == len(find_images(tmp_path).names) == 8
    assert dataset.notes == (f"{tmp_path}: 1 hidden file or folder is left out",)


@pytest.mark.parametrize("suffix", ["jfif", "JFIF", "jpe", "pjpeg"])
def test_other_suffixes_of_jpeg_are_read(tmp_path, suffix):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.{suffix}").write_bytes(encode(picture(0, number, (16, 16)), "JPEG"))
    assert sum(sizes(load(tmp_path))) == 8


def test_a_folder_of_unreadable_formats_says_how_to_convert_them(tmp_path):
    for name in ("cat", "dog"):
        put(tmp_path / name, 4, "{}.tif")
    words = (
        r"contains no images \(8 x .tif\); convert .tif files, for example with: find \S+ -name '\*.tif' -exec mogrify "
    )
    words += r"-format png \{\} \+; allowed: .jpg"
    with pytest.raises(UserError, match=words):
        load(tmp_path)
    with pytest.raises(UserError, match=words):
        find_images(tmp_path)


def test_a_class_may_be_named_like_a_file(tmp_path):
    classes(tmp_path, ("v1.0", "v2.jpg", "x"))
    assert load(tmp_path).class_names == ("v1.0", "v2.jpg", "x")


def test_names_that_are_not_utf8_are_read_and_shown(tmp_path):
    classes(tmp_path)
    put(tmp_path / os.fsdecode(b"caf\xe9"), names=os.fsdecode(b"b\xff{}.png"))
    dataset = load(tmp_path)
    assert dataset.class_names == ("caf\N{REPLACEMENT CHARACTER}", "cat", "dog")
    assert sum(sizes(dataset)) == 12
    for index in range(dataset.train.num_images):
        dataset.train.where(index).encode()


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    classes(tmp_path)
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "dog" / "here").symlink_to(".")
    assert sum(sizes(load(tmp_path))) == 8


def test_a_link_to_other_images_is_followed(tmp_path):
    put(tmp_path / "elsewhere", 4)
    classes(tmp_path / "photos")
    (tmp_path / "photos" / "fox").symlink_to(tmp_path / "elsewhere")
    assert load(tmp_path / "photos").class_names == ("cat", "dog", "fox")


@pytest.mark.parametrize(("num", "images"), [(1, "1 image;"), (2, "2 images;")])
def test_a_class_with_too_few_images_to_cut_is_named(tmp_path, num, images):
    classes(tmp_path, num=8)
    put(tmp_path / "zebra", num)
    with pytest.raises(
        UserError, match=rf"the class folder zebra contains {images} allowed: 3 or more, as validation and test images"
    ):
        load(tmp_path)
    put(tmp_path / "zebra", 3)
    assert np.bincount(load(tmp_path).train.classes).min() >= 1


def test_with_splits_of_its_own_a_class_may_have_one_image(tmp_path):
    for name in ("train", "validation", "test"):
        classes(tmp_path / name, num=1)
    assert sizes(load(tmp_path)) == [2, 2, 2]
