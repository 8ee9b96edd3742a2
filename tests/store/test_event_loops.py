"""A save or a restoration that fails is one error: what orbax started beside it has ended, and says nothing later."""

import asyncio
import gc
import resource
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src import asyncio_utils

from gensupcon_jax.errors import UserError
from gensupcon_jax.store import event_loops
from gensupcon_jax.store.checkpoint import Checkpoints, saved_steps
from tests.store.test_checkpoint import restore, write

ended = []


async def fails_at_once():
    raise OSError("no space")


async def ends_later(name):
    await asyncio.sleep(0.05)
    ended.append(name)


async def starts_one_more():
    await asyncio.sleep(0.01)
    asyncio.ensure_future(ends_later("of another"))  # noqa: RUF006
    raise OSError("no space either")


async def several():
    await asyncio.gather(ends_later("first"), fails_at_once(), starts_one_more(), ends_later("last"))


def test_what_was_started_beside_a_failure_has_ended_before_it_is_raised(caplog):
    event_loops.wait_for_all_tasks()
    event_loops.wait_for_all_tasks()  # as often as one likes
    ended.clear()
    with pytest.raises(OSError, match=r"no space$"):
        asyncio_utils.run_sync(several())
    assert sorted(ended) == ["first", "last", "of another"]
    gc.collect()
    assert caplog.text == ""  # no "Task exception was never retrieved"


def many_arrays():
    """Many small ones, which are written at the same time."""
    rng = np.random.default_rng(0)
    return {f"array{number}": jnp.asarray(rng.normal(size=(40, 40)).astype(np.float32)) for number in range(40)}


def test_a_save_for_which_there_is_no_space_reports_to_no_closed_loop(tmp_path, capfd, caplog):
    fields = many_arrays()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    capfd.readouterr()
    for number, limit in enumerate((500, 5_000, 20_000, 50_000)):
        checkpoints = Checkpoints(tmp_path / str(number), keep=2)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(UserError, match=r"cannot be written .*File too large"):
                checkpoints.save(1, fields, {})
                checkpoints.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert saved_steps(tmp_path / str(number)) == []
    signal.signal(signal.SIGXFSZ, handler)
    gc.collect()
    time.sleep(0.2)  # for threads that would still report
    assert (
        "Event loop is closed" not in capfd.readouterr().err
    )  # what orbax logs by itself, `start.log_with` leaves out
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_restoration_that_fails_says_nothing_but_its_warning(tmp_path, capfd, caplog):
    folder = write(tmp_path / "c", steps=(1, 2))
    for path in (folder / "2" / "state").rglob("d/*"):
        path.unlink()
    capfd.readouterr()
    assert restore(folder).step == 1
    gc.collect()
    printed = capfd.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith(f"warning: the checkpoint of step 2 in {folder} is damaged")
    assert not [record for record in caplog.records if record.name == "asyncio"]
