"""Suspicious labels and near-duplicates: planted ones are found, similar images of different digits are not."""

import csv
import io

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gensupcon_jax.report import PicturedSplit, ReportData, feature_findings, write_report
from gensupcon_jax.report.duplicates import agreement
from gensupcon_jax.report.duplicates_page import DUPLICATES_FILE
from gensupcon_jax.report.nearest import Nearest
from gensupcon_jax.report.suspicious import most_frequent, suspicious_labels
from gensupcon_jax.report.suspicious_page import SUSPICIOUS_FILE


def splits_of(images, classes, places):
    """Splits with the pixels as features."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    splits = {
        name: PicturedSplit(classes[rows], images[rows].__getitem__, lambda number, name=name: f"{name}/{number}.png")
        for name, rows in places.items()
    }
    return splits, {name: pixels[rows] - 128 for name, rows in places.items()}


@pytest.fixture(scope="module")
def digits():
    pixels, classes = load_digits(return_X_y=True)
    return np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8), classes


THIRDS = {"train": np.arange(0, 900), "validation": np.arange(900, 1200), "test": np.arange(1200, 1797)}


def test_the_most_frequent_label_by_hand():
    labels = np.array([[1, 2, 2, 1], [3, 0, 0, 0]])
    winners, shares = most_frequent(labels, np.array([4, 2]))
    np.testing.assert_array_equal(winners, [1, 3])  # in a tie the nearer one
    np.testing.assert_allclose(shares, [0.5, 0.5])


def test_an_image_of_a_rare_class_asks_few_neighbors():
    classes = np.array([0] * 8 + [1] * 3)
    split = PicturedSplit(classes, lambda numbers: np.zeros((len(numbers), 2, 2, 1), np.uint8))
    # The last image: its two mates are nearest, then eight of the other class.
    nearest = Nearest(np.array([10]), np.arange(11), np.array([[8, 9, *range(8)]]), np.full((1, 10), 0.5, np.float32))
    assert suspicious_labels({"train": split}, {"train": nearest}) == []
    (found,) = suspicious_labels({"train": split}, {"train": nearest._replace(stored=np.array([[*range(8), 8, 9]]))})
    assert (found.image, found.label, found.neighbors_label, found.share) == (10, 1, 0, 1.0)


def test_wrong_labels_are_found(digits):
    images, classes = digits
    classes = classes.copy()
    wrong = {"train": [3, 500], "test": [7]}
    for name, numbers in wrong.items():
        rows = THIRDS[name][numbers]
        classes[rows] = (classes[rows] + 1) % 10
    found = feature_findings(*splits_of(images, classes, THIRDS)).suspicious
    named = {(each.split, each.image): (each.neighbors_label + 1) % 10 == each.label for each in found}
    assert all(named[name, number] for name, numbers in wrong.items() for number in numbers)
    assert len(found) < 0.03 * len(images)


def test_an_exact_copy_in_two_splits_is_found_and_similar_digits_are_not(digits):
    images, classes = digits
    assert feature_findings(*splits_of(images, classes, THIRDS)).duplicates == []
    copied = THIRDS | {"test": np.append(THIRDS["test"], THIRDS["train"][42])}
    (pair,) = feature_findings(*splits_of(images, classes, copied)).duplicates
    assert (pair.splits, pair.images, pair.difference) == (("test", "train"), (597, 42), 0.0)
    assert pair.cosine == pytest.approx(1, abs=1e-5)


def test_copies_are_found_between_validation_and_test(digits):
    images, classes = digits
    copied = THIRDS | {"test": np.append(THIRDS["test"], THIRDS["validation"][5])}
    (pair,) = feature_findings(*splits_of(images, classes, copied)).duplicates
    assert (pair.splits, pair.images) == (("test", "validation"), (597, 5))


def test_features_alone_do_not_make_a_duplicate():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 16, 16, 3), np.uint8)
    splits, features = splits_of(images, np.zeros(30, int), {"train": np.arange(20), "test": np.arange(20, 30)})
    features = {name: np.ones_like(values) for name, values in features.items()}
    assert feature_findings(splits, features).duplicates == []


def test_agreement_by_hand():
    ramp = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    flat = np.full((1, 8, 8, 1), 9, np.uint8)
    pairs = [(ramp, ramp), (ramp, ramp + 5), (ramp, 63 - ramp), (flat, flat + 1), (flat, flat + 3)]
    found = [agreement(*pair) for pair in pairs]
    # Root mean square of (63 - 2 k) for k = 0..63: sqrt((64^2 - 1) / 3).
    np.testing.assert_allclose([difference[0] for difference, _ in found], [0, 5, 36.9459, 1, 3], atol=1e-3)
    assert [bool(is_same[0]) for _, is_same in found] == [True, True, False, True, False]


def test_a_copy_that_was_compressed_again_is_found(digits):
    from PIL import Image

    random = np.random.default_rng(1)
    smooth = random.integers(0, 256, (12, 8, 8, 1), np.uint8).repeat(12, 1).repeat(12, 2).repeat(3, 3)
    stream = io.BytesIO()
    Image.fromarray(smooth[3]).save(stream, "JPEG", quality=75)
    images = np.concatenate([smooth, np.asarray(Image.open(stream))[None]])
    splits, features = splits_of(images, np.zeros(13, int), {"train": np.arange(12), "test": np.arange(12, 13)})
    (pair,) = feature_findings(splits, features).duplicates
    assert pair.images == (0, 3) and 0 < pair.difference < 8


def test_features_that_are_not_finite_are_not_examined(digits):
    splits, features = splits_of(*digits, THIRDS)
    features["test"] = features["test"].copy()
    features["test"][0, 0] = np.nan
    assert feature_findings(splits, features) is None


def test_both_tables_lie_beside_the_page(digits, tmp_path):
    images, classes = digits
    classes = classes.copy()
    classes[7] = (classes[7] + 1) % 10
    copied = THIRDS | {"test": np.append(THIRDS["test"], 42)}
    splits, features = splits_of(images, classes, copied)
    data = ReportData(
        title="x", splits=splits, findings=feature_findings(splits, features), class_names=list("abcdefghij")
    )
    write_report(tmp_path / "report.html", data)
    suspicious = list(csv.DictReader((tmp_path / SUSPICIOUS_FILE).open()))
    assert {
        "image": "train/7.png",
        "split": "train",
        "label": "i",
        "neighbors_label": "h",
        "share": "1.000",
    } in suspicious
    shares = [float(row["share"]) for row in suspicious]
    assert shares == sorted(shares, reverse=True) and min(shares) >= 0.6
    (pair,) = csv.DictReader((tmp_path / DUPLICATES_FILE).open())
    assert (pair["first_split"], pair["first_image"], pair["second_image"]) == ("test", "test/597.png", "train/42.png")
    assert (pair["first_label"], pair["pixel_difference"]) == (pair["second_label"], "0.00")
    page = (tmp_path / "report.html").read_text()
    assert f"<code>{SUSPICIOUS_FILE}</code>" in page and f"<code>{DUPLICATES_FILE}</code>" in page
    assert page.count("identical pixels") == 1
