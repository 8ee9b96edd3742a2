"""Disturb real trainings in every way that we know, for an hour, and compare each with the run that nobody touched.

    python -m benchmarks.soak --minutes 60 --seed 0
    python -m benchmarks.soak --events kill
    python -m benchmarks.soak --memory

Small runs on the digits, with mixing, a momentum encoder, a queue with labels and a teacher, of one process and of two. Each is
disturbed a few times and then left alone until it ends: its rows, its results and the bits of its last state must be those of the
untouched run of as many processes. Every event is a line of FOLDER/events.jsonl; the same command goes on from there, with the
copy of the program in FOLDER. What a process said at a fault stays in FOLDER/faults. --memory: the resident memory of a run of
10,000 steps, instead.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from gensupcon_jax.cluster import cpu_flags
from gensupcon_jax.store.checkpoint import saved_steps
from tests import QUICK_COMPILES, ROOT
from tests.killing import INSTANTS, outcome, unfinished_saves, wait_until
from tests.running import free_port

# The rate differs in every step: a run that resumes at a wrong one ends differently.
FIELDS = {
    "steps": 60,
    "log_steps": 1,
    "batch_size": 32,
    "model.width": 4,
    "model.embedding_dim": 8,
    "mix.block": 8,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 4,
    "evaluate.probe_penalties": "(0.1,)",
    "evaluate.every_steps": 30,
    "checkpoint.every_steps": 3,
}
OF_TEACHER = {
    "steps": 12,
    "objective": "cross_entropy",
    "augment.num_views": 1,
    "evaluate.every_epochs": 0,
    "evaluate.every_steps": None,
}
OF_STUDENT = {"loss.mode": "momentum", "momentum_encoder.queue_size": 64, "teacher.allow_poor": True}
OF_MEMORY = {
    "steps": 10_000,
    "log_steps": 100,
    "batch_size": 8,
    "evaluate.every_steps": 10_000,
    "checkpoint.every_steps": 500,
}
LIMIT_SECONDS = 180.0  # for what ends by itself or after a signal; two busy cores take a tenth of it
_FAULTS = ("Traceback (most recent call last)", "Fatal Python error", "Segmentation fault", "core dumped")
_STOPPED_EARLY = {130, 143, -signal.SIGINT, -signal.SIGTERM}  # before a process has said anything
_LOST = 75
_PROGRAM = "program"  # the copy that runs

# The clock of a process jumps after some seconds: sys.argv is SHIFT SECONDS ARGUMENT...
_OTHER_CLOCK = """
import runpy, sys, time
shift, end = float(sys.argv.pop(1)), time.monotonic() + float(sys.argv.pop(1))
def shifted(real, unit):
    return lambda: real() + (type(unit)(shift * unit) if time.monotonic() >= end else 0)
time.time, time.time_ns = shifted(time.time, 1.0), shifted(time.time_ns, 10**9)
runpy.run_module("gensupcon_jax", run_name="__main__", alter_sys=True)
"""


class Process(NamedTuple):
    """One process of a start, and the file of what it says."""

    popen: subprocess.Popen
    path: Path


class Ended(NamedTuple):
    """How a process ended: its status (None: it had to be killed after the limit), and what it said."""

    status: int | None
    said: str


class Event(NamedTuple):
    """A line of events.jsonl."""

    run: int
    num_processes: int
    kind: str
    ended: str
    faults: list[str]
    seconds: float


class Case:
    """One run that is disturbed: its workdir, number of processes, and random numbers."""

    def __init__(self, folder: Path, *, disk: Path, number: int, num_processes: int, rng: random.Random):
        self.workdir, self.said = disk / f"run{number}", folder / "said"
        self.disk, self.teacher = disk, folder / "teacher"
        self.number, self.num_processes, self.rng = number, num_processes, rng
        self.seconds = 30.0  # of a whole run; measured by the reference
        self.damaged: set[tuple[str, int]] = set()

    def start(self, clock: tuple[float, float] | None = None) -> list[Process]:
        """The processes of one start; clock: (shift, after so many) seconds."""
        self.said.mkdir(exist_ok=True)
        fields = FIELDS | OF_STUDENT | {"teacher.path": self.teacher}
        several = [f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2", "--join_timeout=40"]
        return [
            launched(
                self.workdir,
                fields,
                self.said / f"{time.time_ns()}_{index}.txt",
                flags=[*several, f"--process_id={index}"] if self.num_processes > 1 else [],
                clock=clock,
            )
            for index in range(self.num_processes)
        ]

    def wait(self, processes: list[Process]) -> str:
        """Wait until a random instant, at most until a process has ended; returns which kind of instant it was."""
        how = self.rng.choice(("start", *INSTANTS))
        is_over = any_ended(processes)
        before = unfinished_saves(self.workdir)
        seconds = 0.4 * self.seconds if how == "start" else self.seconds
        wait_until("anywhere" if how == "start" else how, self.workdir, self.rng, seconds, before, is_over=is_over)
        return how

    def is_finished(self) -> bool:
        """Whether the run has ended by itself."""
        return (self.workdir / "results.json").exists() and (self.workdir / "report.html").exists()

    def intact_steps(self) -> list[int]:
        """The steps of the checkpoints that no event has damaged."""
        folder = self.workdir / "checkpoints"
        return [step for step in saved_steps(folder) if _identity(folder / str(step)) not in self.damaged]


def copy_program(folder: Path) -> None:
    """Copy the program, so that all runs are of the same one, whatever is edited or checked out meanwhile."""
    for name in () if (folder / _PROGRAM).exists() else ("gensupcon_jax", "configs"):
        shutil.copytree(ROOT / name, folder / _PROGRAM / name, ignore=shutil.ignore_patterns("__pycache__"))


def launched(
    workdir: Path, fields: dict, said: Path, *, flags: Sequence[str] = (), clock: tuple[float, float] | None = None
) -> Process:
    """A process that trains, as a user starts it."""
    xla_flags = f"{cpu_flags.flags_of(jax.__version_info__)} --xla_force_host_platform_device_count=1 {QUICK_COMPILES}"
    environment = os.environ | {"XLA_FLAGS": xla_flags, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # compiled programs lie in the workdir, as a user's
    program = ["-m", "gensupcon_jax"] if clock is None else ["-c", _OTHER_CLOCK, *map(str, clock)]
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, *program, "train", "digits", "--workdir", str(workdir), *words, *flags]
    with said.open("w") as file:
        popen = subprocess.Popen(
            command,
            cwd=said.parents[1] / _PROGRAM,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(popen, said)


def any_ended(processes: list[Process]) -> Callable[[], bool]:
    """A function that says whether one of them has ended."""
    return lambda: any(process.popen.poll() is not None for process in processes)


def ended(processes: list[Process], limit: float = LIMIT_SECONDS) -> list[Ended]:
    """How they ended, all waited for; one that takes longer than the limit prints its stacks and is killed."""
    end = time.monotonic() + limit
    statuses = []
    for process in processes:
        try:
            statuses.append(process.popen.wait(max(0.1, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            statuses.append(None)
    hanging = [process for process in processes if process.popen.poll() is None]
    for process in hanging:
        process.popen.send_signal(signal.SIGABRT)  # faulthandler's stacks of all threads
    for process in hanging:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.popen.wait(10)
        process.popen.kill()
        process.popen.wait()
    return [
        Ended(status, process.path.read_text(errors="replace"))
        for status, process in zip(statuses, processes, strict=True)
    ]


def faults_of(outcomes: list[Ended], is_allowed: Callable[[Ended], bool]) -> list[str]:
    """What is wrong with how processes ended, in words; empty if nothing."""
    found = []
    for index, each in enumerate(outcomes):
        if each.status is None:
            found.append(f"process {index} had not ended after {LIMIT_SECONDS:.0f} s")
            continue
        found += [f"process {index} said {words!r}" for words in _FAULTS if words in each.said]
        if not is_allowed(each):
            found.append(f"process {index} ended with status {each.status}: {_last_line(each.said)!r}")
    return found


def _last_line(said: str) -> str:
    lines = [line for line in said.split("\n") if line.strip()]
    return lines[-1][-300:] if lines else ""


def _has_one_error(each: Ended) -> bool:
    """Whether it ended with status 1 and one line that says why."""
    return each.status == 1 and sum(line.startswith("error: ") for line in each.said.splitlines()) == 1


def _lost_another(each: Ended) -> bool:
    """Whether it ended, or says that another process is missing."""
    return each.status in (0, _LOST) or _has_one_error(each)


def _killed_or_lost(each: Ended) -> bool:
    return each.status == -signal.SIGKILL or _lost_another(each)


def kill(case: Case) -> tuple[str, list[str]]:
    """kill -9 of one process; another one of the same run must notice."""
    processes = case.start()
    how = case.wait(processes)
    case.rng.choice(processes).popen.kill()
    outcomes = ended(processes)
    return how, faults_of(outcomes, _killed_or_lost)


def stop(case: Case) -> tuple[str, list[str]]:
    """SIGINT or SIGTERM to one process, in one of four cases twice."""
    number, twice = case.rng.choice((signal.SIGINT, signal.SIGTERM)), case.rng.random() < 0.25
    processes = case.start()
    how = case.wait(processes)
    receiver = case.rng.choice(processes)
    receiver.popen.send_signal(number)
    if twice:
        time.sleep(case.rng.uniform(0, 1))
        if receiver.popen.poll() is None:
            receiver.popen.send_signal(number)

    def is_allowed(each: Ended) -> bool:
        if case.num_processes > 1 and _lost_another(each):
            return True
        silent = not each.said.strip()
        return each.status == 0 or (each.status in _STOPPED_EARLY and (silent or twice)) or (each.status == 1 and twice)

    return f"{number.name}{' twice' if twice else ''}, {how}", faults_of(ended(processes), is_allowed)


def damage(case: Case) -> tuple[str, list[str]]:
    """A flipped bit, a truncated, emptied or removed file in the newest checkpoint; or a torn row of metrics."""
    steps = case.intact_steps()
    metrics = case.workdir / "metrics.jsonl"
    if len(steps) < 2 or case.rng.random() < 0.2:
        if not metrics.exists():
            return "nothing there yet", []
        with metrics.open("a") as file:
            file.write('{"step": 59, "train/lo')
        return "a torn row", []
    newest = case.workdir / "checkpoints" / str(steps[-1])
    path = case.rng.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
    how = case.rng.choice(("flipped bit", "truncated", "emptied", "removed"))
    content = bytearray(path.read_bytes())
    case.damaged.add(_identity(newest))
    if how == "removed":
        path.unlink()
    else:
        position = case.rng.randrange(len(content)) if content else 0
        if how == "flipped bit" and content:
            content[position] ^= 1 << case.rng.randrange(8)
        path.write_bytes(content if how == "flipped bit" else content[:position] if how == "truncated" else b"")
    return f"{how}: {path.relative_to(case.workdir / 'checkpoints')}", []


def _identity(path: Path) -> tuple[str, int]:
    """A step may be saved again after its damaged checkpoint was moved away."""
    return path.name, path.stat().st_ino


def full_disk(case: Case) -> tuple[str, list[str]]:
    """The disk has little space left; it has much again when the run has ended."""
    free = case.rng.randrange(0, 1_500_000)
    used = int(subprocess.check_output(["df", "--output=used", "-B1", case.disk], text=True).split()[-1])
    _resize(case.disk, used + free)
    try:
        outcomes = ended(case.start())
    finally:
        _resize(case.disk, _DISK_BYTES)
    return f"{free // 1000} kB free", faults_of(outcomes, _lost_another)


def second_start(case: Case) -> tuple[str, list[str]]:
    """The same command while the run trains: it is refused, and the run goes on; in one of two cases until a kill."""
    first = case.start()
    how = case.wait(first)
    if any_ended(first)():
        return f"ended before the second start, {how}", faults_of(ended(first), _lost_another)
    refused = ended(case.start())
    is_killed = case.rng.random() < 0.5
    if is_killed:
        case.wait(first)
        case.rng.choice(first).popen.kill()
    others = ended(first)
    faults = faults_of(refused, _lost_another) + faults_of(others, _killed_or_lost)
    # Where the first had not begun yet, or had ended, the second may train.
    trained = [all(each.status == 0 for each in outcomes) for outcomes in (others, refused)]
    if not is_killed and not any(trained):
        faults.append("neither of two starts trained to the end")
    return f"{how}, {'not refused' if trained[1] else 'refused'}{', killed' if is_killed else ''}", faults


def other_clock(case: Case) -> tuple[str, list[str]]:
    """The clock jumps by up to ten years, backward or forward, while the run starts or trains; then a kill."""
    shift = case.rng.choice((-1, 1)) * 10 ** case.rng.uniform(1, 8.5)
    processes = case.start(clock=(shift, case.rng.uniform(0, case.seconds)))
    how = case.wait(processes)
    if case.rng.random() < 0.5:
        case.rng.choice(processes).popen.kill()
    outcomes = ended(processes)
    return f"{shift:+.0f} s, {how}", faults_of(outcomes, _killed_or_lost)


EVENTS = {
    "kill": kill,
    "stop": stop,
    "damage": damage,
    "full_disk": full_disk,
    "second_start": second_start,
    "other_clock": other_clock,
}
_DISK_BYTES = 2 << 30


def disturbed(case: Case, kinds: list[str], expected: dict, is_time_up: Callable[[], bool]) -> Iterator[tuple]:
    """Disturb one run and then let it end; yields (kind, how it ended, faults) of each event, the last is "end"."""
    for _ in range(case.rng.randint(2, 7)):
        if case.is_finished() or is_time_up():
            break
        possible = kinds if case.intact_steps() else [kind for kind in kinds if kind != "damage"]
        kind = case.rng.choice(possible or kinds)
        yield kind, *EVENTS[kind](case)
    outcomes = ended(case.start())
    faults = faults_of(outcomes, lambda each: each.status == 0)
    if not faults:
        found = outcome(case.workdir)
        faults = [f"its {name} differ from the untouched run's" for name in expected if found[name] != expected[name]]
    yield "end", "as the untouched run" if not faults else "wrong", faults


def soak(options: argparse.Namespace) -> list[Event]:
    """All events, of earlier calls too; prints each."""
    folder = Path(options.folder).absolute()
    copy_program(folder)
    path = folder / "events.jsonl"
    events = [Event(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    references = {number: reference(folder, number) for number in options.processes}
    disk = folder / "disk"
    has_disk = os.geteuid() == 0
    if has_disk:
        disk.mkdir(exist_ok=True)
        if not os.path.ismount(disk):
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", disk], check=True)
    else:
        print("full_disk is left out: only root may mount a small disk", flush=True)
        disk.mkdir(exist_ok=True)
    kinds = [kind for kind in options.events if has_disk or kind != "full_disk"]
    began, earlier = time.monotonic(), sum(event.seconds for event in events)

    def is_time_up() -> bool:
        return earlier + time.monotonic() - began >= 60 * options.minutes

    number = max((event.run for event in events), default=-1)
    try:
        while not is_time_up():
            number += 1
            for event in _run(options, folder, disk, number, kinds, references, is_time_up):
                events.append(event)
                with path.open("a") as file:
                    file.write(json.dumps(event._asdict()) + "\n")
                said = "".join(f"\n    FAULT: {fault}" for fault in event.faults)
                print(f"{(earlier + time.monotonic() - began) / 60:6.1f} min  run {number:3}, {event.num_processes} "
                      f"process{'es' * (event.num_processes > 1):2}  {event.kind:12} {event.seconds:5.0f} s  {event.ended}{said}",
                      flush=True)  # fmt: skip
    finally:
        if has_disk:
            subprocess.run(["umount", "--lazy", disk], check=True)
    return events


def _run(options, folder, disk, number, kinds, references, is_time_up) -> Iterator[Event]:
    rng = random.Random(f"{options.seed} {number}")
    num_processes = rng.choice(options.processes)
    case = Case(folder, disk=disk, number=number, num_processes=num_processes, rng=rng)
    expected, case.seconds, compiled = references[num_processes]
    shutil.rmtree(case.workdir, ignore_errors=True)
    if rng.random() < 0.8:  # the others compile, and may be killed there
        shutil.copytree(compiled, case.workdir / "compiled")
    since = time.monotonic()
    for kind, how, faults in disturbed(case, kinds, expected, is_time_up):
        yield Event(number, num_processes, kind, how, faults, round(time.monotonic() - since, 1))
        kept = folder / "faults" / f"run{number}"
        for said in sorted(case.said.glob("*")) if faults else ():
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(said, kept / said.name)
        since = time.monotonic()
        if faults and kind == "end":
            shutil.copytree(case.workdir, kept / "workdir", dirs_exist_ok=True)
    shutil.rmtree(case.said, ignore_errors=True)
    shutil.rmtree(case.workdir, ignore_errors=True)


def reference(folder: Path, num_processes: int) -> tuple[dict, float, Path]:
    """(outcome, seconds, folder of compiled programs) of the run that nobody touches."""
    said = folder / "reference_said"
    said.mkdir(exist_ok=True)
    _finish([launched(folder / "teacher", FIELDS | OF_TEACHER, said / "teacher.txt")])
    case = Case(folder, disk=folder, number=0, num_processes=num_processes, rng=random.Random(0))
    case.workdir, case.said = folder / f"untouched_{num_processes}", said
    _finish(case.start())
    again = folder / f"timed_{num_processes}"
    shutil.rmtree(again, ignore_errors=True)
    shutil.copytree(case.workdir / "compiled", again / "compiled")
    compiled, expected = case.workdir / "compiled", outcome(case.workdir)
    case.workdir, since = again, time.monotonic()
    _finish(case.start())
    seconds = time.monotonic() - since
    if outcome(again) != expected:
        raise SystemExit("two untouched runs differ: nothing can be compared")
    print(f"the untouched run, {num_processes} process{'es' * (num_processes > 1)}: {seconds:.0f} s", flush=True)
    return expected, seconds, compiled


def _finish(processes: list[Process]) -> None:
    outcomes = ended(processes, limit=600)
    if any(each.status != 0 for each in outcomes):
        raise SystemExit("\n".join(each.said for each in outcomes))


def _resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def table(events: list[Event]) -> str:
    """How often each kind of event occurred, and how often with a fault."""
    kinds = collections.Counter(event.kind for event in events)
    faulty = collections.Counter(event.kind for event in events if event.faults)
    lines = [f"{'event':14} {'times':>6} {'faults':>6}"]
    lines += [f"{kind:14} {count:6} {faulty[kind]:6}" for kind, count in sorted(kinds.items())]
    minutes = sum(event.seconds for event in events) / 60
    return "\n".join(
        [*lines, f"{minutes:.0f} minutes, {kinds['end']} runs, {sum(faulty.values())} events with a fault"]
    )


def memory(folder: Path) -> bool:
    """Print the resident memory after 1,000 and after 10,000 steps; whether the latter is at most 2 % more."""
    copy_program(folder)
    said = folder / "memory_said" / "said.txt"
    said.parent.mkdir(exist_ok=True)
    shutil.rmtree(folder / "memory", ignore_errors=True)
    since = time.monotonic()
    (end,) = ended([launched(folder / "memory", FIELDS | OF_MEMORY, said)], limit=3600)
    if end.status != 0:
        raise SystemExit(end.said)
    rows = [json.loads(line) for line in (folder / "memory" / "metrics.jsonl").read_text().splitlines()]
    used = {row["step"]: row["train/process_memory"] / 2**20 for row in rows if "train/process_memory" in row}
    growth = used[10_000] / used[1_000] - 1
    print(f"{used[1_000]:.1f} MiB after 1,000 steps, {used[10_000]:.1f} MiB after 10,000 ({growth:+.2%}), "
          f"{time.monotonic() - since:.0f} s in total")  # fmt: skip
    return growth <= 0.02


def main(arguments: list[str] | None = None) -> None:
    """Print the events and a table of them; status 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of all calls together (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of kinds and instants (default: %(default)s)")
    parser.add_argument(
        "--events", nargs="+", choices=EVENTS, default=list(EVENTS), help="kinds of events (default: all)"
    )
    parser.add_argument(
        "--processes", nargs="+", type=int, choices=(1, 2), default=[1, 2], help="of a run (default: 1 2)"
    )
    parser.add_argument("--folder", default="runs/soak", help="of all files (default: %(default)s)")
    parser.add_argument("--memory", action="store_true", help="measure the memory of one long run instead")
    options = parser.parse_args(arguments)
    if options.memory:
        raise SystemExit(not memory(Path(options.folder).absolute()))
    events = soak(options)
    print(table(events))
    raise SystemExit(any(event.faults for event in events))


if __name__ == "__main__":
    main()
