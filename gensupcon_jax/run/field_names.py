"""Hints for misspelled fields of the config."""

from gensupcon_jax.command_line import did_you_mean, nearest_fields
from gensupcon_jax.configs.fields import FIELDS


def hint(name: str) -> str:
    """The end of a message about an unknown field: the fields that were likely meant, or where to look."""
    members = [field for field in FIELDS if field.startswith(f"{name}.")]
    if members:
        return f"; it is a group of fields: {', '.join(members)}"
    close = nearest_fields(name, FIELDS)
    return f"; {did_you_mean(close)}" if close else "; see configs/fields.py for all fields"
