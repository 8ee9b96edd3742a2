"""docs/evidence.md and its pictures, from the plans and the committed lines."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.evidence import plans
from benchmarks.evidence.comparisons import Difference, difference_of_images, difference_of_numbers, sentence
from benchmarks.evidence.further import LOWER_IS_BETTER
from benchmarks.evidence.lines import finished, read_lines, unpacked
from benchmarks.evidence.plans import Comparison, Plan, Wanted
from benchmarks.evidence.schedule import chosen_rate, planned

PAGE = Path("docs/evidence.md")
PICTURES = Path("docs/pictures")

_HEAD = """# Evidence

What each method reached, and by how much it differs. A plan says the data, the methods, the learning rates tried and the seeds,
and is committed before its runs; a run is a line of `docs/evidence/`; this page is made from both.

- A number is the mean over seeds, in percent of test images, ± the standard deviation of the sample.
- A seed draws the labeled images too, the same for all methods.
- The learning rate is the best of those tried on validation images, with the first seed.
- An interval holds 95 % of 4,000 bootstrap draws of seeds and test images, the same for both methods.

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

    def of(self, method: str, budget: float) -> dict[int, dict[str, Any]]:
        """Seed -> line of a method at a budget, with its chosen rate; none before that is known."""
        rate = self.rates[method]
        runs = {seed: Wanted(method, budget, seed, rate) for seed in self.plan.seeds} if rate is not None else {}
        return {seed: self.lines[run] for seed, run in runs.items() if run in self.lines}

    def scores(self, method: str, budget: float, measure: str) -> list[float]:
        """The numbers of all seeds that are there."""
        found = self.of(method, budget).values()
        return [line["scores"][measure] for line in found if measure in line["scores"]]

    def difference(self, comparison: Comparison, budget: float) -> Difference | None:
        """First minus second over the seeds that both have; None where there is none."""
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
    tables = [Table(plan, read_lines(plan.name, folder)) for plan in map(plans.read_plan, plans.names())]
    PAGE.write_text(page_of(tables))
    for table in tables:
        if table.lines and len(table.plan.budgets) > 1:
            _draw(table, PICTURES / f"evidence_{table.plan.name}.png")
    print(f"written: {PAGE}")
    return 0


def page_of(tables: list[Table]) -> str:
    """The text of the page."""
    begun = [table for table in tables if table.lines]
    waiting = [table.plan for table in tables if not table.lines]
    parts = [_HEAD.format(example=(begun[0].plan if begun else tables[0].plan).name)]
    parts += [_section(table) for table in begun]
    if waiting:
        listed = "".join(f"- {plan.title} (`{plan.name}`): {plan.question}\n" for plan in waiting)
        parts.append(f"## Planned, and not begun\n\n{listed}")
    return "\n".join(parts)


def _section(table: Table) -> str:
    plan = table.plan
    texts = [f"## {plan.title}\n", plan.question + "\n"]
    if len(plan.budgets) > 1:
        texts.append(f"![Test accuracy against epochs, a line for each method](pictures/evidence_{plan.name}.png)\n")
    texts.append(_rows(table))
    answers = [
        _answer(table, comparison, budget) for comparison in plan.comparisons for budget in _shared(plan, comparison)
    ]
    said = [f"- {answer}.\n" for answer in answers if answer]
    texts.append("".join(said) + "\n" if said else "")
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


def _shared(plan: Plan, comparison: Comparison) -> list[float]:
    shared = set(plan.budgets_of(comparison.first)) & set(plan.budgets_of(comparison.second))
    return sorted(shared & set(comparison.budgets) if comparison.budgets else shared)


def _answer(table: Table, comparison: Comparison, budget: float) -> str | None:
    difference = table.difference(comparison, budget)
    if difference is None:
        return None
    plan = table.plan
    first, second = (plan.methods[name].title for name in (comparison.first, comparison.second))
    measured = plan.measures[comparison.measure]
    said = sentence(first, second, measured, difference, lower_is_better=comparison.measure in LOWER_IS_BETTER)
    return f"{budget:g} epochs: {said}"


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
    from matplotlib import colormaps

    from benchmarks.drawing import new_figure, picture_style

    plan = table.plan
    measure = next(iter(plan.measures))
    with picture_style():
        figure = new_figure(8.0, 4.4)
        axes = figure.subplots()
        for number, (name, method) in enumerate(plan.methods.items()):
            points = [(budget, table.scores(name, budget, measure)) for budget in sorted(plan.budgets_of(name))]
            points = [(budget, values) for budget, values in points if values]
            if points:
                means = [statistics.mean(values) for _, values in points]
                color = colormaps["tab10"](number)
                axes.plot([budget for budget, _ in points], means, marker="o", label=method.title, color=color)
        axes.set(xscale="log", xlabel="epochs", ylabel=f"{plan.measures[measure]}, % of test images", title=plan.title)
        axes.set_xticks(plan.budgets, [f"{budget:g}" for budget in plan.budgets])
        axes.minorticks_off()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        figure.savefig(path, dpi=110)
