"""A command owns SIGINT and SIGTERM: small processes of the standard library, stopped where it is difficult."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from gensupcon_jax import signals
from tests import ROOT

STOPS = [signal.SIGINT, signal.SIGTERM]
# The middle of a command: it says "ready" where the signal is to come, and what happens to it afterwards.
PROGRAM = """
import hashlib, os, signal, sys, threading, time
from gensupcon_jax import signals
from gensupcon_jax.errors import StoppedBetween
def ready(): print("ready", flush=True)
def compute(iterations):  # in C, without Python's lock, as XLA compiles: no handler runs
    hashlib.pbkdf2_hmac("sha256", b"", b"", iterations)
signals.own_process()
try:
{body}
except StoppedBetween as error:
    print("closed", flush=True)
    signals.stopped(error)
"""


def started(body, *, cwd=ROOT, **settings):
    """A process that has said "ready"."""
    program = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def stopped(process, *numbers, between=0.3):
    """(status, stdout, stderr) after these signals."""
    for index, number in enumerate(numbers):
        time.sleep(between if index else 0.05)
        process.send_signal(number)
    printed, said = process.communicate(timeout=60)
    return process.returncode, printed, said


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_closes_the_files_and_ends_in_one_line(number):
    process = started("""
        try:
            ready(); time.sleep(60)
        finally:
            print("file closed")
    """)
    line = f"{number.name}: nothing is lost; the same command starts again\n"
    assert stopped(process, number) == (128 + number, "file closed\nclosed\n", line)


def test_where_nothing_handles_the_exception_it_ends_in_one_line_too():
    program = "from gensupcon_jax import signals; signals.own_process(); print('ready', flush=True); import time; time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    assert stopped(process, signal.SIGINT) == (130, "", f"SIGINT: {signals.AGAIN}\n")


@pytest.mark.parametrize("module", ["gensupcon_jax.main", "gensupcon_jax.__main__"])
def test_nothing_that_takes_long_is_imported_before_the_signals_are_owned(module):
    program = f"""
import runpy, sys
from gensupcon_jax import signals
def own_process(training=None):
    print(*sorted({{"argparse", "difflib", "shutil", "jax"}} & set(sys.modules)))
    sys.exit()
signals.own_process = own_process
runpy.run_module({module!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("gensupcon_jax.main", ["digits", "--stopped_status=85"]),
        ("gensupcon_jax.__main__", ["train", "--stopped_status=85"]),
    ],
)
def test_a_training_promises_its_status_as_soon_as_it_owns_the_signals(module, arguments):
    program = f"""
import os, runpy, sys, time
from gensupcon_jax import signals
own_process = signals.own_process
def own_and_stop(training=None):
    own_process(training)
    os.kill(os.getpid(), 15)
    time.sleep(60)
signals.own_process = own_and_stop
sys.argv = ["gensupcon", *{arguments}]
runpy.run_module({module!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (85, "", f"SIGTERM: {signals.RESUMES}\n")


def test_what_is_promised_is_said_with_its_status():
    process = started('signals.promise("all is well", 85); ready(); time.sleep(60)')
    assert stopped(process, signal.SIGTERM) == (85, "closed\n", "SIGTERM: all is well\n")


@pytest.mark.parametrize("number", STOPS)
def test_a_main_thread_that_computes_in_c_is_not_waited_for(number):
    process = started("""
        with signals.cleanup(lambda: print("cleaned up")):
            ready(); compute(10**9)
    """)
    status, printed, said = stopped(process, number)
    assert (status, printed) == (128 + number, "cleaned up\n")
    assert said == f"{number.name}: {signals.AGAIN}\n"


def test_nothing_is_raised_inside_an_import_but_right_after_it(tmp_path):
    # As C++ that is set up by an import: what is raised here is lost.
    (tmp_path / "quick.py").write_text(
        "import time\ntry:\n    print('ready', flush=True)\n    end = time.monotonic() + 0.5\n"
        "    while time.monotonic() < end: pass\nexcept BaseException as error:\n    print('raised', flush=True)\n"
    )
    process = started("import quick; time.sleep(60)", cwd=tmp_path)
    status, printed, said = stopped(process, signal.SIGINT)
    assert (status, printed) == (130, "closed\n")
    assert said == f"SIGINT: {signals.AGAIN}\n"


def test_an_event_loop_logs_no_traceback():
    process = started("""
        import asyncio
        def callback():
            ready()
            end = time.monotonic() + 0.5
            while time.monotonic() < end: pass
        async def main():
            asyncio.get_running_loop().call_soon(callback)
            await asyncio.sleep(1)
        asyncio.run(main())
        time.sleep(60)
    """)
    assert stopped(process, signal.SIGTERM) == (143, "closed\n", f"SIGTERM: {signals.AGAIN}\n")


def test_a_file_that_is_half_written_is_removed(tmp_path):
    process = started(f"""
        from pathlib import Path
        from gensupcon_jax import paths
        with paths.whole_file(Path({str(tmp_path)!r}, "x.npz")) as unfinished:
            unfinished.write_text("half")
            ready(); compute(10**9)
    """)
    assert [path.suffix for path in tmp_path.iterdir()] == [".unfinished"]
    assert stopped(process, signal.SIGTERM) == (143, "", f"SIGTERM: {signals.AGAIN}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ignored", STOPS)
def test_what_the_parent_ignores_is_ignored(ignored):
    # As a shell has it for `command &` in a script: Ctrl-C is for what is in the foreground.
    (other,) = (number for number in STOPS if number != ignored)
    body = f"""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside threads
        child = os.fork()
        if child == 0:
            signal.raise_signal({ignored.value}); os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        ready(); time.sleep(60)
    """
    process = started(body, preexec_fn=lambda: signal.signal(ignored, signal.SIG_IGN))
    line = f"{other.name}: {signals.AGAIN}\n"
    assert stopped(process, ignored, other, between=1.5) == (128 + other, "closed\n", line)


def test_an_import_that_takes_long_is_not_waited_for(tmp_path):
    (tmp_path / "long.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    process = started("import long", cwd=tmp_path)
    assert stopped(process, signal.SIGTERM) == (143, "", f"SIGTERM: {signals.AGAIN}\n")


def test_an_exception_that_python_drops_is_raised_again():
    process = started("""
        class Deleted:
            def __del__(self):
                ready(); time.sleep(0.5)
        deleted = Deleted()
        del deleted
        time.sleep(60)
    """)
    assert stopped(process, signal.SIGTERM) == (143, "closed\n", f"SIGTERM: {signals.AGAIN}\n")


def test_a_library_that_swallows_the_exception_does_not_swallow_the_end():
    process = started("""
        try:
            ready(); time.sleep(60)
        except BaseException:
            time.sleep(60)
    """)
    began = time.monotonic()
    assert stopped(process, signal.SIGINT) == (130, "", f"SIGINT: {signals.AGAIN}\n")
    assert time.monotonic() - began < 30


def test_two_signals_in_a_row_raise_once():
    process = started("""
        try:
            ready(); time.sleep(60)
        finally:
            time.sleep(0.5); print("file closed")
    """)
    status, printed, said = stopped(process, signal.SIGINT, signal.SIGINT, between=0.1)
    assert (status, printed, said) == (130, "file closed\nclosed\n", f"SIGINT: {signals.AGAIN}\n")


def test_the_third_signal_waits_for_nothing():
    process = started("""
        try:
            ready(); time.sleep(60)
        finally:
            with signals.unbroken():
                time.sleep(60)
    """)
    assert stopped(process, *[signal.SIGINT] * 3) == (130, "", f"SIGINT: {signals.AGAIN}\n")


REMEMBERS = """
    def remember(number, frame):
        if remembered and number == signal.SIGINT: raise KeyboardInterrupt
        remembered.append(number)
    remembered = []
    signals.owner().remember_fn = remember
"""


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_what_is_to_be_saved_is_saved_also_after_a_long_computation(numbers):
    process = started(
        REMEMBERS
        + "    ready(); compute(8 * 10**6); print(*remembered); signals.finished(); print('saved'); sys.exit(0)"
    )
    assert stopped(process, *numbers) == (0, f"{numbers[0].value}\nsaved\n", "")


def test_a_second_sigint_saves_nothing_more():
    in_python = started(
        REMEMBERS
        + "    ready()\n    try: time.sleep(60)\n    except KeyboardInterrupt: print('interrupted'); sys.exit(1)"
    )
    assert stopped(in_python, signal.SIGTERM, signal.SIGINT) == (1, "interrupted\n", "")
    in_c = started(REMEMBERS + "    ready(); compute(10**9)")
    assert stopped(in_c, signal.SIGINT, signal.SIGINT) == (1, "", f"{signals.INTERRUPTED}\n")
    in_a_save = started(
        REMEMBERS
        + "    ready()\n    try:\n        with signals.unbroken(): compute(8 * 10**6)\n"
        + "    except KeyboardInterrupt: print('written'); sys.exit(1)"
    )
    assert stopped(in_a_save, signal.SIGINT, signal.SIGINT) == (1, "written\n", "")


# Work that changes nothing, while there is something to save.
ABANDONS = (
    REMEMBERS
    + """
    begun = []
    def save():
        begun.append(1)
        time.sleep({save_seconds})
        print("saved by a thread", flush=True)
        return "saved"
    owner = signals.owner()
    signals.promise("not said", 0)
    try:
        owner.abandons(save)
        {work}
    except StoppedBetween:
        print("abandoned")
    owner.goes_on(remember)
    if owner.is_remembered: print("went on")
"""
)


def abandons(work, *, save_seconds=0):
    return started(ABANDONS.format(work=work, save_seconds=save_seconds) + "    signals.finished(); sys.exit(0)")


@pytest.mark.parametrize("number", STOPS)
def test_work_that_changes_nothing_is_ended_before_the_save(number):
    process = abandons("ready(); time.sleep(60)")
    assert stopped(process, number) == (0, "abandoned\nwent on\n", "")


def test_after_such_work_a_signal_is_remembered():
    body = ABANDONS.format(work="pass", save_seconds=0)
    process = started(
        body + "    ready(); time.sleep(1); print(*remembered, flush=True); signals.finished(); sys.exit(0)"
    )
    assert stopped(process, signal.SIGTERM) == (0, "15\n", "")


@pytest.mark.parametrize("number", STOPS)
def test_where_such_work_computes_in_c_another_thread_saves(number):
    process = abandons("ready(); compute(10**9)")
    assert stopped(process, number) == (0, "saved by a thread\n", f"{number.name}: saved\n")


def test_a_main_thread_that_comes_while_the_other_one_saves_waits_for_the_end():
    process = abandons(
        "ready(); signals.owner().num_uninterrupted += 1\n        while not begun: time.sleep(0.01)", save_seconds=1
    )
    assert stopped(process, signal.SIGTERM) == (0, "saved by a thread\n", "SIGTERM: saved\n")


def test_what_another_thread_cannot_save_is_said():
    process = abandons("ready(); compute(10**9)", save_seconds="1 / 0")
    assert stopped(process, signal.SIGTERM) == (1, "", "error: division by zero\n")


def test_the_third_signal_does_not_wait_for_the_other_thread():
    process = abandons("ready(); compute(10**9)", save_seconds=60)
    status, printed, said = stopped(process, *[signal.SIGTERM] * 3, between=1)
    assert (status, printed, said) == (1, "", f"{signals.INTERRUPTED}\n")


def test_an_instant_is_not_interrupted():
    process = started("""
        with signals.uninterrupted():
            ready()
            end = time.monotonic() + 0.5
            while time.monotonic() < end: pass
            print("made")
        time.sleep(60)
    """)
    assert stopped(process, signal.SIGTERM) == (143, "made\nclosed\n", f"SIGTERM: {signals.AGAIN}\n")


def test_one_line_is_said_where_the_main_thread_comes_while_the_other_one_ends_the_process():
    process = started("""
        begun = threading.Event()
        with signals.cleanup(lambda: begun.set() or time.sleep(0.5)), signals.uninterrupted():
            ready()
            while not begun.is_set(): time.sleep(0.01)
        signals.finished()
        print("a second line", file=sys.stderr, flush=True)
        time.sleep(60)
    """)
    assert stopped(process, signal.SIGTERM) == (143, "", f"SIGTERM: {signals.AGAIN}\n")


@pytest.mark.parametrize(
    "hindrance",
    [
        "signals.owner().cleanups.append(lambda: time.sleep(600))",  # a disk that does not answer
        "threading.Thread.start = lambda thread: refuse()",  # no more threads
    ],
)
def test_nothing_hinders_the_end_nor_that_others_are_told(hindrance):
    process = started(f"""
        def refuse(): raise RuntimeError("can't start new thread")
        signals.owner().tell_fn = lambda: print("told", signals.owner().ending_status)
        {hindrance}
        ready(); compute(10**9)
    """)
    assert stopped(process, signal.SIGTERM) == (143, "told 143\n", f"SIGTERM: {signals.AGAIN}\n")


def test_what_the_exception_left_is_removed_before_the_end():
    """It may come between two callbacks of an ExitStack, which then calls no further one."""
    process = started("""
        signals.owner().cleanups.append(lambda: print("removed", flush=True))
        ready(); time.sleep(60)
    """)
    assert stopped(process, signal.SIGTERM) == (143, "closed\nremoved\n", f"SIGTERM: {signals.AGAIN}\n")


def test_what_was_saved_is_said_at_another_signal_too():
    process = started('signals.promise("lost", 85); signals.has_saved("saved step 5"); ready(); time.sleep(60)')
    assert stopped(process, signal.SIGTERM) == (85, "closed\n", "SIGTERM: saved step 5\n")


def test_after_the_end_signals_change_nothing():
    process = started("signals.finished(); ready(); time.sleep(1); print('done'); sys.exit(3)")
    assert stopped(process, *STOPS) == (3, "done\n", "")


def test_a_child_has_the_handlers_of_a_new_process():
    process = started("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside threads
        ready()
        child = os.fork()
        if child == 0:
            time.sleep(60); os._exit(0)
        os.kill(child, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signals.owner() is not None)
        signals.finished()
    """)
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed, said) == (0, "-15 True\n", "")


def test_standard_output_that_nobody_reads_is_not_waited_for():
    process = started("""
        def fill():
            while True: os.write(1, b"x" * 65536)
        threading.Thread(target=fill, daemon=True).start()
        sys.stdout.write("y" * 4096)
        ready_now = time.sleep(0.5)
    """.replace("def fill", "ready()\n        def fill").replace("ready_now = time.sleep(0.5)", "time.sleep(60)"))  # fmt: skip
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143


def test_a_program_of_others_keeps_its_handlers(monkeypatch):
    monkeypatch.setattr(signals, "_process", None)  # another test may have called the program in this process
    before = [signal.getsignal(number) for number in STOPS]
    with signals.cleanup(lambda: None), signals.unbroken(), signals.uninterrupted():
        signals.promise("nothing")
        signals.finished()
    assert [signal.getsignal(number) for number in STOPS] == before


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["digits"], 0),
        (["digits", "--stopped_status=85"], 85),
        (["digits", "--stopped-status", "7", "--wandb"], 7),
        (["digits", "--stopped_status", "none"], 0),
        ([], 0),
        (["--stopped_status=85", "--stopped_status=86"], 86),
        (["stopped_status=85", "--stopped_status"], 0),
    ],
)
def test_the_status_of_a_stop_is_known_before_the_arguments_are_read(arguments, status):
    assert signals.stopped_status(arguments) == status
