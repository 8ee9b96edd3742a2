"""Cross-entropy, SupCon and GenSCL on Fashion-MNIST: same network, budget and tuning effort; writes docs/evidence.md.

python -m benchmarks.evidence --folder PREPARED_TFDS_FOLDER

Every number comes from a run of `python -m gensupcon_jax.main`. Stop it at any time: finished runs are not run again.
"""

import argparse
import hashlib
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple


class Method(NamedTuple):
    """A row of the table: its variant of configs/fashion_mnist.py, its changes, and whether it needs the teacher."""

    title: str
    variant: str
    changes: tuple[str, ...] = ()
    taught: bool = False
    rates: tuple[float, ...] = (0.5, 0.2)


METHODS = {
    "cross_entropy": Method("cross-entropy", "cross_entropy", rates=(0.2, 0.1)),
    "teacher": Method("cross-entropy + Mixup / CutMix (the teacher)", "teacher", rates=(0.2, 0.1)),
    "supcon": Method("SupCon", "supcon"),
    "genscl_mix": Method("GenSCL (CutMix)", "genscl", ("mix.kind=cutmix",)),
    "genscl_teacher": Method("GenSCL (teacher)", "genscl_teacher", ("mix.kind=none",), taught=True),
    "genscl_both": Method("GenSCL (CutMix + teacher)", "genscl_teacher", ("mix.kind=cutmix",), taught=True),
}
MEASURES = {"linear_top1": "linear probe", "knn_top1": "k-NN", "classifier_top1": "own classifier"}


def workdir_of(options: argparse.Namespace, name: str, seed: int, rate: float) -> Path:
    """The workdir of one run."""
    return Path(options.workdir) / f"{name}_rate{rate:g}_seed{seed}"


def command_of(options: argparse.Namespace, name: str, seed: int, rate: float, teacher: Path | None) -> list[str]:
    """The command of one run."""
    method = METHODS[name]
    fields = [
        f"dataset.train_images={options.train_images}",
        f"epochs={options.epochs}",
        f"seed={seed}",
        f"optimizer.learning_rate={rate}",
        "evaluate.every_epochs=0",
        *method.changes,
    ]
    if options.folder:
        fields.append(f"dataset.folder={options.folder}")
    if method.taught:
        fields.append(f"teacher.path={teacher}")
    config = f"configs/fashion_mnist.py:{method.variant}"
    workdir = workdir_of(options, name, seed, rate)
    return ["python", "-m", "gensupcon_jax.main", "--config", config, "--workdir", str(workdir)] + [
        f"--config.{field}" for field in fields
    ]


def run(options: argparse.Namespace, name: str, seed: int, rate: float, teacher: Path | None) -> dict:
    """The results of one run, which is started or continued when it is not finished."""
    folder = workdir_of(options, name, seed, rate)
    if not (folder / "results.json").exists():
        command = command_of(options, name, seed, rate, teacher)
        print(shlex.join(command), flush=True)
        subprocess.run([sys.executable, *command[1:]], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads((folder / "results.json").read_text())


def measure(options: argparse.Namespace) -> dict[str, dict]:
    """Each method's chosen rate (best on validation with the first seed) and its results with every seed."""
    measured = {}
    for name, method in METHODS.items():
        teachers = {}
        if method.taught:
            rate = measured["teacher"]["rate"]
            teachers = {seed: workdir_of(options, "teacher", seed, rate) for seed in options.seeds}
        first = options.seeds[0]
        tried = {rate: run(options, name, first, rate, teachers.get(first)) for rate in method.rates}
        rate = max(tried, key=lambda rate: tried[rate]["linear_validation_top1"])
        results = [run(options, name, seed, rate, teachers.get(seed)) for seed in options.seeds]
        measured[name] = {"rate": rate, "results": results}
    return measured


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    return f"{statistics.mean(values):.2f} +- {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def page(options: argparse.Namespace, measured: dict[str, dict], seconds: float) -> str:
    """The text of docs/evidence.md."""
    one = measured["supcon"]["results"][0]
    lines = [
        "# Evidence: Fashion-MNIST on a CPU",
        "",
        f"Test accuracy in percent, mean +- standard deviation over {len(options.seeds)} seeds, of a small ResNet",
        f"(`resnet_small`, width 16) trained on {options.train_images:,} of the training images for {options.epochs:g} epochs.",
        "All methods have the same network, images, epochs, batch size and number of learning rates tried.",
        "The rate was chosen on the validation split with the first seed; the test split was used once per run.",
        "This is a small budget: it shows how the methods compare here, not what they reach on large data.",
        "",
        "| method | " + " | ".join(MEASURES.values()) + " | rate (of those tried) |",
        "|---|" + "---|" * (len(MEASURES) + 1),
    ]
    for name, entry in measured.items():
        cells = [
            spread([result[key] for result in entry["results"]]) if key in entry["results"][0] else "-"
            for key in MEASURES
        ]
        tried = ", ".join(f"{rate:g}" for rate in METHODS[name].rates)
        lines.append(f"| {METHODS[name].title} | {' | '.join(cells)} | {entry['rate']:g} ({tried}) |")
    lines += [
        "",
        f"k-NN on raw pixels: {one['raw_pixel_knn_top1']:.2f}. Probe and k-NN evaluate the frozen features of each network.",
        "",
        f"    python -m benchmarks.evidence --train-images {options.train_images} --epochs {options.epochs:g} "
        f"--seeds {' '.join(map(str, options.seeds))}",
        "",
        f"jax {one['versions']['jax']} on {one['num_devices']} x {one['device']}; training alone took "
        f"{sum(result['train_seconds'] for entry in measured.values() for result in entry['results']) / 60:.0f} minutes"
        + (f", all of it {seconds / 60:.0f} minutes." if seconds > 60 else "."),
        "",
        "## Every run",
        "",
        "Each line begins with the fingerprint of the workdir's `config.json`.",
        "",
    ]
    for name, entry in measured.items():
        for seed, result in zip(options.seeds, entry["results"], strict=True):
            folder = workdir_of(options, name, seed, entry["rate"])
            teacher = workdir_of(options, "teacher", seed, measured["teacher"]["rate"])
            command = command_of(
                argparse.Namespace(**{**vars(options), "folder": None}), name, seed, entry["rate"], teacher
            )
            fingerprint = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:12]
            lines += [f"- `{fingerprint}` linear probe {result['linear_top1']:.2f}: `{shlex.join(command)}`"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where TFDS keeps fashion_mnist; default: TFDS's own")
    parser.add_argument("--workdir", default="runs/evidence")
    parser.add_argument("--output", default="docs/evidence.md")
    parser.add_argument("--train-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    started = time.monotonic()
    measured = measure(options)
    Path(options.output).write_text(page(options, measured, time.monotonic() - started))
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
