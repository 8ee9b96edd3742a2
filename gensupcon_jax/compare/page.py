"""The page of a comparison: collects its sections and renders the template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gensupcon_jax.compare.comparisons import Comparison, comparisons, main_comparisons, p_text, sentence
from gensupcon_jax.compare.curves import charts, group_look
from gensupcon_jax.compare.fields import Difference, differences, num_equal_fields
from gensupcon_jax.compare.groups import SeedGroup, grouped
from gensupcon_jax.compare.images import ImagesOfOne, images_of_one
from gensupcon_jax.compare.results import (
    ResultTable,
    measure_table,
    notes,
    result_table,
    seed_table,
    spread_sentence,
    time_table,
)
from gensupcon_jax.compare.runs import PREDICTORS, ComparedRun
from gensupcon_jax.evaluation.paired import Interval
from gensupcon_jax.report.page import template
from gensupcon_jax.report.values import clean, short

_LONGEST = 120  # letters of a value


@dataclass(frozen=True, eq=False)
class RunsComparison:
    """All that a page, or a text, says about some runs."""

    runs: Sequence[ComparedRun]
    groups: Sequence[SeedGroup]
    fields: Sequence[Difference]
    num_equal: int
    results: ResultTable
    seeds: ResultTable | None
    measures: ResultTable | None
    times: ResultTable | None
    tests: Sequence[Comparison]
    images: Sequence[ImagesOfOne]
    notes: Sequence[str]

    @property
    def sentences(self) -> list[str]:
        """One for each pair of groups; of a single group, its spread."""
        alone = [spread_sentence(self.groups[0])] if len(self.groups) == 1 else []
        return [*filter(None, alone), *(sentence(comparison) for comparison in main_comparisons(self.tests))]


def compare(runs: Sequence[ComparedRun]) -> RunsComparison:
    """Compare runs that have been read."""
    groups = grouped(runs)
    tests = comparisons(groups)
    return RunsComparison(
        runs=runs,
        groups=groups,
        fields=differences(runs),
        num_equal=num_equal_fields(runs),
        results=result_table(runs),
        seeds=seed_table(groups),
        measures=measure_table(runs),
        times=time_table(runs),
        tests=tests,
        images=images_of_one(main_comparisons(tests), runs),
        notes=notes(runs),
    )


def render_comparison(found: RunsComparison, command: str) -> str:
    """The page as HTML text; names are escaped by the template."""
    return template("compare.html", Path(__file__).parent).render(
        command=clean(command),
        groups=[
            {"name": clean(group.name), "look": group_look(place), "runs": [_run(run) for run in group.runs]}
            for place, group in enumerate(found.groups)
        ],
        title=", ".join(clean(group.name) for group in found.groups),
        names=[clean(run.name) for run in found.runs],
        sentences=[clean(each) for each in found.sentences],
        notes=[clean(note) for note in found.notes],
        fields=[(clean(row.field), [short(clean(value), _LONGEST) for value in row.values]) for row in found.fields],
        num_equal=found.num_equal,
        charts=charts(found.groups),
        results=_cleaned(found.results),
        seeds=found.seeds and _cleaned(found.seeds),
        measures=found.measures and _cleaned(found.measures),
        times=found.times and _cleaned(found.times),
        tests=[_test_row(comparison) for comparison in found.tests],
        images=found.images,
    )


def _run(run: ComparedRun) -> dict[str, str]:
    return {"name": clean(run.name), "folder": clean(run.folder), "seed": clean(run.seed)}


def _cleaned(table: ResultTable) -> ResultTable:
    return ResultTable([clean(cell) for cell in table.heading], [[clean(cell) for cell in row] for row in table.rows])


def _test_row(comparison: Comparison) -> dict[str, Any]:
    """The cells of a paired test."""
    result = comparison.result
    if isinstance(result, Interval):
        counts = f"{len(comparison.seeds)} seeds, t-test"
    else:
        counts = f"{result.only_first:,} : {result.only_second:,} of {result.num_images:,} images, McNemar"
    return {
        "pair": (clean(comparison.first), clean(comparison.second)),
        "number": f"{PREDICTORS[comparison.predictor]}, {comparison.which}",
        "difference": f"{result.difference:+.2f}",
        "interval": f"{result.low:+.2f} to {result.high:+.2f}",
        "counts": counts,
        "p_value": p_text(result.p_value).removeprefix("= "),
        "adjusted": p_text(comparison.adjusted).removeprefix("= "),
        "is_significant": comparison.is_significant,
    }
