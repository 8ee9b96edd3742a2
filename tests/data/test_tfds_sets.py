"""TFDS data sets read record by record: the same images in both file formats, any split, in a fixed order."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gensupcon_jax.data import datasets, tfds_sets
from gensupcon_jax.data.channels import converted
from gensupcon_jax.data.input_pipeline import centered_images
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError
from tests.encoded import encode, picture

NUM = {"train": 60, "validation": 20, "test": 12}
SIZES = ((20, 24), (30, 18), (24, 24))


@pytest.fixture(scope="module")
def builder_class():
    import tensorflow_datasets as tfds

    class Trees(tfds.core.GeneratorBasedBuilder):
        """Images that differ in size; the test split has no labels, as ImageNet's."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=["ash", "birch", "cedar", "date"]),
                "file_name": tfds.features.Text(),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, num) for split, num in NUM.items()}

        def _generate_examples(self, split, num):
            for number in range(num):
                image = picture(number % 4, number + len(split) * 1000, SIZES[number % 3])
                label = -1 if split == "test" else number % 4
                yield number, {"image": encode(image, quality=95), "label": label, "file_name": f"{number}"}

    return Trees


@pytest.fixture(scope="module")
def prepared(builder_class, tmp_path_factory):
    """Folders by file format; the training split has three files."""
    import tensorflow_datasets as tfds

    folders = {}
    for file_format in ("tfrecord", "array_record"):
        folders[file_format] = str(tmp_path_factory.mktemp(file_format))
        config = tfds.download.DownloadConfig(num_shards=3)
        builder_class(data_dir=folders[file_format], file_format=file_format).download_and_prepare(
            download_config=config
        )
    return folders


def load(folder, **settings):
    return datasets.load("tfds:trees", folder=folder, image_size=16, **settings)


def images_of(split):
    return centered_images(split, np.arange(split.num_images))


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_every_record_is_read_once_in_the_order_of_the_files(prepared, file_format, tmp_path):
    import tensorflow_datasets as tfds

    dataset = load(prepared[file_format], cache_folder=tmp_path)
    assert isinstance(dataset.train, EncodedSplit)
    assert dataset.class_names == ("ash", "birch", "cedar", "date")
    # The test split has no labels: the validation split becomes the test split, and validation is cut from training.
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [54, 6, 20]
    assert "the split test of tfds:trees has no labels and is not used" in dataset.notes
    builder = tfds.builder("trees", data_dir=prepared[file_format])
    read = tfds.ReadConfig(interleave_cycle_length=1)
    expected = (
        list(builder.as_data_source(split="train"))
        if file_format == "array_record"
        else list(tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False, read_config=read)))
    )
    kept = np.concatenate([dataset.train.numbers, dataset.validation.numbers])
    assert sorted(kept) == list(range(60))
    for index in range(0, 54, 5):
        record = expected[dataset.train.numbers[index]]
        assert dataset.train.classes[index] == record["label"]
        assert dataset.train.headers.sizes[index].tolist() == list(record["image"].shape[:2])
    again = load(prepared[file_format], cache_folder=tmp_path)
    np.testing.assert_array_equal(images_of(again.validation), images_of(dataset.validation))


def test_both_formats_give_the_same_images(prepared):
    tfrecord, array_record = (load(prepared[name]) for name in ("tfrecord", "array_record"))
    first, second = (
        {image.tobytes(): label for image, label in zip(images_of(data.test), data.test.classes, strict=True)}
        for data in (tfrecord, array_record)
    )
    assert first == second
    assert any(
        f"gensupcon prepare --config common --config.dataset.name=tfds:trees "
        f"--config.dataset.folder={prepared['tfrecord']} --file_format=array_record converts it" in note
        for note in tfrecord.notes
    )
    assert not any("array_record" in note for note in array_record.notes)


def test_parts_of_splits_are_accepted_in_tfds_syntax(prepared):
    settings = {"train_split": "train[:50%]", "validation_split": "train[50%:75%]", "test_split": "train[75%:]"}
    for folder in prepared.values():
        dataset = load(folder, **settings)
        parts = (dataset.train, dataset.validation, dataset.test)
        assert [split.num_images for split in parts] == [30, 15, 15]
        images = {image.tobytes() for split in parts for image in images_of(split)}
        assert len(images) == 60
    with pytest.raises(
        UserError, match=r"dataset.test_split is 'best', which TFDS does not accept .*allowed: train, valid"
    ):
        load(folder, test_split="best")


def test_a_message_names_the_record(prepared):
    dataset = load(prepared["tfrecord"])
    assert dataset.test.where(3).startswith("tfds:trees validation: record 3, trees-validation.tfrecord-00000-of-0000")
    assert load(prepared["array_record"]).test.where(3) == "tfds:trees validation: record 3"


def test_a_truncated_file_is_named(builder_class, tmp_path):
    builder_class(data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    (victim,) = tmp_path.rglob("*-train.tfrecord*")
    victim.write_bytes(victim.read_bytes()[:-10])
    with pytest.raises(
        UserError, match=r"trees-train.tfrecord-00000-of-00001 ends within record 59; prepare the data set again"
    ):
        load(str(tmp_path))


def test_small_squares_are_kept_in_memory_unless_the_limit_is_lower(tmp_path):
    import tensorflow_datasets as tfds

    class Squares(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(24, 24, 3)),
                "label": tfds.features.ClassLabel(num_classes=4),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(40), "test": self._generate_examples(20)}

        def _generate_examples(self, num):
            for number in range(num):
                yield number, {"image": np.asarray(picture(number % 4, num + number, (24, 24))), "label": number % 4}

    folders = [str(tmp_path / name) for name in ("tfrecord", "array_record")]
    for folder in folders:
        Squares(data_dir=folder, file_format=Path(folder).name).download_and_prepare()
    memory, other = (datasets.load("tfds:squares", folder=folder) for folder in folders)
    assert {image.tobytes() for image in other.test.images} == {image.tobytes() for image in memory.test.images}
    encoded = datasets.load("tfds:squares", folder=folders[0], memory_limit=0.05, center_share=1.0)
    assert (memory.is_encoded, encoded.is_encoded) == (False, True)
    assert encoded.image_size == memory.image_size == 24
    images = {image.tobytes(): label for image, label in zip(memory.test.images, memory.test.classes, strict=True)}
    read = {image.tobytes(): label for image, label in zip(images_of(encoded.test), encoded.test.classes, strict=True)}
    assert images == read  # PNG, whole, of its own size: the same bytes
    np.testing.assert_allclose(encoded.description()["mean"], memory.description()["mean"], atol=0.02)
    # Gray by dataset.channels: the same pixels in the same order, in memory and record by record.
    gray = datasets.load("tfds:squares", folder=folders[0], channels=1)
    np.testing.assert_array_equal(gray.train.images, converted(memory.train.images, 1))
    np.testing.assert_array_equal(gray.train.labels, memory.train.labels)
    read_gray = datasets.load("tfds:squares", folder=folders[0], memory_limit=0.05, center_share=1.0, channels=1)
    np.testing.assert_array_equal(images_of(read_gray.test), converted(images_of(encoded.test), 1))
    assert read_gray.description()["image_shape"] == [24, 24, 1]


def test_a_split_wanted_for_one_purpose_is_not_taken_for_another():
    splits = {name: SimpleNamespace(num_examples=8) for name in ("train", "validation")}
    builder = SimpleNamespace(info=SimpleNamespace(splits=splits))
    wanted = {"train": None, "validation": None, "test": "validation"}
    assert tfds_sets.choose_splits(builder, "leaves", wanted) == {"train": "train", "test": "validation"}
