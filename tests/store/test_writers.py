"""Writers of metrics: added from outside the package, chosen by name or passed as a function; wandb only on request."""

import sys
import types

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.store import writers
from gensupcon_jax.store.metrics import read_metrics
from gensupcon_jax.store.writers import MetricsWriter


class Kept:
    """A writer from outside the package, which keeps all rows."""

    def __init__(self, settings):
        self.settings, self.rows, self.is_closed = settings, [], False

    def write(self, step, values):
        self.rows.append((step, values))

    def close(self):
        self.is_closed = True


def test_a_writer_from_outside_gets_every_row_and_earlier_ones(tmp_path, monkeypatch):
    made = []
    monkeypatch.setitem(writers.WRITERS, "kept", lambda settings: made.append(Kept(settings)) or made[-1])
    for start_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        writer = MetricsWriter(tmp_path, start_step, {"seed": 7}, ("kept",))
        for step in steps:
            writer.write(step, {"loss": float(step)})
        writer.close()
    first, second = made
    assert first.rows == [(1, {"loss": 1.0}), (2, {"loss": 2.0}), (3, {"loss": 3.0})]
    assert second.rows == [(3, {"loss": 3.0}), (4, {"loss": 4.0})]
    assert second.settings.rows == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]
    assert (second.settings.workdir, second.settings.config) == (tmp_path, {"seed": 7})
    assert first.is_closed and second.is_closed
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_sentences_are_kept_in_the_file_and_withheld_from_writers_of_numbers(tmp_path):
    rows = []
    writer = MetricsWriter(tmp_path, 0, {}, (lambda step, values: rows.append((step, values)),))
    writer.write(1, {"loss": 2.0, "advice": ["loss at chance level: raise it"]})
    writer.close()
    assert rows == [(1, {"loss": 2.0})]
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0, "advice": ["loss at chance level: raise it"]}]
    resumed = MetricsWriter(tmp_path, 1, {})
    resumed.close()
    assert read_metrics(tmp_path)[0]["advice"] == ["loss at chance level: raise it"]


def test_a_function_gets_every_row(tmp_path):
    rows = []
    writer = MetricsWriter(tmp_path, 0, {}, (lambda step, values: rows.append((step, values)),))
    writer.write(1, {"loss": 2.0})
    writer.close()
    assert rows == [(1, {"loss": 2.0})]


def test_an_unknown_writer_is_an_error():
    with pytest.raises(UserError) as error:
        writers.check_writers(("wandb_", print))
    assert str(error.value) == "writers has 'wandb_'; allowed: tensorboard, wandb, or a function of step and values"


def test_wandb_that_is_not_installed_is_an_error(monkeypatch):
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        writers.check_writers(("wandb",))
    assert str(error.value) == "the writer wandb needs the package wandb; install it with: pip install wandb"


def test_wandb_resumes_its_run_and_is_imported_only_on_request(tmp_path, monkeypatch):
    MetricsWriter(tmp_path, 0, {}).close()
    assert "wandb" not in sys.modules
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", step, values)), finish=lambda: calls.append("finish")
    )
    package = types.SimpleNamespace(init=lambda **settings: calls.append(settings) or run)
    monkeypatch.setitem(sys.modules, "wandb", package)
    for _ in range(2):
        writer = MetricsWriter(tmp_path, 0, {"seed": 1}, ("wandb",))
        writer.write(1, {"loss": 2.0})
        writer.close()
    assert calls[:3] == calls[3:]
    assert calls[1:3] == [("log", 1, {"loss": 2.0}), "finish"]
    assert calls[0]["name"] == tmp_path.name
    assert (calls[0]["config"], calls[0]["resume"]) == ({"seed": 1}, "allow")
