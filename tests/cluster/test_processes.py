"""Several processes as one run: the same trajectory, one writer; missing and lost processes are reported by the others."""

import concurrent.futures
import contextlib
import io
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from gensupcon_jax import command_line, signals
from gensupcon_jax.cluster import processes
from gensupcon_jax.errors import StoppedBetween, UserError
from gensupcon_jax.run import diverged
from gensupcon_jax.store import checkpoint
from tests import QUICK_COMPILES
from tests.cluster import lost
from tests.forking import Forked
from tests.killing import outcome
from tests.running import (
    ended,
    fields,
    flip_a_bit,
    free_port,
    results_of,
    rows_of,
    start,
    start_as_slurm_tasks,
    start_several,
    told,
    wait_for,
    wait_for_rows,
)

# Real training: long enough for a signal (jax needs a second to agree on a step) to come before the end.
LONG = {"steps": 30, "evaluate.every_steps": 15, "checkpoint.every_steps": 5}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of an uninterrupted run of two processes, and their outputs."""
    folder = tmp_path_factory.mktemp("two") / "run"
    outcomes = ended(start_several(folder, LONG, num=2, devices=2))
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    return folder, outcomes


@pytest.mark.slow
def test_two_processes_give_the_run_of_one_process_with_the_same_devices(uninterrupted, tmp_path):
    folder, (first, second) = uninterrupted
    (alone,) = ended([start(tmp_path / "one", LONG, devices=4)])
    assert alone[0] == 0, alone[2]
    one, two = rows_of(tmp_path / "one"), rows_of(folder)
    assert [row["step"] for row in two] == list(range(1, 31))
    for row, other in zip(one[:12], two[:12], strict=True):
        assert other["train/loss"] == pytest.approx(row["train/loss"], rel=1e-5)
    assert two[0]["train/gradient_norm"] == pytest.approx(one[0]["train/gradient_norm"], rel=1e-4)
    expected, found = results_of(tmp_path / "one"), results_of(folder)
    assert found.keys() == expected.keys()
    assert found["num_devices"] == 4
    assert (folder / "report.html").exists()

    assert "step 30/30" in first[2]
    assert "linear probe on frozen features" in first[1]
    printed = [
        line for line in second[2].splitlines() if "Waiting for previous save" not in line
    ]  # orbax, when it is slow
    assert printed == []  # only process 0 prints
    assert "linear probe" not in second[1]


# A rate that ruins the network: the first evaluation is the best.
RUINED = {"steps": 8, "evaluate.every_steps": 2, "checkpoint.every_steps": 100, "optimizer.learning_rate": 30.0}


@pytest.mark.slow
def test_two_processes_evaluate_the_best_step_like_one(tmp_path):
    (alone,) = ended([start(tmp_path / "one", RUINED, devices=4)])
    assert alone[0] == 0, alone[2]
    outcomes = ended(start_several(tmp_path / "two", RUINED, num=2, devices=2))
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    expected, found = results_of(tmp_path / "one"), results_of(tmp_path / "two")
    assert expected["best"]["step"] == found["best"]["step"] == found["best_step"] == 2
    for name in ("knn_top1", "linear_top1"):
        assert found["best"][name] == pytest.approx(expected["best"][name], abs=2.0)  # of 540 images, by rounding
        assert found["best"][name] - found[name] > 5
    assert "step 2 (best by validation)" in outcomes[0][1]


@pytest.mark.slow
def test_two_processes_that_are_stopped_and_killed_resume_to_the_same_result(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    both = start_several(folder, LONG, num=2, devices=2)
    wait_for_rows(folder, 3)
    both[1].send_signal(signal.SIGTERM)  # to one of them
    outcomes = ended(both)
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    steps = [re.search(r"^SIGTERM: saved step (\d+) of 30", said, re.MULTILINE)[1] for _, _, said in outcomes]
    assert steps[0] == steps[1]
    assert checkpoint.saved_steps(folder / "checkpoints")[-1] == int(steps[0]) < 30

    both = start_several(folder, LONG, num=2, devices=2)
    wait_for(lambda: len(checkpoint.saved_steps(folder / "checkpoints")) > 1)  # the newest is damaged below
    wait_for_rows(folder, len(rows_of(folder)) + 2)  # not in the save itself
    both[1].kill()
    began = time.monotonic()
    (status, _, said), _ = ended(both)
    assert time.monotonic() - began < 60
    assert status == 75, said
    assert "process 0 stops because process 1 (127.0.0.1) has stopped: it was killed" in said

    *_, before, newest = checkpoint.saved_steps(folder / "checkpoints")
    flip_a_bit(folder / "checkpoints" / str(newest))
    outcomes = ended(start_as_slurm_tasks(folder, LONG, num=2, devices=2))
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    assert f"the checkpoint of step {newest} in {folder / 'checkpoints'} is damaged" in outcomes[0][2]
    assert f"resumes at step {before} of 30" in outcomes[0][2]
    assert outcome(folder) == outcome(uninterrupted[0])  # rows, results and the last state, bit for bit


def test_an_unreachable_coordinator_is_named_with_the_process(tmp_path):
    port = free_port()
    flags = [f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2", "--process_id=1", "--join_timeout=2"]
    began = time.monotonic()
    ((status, _, said),) = ended([start(tmp_path / "run", flags=flags)])
    assert time.monotonic() - began < 60
    assert status == 1
    assert said == (
        f"error: process 1 cannot reach process 0 at --coordinator_address 127.0.0.1:{port} within 2 seconds "
        "(Connection refused); is process 0 running there, and is the port open?\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_missing_processes_are_named(tmp_path):
    flags = [f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=3", "--join_timeout=8"]
    first, second = ended([start(tmp_path / "run", flags=[*flags, f"--process_id={number}"]) for number in (0, 1)])
    missing = (
        "no connection from processes 2 within 8 seconds; "
        "start them with the same --coordinator_address and --num_processes"
    )
    assert (first[0], second[0]) == (1, 1)
    assert re.fullmatch(rf"error: process 0 at 127.0.0.1:\d+: {missing}\n", first[2])
    assert re.fullmatch(rf"error: process 1 was rejected by process 0 at 127.0.0.1:\d+: {missing}\n", second[2])


def test_a_long_wait_warns_about_missing_processes(monkeypatch, capsys):
    monkeypatch.setattr(processes, "_NOTICE_SECONDS", 0.5)
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=r"process 1 cannot reach process 0 .* within 2 seconds"):
        processes.join(processes.Member(address, 2, 1), timeout=1.5)
    assert capsys.readouterr().err == (
        f"warning: process 1 cannot reach process 0 at --coordinator_address {address} within 0 seconds (Connection refused); "
        "is process 0 running there, and is the port open?; retrying for up to 2 seconds (--join_timeout)\n"
    )
    with pytest.raises(UserError, match="no connection from processes 1 within 2 seconds"):
        processes.join(processes.Member(address, 2, 0), timeout=1.5)
    assert capsys.readouterr().err.startswith(f"warning: process 0 at {address}: no connection from processes 1")


@pytest.mark.parametrize("is_noticed_late", [False, True])
def test_a_process_that_died_while_joining_may_rejoin(monkeypatch, is_noticed_late):
    """Late: its end is seen only when the next connection is there, as on a busy machine."""
    asked, has_ended = [], processes._Connection.has_ended

    def late(connection):
        asked.append(connection)
        return not (is_noticed_late and len(asked) == 1) and has_ended(connection)

    monkeypatch.setattr(processes._Connection, "has_ended", late)
    address = f"127.0.0.1:{free_port()}"
    host, port = address.split(":")

    def knock(number):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionRefusedError):
                connected = socket.create_connection((host, int(port)))
                connected.sendall(b'{"process_id": %d, "num_processes": 3}\n' % number)
                return connected
        raise TimeoutError("process 0 does not listen")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        member, end = processes.Member(address, 3, 0), time.monotonic() + 20
        met = {}
        first = pool.submit(processes._meet_as_first, met, member, host, int(port), end, 20.0)
        knock(1).close()  # it dies
        time.sleep(0.2)
        others = [knock(1), knock(2)]
        first.result(timeout=20)
        assert sorted(met) == [1, 2]
        assert [b"welcome" in other.recv(100) for other in others] == [True, True]
        for other in others:
            other.close()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "--coordinator_address, --process_id is missing, with --num_processes given; several processes "
                                "need all three"),
        (["--coordinator_address=here", "--num_processes=2", "--process_id=0"],
         "--coordinator_address is 'here'; allowed: host:port of process 0, for example 10.0.0.1:1234"),
        (["--coordinator_address=127.0.0.1:9", "--num_processes=2", "--process_id=2"],
         "--process_id is 2; allowed: 0 to 1, each process its own (--num_processes is 2)"),
        (["--distributed", "--num_processes=2"], "--distributed takes everything from the cluster; leave out either it or "
                                                 "--num_processes"),
        (["--distributed"], "--distributed: no cluster was found (TPU pod, SLURM, GKE, Open MPI); set "
                            "--coordinator_address, --num_processes and --process_id instead"),
    ],
)  # fmt: skip
def test_inconsistent_flags_are_an_error_of_one_line(tmp_path, capfd, flags, message):
    assert told(capfd, "train", "digits", "--workdir", tmp_path / "run", *flags) == (1, "", f"error: {message}\n")


# One process is lost: the others report it within a minute. Small programs that join as a run does.


def run_children(how, victim, num=3):
    """[(status, stdout, stderr)] of the members of a run that ended."""
    address = f"127.0.0.1:{free_port()}"
    children = [
        Forked(lost.member, address, num, own, how, victim, environment={"XLA_FLAGS": ""}) for own in range(num)
    ]
    wait_for(lambda: all(child.written()[0].endswith(lost.JOINED) for child in children))
    began = time.monotonic()
    if how == "freeze":
        wait_for(lambda: all(child.returncode is not None for child in children if child is not children[victim]))
        assert children[victim].returncode is None
        children[victim].send_signal(signal.SIGCONT)
    outcomes = ended(children, timeout=60)
    assert time.monotonic() - began < 60
    return outcomes


@pytest.mark.slow
def test_processes_that_all_finish_exit_with_0():
    assert [status for status, _, _ in run_children("nothing", victim=0)] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason", "status", "victim"),
    [
        ("kill", "it was killed, or its machine was lost", 75, 0),
        ("kill", "it was killed, or its machine was lost", 75, 1),
        ("kill, heard of late", "it was killed, or its machine was lost", 75, 0),
        ("freeze", "it sent no heartbeat for 6 seconds", 75, 0),
        ("freeze", "it sent no heartbeat for 6 seconds", 75, 1),
        ("raise", "it raised OSError: the disk of this machine is gone", 75, 1),
        ("mistake", "seed is -1", 1, 0),
        ("early", "it exited before the others had finished", 75, 0),
    ],
)
def test_the_others_stop_and_name_the_lost_process(how, reason, status, victim):
    outcomes = run_children(how, victim)
    where = r"127\.0\.0\.1:\d+" if victim == 0 else r"127\.0\.0\.1"
    remedy = "; start all processes again; they resume from the newest checkpoint" if status == 75 else ""
    for own, (found, _, said) in enumerate(outcomes):
        if own != victim:
            assert found == status, said
            expected = rf"error: process {own} stops because process {victim} \({where}\) has stopped: {reason}{remedy}"
            assert re.fullmatch(f"{expected}\n", said), said  # alone: jax says nothing of its own
    if how == "raise":
        assert outcomes[victim][0] == 75
        assert "in read_the_next_batch" in outcomes[victim][2]  # its own traceback
    if how == "freeze":  # in a collective; it ends too as soon as it goes on
        assert outcomes[victim][0] == 75, outcomes[victim]
        taken = (
            f"process {victim} stops because the others took it for lost: it sent no heartbeat for 6 seconds; start all"
        )
        assert taken in outcomes[victim][2]


@pytest.mark.slow
def test_a_process_that_is_killed_inside_a_save_is_named_by_the_other_one(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    children = [
        Forked(lost.save, address, own, str(tmp_path / "checkpoints"), environment={"XLA_FLAGS": ""}) for own in (0, 1)
    ]
    (status, _, said), (killed, _, _) = ended(children, timeout=60)
    assert (status, killed) == (75, -signal.SIGKILL), said
    assert re.fullmatch(
        r"error: process 0 stops because process 1 \(127.0.0.1\) has stopped: it was killed, .*\n", said
    )


def test_a_process_that_another_one_ends_says_nothing_more_of_its_own():
    address = f"127.0.0.1:{free_port()}"
    both = [Forked(lost.leave_together, address, own, environment={"XLA_FLAGS": ""}) for own in (0, 1)]
    first, second = ended(both, timeout=60)
    assert (first[0], second[0], second[2]) == (0, 0, "process 1 leaves\n"), (first, second)
    assert first[2] == "process 0 stops because process 1 (127.0.0.1) has stopped: it was asked to stop\n"


@pytest.mark.parametrize("victim", [0, 1])
def test_a_disk_without_space_for_one_process_ends_both_at_once(tmp_path, victim):
    """orbax alone has each of them wait for the other one, for 20 minutes."""
    outcomes = of_two(lost.save_on_a_full_disk, str(tmp_path / "checkpoints"), victim)
    assert [status for status, _, _ in outcomes] == [1, 1], outcomes
    cannot = r"(the checkpoint of step 2, or the previous one,|a checkpoint) cannot be written to .* of step 1; .*\n"
    assert re.fullmatch(f"error: {cannot}", outcomes[victim][2]), outcomes
    told = rf"error: process {1 - victim} stops because process {victim} \(.*\) has stopped: {cannot}"
    assert re.fullmatch(told, outcomes[1 - victim][2]), outcomes


def of_two(function, *arguments):
    """[(status, stdout, stderr)] of two processes of one run."""
    address = f"127.0.0.1:{free_port()}"
    both = [Forked(function, address, own, *arguments, environment={"XLA_FLAGS": ""}) for own in (0, 1)]
    return ended(both, timeout=50)


def test_when_all_have_finished_none_waits_for_one_that_a_signal_ends():
    """jax does at its exit, and aborts after a minute."""
    first, second = of_two(lost.end_in_two_ways)
    assert (first[0], first[2], second[0], second[2]) == (0, "nothing is lost\n", 0, "")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_in_the_instant_in_which_all_are_there_is_told_to_the_others(victim):
    outcomes = of_two(lost.stop_as_it_has_joined, victim)
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    assert outcomes[victim][2] == "SIGTERM: nothing is lost\n"
    where = r"127\.0\.0\.1:\d+" if victim == 0 else r"127\.0\.0\.1"
    told = rf"process {1 - victim} stops because process {victim} \({where}\) has stopped: it was asked to stop\n"
    assert re.fullmatch(told, outcomes[1 - victim][2]), outcomes


def test_a_signal_after_a_crash_does_not_hide_it():
    first, second = of_two(lost.crash_and_be_stopped)
    assert (first[0], second[0]) == (75, 75), (first, second)
    assert first[2].splitlines()[-1] == "ValueError: the cause"
    assert "has stopped: it raised ValueError: the cause;" in second[2]


def test_a_stop_while_jax_connects_leaves_no_file(monkeypatch):
    sockets = []

    def stopped(address, *_, **settings):
        sockets.append(Path(address.removeprefix("unix:")))
        assert sockets[0].exists()
        raise StoppedBetween

    monkeypatch.setattr(jax.distributed, "initialize", stopped)
    monkeypatch.setattr(signals, "_process", process := signals.Process())
    with pytest.raises(StoppedBetween):
        processes._start_jax(processes.Member("127.0.0.1:9", 2, 1), "127.0.0.1", 9)
    assert (sockets[0].parent.exists(), process.cleanups) == (False, [])


def test_what_standard_output_cannot_take_is_an_error(monkeypatch, capsys):
    group = object.__new__(processes.Group)
    group._is_ending = False
    monkeypatch.setattr(processes, "_group", group)
    monkeypatch.setattr(processes, "_exit", sys.exit)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        print("the summary")
        with pytest.raises(SystemExit) as end:
            processes.exit_finished()
        with contextlib.suppress(OSError):
            full.close()
    assert (end.value.code, capsys.readouterr().err) == (1, "error: standard output: No space left on device\n")


def test_the_last_word_begins_a_line(capsys):
    """A signal came between a line of the run and its end."""
    with command_line.unread_output_dropped():
        for said in ("this run has 12 steps", "\n", "step 1/12\r", ""):
            print(said, file=sys.stderr, end="")
            processes._say("SIGINT: nothing is lost")
    assert (
        capsys.readouterr().err.replace("SIGINT: nothing is lost\n", "|") == "this run has 12 steps\n|\n|step 1/12\r||"
    )


def test_what_nobody_reads_hinders_no_end(monkeypatch):
    """The others are told after it."""
    tried = []

    class Closed(io.StringIO):
        def write(self, text):
            tried.append(text)
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    processes._say("process 0 stops")
    assert tried == ["process 0 stops\n"]


@pytest.mark.slow
def test_a_hanging_process_is_ended_by_the_watchdog_with_the_stacks_of_all():
    first, second = run_children("hang", victim=1, num=2)
    assert (first[0], second[0]) == (75, 75)
    assert "in read_the_next_batch" in second[2]  # where it hangs
    assert "in gather" in first[2]  # where the other process waits
    assert "step 7 has taken more than 5 seconds" in first[2] + second[2]


# Other work than steps. Its limits are those of the flags.


@pytest.mark.slow
def test_a_hanging_evaluation_is_ended_with_the_stacks_of_all(tmp_path):
    """Process 1 hangs in the evaluation during training; process 0 waits for it."""
    address = f"--coordinator_address=127.0.0.1:{free_port()}"
    changes = {"steps": 4, "evaluate.every_steps": 2}
    arguments = ["--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", *fields(changes), address]
    arguments += ["--num_processes=2", "--watchdog_evaluation_seconds=8"]
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {QUICK_COMPILES}"}
    both = [
        Forked(lost.train_and_hang, [*arguments, f"--process_id={own}"], where, environment=flags)
        for own, where in enumerate(("gensupcon_jax.run.loop:not_there", "gensupcon_jax.run.loop:validate"))
    ]
    first, second = ended(both)
    assert (first[0], second[0]) == (75, 75), (first, second)
    assert "the evaluation after step 2 has taken more than 8 seconds" in first[2] + second[2]
    assert "in hang_for_ever" in second[2]  # where it hangs
    assert "in evaluate" in first[2]  # where the other waits
    assert "resumes from the newest checkpoint" in first[2] + second[2]


@pytest.mark.slow
def test_two_processes_agree_on_a_checkpoint_that_only_one_of_them_finds_damaged(tmp_path):
    folders = [tmp_path / "seen by 0" / "checkpoints", tmp_path / "seen by 1" / "checkpoints"]
    saves = checkpoint.Checkpoints(folders[0], keep=3)
    kernels = {step: np.random.default_rng(step).normal(size=4096).astype(np.float32) for step in (1, 2, 3)}
    for step, kernel in kernels.items():
        saves.save(step, {"params": {"kernel": kernel}}, {})
    saves.close()
    shutil.copytree(folders[0], folders[1])
    flip_a_bit(folders[1] / "3")
    address = f"127.0.0.1:{free_port()}"
    children = [
        Forked(lost.restore, address, own, str(folder), environment={"XLA_FLAGS": ""})
        for own, folder in enumerate(folders)
    ]
    first, second = ended(children, timeout=60)
    assert (first[0], second[0]) == (0, 0), (first, second)
    printed = [each[1].splitlines()[-1] for each in (first, second)]  # after a line of the connection
    assert printed == [f"2 {float(kernels[2][7])}"] * 2
    assert f"the checkpoint of step 3 in {folders[0]} is damaged" in first[2]
    assert "that of step 2 is used instead" in first[2]
    assert checkpoint.saved_steps(folders[0]) == [1, 2]
    assert (folders[0].parent / checkpoint.DAMAGED / "3").is_dir()  # moved aside for both, whoever found it


@pytest.mark.slow
def test_a_step_that_is_bad_on_one_process_alone_ends_both_with_the_last_good_state(tmp_path):
    def run(folder, steps_of):
        address = f"--coordinator_address=127.0.0.1:{free_port()}"
        arguments = ["--config=configs/digits.py", f"--workdir={folder}", *fields(), address, "--num_processes=2"]
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {QUICK_COMPILES}"}
        return ended([
            Forked(lost.train_with_a_bad_step, [*arguments, f"--process_id={own}"], step, environment=flags)
            for own, step in enumerate(steps_of)
        ])  # fmt: skip

    folder = tmp_path / "run"
    outcomes = run(folder, [None, 5])
    assert [status for status, _, _ in outcomes] == [1, 1], outcomes
    found = "step 5 is not finite: the labels given to the network are not finite."
    for own, (_, _, said) in enumerate(outcomes):
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        begin = rf"error: (process {own} stops because process {1 - own} \(.*\) has stopped: )?{re.escape(found)}"
        assert re.match(begin, line), said
        assert f"The last good state, of step 4, is saved in {folder}" in line
        assert "Traceback" not in said
    assert checkpoint.saved_steps(folder / "checkpoints") == [4]
    assert [row["step"] for row in rows_of(folder)] == [1, 2, 3, 4]
    assert diverged.kept_steps(folder) == [5]
    labels = diverged.read_kept_step(folder).batch["labels"]
    assert np.isnan(labels).all(axis=1).tolist() == [False] * 16 + [True] * 16  # each process reads half of the batch

    assert [status for status, _, _ in run(folder, [None, None])] == [0, 0]
    assert [status for status, _, _ in run(tmp_path / "good", [None, None])] == [0, 0]
    assert outcome(folder) == outcome(tmp_path / "good")
