"""One run of a plan, in this process: its config, its data, its training, and its line."""

import functools
import hashlib
import importlib
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.evidence import further, plans
from benchmarks.evidence.data import PREPARATIONS, TEACHERS
from benchmarks.evidence.lines import packed
from benchmarks.evidence.plans import Plan, Wanted
from gensupcon_jax.data import datasets, memory_cache
from gensupcon_jax.evaluation.kept_predictions import read_predictions
from gensupcon_jax.run import compiled
from gensupcon_jax.run.train import Launch, train_and_evaluate


def config_of(plan: Plan, wanted: Wanted, teacher: Path | None) -> Any:
    """The config of a run."""
    method = plan.methods[wanted.method]
    recipe = importlib.import_module(f"gensupcon_jax.configs.{plan.recipe}")
    config = recipe.get_config(*([method.variant] if method.variant else []))
    fields = {
        "evaluate.every_epochs": 0.0,
        "checkpoint.every_epochs": wanted.budget,
        "checkpoint.keep": 1,
        **plan.fields,
        **method.fields,
        "epochs": float(wanted.budget),
        "seed": wanted.seed,
        "optimizer.learning_rate": wanted.rate,
        # Short budgets warm up for a tenth of them at most.
        "optimizer.warmup_epochs": min(float(plan.fields.get("optimizer.warmup_epochs", 5.0)), wanted.budget / 10),
    }
    if teacher is not None:
        fields |= {"teacher.kind": "workdir", "teacher.path": str(teacher)}
    for name, value in fields.items():
        group, _, last = name.rpartition(".")
        setattr(config[group] if group else config, last, value)
    return config


def fingerprint_of(plan: Plan, wanted: Wanted) -> str:
    """Of the whole config but for the paths of this machine, and of how the data is prepared."""
    content = json.loads(config_of(plan, wanted, None).to_json_best_effort())
    content["dataset"].pop("folder")
    method = plan.methods[wanted.method]
    described = [content, method.data, plan.images, method.teacher, method.teacher_epochs]
    described += [method.teacher_function] if method.teacher_function else []
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


@functools.cache
def source(name: str, folder: str | None, root: Path) -> datasets.Dataset:
    """The data set of a recipe, read once in a process."""
    return datasets.load(name, folder=folder, cache_folder=root, arrays_folder=memory_cache.user_folder())


def dataset_of(plan: Plan, wanted: Wanted, folder: str | None, root: Path) -> datasets.Dataset:
    """The data of a run."""
    name = config_of(plan, wanted, None).dataset.name
    return PREPARATIONS[plan.methods[wanted.method].data](source(name, folder, root), plan.images, wanted.seed)


def line_of(plan: Plan, wanted: Wanted, teacher: Path | None, folder: str | None, root: Path) -> dict[str, Any]:
    """Train and evaluate one run; its line."""
    started = time.monotonic()
    workdir = plans.workdir_of(plan, wanted, root)
    dataset = dataset_of(plan, wanted, folder, root)
    function = plan.methods[wanted.method].teacher_function
    results = train_and_evaluate(
        config_of(plan, wanted, teacher),
        workdir,
        dataset,
        teacher_fn=TEACHERS[function] if function else None,
        launch=Launch(writes_report=False),
    )
    scores = {name: results[name] for name in plan.measures if name in results}
    scores |= {
        name: value for name, value in results.items() if name.endswith("_validation_top1") and value is not None
    }
    scores |= further.measured(list(plan.measures), workdir, dataset)
    kept = read_predictions(workdir)
    predicted = kept.predictions[results["steps"]]
    return {
        "plan": plan.fingerprint,
        **wanted._asdict(),
        "config": fingerprint_of(plan, wanted),
        "commit": _commit(),
        "versions": results["versions"],
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs used, {results['device']}",
        "seconds": {"training": round(results["train_seconds"], 1), "all": round(time.monotonic() - started, 1)},
        "scores": {name: round(float(value), 3) for name, value in scores.items()},
        "num_test": dataset.test.num_images,
        "correct": {
            f"{name}_top1": packed(np.asarray(classes) == kept.labels)
            for name, classes in predicted.items()
            if f"{name}_top1" in plan.measures
        },
    }


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def keep_compiled_programs() -> None:
    """Keep compiled programs for the next process."""
    jax.config.update("jax_compilation_cache_dir", str(memory_cache.user_folder().parent / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compiled.say_failures_once()
