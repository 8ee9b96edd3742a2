"""The record of a checkpoint: of which run it is, also where fields changed or the run became longer."""

import json

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.extension import Extension
from gensupcon_jax.run.record import new_record, resumed_record
from gensupcon_jax.store import changes
from tests.tiny import tiny_config


def record_of(*extensions, **changed):
    history = [changes.Start("", 0, "", {}, list(each)) for each in extensions]
    return json.loads(json.dumps(new_record(tiny_config(**changed), {"teacher": None}, history)))


def test_a_checkpoint_with_other_free_fields_is_resumed(tmp_path):
    then = record_of(log_steps=9) | {"step": 3, "best": {"step": 2}}
    assert resumed_record(record_of(), then, tmp_path)["best"] == {"step": 2}
    with pytest.raises(UserError, match=r"the checkpoint of step 3 in .* was saved with a different config"):
        resumed_record(record_of(), record_of(seed=9) | {"step": 3, "best": None}, tmp_path)


def test_a_checkpoint_of_before_there_was_a_history_is_one_line(tmp_path):
    then = record_of() | {"step": 3, "best": None}
    del then["history"], then["config"]["optimizer"]["extension"]
    with pytest.raises(UserError, match=r"different length.*config_history\.json"):
        resumed_record(record_of(), then, tmp_path)


@pytest.mark.parametrize(("step", "is_resumed"), [(4, True), (6, True), (7, False)])
def test_a_checkpoint_of_the_shorter_run_is_resumed_up_to_its_end(tmp_path, step, is_resumed):
    longer = record_of(Extension(6, 9, "constant"), steps=9, **{"optimizer.extension": "constant"})
    then = record_of(steps=6) | {"step": step, "best": None}
    if is_resumed:
        assert resumed_record(longer, then, tmp_path)["config"]["steps"] == 9
    else:
        with pytest.raises(UserError, match=r"different length.*config_history\.json"):
            resumed_record(longer, then, tmp_path)


def test_a_checkpoint_of_a_run_that_became_longer_otherwise_is_refused(tmp_path):
    fields = {"steps": 9, "optimizer.extension": "constant"}
    longer = record_of(Extension(6, 9, "constant"), **fields)
    assert resumed_record(
        longer, record_of(Extension(6, 9, "constant"), **fields) | {"step": 8, "best": None}, tmp_path
    )
    with pytest.raises(UserError, match=r"different length.*config_history\.json"):
        resumed_record(longer, record_of(Extension(5, 9, "constant"), **fields) | {"step": 8, "best": None}, tmp_path)
