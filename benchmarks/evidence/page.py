"""docs/evidence.md and its pictures, from the plans and the committed lines."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.evidence import plans
from benchmarks.evidence.comparisons import (
    Difference,
    difference_of_images,
    difference_of_numbers,
    in_words,
    sentence,
)
from benchmarks.evidence.further import LOWER_IS_BETTER
from benchmarks.evidence.lines import finished, read_lines, unpacked
from benchmarks.evidence.plans import Comparison, Plan, Wanted
from benchmarks.evidence.schedule import chosen_rate, planned

# The order of the page: what a reader asks first. Plans that are not listed follow.
ORDER = (
    "budget",
    "sharper",
    "why",
    "digits",
    "beside",
    "unseen",
    "queue",
    "parts",
    "long_tail",
    "unlabeled",
    "placebos",
)

PAGE = Path("docs/evidence.md")
PICTURES = Path("docs/pictures")

_HEAD = """# Evidence

What each method reached, and by how much it differs. A plan says the data, the methods, the learning rates tried and the seeds,
and is committed before its runs; a run is a line of `docs/evidence/`; this page is made from both.

- A number is the mean over seeds, in percent of test images, ± the standard deviation of the sample.
- A seed draws the labeled images too, the same for all methods.
- The learning rate is the best of those tried, on validation images with the first seed. Test images choose nothing.
- An interval of an accuracy holds 95 % of 4,000 bootstrap draws of seeds and test images, the same for both methods. Of a number
  that is one per run (calibration, corrupted images, AUROC) it is Student's, over seeds.
- A difference is shown where its interval excludes 0. With three seeds an interval is about a fifth too narrow: read one that
  barely excludes 0 as an open question.

The commands:

    python -m benchmarks.evidence status
    python -m benchmarks.evidence run {example} --minutes 60
    python -m benchmarks.evidence page

A run that has a line is not run again, so any machine goes on where another stopped. All runs here are on CPUs and small: they
show how the methods compare at these sizes, not what they reach on large data.
"""


class Table:
    """The finished runs of a plan with its chosen rates."""

    def __init__(self, plan: Plan, lines: Iterable[dict[str, Any]]):
        self.plan = plan
        self.lines = finished(line for line in lines if line["method"] in plan.methods)
        self.rates = {method: chosen_rate(plan, method, self.lines) for method in plan.methods}
        self._found: dict[tuple[Comparison, float], Difference | None] = {}  # a bootstrap takes a second

    def of(self, method: str, budget: float) -> dict[int, dict[str, Any]]:
        """Seed -> line of a method at a budget, with its chosen rate; none before that is known."""
        rate = self.rates[method]
        runs = {seed: Wanted(method, budget, seed, rate) for seed in self.plan.seeds} if rate is not None else {}
        return {seed: self.lines[run] for seed, run in runs.items() if run in self.lines}

    def scores(self, method: str, budget: float, measure: str) -> list[float]:
        """The numbers of all seeds that are there."""
        found = self.of(method, budget).values()
        return [line["scores"][measure] for line in found if measure in line["scores"]]

    def titles(self, comparison: Comparison) -> tuple[str, str]:
        """The titles of both methods."""
        return self.plan.methods[comparison.first].title, self.plan.methods[comparison.second].title

    def differences(self, comparison: Comparison) -> list[tuple[float, Difference]]:
        """(Budget, first minus second) for each budget at which both have runs."""
        budgets = set(self.plan.budgets_of(comparison.first)) & set(self.plan.budgets_of(comparison.second))
        budgets &= set(comparison.budgets or budgets)
        found = [(budget, self.difference(comparison, budget)) for budget in sorted(budgets)]
        return [(budget, difference) for budget, difference in found if difference]

    def difference(self, comparison: Comparison, budget: float) -> Difference | None:
        """First minus second over the seeds that both have; None where there is none."""
        if (comparison, budget) not in self._found:
            self._found[comparison, budget] = self._difference(comparison, budget)
        return self._found[comparison, budget]

    def _difference(self, comparison: Comparison, budget: float) -> Difference | None:
        first, second = (self.of(name, budget) for name in (comparison.first, comparison.second))
        seeds = sorted(set(first) & set(second))
        if not seeds:
            return None
        measure = comparison.measure
        if all(measure in run[seed]["correct"] for run in (first, second) for seed in seeds):
            return difference_of_images(
                *(
                    [unpacked(run[seed]["correct"][measure], run[seed]["num_test"]) for seed in seeds]
                    for run in (first, second)
                )
            )
        return difference_of_numbers(*([run[seed]["scores"][measure] for seed in seeds] for run in (first, second)))


def write(folder: Path) -> int:
    """Write the page and its pictures."""
    tables = [Table(plan, read_lines(plan.name, folder)) for plan in in_order()]
    PAGE.write_text(page_of(tables))
    for table in tables:
        if table.lines and len(table.plan.budgets) > 1:
            _draw(table, PICTURES / f"evidence_{table.plan.name}.png")
    print(f"written: {PAGE}")
    return 0


def in_order() -> list[Plan]:
    """All plans in the order of the page."""
    names = sorted(plans.names(), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return [plans.read_plan(name) for name in names]


def page_of(tables: list[Table]) -> str:
    """The text of the page."""
    begun = [table for table in tables if table.lines]
    waiting = [table.plan for table in tables if not table.lines]
    parts = [_HEAD.format(example=(begun[0].plan if begun else tables[0].plan).name)]
    if begun:
        parts.append("## In short\n\n" + "\n".join(_short(table) for table in begun))
    parts += [_section(table) for table in begun]
    if waiting:
        listed = "".join(f"- {plan.title} (`{plan.name}`): {plan.question}\n" for plan in waiting)
        parts.append(f"## Planned, and not begun\n\n{listed}")
    return "\n".join(parts)


def _short(table: Table) -> str:
    """What a plan shows, and what it does not."""
    shown, open_questions = [], []
    for comparison in table.plan.comparisons:
        found = table.differences(comparison)
        if any(difference.is_shown() for _, difference in found):
            shown.append(f"- {_in_words(table, comparison)}.")
        elif found:
            first, second = table.titles(comparison)
            open_questions.append(f"{first} and {second} ({table.plan.measures[comparison.measure]})")
    left = len(set(planned(table.plan, table.lines)) - set(table.lines))
    state = [f"- {left} runs are missing." if left else ""]
    told = [f"- No difference is shown between {'; '.join(open_questions)}."] if open_questions else []
    return "\n".join([f"**{table.plan.title}**\n", *shown, *told, *filter(None, state), ""])


def _section(table: Table) -> str:
    plan = table.plan
    texts = [f"## {plan.title}\n", plan.question + "\n"]
    if len(plan.budgets) > 1:
        texts.append(f"![Test accuracy against epochs, a line for each method](pictures/evidence_{plan.name}.png)\n")
    texts.append(_rows(table))
    texts.append(_differences(table) if len(plan.budgets) > 1 else _answers(table))
    texts += [note + "\n" for note in plan.notes]
    texts.append(_state(table))
    return "\n".join(text for text in texts if text)


def _rows(table: Table) -> str:
    plan = table.plan
    measured = [name for name in plan.measures if any(name in line["scores"] for line in table.lines.values())]
    several = len({budget for method in plan.methods for budget in plan.budgets_of(method)}) > 1
    titles = [
        *(["epochs"] if several else []),
        *(plan.measures[name] for name in measured),
        "seeds",
        "rate (of those tried)",
    ]
    rows = [f"| method | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, method in plan.methods.items():
        for budget in sorted(plan.budgets_of(name)):
            count = len(table.of(name, budget))
            if not count:
                continue
            cells = [_spread(table.scores(name, budget, measure)) for measure in measured]
            rate = f"{table.rates[name]:g} ({', '.join(f'{each:g}' for each in method.rates)})"
            epochs = [f"{budget:g}"] if several else []
            rows.append(f"| {method.title} | {' | '.join([*epochs, *cells, str(count), rate])} |")
    return "\n".join(rows) + "\n"


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _in_words(table: Table, comparison: Comparison) -> str:
    """A comparison in one sentence."""
    measured = table.plan.measures[comparison.measure]
    lower = comparison.measure in LOWER_IS_BETTER
    found = table.differences(comparison)
    if len(table.plan.budgets) == 1:
        said = sentence(*table.titles(comparison), measured, found[0][1], lower_is_better=lower)
    else:
        said = f"{in_words(*table.titles(comparison), found, lower_is_better=lower)}, in {measured}"
    return said[0].upper() + said[1:]


def _answers(table: Table) -> str:
    """A sentence for each comparison of a plan with one budget."""
    said = [f"- {_in_words(table, each)}.\n" for each in table.plan.comparisons if table.differences(each)]
    return "".join(said)


def _differences(table: Table) -> str:
    """A row for each comparison, a column for each budget; bold: the interval excludes 0."""
    budgets = sorted({budget for each in table.plan.comparisons for budget, _ in table.differences(each)})
    if not budgets:
        return ""
    rows = [
        f"| first minus second | {' | '.join(f'{budget:g} epochs' for budget in budgets)} |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for each in table.plan.comparisons:
        found = dict(table.differences(each))
        if found:
            cells = [_cell(found.get(budget), len(table.plan.seeds)) for budget in budgets]
            rows.append(f"| {' minus '.join(table.titles(each))} | {' | '.join(cells)} |")
    measures = {table.plan.measures[each.measure] for each in table.plan.comparisons}
    return "\n".join(rows) + f"\n\nIn points of {', '.join(sorted(measures))}; bold where the interval excludes 0.\n"


def _cell(difference: Difference | None, num_seeds: int) -> str:
    if difference is None:
        return "-"
    text = f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
    of = "" if difference.num_seeds == num_seeds else f" ({difference.num_seeds} of {num_seeds} seeds)"
    return (f"**{text}**" if difference.is_shown() else text) + of


def _state(table: Table) -> str:
    plan, lines = table.plan, table.lines
    minutes = sum(line["seconds"]["all"] for line in lines.values()) / 60
    text = f"Plan `{plan.name}` ({plan.fingerprint}): {len(lines)} runs in {minutes:.0f} minutes of one core each"
    left = len(set(planned(plan, lines)) - set(lines))
    text += f"; {left} of the planned runs are missing" if left else "; complete"
    stale = {line["plan"] for line in lines.values()} - {plan.fingerprint}
    return text + (
        f". Some runs are of an earlier version of the plan ({', '.join(sorted(stale))}).\n" if stale else ".\n"
    )


def _draw(table: Table, path: Path) -> None:
    """Accuracy against epochs: a color for each method, dashed with a teacher; bars: the standard deviation over seeds."""
    from matplotlib import colormaps

    from benchmarks.drawing import new_figure, picture_style

    plan = table.plan
    measure = next(iter(plan.measures))
    colors: dict[str, Any] = {}
    with picture_style():
        figure = new_figure(8.0, 6.0)
        axes = figure.subplots()
        for name, method in plan.methods.items():
            points = [(budget, table.scores(name, budget, measure)) for budget in sorted(plan.budgets_of(name))]
            points = [(budget, values) for budget, values in points if values]
            if not points:
                continue
            alone = method.title.removesuffix(" + teacher")
            color = colors.setdefault(alone, colormaps["tab10"](len(colors)))
            axes.errorbar(
                [budget for budget, _ in points],
                [statistics.mean(values) for _, values in points],
                [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points],
                marker="o", capsize=3, label=method.title, color=color,
                linestyle="-" if method.title == alone else "--",
            )  # fmt: skip
        axes.set(xscale="log", xlabel="epochs", ylabel=f"{plan.measures[measure]}, % of test images", title=plan.title)
        axes.set_xticks(plan.budgets, [f"{budget:g}" for budget in plan.budgets])
        axes.minorticks_off()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, frameon=False)
        figure.savefig(path, dpi=110)
