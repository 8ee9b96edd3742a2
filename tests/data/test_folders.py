"""Folders of images: order of the listing, wrong layouts, and damaged images."""

import json
import shutil

import jax
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data import datasets
from gensupcon_jax.data.input_pipeline import centered_images, padded_batches
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import train
from tests.data.test_headers import DECODABLE, UNDECODABLE
from tests.encoded import encode, picture, write_folder
from tests.tiny import tiny_config

CLASSES = ("ash", "birch", "cedar", "date")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder") / "trees")


@pytest.fixture
def own(written, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(written, tmp_path / "trees")


def load(path, **settings):
    return datasets.load(f"folder:{path}", **settings)


def test_splits_and_classes_are_sorted_folders(written):
    dataset = load(written)
    assert dataset.class_names == CLASSES
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [48, 12, 16]
    assert dataset.train.classes.tolist() == sorted([0, 1, 2, 3] * 12)
    names = [dataset.train.where(index) for index in range(13)]
    assert names == [str(written / "train" / "ash" / f"{n:03}.{('jpg', 'png')[n % 2]}") for n in range(12)] + [
        str(written / "train" / "birch" / "000.jpg")
    ]
    description = dataset.description()
    assert description["class_names"] == list(CLASSES)
    assert description["image_shape"] == [32, 32, 3]  # the images are smaller than the smallest usual size


def test_statistics_are_those_of_the_pixels(written):
    values = [
        np.asarray(__import__("PIL.Image").Image.open(path).convert("RGB")) / 255
        for path in (written / "train").rglob("*.*")
    ]
    first = np.mean([value.mean((0, 1)) for value in values], axis=0)
    second = np.mean([(value**2).mean((0, 1)) for value in values], axis=0)
    description = load(written).description()
    np.testing.assert_allclose(description["mean"], first, atol=5e-3)
    np.testing.assert_allclose(description["std"], np.sqrt(second - first**2), atol=5e-3)


def test_without_split_folders_all_splits_are_cut_from_the_images(written):
    dataset = load(written / "train", validation_fraction=0.25, test_fraction=0.25)
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [24, 12, 12]
    assert all(np.bincount(split.classes).tolist() == [n] * 4 for split, n in ((dataset.test, 3), (dataset.train, 6)))
    numbers = np.concatenate([split.numbers for split in (dataset.train, dataset.validation, dataset.test)])
    assert sorted(numbers) == list(range(48))


def test_without_a_test_split_the_validation_split_becomes_the_test_split(own):
    shutil.rmtree(own / "test")
    (own / "validation").rename(own / "val")
    dataset = load(own)
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [43, 5, 12]


def test_split_folders_of_other_names_are_named_in_the_config(own):
    (own / "train").rename(own / "learn")
    with pytest.raises(
        UserError, match=r"with learn, test, validation, but without a train folder; .*set dataset.train_split"
    ):
        load(own)
    assert load(own, train_split="learn").train.num_images == 48
    with pytest.raises(
        UserError, match=r"dataset.train_split is 'study', but .* contains the folders learn, test, val"
    ):
        load(own, train_split="study")


def test_a_common_size_is_the_image_size(tmp_path):
    dataset = load(write_folder(tmp_path / "own", sizes=((24, 24),)))
    assert dataset.image_size == 24
    assert load(tmp_path / "own", image_size=48).description()["image_shape"] == [48, 48, 3]


def test_gray_images_have_one_channel(tmp_path):
    for label in range(8):
        folder = tmp_path / "gray" / "ab"[label % 2]
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(6):
            (folder / f"{label}_{number}.png").write_bytes(encode(picture(label, number).convert("L"), "PNG"))
    dataset = load(tmp_path / "gray")
    assert dataset.num_channels == 1
    assert centered_images(dataset.train, np.arange(3)).shape == (3, 32, 32, 1)


def test_nested_folders_and_uppercase_suffixes_count_and_other_files_are_noted(own):
    (own / "train" / "ash" / "more").mkdir()
    (own / "train" / "ash" / "more" / "x.JPEG").write_bytes(encode(picture(0, 5)))
    (own / "train" / "ash" / "notes.txt").write_text("hello")
    (own / "train" / "README").write_text("hello")
    dataset = load(own)
    assert dataset.train.num_images == 49
    assert dataset.notes == (f"{own}/train: 2 files without an image suffix are ignored (1 x README, 1 x .txt)",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root), "which is not a folder"),
        (
            lambda root: [shutil.rmtree(root / "train" / name) for name in CLASSES[1:]],
            "contains 1 class folder, ash; allowed: 2 or more",
        ),
        (lambda root: [path.unlink() for path in (root / "train").rglob("*.*")], "contains no images"),
        (lambda root: (root / "train" / "elm").mkdir(), "train/elm: class folders without images; allowed: 1 or mor"),
        (
            lambda root: (root / "test" / "fig").mkdir(),
            "test/fig is a class that training does not have; allowed: ash, b",
        ),
    ],
)
def test_a_wrong_layout_is_an_error_of_one_line(own, change, message):
    change(own)
    with pytest.raises(UserError, match=message) as error:
        load(own)
    assert "\n" not in str(error.value)


def test_a_class_without_images_may_be_kept(own):
    (own / "train" / "elm").mkdir()
    dataset = load(own, skip_damaged=True)
    assert dataset.class_names == (*CLASSES, "elm")
    assert dataset.notes == (f"{own}/train/elm has no images: the class is kept without training images",)


@pytest.mark.parametrize("kind", DECODABLE)
def test_every_decodable_format_is_handled(own, kind):
    (own / "train" / "ash" / "odd.png").write_bytes(DECODABLE[kind])
    dataset = load(own)
    index = next(i for i in range(49) if dataset.train.where(i).endswith("odd.png"))
    assert centered_images(dataset.train, np.array([index])).shape == (1, 32, 32, 3)


BROKEN = {kind: data for kind, (data, _) in UNDECODABLE.items()} | {
    "cut jpeg": encode(picture(0, 0, (60, 60)))[:600],
    "cut webp": encode(picture(0, 0, (60, 60)), "WEBP")[:300],
    "text named .jpg": b"hello, I am not an image",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_undecodable_image_is_an_error_that_names_the_file(own, kind):
    (own / "train" / "cedar" / "broken.jpg").write_bytes(BROKEN[kind])
    with pytest.raises(UserError, match=r"1 of 77 images cannot be decoded: .*/train/cedar/broken.jpg: .*skip_damaged"):
        load(own)


@pytest.mark.slow
def test_damaged_images_may_be_left_out_and_are_listed(own):
    (own / "train" / "cedar" / "broken.jpg").write_bytes(BROKEN["cut jpeg"])
    (own / "test" / "ash" / "empty.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"2 of 78 images .*share of 0.0256; allowed by dataset.max_damaged_share: up to 0.01"
    ):
        load(own, skip_damaged=True)
    settings = {"dataset.skip_damaged": True, "dataset.max_damaged_share": 0.1}
    results = train.train_and_evaluate(
        tiny_config(**{"dataset.name": f"folder:{own}", "batch_size": 16, "steps": 2}, **settings),
        own.parent / "run",
        devices=jax.devices()[:1],
    )
    assert (results["num_train"], results["num_test"]) == (48, 16)
    listed = (own.parent / "run" / "damaged_images.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in listed] == [
        str(own / "train" / "cedar" / "broken.jpg"),
        str(own / "test" / "ash" / "empty.png"),
    ]
    assert json.loads((own.parent / "run" / "dataset.json").read_text())["num_damaged"] == 2


def test_an_image_damaged_later_stops_the_run_with_its_name(own, tmp_path):
    dataset = load(own)
    victim = own / "test" / "birch" / "001.png"
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(UserError, match=r"test/birch/001.png cannot be decoded"):
        list(padded_batches(dataset.test, 8, _one_device()))


def _one_device():
    return sharding.batch_sharding(sharding.make_mesh(jax.devices()[:1]))


def test_headers_and_statistics_are_cached_until_a_file_changes(own, tmp_path, monkeypatch):
    first = load(own, cache_folder=tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr("gensupcon_jax.data.file_listing.read_header", None)
        patched.setattr("gensupcon_jax.data.inspection.decode_upright", None)
        again = load(own, cache_folder=tmp_path / "cache")
    assert again.description() == first.description()
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:50])  # damaged: made again
    assert load(own, cache_folder=tmp_path / "cache").description() == first.description()
    (own / "train" / "ash" / "000.jpg").write_bytes(encode(picture(0, 99, (40, 50))))
    changed = load(own, cache_folder=tmp_path / "cache")
    assert changed.description()["fingerprint"] != first.description()["fingerprint"]
    assert isinstance(changed.train, EncodedSplit)


def test_a_repaired_file_is_read_again(own, tmp_path):
    victim = own / "train" / "ash" / "001.png"
    sound = victim.read_bytes()
    victim.write_bytes(sound[:60] + bytes(len(sound) - 60))  # of the same size
    with pytest.raises(UserError, match=r"train/ash/001.png"):
        load(own, cache_folder=tmp_path / "cache")
    victim.write_bytes(sound)
    assert load(own, cache_folder=tmp_path / "cache").train.num_images == 48
