"""Lists of images: the same data set as their folders, labels of every kind, and one line for every mistake."""

import csv
import shutil

import numpy as np
import pytest

from gensupcon_jax.data import datasets, lists
from gensupcon_jax.data.list_columns import Named
from gensupcon_jax.data.list_labels import in_order
from gensupcon_jax.errors import UserError
from tests.encoded import encode, picture, write_folder

NAMES = tuple(f"{letter}.png" for letter in "abcdefghijkl")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """12 images in one folder."""
    folder = tmp_path_factory.mktemp("lists")
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(encode(picture(number % 4, number), "PNG"))
    return folder


@pytest.fixture
def own(written, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(written, tmp_path / "own")


def read(folder, text, *, columns=None, **settings):
    """The list of this text: its header, and a line for each of the first images where a line has only the labels."""
    (folder / "list.csv").write_text(text)
    settings = lists.ListSettings(columns=Named(**(columns or {})), **settings)
    return lists.list_images("csv", str(folder / "list.csv"), settings)


def rows(labels, header="path,label"):
    return f"{header}\n" + "".join(f"{name},{label}\n" for name, label in zip(NAMES, labels, strict=False))


def refusal(folder, text, **settings):
    with pytest.raises(UserError) as error:
        read(folder, text, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- labels


def test_classes_are_sorted_as_numbers_where_all_are_numbers(own):
    found = read(own, rows(["10", "3", "3", "10"]))
    assert found.class_names == ("3", "10")
    assert found.listings["train"].classes.tolist() == [1, 0, 0, 1]
    assert read(own, rows(["10", "3", "x", "10"])).class_names == ("10", "3", "x")
    assert in_order(["-1", "2", "+1", "007"]) == ("-1", "+1", "2", "007")


def test_a_column_with_an_empty_cell_is_whole_numbers_as_pandas_writes_them(own):
    found = read(own, rows(["10.0", "3.0", "", "10.0"]))
    assert found.class_names == ("3", "10")
    assert found.listings["train"].classes.tolist() == [1, 0, -1, 1]


def test_an_empty_cell_is_an_image_without_a_label_and_is_never_evaluated(own):
    found = read(own, rows(["x,train", "y,train", ",train", "x,test", ",test", ",val"], "path,label,split"))
    assert found.listings["train"].classes.tolist() == [0, 1, -1]
    assert found.listings["test"].classes.tolist() == [0]
    assert "validation" not in found.listings
    assert found.notes == [
        "paths: column path; labels: column label; splits: column split (a comma between the cells)",
        "1 image of train without a label: each is trained as a class of its own, and not evaluated",
        "1 image of validation without a label: not used",
        "1 image of test without a label: not used",
    ]


@pytest.mark.parametrize(
    ("text", "column"), [("path\na.png\nb.png\n", "no column of labels"), (rows(["", ""]), "labels: column")]
)
def test_a_list_without_any_label_has_training_images_alone(own, text, column):
    found = read(own, text)
    assert found.class_names == ("no label",)
    assert found.listings["train"].classes.tolist() == [-1, -1]
    assert column in found.notes[0]
    assert (
        found.notes[1] == "2 images of train without a label: each is trained as a class of its own, and not evaluated"
    )


@pytest.mark.parametrize("separator", ["|", ";", ","])
def test_several_labels_in_a_cell(own, separator):
    cells = [f'"dog{separator} cat"', "cat", '""', f'"cow{separator}cat{separator}cat{separator}"']
    found = read(own, rows(cells), label_kind="several")
    assert found.class_names == ("cat", "cow", "dog")
    listing = found.listings["train"]
    assert listing.rows.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]]
    assert listing.rows.dtype == np.float32
    assert f"the labels in a cell of label are separated by {separator}" in found.notes
    assert "1 image of train with none of the labels" in found.notes


def test_a_bar_between_labels_leaves_commas_in_their_names(own):
    found = read(own, rows(['"tench, Tinca tinca|goldfish"', "goldfish"]), label_kind="several")
    assert found.class_names == ("goldfish", "tench, Tinca tinca")


def test_one_column_for_each_label(own):
    text = "path,cat,dog,fox\na.png,1,1,0\nb.png,0,0,0\nc.png,True,False,True\n"
    found = read(own, text, label_kind="several")
    assert found.class_names == ("cat", "dog", "fox")  # the order of the columns
    assert found.listings["train"].rows.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert found.listings["train"].classes.tolist() == [0, -1, 0]


def test_a_soft_label_for_each_class(own):
    found = read(
        own, "path,cat,dog,split\na.png,0.25,0.75,train\nb.png,0.333,0.666,train\nc.png,,,train\nd.png,1,,test\n"
    )
    train = found.listings["train"]
    assert train.classes.tolist() == [1, 1, -1]
    np.testing.assert_allclose(train.rows, [[0.25, 0.75], [1 / 3, 2 / 3], [0, 0]], atol=1e-4)
    np.testing.assert_allclose(train.rows[:2].sum(1), 1, rtol=1e-6)  # what was rounded sums to 1
    assert found.listings["test"].rows.tolist() == [[1, 0]]
    assert found.notes[0] == (
        "paths: column path; labels: 2 columns, cat, dog; splits: column split (a comma between the cells)"
    )


def test_tied_labels_are_noted_and_one_one_in_each_row_is_a_class(own):
    found = read(own, "path,cat,dog\na.png,0.5,0.5\nb.png,0,1\n")
    assert "two or more most likely classes in 1 row; an evaluation takes the first of them" in found.notes
    hot = read(own, "path,cat,dog\na.png,1,0\nb.png,0,1\n").listings["train"]
    assert hot.rows is None
    assert hot.classes.tolist() == [0, 1]


SEVERAL = {"label_kind": "several"}
VALUE = {"label_kind": "value"}


@pytest.mark.parametrize(
    ("text", "settings", "messages"),
    [
        (
            "path,cat,dog\na.png,1,1\nb.png,0,1\n",
            {},
            (
                "the labels of 1 row are not shares that sum to 1, first line 2 (sum 2: cat 1, dog 1); allowed with",
                "dataset.label_kind several: any number of ones; with class: a single one",
            ),
        ),
        (
            "path,cat,dog\na.png,0.5,0.5\nb.png,0.5,0.4\n",
            {},
            ("are not shares that sum to 1, first line 3 (sum 0.9: cat 0.5, dog 0.4); allowed: a share from 0 to 1",),
        ),
        ("path,cat,dog\na.png,1.5,-0.5\nb.png,1,0\n", {}, ("are not shares that sum to 1, first line 2",)),
        ("path,cat,dog\na.png,0.5,0.5\nb.png,1,0\n", SEVERAL, ("labels of 1 row are not 0 and 1, first line 2",)),
        (
            "path,cat,dog\na.png,0,1\nb.png,one,0\n",
            {"columns": {"labels": "cat,dog"}},
            ("line 3, column cat: 'one' is not a number; allowed: a share",),
        ),
        (
            "path,label\na.png,0.25\nb.png,1.5\nc.png,2\n",
            {},
            (
                "column label holds numbers with fractions, such as 0.25, 3 different ones",
                "dataset.label_kind=value trains on the numbers",
            ),
        ),
        ("path,label\na.png,7\nb.png,7.0\n", VALUE, ("all 2 numbers in column label are 7; allowed: different ones",)),
        (
            "path,label,split\na.png,x,train\nb.png,y,train\nc.png,z,test\nd.png,w,val\n",
            {},
            ("2 labels of validation or test images are no class of training: z (line 4), w (line 5); allowed: x, y",),
        ),
        (
            "path,label,split\na.png,x,train\nb.png,y,train\nc.png,x|z,test\n",
            SEVERAL,
            ("1 label of validation or test images is no class of training: z (line 4)",),
        ),
        ("path,label\na.png,\nb.png,\n", SEVERAL, ("has no label in its 2 rows of training, column label",)),
        (
            "path\na.png\nb.png\n",
            SEVERAL,
            ("has no column of labels; allowed with dataset.label_kind several: one or more",),
        ),
    ],
)
def test_labels_that_do_not_parse_are_named_with_their_line(own, text, settings, messages):
    found = refusal(own, text, **settings)
    assert [message for message in messages if message not in found] == []


def test_names_that_may_be_mistakes_are_noted(own):
    notes = read(own, rows(["Cat", "cat", "nan", "a|b", "a", "b", "01", "1"])).notes
    assert "nan is a class by its name; an image without a label has an empty cell" in notes
    assert "different classes with names that are almost the same: 01 and 1, Cat and cat" in notes
    assert any("'a|b' in label is one class, although its parts are classes too" in note for note in notes)


# ---- columns


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("path,label", ("path", "label", None)),
        ("Filename,Class", ("Filename", "Class", None)),
        ("file_name,target,set", ("file_name", "target", "set")),
        ("label,image,subset,width", ("image", "label", "subset")),
    ],
)
def test_columns_of_the_usual_names_in_any_case(own, header, expected):
    cells = {"label": "x", "class": "x", "target": "x", "set": "train", "subset": "train", "width": "7"}
    names = header.split(",")
    lines = [",".join(cells.get(name.lower(), image) for name in names) for image in NAMES[:3]]
    note = read(own, "\n".join([header, *lines])).notes[0]
    path, label, split = expected
    split = f"splits: column {split}" if split else "no column of splits"
    unused = "; not used: width" if "width" in header else ""
    assert note == f"paths: column {path}; labels: column {label}; {split}{unused} (a comma between the cells)"


def test_columns_that_the_user_names(own):
    text = "id,p_cat,p_dog,fold\na.png,1,0,learn\nb.png,0,1,learn\nc.png,0,1,check\n"
    found = read(
        own,
        text,
        columns={"path": "id", "labels": "p_*", "split": "Fold"},
        splits={"train": "learn", "validation": None, "test": "Check"},
    )
    assert found.class_names == ("p_cat", "p_dog")
    assert [len(found.listings[split].classes) for split in ("train", "test")] == [2, 1]
    again = read(own, text, columns={"path": "id", "labels": ("p_dog", "p_cat")})
    assert again.class_names == ("p_dog", "p_cat")


@pytest.mark.parametrize(
    ("header", "settings", "message"),
    [
        ("a,b", {}, "has the columns a, b, and none of them is named path, file, filename or image; write these names into"),
        ("path,name", {}, "has the columns path, name, and none of them is named label, class or target; write one of"),
        ("path,label", {"columns": {"path": "url"}}, "dataset.path_column is 'url', and csv:"),
        ("path,label", {"columns": {"labels": "cat,dog"}}, "dataset.label_columns is 'cat', and csv:"),
        ("path,label", {"columns": {"split": "fold"}}, "dataset.split_column is 'fold', and csv:"),
        ("path,label", {"splits": {"train": "learn"}}, "dataset.train_split is 'learn', but csv:"),
    ],
)  # fmt: skip
def test_columns_that_are_not_there_are_one_line_with_those_that_are(own, header, settings, message):
    found = refusal(own, f"{header}\na.png,x\nb.png,y\n", **settings)
    assert message in found
    assert header.replace(",", ", ") in found or "has no column of splits" in found


# ---- splits


def test_names_of_splits_in_any_case_and_rows_that_no_split_uses(own):
    cells = ["x,Train", "y,TRAINING", "x,train", "y,train", "x,Dev", "y,TEST", "x,extra", "y,"]
    found = read(own, rows(cells, "path,label,split"))
    assert {split: listing.classes.tolist() for split, listing in found.listings.items()} == {
        "train": [0, 0, 1],
        "validation": [0],
        "test": [1],
    }
    assert found.notes[1:] == [
        "used by no split: 1 row with 'training' in column split",
        "used by no split: 1 row with 'extra' in column split",
        "used by no split: 1 row with '' in column split",
    ]


def test_a_column_of_splits_without_training_is_an_error(own):
    found = refusal(own, rows(["x,learn", "y,check"], "path,label,split"))
    assert "column split of csv:" in found
    assert "names no training images: it holds 'learn', 'check'; allowed: train, training, validation, val" in found
    found = refusal(own, rows(["x,train", "y,train"], "path,label,split"), splits={"test": "final"})
    assert "dataset.test_split is 'final', but column split" in found


# ---- paths


def test_paths_as_people_write_them(own, monkeypatch):
    (own / "my cats").mkdir()
    (own / "my cats" / "one two.png").write_bytes((own / "a.png").read_bytes())
    monkeypatch.setenv("HOME", str(own))
    cells = ["my cats/one two.png", f"{own}/b.png", "~/c.png", "./my cats/../d.png", "my cats\\..\\e.png"]
    found = read(own, "path,label\n" + "".join(f"{cell},{'xy'[n % 2]}\n" for n, cell in enumerate(cells)))
    listing = found.listings["train"]
    assert listing.problems == [None] * 5
    assert [listing.where_fn(n) for n in range(3)] == [f"{own}/my cats/one two.png", f"{own}/b.png", f"{own}/c.png"]


def test_paths_are_relative_to_the_list_wherever_it_is_read_from(own, monkeypatch):
    (own / "lists").mkdir()
    text = "path,label\n../a.png,x\n../b.png,y\n"
    monkeypatch.chdir(own)
    (own / "lists" / "list.csv").write_text(text)
    found = lists.list_images("csv", "lists/list.csv", lists.ListSettings())
    assert found.listings["train"].problems == [None, None]
    (own / "list.csv").write_text(text.replace("../", ""))
    by_folder = lists.list_images("csv", "list.csv", lists.ListSettings(folder="."))
    assert by_folder.listings["train"].problems == [None, None]


def test_missing_files_are_named_the_first_five_with_their_lines(own):
    text = "path,label\na.png,x\n" + "".join(f"no{n}.png,y\n" for n in range(7))
    assert refusal(own, text) == (
        "7 of 8 images do not exist: no0.png (line 3), no1.png (line 4), no2.png (line 5), no3.png (line 6), no4.png (line 7), "
        f"and 2 more; paths are relative to {own}, the folder of the list or dataset.folder; correct them, or choose another "
        "column with dataset.path_column"
    )
    found = read(own, text, skip_damaged=True)
    assert found.listings["train"].problems[1] == "the file cannot be read (No such file or directory)"
    assert "2 of 2 images do not exist" in refusal(own, "path,label\nno.png,x\nnone.png,y\n", skip_damaged=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png,x", "b.png,y", "./a.png,y"], "1 path stands in two rows with different labels: a.png (line 2 and 4); allowed:"),
        (["a.png,x", "b.png,y", ",y"], "1 row without a path in column path, first line 4; add the path, or remove the row"),
        (["a.png,x", "https://h.org/b.png,y"], "line 3 names 'https://h.org/b.png', an address on the web; allowed: paths"),
        (["a.png,x", "~nobody-here/b.png,y"], "1 of 2 images does not exist: ~nobody-here/b.png (line 3)"),
        (["a.png,x", f"{'b' * 400}.png,y"], "1 of 2 images does not exist: bbbb"),
    ],
)  # fmt: skip
def test_paths_that_cannot_be_used(own, lines, message):
    assert message in refusal(own, "\n".join(["path,label", *lines]))


def test_one_image_in_two_rows(own):
    text = "path,label\n" + "".join(f"{name},{label}\n" for label in "xy" for name in NAMES[:7])
    assert refusal(own, text).startswith(
        "7 paths stand in two rows with different labels: a.png (line 2 and 9), b.png (line 3"
    )
    assert "and 2 more" in refusal(own, text)
    found = refusal(own, "path,label,split\na.png,x,train\nb.png,y,train\na.png,x,test\n")
    assert found.startswith("1 path stands in two rows in two splits: a.png (line 2 and 4)")
    repeated = read(own, "path,label\na.png,x\nb.png,y\na.png,x\n")
    assert len(repeated.listings["train"].classes) == 2
    assert "left out: 1 row with a path that was listed before" in repeated.notes


# ---- the data set


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A folder of images, and a list of them."""
    root = write_folder(tmp_path_factory.mktemp("trees") / "trees")
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    lines = [f"{path.as_posix()},{path.parts[1]},{path.parts[0]}\n" for path in files]
    (root / "all.csv").write_text("path,label,split\n" + "".join(lines))
    of_training = (line.rpartition(",")[0] for line in lines if "train" in line)
    (root / "train.csv").write_text("\n".join(["path,label", *of_training, ""]))
    return root


def test_a_list_is_the_same_data_set_as_its_folder(trees):
    listed, folder = datasets.load(f"csv:{trees}/all.csv"), datasets.load(f"folder:{trees}")
    for split in ("train", "validation", "test"):
        one, other = getattr(listed, split), getattr(folder, split)
        assert one.classes.tolist() == other.classes.tolist()
        assert [one.where(n) for n in range(one.num_images)] == [other.where(n) for n in range(other.num_images)]
    one, other = listed.description(), folder.description()
    assert {key for key in one if one[key] != other[key]} == {"name", "fingerprint"}


def test_missing_splits_are_cut_and_images_without_a_label_stay_in_training(trees):
    lines = (trees / "train.csv").read_text().splitlines()
    half = (line if number % 2 else f"{line.rpartition(',')[0]}," for number, line in enumerate(lines[1:]))
    (trees / "half.csv").write_text("\n".join([lines[0], *half]))
    whole = datasets.load(f"csv:{trees}/train.csv", validation_fraction=0.25, test_fraction=0.25)
    assert [split.num_images for split in (whole.train, whole.validation, whole.test)] == [24, 12, 12]
    half = datasets.load(f"csv:{trees}/half.csv", validation_fraction=0.25, test_fraction=0.25)
    assert [split.num_images for split in (half.train, half.validation, half.test)] == [36, 6, 6]
    assert (half.train.classes == -1).sum() == 24
    assert half.validation.classes.min() >= 0
    assert half.test.classes.min() >= 0
    assert len({*half.train.numbers, *half.validation.numbers, *half.test.numbers}) == 48


def test_a_list_of_paths_alone_is_a_data_set(trees):
    lines = (trees / "train.csv").read_text().splitlines()
    (trees / "paths.csv").write_text("\n".join(line.split(",")[0] for line in lines))
    dataset = datasets.load(f"csv:{trees}/paths.csv", test_fraction=0.25)
    assert not dataset.has_labels
    assert {name: split.num_images for name, split in dataset.splits.items()} == {"train": 36, "test": 12}


def test_several_labels_reach_the_splits(trees):
    lines = (trees / "train.csv").read_text().splitlines()
    text = [lines[0], *(f"{line}|{'odd' if n % 3 else 'even'}" for n, line in enumerate(lines[1:]))]
    (trees / "tags.csv").write_text("\n".join(text))
    dataset = datasets.load(f"csv:{trees}/tags.csv", label_kind="several", validation_fraction=0.25, test_fraction=0.25)
    assert dataset.label_kind == "several"
    assert dataset.class_names == ("ash", "birch", "cedar", "date", "even", "odd")
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [24, 12, 12]
    assert all(split.rows.sum(1).tolist() == [2] * split.num_images for split in (dataset.train, dataset.test))


def test_values_reach_the_splits(trees):
    lines = (trees / "train.csv").read_text().splitlines()
    text = ["path,age", *(f"{line.rpartition(',')[0]},{n / 2}" for n, line in enumerate(lines[1:]))]
    (trees / "ages.csv").write_text("\n".join(text))
    settings = {"label_kind": "value", "label_columns": "age", "validation_fraction": 0.25, "test_fraction": 0.25}
    dataset = datasets.load(f"csv:{trees}/ages.csv", **settings)
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [24, 12, 12]
    ages = [*dataset.train.values, *dataset.validation.values, *dataset.test.values]
    assert sorted(ages) == [n / 2 for n in range(48)]
    of_its_age = {float(line.rpartition(",")[2]): str(trees / line.rpartition(",")[0]) for line in text[1:]}
    assert dataset.test.where(3) == of_its_age[dataset.test.values[3]]
    np.testing.assert_allclose(dataset.test.rows.sum(1), 1, rtol=1e-5)
    (trees / "ages.csv").write_text("\n".join(text).replace(",3.5", ","))
    with pytest.raises(UserError, match="1 row without a number in column age, first line 9"):
        datasets.load(f"csv:{trees}/ages.csv", **settings)


def test_the_fingerprint_changes_with_labels_and_with_files(trees):
    text = (trees / "train.csv").read_text()
    (trees / "own.csv").write_text(text)
    first = datasets.load(f"csv:{trees}/own.csv").description()["fingerprint"]
    assert datasets.load(f"csv:{trees}/own.csv").description()["fingerprint"] == first
    (trees / "own.csv").write_text(text.replace("ash/000.jpg,ash", "ash/000.jpg,birch"))
    relabeled = datasets.load(f"csv:{trees}/own.csv").description()["fingerprint"]
    (trees / "own.csv").write_text("".join(text.splitlines(keepends=True)[:-1]))
    shorter = datasets.load(f"csv:{trees}/own.csv").description()["fingerprint"]
    assert len({first, relabeled, shorter}) == 3


def test_a_class_with_one_image_and_splits_to_cut(trees):
    text = (trees / "train.csv").read_text().replace("ash/000.jpg,ash", "ash/000.jpg,aspen")
    (trees / "rare.csv").write_text(text)
    with pytest.raises(
        UserError, match=r"1 class of too few images: aspen has 1; allowed: 3 or more in each, as validation and"
    ):
        datasets.load(f"csv:{trees}/rare.csv")
    ages = "".join(f"{line.partition(',')[0]},{age}\n" for age, line in enumerate(text.splitlines()[1:], 18))
    (trees / "ages.csv").write_text(f"path,label\n{ages}")
    with pytest.raises(
        UserError, match=r"where labels are numbers to predict, such as ages: dataset.label_kind=value$"
    ):
        datasets.load(f"csv:{trees}/ages.csv")


def test_images_that_are_not_images(trees):
    (trees / "notes.txt").write_text("hello")
    (trees / "bad.csv").write_text((trees / "train.csv").read_text() + "notes.txt,ash\n")
    with pytest.raises(UserError, match=r"1 of 49 images cannot be decoded: .*notes.txt: not a known image format"):
        datasets.load(f"csv:{trees}/bad.csv")
    dataset = datasets.load(f"csv:{trees}/bad.csv", skip_damaged=True, max_damaged_share=0.1)
    assert len(dataset.damaged) == 1
    assert sum(getattr(dataset, split).num_images for split in ("train", "validation", "test")) == 48


def test_a_parquet_list_is_the_same_data_set_as_its_csv(trees):
    import pyarrow as pa
    import pyarrow.parquet

    with (trees / "all.csv").open(newline="") as file:
        header, *cells = csv.reader(file)
    table = pa.table({name: [row[place] for row in cells] for place, name in enumerate(header)})
    pyarrow.parquet.write_table(table, trees / "all.parquet")
    one, other = (datasets.load(f"{form}:{trees}/all.{form}").description() for form in ("csv", "parquet"))
    assert {key for key in one if one[key] != other[key]} == {"name"}


def test_headers_of_a_list_are_kept_in_the_cache(trees, tmp_path, monkeypatch):
    settings = lists.ListSettings(cache_folder=tmp_path / "cache")
    first = lists.list_images("csv", f"{trees}/all.csv", settings)
    monkeypatch.setattr("gensupcon_jax.data.file_listing.read_header", None)
    again = lists.list_images("csv", f"{trees}/all.csv", settings)
    assert again.listings["train"].headers.sizes.tolist() == first.listings["train"].headers.sizes.tolist()


def test_rows_named_for_one_split_are_not_taken_for_another(own):
    text = rows(["a,dev", "b,dev", "a,test", "b,test", "a,dev"], "path,label,split")
    found = read(own, text, splits={"train": "dev", "validation": None, "test": None})
    assert {split: len(one.classes) for split, one in found.listings.items()} == {"train": 3, "test": 2}
