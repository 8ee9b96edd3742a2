"""Runs that differ only in the seed are one group: its name, and the mean and the spread of its numbers."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from gensupcon_jax.compare.fields import settled
from gensupcon_jax.compare.runs import ComparedRun
from gensupcon_jax.evaluation.paired import Spread, spread
from gensupcon_jax.text import common_start

_SEED = "seed"


class SeedGroup(NamedTuple):
    """Runs with the same config and the same data, each with another seed."""

    name: str
    runs: tuple[ComparedRun, ...]

    def accuracies(self, which: str, predictor: str) -> dict[Any, float]:
        """Seed -> accuracy in percent, for the runs that have it."""
        found = {run.seed: run.accuracy(which, predictor) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, which: str, predictor: str) -> Spread | None:
        """Mean and standard deviation over the seeds; None if no run has the number."""
        values = list(self.accuracies(which, predictor).values())
        return spread(values) if values else None


def grouped(runs: Sequence[ComparedRun]) -> list[SeedGroup]:
    """The groups in the order of their first runs; runs of the same seed are never in one group."""
    members: dict[tuple[str, int], list[ComparedRun]] = {}
    for run in runs:
        key = json.dumps({name: text for name, text in settled(run).items() if name != _SEED}, sort_keys=True)
        repeat = 0
        while run.seed in [other.seed for other in members.get((key, repeat), [])]:
            repeat += 1
        members.setdefault((key, repeat), []).append(run)
    groups = list(members.values())
    names = [_name([run.name for run in group]) for group in groups]
    if len(set(names)) < len(names):
        names = [group[0].name + (f" and {len(group) - 1} more" if len(group) > 1 else "") for group in groups]
    return [SeedGroup(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def _name(names: list[str]) -> str:
    """What the names of the runs begin with, as "mixup" of mixup_seed0 and mixup_seed1; else the first of them and a count."""
    if len(names) == 1:
        return names[0]
    common = re.sub(r"\d+$", "", common_start(names))
    common = re.sub(r"([_\-. =/]+(seeds?|s))?[_\-. =/]*$", "", common)
    return common or f"{names[0]} and {len(names) - 1} more"
