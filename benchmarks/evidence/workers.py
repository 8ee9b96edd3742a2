"""What a worker process does: it takes a core, then does runs of a plan in turn. It imports jax only after it has its core."""

import os
from pathlib import Path
from typing import Any

from benchmarks.evidence import plans
from benchmarks.evidence.plans import Plan, Wanted


def work(plan: Plan, wanted: Wanted, teacher: Wanted | None, folder: str | None, root: Path) -> dict[str, Any]:
    """The line of one run, whose teacher has been trained."""
    from benchmarks.evidence import runs  # it imports jax, after the process has its core

    return runs.line_of(plan, wanted, teacher and plans.workdir_of(plan, teacher, root), folder, root)


def begin(cores: Any) -> None:
    """Take a core of the queue; None: all of them."""
    if cores is not None:
        os.sched_setaffinity(0, {cores.get()})
    from benchmarks.evidence import runs
    from gensupcon_jax.cluster import cpu_flags

    cpu_flags.set_for_this_machine(os.environ)
    runs.keep_compiled_programs()
