"""Comparisons of two groups of runs: paired tests, and one sentence for each, which follows from the numbers."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from gensupcon_jax.compare.groups import SeedGroup
from gensupcon_jax.compare.runs import PREDICTORS, STEPS, TRAINED, ComparedRun
from gensupcon_jax.evaluation.paired import (
    SIGNIFICANT,
    Interval,
    Paired,
    adjusted_p_values,
    compare_on_images,
    compare_over_seeds,
)

MOST_PAIRS = 15  # all pairs of 6; of more, each is compared with the first


@dataclass(frozen=True)
class Comparison:
    """Two groups, by one predictor at one step: over their common seeds where there are two or more, else on the test images.

    result: first minus second, in points.  runs: the two that were compared on the same images.  adjusted: the p-value after
    Holm's correction for the comparisons with the same predictor and step.  score: what is compared, in words.
    """

    first: str
    second: str
    which: str
    predictor: str
    result: Interval | Paired
    means: tuple[float, float]
    seeds: tuple[object, ...]
    runs: tuple[str, str]
    score: str = "accuracy"
    adjusted: float = 1.0

    @property
    def over_seeds(self) -> bool:
        """Whether it is a paired t-test over seeds, not McNemar's on images."""
        return isinstance(self.result, Interval)

    @property
    def is_significant(self) -> bool:
        """Whether chance is an unlikely explanation, all comparisons considered."""
        return self.adjusted < SIGNIFICANT

    @property
    def is_borderline(self) -> bool:
        """Whether only the correction, or one of the test and the interval, speaks for chance."""
        alone = self.result.p_value < SIGNIFICANT or self.result.low > 0 or self.result.high < 0
        return alone and not self.is_significant


def comparisons(groups: Sequence[SeedGroup]) -> list[Comparison]:
    """All pairs of groups (of many, each with the first), for every predictor of the encoder and step that both have."""
    pairs = list(combinations(groups, 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [(groups[0], other) for other in groups[1:]]
    found = []
    for which in STEPS:
        for predictor in TRAINED:
            made = [compared(*pair, which, predictor) for pair in pairs]
            made = [comparison for comparison in made if comparison]
            adjusted = adjusted_p_values([comparison.result.p_value for comparison in made])
            found += [dataclasses.replace(each, adjusted=p) for each, p in zip(made, adjusted, strict=True)]
    return found


def compared(first: SeedGroup, second: SeedGroup, which: str, predictor: str) -> Comparison | None:
    """One comparison; None if a number is missing, if the test images may differ, or if the best steps are the last ones."""
    if first.runs[0].score != second.runs[0].score:
        return None
    score = first.runs[0].score.title
    is_known = which == "best" and all(run.step("best") == run.step("last") for run in (*first.runs, *second.runs))
    if is_known or not same_test_images(first.runs[0], second.runs[0]):
        return None
    ours, theirs = (group.accuracies(which, predictor) for group in (first, second))
    seeds = tuple(seed for seed in ours if seed in theirs)
    if len(seeds) > 1:
        values = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
        means = tuple(sum(each) / len(each) for each in values)
        result = compare_over_seeds(*values)
        return Comparison(
            first.name, second.name, which, predictor, result, (means[0], means[1]), seeds, ("", ""), score
        )
    run, other = _pair(first, second)
    correct = run.correct(which, predictor), other.correct(which, predictor)
    if correct[0] is None or correct[1] is None:
        return None
    means = (100 * float(correct[0].mean()), 100 * float(correct[1].mean()))
    result = compare_on_images(correct[0], correct[1])
    return Comparison(first.name, second.name, which, predictor, result, means, seeds, (run.name, other.name))


def same_test_images(first: ComparedRun, second: ComparedRun) -> bool:
    """Whether both runs were evaluated on the same test images."""
    if first.kept and second.kept:
        return first.test_images == second.test_images and len(first.kept.labels) == len(second.kept.labels)
    return first.dataset.get("fingerprint") == second.dataset.get("fingerprint")


def _pair(first: SeedGroup, second: SeedGroup) -> tuple[ComparedRun, ComparedRun]:
    """The runs with the seed that both groups have, else the first of each."""
    for run in first.runs:
        for other in second.runs:
            if run.seed == other.seed:
                return run, other
    return first.runs[0], second.runs[0]


def main_comparisons(found: Sequence[Comparison]) -> list[Comparison]:
    """For every pair, the comparison that stands in the sentence: at the last step, by the first predictor of PREDICTORS."""
    chosen: dict[tuple[str, str], Comparison] = {}
    for comparison in found:
        if comparison.which == "last":
            chosen.setdefault((comparison.first, comparison.second), comparison)
    return list(chosen.values())


def sentence(comparison: Comparison) -> str:
    """The comparison in words."""
    first, second, difference = comparison.first, comparison.second, comparison.result.difference
    means = f"{comparison.means[0]:.2f} % and {comparison.means[1]:.2f} %"
    where = f"{PREDICTORS[comparison.predictor]}, {comparison.which} step"
    size = f" by {abs(difference):.2f} points" if round(difference, 2) else ""
    if comparison.score != "accuracy":
        verb = "has the same" if not size else "has a higher" if difference > 0 else "has a lower"
        verb = f"{verb} {comparison.score} {'than' if size else 'as'}"
    elif not size:
        verb = "is as accurate as"
    else:
        verb = "is more accurate than" if difference > 0 else "is less accurate than"
    low, high = comparison.result.low, comparison.result.high
    head = (
        f"{first} {verb} {second}{size} ({where}: {means}; 95 % interval of the difference {low:+.2f} to {high:+.2f})"
    )
    return f"{head}. {_evidence(comparison)}"


def _evidence(comparison: Comparison) -> str:
    """What the test counts, its p-value, and what follows."""
    result = comparison.result
    if isinstance(result, Interval):
        tested = (
            f"Over the {len(comparison.seeds)} seeds that both have, the paired t-test gives p {p_text(result.p_value)}"
        )
    else:
        right = f"{comparison.runs[0]} alone classifies {result.only_first:,} correctly, "
        right += f"{comparison.runs[1]} alone {result.only_second:,}"
        tested = f"Of {result.num_images:,} test images, {right}: McNemar's test gives p {p_text(result.p_value)}"
    corrected = abs(comparison.adjusted - result.p_value) > 1e-12
    tested += f" (p {p_text(comparison.adjusted)} after Holm's correction for several comparisons)" if corrected else ""
    if comparison.is_significant:
        return f"{tested}: chance is an unlikely explanation."
    if comparison.is_borderline:
        return f"{tested}: this is at the border of what chance explains."
    return f"{tested}: chance alone can explain it."


def p_text(p_value: float) -> str:
    """0.0312 -> "= 0.031"; a very small one -> "< 0.0001"."""
    return f"= {p_value:.2g}" if p_value >= 0.0001 else "< 0.0001"
