"""A smaller stored copy of a data set: the same images, labels and order; whole or not there; nothing is overwritten."""

import hashlib
import json
import re

import numpy as np
import pytest

from gensupcon_jax.data import datasets, tfds_sets
from gensupcon_jax.data.datasets import Reading
from gensupcon_jax.data.decoding import read_encoded
from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare import smaller_copy
from gensupcon_jax.prepare.smaller_copy import Damage, copy_name, read_original, write_copy
from gensupcon_jax.prepare.smaller_images import Smaller, smaller_image
from tests import ROOT
from tests.encoded import encode, picture, write_folder, write_tfds
from tests.running import told

SIZES = ((40, 48), (60, 36), (20, 24))


@pytest.fixture
def trees(tmp_path):
    """train/ of 4 x 6 images, test/ of 4 x 2; a validation split is cut from train."""
    return write_folder(tmp_path / "Trees 2", splits={"train": 6, "test": 2}, sizes=SIZES)


def copy_of(folder, into, short_side=30, quality=90, **settings):
    return write_copy(read_original(f"folder:{folder}", Reading()), Smaller(short_side, quality), into, **settings)


def load(name, folder=None):
    return datasets.load(name, folder=folder and str(folder), image_size=16, test_fraction=0.2, validation_fraction=0.2)


def files_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*/1.0.0/*"))}


def test_the_copy_has_the_same_images_labels_splits_and_order(trees, tmp_path):
    copied = copy_of(trees, tmp_path / "data")
    assert copied.name == "trees_2_short30_q90"
    assert copied.num_images == {"train": 24, "test": 8}
    original, copy = load(f"folder:{trees}"), load(f"tfds:{copied.name}", tmp_path / "data")
    assert copy.class_names == original.class_names == ("ash", "birch", "cedar", "date")
    for split in ("train", "validation", "test"):
        one, other = getattr(original, split), getattr(copy, split)
        np.testing.assert_array_equal(other.classes, one.classes)
        np.testing.assert_array_equal(other.numbers, one.numbers)  # the cuts take the same images
        for index in range(one.num_images):
            encoded, before = read_encoded(other, index), read_encoded(one, index)
            size = tuple(one.headers.sizes[index].tolist())
            assert encoded == smaller_image(before, size, 1, False, Smaller(30))
            assert (encoded == before) == (min(size) <= 30)
            assert min(other.headers.sizes[index]) == min(min(size), 30)


def test_the_copy_has_a_fingerprint_of_its_own(trees, tmp_path):
    before = load(f"folder:{trees}").description()
    names = [
        copy_of(trees, tmp_path, short_side, quality).name for short_side, quality in ((30, 90), (32, 90), (30, 80))
    ]
    assert names == ["trees_2_short30_q90", "trees_2_short32_q90", "trees_2_short30_q80"]
    assert load(f"folder:{trees}").description() == before  # nothing takes the copy by itself
    found = [load(f"folder:{trees}"), *(load(f"tfds:{name}", tmp_path) for name in names)]
    assert len({dataset.description()["fingerprint"] for dataset in found}) == 4


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_set_of_tfds_is_copied_beside_it(tmp_path, file_format):
    images = [(encode(picture(number % 3, number, (40, 50))), number % 3) for number in range(30)]
    write_tfds(tmp_path, {"train": images, "test": images[:6]}, num_shards=2, file_format=file_format)
    builder, _ = tfds_sets.open_builder("leaves", str(tmp_path))
    original = read_original("tfds:leaves", Reading(folder=str(tmp_path)), builder)
    copied = write_copy(original, Smaller(20), tmp_path)
    dataset = load("tfds:leaves_short20_q90", tmp_path)
    assert copied.num_images == {"train": 30, "test": 6}
    assert dataset.class_names == ("ash", "birch", "cedar")
    assert dataset.test.classes.tolist() == load("tfds:leaves", tmp_path).test.classes.tolist()
    assert dataset.train.headers.sizes.tolist() == [[20, 25]] * 24
    assert copied.original_bytes == sum(len(image) for image, _ in [*images, *images[:6]])


def test_the_images_of_a_list_are_copied(trees, tmp_path):
    files = sorted(trees.glob("train/*/*"))
    rows = [
        f"{path.relative_to(tmp_path)},{path.parent.name},{'train' if number % 3 else 'test'}"
        for number, path in enumerate(files)
    ]
    (tmp_path / "some.csv").write_text("\n".join(["path,label,split", *rows]))
    copied = write_copy(read_original(f"csv:{tmp_path / 'some.csv'}", Reading()), Smaller(30), tmp_path)
    original, copy = load(f"csv:{tmp_path / 'some.csv'}"), load("tfds:some_short30_q90", tmp_path)
    assert copied.num_images == {"train": 16, "test": 8}
    assert copy.class_names == original.class_names == ("ash", "birch", "cedar", "date")
    assert copy.train.classes.tolist() == original.train.classes.tolist()


def test_labels_that_are_not_one_class_are_one_line(trees, tmp_path):
    files = [path.relative_to(tmp_path) for path in sorted(trees.glob("train/*/*"))]
    (tmp_path / "some.csv").write_text("\n".join(["path,labels", *(f"{path},ash;birch" for path in files)]))
    reading = Reading(label_kind="several")
    with pytest.raises(
        UserError, match=r"the labels of csv:.*some\.csv are not one class each; allowed: lists of classes"
    ):
        read_original(f"csv:{tmp_path / 'some.csv'}", reading)


def test_a_split_without_labels_is_left_out(tmp_path):
    images = [(encode(picture(number % 3, number, (40, 50))), number % 3) for number in range(12)]
    write_tfds(tmp_path, {"train": images, "test": [(image, -1) for image, _ in images]})
    builder, _ = tfds_sets.open_builder("leaves", str(tmp_path))
    copied = write_copy(read_original("tfds:leaves", Reading(folder=str(tmp_path)), builder), Smaller(20), tmp_path)
    assert copied.num_images == {"train": 12}


def test_an_interrupted_copy_is_not_there_and_resumes_with_the_same_files(trees, tmp_path, monkeypatch):
    monkeypatch.setattr(smaller_copy, "_IMAGES_PER_FILE", 10)
    copy_of(trees, tmp_path / "whole")
    real, calls = smaller_copy._write_file, []

    def interrupted(file, *rest):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(file)
        return real(file, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(smaller_copy, "_write_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy_of(trees, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".trees_2_short30_q90.unfinished"]
    with pytest.raises(UserError, match="TFDS cannot load"):
        load("tfds:trees_2_short30_q90", tmp_path / "data")
    (calls[1].path.parent / f".{calls[1].path.name}.99999.unfinished").write_bytes(b"of a killed process")
    again = []
    monkeypatch.setattr(
        smaller_copy, "_write_file", lambda file, *rest: again.append(file.path.name) or real(file, *rest)
    )
    real_bar, bars = smaller_copy.progress_bar, []
    advanced: list[int] = []

    def bar(total, text, done):
        bars.append((total, done))
        shown = real_bar(total, text, done=done)  # of tqdm, which shows the time left
        monkeypatch.setattr(shown, "update", lambda num=1: advanced.append(num))
        return shown

    monkeypatch.setattr(smaller_copy, "progress_bar", bar)
    copied = copy_of(trees, tmp_path / "data")
    assert (bars, sum(advanced)) == ([(32, 20)], 12)
    assert again == [f"trees_2_short30_q90-{split}.array_record-0000{number}-of-0000{of}" for split, number, of in
                     (("train", 2, 3), ("test", 0, 1))]  # fmt: skip
    assert copied.copied == 12
    assert copied.num_images == {"train": 24, "test": 8}
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")


def test_an_error_while_writing_leaves_no_file(trees, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smaller_copy, "_record", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left"):
        copy_of(trees, tmp_path / "data")
    folder = tmp_path / "data" / ".trees_2_short30_q90.unfinished" / "1.0.0"
    assert [path.name for path in folder.iterdir()] == ["made_from.json"]


def test_nothing_is_overwritten(trees, tmp_path):
    copy_of(trees, tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(
        UserError, match=r"exists and is not overwritten; train on it with --config\.dataset\.name=tfds:trees"
    ):
        copy_of(trees, tmp_path)
    assert files_of(tmp_path) == before


def test_an_unfinished_copy_of_other_images_is_not_continued(trees, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(smaller_copy, "_write_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        copy_of(trees, tmp_path)
    origin = tmp_path / ".trees_2_short30_q90.unfinished" / "1.0.0" / "made_from.json"
    assert json.loads(origin.read_text())["dataset.name"] == f"folder:{trees}"
    (trees / "train" / "ash" / "more.jpg").write_bytes(encode(picture(0, 77, (40, 40))))
    with pytest.raises(
        UserError, match=r"unfinished copy of other images \(fingerprints differ\); remove it, or choose"
    ):
        copy_of(trees, tmp_path)


def test_damaged_images_are_named_or_left_out(trees, tmp_path):
    (trees / "train" / "ash" / "empty.jpg").touch()
    (trees / "train" / "ash" / "cut.jpg").write_bytes(encode(picture(0, 9, (50, 50)))[:900])
    with pytest.raises(
        UserError, match=r"1 image cannot be decoded: .*empty\.jpg: the file is empty; repair or remove"
    ):
        copy_of(trees, tmp_path)
    (trees / "train" / "ash" / "empty.jpg").unlink()
    with pytest.raises(UserError, match=r"1 image cannot be decoded: .*cut\.jpg: .*skip_damaged=True"):
        copy_of(trees, tmp_path)
    with pytest.raises(
        UserError, match=r"1 of 33 images .* a share of 0\.0303; allowed .*max_damaged_share: up to 0\.01"
    ):
        copy_of(trees, tmp_path, damage=Damage(skip_damaged=True))
    copied = copy_of(trees, tmp_path, damage=Damage(skip_damaged=True, max_damaged_share=0.1))
    assert (copied.num_left_out, copied.num_images["train"]) == (1, 24)
    assert "24 of train, 8 of test; 1 damaged image left out; " in copied.described()
    assert load(f"tfds:{copied.name}", tmp_path).train.num_images == 24 - 5


def test_images_that_are_small_already_are_not_copied(trees, tmp_path):
    with pytest.raises(
        UserError, match=r"no image of folder:.* has a shorter side of more than 40 pixels; allowed: 16 to 39"
    ):
        copy_of(trees, tmp_path / "data", 40)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tfds:imagenet2012", "imagenet2012_short256_q90"),
        ("tfds:imagenet2012:5.1.0", "imagenet2012_short256_q90"),
        ("folder:/data/My Photos-2024/", "my_photos_2024_short256_q90"),
        ("csv:lists/birds.v2.csv", "birds_v2_short256_q90"),
        ("folder:gs://bucket/été", "t_short256_q90"),
        ("folder:/", "images_short256_q90"),
    ],
)
def test_the_name_of_the_copy(name, expected):
    assert copy_name(name, Smaller(256)) == expected


# The command


def test_the_command_says_what_it_wrote_and_how_to_train_on_it(trees, capfd, monkeypatch):
    monkeypatch.chdir(trees.parent)
    arguments = [
        "--config",
        ROOT / "configs/digits.py",
        f"--config.dataset.name=folder:{trees.name}",
        "--short-side",
        "30",
    ]
    status, stdout, stderr = told(capfd, "prepare", *arguments, "--quality=80")
    assert (status, stderr) == (0, "")
    first, second = stdout.splitlines()
    assert re.fullmatch(
        r"trees_2_short30_q80: 24 of train, 8 of test; 0\.\d MB, [12]\.\d kB per image in place of 3\.\d kB", first
    )
    assert second == "to train on it: --config.dataset.name=tfds:trees_2_short30_q80 --config.dataset.folder=."
    assert sorted(path.name for path in trees.parent.iterdir()) == ["Trees 2", "runs", "trees_2_short30_q80"]
    assert [path.name for path in (trees.parent / "runs").iterdir()] == [".data_cache"]  # no contact sheet
    assert load("tfds:trees_2_short30_q80", ".").test.num_images == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--short-side=256"], "--short_side is given, but dataset.name is 'digits'; allowed with tfds:<name>, folder:<path>, "
         "csv:<file> and parquet:<file>"),
        (["--short-side=8"], "--short_side is '8'; allowed: a whole number from 16 to 4096"),
        (["--quality=80"], "--quality is given without --short_side; allowed with it only"),
        (["--into=x"], "--into is given without --short_side; allowed with it only"),
        (["--short-side=256", "--quality=0"], "--quality is '0'; allowed: a whole number from 1 to 100"),
        (["--short-side=256", "--output=x.html"],
         "--output is given with --short_side, which writes no contact sheet; leave one of them out"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_one_line(capfd, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert told(capfd, "prepare", "--config", ROOT / "configs/digits.py", *arguments) == (1, "", f"error: {message}\n")


def test_a_copy_on_an_object_store_is_one_line(trees, capfd, monkeypatch):
    monkeypatch.chdir(trees.parent)
    arguments = ["--config", ROOT / "configs/digits.py", f"--config.dataset.name=folder:{trees}", "--short-side", "30"]
    status, _, stderr = told(capfd, "prepare", *arguments, "--into=gs://bucket/data")
    assert status == 1
    assert (
        stderr
        == "error: the copy would be written to gs://bucket/data; allowed: a folder of this machine, with --into\n"
    )
