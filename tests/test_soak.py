"""The soak test knows a fault when it sees one, and damages only what may be damaged."""

import random
import signal

from benchmarks import soak
from benchmarks.soak import Case, Ended, Event


def test_faults_are_tracebacks_wrong_statuses_and_processes_that_hang():
    def ends_well(each):
        return each.status == 0

    assert soak.faults_of([Ended(0, "report: x\n")], ends_well) == []
    assert soak.faults_of([Ended(0, "Traceback (most recent call last):\n")], ends_well) == [
        "process 0 said 'Traceback (most recent call last)'"
    ]
    assert soak.faults_of([Ended(0, ""), Ended(-signal.SIGSEGV, "step 1\n")], ends_well) == [
        "process 1 ended with status -11: 'step 1'"
    ]
    assert soak.faults_of([Ended(None, "")], ends_well) == ["process 0 had not ended after 180 s"]


def test_the_last_intact_checkpoint_is_never_damaged(tmp_path):
    case = Case(tmp_path, disk=tmp_path, number=0, num_processes=1, rng=random.Random(0))
    for step in (3, 6):
        (case.workdir / "checkpoints" / str(step)).mkdir(parents=True)
        (case.workdir / "checkpoints" / str(step) / "array").write_bytes(b"12345678")
    for _ in range(20):
        soak.damage(case)
    assert case.intact_steps() == [3]
    assert (case.workdir / "checkpoints" / "3" / "array").read_bytes() == b"12345678"


def test_the_table_counts_events_and_faults():
    events = [
        Event(0, 1, "kill", "save", [], 30.0),
        Event(0, 1, "kill", "row", ["wrong"], 30.0),
        Event(0, 1, "end", "", [], 0.0),
    ]
    assert soak.table(events).splitlines()[1:] == [
        "end                 1      0",
        "kill                2      1",
        "1 minutes, 1 runs, 1 events with a fault",
    ]
