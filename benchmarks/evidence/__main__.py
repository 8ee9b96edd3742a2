"""python -m benchmarks.evidence run PLAN | status | page: do what is missing of a plan, say what is, write docs/evidence.md."""

import argparse
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from benchmarks.evidence import plans
from benchmarks.evidence.lines import finished, read_lines
from benchmarks.evidence.schedule import Progress, missing, planned, seconds_of
from benchmarks.evidence.workers import begin, work


def run(options: argparse.Namespace) -> int:
    """Do what is missing of a plan, within the time."""
    plan = plans.read_plan(options.plan)
    progress = Progress(plan, options)
    context = multiprocessing.get_context("spawn")
    cores = context.Queue() if options.jobs > 1 else None
    usable = sorted(os.sched_getaffinity(0))
    for number in range(options.jobs) if cores else ():
        cores.put(usable[number % len(usable)])
    with ProcessPoolExecutor(options.jobs, context, begin, (cores,)) as pool:
        while True:
            while len(progress.running) < options.jobs and (found := progress.next_run()):
                wanted, teacher = found
                future = pool.submit(work, plan, wanted, teacher, options.folder, options.workdir)
                progress.running[future] = wanted
            if not progress.running:
                break
            progress.collect(wait(progress.running, return_when=FIRST_COMPLETED).done)
    left = missing(plan, progress.lines)
    print(
        f"{plan.name}: {len(progress.lines)} runs are done, {len(left)} can be begun now, {len(progress.failed)} failed"
    )
    return 1 if progress.failed else 0


def status(options: argparse.Namespace) -> int:
    """Print what is done and what is missing of all plans, with an estimate of the time."""
    for name in plans.names():
        plan = plans.read_plan(name)
        lines = finished(read_lines(name, options.lines))
        left = [run for run in planned(plan, lines) if run not in lines]
        minutes = sum(seconds_of(plan, run, lines) for run in left) / 60
        said = f"about {minutes:.0f} minutes of one process" if lines else "time unknown before a first run"
        print(f"{name:<12} {len(lines):>4} runs done, {len(left):>4} missing, {said}: {plan.title}")
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "status", "page"):
        command = commands.add_parser(name)
        command.add_argument("--lines", type=Path, default=Path("docs/evidence"), help="where the results are")
        if name == "run":
            command.add_argument("plan", choices=plans.names())
            command.add_argument("--folder", help="of prepared TFDS data sets; default: TFDS's own")
            command.add_argument("--workdir", type=Path, default=Path("runs/evidence"))
            command.add_argument("--minutes", type=float, default=60.0, help="no run is begun that does not fit")
            command.add_argument(
                "--jobs", type=int, choices=range(1, 65), metavar="N", default=2, help="processes, each on one core"
            )
            command.add_argument("--only", nargs="+", help="methods")
    options = parser.parse_args()
    if options.command == "page":
        from benchmarks.evidence.page import write

        return write(options.lines)
    return {"run": run, "status": status}[options.command](options)


if __name__ == "__main__":
    raise SystemExit(main())
