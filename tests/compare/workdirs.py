"""Workdirs as runs leave them, made without training."""

import json

import numpy as np

from gensupcon_jax.data.splits import Split, one_hot
from gensupcon_jax.evaluation.kept_predictions import predictions_to_keep, write_predictions
from gensupcon_jax.evaluation.outcome import Outcome

CLASSES = np.arange(100) % 10
TEST = Split((np.arange(400) % 256).astype(np.uint8).reshape(100, 2, 2, 1), one_hot(CLASSES, 10))
CONFIG = {"seed": 0, "objective": "contrastive", "epochs": 4.0, "loss": {"temperature": 0.1}, "mix": {"kind": "none"}}


def wrong_at(*places):
    """Predictions of the next class for these test images, and right ones for all others."""
    predictions = CLASSES.copy()
    predictions[list(places)] = (predictions[list(places)] + 1) % 10
    return predictions


def make_run(folder, *, linear=(), knn=(), best=None, rows=8, test=TEST, finished=True, keeps=True, **config):
    """A workdir whose probe and k-NN are wrong at these test images after the last step.

    best: places at which the k-NN of step 4 is wrong; None: the last step is the best.  rows: that were logged, two steps
    apart.  config: changes, "loss.temperature" written as loss={"temperature": 0.1}.
    """
    folder.mkdir(parents=True)
    steps = 2 * rows
    classes = [f"digit {number}" for number in range(10)]
    dataset = {
        "name": "digits",
        "class_names": classes,
        "num_test": len(test.classes),
        "fingerprint": f"{test.images.sum()}",
    }
    write_json(folder / "config.json", CONFIG | config)
    write_json(folder / "dataset.json", dataset)
    metrics = [
        {"step": step, "train/loss": 5 - step / 10, "train/learning_rate": 0.1, "train/epoch": step / 4,
         "train/images_per_second": 900.0, "knn/top1": 50.0 + step}
        for step in range(2, steps + 1, 2)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    if not finished:
        return folder
    outcomes = {steps: {"linear": Outcome(0.1, 90.0, wrong_at(*linear)), "knn": Outcome(5, 90.0, wrong_at(*knn))}}
    if best is not None:
        outcomes[4] = {"knn": Outcome(5, 90.0, wrong_at(*best))}
    results = {"steps": steps, "best_step": steps if best is None else 4, "num_test": len(test.classes)}
    results |= {"linear_top1": 100.0 - len(linear), "knn_top1": 100.0 - len(knn)}
    write_json(folder / "results.json", results)
    (folder / "report.html").write_text("<p>a report</p>")
    if keeps:
        write_predictions(folder, predictions_to_keep(test, outcomes))
    return folder


def write_json(path, content):
    path.write_text(json.dumps(content))
