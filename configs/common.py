"""The default config, from the declarations in `fields.py`; a recipe starts from it and states its differences."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

from gensupcon_jax.configs.fields import FIELDS

# The changes of a recipe: field -> (value, its source).
Changes = dict[str, tuple[Any, str]]


def get_config() -> ConfigDict:
    """The authors' CIFAR recipe without the specifics of a data set."""
    config = ConfigDict()
    for name, field in FIELDS.items():
        # A reference to an object can be set to None, also on the command line: `--config.steps=None`.
        value = FieldReference(field.default, field_type=object) if field.is_optional else field.default
        group, _, last = name.rpartition(".")
        if group and group not in config:
            config[group] = ConfigDict()
        (config[group] if group else config)[last] = value
    return config


def changed(changes: Changes) -> ConfigDict:
    """The default config with the values of a recipe; AttributeError for an unknown field."""
    config = get_config().lock()
    for name, (value, _) in changes.items():
        group, _, last = name.rpartition(".")
        setattr(config[group] if group else config, last, value)
    return config.unlock()
