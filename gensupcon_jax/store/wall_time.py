"""time.json: the wall time of each start of a run by phases, and the times of its steps; and their sum over all starts."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gensupcon_jax import paths
from gensupcon_jax.configs.rules import is_number
from gensupcon_jax.disk import refuse_lost, writing
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import COUNT, parsed
from gensupcon_jax.paths import Path
from gensupcon_jax.phases import PHASES
from gensupcon_jax.text import reason

TIME = "time.json"
_BIN = math.log(1.01)  # a bin of the histogram of step times is 1 % wide
_MOST_BIN = 10_000  # far beyond every step


def read_starts(workdir: Path) -> list[dict[str, Any]]:
    """The starts in the order of their beginning, as `write_starts` gets them; UserError for a file that is not readable."""
    path = workdir / TIME
    if not paths.exists(path):
        return []
    try:
        starts = parsed(path.read_bytes())["starts"]
        if not isinstance(starts, list):
            raise ValueError("it is not an account of starts")
        for start in starts:
            _check(start)
    except (*paths.failures(), ValueError, TypeError, KeyError, AttributeError) as error:
        refuse_lost(error, path)
        raise UserError(
            f"{path} cannot be read ({reason(error)}); remove it: it says only how long earlier starts took"
        ) from error
    return starts


def _check(start: Mapping[str, Any]) -> None:
    """ValueError or another error for what `write_starts` does not get."""
    numbers = (*(start["seconds"][phase] for phase in PHASES), *start["step_bins"].values(), start["slowest_step"])
    steps = [step for step in (start["first_step"], start["last_step"]) if step is not None]
    are_known = start["seconds"].keys() == PHASES.keys() and all(
        abs(int(each)) < _MOST_BIN for each in start["step_bins"]
    )
    if not are_known or not all(map(is_number, numbers)) or not all(map(COUNT.allows, steps)):
        raise ValueError("it is not an account of starts")


def write_starts(workdir: Path, starts: Sequence[Mapping[str, Any]]) -> None:
    """Write the file anew; UserError if it cannot be written.

    A start: "began" (date and time), "seconds" (phase -> seconds), "first_step" and "last_step" (None before training),
    "step_bins" (bin -> number of steps), "slowest_step" (seconds).
    """
    path = workdir / TIME
    with writing(path):
        paths.write_whole(path, (json.dumps({"starts": list(starts)}) + "\n").encode())


def step_bin(seconds: float) -> int:
    """The bin of a step that took so long.

    >>> bin_seconds(step_bin(0.25)) / 0.25 - 1 < 0.01
    True
    """
    return round(math.log(max(seconds, 1e-6)) / _BIN)


def bin_seconds(number: int) -> float:
    """The middle of a bin, in seconds."""
    return math.exp(number * _BIN)


def summed(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The account of all starts, `time` of results.json.

    "wall": seconds; "seconds": phase -> seconds, which add up to it; "goodput": percent of it in training steps that were kept;
    "step_seconds": p50 and p95 (to 1 %) and max of the time between the ends of two steps, None before the second step.
    """
    seconds = dict.fromkeys(PHASES, 0.0)
    bins: dict[int, int] = {}
    for place, start in enumerate(starts):
        lost = start["seconds"]["step"] * _lost_share(start, starts[place + 1 :])
        for phase, of_start in start["seconds"].items():
            seconds[phase] += of_start
        seconds["step"] -= lost
        seconds["lost"] += lost
        for number, count in start["step_bins"].items():
            bins[int(number)] = bins.get(int(number), 0) + count
    wall = sum(seconds.values())
    slowest = max((start["slowest_step"] for start in starts), default=0.0)
    return {
        "wall": wall,
        "starts": len(starts),
        "goodput": 100 * seconds["step"] / wall if wall else 0.0,
        "seconds": seconds,
        "step_seconds": _step_seconds(bins, slowest) if bins else None,
    }


def _lost_share(start: Mapping[str, Any], later: Sequence[Mapping[str, Any]]) -> float:
    """The share of a start's steps that later starts took again, as no checkpoint had them."""
    first, last = start["first_step"], start["last_step"]
    again = [each["first_step"] for each in later if each["first_step"] is not None]
    if first is None or last is None or last <= first or not again:
        return 0.0
    return max(0, last - max(first, min(again))) / (last - first)


def _step_seconds(bins: Mapping[int, int], slowest: float) -> dict[str, float]:
    percentiles = {name: min(_percentile(bins, share), slowest) for name, share in (("p50", 0.5), ("p95", 0.95))}
    return percentiles | {"max": slowest}


def _percentile(bins: Mapping[int, int], share: float) -> float:
    wanted, seen = share * sum(bins.values()), 0
    for number in sorted(bins):
        seen += bins[number]
        if seen >= wanted:
            break
    return bin_seconds(number)
