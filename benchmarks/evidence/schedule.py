"""What is to be run next of a plan: rates first, teachers before their students, the most useful first, within the time."""

import argparse
import time
from concurrent.futures import Future
from typing import Any

from benchmarks.evidence import plans
from benchmarks.evidence.lines import append_line, finished, read_lines
from benchmarks.evidence.plans import Plan, Wanted


def chosen_rate(plan: Plan, method: str, lines: dict[Wanted, dict[str, Any]]) -> float | None:
    """The learning rate of a method: the best on validation data of those tried; None while tries are missing."""
    tries = plans.rate_tries(plan, method)
    if not tries:
        return plan.methods[method].rates[0]
    if any(each not in lines for each in tries):
        return None
    return max(tries, key=lambda each: validation_score(lines[each])).rate


def validation_score(line: dict[str, Any]) -> float:
    """The accuracy of the linear probe on validation data, or of what there is in its place."""
    scores = line["scores"]
    names = ("linear_validation_top1", "classifier_validation_top1", "knn_validation_top1")
    return next(scores[name] for name in names if name in scores)


def planned(plan: Plan, lines: dict[Wanted, dict[str, Any]]) -> list[Wanted]:
    """All runs of a plan; those of a method whose rate is not chosen yet are with the first of its rates."""
    found: list[Wanted] = []
    for method in plan.methods:
        rate = chosen_rate(plan, method, lines) or plan.methods[method].rates[0]
        found += plans.rate_tries(plan, method) + plans.runs_with(plan, method, rate)
    return list(dict.fromkeys(found))


def missing(plan: Plan, lines: dict[Wanted, dict[str, Any]]) -> list[Wanted]:
    """The runs that can be begun now, the most useful first: tries of learning rates, then all others."""
    found: list[Wanted] = []
    for method in plan.methods:
        rate = chosen_rate(plan, method, lines)
        found += plans.rate_tries(plan, method) if rate is None else plans.runs_with(plan, method, rate)
    return plans.in_order(list(dict.fromkeys(run for run in found if run not in lines)), plan)


def teacher_of(plan: Plan, wanted: Wanted, lines: dict[Wanted, dict[str, Any]]) -> Wanted | None:
    """The run whose network teaches this one; None where there is none, or where its rate is not known yet."""
    method = plan.methods[wanted.method]
    if method.teacher is None:
        return None
    rate = chosen_rate(plan, method.teacher, lines)
    budget = method.teacher_epochs or max(plan.budgets_of(method.teacher))
    return None if rate is None else Wanted(method.teacher, budget, wanted.seed, rate)


def seconds_of(plan: Plan, wanted: Wanted, lines: dict[Wanted, dict[str, Any]]) -> float:
    """An estimate of what a run takes, from those of its method, or of any, and their budgets."""
    known = [line for run, line in lines.items() if run.method == wanted.method] or list(lines.values())
    if not known:
        return 0.0
    nearest = min(known, key=lambda line: abs(line["budget"] - wanted.budget))
    beside = nearest["seconds"]["all"] - nearest["seconds"]["training"]
    return beside + nearest["seconds"]["training"] * wanted.budget / nearest["budget"]


class Progress:
    """What is running of a plan, and what is still to be done within the time."""

    def __init__(self, plan: Plan, options: argparse.Namespace):
        self.plan, self.options = plan, options
        self.ends = time.monotonic() + 60 * options.minutes
        self.lines = finished(read_lines(plan.name, options.lines))
        self.running: dict[Future, Wanted] = {}
        self.failed: list[Wanted] = []

    def next_run(self) -> tuple[Wanted, Wanted | None] | None:
        """The next run with its teacher, or the teacher itself where its network is not here; None where nothing fits."""
        left = self.ends - time.monotonic()
        busy = {*self.running.values(), *self.failed}
        for wanted in missing(self.plan, self.lines):
            method = self.plan.methods[wanted.method]
            if wanted in busy or (self.options.only and wanted.method not in self.options.only):
                continue
            teacher = teacher_of(self.plan, wanted, self.lines)
            if method.teacher and teacher is None:
                continue
            if teacher and not (plans.workdir_of(self.plan, teacher, self.options.workdir) / "results.json").is_file():
                if teacher in busy:
                    continue
                wanted, teacher = teacher, None
            if seconds_of(self.plan, wanted, self.lines) <= left:
                return wanted, teacher
        return None

    def collect(self, done: set[Future]) -> None:
        """Write the lines of finished runs."""
        for future in done:
            wanted = self.running.pop(future)
            if error := future.exception():
                self.failed.append(wanted)
                print(f"FAILED {wanted}: {error}", flush=True)
                continue
            line = future.result()
            if wanted not in self.lines:
                append_line(self.plan.name, line, self.options.lines)
                self.lines[wanted] = line
            print(
                f"{wanted.method}, {wanted.budget:g} epochs, seed {wanted.seed}, rate {wanted.rate:g}: {line['scores']} "
                f"in {line['seconds']['all']:.0f} s",
                flush=True,
            )
