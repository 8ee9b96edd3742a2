"""The watchdog: what it watches, for how long, and what it says."""

import time
from typing import ClassVar

import pytest

from gensupcon_jax.cluster import processes, watchdog
from gensupcon_jax.cluster.watchdog import Limits, Watchdog
from gensupcon_jax.run import train
from tests.tiny import tiny_config, tiny_dataset


class Recorded(Watchdog):
    """Notes what is watched."""

    seen: ClassVar[list] = []

    def watch(self, kind, what):
        self.seen.append((kind, what))
        super().watch(kind, what)


def test_steps_evaluations_saves_and_the_report_are_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "Watchdog", Recorded)
    monkeypatch.setattr(Recorded, "seen", [])
    config = tiny_config(steps=2, **{"evaluate.every_epochs": 0, "checkpoint.every_epochs": 100.0})
    train.train_and_evaluate(config, tmp_path / "run", tiny_dataset())
    assert Recorded.seen == [
        ("saving", "reading the newest checkpoint"),
        ("step", "step 1"),
        ("saving", "saving step 1"),  # its row; the checkpoint comes later
        ("step", "step 2"),
        ("evaluation", "the evaluation after step 2"),
        ("saving", "saving step 2"),
        ("step", "step 3"),
        ("saving", "the last save, of step 2,"),
        ("evaluation", "the final evaluation"),
        ("report", "writing the report"),
    ]


@pytest.mark.parametrize("kind", Limits._fields)
def test_each_kind_of_work_has_its_own_limit_and_is_named(monkeypatch, capfd, kind):
    aborted = []
    monkeypatch.setattr(processes, "abort", lambda message, reason: aborted.append((message, reason)))
    other = next(each for each in Limits._fields if each != kind)
    with Watchdog(Limits()._replace(**{kind: 0.2, other: 100.0})) as watched:
        watched.watch(other, "something else")
        time.sleep(0.5)
        assert aborted == []
        watched.watch(kind, "the work")
        end = time.monotonic() + 20
        while not aborted and time.monotonic() < end:
            time.sleep(0.02)
    hangs = "the work has taken more than 0.2 seconds"
    again = "start the same command again; it resumes from the newest checkpoint"
    assert aborted[0] == (f"error: {hangs}; {again}", hangs)
    said = capfd.readouterr().err
    assert said.startswith(f"{hangs}; stacks of all threads:\n")
    assert "test_each_kind_of_work_has_its_own_limit_and_is_named" in said  # where the main thread is


def test_a_limit_of_ages_is_allowed(monkeypatch):
    real, timers = watchdog.faulthandler.dump_traceback_later, []
    monkeypatch.setattr(
        watchdog.faulthandler,
        "dump_traceback_later",
        lambda seconds, **settings: timers.append(seconds) or real(seconds, **settings),
    )
    monkeypatch.setattr(watchdog.processes, "abort", lambda *_, **__: timers.append("ended"))
    with Watchdog(Limits(step=1e12, evaluation=0.01)) as watched:  # the second one: the thread looks often
        watched.watch("step", "step 1")
        time.sleep(0.1)
    assert timers == [1e9]  # what C allows, and nothing was ended


def test_no_limit_is_any_time(monkeypatch):
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback_later", None)  # not even a timer
    before = watchdog.threading.enumerate()  # that of another test may be about to end
    with Watchdog(Limits()) as watched:
        watched.watch("evaluation", "the final evaluation")
        assert not [each for each in watchdog.threading.enumerate() if each.name == "watchdog" and each not in before]
