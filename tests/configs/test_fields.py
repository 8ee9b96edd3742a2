"""A field is declared once: the config, its check, the docs and the fuzz test's values all come from the declaration."""

import re

import pytest
from ml_collections.config_dict import FieldReference

from docs import ledger
from gensupcon_jax.configs import common, fields
from gensupcon_jax.configs.fields import FIELDS, GROUPS, Field
from gensupcon_jax.configs.rules import number
from gensupcon_jax.errors import UserError
from gensupcon_jax.run.config_check import check_config, rule_of
from gensupcon_jax.text import flatten
from gensupcon_jax.views import augment, policies
from tests.run import test_config_fuzz


def test_the_config_has_every_field_with_its_default_and_each_default_is_allowed():
    assert flatten(common.get_config().to_dict()) == {name: field.default for name, field in FIELDS.items()}
    assert [name for name, field in FIELDS.items() if not rule_of(name).allows(field.default)] == []


def test_every_declaration_is_complete():
    for name, field in FIELDS.items():
        assert name.rpartition(".")[0] in GROUPS, name
        assert len(field.meaning) > 3, name
        assert field.meaning[-1] != ".", name
        assert re.match(r"(paper|authors' code|ours)\b", field.source), name


def test_a_field_that_may_be_none_takes_none_and_numbers_and_the_others_keep_their_type():
    config = common.get_config()
    assert isinstance(config.get_ref("steps"), FieldReference)
    config.steps, config.loss.base_temperature = 5, None
    config.steps = None
    config.epochs = 3  # a whole number for a float becomes one
    assert type(config.epochs) is float
    for name, value in (("batch_size", 2.5), ("seed", "x"), ("objective", 3)):
        with pytest.raises(TypeError):
            config[name] = value


def test_a_recipe_states_its_differences_with_their_sources():
    config = common.changed({"epochs": (2.0, "ours"), "mix.kind": ("cutmix", "paper"), "steps": (7, "ours")})
    expected = common.get_config()
    expected.epochs, expected.mix.kind, expected.steps = 2.0, "cutmix", 7
    assert config == expected
    with pytest.raises(AttributeError, match="epoch"):
        common.changed({"epoch": (2.0, "ours")})
    with pytest.raises(AttributeError, match="kid"):
        common.changed({"mix.kid": ("cutmix", "ours")})


def test_a_new_field_is_one_declaration(monkeypatch):
    field = Field(
        0.25, number(0, 1), "share of the patches that are hidden", "patches", "ours, as MAE (arXiv 2111.06377)"
    )
    monkeypatch.setitem(FIELDS, "augment.hidden_share", field)
    monkeypatch.setattr(test_config_fuzz, "VALUES", test_config_fuzz.values_of_fields())

    config = common.get_config()
    assert config.augment.hidden_share == 0.25
    check_config(config)
    config.augment.hidden_share = 1.5
    with pytest.raises(UserError) as error:
        check_config(config)
    assert str(error.value) == "augment.hidden_share is 1.5; allowed: a number from 0 to 1"
    row = (
        "| `augment.hidden_share` | `0.25` | a number from 0 to 1 | share of the patches that are hidden | patches "
        "| ours, as MAE (arXiv 2111.06377) | no |"
    )
    assert row in ledger.field_tables().splitlines()
    row = "| `augment.hidden_share` | `0.25` | ours, as MAE (arXiv 2111.06377) |"
    assert row in ledger.recipe_tables().splitlines()
    good, bad = test_config_fuzz.VALUES["augment.hidden_share"]
    assert 0.5 in good
    assert 1.01 in bad


def test_the_names_of_a_choice_are_in_the_declaration_only():
    assert fields.names_of("mix.kind") == ("none", "mixup", "cutmix", "mixup_cutmix")
    assert set(augment.AUTO_POLICIES) == {"auto", *policies.AUTO_TABLES}
