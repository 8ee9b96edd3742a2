"""A signal ends a run between two steps, saved, with status 0; the same command resumes there."""

import os
import re
import signal
from types import SimpleNamespace

import pytest

from gensupcon_jax.cluster import processes
from gensupcon_jax.cluster.stopping import StopRequest, stop_requests
from gensupcon_jax.errors import RunStopped
from tests.running import ended, rows_of, start, wait_for_rows


@pytest.fixture(autouse=True)
def handlers():
    """Of several processes, of which a test here is one, SIGTERM keeps the handler until they end."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def stopped_by(number, folder, num_rows):
    """The step that was saved, and what was said, of a run that got the signal when it had so many rows."""
    process = start(folder, {"steps": 200})
    wait_for_rows(folder, num_rows)
    process.send_signal(number)
    ((status, _, said),) = ended([process])
    assert status == 0, said
    assert "Traceback" not in said
    step = int(re.match(rf"{number.name}: saved step (\d+) of 200;", said.splitlines()[-1])[1])
    assert (folder / "checkpoints" / str(step)).is_dir()
    assert rows_of(folder)[-1]["step"] == step
    return step, said


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_resumes(tmp_path):
    first, _ = stopped_by(signal.SIGINT, tmp_path, 2)
    second, said = stopped_by(signal.SIGTERM, tmp_path, first + 2)
    assert f"resumes at step {first} of 200 steps" in said
    assert 1 <= first < second < 200
    ((status, printed, said),) = ended([start(tmp_path, {"steps": 200})])
    assert status == 0, said
    assert f"resumes at step {second} of 200 steps" in said
    assert "report:" in printed
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(1, 201))  # no gap, none twice


def test_the_second_sigint_stops_at_once():
    with pytest.raises(KeyboardInterrupt), stop_requests() as request, request.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        assert request.is_due()
        assert request.signal_name == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_nobody_has_looked_for_ends_the_run_when_everything_is_saved():
    with pytest.raises(RunStopped, match="SIGTERM: nothing is lost"), stop_requests() as request, request.deferred():
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_work_that_changes_nothing(number):
    with pytest.raises(RunStopped), stop_requests() as request, request.deferred():
        assert request.abandonable(lambda: 7, str) == 7
        assert not request.is_due()
        assert request.abandonable(lambda: signal.raise_signal(number) or pytest.fail("it goes on"), str) is None
        assert request.is_due()
        assert request.signal_name == number.name
        assert request.abandonable(lambda: pytest.fail("it begins"), str) is None
        signal.raise_signal(signal.SIGTERM)  # is only recorded again
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_work_of_several_processes_is_finished(monkeypatch):
    stop = SimpleNamespace(ask=lambda _: None)
    monkeypatch.setattr(processes, "group", lambda: SimpleNamespace(num_processes=2, stop=stop))
    request = StopRequest()
    with pytest.raises(RunStopped), request.deferred():
        assert request.abandonable(lambda: request.remember(signal.SIGINT, None) or 7, str) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_nothing_is_unsaved_ends_the_run_at_once(number):
    with pytest.raises(RunStopped, match="nothing is lost; the same command resumes"), stop_requests():
        os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_one_of_several_processes_stops_at_its_own_signal_only_when_the_others_do(monkeypatch):
    asked, answers = [], iter([None, None, "SIGINT"])
    stop = SimpleNamespace(reached=lambda: next(answers), ask=asked.append)
    monkeypatch.setattr(processes, "group", lambda: SimpleNamespace(num_processes=2, stop=stop))
    request = StopRequest()
    with pytest.raises(RunStopped), request.deferred():
        assert not request.is_due()
        request.remember(signal.SIGINT, None)
        assert asked == ["SIGINT"]
        assert not request.is_due()  # at this count they do not know of it yet
        assert request.is_due()
        assert request.signal_name == "SIGINT"


def test_an_own_sigint_after_that_of_another_process_is_the_first_one(monkeypatch):
    stop = SimpleNamespace(reached=lambda: "SIGINT", ask=lambda _: None)
    monkeypatch.setattr(processes, "group", lambda: SimpleNamespace(num_processes=2, stop=stop))
    request = StopRequest()
    with pytest.raises(RunStopped), request.deferred():
        assert request.is_due()
        request.remember(signal.SIGINT, None)  # Ctrl-C in a terminal goes to both, here a moment later
        with pytest.raises(KeyboardInterrupt):
            request.remember(signal.SIGINT, None)
