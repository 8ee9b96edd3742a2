"""A misspelled field gets the likely fields as a hint."""

import pytest

from gensupcon_jax.run.field_names import hint


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("loss.temprature", "did you mean loss.temperature?"),  # nearly a field
        ("lr", "did you mean optimizer.learning_rate?"),  # its usual name
        ("optimizer.lr", "did you mean optimizer.learning_rate?"),
        ("temperature", "did you mean loss.temperature or teacher.temperature?"),  # its last part
        ("losses.temperature", "did you mean loss.temperature?"),
        ("batch_size", "did you mean batch_size?"),  # the field itself before evaluate.batch_size
        ("momentun", "did you mean momentum_encoder.momentum or optimizer.momentum?"),
        ("mix", "it is a group of fields: mix.kind, mix.alpha, mix.per, mix.views, mix.block"),
        ("optimizer.nonsense", "see configs/fields.py for all fields"),
        ("foo", "see configs/fields.py for all fields"),
    ],
)
def test_a_near_miss_gets_a_hint(name, found):
    assert hint(name) == f"; {found}"
