"""A small report for the tests, and what a page contains."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from gensupcon_jax.evaluation.paired import compare_on_images
from gensupcon_jax.report import PicturedSplit, ReportData, feature_findings, render_report

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Text, pictures and addresses of a page; every tag must be closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.elements, self.addresses, self.words, self.open, self.section = [], [], [], [], [], {}
        self.ids, self.shown = set(), {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.elements.append((tag, dict(attributes)))
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data", "srcset")]
        self.ids |= {value for name, value in attributes if name == "id"}
        if tag == "section":
            self.section[dict(attributes)["id"]] = []
            self.shown[dict(attributes)["id"]] = []
        if tag == "img" and self.shown:
            list(self.shown.values())[-1].append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
            if "section" in self.open:
                list(self.section.values())[-1].append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def section_text(self, name: str) -> str:
        return " ".join(" ".join(self.section[name]).split())

    @property
    def pictures(self) -> list[np.ndarray]:
        """The pixels of all pictures."""
        found = [address.partition(",")[2] for address in self.addresses if address.startswith("data:image/")]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(part, validate=True)))) for part in found]

    def pictures_of(self, name: str) -> list[dict]:
        """The attributes of the `img` elements of a section."""
        return self.shown[name]


def page_of(data: ReportData) -> Page:
    return Page(render_report(data))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pictured(centers, test_labels, random, size=8, channels=1):
    """Three splits of random pictures whose features lie around the centers of their classes."""
    labels = {"train": np.arange(3 * len(test_labels)) % len(centers), "validation": test_labels, "test": test_labels}
    images = {
        name: random.integers(0, 256, (len(of_split), size, size, channels), np.uint8)
        for name, of_split in labels.items()
    }
    features = {
        name: (centers[of_split] + 0.1 * random.normal(size=(len(of_split), centers.shape[1]))).astype(np.float32)
        for name, of_split in labels.items()
    }
    splits = {
        name: PicturedSplit(labels[name], images[name].__getitem__, lambda number, name=name: f"{name}/{number}.png")
        for name in labels
    }
    return splits, features


ACCOUNT = {
    "wall": 100.0,
    "starts": 2,
    "goodput": 60.0,
    "seconds": {"compile": 25.0, "step": 60.0, "final_evaluation": 10.0, "lost": 5.0},
    "step_seconds": {"p50": 0.01234, "p95": 0.02, "max": 1.5},
}


def example(*, classes=3, test=24, anchors=12, images=2, views=2, size=8, channels=1, names=None) -> ReportData:
    """A small successful run."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(classes, 6))
    test_labels = np.arange(test) % classes
    batch_classes = random.permutation(np.arange(anchors) % classes)
    batch_labels = np.eye(classes, dtype=np.float32)[batch_classes]
    embeddings = unit(centers[batch_classes] + 0.1 * random.normal(size=(anchors, 6)))
    predictions = test_labels.copy()
    predictions[0] = (predictions[0] + 1) % classes
    splits, features = pictured(centers, test_labels, random, size, channels)
    return ReportData(
        title="digits",
        command="python -m gensupcon_jax.main --config configs/digits.py",
        dataset="digits",
        results={
            "linear_top1": 100 * (test - 1) / test,
            "knn_top1": 87.5,
            "raw_pixel_knn_top1": 75.0,
            "num_test": test,
            "seed": 7,
            "seconds": 4985.0,
            "device": "cpu x 1",
            "knn_neighbors": 5,
            "versions": {"jax": "0.10.2"},
        },
        account_fn=ACCOUNT.copy,
        metrics=[
            {
                "step": step,
                "train/loss": 5.0 - step / 50,
                "train/learning_rate": 0.1,
                "knn/top1": 50.0 + step / 4,
                "train/images_per_second": 900.0,
                "train/process_memory": 2.0**30,
                "train/input_wait": 0.25,
            }
            for step in range(0, 100, 10)
        ],
        chance_loss=5.5,
        class_names=names or [f"name{index}" for index in range(classes)],
        label_similarity=batch_labels @ batch_labels.T,
        latent_similarity=(embeddings @ embeddings.T).astype(np.float32),
        batch_labels=batch_labels,
        test_embeddings=(centers[test_labels] + 0.1 * random.normal(size=(test, 6))).astype(np.float32),
        test_labels=test_labels,
        test_predictions=predictions,
        original_images=random.integers(0, 256, (images, size, size, channels), np.uint8),
        original_labels=np.arange(images) % classes,
        view_images=random.integers(0, 256, (images, views, size, size, channels), np.uint8),
        view_labels=np.full((images, views, classes), 1 / classes, np.float32),
        test_confidences=np.linspace(0.99, 0.5, test).astype(np.float32),
        paired={"linear_top1": compare_on_images(test_labels == predictions, np.arange(test) % 4 > 0)},
        splits=splits,
        findings=feature_findings(splits, features),
        config={"seed": 7, "loss": {"temperature": 0.1, "base_temperature": None}},
    )
