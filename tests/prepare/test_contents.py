"""Contents of data sets with planted damage, copies and empty classes: counts, sizes and findings."""

import io
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from gensupcon_jax.data import tfds_sets
from gensupcon_jax.data.datasets import Reading, load
from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare.contents import Contents, SplitContents, find_copies, read_contents
from gensupcon_jax.prepare.contents_table import class_rows, damaged_lines, findings, remarks, split_rows, table
from tests.encoded import encode, picture, records, write_folder, write_tfds


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder") / "trees")


@pytest.fixture
def own(written, tmp_path):
    return shutil.copytree(written, tmp_path / "trees")


def check_folder(path, **settings):
    contents = read_contents(f"folder:{path}", Reading(**settings))
    return contents, find_copies(contents)


def check_tfds(folder, **settings):
    builder, _ = tfds_sets.open_builder("leaves", str(folder))
    contents = read_contents("tfds:leaves", Reading(folder=str(folder), **settings), builder)
    return contents, find_copies(contents)


def test_a_list_with_several_labels_and_one_without_some(written):
    files = sorted(path.relative_to(written) for path in (written / "train").rglob("*.*"))
    text = "".join(f"{path},{path.parts[1]}|{'odd' if n % 2 else 'even'}\n" for n, path in enumerate(files))
    (written / "list.csv").write_text(f"path,label\n{text}")
    contents = read_contents(f"csv:{written}/list.csv", Reading(label_kind="several"))
    copies = find_copies(contents)
    assert contents.place == f"images in {written}"
    assert class_rows(contents)[1:] == [
        [name, count]
        for name, count in zip(("ash", "birch", "cedar", "date", "even", "odd"), ("12",) * 4 + ("24",) * 2, strict=True)
    ]
    assert findings(contents, copies) == []
    assert f"csv:{written}/list.csv" == contents.name
    (written / "list.csv").write_text(
        "path,label\n" + text.replace("|odd", "").replace("date|even", "").replace("|even", "")
    )
    contents = read_contents(f"csv:{written}/list.csv", Reading())
    assert contents.splits[0].counts(4).tolist() == [12, 12, 12, 6]
    assert findings(contents, find_copies(contents)) == []
    without = "6 images of train without a label: each is trained as a class of its own, and not evaluated"
    assert remarks(contents).count(without) == 1
    (written / "list.csv").write_text(f"path,label\nnone.jpg,ash\n{text.replace('|odd', '').replace('|even', '')}")
    contents = read_contents(f"csv:{written}/list.csv", Reading())
    assert contents.splits[0].num_damaged == 1
    assert (
        f"{written}/none.jpg: the file cannot be read (No such file or directory)"
        in findings(contents, find_copies(contents))[0]
    )
    assert "paths: column path; labels: column label; no column of splits (a comma between the cells)" in remarks(
        contents
    )


def test_an_intact_folder(written):
    contents, copies = check_folder(written)
    assert split_rows(contents, copies)[1:] == [
        ["train", "48", "0", "0", "20x24", "30x18", "24x24", "JPEG 24, PNG 24"],
        ["validation", "12", "0", "0", "20x24", "30x18", "24x24", "JPEG 8, PNG 4"],
        ["test", "16", "0", "0", "20x24", "30x18", "24x24", "JPEG 8, PNG 8"],
    ]
    assert class_rows(contents)[1] == ["ash", "12", "3", "4"]
    assert (findings(contents, copies), remarks(contents)) == ([], [])
    assert table(contents, copies).endswith("\n\n- no problems were found")
    assert copies.across == {("train", "validation"): 0, ("train", "test"): 0, ("validation", "test"): 0}


def test_the_digits_have_no_copies():
    contents = read_contents("digits", Reading())
    copies = find_copies(contents)
    assert [len(split.classes) for split in contents.splits] == [1077, 180, 540]
    assert split_rows(contents, copies)[1][4:7] == ["8x8"] * 3
    pixels = [image.tobytes() for split in contents.splits for image in map(split.pixels_fn, range(len(split.classes)))]
    assert len(set(pixels)) == len(pixels) == 1797
    assert findings(contents, copies) == []


def test_damage_is_found_by_header_and_by_decoding_and_the_fields_are_named(own):
    cut = encode(picture(0, 0, (60, 60)))
    (own / "train" / "cedar" / "cut.jpg").write_bytes(cut[: 3 * len(cut) // 4])  # its header is intact
    (own / "train" / "cedar" / "text.jpg").write_bytes(b"hello, I am not an image")
    (own / "test" / "ash" / "empty.png").write_bytes(b"")
    (own / "test" / "ash" / "nowhere.png").symlink_to(own / "gone.png")
    contents, copies = check_folder(own)
    assert [split.num_damaged for split in contents.splits] == [2, 0, 2]
    lines = damaged_lines(contents)
    assert [line.split(": ")[0] for line in lines] == [
        str(own / place)
        for place in ("train/cedar/cut.jpg", "train/cedar/text.jpg", "test/ash/empty.png", "test/ash/nowhere.png")
    ]
    assert "the file is empty" in lines[2]
    assert "cannot be read (No such file or directory)" in lines[3]
    (sentence,) = findings(contents, copies)
    assert sentence.startswith(f"4 of 80 images cannot be decoded: {own}/train/cedar/cut.jpg: ")
    assert "and 1 more. Repair or remove them" in sentence
    assert (
        "--config.dataset.skip_damaged=True --config.dataset.max_damaged_share=0.05 (their share is 0.05)" in sentence
    )
    assert split_rows(contents, copies)[3][7] == "JPEG 8, PNG 8"  # of those that can be decoded


def test_copies_are_counted_within_and_across_splits_and_with_two_classes(own):
    shutil.copy(own / "train/ash/000.jpg", own / "test/ash/same.jpg")
    shutil.copy(own / "train/ash/000.jpg", own / "test/ash/once_more.png")  # the name does not matter
    shutil.copy(own / "train/birch/001.png", own / "validation/birch/same.png")
    shutil.copy(own / "train/ash/002.jpg", own / "train/birch/same.jpg")
    for name in ("a.png", "b.png"):
        (own / "train/date" / name).write_bytes(b"")  # damaged images are not copies of each other
    contents, copies = check_folder(own)
    assert copies.within == {"train": 1, "validation": 0, "test": 1}
    assert copies.across == {("train", "validation"): 1, ("train", "test"): 2, ("validation", "test"): 0}
    assert copies.two_classes == 2
    named = [[contents.splits[split].where_fn(index) for split, index in group] for group in copies.examples]
    assert [[name.removeprefix(f"{own}/") for name in group] for group in named] == [
        ["train/ash/000.jpg", "test/ash/once_more.png", "test/ash/same.jpg"],
        ["train/birch/001.png", "validation/birch/same.png"],
        ["train/ash/002.jpg", "train/birch/same.jpg"],
    ]
    sentences = findings(contents, copies)[1:]
    assert sentences == [
        f"1 image of validation is also in train, the same bytes: {own}/train/birch/001.png = "
        f"{own}/validation/birch/same.png. Remove them from train: validation must contain unseen images only",
        f"2 images of test are also in train, the same bytes: {own}/train/ash/000.jpg = {own}/test/ash/same.jpg. "
        "Remove them from train: test must contain unseen images only",
        f"1 image of train occurs more than once: {own}/train/ash/002.jpg = {own}/train/birch/same.jpg",
        f"1 image of test occurs more than once: {own}/test/ash/once_more.png = {own}/test/ash/same.jpg",
        "2 of these images are in two or more classes: correct their labels",
    ]


def test_arrays_are_compared_by_pixels():
    images = np.arange(4 * 4, dtype=np.uint8).reshape(4, 2, 2, 1)
    images[3] = images[1]
    fingerprints = [hash(image.tobytes()) % 2**32 for image in images]

    def split(name, rows):
        return SplitContents(
            name, name, np.array(rows) % 2, np.full((len(rows), 2), 2, np.int32), [None] * len(rows),
            np.array([fingerprints[row] for row in rows], np.uint64), {}, 0, str, lambda index: images[rows[index]],
        )  # fmt: skip

    contents = Contents("arrays", "memory", ("a", "b"), (split("train", [0, 1, 2]), split("test", [3])))
    assert find_copies(contents).across == {("train", "test"): 1}


def test_classes_without_images_are_named_once(own):
    (own / "train" / "elm").mkdir()
    shutil.rmtree(own / "test" / "ash")
    contents, copies = check_folder(own)
    assert findings(contents, copies) == [
        "1 class has no images in train: elm; add images or remove the class, or keep it without images: "
        "--config.dataset.skip_damaged=True",
        "1 class has no images in test: ash",
    ]
    assert class_rows(contents)[-1] == ["elm", "0", "0", "0"]


def test_properties_that_are_not_problems_are_remarks(own):
    exif = Image.Exif()
    exif[274] = 6
    (own / "train" / "ash" / "turned.jpg").write_bytes(encode(picture(0, 9, (10, 30)), exif=exif))
    (own / "train" / "ash" / "notes.txt").write_text("hello")
    shutil.rmtree(own / "test")
    contents, copies = check_folder(own)
    assert findings(contents, copies) == []
    assert remarks(contents) == [
        f"{own}/train: 1 files without an image suffix are ignored (1 x .txt)",
        "there is no labeled test split: validation becomes the test split, and a new validation split is cut from train",
        "1 image of train is turned by EXIF and read upright",
    ]
    assert split_rows(contents, copies)[1][4] == "30x10"  # upright
    turned = contents.splits[0].pixels_fn(
        [contents.splits[0].where_fn(i) for i in range(49)].index(f"{own}/train/ash/turned.jpg")
    )
    assert turned.shape == (30, 10, 3)


def test_many_classes_are_summarized(tmp_path):
    names = [f"class_{number:03}" for number in range(25)]
    write_folder(tmp_path / "many", splits={"train": 2}, classes=names)
    for number in range(3):
        (tmp_path / "many/train/class_007" / f"more_{number}.png").write_bytes(encode(picture(0, 5000 + number), "PNG"))
    (tmp_path / "many/train/class_011/000.jpg").unlink()
    contents, copies = check_folder(tmp_path / "many")
    assert class_rows(contents) == [
        ["images per class", "fewest", "median", "most", "without", "fewest has", "most has"],
        ["train", "1", "2", "5", "0", "class_011", "class_007"],
    ]
    assert remarks(contents) == ["there is no validation and no test split: always the same images are cut from train"]
    assert max(map(len, table(contents, copies).splitlines())) <= 100


def test_the_table_stays_narrow_with_long_names_and_many_formats(own):
    for kind, suffix in (("WEBP", "webp"), ("BMP", "bmp"), ("GIF", "gif")):
        (own / "train" / "ash" / f"odd.{suffix}").write_bytes(encode(picture(0, 8, (1234, 5)), kind))
    (own / "train" / "ash").rename(own / "train" / ("ash\n\x1b[31m" + "e" * 100))
    for split in ("validation", "test"):
        shutil.rmtree(own / split)
    contents, copies = check_folder(own)
    text = table(contents, copies)
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_tfds_data_sets_are_checked_record_by_record(tmp_path, file_format):
    train, test = records(30), records(6, start=500)
    splits = {
        "train": [*train, train[4], (b"hello", 2)],
        "validation": [*test, train[0]],
        "test": [(image, -1) for image, _ in records(5, start=900)],
    }
    write_tfds(tmp_path, splits, file_format=file_format)
    contents, copies = check_tfds(tmp_path)
    assert contents.place == f"{tmp_path}/leaves/1.0.0, as {file_format}"
    assert [len(split.classes) for split in contents.splits] == [32, 7, 5]
    assert [split.num_damaged for split in contents.splits] == [1, 0, 0]
    assert copies.within == {"train": 1, "validation": 0, "test": 0}
    assert copies.across == {("train", "validation"): 1, ("train", "test"): 0, ("validation", "test"): 0}
    assert class_rows(contents)[1:] == [["ash", "10", "3", "0"], ["birch", "11", "2", "0"], ["cedar", "11", "2", "0"]]
    assert "test has no labels and is not used" in remarks(contents)
    assert "1 of 44 images cannot be decoded: tfds:leaves train: record " in findings(contents, copies)[0]
    first = contents.splits[1].pixels_fn(0)
    assert any(np.array_equal(first, np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))) or
               np.abs(first - np.asarray(Image.open(io.BytesIO(image)), int)).mean() < 2
               for image, _ in splits["validation"] if Image.open(io.BytesIO(image)).size[::-1] == first.shape[:2])  # fmt: skip


def test_parts_of_tfds_splits_are_checked_by_their_names(tmp_path):
    write_tfds(tmp_path, {"train": records(30)})
    contents, copies = check_tfds(tmp_path, train_split="train[:80%]", test_split="train[70%:]")
    assert [row[:2] for row in split_rows(contents, copies)[1:]] == [
        ["train (train[:80%])", "24"],
        ["test (train[70%:])", "9"],
    ]
    assert copies.across == {("train", "test"): 3}  # the parts overlap


def test_a_flipped_bit_of_a_tfrecord_file_is_found_although_the_image_decodes(tmp_path):
    builder = write_tfds(tmp_path, {"train": records(12), "test": records(6, start=100)})
    victim = builder.data_path / "leaves-test.tfrecord-00000-of-00001"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1  # in a record's checksum
    victim.write_bytes(bytes(content))
    contents, copies = check_tfds(tmp_path)
    assert [split.num_damaged for split in contents.splits] == [0, 0]
    assert findings(contents, copies)[0].startswith(f"{victim} is damaged (corrupted record at ")


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_records_that_cannot_be_read_at_all_are_an_error_that_names_the_file_or_split(tmp_path, file_format):
    builder = write_tfds(tmp_path, {"train": records(12), "test": records(6, start=100)}, file_format=file_format)
    victim = builder.data_path / f"leaves-test.{file_format}-00000-of-00001"
    content = bytearray(victim.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    victim.write_bytes(bytes(content))
    try:
        contents, copies = check_tfds(tmp_path)
    except UserError as error:
        assert "leaves" in str(error)
        assert "again" in str(error)
    else:
        assert "leaves-test" in findings(contents, copies)[0]


def test_an_image_counts_for_each_of_its_labels():
    found = read_contents("digit_pairs", Reading(label_kind="several"))
    rows = load("digit_pairs", label_kind="several").train.labels
    assert [len(split.classes) for split in found.splits] == [2100, 350, 1050]
    assert found.splits[0].counts(10).tolist() == rows.sum(axis=0).astype(int).tolist()
    assert found.labels_text == "10 labels"
    assert class_rows(found)[0] == ["images per label", "train", "validation", "test"]


def test_numbers_are_shown_by_their_range():
    found = read_contents("rotated_digits", Reading(label_kind="value"))
    values = load("rotated_digits", label_kind="value").train.values
    heading, train, *_ = class_rows(found)
    assert heading == ["values", "lowest", "median", "highest"]
    assert train == ["train", f"{values.min():g}", f"{np.median(values):g}", f"{values.max():g}"]
    assert found.labels_text == "labels that are numbers"
    assert findings(found, find_copies(found)) == []


def test_copies_of_an_image_with_another_second_label_are_found():
    def split(rows):
        return SplitContents(
            "train", "train", rows.argmax(1), np.full((2, 2), 8, np.int32), [None] * 2, np.array([5, 5], np.uint64),
            Counter(PNG=2), 0, str, lambda index: np.zeros((8, 8, 3), np.uint8), rows=rows,
        )  # fmt: skip

    same, other = np.array([[1.0, 1], [1, 1]]), np.array([[1.0, 1], [1, 0]])
    found = [Contents("csv:x", "x", ("a", "b"), (split(rows),), label_kind="several") for rows in (same, other)]
    assert [find_copies(each).two_classes for each in found] == [0, 2]
    (_, said) = findings(found[1], find_copies(found[1]))
    assert said == "2 of these images have copies with other labels: correct them"
