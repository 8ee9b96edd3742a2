"""The report: one offline page, escaped, with every picture or the reason for its absence."""

import base64
import dataclasses
import hashlib
import pathlib
import re

import numpy as np
import pytest

from gensupcon_jax.report import ReportData, render_report, write_report
from gensupcon_jax.report.checks import quick_checks
from gensupcon_jax.report.colors import NAMED_CLASSES
from gensupcon_jax.report.confusion import confused_pairs, confusion_counts
from gensupcon_jax.report.curves import curve
from gensupcon_jax.report.scatter import SCATTER_POINTS, drawn_classes, flat_view, scatter_rows
from gensupcon_jax.report.scores import wilson_interval
from gensupcon_jax.report.sheet import SHEET_IMAGES, SHEET_PIXELS, label_shares
from gensupcon_jax.report.similarity import (
    HEAT_MAP_ANCHORS,
    class_order,
    similarity_correlation,
    similarity_section,
    sorted_batch,
)
from gensupcon_jax.run.advice import Advisor
from tests.report.pages import ACCOUNT, Page, example, page_of

# NumPy warns about wrong pictures: a mean of an empty array.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture(scope="module")
def good() -> Page:
    return page_of(example())


def test_wilson_interval_of_known_cases():
    # The roots s of (p - s)^2 = z^2 s (1 - s) / n by numpy.roots, z = 1.959964; all of n right: n / (n + z^2) to 1.
    np.testing.assert_allclose(wilson_interval(50.0, 10), (23.6593, 76.3407), atol=1e-3)
    np.testing.assert_allclose(wilson_interval(100.0, 10), (72.2467, 100.0), atol=1e-3)
    np.testing.assert_allclose(wilson_interval(0.0, 10), (0.0, 27.7533), atol=1e-3)
    np.testing.assert_allclose(wilson_interval(90.0, 10000), (89.3965, 90.5727), atol=1e-3)


def test_page_makes_no_request(good):
    assert good.addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in good.addresses)
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(good.tags)


def test_page_style_makes_no_request():
    assert not re.search(r"@import|url\(|https?:|fetch\(|XMLHttp|import ", render_report(ReportData(title="x")))


def test_the_browser_is_allowed_the_script_of_the_page_and_no_other():
    html = render_report(example())
    (script,) = re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy.replace("&#39;", "'") == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_links_inside_the_page_have_targets(good):
    inside = {address[1:] for address in good.addresses if address.startswith("#")}
    assert inside and inside <= good.ids
    assert {attributes["href"][1:] for tag, attributes in good.elements if tag == "a"} == set(good.section)


def test_every_picture_has_a_text_of_its_own(good):
    texts = [attributes["alt"] for tag, attributes in good.elements if tag == "img" and "hidden" not in attributes]
    texts += [attributes["aria-label"] for tag, attributes in good.elements if tag == "svg"]
    assert len(texts) > 40 and all(texts)
    assert len(set(texts)) == len(texts)


def test_the_top_shows_the_numbers(good):
    for words in ("95.8 %", "87.5 %", "75.0 %", "seed 7", "cpu x 1", "1 h 23 min", "jax 0.10.2", "test images 24"):
        assert words in good.text
    low, high = wilson_interval(75.0, 24)
    assert f"{low:.1f} to {high:.1f} %" in good.text
    assert "The linear probe is above the raw-pixel baseline by 20.8 points." in good.text
    assert "python -m gensupcon_jax.main --config configs/digits.py" in good.text


@pytest.mark.parametrize(
    ("linear", "raw", "words"),
    [
        (97.8, 96.9, "above the raw-pixel baseline by 0.9 points."),
        (90.0, 96.9, "below the raw-pixel baseline by 6.9 points."),
        (96.9, 96.9, "equal to the raw-pixel baseline"),
        (96.9, None, "There is no raw-pixel baseline"),
        (float("nan"), 96.9, "No final accuracy was measured."),
    ],
)
def test_verdict(linear, raw, words):
    results = {"linear_top1": linear, "raw_pixel_knn_top1": raw, "num_test": 360}
    assert words in page_of(ReportData(title="x", results=results)).text


def test_verdict_without_a_probe_is_about_knn():
    page = page_of(ReportData(title="x", results={"knn_top1": 80.0, "raw_pixel_knn_top1": 70.0}))
    assert "The k-NN is above the raw-pixel baseline by 10.0 points." in page.text


def test_every_picture_decodes(good):
    # Two heat maps, the sheet of the map, 1 mistake, 10 x (1 + 6) neighbors, two originals and their two views each.
    assert len(good.pictures) == 2 + 1 + 1 + 10 * 7 + 2 * 3
    assert [picture.shape for picture in good.pictures[:2]] == [(12, 12, 4)] * 2
    assert all(picture.shape[:2] == (8, 8) for picture in good.pictures[3:])


def test_pictures_of_the_sheet_have_the_given_pixels():
    data = example(channels=3)
    picture = page_of(part(data, "sheet", original_images=data.original_images)).pictures[0]
    np.testing.assert_array_equal(picture, data.original_images[0])


def test_local_views_stand_beside_the_views_as_much_smaller_as_they_are():
    data = example(channels=3)
    assert data.view_images is not None and data.view_labels is not None
    count, size, classes = len(data.view_images), data.view_images.shape[2], data.view_labels.shape[-1]
    images = np.random.default_rng(0).integers(0, 256, (count, 3, size // 2, size // 2, 3), np.uint8)
    labels = np.full((count, 3, classes), 1 / classes, np.float32)
    shown = page_of(dataclasses.replace(data, local_images=images, local_labels=labels))
    assert "and their local views in proportion" in shown.section_text("sheet")
    assert [shown.section_text("sheet").count(f"local {view}") for view in (1, 2, 3, 4)] == [count, count, count, 0]
    pictures = shown.pictures_of("sheet")
    assert [picture["alt"] for picture in pictures[3:6]] == [f"local {view} of training image 1" for view in (1, 2, 3)]
    assert [picture.get("style") for picture in pictures[:6]] == [None] * 3 + ["width:50%"] * 3
    negative = dataclasses.replace(data, local_labels=labels - 1)
    assert f"{3 * count} of" in checks_of(negative)
    assert "local" not in page_of(data).section_text("sheet")


def test_every_picture_explains_what_is_bad(good):
    for section in (
        "curves",
        "similarity",
        "scatter",
        "confusion",
        "classes",
        "mistakes",
        "neighbors",
        "sheet",
        "machine",
    ):
        assert "Look for" in good.section_text(section) and "Bad" in good.section_text(section)


def test_all_fields_and_results_are_listed(good):
    details = good.section_text("details")
    for words in ("loss.temperature 0.1", "loss.base_temperature none", "versions.jax 0.10.2", "raw_pixel_knn_top1 75"):
        assert words in details


def test_a_good_run_passes_its_checks(good):
    checks = good.section_text("checks")
    assert checks.count("✓ ok") == 7
    assert "! check" not in checks and "unknown" not in checks


EVIL = "<script>alert('1')</script>"


def test_untrusted_text_is_escaped():
    names = [
        EVIL,
        '"><img src=x onerror=alert(1)>',
        "price $5 and $6",
        "_hidden",
        "犬",
        "a\u202eb\x00c\nd",
        "n" * 300,
        "",
    ]
    data = dataclasses.replace(
        example(classes=len(names), names=names),
        title=EVIL,
        command=f"python {EVIL}",
        dataset=EVIL,
        config={EVIL: EVIL, "odd": "\udcff"},
        results={"device": EVIL, "versions": {EVIL: EVIL}, EVIL: 1.0},
        metrics=[{"step": 1, "train/loss": 1.0, EVIL: None, f"{EVIL}$/loss": 2.0}],
    )
    splits = {name: split._replace(name_fn=lambda number: f"{EVIL}/{number}") for name, split in data.splits.items()}
    data = dataclasses.replace(data, splits=splits)
    html = render_report(data)
    assert html.count("<script") == 1 and "<img src=x" not in html and "\u202e" not in html and "\x00" not in html
    page = Page(html)
    assert page.tags.count("script") == 1
    assert page.text.count(EVIL) >= 8
    assert "犬" in page.text and "class 7" in page.text


PIECES = {
    "curves": ["metrics"],
    "similarity": ["label_similarity", "latent_similarity", "batch_labels"],
    "scatter": ["test_embeddings", "test_labels"],
    "confusion": ["test_labels", "test_predictions"],
    "classes": ["test_labels", "test_predictions"],
    "mistakes": ["test_labels", "test_predictions", "splits"],
    "neighbors": ["splits", "findings"],
    "suspicious": ["splits", "findings"],
    "duplicates": ["splits", "findings"],
    "sheet": ["view_images"],
    "machine": ["metrics"],
    "wall_time": ["account_fn"],
}
TOGETHER = {
    "curves": 2,
    "confusion": 2,
    "classes": 2,
    "mistakes": 3,
    "neighbors": 3,
    "suspicious": 3,
    "duplicates": 3,
    "machine": 2,
}


def part(data: ReportData, *sections: str, **changes) -> ReportData:
    """Only the fields of these sections, as a whole page takes a second to draw."""
    names = {name for section in sections for name in PIECES[section]}
    kept = {name: getattr(data, name) for name in names}
    return ReportData(title="part", **(kept | changes))


def checks_of(data: ReportData) -> str:
    return " ".join(f"{check.state}: {check.text}" for check in quick_checks(data))


@pytest.mark.parametrize("section", list(PIECES))
def test_missing_pieces_are_reported(section):
    page = page_of(part(example(), section))
    assert "Not shown." not in page.section_text(section)
    assert page.text.count("Not shown. The run") == len(PIECES) - TOGETHER.get(section, 1)


def test_empty_report_is_a_page():
    page = page_of(ReportData(title="nothing"))
    assert page.text.count("Not shown.") == 12
    assert page.text.count("not measured") == 3
    assert page.section_text("checks").count("unknown") == 7
    assert page.pictures == []


def test_the_time_is_one_bar_and_a_row_for_each_phase_that_took_any():
    page = page_of(part(example(), "wall_time"))
    text = page.section_text("wall_time")
    assert "60 % of 1 min 40 s were training steps, in 2 starts." in text
    assert "12.3 ms in the median, 20 ms or less in 95 of 100, 1.5 s at most" in text
    assert "training steps 60 s 60.0 %" in text and "tracing and compiling 25 s 25.0 %" in text
    assert "waiting for images" not in text
    assert "Process" not in text
    html = render_report(part(example(), "wall_time"))
    bar = html[html.index('class="phases"') : html.index("</svg>")]
    assert re.findall(r'class="(p\d+)" x="([\d.]+)" y="0" width="([\d.]+)"', bar) == [
        ("p2", "0.0", "269.0"), ("p4", "270.0", "647.0"), ("p7", "918.0", "107.0"), ("p9", "1026.0", "53.0")
    ]  # fmt: skip


def test_the_slowest_of_several_processes_is_named():
    account = ACCOUNT | {"idle_seconds": [1.0, 12.0, 3.0], "slowest_process": 1}
    text = page_of(ReportData(title="x", results={"time": account})).section_text("wall_time")
    assert "Process 1 was the slowest: its devices had no step for 12 s, those of any other for 3.0 s at most." in text


def test_nan_is_reported():
    rows = [{"step": step, "train/loss": float("nan") if step > 4 else 3.0, "knn/top1": None} for step in range(8)]
    page = page_of(ReportData(title="x", metrics=rows, results={"linear_top1": float("inf")}))
    assert "Not finite: 11 of 16. The first is knn/top1 at step 0." in page.section_text("checks")
    assert "linear_top1 not a finite number" in page.section_text("details")
    assert page.tags.count("svg") == 2


@pytest.mark.parametrize("rows", [1, 2, 400])
def test_curves_of_any_length(rows):
    metrics = [{"step": step, "train/loss": 1.0, "train/learning_rate": 0.0, "knn/top1": 1.0} for step in range(rows)]
    assert page_of(ReportData(title="x", metrics=metrics, chance_loss=2.0)).tags.count("svg") == 3


def test_a_resumed_run_counts_a_step_once():
    rows = [{"step": 1, "a/loss": 9.0}, {"step": 2, "a/loss": 8.0}, {"step": 1, "a/loss": 7.0}, {"step": 3}]
    steps, values = curve(rows, "a/loss")
    np.testing.assert_array_equal(steps, [1, 2])
    np.testing.assert_array_equal(values, [7, 8])


@pytest.mark.parametrize(
    ("loss", "last_step", "expected"),
    [
        (
            5.4725,
            90,
            "warning: loss at chance level: 5.4725 at step 90, a network that has learned nothing gets 5.5000",
        ),
        (6.0, 90, "warning: loss at chance level: 6.0000 at step 90, a network that has learned nothing gets 5.5000"),
        (6.0, 40, "unknown: loss at chance level: 6.0000 at step 40, a network that has learned nothing gets 5.5000"),
        (5.0, 40, "ok: 5.0000 at step 40, below the 5.5000 of a network that has learned nothing."),
    ],
)
def test_the_loss_is_compared_with_the_chance_level(loss, last_step, expected):
    metrics = [{"step": step, "train/loss": loss} for step in (0, last_step // 2, last_step)]
    assert expected in checks_of(ReportData(title="x", metrics=metrics, chance_loss=5.5))
    unknown = checks_of(ReportData(title="x", metrics=metrics))
    assert f"unknown: {loss:.4f} at step {last_step}; the chance level is not known." in unknown


def test_the_report_and_the_log_say_the_same():
    values = {
        "train/loss": 5.5,
        "train/embedding_spread": 0.001,
        "train/effective_rank": 3.0,
        "train/learning_rate": 0.5,
    }
    rows = [{"step": step, **values} for step in (60, 70, 80)]
    advisor = Advisor(objective="contrastive", chance_loss=5.5, num_classes=3, learning_rate=0.5, batch_size=8)
    said = [(row["step"], sentence) for row in rows for sentence in advisor.sentences(row["step"], row)]
    assert [step for step, _ in said] == [80, 80]
    rows[-1]["advice"] = [sentence for _, sentence in said]
    page = page_of(dataclasses.replace(example(), metrics=rows, notes=("3 damaged images were left out",)))
    text = page.section_text("checks")
    assert "before training 3 damaged images were left out" in text
    for _, sentence in said:
        assert f"step 80 {sentence}" in text
        assert f"! check {CHECKED[sentence.split(':')[0]]} {sentence.split('. ')[0]}." in text


CHECKED = {"loss at chance level": "Training loss", "collapsed embeddings": "Collapse"}


def test_similarity_correlation_by_hand():
    labels = np.array([[9, 1, 0], [1, 9, 0], [0, 0, 9]], np.float32)
    assert similarity_correlation(labels, 2 * labels - 1) == pytest.approx(1.0)
    assert similarity_correlation(labels, -labels) == pytest.approx(-1.0)
    assert similarity_correlation(labels, np.ones((3, 3), np.float32)) is None


def test_class_order_is_by_class_then_by_share():
    labels = np.array([[0.1, 0.9], [0.6, 0.4], [0.9, 0.1], [0.4, 0.6]], np.float32)
    np.testing.assert_array_equal(class_order(labels), [2, 1, 0, 3])


def test_a_large_batch_is_subsampled_evenly():
    data = example(anchors=HEAT_MAP_ANCHORS + 100)
    label_similarity, latent_similarity, classes = sorted_batch(data)
    assert label_similarity.shape == latent_similarity.shape == (HEAT_MAP_ANCHORS,) * 2
    assert (np.diff(classes) >= 0).all() and set(classes) == {0, 1, 2}
    np.testing.assert_array_equal(label_similarity, classes[:, None] == classes)


@pytest.mark.parametrize(
    ("changes", "things", "order"),
    [
        ({}, "3 classes", "dominant class"),
        ({"test_values": np.arange(24.0)}, "3 bins of values", "value"),
        ({"label_names": ["red", "round", "old"]}, "3 labels", "strongest label"),
    ],
)
def test_heat_maps_say_what_their_labels_are(changes, things, order):
    section = similarity_section(part(example(), "similarity", **changes))
    assert isinstance(section, dict)
    assert [f"of 12 by 12 images in {things}, from " in each["alt"] for each in section["maps"]] == [True, True]
    assert section["sorted_by"] == order


def test_a_collapsed_encoder_is_reported():
    alike = {"test_embeddings": np.ones((24, 6), np.float32), "latent_similarity": np.ones((12, 12), np.float32)}
    page = page_of(part(example(), "scatter", "similarity", **alike))
    assert "collapsed embeddings: spread 0.0000 (0: all alike) and effective rank 0.0 of the test images" in page.text
    assert "the encoder has collapsed" in page.section_text("scatter")
    assert "No correlation" in page.section_text("similarity")


def test_a_diverged_encoder_is_reported():
    broken = {"test_embeddings": (24, 6), "latent_similarity": (12, 12), "view_labels": (2, 2, 3)}
    broken = {name: np.full(shape, np.nan, np.float32) for name, shape in broken.items()}
    page = page_of(part(example(), "scatter", "similarity", "sheet", **broken))
    assert "the run has diverged" in page.section_text("scatter")
    assert "the run has diverged" in page.section_text("similarity")
    assert "rows are not distributions" in page.section_text("checks")


@pytest.mark.parametrize(("count", "dim", "method"), [(2, 1, "PCA"), (9, 6, "PCA"), (12, 6, "t-SNE"), (30, 2, "PCA")])
def test_flat_view_of_any_size(count, dim, method):
    embeddings = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    points, name = flat_view(embeddings)
    assert name == method and points.shape == (count, 2) and np.isfinite(points).all()
    np.testing.assert_array_equal(points, flat_view(embeddings)[0])


def test_flat_view_keeps_classes_together():
    labels = np.arange(60) % 3
    embeddings = np.eye(3)[labels] + 0.05 * np.random.default_rng(0).normal(size=(60, 3))
    points, _ = flat_view(embeddings.astype(np.float32))
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(60)
    assert (labels[distance.argmin(1)] == labels).all()


def test_scatter_keeps_colored_and_gray_points():
    labels = np.arange(50_000) % 1000
    shown = drawn_classes(labels)
    rows = scatter_rows(labels, shown)
    assert len(shown) == NAMED_CLASSES and shown[0] == 0 and shown[-1] == 999
    assert len(np.unique(rows)) == SCATTER_POINTS
    assert np.isin(labels[rows], shown).sum() == SCATTER_POINTS // 2


def test_confusion_counts_by_hand():
    counts = confusion_counts(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2]), 4)
    np.testing.assert_array_equal(counts, [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    pairs = confused_pairs(counts, ["a", "b", "c", "d"], 5)
    assert pairs == [{"truth": "a", "prediction": "c", "count": 1, "of": 2}]


def test_results_that_contradict_the_predictions_are_flagged():
    data = part(example(), "confusion", results={"linear_top1": 99.0})
    assert "warning: Their accuracy is 95.8 %, but the results list 99.0 %." in checks_of(data)


def test_a_class_that_is_never_predicted_is_named():
    data = part(example(), "confusion", class_names=["a", "b", "c"], test_predictions=np.zeros(24, int))
    assert "warning: The linear probe never predicts b, c." in checks_of(data)


def test_label_shares_add_up():
    label = np.array([0.5, 0.02, 0.3, 0.1, 0.08], np.float32)
    rows = label_shares(label, ["a", "b", "c", "d", "e"])
    assert [(row["name"], row["percent"]) for row in rows] == [("a", 50), ("c", 30), ("d", 10), ("all others", 10)]


def test_wrong_label_rows_are_flagged():
    data = dataclasses.replace(example(), view_labels=np.full((2, 2, 3), 2.0, np.float32))
    assert "warning: 4 of 16 rows are not distributions" in checks_of(data)


def test_flat_views_are_flagged():
    data = dataclasses.replace(example(), view_images=np.zeros((2, 2, 8, 8, 1), np.uint8))
    assert "warning: 4 of 4 views have a single color; 100 % of all values" in checks_of(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 2, "test": 2, "anchors": 2, "images": 1, "views": 1},
        {"classes": 20, "test": 40, "channels": 3},
        {"classes": 1000, "test": 30, "anchors": 30, "channels": 3, "size": 224, "views": 4},
        {"classes": 21, "test": 11, "channels": 2, "images": 30},
    ],
)
def test_any_shape_of_run(changes):
    data = example(**changes)
    page = page_of(data)
    assert "Not shown." not in page.text
    shown = min(len(data.view_images), SHEET_IMAGES)
    sheet = page.pictures[-shown * (1 + data.view_images.shape[1]) :]
    assert len(page.pictures_of("sheet")) == len(sheet)
    assert all(max(picture.shape) <= SHEET_PIXELS for picture in sheet)


def test_one_test_image():
    page = page_of(part(example(test=1), "scatter", "confusion"))
    assert "only one test embedding" in page.section_text("scatter")


def test_the_report_is_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_report(path, ReportData(title="first"))
    assert Page(path.read_text(encoding="utf-8")).text.count("first") >= 1
    monkeypatch.setattr(pathlib.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(path, ReportData(title="second"))
    assert "first" in path.read_text(encoding="utf-8")
    assert [child.name for child in path.parent.iterdir()] == ["report.html"]


def test_a_page_of_many_large_images_is_below_5_megabytes():
    data = example(classes=50, test=1500, size=64, channels=3, images=12)
    size = len(render_report(data).encode())
    assert 500_000 < size < 5_000_000, size


def test_same_data_gives_the_same_page():
    data = part(example(), "scatter", "curves")
    assert render_report(data) == render_report(data)
