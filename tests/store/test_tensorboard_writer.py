"""TensorBoard events: every row once, also after a kill."""

import io
import re
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_ndarray

from gensupcon_jax.errors import UserError
from gensupcon_jax.store.tensorboard_writer import EventWriter
from gensupcon_jax.store.writers import MetricsWriter


def shown(folder, name):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(name)]


def test_metrics_reach_tensorboard(tmp_path):
    writer = MetricsWriter(tmp_path, 0, {})
    writer.write(5, {"train/loss": 2.5})
    writer.close()
    assert shown(tmp_path / "tensorboard", "train/loss") == [(5, 2.5)]


def test_rows_after_the_resumed_step_are_dropped(tmp_path):
    for start_step, steps, value in ((0, (1, 2, 3, 4), 1.0), (2, (3, 4, 5), 2.0)):
        writer = MetricsWriter(tmp_path, start_step, {})
        for step in steps:
            writer.write(step, {"train/loss": value})
        if start_step:
            writer.close()  # the first one is killed: what it had buffered for TensorBoard is lost
    expected = [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]
    assert shown(tmp_path / "tensorboard", "train/loss") == expected


def test_values_that_are_not_finite_are_omitted_from_kept_rows(tmp_path):
    writer = EventWriter(tmp_path, [{"step": 1, "loss": 2.0, "norm": None}, {"step": 2, "loss": 1.0, "norm": 3.0}])
    writer.write(3, {"norm": 4.0, "loss": None})
    writer.close()
    assert shown(tmp_path, "loss") == [(1, 2.0), (2, 1.0)]
    assert shown(tmp_path, "norm") == [(2, 3.0), (3, 4.0)]


def test_a_full_disk_is_an_error_of_one_line(tmp_path):
    writer = EventWriter(tmp_path, [])
    writer._writer._records = RecordWriter(io.FileIO("/dev/full", "w"))
    with pytest.raises(UserError) as raised:
        writer.write(1, {"loss": 1.0})
    assert re.fullmatch(
        rf"the TensorBoard events in {tmp_path} cannot be written \(No space left on device; .* are free\); "
        "free some space and start the same command again",
        str(raised.value),
    )


def test_a_row_can_be_read_as_soon_as_it_is_written(tmp_path):
    writer = EventWriter(tmp_path, [{"step": 1, "loss": 2.0}])
    writer.write(2, {"loss": 1.0})
    assert shown(tmp_path, "loss") == [(1, 2.0), (2, 1.0)]
    writer.close()


def test_events_are_written_without_importing_tensorflow(tmp_path):
    script = (
        "import sys; from gensupcon_jax import paths; from gensupcon_jax.store.tensorboard_writer import EventWriter; "
        f"writer = EventWriter(paths.as_path({str(tmp_path)!r}), []); writer.write(1, dict(loss=2.0)); writer.close(); "
        "print('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"
    assert shown(tmp_path, "loss") == [(1, 2.0)]
