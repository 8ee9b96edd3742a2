"""The results of runs and groups as rows of text, and what must be said about single runs."""

from collections.abc import Sequence
from typing import NamedTuple

from gensupcon_jax.compare.comparisons import same_test_images
from gensupcon_jax.compare.fields import differences, new_fields
from gensupcon_jax.compare.groups import SeedGroup
from gensupcon_jax.compare.runs import PREDICTORS, STEPS, TRAINED, ComparedRun
from gensupcon_jax.evaluation.choices import BY_DEFAULT
from gensupcon_jax.evaluation.paired import Spread
from gensupcon_jax.report.values import duration
from gensupcon_jax.score_names import SCORE_NAMES
from gensupcon_jax.text import listed

NOTHING = "-"
# Fields on which the value of a loss depends, whatever the encoder has learned.
_SCALE_OF_THE_LOSS = (
    "objective",
    "batch_size",
    "loss.",
    "mix.",
    "teacher.",
    "augment.num_views",
    "augment.local_views",
)


class ResultTable(NamedTuple):
    """The heading and the rows of a table of accuracies in percent."""

    heading: list[str]
    rows: list[list[str]]


def columns(runs: Sequence[ComparedRun]) -> list[tuple[str, str]]:
    """(predictor, step) of the columns: what any run has; the best step only where it is another than the last."""
    differ = any(run.step("best") not in (None, run.step("last")) for run in runs)
    found = [(predictor, which) for predictor in PREDICTORS for which in (STEPS if differ else STEPS[:1])]
    return [
        (predictor, which)
        for predictor, which in found
        if any(run.accuracy(which, predictor) is not None for run in runs)
        and not (predictor == "raw_pixel_knn" and which == "best")  # of the images alone: the same at every step
    ]


def result_table(runs: Sequence[ComparedRun]) -> ResultTable:
    """One row per run: its name, seed, last and best step, and its accuracies."""
    shown = columns(runs)
    heading = ["run", "seed", "last step", "best step", *(_title(*column) for column in shown)]
    rows = [
        [run.name, str(run.seed), _step(run, "last"), _step(run, "best")]
        + [_percent(run.accuracy(which, predictor)) for predictor, which in shown]
        for run in runs
    ]
    return ResultTable(heading, rows)


def seed_table(groups: Sequence[SeedGroup]) -> ResultTable | None:
    """One row per group: mean and standard deviation over its seeds; None where every group is one run."""
    if all(len(group.runs) == 1 for group in groups):
        return None
    shown = columns([run for group in groups for run in group.runs])
    heading = ["runs", "seeds", *(_title(*column) for column in shown)]
    rows = [
        [group.name, str(len(group.runs)), *(_spread(group.spread(which, predictor)) for predictor, which in shown)]
        for group in groups
    ]
    return ResultTable(heading, rows)


def spread_sentence(group: SeedGroup) -> str | None:
    """Mean and standard deviation of the first accuracy that the runs of a group have, at the last step."""
    found = [(predictor, group.spread("last", predictor)) for predictor in TRAINED]
    predictor, spread = next(((name, each) for name, each in found if each), ("", None))
    if spread is None or spread.count == 1:
        return None
    return (
        f"Over {spread.count} seeds, {group.name} has {_a(group.runs[0].score.title)} of {_spread(spread)} "
        f"({PREDICTORS[predictor]}, last step: mean and standard deviation)."
    )


def measure_table(runs: Sequence[ComparedRun]) -> ResultTable | None:
    """One row per run: the further measures on the test images, at the last step; None where no run has any."""
    measures = [run.numbers("last").get("measures") or {} for run in runs]
    names = list(dict.fromkeys(name for each in measures for name in each))
    rows = [[run.name, *(_number(each.get(name)) for name in names)] for run, each in zip(runs, measures, strict=True)]
    return ResultTable(["run", *names], rows) if names else None


def time_table(runs: Sequence[ComparedRun]) -> ResultTable | None:
    """One row per run: the wall time of all its starts, and the percentage of it in training steps; None where none is known."""
    accounts = [(run.results or {}).get("time") or {} for run in runs]
    rows = [
        [run.name, duration(each.get("wall")) or NOTHING, _goodput(each.get("goodput"))]
        for run, each in zip(runs, accounts, strict=True)
    ]
    return ResultTable(["run", "time", "goodput"], rows) if any(accounts) else None


def notes(runs: Sequence[ComparedRun]) -> list[str]:
    """A sentence for each thing that limits the comparison."""
    found = [note for run in runs if (note := _note(run))]
    kinds: list[list[ComparedRun]] = []
    for run in runs:
        kind = next((kind for kind in kinds if same_test_images(kind[0], run)), None)
        kinds.append([run]) if kind is None else kind.append(run)
    if len(kinds) > 1:
        parts = "; ".join(f"{kind[0].dataset.get('name')}: {listed(run.name for run in kind)}" for kind in kinds)
        found.append(
            f"The runs have different test images ({parts}): paired tests are made within the same images only."
        )
    new = new_fields(runs)
    if new:
        found.append(f"Runs of an earlier version lack fields that have their default in the others: {listed(new)}.")
    scaling = [row.field for row in differences(runs) if row.field.startswith(_SCALE_OF_THE_LOSS)]
    if scaling:
        verb = "differs" if len(scaling) == 1 else "differ"
        found.append(f"The losses are not on one scale, as {listed(scaling)} {verb}: compare the accuracies.")
    titles: dict[str, list[str]] = {}
    for run in runs:
        if run.score != SCORE_NAMES["class"]:
            titles.setdefault(run.score.title, []).append(run.name)
    found += [
        f"Numbers{'' if len(names) == len(runs) else f' of {listed(names)}'} are the {title}; it has no paired test on the "
        "images of single runs: train each with two or more seeds."
        for title, names in titles.items()
    ]
    return found


def _note(run: ComparedRun) -> str | None:
    if run.results is None:
        last = run.metrics[-1]["step"] if run.metrics else None
        where = "has not logged a step" if last is None else f"was last logged at step {last}"
        return f"{run.name} is not finished ({where}): it has curves, but no results."
    if all(run.accuracy("last", predictor) is None for predictor in PREDICTORS):
        return f"{run.name} was trained without labels: it has curves, but no accuracies."
    if run.results.get("num_validation") == 0:
        source = run.results.get("choices")
        chosen = "default values" if source == BY_DEFAULT else f"those of {source}"
        return f"{run.name} has no validation split: only its last step counts, and its k and its probe's penalty are {chosen}."
    if run.kept is None:
        return f"{run.name} keeps no test predictions (it is of an earlier version): no paired test on its images."
    return None


def _a(title: str) -> str:
    return f"{'an' if title[0] in 'aeiou' else 'a'} {title}"


def _title(predictor: str, which: str) -> str:
    return PREDICTORS[predictor] + ("" if predictor == "raw_pixel_knn" else f", {which}")


def _step(run: ComparedRun, which: str) -> str:
    step = run.step(which)
    return NOTHING if step is None else f"{step}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f} %"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _goodput(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f} %"


def _spread(found: Spread | None) -> str:
    if found is None:
        return NOTHING
    return f"{found.mean:.2f} %" if found.count == 1 else f"{found.mean:.2f} ± {found.deviation:.2f} %"
