"""The runs that are compared, as their workdirs hold them; read without jax."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from gensupcon_jax import paths
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.kept_predictions import KeptPredictions, read_predictions
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.score_names import PREDICTOR_NAMES, SCORE_NAMES, ScoreName, score_name_of
from gensupcon_jax.store import workdir
from gensupcon_jax.store.metrics import read_metrics
from gensupcon_jax.text import flatten

# Predictors by their names in results.json and predictions.npz; the first that two runs share is the one of their sentence.
PREDICTORS = PREDICTOR_NAMES
TRAINED = ("linear", "classifier", "knn")  # without that of the images alone
STEPS = ("last", "best")


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A workdir: its name, unique among the compared runs, and the content of its files.

    config: dotted field -> value.  results: None for a run that is not finished.  kept: None where it keeps no predictions.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    dataset: dict[str, Any]
    metrics: Sequence[dict[str, Any]]
    results: dict[str, Any] | None
    kept: KeptPredictions | None

    @property
    def seed(self) -> Any:
        """The seed of every random draw of the run."""
        return self.config.get("seed")

    def numbers(self, which: str) -> dict[str, Any]:
        """The results of the "last" or of the "best" step; empty where there are none."""
        if self.results is None:
            return {}
        best = self.results.get("best") or {}
        return self.results if which == "last" or best.get("step") == self.results.get("steps") else best

    def step(self, which: str) -> int | None:
        """The number of the "last" or the "best" step; None if it is not known."""
        return (self.results or {}).get({"last": "steps", "best": "best_step"}[which])

    def correct(self, which: str, predictor: str) -> Bool[np.ndarray, "image"] | None:
        """Which test images this predictor classifies correctly at a step; None if its predictions are not kept."""
        step = self.step(which)
        predictions = self.kept.predictions.get(step, {}).get(predictor) if self.kept and step is not None else None
        if self.kept is None or predictions is None or self.score != SCORE_NAMES["class"]:
            return None  # with several labels per image, a prediction is right by degrees
        return predictions == self.kept.labels

    @property
    def score(self) -> ScoreName:
        """The main score of the labels that it was trained with."""
        return score_name_of(self.dataset)

    def accuracy(self, which: str, predictor: str) -> float | None:
        """The main score on the test images, top-1 in percent: of the kept predictions, else as results.json has it."""
        correct = self.correct(which, predictor)
        return (
            self.numbers(which).get(f"{predictor}_{self.score.key}")
            if correct is None
            else 100.0 * float(correct.mean())
        )

    @property
    def test_images(self) -> str:
        """Equal for runs that are known to have the same test images."""
        return self.kept.images if self.kept else str(self.dataset.get("fingerprint"))


def read_runs(folders: Sequence[str | Path]) -> list[ComparedRun]:
    """The runs in these workdirs; UserError, one line per problem, for what is no run and for a run that is given twice."""
    paths, problems = [as_path(folder) for folder in folders], []
    places: dict[Any, Path] = {}
    for path in paths:
        place = path.resolve()
        if place in places:
            problems.append(f"{path} is the same run as {places[place]}; name each run once")
        places.setdefault(place, path)
    if len(paths) == 1:
        problems.append(f"only one run is given, {paths[0]}; allowed: 2 or more workdirs")
    problems += [problem for path in paths if (problem := _problem(path))]
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return [_read(path, name) for path, name in zip(paths, unique_names(paths), strict=True)]


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parts before it as it takes to tell all of them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _problem(path: Path) -> str | None:
    if not paths.exists(path):
        return f"{path} does not exist; allowed: the --workdir of a run"
    if not paths.is_folder(path):
        return f"{path} is not a folder; allowed: the --workdir of a run"
    missing = [name for name in (workdir.CONFIG, workdir.DATASET) if not paths.is_file(path / name)]
    if missing:
        return f"{path} contains no {' and no '.join(missing)}: it is not the workdir of a run; allowed: the --workdir of a run"
    return None


def _read(path: Path, name: str) -> ComparedRun:
    config, dataset = (
        workdir.read_json(path / file, "restore it, or leave this run out")
        for file in (workdir.CONFIG, workdir.DATASET)
    )
    results = workdir.read_results(path)
    kept = read_predictions(path) if results is not None else None
    return ComparedRun(name, path, flatten(config), dataset, read_metrics(path), results, kept)
