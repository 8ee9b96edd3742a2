"""TFDS data sets with several labels per image: numbers in a list, objects, or a row."""

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.data.encoded_sets import Reading
from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare.contents import read_contents
from gensupcon_jax.prepare.fetching import fetch
from gensupcon_jax.prepare.smaller_copy import read_original
from tests.encoded import encode, picture

NAMES = ["ash", "birch", "cedar"]


def labels_of(number):
    """None of them, one, or two, of which one occurs twice."""
    return [[], [number % 3], [0, 2, 0]][number % 3] if number % 5 else [2]


def row_of(number):
    return np.isin(np.arange(3), labels_of(number)).astype(np.float32)


def builder_class(name, feature_fn, value_fn, num=30):
    """A data set of this name, of images that differ in size, with what feature_fn declares and value_fn(number) fills."""
    import tensorflow_datasets as tfds

    def info(self):
        features = {"image": tfds.features.Image(encoding_format="jpeg"), **feature_fn(tfds.features)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def examples(first):
        for number in range(first, first + num):
            image = encode(picture(number % 4, number, (20, 24)), quality=95)
            yield number, {"image": image, **value_fn(number)}

    parts = {
        "__module__": __name__,
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": lambda self, dl_manager: {"train": examples(0), "test": examples(num)},
        "_generate_examples": None,
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), parts)


KINDS = {
    "labels": (
        lambda features: {"labels": features.Sequence(features.ClassLabel(names=NAMES))},
        lambda number: {"labels": labels_of(number)},
    ),
    "objects": (
        lambda features: {"objects": features.Sequence({"label": features.ClassLabel(names=NAMES), "id": np.int64})},
        lambda number: {"objects": [{"label": label, "id": place} for place, label in enumerate(labels_of(number))]},
    ),
    "row": (
        lambda features: {"labels": features.Tensor(shape=(3,), dtype=np.float32)},
        lambda number: {"labels": row_of(number)},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_each_record_has_the_row_of_its_labels(kind, file_format, tmp_path):
    name = f"Forests{kind.title()}{file_format[0].upper()}"
    builder = builder_class(name, *KINDS[kind])(data_dir=str(tmp_path), file_format=file_format)
    builder.download_and_prepare()
    settings = {"label_kind": "several", "validation_fraction": 0.2, "cache_folder": tmp_path}
    found = datasets.load(f"tfds:{builder.name}", folder=str(tmp_path), **settings)
    assert found.label_kind == "several"
    assert found.class_names == (("0", "1", "2") if kind == "row" else tuple(NAMES))
    counts = sum(row_of(number) for number in range(30))
    train, validation = (split.labels_of(np.arange(split.num_images)) for split in (found.train, found.validation))
    np.testing.assert_array_equal(train.sum(0) + validation.sum(0), counts)
    assert (len(train), len(validation), found.test.num_images) == (24, 6, 30)
    again = datasets.load(f"tfds:{builder.name}", folder=str(tmp_path), **settings)
    np.testing.assert_array_equal(again.train.rows, train)


def test_a_data_set_without_such_a_feature_is_an_error_with_its_features(tmp_path):
    one = (
        lambda features: {"label": features.ClassLabel(names=NAMES)},
        lambda number: {"label": number % 3},
    )
    builder_class("ForestsOfOne", *one)(data_dir=str(tmp_path)).download_and_prepare()
    message = (
        r"label_kind is several, but .*'tfds:forests_of_one' has the features \['image', 'label'\].*label_kind=class"
    )
    with pytest.raises(UserError, match=message):
        datasets.load("tfds:forests_of_one", folder=str(tmp_path), label_kind="several")


def test_prepare_counts_each_image_for_all_of_its_labels(tmp_path):
    builder_class("ForestsPrepared", *KINDS["labels"])(data_dir=str(tmp_path)).download_and_prepare()
    settings = {"file_format": None, "source": None, "log_fn": print, "label_kind": "several"}
    builder, _ = fetch("forests_prepared", str(tmp_path), **settings)
    contents = read_contents("tfds:forests_prepared", Reading(folder=str(tmp_path), label_kind="several"), builder)
    assert contents.class_names == tuple(NAMES)
    counts = sum(row_of(number) for number in range(30))
    assert contents.splits[0].counts(3).tolist() == counts.tolist()
    with pytest.raises(
        UserError, match=r"dataset.label_kind is several; allowed: class, as a copy has one class per image"
    ):
        read_original("tfds:forests_prepared", Reading(folder=str(tmp_path), label_kind="several"), builder)
