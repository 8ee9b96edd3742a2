"""Tables and charts of the report: literal numbers."""

import dataclasses
import math

import numpy as np
import pytest

from gensupcon_jax.evaluation.paired import Paired
from gensupcon_jax.report import ReportData
from gensupcon_jax.report.charts import Line, binned, line_chart, tick_text, ticks
from gensupcon_jax.report.classes import class_scores, macro_average, weakest_first
from gensupcon_jax.report.comparisons import luck
from gensupcon_jax.report.heat import fitted_range, heat_uri
from gensupcon_jax.report.mistakes import ordered_mistakes
from gensupcon_jax.report.thumbnails import sheet_uri, small_images
from gensupcon_jax.report.values import ending
from tests.report.pages import example, page_of


def test_scores_of_classes_by_hand():
    # Rows: true class. The third class has no images and is predicted once; the fourth is neither.
    counts = np.array([[8, 2, 0, 0], [1, 3, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    first, second, third, fourth = class_scores(counts)
    assert (first.images, first.precision, first.recall) == (10, 8 / 9, 0.8)
    assert first.f1 == pytest.approx(2 * (8 / 9) * 0.8 / (8 / 9 + 0.8))
    assert (second.precision, second.recall) == (0.6, 0.6)
    assert (third.images, third.precision, third.recall, third.f1) == (0, 0.0, None, 0.0)
    assert (fourth.precision, fourth.recall, fourth.f1) == (None, None, None)
    mean = macro_average([first, second, third, fourth])
    assert mean.images == 15 and mean.recall == pytest.approx(0.7)
    assert weakest_first([first, second, third, fourth]) == [1, 0]


def test_many_classes_are_listed_from_the_weakest():
    labels = np.repeat(np.arange(30), 4)
    predictions = np.where(labels == 17, 3, labels)
    page = page_of(ReportData(title="x", test_labels=labels, test_predictions=predictions))
    words = page.section_text("classes")
    assert "First the 20 classes with the lowest F1" in words and "All 30 classes" in words
    assert words.index("class 17") < words.index("class 3 ") < words.index("class 0 ")


def test_the_verdict_tells_what_the_paired_test_says():
    # Two-sided exact: of 12 tosses 2 or fewer, or 10 or more: 2 (1 + 12 + 66) / 4096.
    paired = Paired(10, 2, 360, 158 / 4096, 100 * 8 / 360, 0.1, 4.3)
    assert luck(paired, "linear probe") == (
        "10 test images are right only with the linear probe, 2 only with raw pixels. "
        "McNemar's exact test: p = 0.039, chance is an unlikely explanation."
    )
    assert luck(paired._replace(p_value=0.5), "k-NN").endswith("p = 0.5, chance can explain it.")
    page = page_of(
        ReportData(title="x", results={"linear_top1": 98.0, "raw_pixel_knn_top1": 96.0}, paired={"linear_top1": paired})
    )
    assert "linear probe 10 2 +2.2 +0.1 to +4.3 p = 0.039: more than chance" in page.section_text("comparisons")
    assert "by 2.0 points. 10 test images are right only" in page.text


def test_the_best_step_stands_beside_the_last():
    results = {"linear_top1": 97.0, "knn_top1": 96.0, "best": {"step": 40, "linear_top1": 97.5, "knn_top1": 95.0}}
    words = page_of(ReportData(title="x", results=results)).section_text("comparisons")
    assert "(step 40)" in words and "Linear probe 97.5 97.0" in words and "k-NN 95.0 96.0" in words


@pytest.mark.parametrize("best", [None, {}])
def test_a_run_without_a_best_step_shows_no_table_of_it(best):
    page = page_of(ReportData(title="x", results={"linear_top1": 97.0, "best": best}))
    assert "comparisons" not in page.section


def test_mistakes_are_ordered_by_confidence():
    labels, predictions = np.array([0, 0, 1, 1]), np.array([1, 0, 0, 0])
    data = ReportData(title="x", test_labels=labels, test_predictions=predictions)
    np.testing.assert_array_equal(ordered_mistakes(data), [0, 2, 3])
    data = dataclasses.replace(data, test_confidences=np.array([0.4, 0.9, 0.3, 0.8]))
    np.testing.assert_array_equal(ordered_mistakes(data), [3, 0, 2])


def test_the_page_names_each_mistake():
    page = page_of(example())
    assert "1 of 24 test images are predicted wrongly" in page.section_text("mistakes")
    assert "name1 99 % true: name0 test/0.png" in page.section_text("mistakes")
    (picture,) = page.pictures_of("mistakes")
    assert picture["alt"] == "test/0.png: a name0, predicted name1"


def test_a_perfect_run_has_no_mistakes():
    data = example()
    page = page_of(dataclasses.replace(data, test_predictions=data.test_labels))
    assert "None: the linear probe predicts all 24 test images correctly." in page.section_text("mistakes")


def test_neighbors_of_another_class_are_marked():
    page = page_of(example())
    text = page.section_text("neighbors")
    assert "For 100.0 % of all test images" in text
    assert not any("disagrees" in (attributes.get("class") or "") for _, attributes in page.elements)


def test_points_of_the_map_say_class_mistake_and_file():
    page = page_of(example())
    titles = page.section_text("scatter")
    assert "name0, predicted name1 test/0.png" in titles and "name2 test/23.png" in titles
    points = [attributes for tag, attributes in page.elements if tag == "use"]
    assert len(points) == 24 and sorted(int(point["data-tile"]) for point in points) == list(range(24))
    assert sum("wrong" in point["class"] for point in points) == 1
    (sheet,) = page.pictures_of("scatter")
    assert (sheet["data-columns"], sheet["data-tile"]) == ("5", "8")


def test_the_sheet_of_the_map_holds_each_picture_at_its_place():
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)
    uri, columns, tile = sheet_uri(images, 32)
    (sheet,) = page_of(ReportData(title="x")).pictures or [pixels_of(uri)]
    assert (columns, tile, sheet.shape) == (3, 6, (18, 18, 3))
    np.testing.assert_array_equal(sheet[6:10, 6:12], images[4])


def pixels_of(uri):
    import base64
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_pictures_are_shrunk_by_block_means():
    images = np.zeros((1, 64, 96, 1), np.uint8)
    images[0, 0, 0] = 90
    small = small_images(images, 32)
    assert small.shape == (1, 21, 32, 1)
    assert small[0, 0, 0, 0] == 10 and small.sum() == 10


def test_heat_is_clear_at_the_lowest_value_and_opaque_at_the_highest():
    alpha = pixels_of(heat_uri(np.array([[0.0, 0.5], [1.0, 2.0]]), 0.0, 1.0))[..., 3]
    np.testing.assert_array_equal(alpha, [[0, 128], [255, 255]])
    assert fitted_range(np.full(9, 0.25)) == (-0.25, 0.75)


def test_ticks_are_round():
    assert ticks(0.0, 1.0, 3) == [0.0, 0.5, 1.0]
    assert ticks(8.31, 9.05, 5) == [8.4, 8.6, 8.8, 9.0]
    assert ticks(1.0, 3.0, 5, whole=True) == [1, 2, 3]
    assert ticks(5.0, 5.0, 5) == [5]
    assert [tick_text(value) for value in (0.25, 1500.0, 12e3, 2e6, -0.5)] == [
        "0.25",
        "1.5k",
        "12k",
        "2M",
        "\u22120.5",
    ]


def test_a_gap_separates_the_pieces_of_a_curve():
    steps, values = np.arange(5.0), np.array([1.0, 2.0, math.nan, 2.0, 1.0])
    chart = line_chart("Loss", [Line("train/loss", steps, values)])
    assert chart["lines"][0]["path"].count("M") == 2
    assert chart["alt"] == "Loss: train/loss goes from 1 at step 0 to 1 at step 4"


def test_a_long_curve_is_drawn_with_few_points():
    steps = np.arange(100_000.0)
    chart = line_chart("Loss", [Line("train/loss", steps, np.sin(steps))])
    (line,) = chart["lines"]
    assert line["path"].count("L") < 240 and line["band"].endswith("Z") and not line["dots"]
    centers, lows, means, highs = binned(np.arange(6.0), np.array([1.0, 3.0, 5.0, 5.0, 0.0, 1.0]), 3)
    np.testing.assert_array_equal(centers, [0.5, 2.5, 4.5])
    np.testing.assert_array_equal([lows, means, highs], [[1, 5, 0], [2, 5, 0.5], [3, 5, 1]])


def test_the_machine_section_names_what_was_logged():
    page = page_of(example())
    words = page.section_text("machine")
    for part in ("Throughput", "train/images_per_second: 900", "train/process_memory: 1", "they waited 25 %"):
        assert part in words


def test_metrics_of_an_older_run_have_no_memory():
    data = ReportData(title="x", metrics=[{"step": 1, "train/images_per_second": 5.0}, {"step": 2}])
    words = page_of(data).section_text("machine")
    assert "Throughput" in words and "Memory in use" not in words


def test_a_long_path_keeps_its_end():
    assert ending("/a/b.png") == "/a/b.png"
    assert ending("/data/photos/of/trees/train/ash/0001.png") == "\u2026/of/trees/train/ash/0001.png"
    assert ending("x" * 50) == "\u2026" + "x" * 29
