"""How long the report takes, section by section, for test images of random features around class centers.

python -m benchmarks.report                                                    10,000 test and 50,000 training images of 32 x 32
python -m benchmarks.report --test 10000 --train 10000 --classes 1000 --size 224    the page's size with large images
Prints seconds of each part, their sum, seconds of CPU, and the size of the page. Nothing is trained.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from gensupcon_jax import report
from gensupcon_jax.evaluation.paired import compare_on_images
from gensupcon_jax.report import page

PARTS = (
    "curves_section",
    "similarity_section",
    "scatter_section",
    "confusion_section",
    "classes_section",
    "mistakes_section",
    "neighbors_section",
    "suspicious_section",
    "duplicates_section",
    "sheet_section",
    "machine_section",
    "quick_checks",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, meaning in (
        ("test", 10_000, "test images"),
        ("train", 50_000, "training images"),
        ("classes", 10, "classes"),
        ("size", 32, "height and width of the images"),
        ("features", 512, "width of the features"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    given = parser.parse_args()
    seconds: dict[str, float] = {}
    splits, features = made_splits(given)
    cpu_before = time.process_time()
    with timed(seconds, "neighbors, labels, duplicates"):
        findings = report.feature_findings(splits, features)
    data = made_report(given, splits, features, findings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        with each_part_timed(seconds), timed(seconds, "the page, with its sections"):
            report.write_report(path, data)
        size = path.stat().st_size
        cpu_seconds = time.process_time() - cpu_before
    for name, spent in seconds.items():
        print(f"{name:32} {spent:6.2f} s")
    total = seconds["neighbors, labels, duplicates"] + seconds["the page, with its sections"]
    print(f"{'in all':32} {total:6.2f} s, {cpu_seconds:.2f} s of CPU, {size / 2**20:.2f} MiB")


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time inside this context."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


@contextmanager
def each_part_timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add the time of every section, by the names that `report.page` calls them by."""

    def with_time(name, function):
        def call(*arguments):
            with timed(seconds, name.removesuffix("_section")):
                return function(*arguments)

        return call

    with mock.patch.multiple(page, **{name: with_time(name, getattr(page, name)) for name in PARTS}):
        yield


def made_splits(given: argparse.Namespace) -> tuple[dict[str, report.PicturedSplit], dict[str, np.ndarray]]:
    """Train, validation and test: noise as images, features around the center of each class."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((given.classes, given.features)).astype(np.float32)
    noise = random.integers(0, 256, (256, given.size, given.size, 3), np.uint8)
    splits, features = {}, {}
    for name, count in (("train", given.train), ("validation", given.test // 2), ("test", given.test)):
        classes = random.integers(0, given.classes, count)
        features[name] = centers[classes] + 1.5 * random.standard_normal((count, given.features), dtype=np.float32)
        splits[name] = report.PicturedSplit(
            classes, lambda numbers: noise[numbers % len(noise)], f"{name}/{{}}.png".format
        )
    return splits, features


def made_report(
    given: argparse.Namespace,
    splits: dict[str, report.PicturedSplit],
    features: dict[str, np.ndarray],
    findings: report.FeatureFindings | None,
) -> report.ReportData:
    """A report with every section."""
    random = np.random.default_rng(1)
    labels = splits["test"].classes
    predictions = np.where(random.random(len(labels)) < 0.9, labels, random.integers(0, given.classes, len(labels)))
    raw = np.where(random.random(len(labels)) < 0.5, labels, 0)
    anchors = random.integers(0, given.classes, 128)
    batch_labels = np.eye(given.classes, dtype=np.float32)[anchors]
    similarity = batch_labels @ batch_labels.T
    images = splits["train"].images_fn(np.arange(12))
    return report.ReportData(
        title="benchmark",
        results={"linear_top1": 100 * float((labels == predictions).mean()), "num_test": len(labels)},
        metrics=[
            {"step": step, "train/loss": 5 - step / 4000, "train/images_per_second": 900.0, "knn/top1": step / 200}
            for step in range(10_000)
        ],
        chance_loss=5.5,
        class_names=[f"class {number}" for number in range(given.classes)],
        label_similarity=similarity,
        latent_similarity=similarity * 0.5 + 0.25,
        batch_labels=batch_labels,
        test_embeddings=features["test"][:, :128],
        test_labels=labels,
        test_predictions=predictions,
        test_confidences=random.random(len(labels)),
        paired={"linear_top1": compare_on_images(labels == predictions, labels == raw)},
        splits=splits,
        findings=findings,
        original_images=images,
        original_labels=splits["train"].classes[:12],
        view_images=np.stack([images, images[::-1]], 1),
        view_labels=np.full((12, 2, given.classes), 1 / given.classes, np.float32),
    )


if __name__ == "__main__":
    main()
